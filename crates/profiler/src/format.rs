//! The forms in which a profile is written.

use std::str::FromStr;

use crate::{
    error::ProfileError,
    flamegraph, pprof,
    profile::{IDLE, Profile},
    speedscope,
};

/// The form in which a profile is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A flame graph to look at and search in, in any browser.
    Svg,
    /// Protobuf, gzipped, as pprof reads it.
    Pprof,
    /// A stack a line.
    Collapsed,
    /// JSON, for <https://www.speedscope.app>.
    Speedscope,
}

impl Format {
    /// All forms.
    pub const ALL: [Self; 4] = [Self::Svg, Self::Pprof, Self::Collapsed, Self::Speedscope];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Pprof => "pprof",
            Self::Collapsed => "collapsed",
            Self::Speedscope => "speedscope",
        }
    }

    /// What answers say that they are.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Svg => "image/svg+xml",
            Self::Pprof => "application/octet-stream",
            Self::Collapsed => "text/plain; charset=utf-8",
            Self::Speedscope => "application/json",
        }
    }

    /// Whether `written`, a profile in this form, is of an idle process.
    pub fn is_idle(self, written: &[u8]) -> bool {
        match self {
            Self::Pprof => Profile::read(written).is_ok_and(|profile| profile.is_idle()),
            Self::Collapsed => written.starts_with(b"[idle] 0"),
            Self::Svg | Self::Speedscope => String::from_utf8_lossy(written).contains(IDLE),
        }
    }

    /// The profile in this form.
    ///
    /// # Errors
    /// When it cannot be written in this form.
    pub fn write(self, profile: &Profile) -> Result<Vec<u8>, ProfileError> {
        match self {
            Self::Svg => flamegraph::write(profile),
            Self::Pprof => pprof::write(profile),
            Self::Collapsed => Ok(profile.collapsed().into_bytes()),
            Self::Speedscope => Ok(speedscope::write(profile)),
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| format!("format is one of {}", names()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, Stack};

    #[test]
    fn idle_profile_is_written_in_all_forms_and_known_by_them() {
        let stack = Stack { frames: vec!["main".to_owned()], count: 1, amount: 10 };
        for format in Format::ALL {
            let idle = format.write(&Profile::new(Kind::Cpu, Vec::new())).unwrap();
            assert!(!idle.is_empty() && format.is_idle(&idle), "{}", format.name());
            let busy = format.write(&Profile::new(Kind::Cpu, vec![stack.clone()])).unwrap();
            assert!(!format.is_idle(&busy), "{}", format.name());
        }
    }
}

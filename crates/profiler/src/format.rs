//! Output formats of profiles.

use std::str::FromStr;

use crate::{
    error::ProfileError,
    flamegraph, pprof,
    profile::{IDLE_MESSAGE, Profile},
    speedscope,
};

/// Output format of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Flame graph for browsers.
    Svg,
    /// Gzipped protobuf for pprof.
    Pprof,
    /// Collapsed stacks, one per line.
    Collapsed,
    /// JSON, for <https://www.speedscope.app>.
    Speedscope,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 4] = [Self::Svg, Self::Pprof, Self::Collapsed, Self::Speedscope];

    /// Name of the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Pprof => "pprof",
            Self::Collapsed => "collapsed",
            Self::Speedscope => "speedscope",
        }
    }

    /// Content type of the format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Svg => "image/svg+xml",
            Self::Pprof => "application/octet-stream",
            Self::Collapsed => "text/plain; charset=utf-8",
            Self::Speedscope => "application/json",
        }
    }

    /// Returns true if `bytes`, a profile in this format, is of an idle process.
    pub fn is_idle(self, bytes: &[u8]) -> bool {
        match self {
            Self::Pprof => Profile::from_bytes(bytes).is_ok_and(|profile| profile.is_idle()),
            Self::Collapsed => bytes.starts_with(b"[idle] 0"),
            Self::Svg | Self::Speedscope => String::from_utf8_lossy(bytes).contains(IDLE_MESSAGE),
        }
    }

    /// Writes `profile` in this format.
    ///
    /// # Errors
    /// If the profile cannot be written.
    pub fn write(self, profile: &Profile) -> Result<Vec<u8>, ProfileError> {
        match self {
            Self::Svg => flamegraph::write(profile),
            Self::Pprof => pprof::write(profile),
            Self::Collapsed => Ok(profile.to_collapsed().into_bytes()),
            Self::Speedscope => Ok(speedscope::write(profile)),
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| format!("unknown format {name:?}: expected one of {}", names()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, Stack};

    #[test]
    fn idle_profiles_are_recognised_in_all_formats() {
        let stack = Stack { frames: vec!["main".to_owned()], count: 1, amount: 10 };
        for format in Format::ALL {
            let idle = format.write(&Profile::new(Kind::Cpu, Vec::new())).unwrap();
            assert!(!idle.is_empty() && format.is_idle(&idle), "{}", format.name());
            let busy = format.write(&Profile::new(Kind::Cpu, vec![stack.clone()])).unwrap();
            assert!(!format.is_idle(&busy), "{}", format.name());
        }
    }
}

//! The forms in which a profile is written.

use std::str::FromStr;

use crate::{error::ProfileError, flamegraph, pprof, profile::Profile, speedscope};

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

    /// The profile in this form.
    ///
    /// # Errors
    /// When the profile is empty and the form shows nothing then.
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

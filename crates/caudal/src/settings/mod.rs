//! Settings: one name, one key in `caudal.yaml`, one `CAUDAL_…` variable, one flag.
//!
//! They are gathered raw, each with where it came from ([`gather`]), and resolved into what the parts want
//! ([`Settings`]). A flag wins over a variable, a variable over the file, the file over the default.

mod bounds;
mod database;
mod gather;
mod groups;
mod injected;
mod legacy;
pub(crate) mod mask;
pub(crate) mod presets;
mod resolve;
mod table;
mod telemetry;

pub(crate) use gather::{Gathered, Origin, Raw, SettingsError, gather};
pub(crate) use groups::grouped;
pub(crate) use legacy::Notice;
pub(crate) use resolve::{Load, SealPolicy, Settings};
pub(crate) use table::{Key, TABLE};

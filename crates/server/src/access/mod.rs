//! Access control: every request passes [`Gate`] before it is routed, so that no handler has to remember it.
//!
//! Three checks, in this order: the name under which the server is asked ([`host`], against DNS rebinding), the page
//! that sends the request ([`origin`], against pages of other sites), and for admin routes the credential ([`admin`]).

mod admin;
mod gate;
mod host;
mod origin;

pub(crate) use self::{admin::is_admin, gate::Gate};
pub use self::{
    admin::{AdminAccess, Secret},
    host::AllowedHosts,
    origin::AllowedOrigins,
};

/// Access control, as the settings have it.
#[derive(Debug, Clone)]
pub struct AccessSettings {
    /// What admin routes ask for.
    pub admin: AdminAccess,
    /// Names under which the server answers.
    pub hosts: AllowedHosts,
    /// Origins whose pages may use it.
    pub origins: AllowedOrigins,
}

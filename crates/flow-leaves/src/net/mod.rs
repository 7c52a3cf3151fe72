//! Out into the net, no further than allowed.
//!
//! A pipeline may come from anybody, and what it asks for is asked by this machine, from within its network. So a host is
//! looked up here, once; its addresses are looked at; and to one of those that were looked at the connection is made.
//! Whoever is asked may send the asker on, and each such address is looked at in the same way. Connections are kept for the
//! next question for a short time; it is found by an address that was looked at for that question.

mod address;
mod allow;
mod body;
mod connection;
mod idle;
mod redirect;
mod status;
mod tls;
mod wire;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use caudal_flow::{Fault, StepError};
use hyper::{HeaderMap, Method};
use tokio_rustls::rustls::ClientConfig;
use url::Url;

pub use self::{
    allow::{Allow, BadAllow},
    tls::BadRoots,
};
pub(crate) use self::{
    body::Body,
    redirect::Limits,
    status::{Refusal, refusal},
};

/// Bytes of an answer that tells what went wrong.
pub(crate) const REASON_BYTES: usize = 8 << 10;
/// How long a connection may take to come about.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// The way out into the net. To clone it is to hold the same.
#[derive(Clone)]
pub struct Net {
    allow: Arc<Allow>,
    tls: Arc<ClientConfig>,
    idle: idle::Idle,
}

impl Default for Net {
    /// To public addresses alone.
    fn default() -> Self {
        Self::new(Allow::default())
    }
}

impl Net {
    /// To public addresses and to what `allow` names.
    pub fn new(allow: Allow) -> Self {
        Self { allow: Arc::new(allow), tls: tls::config(), idle: idle::Idle::default() }
    }

    /// The same, believing the authorities in `pem` beside those that everybody believes.
    pub fn believing(self, pem: &[u8]) -> Result<Self, BadRoots> {
        // What was believed by others is not kept: not even who was believed before.
        Ok(Self { tls: tls::config_with(pem)?, idle: idle::Idle::default(), ..self })
    }
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What is answered: the body is yet to come.
pub(crate) struct Got {
    pub(crate) status: hyper::StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

/// Who says where to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// A pipeline: its addresses are looked at.
    Pipeline,
    /// Whoever runs the server: it may name any address.
    Server,
}

/// Reads an address out of a pipeline or out of what a server answered.
pub(crate) fn address(text: &str) -> Result<Url, StepError> {
    checked(Url::parse(text).map_err(|error| StepError::input(format!("{text:?} is no URL: {error}")).for_good())?)
}

fn checked(url: Url) -> Result<Url, StepError> {
    let wrong = match (url.scheme(), url.host(), url.username().is_empty() && url.password().is_none()) {
        ("http" | "https", Some(_), true) => return Ok(url),
        ("http" | "https", Some(_), false) => "it has a name or password in it; send a header in their place",
        ("http" | "https", None, _) => "it names no host",
        _ => "only http and https are asked",
    };
    // What stands in it may be secret.
    Err(forbidden(format!("the URL of {:?} is not asked: {wrong}", url.host_str().unwrap_or_default())))
}

pub(crate) fn forbidden(message: String) -> StepError {
    StepError::new(Fault::Forbidden, message)
        .hint("ask a public address, or let whoever runs the server allow this one (allow in flow.yaml)")
        .for_good()
}

pub(crate) fn unreachable(message: String) -> StepError {
    StepError::new(Fault::Unreachable, message)
        .hint("try again later; if it stays so, look at the address and the network")
}

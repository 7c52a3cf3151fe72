//! The other end of a connection.

use std::net::{IpAddr, SocketAddr};

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

impl Peer {
    /// A number that tells its connection from others that are open.
    pub(crate) fn number(&self) -> u64 {
        let host = match self.0.ip() {
            IpAddr::V4(host) => u64::from(host.to_bits()),
            IpAddr::V6(host) => host.to_bits() as u64,
        };
        host.rotate_left(16) ^ u64::from(self.0.port())
    }
}

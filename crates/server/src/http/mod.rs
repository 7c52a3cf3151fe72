//! HTTP itself: sockets, connections, bodies, and the door that every request passes twice.

pub(crate) mod body;
mod connection;
pub(crate) mod door;
mod linger;
mod listener;
mod request_id;
mod threads;
mod timing;

pub(crate) use connection::Connections;
pub use listener::{ListenError, Listener};
pub(crate) use request_id::RequestId;

//! HTTP itself: sockets, connections, bodies, and the door that every request passes twice.

mod aside;
pub(crate) mod body;
mod connection;
pub(crate) mod door;
mod linger;
mod listener;
mod path;
mod request_id;
mod span;
mod threads;
mod timing;

pub(crate) use aside::{apart, aside};
pub(crate) use connection::Connections;
pub use listener::{ListenError, Listener};
pub(crate) use path::Path;
pub(crate) use request_id::RequestId;

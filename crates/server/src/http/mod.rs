//! HTTP itself: sockets, connections, bodies, and the door that every request passes twice.

mod activity;
mod aside;
pub(crate) mod body;
mod connection;
pub(crate) mod door;
mod entrance;
mod linger;
mod listener;
mod pack;
mod path;
mod peer;
mod refusal;
mod request_id;
mod slow;
mod span;
mod threads;
mod timing;
mod unpack;
mod unsent;

pub(crate) use aside::{apart, aside};
pub(crate) use connection::Connections;
pub(crate) use entrance::Entrance;
pub use listener::{Flags, ListenError, Listener, Listeners};
pub(crate) use path::Path;
pub(crate) use peer::Peer;
pub(crate) use request_id::RequestId;
pub(crate) use slow::SlowLog;
pub use slow::SlowRequests;

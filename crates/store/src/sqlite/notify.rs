//! Tells followers what other processes append: one thread looks once a second whether the database has changed,
//! however many follow.

use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::Connection;

use super::{Access, connect, fault, reader};
use crate::{error::StoreError, followers::Followers};

const INTERVAL: Duration = Duration::from_secs(1);

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct ChangeNotifier {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ChangeNotifier {
    pub(super) fn start(file: &Path, followers: Arc<Followers>) -> Result<Self, StoreError> {
        let connection = connect(file, Access::Read)?;
        let (stop, stopped) = mpsc::channel();
        let work = move || {
            let mut seen = None;
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = notify(&connection, &followers, &mut seen) {
                    tracing::debug!("followers wait: {error}");
                }
            }
        };
        let thread = thread::Builder::new().name("store-notify".to_owned()).spawn(work);
        let thread = thread.map_err(|error| StoreError::Io(error.to_string()))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for ChangeNotifier {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Tells followers where their streams stand, if the database is not at the version that was `seen` last.
fn notify(connection: &Connection, followers: &Followers, seen: &mut Option<i64>) -> Result<(), StoreError> {
    let followed = followers.followed();
    if followed.is_empty() {
        return Ok(());
    }
    let version = connection.pragma_query_value(None, "data_version", |row| row.get(0)).map_err(fault)?;
    if *seen == Some(version) {
        return Ok(());
    }
    for id in &followed {
        if let Some(stream) = reader::stream(connection, id)? {
            followers.tell(id, stream.head.sequence);
        }
    }
    *seen = Some(version);
    Ok(())
}

//! Names that processes hold: advisory locks of a session that does nothing else. The server gives them back when the
//! session ends, however it ends.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio_postgres::Client;
use uuid::Uuid;

use super::{fault::fault, pool::Connections};
use crate::error::StoreError;

/// The server asks a session of which it hears nothing, so that a machine that went silent is known to be gone within
/// half a minute.
const WATCHED: &str = "set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 4";
/// How long until a session that ended is begun anew.
const AGAIN: Duration = Duration::from_millis(500);
const HOLD: &str = "select pg_advisory_lock($1)";
/// What holds it is looked up: to try it would be to hold it for a moment.
const HELD: &str = "select exists (select from pg_locks where locktype = 'advisory' and granted and objsubid = 1
    and classid::bigint << 32 | objid::bigint = $1
    and database = (select oid from pg_database where datname = current_database()))";

/// The lock's name: half of what is random is enough.
fn key(name: Uuid) -> i64 {
    name.as_u64_pair().1.cast_signed()
}

/// Holds `name` until nobody wants it any more; tells once that it does.
pub(super) async fn hold(connections: Connections, name: Uuid, told: oneshot::Sender<Result<(), StoreError>>) {
    let mut told = Some(told);
    loop {
        let session = session(&connections, name).await;
        match (session, told.take()) {
            (Ok((client, ended)), teller) => {
                if let Some(teller) = teller {
                    let _ = teller.send(Ok(()));
                }
                let _ = ended.await;
                drop(client);
                tracing::debug!("the session by which others know of this process has ended; another is begun");
            }
            (Err(error), Some(teller)) => {
                let _ = teller.send(Err(error));
                return;
            }
            (Err(error), None) => tracing::debug!("others do not know of this process: {error}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// A session that holds it, and when it ends.
async fn session(connections: &Connections, name: Uuid) -> Result<(Client, oneshot::Receiver<()>), StoreError> {
    let (client, connection) = connections.alone().await?;
    let (end, ended) = oneshot::channel();
    tokio::spawn(async move {
        let _ = connection.await;
        drop(end);
    });
    client.batch_execute(WATCHED).await.map_err(fault)?;
    client.query(HOLD, &[&key(name)]).await.map_err(fault)?;
    Ok((client, ended))
}

/// Whether any session holds `name`.
pub(super) async fn held(client: &tokio_postgres::Client, name: Uuid) -> Result<bool, StoreError> {
    let row = client.query_one(HELD, &[&key(name)]).await.map_err(fault)?;
    row.try_get(0).map_err(fault)
}

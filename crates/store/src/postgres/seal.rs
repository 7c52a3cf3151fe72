//! Records that have gone to an archive: the mark, and the removal of their rows.

use deadpool_postgres::Object;
use tokio_postgres::types::ToSql;

use super::{
    SWEPT, Shared,
    fault::{Trouble, fault},
    rows::{self, number, signed, value},
};
use crate::{chain::Digest, engine::Archive, error::StoreError, guard, record::Stream};

const LOCK: &str = "select {STREAM} from streams s
    where (s.space, s.name) in (select * from unnest($1::text[], $2::text[])) order by s.key for no key update";

/// The chain's link of the record at a sequence, wherever that is.
const LINK: &str = "select case when $2::bigint > $3::bigint
    then (select chain from records where stream = $1 and sequence = $2)
    else (select chain from sealed where stream = $1 and last = $2) end";

/// Takes note of an archive. An error within is a refusal.
pub(super) async fn seal(client: &Object, archive: &Archive) -> Result<Result<(), StoreError>, Trouble> {
    client.batch_execute("begin isolation level read committed").await?;
    let marked = mark(client, archive).await?;
    client.batch_execute(if marked.is_ok() { "commit" } else { "rollback" }).await?;
    Ok(marked)
}

async fn mark(client: &Object, archive: &Archive) -> Result<Result<(), StoreError>, Trouble> {
    let spaces: Vec<&str> = archive.parts.iter().map(|part| &*part.stream.space).collect();
    let names: Vec<&str> = archive.parts.iter().map(|part| &*part.stream.name).collect();
    let lock = client.prepare_cached(&LOCK.replace("{STREAM}", rows::STREAM)).await?;
    let locked = client.query(&lock, &[&spaces, &names]).await?;
    let mut streams: Vec<(i64, Stream)> = locked.iter().map(rows::stream).collect::<Result<_, _>>()?;
    let note = &archive.note;
    let sql = match archive.parts.is_empty() {
        true => "update archives set time = $2, records = $3, bytes = $4, digest = $5, guard = $6 where file = $1",
        false => "insert into archives (file, time, records, bytes, digest, guard) values ($1, $2, $3, $4, $5, $6)",
    };
    let (records, bytes) = (signed(note.records), signed(note.bytes));
    let guard = guard::archive(note);
    client.execute(sql, &[&&*note.file, &note.time, &records, &bytes, &&note.digest[..], &&guard[..]]).await?;
    for part in &archive.parts {
        let Some((key, stream)) = streams.iter_mut().find(|(_, stream)| stream.id == part.stream) else {
            return Ok(Err(StoreError::NoStream(part.stream.clone())));
        };
        let (first, last) = (part.first, part.last.sequence);
        let follows = stream.sealed + 1 == first && first <= last && last <= stream.head.sequence;
        let chain = &part.last.chain;
        if !follows || link(client, *key, stream, last).await?.as_deref() != Some(&chain[..]) {
            return Ok(Err(StoreError::NotSealed(part.stream.clone())));
        }
        let sql = "insert into sealed (stream, first, last, chain, file, ids, swept, guard)
                   values ($1, $2, $3, $4, $5, $6, false, $7)";
        let sealed = client.prepare_cached(sql).await?;
        let values = (signed(first), signed(last));
        let ids = ids(client, *key, values.0, values.1).await?;
        let guard = guard::sealed(*key, first, last, chain, &note.file, &ids);
        let columns: [&(dyn ToSql + Sync); 7] =
            [&*key, &values.0, &values.1, &&chain[..], &&*note.file, &&ids[..], &&guard[..]];
        client.execute(&sealed, &columns).await?;
        let sealed = client.prepare_cached("update streams set sealed = $2 where key = $1").await?;
        client.execute(&sealed, &[&*key, &values.1]).await?;
        stream.sealed = last;
    }
    Ok(Ok(()))
}

/// What the ids of some records come to.
async fn ids(client: &Object, key: i64, first: i64, last: i64) -> Result<Digest, Trouble> {
    let sql = "select id from records where stream = $1 and sequence between $2 and $3 order by sequence";
    let statement = client.prepare_cached(sql).await?;
    let mut ids = guard::Ids::default();
    for row in client.query(&statement, &[&key, &first, &last]).await? {
        ids.add(&value(&row, 0)?);
    }
    Ok(ids.digest())
}

async fn link(client: &Object, key: i64, stream: &Stream, sequence: u64) -> Result<Option<Vec<u8>>, Trouble> {
    let statement = client.prepare_cached(LINK).await?;
    let row = client.query_one(&statement, &[&key, &signed(sequence), &signed(stream.sealed)]).await?;
    Ok(value(&row, 0)?)
}

/// Removes the rows that archives hold, now and whenever there are more. What another process removes meanwhile is
/// removed; what cannot be removed now is removed after the next seal or start.
pub(super) async fn sweep(shared: Shared) {
    loop {
        loop {
            let swept = async { step(&shared.connections.get().await?).await };
            match swept.await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!("rows that an archive holds could not be removed: {error}");
                    break;
                }
            }
        }
        shared.sealed.notified().await;
    }
}

/// Removes some rows, and tells whether there was anything to remove.
async fn step(client: &Object) -> Result<bool, StoreError> {
    let sql = "select a.stream, a.last from sealed a join streams s on s.key = a.stream
               where not a.swept and a.last <= s.sealed order by a.stream, a.last limit 1";
    let Some(row) = client.query_opt(sql, &[]).await.map_err(fault)? else { return Ok(false) };
    let (stream, last) = (value::<i64>(&row, 0)?, signed(number(&row, 1)?));
    let sql = "delete from records where stream = $1 and sequence in
               (select sequence from records where stream = $1 and sequence <= $2 order by sequence limit $3)";
    let statement = client.prepare_cached(sql).await.map_err(fault)?;
    if client.execute(&statement, &[&stream, &last, &SWEPT]).await.map_err(fault)? == 0 {
        let sql = "update sealed set swept = true where stream = $1 and last <= $2";
        client.execute(sql, &[&stream, &last]).await.map_err(fault)?;
    }
    Ok(true)
}

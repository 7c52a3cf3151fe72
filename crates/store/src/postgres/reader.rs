//! What is read. What is given back has been checked against its hashes.

use deadpool_postgres::{Object, Transaction};
use tokio_postgres::{IsolationLevel, Row, types::ToSql};
use uuid::Uuid;

use super::{
    fault::fault,
    rows::{self, bytes, digest, number, signed, text, value},
};
use crate::{
    chain::Digest,
    engine::{ArchiveNote, List, Order, Page, Range, Sealed, Snapshot},
    error::StoreError,
    guard::{self, guard},
    record::{Record, Stream, StreamId},
    verified::verified,
};

/// A stream, with the link of its last record that an archive holds, and the sequence of the last that the table holds.
const STREAM: &str = "select {STREAM},
        (select a.chain from sealed a where a.stream = s.key and a.last = s.sealed limit 1),
        (select max(r.sequence) from records r where r.stream = s.key)
    from streams s where s.space = $1 and s.name = $2";

/// Records in order, as many as there may be, each with the link of the one before where that is not given anyway.
const READ: &str = "select {RECORD}, case when $6::text is not null or r.place = 1 then
        (select p.chain from records p where p.stream = r.stream and p.sequence = r.sequence - 1) end
    from (select r.*, row_number() over after as place,
            sum(octet_length(r.body) + octet_length(r.meta)) over after as bytes
        from records r
        where r.stream = (select s.key from streams s where s.space = $1 and s.name = $2)
            and r.sequence > greatest($3::bigint, (select s.sealed from streams s where s.space = $1 and s.name = $2))
            and ($6::text is null or r.kind = $6)
        window after as (order by r.sequence rows unbounded preceding)
        order by r.sequence limit $4) r
    where r.bytes <= $5::bigint or r.place = 1
    order by r.sequence";

/// How many records of a stream the table holds that no archive has.
const COUNT: &str = "select count(*) from records r join streams s on s.key = r.stream
    where s.space = $1 and s.name = $2 and r.sequence > s.sealed";

/// Asks, with a statement that the connection remembers.
async fn query(client: &Object, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
    let statement = client.prepare_cached(sql).await.map_err(fault)?;
    client.query(&statement, values).await.map_err(fault)
}

/// PostgreSQL's texts hold no NUL, so nothing has such a name.
fn nameless(id: &StreamId) -> bool {
    id.space.contains('\0') || id.name.contains('\0')
}

async fn keyed(client: &Object, id: &StreamId) -> Result<Option<(i64, Stream)>, StoreError> {
    if nameless(id) {
        return Ok(None);
    }
    let sql = STREAM.replace("{STREAM}", rows::STREAM);
    query(client, &sql, &[&&*id.space, &&*id.name]).await?.first().map(rows::stream).transpose()
}

pub(super) async fn stream(client: &Object, id: &StreamId) -> Result<Option<Stream>, StoreError> {
    Ok(keyed(client, id).await?.map(|(_, stream)| stream))
}

pub(super) async fn streams(client: &mut Object, list: &List) -> Result<Page, StoreError> {
    let order = match list.order {
        Order::Newest => "created desc, key desc",
        Order::Oldest => "created, key",
        Order::Longest => "sequence desc, key",
        Order::Shortest => "sequence, key",
    };
    if list.space.contains('\0') {
        return Ok(Page { streams: Vec::new(), total: 0 });
    }
    let among = "from streams s where space = $1 and ($2::bigint is null or (sequence > sealed and time <= $2))";
    let sql = format!("select {} {among} order by {order} limit $3 offset $4", rows::STREAM);
    let (limit, offset) = (i64::from(list.limit), signed(list.offset));
    let found = query(client, &sql, &[&&*list.space, &list.idle_since, &limit, &offset]).await?;
    let streams = found.iter().map(|row| Ok(rows::stream(row)?.1)).collect::<Result<_, StoreError>>()?;
    let counted = query(client, &format!("select count(*) {among}"), &[&&*list.space, &list.idle_since]).await?;
    let total = counted.first().map_or(Ok(0), |row| number(row, 0))?;
    Ok(Page { streams, total })
}

pub(super) async fn read(client: &mut Object, id: &StreamId, range: &Range) -> Result<Vec<Record>, StoreError> {
    if nameless(id) {
        return Err(StoreError::NoStream(id.clone()));
    }
    let sql = STREAM.replace("{STREAM}", rows::STREAM);
    let stream = client.prepare_cached(&sql).await.map_err(fault)?;
    let read = client.prepare_cached(&READ.replace("{RECORD}", rows::RECORD)).await.map_err(fault)?;
    let (after, limit, most) = (signed(range.after), i64::from(range.limit), signed(range.bytes as u64));
    let kind = range.kind.as_deref().map(|kind| if kind.contains('\0') { "" } else { kind });
    let (space, name) = (&*id.space, &*id.name);
    let count = client.prepare_cached(COUNT).await.map_err(fault)?;
    let named: [&(dyn ToSql + Sync); 2] = [&space, &name];
    let ranged: [&(dyn ToSql + Sync); 6] = [&space, &name, &after, &limit, &most, &kind];
    // One look at the database, in one round trip: between two statements, an archive could take the rows away.
    let (begun, found, records, counted, ended) = futures_util::future::join5(
        client.batch_execute("begin isolation level repeatable read read only"),
        client.query(&stream, &named),
        client.query(&read, &ranged),
        async {
            match kind {
                None => Ok(Vec::new()),
                Some(_) => client.query(&count, &named).await,
            }
        },
        client.batch_execute("commit"),
    )
    .await;
    begun.and(ended).map_err(fault)?;
    let (found, records, counted) = (found.map_err(fault)?, records.map_err(fault)?, counted.map_err(fault)?);
    let row = found.first().ok_or_else(|| StoreError::NoStream(id.clone()))?;
    let (_, stream) = rows::stream(row)?;
    let sealed: Option<&[u8]> = value(row, 10)?;
    let mut read: Vec<Record> = Vec::with_capacity(records.len());
    for row in &records {
        let record = rows::record(row)?;
        let link = match read.last() {
            Some(before) if before.sequence + 1 == record.sequence => before.chain,
            _ => link_before(row, &stream, sealed, record.sequence)?,
        };
        verified(id, &link, &record)?;
        read.push(record);
    }
    let reached = read.last().map_or(range.after, |last| last.sequence);
    check_all_there(&stream, value(row, 11)?, reached, counted.first())?;
    Ok(read)
}

/// Refuses what lacks records. The link of a record shows that one before it is missing; that the last ones are missing
/// shows by the stream's head alone, and among records of one kind by their number.
fn check_all_there(stream: &Stream, last: Option<i64>, reached: u64, counted: Option<&Row>) -> Result<(), StoreError> {
    let (head, sealed) = (stream.head.sequence, stream.sealed);
    let missing = |which: String| {
        Err(StoreError::Damaged(format!("{} {} has no record {which}", stream.id.space, stream.id.name)))
    };
    if let Some(row) = counted {
        let (count, expected) = (number(row, 0)?, head.saturating_sub(sealed));
        return match count < expected {
            true => missing(format!("for each of the numbers {} to {head}", sealed + 1)),
            false => Ok(()),
        };
    }
    let last = last.and_then(|last| u64::try_from(last).ok()).unwrap_or(0).max(sealed);
    if last < head && last <= reached && reached < head { missing((last + 1).to_string()) } else { Ok(()) }
}

/// The chain's link of the record before the one in `row`, wherever that is.
fn link_before(row: &Row, stream: &Stream, sealed: Option<&[u8]>, sequence: u64) -> Result<Digest, StoreError> {
    let place = sequence.saturating_sub(1);
    let missing = || StoreError::Damaged(format!("{} {} has no record {place}", stream.id.space, stream.id.name));
    match place {
        0 => Ok(stream.origin()),
        place if place == stream.sealed => sealed.and_then(|link| link.try_into().ok()).ok_or_else(missing),
        _ => match value::<Option<&[u8]>>(row, 8)? {
            Some(_) => digest(row, 8),
            None => Err(missing()),
        },
    }
}

pub(super) async fn find(client: &Object, id: Uuid) -> Result<Option<(StreamId, u64)>, StoreError> {
    let sql = "select s.space, s.name, i.sequence from ids i join streams s on s.key = i.stream where i.id = $1";
    let found = query(client, sql, &[&id]).await?;
    let place = |row: &Row| Ok((StreamId { space: text(row, 0)?, name: text(row, 1)? }, number(row, 2)?));
    found.first().map(place).transpose()
}

pub(super) async fn snapshot(client: &Object, id: &StreamId) -> Result<Option<Snapshot>, StoreError> {
    let Some((key, _)) = keyed(client, id).await? else { return Ok(None) };
    let found = query(client, "select sequence, body, guard from snapshots where stream = $1", &[&key]).await?;
    let Some(row) = found.first() else { return Ok(None) };
    let (sequence, body) = (number(row, 0)?, bytes(row, 1)?);
    // It is made of records: one that is damaged is not missed.
    let whole = guard::snapshot(key, sequence, &body)[..] == *value::<&[u8]>(row, 2)?;
    Ok(whole.then_some(Snapshot { sequence, body }))
}

pub(super) async fn archives(client: &Object) -> Result<Vec<ArchiveNote>, StoreError> {
    let sql = "select file, time, records, bytes, digest from archives order by time, file";
    let note = |row: &Row| {
        Ok(ArchiveNote {
            file: text(row, 0)?,
            time: value(row, 1)?,
            records: number(row, 2)?,
            bytes: number(row, 3)?,
            digest: digest(row, 4)?,
        })
    };
    query(client, sql, &[]).await?.iter().map(note).collect()
}

pub(super) async fn sealed(client: &Object, id: &StreamId) -> Result<Vec<Sealed>, StoreError> {
    let (key, _) = keyed(client, id).await?.ok_or_else(|| StoreError::NoStream(id.clone()))?;
    let sql = "select file, first, last, chain from sealed where stream = $1 order by first";
    let part = |row: &Row| {
        Ok(Sealed { file: text(row, 0)?, first: number(row, 1)?, last: number(row, 2)?, chain: digest(row, 3)? })
    };
    query(client, sql, &[&key]).await?.iter().map(part).collect()
}

/// How far each of `streams` has come that is there.
pub(super) async fn heads(client: &Object, streams: &[StreamId]) -> Result<Vec<(StreamId, u64)>, StoreError> {
    let named = || streams.iter().filter(|id| !nameless(id));
    let spaces: Vec<&str> = named().map(|id| &*id.space).collect();
    let names: Vec<&str> = named().map(|id| &*id.name).collect();
    let sql = "select s.space, s.name, s.sequence from unnest($1::text[], $2::text[]) w (space, name)
               join streams s on s.space = w.space and s.name = w.name";
    let head = |row: &Row| Ok((StreamId { space: text(row, 0)?, name: text(row, 1)? }, number(row, 2)?));
    query(client, sql, &[&spaces, &names]).await?.iter().map(head).collect()
}

/// What stands in the tables that belongs nowhere or was changed. PostgreSQL's own pages are `pg_amcheck`'s to look at.
pub(super) async fn check(client: &mut Object) -> Result<Vec<String>, StoreError> {
    let look = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let look = look.start().await.map_err(fault)?;
    // It takes as long as it takes, and reads everything from end to end.
    let settings = "set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0;
        set local enable_seqscan = on; set local enable_hashjoin = on; set local enable_mergejoin = on";
    look.batch_execute(settings).await.map_err(fault)?;
    let mut wrong = Vec::new();
    for (what, sql) in CHECKS {
        let row = look.query_one(sql, &[]).await.map_err(fault)?;
        match number(&row, 0)? {
            0 => {}
            count => wrong.push(format!("{what}: {count}")),
        }
    }
    for (table, sql) in GUARDED {
        let portal = {
            let statement = look.prepare(sql).await.map_err(fault)?;
            look.bind(&statement, &[]).await.map_err(fault)?
        };
        let mut broken = 0;
        loop {
            let rows = look.query_portal(&portal, 1_000).await.map_err(fault)?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                broken += usize::from(!whole(row)?);
            }
        }
        if broken > 0 {
            wrong.push(format!("rows of {table} that were changed: {broken}"));
        }
    }
    let changed = changed_ids(&look).await?;
    if changed > 0 {
        wrong.push(format!("archives whose records had other ids: {changed}"));
    }
    look.commit().await.map_err(fault)?;
    Ok(wrong)
}

async fn changed_ids(look: &Transaction<'_>) -> Result<usize, StoreError> {
    let sql = "select a.stream, a.first, a.ids, i.id
               from sealed a join ids i on i.stream = a.stream and i.sequence between a.first and a.last
               order by a.stream, a.first, i.sequence";
    let statement = look.prepare(sql).await.map_err(fault)?;
    let portal = look.bind(&statement, &[]).await.map_err(fault)?;
    let mut parts = guard::Parts::default();
    loop {
        let rows = look.query_portal(&portal, 10_000).await.map_err(fault)?;
        if rows.is_empty() {
            return Ok(parts.broken());
        }
        for row in &rows {
            parts.add((value(row, 0)?, value(row, 1)?), value(row, 2)?, &value(row, 3)?);
        }
    }
}

/// Whether the last column is the guard of those before it.
fn whole(row: &Row) -> Result<bool, StoreError> {
    let last = row.len() - 1;
    let parts: Vec<&[u8]> = (0..last).map(|column| value(row, column)).collect::<Result<_, _>>()?;
    Ok(guard(&parts)[..] == *value::<&[u8]>(row, last)?)
}

/// Rows with guards, every value as the bytes that the guard is over.
const GUARDED: [(&str, &str); 5] = [
    (
        "streams",
        "select int8send(key), convert_to(space, 'UTF8'), convert_to(name, 'UTF8'), meta, int8send(created),
            int8send(sequence), int8send(time), chain, guard from streams",
    ),
    (
        "repeats",
        "select int8send(stream), convert_to(name, 'UTF8'), request, int8send(first), int8send(last), guard from repeats",
    ),
    ("snapshots", "select int8send(stream), int8send(sequence), body, guard from snapshots"),
    (
        "archives",
        "select convert_to(file, 'UTF8'), int8send(time), int8send(records), int8send(bytes), digest, guard
         from archives",
    ),
    (
        "sealed",
        "select int8send(stream), int8send(first), int8send(last), chain, convert_to(file, 'UTF8'), ids, guard
         from sealed",
    ),
];

/// What must be nought.
const CHECKS: [(&str, &str); 8] = [
    (
        "records whose id stands nowhere or elsewhere",
        "select count(*) from records r left join ids i on i.id = r.id
         where i.stream is distinct from r.stream or i.sequence is distinct from r.sequence",
    ),
    (
        "ids without a record",
        "select count(*) from ids i join streams s on s.key = i.stream
            left join records r on r.stream = i.stream and r.sequence = i.sequence and r.id = i.id
         where i.sequence > s.sequence or i.sequence < 1 or (i.sequence > s.sealed and r.stream is null)",
    ),
    (
        "rows that belong to no stream",
        "select (select count(*) from records r where not exists (select from streams where key = r.stream))
              + (select count(*) from ids i where not exists (select from streams where key = i.stream))
              + (select count(*) from repeats r where not exists (select from streams where key = r.stream))",
    ),
    (
        "streams that are sealed further than their archives go",
        "select count(*) from streams s
         where s.sealed <> coalesce((select max(last) from sealed where stream = s.key), 0)",
    ),
    (
        "streams that do not end with their last record",
        "select count(*) from streams s left join records r on r.stream = s.key and r.sequence = s.sequence
         where s.sequence > s.sealed and (r.time is distinct from s.time or r.chain is distinct from s.chain)",
    ),
    (
        "streams with records missing or beyond their end",
        "select count(*) from streams s left join
            (select stream, count(*) as count, min(sequence) as first, max(sequence) as last from ids group by stream) i
            on i.stream = s.key
         where coalesce(i.count, 0) <> s.sequence or coalesce(i.last, 0) <> s.sequence or coalesce(i.first, 1) <> 1",
    ),
    (
        "records that are there twice",
        "select count(*) from (select from ids group by stream, sequence having count(*) > 1) twice",
    ),
    (
        "archives that are not known",
        "select count(*) from sealed a where not exists (select from archives where file = a.file)",
    ),
];

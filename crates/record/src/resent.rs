//! Events that are sent again, because the answer to the first request was lost: recognised by their ids.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use caudal_store::{Append, Appended, NewRecord, Range, Record, StoreError};
use futures_util::{FutureExt as _, future::BoxFuture};
use uuid::Uuid;

use crate::{Consultations, RecordError, stream_of};

/// How often an append is tried while other callers record events of it.
const TRIES: u32 = 3;
/// Events that are read in one go to be compared.
const COMPARED: u32 = 512;

/// Where an id stands that an event to be recorded has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdUse {
    /// In the consultation, as the id of the same event, which has this sequence.
    Same(u64),
    /// In the consultation, as the id of an event with other content, which has this sequence.
    Different(u64),
    /// In another consultation.
    Elsewhere,
    /// In the same request, as the id of the event of that number, from 0.
    Earlier {
        /// Its number.
        index: usize,
        /// Whether both say the same.
        same: bool,
    },
}

/// An event that was not recorded because its id is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdInUse {
    /// Its number in the request, from 0.
    pub index: usize,
    /// Its id.
    pub id: Uuid,
    /// Where the id stands.
    pub found: IdUse,
}

impl fmt::Display for IdInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id;
        match self.found {
            IdUse::Same(sequence) => write!(f, "the event {id} is recorded already, with the sequence {sequence}"),
            IdUse::Different(sequence) => {
                write!(f, "the event with the sequence {sequence} has the id {id} already, and other content")
            }
            IdUse::Elsewhere => write!(f, "an event of another consultation has the id {id} already"),
            IdUse::Earlier { .. } => write!(f, "an event before it in the request has the same id {id}"),
        }
    }
}

impl IdInUse {
    /// The event's sequence, where it stands in the consultation.
    pub fn sequence(&self) -> Option<u64> {
        match self.found {
            IdUse::Same(sequence) | IdUse::Different(sequence) => Some(sequence),
            IdUse::Elsewhere | IdUse::Earlier { .. } => None,
        }
    }

    pub(crate) fn hint(&self) -> &'static str {
        match self.found {
            IdUse::Same(_) => "leave out what is recorded already",
            IdUse::Different(_) => "send another event under another event_id; what is recorded is never changed",
            IdUse::Elsewhere | IdUse::Earlier { .. } => "give each event an event_id of its own, such as a random UUID",
        }
    }
}

/// What became of events some of which may have been recorded before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Events that were recorded.
    pub new: u64,
    /// Events that had been recorded before, with the same content.
    pub repeated: u64,
    /// The sequence of the last of both; 0 if there are none.
    pub last: u64,
}

impl Consultations {
    /// Appends as [`Consultations::append`] does. Where all events are in the consultation already, one after the other
    /// and with the same content, nothing is recorded and they are answered as repeated: also where the consultation is
    /// no longer at the version that the caller expects, because of these very events.
    pub async fn append_once(
        &self,
        name: &str,
        records: Vec<NewRecord>,
        expected: Option<u64>,
        key: Option<&str>,
    ) -> Result<Appended, RecordError> {
        match self.append(name, records.clone(), expected, key).await {
            Err(RecordError::Store(error @ (StoreError::Duplicate | StoreError::Version { .. }))) => {
                self.recognise(name, &records, error).await
            }
            appended => appended,
        }
    }

    /// The answer to an append that was refused with `error`, if it was done before.
    async fn recognise(&self, name: &str, records: &[NewRecord], error: StoreError) -> Result<Appended, RecordError> {
        if !self.may_be_known(records, &error).await? {
            return Err(error.into());
        }
        let uses = self.id_uses(name, records).await?;
        if let Some(Some(IdUse::Same(first))) = uses.first().copied()
            && uses.iter().zip(first..).all(|(found, sequence)| *found == Some(IdUse::Same(sequence)))
        {
            let last = first + records.len() as u64 - 1;
            let found = self.events(name, Range::after(last - 1, 1)).await?;
            let found = found.first().ok_or_else(|| StoreError::Damaged(format!("event {last} of {name}")))?;
            return Ok(Appended { first, last, time: found.time, chain: found.chain, repeated: true });
        }
        if error != StoreError::Duplicate {
            return Err(error.into());
        }
        Err(first_in_use(records, &uses).map_or_else(|| error.into(), RecordError::IdInUse))
    }

    /// Whether events of a refused append may have been recorded by it before. Where versions differ the first tells:
    /// those without an id of their own were given new ones.
    async fn may_be_known(&self, records: &[NewRecord], error: &StoreError) -> Result<bool, RecordError> {
        match (error, records.first()) {
            (StoreError::Version { .. }, Some(first)) => Ok(self.store.find(first.id).await?.is_some()),
            (error, _) => Ok(*error == StoreError::Duplicate),
        }
    }

    /// Appends events in order but for those that are in the consultation already with the same content. What comes
    /// before an event whose id is in use otherwise is recorded, and that event is the error.
    pub fn append_new(
        &self,
        name: &str,
        records: Vec<NewRecord>,
        expected: Option<u64>,
    ) -> BoxFuture<'static, (Written, Option<RecordError>)> {
        // They are on their way before the answer is awaited.
        let appended = self.append(name, records.clone(), expected, None);
        let (all, name) = (self.clone(), name.to_owned());
        async move {
            match appended.await {
                Ok(Appended { last, .. }) => (Written { new: records.len() as u64, repeated: 0, last }, None),
                Err(error) => all.append_unknown(&name, &records, expected, error).await,
            }
        }
        .boxed()
    }

    /// After all of `records` were refused with `error`: the same, once more for what is not there.
    async fn append_unknown(
        &self,
        name: &str,
        records: &[NewRecord],
        expected: Option<u64>,
        error: RecordError,
    ) -> (Written, Option<RecordError>) {
        for _ in 0..TRIES {
            match self.append_rest(name, records, expected, &error).await {
                Ok((written, in_use)) => return (written, in_use.map(RecordError::IdInUse)),
                // Others recorded one of them meanwhile.
                Err(RecordError::Store(StoreError::Duplicate)) => {}
                Err(error) => return (Written::default(), Some(error)),
            }
        }
        (Written::default(), Some(error))
    }

    /// After all of `records` were refused with `error`: appends those that are not there, up to one whose id is in use.
    async fn append_rest(
        &self,
        name: &str,
        records: &[NewRecord],
        mut expected: Option<u64>,
        error: &RecordError,
    ) -> Result<(Written, Option<IdInUse>), RecordError> {
        let known = match error {
            RecordError::Store(error) => self.may_be_known(records, error).await?,
            _ => false,
        };
        if !known {
            return Err(error.clone());
        }
        let uses = self.id_uses(name, records).await?;
        let is_known =
            |found: &Option<IdUse>| matches!(found, None | Some(IdUse::Same(_) | IdUse::Earlier { same: true, .. }));
        let end = uses.iter().position(|found| !is_known(found)).unwrap_or(records.len());
        let (mut written, mut new) = (Written::default(), Vec::new());
        for (record, found) in records.iter().zip(&uses).take(end) {
            match found {
                None => new.push(record.clone()),
                Some(IdUse::Same(sequence)) => {
                    written.repeated += 1;
                    written.last = written.last.max(*sequence);
                    // It was recorded by the request that expected the version before it.
                    if expected.is_some() && new.is_empty() {
                        expected = Some(*sequence);
                    }
                }
                Some(_) => written.repeated += 1,
            }
        }
        if !new.is_empty() {
            written.new = new.len() as u64;
            let append = Append { stream: stream_of(name), expected, key: None, records: new };
            written.last = self.store.append(append).await?.last;
        }
        let in_use = uses.get(end).copied().flatten();
        Ok((written, in_use.map(|found| IdInUse { index: end, id: records[end].id, found })))
    }

    /// Where the ids of `records` stand already, by their order.
    async fn id_uses(&self, name: &str, records: &[NewRecord]) -> Result<Vec<Option<IdUse>>, RecordError> {
        let (mut uses, mut read) = (Vec::with_capacity(records.len()), BTreeMap::new());
        let mut earlier: HashMap<Uuid, usize> = HashMap::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            let found = match self.store.find(record.id).await? {
                None => earlier.get(&record.id).map(|first| {
                    let same = says_the_same(record, Content::from(&records[*first]));
                    IdUse::Earlier { index: *first, same }
                }),
                Some((stream, sequence)) if stream == stream_of(name) => {
                    let known = self.read_to_compare(name, sequence, &mut read).await?;
                    let same = known.is_some_and(|known| says_the_same(record, Content::from(known)));
                    Some(if same { IdUse::Same(sequence) } else { IdUse::Different(sequence) })
                }
                Some(_) => Some(IdUse::Elsewhere),
            };
            uses.push(found);
            earlier.entry(record.id).or_insert(index);
        }
        Ok(uses)
    }

    /// The event at `sequence`; those that follow it are read too, since requests that are sent again bring them next.
    async fn read_to_compare<'a>(
        &self,
        name: &str,
        sequence: u64,
        read: &'a mut BTreeMap<u64, Record>,
    ) -> Result<Option<&'a Record>, RecordError> {
        if !read.contains_key(&sequence) {
            read.clear();
            let found = self.events(name, Range::after(sequence.saturating_sub(1), COMPARED)).await?;
            read.extend(found.into_iter().map(|record| (record.sequence, record)));
        }
        Ok(read.get(&sequence))
    }
}

/// What an event says, its id and place left out.
#[derive(PartialEq)]
struct Content<'a> {
    kind: &'a str,
    meta: &'a [u8],
    digest: [u8; 32],
}

impl<'a> From<&'a NewRecord> for Content<'a> {
    fn from(record: &'a NewRecord) -> Self {
        Self { kind: &record.kind, meta: &record.meta, digest: record.digest }
    }
}

impl<'a> From<&'a Record> for Content<'a> {
    fn from(record: &'a Record) -> Self {
        Self { kind: &record.kind, meta: &record.meta, digest: record.digest }
    }
}

fn says_the_same(record: &NewRecord, known: Content<'_>) -> bool {
    Content::from(record) == known
}

/// The first of `records` whose id is in use.
fn first_in_use(records: &[NewRecord], uses: &[Option<IdUse>]) -> Option<IdInUse> {
    let mut in_use = records.iter().zip(uses).enumerate();
    in_use.find_map(|(index, (record, found))| Some(IdInUse { index, id: record.id, found: (*found)? }))
}

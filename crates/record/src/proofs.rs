//! What a consultation can prove: that it is whole, how far it had come, that an event is in it.

use caudal_store::{Range, Record, StoreError, Stream};
use caudal_types::{ErrorKind, Explain as _};
use serde::Serialize;

use crate::{
    Consultations, RecordError,
    consultations::aside,
    proof::{Receipt, SignedHead, VerifyingKey, key_id, merkle::PathFinder},
    state::State,
    verify::Verifier,
};

/// Events that are read in one go.
const STEP: u32 = 2_000;

/// Whether a consultation is whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Which.
    pub consultation_id: String,
    /// Whether it is.
    pub valid: bool,
    /// Events that were found whole.
    pub events: u64,
    /// The first event that is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_bad_event: Option<u64>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Its head, if it is whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<SignedHead>,
}

impl Consultations {
    /// Reads all of one again and computes everything about it again, including the state that is stored beside the events.
    /// With a `head` that was kept elsewhere, what was cut off or rewritten shows too.
    pub async fn verify(&self, name: &str, known: Option<&SignedHead>) -> Result<Verdict, RecordError> {
        let snapshot = self.store().snapshot(&crate::stream_of(name)).await?;
        let stream = self.stream(name).await?;
        let (kept, forged) = self.usable(&stream, snapshot.as_ref());
        let mut replayed = State::default();
        let upto = kept.as_ref().map_or(0, |kept| kept.state.sequence);
        let bad = |events: u64, event: Option<u64>, fault: String| Verdict {
            consultation_id: name.to_owned(),
            valid: false,
            events,
            first_bad_event: event,
            fault: Some(fault),
            head: None,
        };
        let mut verifier = Verifier::new(stream.id.clone(), stream.created, &stream.meta);
        while verifier.head().sequence < stream.head.sequence {
            let at = verifier.head().sequence;
            let some = match self.events(name, Range::after(at, STEP)).await {
                Ok(some) if some.is_empty() => {
                    return Ok(bad(at, Some(at + 1), format!("event {} is missing", at + 1)));
                }
                Ok(some) => some,
                Err(error) if is_damage(&error) => {
                    let (first, fault) = self.first_bad(name, at, error).await;
                    return Ok(bad(first.saturating_sub(1), Some(first), fault));
                }
                Err(error) => return Err(error),
            };
            let checked = aside(move || {
                let fault = some.iter().take_while(|record| record.sequence <= stream.head.sequence);
                let fault = fault.map(|record| verifier.check(record)).find_map(Result::err);
                let applied = some.iter().take_while(|record| record.sequence <= upto);
                applied.for_each(|record| replayed.apply(&record.into()));
                Ok((verifier, fault, replayed))
            });
            let fault;
            (verifier, fault, replayed) = checked.await?;
            if let Some(fault) = fault {
                return Ok(bad(verifier.head().sequence, Some(fault.sequence), fault.to_string()));
            }
        }
        let events = verifier.head().sequence;
        if let Err(mismatch) = verifier.compare(&stream.head) {
            return Ok(bad(events, None, mismatch.to_string()));
        }
        if forged || kept.is_some_and(|kept| kept.state != replayed) {
            let fault = "the state that is kept beside the events is not what they make; reads do not use it";
            return Ok(bad(events, None, fault.to_owned()));
        }
        let key = self.signing_key()?;
        if let Some(known) = known {
            let compared = match known.sequence == events {
                true => verifier.compare_signed(known, key.as_ref()),
                false => self.compare_earlier(&stream, known, key.as_ref()).await?,
            };
            if let Err(mismatch) = compared {
                return Ok(bad(events, None, format!("it is not what the head says: {mismatch}")));
            }
        }
        let head = self.sign(SignedHead::new(&stream.id, &verifier.head(), verifier.root()))?;
        let consultation_id = name.to_owned();
        Ok(Verdict { consultation_id, valid: true, events, first_bad_event: None, fault: None, head: Some(head) })
    }

    /// Compares a head that was kept when there were fewer events.
    async fn compare_earlier(
        &self,
        stream: &Stream,
        known: &SignedHead,
        key: Option<&VerifyingKey>,
    ) -> Result<Result<(), crate::verify::HeadMismatch>, RecordError> {
        let mut verifier = Verifier::new(stream.id.clone(), stream.created, &stream.meta);
        let to = known.sequence.min(stream.head.sequence);
        while verifier.head().sequence < to {
            let some = self.events(&stream.id.name, Range::after(verifier.head().sequence, STEP)).await?;
            let before = verifier.head().sequence;
            for record in some.iter().take_while(|record| record.sequence <= to) {
                if verifier.check(record).is_err() {
                    break;
                }
            }
            if verifier.head().sequence == before {
                break;
            }
        }
        Ok(verifier.compare_signed(known, key))
    }

    /// Which event after `after` cannot be read.
    async fn first_bad(&self, name: &str, after: u64, error: RecordError) -> (u64, String) {
        let (mut at, mut fault) = (after, error);
        for _ in 0..=STEP {
            match self.events(name, Range::after(at, 1)).await {
                Ok(some) if !some.is_empty() => at += 1,
                Ok(_) => break,
                Err(error) => {
                    fault = error;
                    break;
                }
            }
        }
        (at + 1, fault.to_string())
    }

    /// How far one has come, signed.
    pub async fn head(&self, name: &str) -> Result<SignedHead, RecordError> {
        let (stream, verifier) = self.walk(name, |_, _| ()).await?;
        self.sign(SignedHead::new(&stream.id, &verifier.head(), verifier.root()))
    }

    /// The proof that an event is in one, checkable without it.
    pub async fn receipt(&self, name: &str, which: &str) -> Result<Receipt, RecordError> {
        let record = self.event(name, which).await?;
        let mut finder = PathFinder::new(record.sequence - 1);
        let mut before = self.stream(name).await?.origin();
        let wanted = record.sequence;
        let (stream, verifier) = self
            .walk(name, |record, _| {
                if record.sequence + 1 == wanted {
                    before = record.chain;
                }
                finder.push(record.leaf());
            })
            .await?;
        let head = self.sign(SignedHead::new(&stream.id, &verifier.head(), verifier.root()))?;
        let path = finder.finish().ok_or_else(|| RecordError::NoEvent(which.into()))?;
        Receipt::new(&record, before, path, head).map_err(|fault| damaged(&fault.to_string()))
    }

    /// Shows all events of one to `see`, checked.
    pub(crate) async fn walk(
        &self,
        name: &str,
        mut see: impl FnMut(&Record, &Verifier),
    ) -> Result<(Stream, Verifier), RecordError> {
        let stream = self.stream(name).await?;
        let mut verifier = Verifier::new(stream.id.clone(), stream.created, &stream.meta);
        while verifier.head().sequence < stream.head.sequence {
            let some = self.events(name, Range::after(verifier.head().sequence, STEP)).await?;
            let before = verifier.head().sequence;
            for record in some.iter().take_while(|record| record.sequence <= stream.head.sequence) {
                verifier.check(record).map_err(|bad| damaged(&bad.to_string()))?;
                see(record, &verifier);
            }
            if verifier.head().sequence == before {
                return Err(damaged(&format!("event {} is missing", before + 1)));
            }
            // Computing keeps the thread from others: they go first.
            tokio::task::yield_now().await;
        }
        Ok((stream, verifier))
    }

    fn sign(&self, head: SignedHead) -> Result<SignedHead, RecordError> {
        Ok(match &self.folder {
            Some(folder) => match folder.key_if_any()? {
                Some(key) => head.sign(key),
                None => head,
            },
            None => head,
        })
    }

    /// The key by which heads can be checked, if they are signed.
    pub fn signing_key(&self) -> Result<Option<VerifyingKey>, RecordError> {
        match &self.folder {
            Some(folder) => Ok(folder.key_if_any()?.map(ed25519_dalek::SigningKey::verifying_key)),
            None => Ok(None),
        }
    }

    /// That key and its name, as hexadecimal digits.
    pub fn public_key(&self) -> Result<Option<(String, String)>, RecordError> {
        let key = self.signing_key()?;
        Ok(key.map(|key| (key_id(&key).to_string(), crate::hash::Hex(key.to_bytes()).to_string())))
    }
}

fn damaged(words: &str) -> RecordError {
    StoreError::Damaged(words.to_owned()).into()
}

/// Whether an error says that what was kept is not what is there.
pub(crate) fn is_damage(error: &RecordError) -> bool {
    error.kind() == ErrorKind::RecordDamaged
}

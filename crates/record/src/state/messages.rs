//! Messages by their names, in the order in which they came.

use std::collections::HashMap;

use caudal_store::Time;
use serde::de::Deserializer;
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use super::Raw;

/// A message of the conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Its name: what it was given, or the id of the event that brought it.
    pub message_id: String,
    /// The event that brought it.
    pub sequence: u64,
    /// Who said it.
    pub message_role: Option<Raw>,
    /// What it says now.
    pub message_content: Option<Raw>,
    /// What is said about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metadata: Option<Raw>,
    /// When it came.
    pub received_at: Time,
    /// When it was changed, if it was.
    pub updated_at: Option<Time>,
    /// Whether it has been worked through.
    pub processed: bool,
}

/// Messages that stand. Withdrawing one leaves a gap, so that no other moves.
#[derive(Debug, Clone, Default)]
pub struct Messages {
    list: Vec<Option<Message>>,
    places: HashMap<String, usize>,
}

impl Messages {
    /// Those that stand, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Message> {
        self.list.iter().flatten()
    }

    /// How many stand.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether none stands.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Adds a message; one that has its name already is replaced where it stands.
    pub(super) fn add(&mut self, message: Message) {
        match self.places.get(&message.message_id) {
            Some(&place) => self.list[place] = Some(message),
            None => {
                self.places.insert(message.message_id.clone(), self.list.len());
                self.list.push(Some(message));
            }
        }
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Message> {
        self.list.get_mut(*self.places.get(id)?)?.as_mut()
    }

    pub(super) fn remove(&mut self, id: &str) {
        if let Some(place) = self.places.remove(id) {
            self.list[place] = None;
        }
    }
}

impl PartialEq for Messages {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Serialize for Messages {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut messages = Self::default();
        Vec::<Message>::deserialize(deserializer)?.into_iter().for_each(|message| messages.add(message));
        Ok(messages)
    }
}

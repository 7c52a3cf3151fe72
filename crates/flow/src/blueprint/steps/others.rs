//! Steps that ask somebody, and steps whose answers are remembered.

use std::sync::Arc;

use crate::{
    blueprint::{agents::seconds, fields::Fields, reader::Reader, tree::Node},
    step::{Cached, Human, Kind, Rule},
};

impl Reader<'_> {
    pub(super) fn human(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let message = fields.node("message").and_then(|node| self.template(node)).map(|shape| shape as Rule);
        let answers = self.schema(fields.node("input_schema"));
        let schema = Self::plain(fields.node("input_schema"));
        Some(Kind::Human(Arc::new(Human { message, answers, schema })))
    }

    pub(super) fn cache(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let Some(node) = fields.node("wrapped_step") else {
            self.missing(fields.mark, "a cache", "wrapped_step");
            return None;
        };
        let step = self.step(node)?;
        let context = fields.node("context_keys").is_some();
        Some(Kind::Cache(Arc::new(Cached {
            ttl: fields.number("ttl_s").map(seconds),
            context: context.then(|| fields.names("context_keys").into_iter().map(Node::name).collect()),
            ..Cached::new(step)
        })))
    }
}

//! Which part of a list is asked for.

use axum::http::Uri;
use caudal_store::{Order, Page};
use serde_json::Value;

use super::{note, record};
use crate::{admin::Parameters, app::App, http::door::Visitor, problem::Problem};

/// Most consultations of one answer.
const MOST: u32 = 500;

/// A part of a list.
pub(super) struct Part {
    pub(super) limit: u32,
    /// What is left out before the first.
    pub(super) offset: u64,
}

impl Part {
    /// By `limit`, which is `default` where none is said and at most `most`, and `offset`.
    pub(super) fn of(parameters: &Parameters, default: u32, most: u32) -> Result<Self, Problem> {
        let limit = parameters.number("limit", default, 1, most)?;
        let offset = parameters.number("offset", 0, 0, u64::from(u32::MAX))?;
        Ok(Self { limit, offset })
    }
}

/// The sequence after which events are asked for; `default` where none is said.
pub(super) fn after(parameters: &Parameters, default: u64) -> Result<u64, Problem> {
    parameters.number("after", default, 0, i64::MAX as u64)
}

/// The consultations that `uri` asks for, once that is noted as `operation`.
pub(super) async fn consultations(
    app: &App,
    visitor: &Visitor,
    uri: &Uri,
    operation: &'static str,
) -> Result<(Page, Part), Problem> {
    let record = record(app)?;
    let parameters = Parameters::of(uri, &["limit", "offset", "sort"])?;
    let part = Part::of(&parameters, 50, MOST)?;
    let page = record.list(order(&parameters)?, part.limit, part.offset).await?;
    note(&record, visitor, operation, None, Value::Null).await?;
    Ok((page, part))
}

/// The order that is asked for, by Free Intelligence's names.
fn order(parameters: &Parameters) -> Result<Order, Problem> {
    Ok(match parameters.word("sort", &["recent", "oldest", "events_desc", "events_asc"])? {
        "oldest" => Order::Oldest,
        "events_desc" => Order::Longest,
        "events_asc" => Order::Shortest,
        _ => Order::Newest,
    })
}

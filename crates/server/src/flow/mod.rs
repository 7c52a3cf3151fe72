//! Pipelines and their runs: listed, begun, watched, taken up, broken off.

pub(crate) mod aside;
pub(crate) mod events;
pub(crate) mod pipelines;
pub(crate) mod run;
pub(crate) mod runs;

use axum::{body::Body, http::StatusCode};
use caudal_flow::{Outcome, Report, RunError};
use caudal_types::Explain;

use crate::{
    http::door::{Answer, EVENT_STREAM},
    problem::Problem,
};

impl From<RunError> for Problem {
    fn from(error: RunError) -> Self {
        Self::new(error.kind(), error.to_string(), error.hint())
    }
}

/// What a run that was waited for came to: its report, or the error for which it failed.
fn came_to(outcome: Outcome, report: &Report) -> Result<Answer, Problem> {
    match outcome {
        Outcome::Completed(_) => Ok(told(report)),
        Outcome::Paused(prompts) => {
            match prompts.iter().find_map(|prompt| prompt.refused.as_ref().zip(Some(&prompt.path))) {
                Some((wrong, path)) => Err(Problem::parameter(
                    format!("the answer to {path} does not fit: {wrong}"),
                    "send an answer that fits the prompt's schema; the run still waits",
                )),
                None => Ok(told(report).status(StatusCode::ACCEPTED)),
            }
        }
        Outcome::Failed(error) => {
            let details = serde_json::json!({
                "run_id": report.run_id,
                "status": report.status,
                "step": report.error.as_ref().map(|error| &error.step),
                "step_error": report.error.as_ref().map(|error| &error.code),
            });
            Err(Problem::from(error).details(details))
        }
    }
}

fn told(report: &Report) -> Answer {
    Answer::json(report).location(&place(&report.run_id))
}

/// Where a run is told of.
fn place(id: &str) -> String {
    format!("/api/v1/runs/{id}")
}

/// An answer that says where the run is told of.
fn accepted(id: &str) -> Answer {
    let place = place(id);
    let body =
        serde_json::json!({"run_id": id, "status": "running", "location": place, "events": format!("{place}/events")});
    Answer::json(&body).status(StatusCode::ACCEPTED).location(&place)
}

/// Server-sent events.
fn flowing(body: Body) -> Answer {
    Answer::flowing(EVENT_STREAM, body)
}

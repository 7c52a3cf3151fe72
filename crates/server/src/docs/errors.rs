//! Errors as examples of the API's description: what callers of each group of routes meet most.

/// An error as an answer has it.
#[derive(Debug)]
pub(super) struct Sample {
    /// The groups of routes that answer it.
    tags: &'static [&'static str],
    pub(super) status: &'static str,
    pub(super) code: &'static str,
    pub(super) message: &'static str,
    pub(super) hint: &'static str,
}

const fn sample(
    tags: &'static [&'static str],
    status: &'static str,
    code: &'static str,
    message: &'static str,
    hint: &'static str,
) -> Sample {
    Sample { tags, status, code, message, hint }
}

const WORK: &[&str] = &["pictures", "texts", "tensors"];
const RECORD: &[&str] = &["consultations"];
const FLOW: &[&str] = &["pipelines"];
const ADMIN: &[&str] = &["admin"];

/// The examples.
pub(super) const SAMPLES: &[Sample] = &[
    sample(&["pictures"], "400", "invalid_image", "the JPEG is cut short", "send the whole file"),
    sample(
        &["pictures"],
        "413",
        "image_too_large",
        "the picture has 120.0 megapixels; 50.0 are allowed",
        "send a smaller picture",
    ),
    sample(&["texts"], "400", "invalid_parameter", "input is empty", "send at least one text"),
    sample(
        &["tensors"],
        "400",
        "invalid_tensor",
        "the input \"x\": it has 5 dimensions",
        "GET /v2/models/{model} tells names, datatypes and shapes",
    ),
    sample(WORK, "404", "model_not_found", "there is no model \"smal\"", "did you mean \"small\"?"),
    sample(WORK, "429", "queue_full", "the model's queue is full", "try again after Retry-After"),
    sample(WORK, "503", "memory_pressure", "memory is short: new work is refused", "try again after Retry-After"),
    sample(WORK, "504", "deadline_exceeded", "the deadline passed before the answer was ready", "allow more time"),
    sample(RECORD, "404", "not_found", "there is no consultation \"c-7\"", "POST /consultations creates one"),
    sample(
        RECORD,
        "409",
        "version_conflict",
        "the consultation has 12 events, not 11",
        "read what was appended and send again",
    ),
    sample(
        RECORD,
        "422",
        "invalid_event",
        "MESSAGE_RECEIVED: the payload has no message",
        "docs/events.md lists the fields",
    ),
    sample(RECORD, "501", "record_off", "this server keeps no records", "start it with --data-dir"),
    sample(RECORD, "503", "store_unavailable", "the store cannot be reached", "try again after Retry-After"),
    sample(FLOW, "404", "not_found", "there is no pipeline gret", "there is greet; GET /api/v1/pipelines lists all"),
    sample(FLOW, "409", "run_state", "the run has ended", "start another"),
    sample(FLOW, "500", "step_failed", "the step fetch failed: connection refused", "look at the run's report"),
    sample(ADMIN, "400", "invalid_parameter", "limit is \"many\"", "it is a number from 1 to 100000"),
    sample(ADMIN, "401", "unauthorized", "this needs the admin key", "send it as Authorization: Bearer"),
    sample(
        ADMIN,
        "403",
        "forbidden",
        "this needs admin rights, and no admin_key is set",
        "ask from the machine itself",
    ),
    sample(ADMIN, "503", "shutting_down", "the server is shutting down", "ask another one"),
    sample(&["health"], "400", "invalid_parameter", "window is \"2h\"", "it is one of 1m, 5m, 15m, 1h, 24h"),
    sample(&["health"], "503", "shutting_down", "the server is shutting down", "ask another one"),
];

/// The examples of a response: `status` is a code, or a range such as `4XX`.
pub(super) fn samples(tag: &str, status: &str) -> impl Iterator<Item = &'static Sample> {
    let fits = move |sample: &&Sample| match status.strip_suffix("XX") {
        Some(class) => sample.status.starts_with(class),
        None => sample.status == status,
    };
    let of_tag: Vec<&Sample> = SAMPLES.iter().filter(|sample| sample.tags.contains(&tag)).filter(fits).collect();
    of_tag.into_iter()
}

#[cfg(test)]
mod tests {
    use super::SAMPLES;
    use caudal_types::ErrorKind;

    #[test]
    fn samples_have_codes_and_statuses_that_the_server_answers() {
        for sample in SAMPLES {
            let kind = ErrorKind::ALL.iter().find(|kind| kind.code() == sample.code);
            let kind = kind.unwrap_or_else(|| panic!("there is no code {}", sample.code));
            assert_eq!(crate::problem::status(*kind).as_str(), sample.status, "{}", sample.code);
        }
    }
}

//! Remedies for limits of memory: the machine's, that of requests, that of models.

use caudal_types::{ErrorKind, Stage};

use super::{Context, Finding, percent};

pub(super) fn free_machine_memory(context: &Context<'_>) -> Finding {
    let refused = context.failed_share(&[ErrorKind::MemoryPressure]);
    let because =
        format!("{} of the requests were refused because the machine's memory is nearly used up", percent(refused));
    let evidence: &[&[_]] = &[&[("refused", refused), ("looks_at_the_limit", context.observation.short_of_memory)]];
    Finding::new(because, evidence, "GET /admin/memory shows what uses it, and which settings bound that")
}

pub(super) fn raise_request_memory(context: &Context<'_>) -> Finding {
    let (uploads, pixels) = (context.observation.uploads, context.observation.pixels);
    let refused = context.failed_share(&[ErrorKind::MemoryFull]);
    let (purpose, setting) = match pixels > uploads {
        true => ("decoded images", "max_pixel_memory_mb"),
        false => ("uploads", "max_body_memory_mb"),
    };
    let because = format!(
        "the memory reserved for {purpose} was used up to {}, and {} of the requests were refused for it",
        percent(uploads.max(pixels)),
        percent(refused)
    );
    let evidence: &[&[_]] = &[&[("uploads", uploads), ("pixels", pixels), ("refused", refused)]];
    Finding::new(because, evidence, format!("raise {setting}"))
}

pub(super) fn keep_models_loaded(context: &Context<'_>) -> Finding {
    let (loads, share) = (context.observation.loads, context.stage_share(Stage::Load));
    let because = format!(
        "{loads} models were loaded within {:.0} s, and requests spent {} of their time waiting for that",
        context.observation.seconds,
        percent(share)
    );
    let advice = "raise model_memory_mb so that the requested models fit, or idle_unload_secs so that they stay loaded";
    Finding::new(because, &[&[("loads", loads as f64), ("share", share)]], advice)
}

//! Remedies for pipelines whose steps take the time.

use caudal_types::Stage;

use super::{Context, Finding, percent};

pub(super) fn find_slow_step(context: &Context<'_>) -> Finding {
    let share = context.stage_share(Stage::Flow);
    let because = format!(
        "requests spent {} of their time in steps of pipelines, while {} of the cores' time was left",
        percent(share),
        context.idle_percent()
    );
    let advice = "GET /api/v1/runs/{id} and GET /admin/requests show how long each step takes; steps that do not need \
                  each other can run in parallel";
    Finding::new(because, &[&[("flow_share", share)], &context.cpu_evidence()], advice)
}

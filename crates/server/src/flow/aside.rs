//! Runs that go on though no request waits for them: each is told of when it ends, like a request, under its own name.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use caudal_flow::{Going, Outcome, Report, StepReport};
use caudal_sight::RequestRecord;
use caudal_telemetry::{FinishedRequest, TraceContext};
use caudal_types::{Explain, PipelineSteps, Stage, StageTimes, StepTiming};

use crate::{app::App, problem::Problem, route::Route};

/// Steps of a run that are told of.
const TOLD: usize = 256;

/// The steps of a run that began so long after its request.
pub(super) fn stamps(report: &Report, began: Duration) -> PipelineSteps {
    let time = |ms: f64| Duration::from_secs_f64(ms.max(0.0) / 1e3);
    let stamp = |step: &StepReport| StepTiming {
        path: step.path.as_str().into(),
        kind: step.kind,
        status: step.status.name(),
        began: began + time(step.began_ms),
        took: time(step.duration_ms),
        attempts: step.attempts,
        cached: step.cache_hit,
    };
    let steps = report.steps.iter().take(TOLD).map(stamp).collect();
    PipelineSteps { run: (*report.run_id).into(), pipeline: (*report.pipeline).into(), steps }
}

/// Waits for the end of a run in place of who does not; `context` is its place in the trace of who began it.
pub(crate) fn tell(app: &Arc<App>, going: Going, context: Option<TraceContext>) {
    let app = Arc::downgrade(app);
    tokio::spawn(async move {
        let start = going.handle.log().start();
        let Ok((outcome, report)) = going.wait().await else { return };
        if let Some(app) = app.upgrade() {
            ended(&app, start, &outcome, &report, context);
        }
    });
}

fn ended(app: &App, start: Instant, outcome: &Outcome, report: &Report, context: Option<TraceContext>) {
    let mut stamps_of = StageTimes::new(start);
    stamps_of.enter(Stage::Flow, start);
    stamps_of.enter(Stage::Flow, start + Duration::from_secs_f64(report.duration_ms.max(0.0) / 1e3));
    let (status, error) = match outcome {
        Outcome::Completed(_) => (200, None),
        Outcome::Paused(_) => (202, None),
        Outcome::Failed(error) => (Problem::from(error.clone()).status().as_u16(), Some(error.kind())),
    };
    let steps = Some(Arc::new(stamps(report, Duration::ZERO)));
    let context = context.or_else(|| app.tracer.as_ref()?.sample_request(None, true, String::new));
    if caudal_observe::is_enabled() {
        let kept = RequestRecord {
            id: (*report.run_id).into(),
            status,
            error,
            connection: 0,
            model: None,
            received_bytes: None,
            sent_bytes: 0,
            stamps: stamps_of,
            trace_id: context.as_ref().map(|context| context.trace),
            steps: steps.clone(),
        };
        app.recorder.record_request(Route::PipelineRun as usize, kept);
    }
    if let (Some(tracer), Some(context)) = (&app.tracer, context) {
        tracer.record_request(FinishedRequest {
            context,
            // No request: what there is to tell stands in the steps.
            method: "",
            route: None,
            path: String::new(),
            status,
            error: error.map(caudal_types::ErrorKind::code),
            request_id: (*report.run_id).into(),
            model: None,
            received: None,
            sent: 0,
            stamps: stamps_of,
            steps,
        });
    }
}

/// A run that a request waits for, and that goes on without it if it is kept.
pub(super) struct Waited {
    app: Arc<App>,
    going: Option<Going>,
    context: Option<TraceContext>,
}

impl Waited {
    pub(super) fn new(app: &Arc<App>, going: Going, context: Option<TraceContext>) -> Self {
        Self { app: Arc::clone(app), going: Some(going), context }
    }

    /// Waits for its end.
    pub(super) async fn end(mut self) -> Result<(Outcome, Arc<Report>), caudal_flow::RunError> {
        let ended = match &mut self.going {
            Some(going) => going.ended().await,
            None => Err(caudal_flow::RunError::Cancelled),
        };
        self.going = None;
        ended
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        if let Some(going) = self.going.take().filter(Going::is_kept) {
            tell(&self.app, going, self.context.take());
        }
    }
}

//! A request that is done, as spans: one around everything, and within it one for each part of its way.

use std::{collections::HashMap, sync::Arc, time::Duration};

use caudal_types::{ModelId, PipelineSteps, Run, Stage, StageTimes};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::KeyValue,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};

use crate::{
    Context, Parent, SpanId,
    attributes::{number, resource, scope, text},
};

/// What each span says of itself: it is recorded, and it is known whether its parent is elsewhere.
const FLAGS: u32 = 0x101;
const RANDOM: u32 = 0x2;
const PARENT_ELSEWHERE: u32 = 0x200;

/// A request that is done.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its place in its trace.
    pub context: Context,
    /// Its method, as routes know it; empty for a pipeline's run that no request waited for.
    pub method: &'static str,
    /// Its path with names in place of values; none if it found no route.
    pub route: Option<&'static str>,
    /// Its path.
    pub path: String,
    /// Its status code.
    pub status: u16,
    /// The code of the error that it was told.
    pub error: Option<&'static str>,
    /// Its name.
    pub request_id: Box<str>,
    /// The model that it asked.
    pub asked: Option<ModelId>,
    /// Bytes of its body, where it said so.
    pub received: Option<u64>,
    /// Bytes of its answer.
    pub sent: u64,
    /// Where its time went.
    pub stamps: StageTimes,
    /// The steps of the pipeline that ran for it.
    pub steps: Option<Arc<PipelineSteps>>,
}

/// Which stages are spans.
fn told(stages: bool) -> impl Fn(&(Stage, Duration, Duration)) -> bool {
    move |(stage, ..)| stages || matches!(stage, Stage::Queue | Stage::Infer)
}

/// Each stage with when it began, after the arrival, and how long it took.
fn stretches(stamps: &StageTimes) -> impl Iterator<Item = (Stage, Duration, Duration)> + '_ {
    let mut began = Duration::ZERO;
    stamps.iter().map(move |(stage, spent)| {
        let from = began;
        began += spent;
        (stage, from, spent)
    })
}

impl Finished {
    /// How many spans it makes.
    pub(crate) fn count(&self, stages: bool) -> u64 {
        let steps = self.steps.as_ref().map_or(0, |steps| steps.steps.len());
        1 + (stretches(&self.stamps).filter(told(stages)).count() + steps) as u64
    }

    /// Its spans, if it arrived at `began`, in nanoseconds since 1970.
    pub(crate) fn spans(self, began: u64, stages: bool, into: &mut Vec<Span>) {
        let (own, place) = (SpanId::random(), into.len());
        // Room for the one around all others, which takes what they only look at.
        into.push(Span::default());
        let parts = stretches(&self.stamps).filter(told(stages));
        into.extend(parts.map(|(stage, from, spent)| {
            let mut attributes = Vec::new();
            if let (Stage::Queue | Stage::Prepare | Stage::Infer | Stage::Finish, Some(asked)) = (stage, &self.asked) {
                push_model(&mut attributes, asked);
            }
            if let (Stage::Infer, Some(run)) = (stage, self.stamps.run()) {
                push_run(&mut attributes, run);
            }
            let start = began + nanos(from);
            Span {
                parent_span_id: own.bytes().to_vec(),
                name: stage.name().to_owned(),
                kind: SpanKind::Internal as i32,
                flags: FLAGS | self.random(),
                start_time_unix_nano: start,
                end_time_unix_nano: start + nanos(spent),
                attributes,
                ..self.span(SpanId::random())
            }
        }));
        self.push_steps(own, began, into);
        into[place] = self.around(own, began);
    }

    /// The spans of a pipeline's steps, each within the one that it stands within.
    fn push_steps(&self, own: SpanId, began: u64, into: &mut Vec<Span>) {
        let Some(run) = &self.steps else { return };
        let mut ids: HashMap<&str, SpanId> = HashMap::with_capacity(run.steps.len());
        for step in &run.steps {
            let id = SpanId::random();
            let around = step.path.rsplit_once('/').and_then(|(around, _)| ids.get(around)).copied().unwrap_or(own);
            ids.insert(&step.path, id);
            let start = began + nanos(step.began);
            let mut attributes = vec![
                text("caudal.flow.pipeline", &*run.pipeline),
                text("caudal.flow.run.id", &*run.run),
                text("caudal.flow.step.path", &*step.path),
                text("caudal.flow.step.kind", step.kind),
                number("caudal.flow.step.attempts", step.attempts.into()),
            ];
            if step.cached {
                attributes.push(text("caudal.flow.step.cache", "hit"));
            }
            into.push(Span {
                parent_span_id: around.bytes().to_vec(),
                name: step.path.rsplit('/').next().unwrap_or_default().to_owned(),
                kind: SpanKind::Internal as i32,
                flags: FLAGS | self.random(),
                start_time_unix_nano: start,
                end_time_unix_nano: start + nanos(step.took),
                status: (step.status == "failed")
                    .then(|| Status { code: StatusCode::Error as i32, message: "the step failed".to_owned() }),
                attributes,
                ..self.span(id)
            });
        }
    }

    /// The bit that says whether the trace's name is random: of those that begin here it is.
    fn random(&self) -> u32 {
        if self.context.parent.is_none_or(|parent| parent.random) { RANDOM } else { 0 }
    }

    fn span(&self, id: SpanId) -> Span {
        Span {
            trace_id: self.context.trace.bytes().to_vec(),
            span_id: id.bytes().to_vec(),
            trace_state: self.context.state.to_string(),
            ..Span::default()
        }
    }

    /// The span around a pipeline's run that no request waited for.
    fn run(&self, run: &PipelineSteps, own: SpanId, began: u64) -> Span {
        let mut attributes = vec![text("caudal.flow.pipeline", &*run.pipeline), text("caudal.flow.run.id", &*run.run)];
        attributes.extend(self.error.map(|code| text("error.type", code)));
        Span {
            parent_span_id: self.context.parent.map_or_else(Vec::new, |Parent { span, .. }| span.bytes().to_vec()),
            name: format!("flow {}", run.pipeline),
            kind: SpanKind::Internal as i32,
            flags: FLAGS | self.random() | if self.context.parent.is_some() { PARENT_ELSEWHERE } else { 0 },
            start_time_unix_nano: began,
            end_time_unix_nano: began + nanos(self.stamps.total()),
            status: self.error.map(|code| Status { code: StatusCode::Error as i32, message: code.to_owned() }),
            attributes,
            ..self.span(own)
        }
    }

    /// The span around everything, by OpenTelemetry's conventions for HTTP servers.
    fn around(self, own: SpanId, began: u64) -> Span {
        if let (None, "", Some(run)) = (self.route, self.method, &self.steps) {
            return self.run(run, own, began);
        }
        let mut attributes = vec![
            text("http.request.method", self.method),
            text("url.scheme", "http"),
            number("http.response.status_code", u64::from(self.status)),
            number("http.response.body.size", self.sent),
            text("request_id", &*self.request_id),
        ];
        attributes.extend(self.route.map(|route| text("http.route", route)));
        attributes.extend(self.received.map(|bytes| number("http.request.body.size", bytes)));
        attributes.extend(self.error.map(|code| text("error.type", code)));
        if let Some(asked) = &self.asked {
            push_model(&mut attributes, asked);
        }
        if let Some(run) = self.stamps.run() {
            push_run(&mut attributes, run);
        }
        let elsewhere = if self.context.parent.is_some() { PARENT_ELSEWHERE } else { 0 };
        let span = Span {
            parent_span_id: self.context.parent.map_or_else(Vec::new, |Parent { span, .. }| span.bytes().to_vec()),
            name: self.route.map_or_else(|| "HTTP".to_owned(), |route| format!("{} {route}", self.method)),
            kind: SpanKind::Server as i32,
            flags: FLAGS | self.random() | elsewhere,
            start_time_unix_nano: began,
            end_time_unix_nano: began + nanos(self.stamps.total()),
            // What the caller did wrong is no error of this server.
            status: (self.status >= 500)
                .then(|| Status { code: StatusCode::Error as i32, message: self.error.unwrap_or_default().to_owned() }),
            ..self.span(own)
        };
        attributes.push(text("url.path", self.path));
        Span { attributes, ..span }
    }
}

fn push_model(attributes: &mut Vec<KeyValue>, asked: &ModelId) {
    attributes.push(text("caudal.model.name", &*asked.name));
    attributes.push(text("caudal.model.version", asked.version.to_string()));
}

/// Whoever has the same number was part of the same run of the same model.
fn push_run(attributes: &mut Vec<KeyValue>, run: Run) {
    attributes.push(number("caudal.run.number", run.number));
    attributes.push(number("caudal.run.requests", run.requests as u64));
    attributes.push(number("caudal.run.rows", run.rows as u64));
    attributes.push(text("caudal.run.reason", run.why));
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// `spans` of the process that `of` tells of, as they are sent.
pub(crate) fn export(of: &[(String, String)], spans: Vec<Span>) -> ExportTraceServiceRequest {
    let spans = ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() };
    let of_this = ResourceSpans { resource: Some(resource(of)), scope_spans: vec![spans], ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![of_this] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_types::{StepTiming, TraceId};
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use std::time::Instant;

    const MS: Duration = Duration::from_millis(1);

    fn finished(status: u16, parent: Option<Parent>) -> Finished {
        let start = Instant::now();
        let mut stamps = StageTimes::new(start);
        stamps.enter(Stage::Queue, start + 2 * MS);
        stamps.enter(Stage::Infer, start + 5 * MS);
        stamps.enter(Stage::Encode, start + 12 * MS);
        stamps.enter(Stage::Encode, start + 13 * MS);
        Finished {
            context: Context { trace: TraceId::new([3; 16]).unwrap(), parent, state: "a=b".into() },
            method: "POST",
            route: Some("/predict/{model}"),
            path: "/predict/m".to_owned(),
            status,
            error: (status >= 400).then_some("internal"),
            request_id: "r1".into(),
            asked: Some(ModelId { name: "m".into(), version: 2 }),
            received: Some(10),
            sent: 20,
            stamps,
            steps: None,
        }
    }

    fn spans(finished: Finished, stages: bool) -> Vec<Span> {
        let (mut spans, count) = (Vec::new(), finished.count(stages));
        finished.spans(1000, stages, &mut spans);
        assert_eq!(spans.len() as u64, count);
        spans
    }

    fn said<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
        span.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()
    }

    #[test]
    fn queue_and_run_lie_where_the_stamps_say() {
        let spans = spans(finished(200, None), false);
        let times: Vec<_> = spans
            .iter()
            .map(|span| (&*span.name, span.start_time_unix_nano - 1000, span.end_time_unix_nano - 1000))
            .collect();
        let ms = 1_000_000;
        assert_eq!(
            times,
            [("POST /predict/{model}", 0, 13 * ms), ("queue", 2 * ms, 5 * ms), ("infer", 5 * ms, 12 * ms),]
        );
        assert!(spans[1..].iter().all(|span| span.parent_span_id == spans[0].span_id));
        assert!(spans.iter().all(|span| span.trace_id == [3; 16] && span.trace_state == "a=b"));
        assert_eq!((spans[0].flags, spans[1].flags), (0x103, 0x103));
        assert!(spans[0].parent_span_id.is_empty() && spans[0].status.is_none());
        assert_eq!(said(&spans[0], "request_id"), Some(&Value::StringValue("r1".to_owned())));
        assert_eq!(said(&spans[2], "caudal.model.version"), Some(&Value::StringValue("2".to_owned())));
        assert_eq!(said(&spans[0], "error.type"), None);
    }

    #[test]
    fn each_stage_is_a_span_where_that_is_asked_for() {
        let spans = spans(finished(200, None), true);
        assert_eq!(
            spans[1..].iter().map(|span| &*span.name).collect::<Vec<_>>(),
            ["receive", "queue", "infer", "encode"]
        );
        assert_eq!(spans[4].end_time_unix_nano, spans[0].end_time_unix_nano, "there is no gap");
    }

    #[test]
    fn steps_of_a_pipeline_stand_within_each_other() {
        let step = |path: &str, status, began: u32, took: u32| StepTiming {
            path: path.into(),
            kind: "step",
            status,
            began: began * MS,
            took: took * MS,
            attempts: 2,
            cached: false,
        };
        let steps = [step("both", "completed", 3, 6), step("both/a", "completed", 3, 4), step("end", "failed", 9, 1)];
        let steps = PipelineSteps { run: "r".into(), pipeline: "p".into(), steps: steps.into() };
        let spans = spans(Finished { steps: Some(Arc::new(steps)), ..finished(200, None) }, false);
        let [around, _, _, both, a, end] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((&*both.name, &*a.name, &*end.name), ("both", "a", "end"));
        assert!(both.parent_span_id == around.span_id && a.parent_span_id == both.span_id);
        assert_eq!((a.start_time_unix_nano, a.end_time_unix_nano), (1000 + 3_000_000, 1000 + 7_000_000));
        assert_eq!(said(a, "caudal.flow.step.path"), Some(&Value::StringValue("both/a".to_owned())));
        assert_eq!(end.status.as_ref().map(|status| status.code), Some(StatusCode::Error as i32));
    }

    #[test]
    fn a_run_that_no_request_waited_for_is_a_span_of_its_own() {
        let steps = Some(Arc::new(PipelineSteps { run: "r".into(), pipeline: "p".into(), steps: Box::default() }));
        let run = Finished { steps, method: "", route: None, error: Some("step_failed"), ..finished(500, None) };
        let spans = spans(run, false);
        assert_eq!((&*spans[0].name, spans[0].kind), ("flow p", SpanKind::Internal as i32));
        assert_eq!(said(&spans[0], "caudal.flow.run.id"), Some(&Value::StringValue("r".to_owned())));
        assert_eq!(said(&spans[0], "http.response.status_code"), None);
        assert!(spans[0].status.is_some());
    }

    #[test]
    fn a_trace_goes_on_and_an_error_is_one() {
        let trace = TraceId::new([3; 16]).unwrap();
        let parent = Parent { trace, span: SpanId::new([5; 8]).unwrap(), sampled: true, random: false };
        let spans = spans(finished(500, Some(parent)), false);
        assert_eq!(spans[0].parent_span_id, [5; 8]);
        assert_eq!((spans[0].flags, spans[1].flags), (0x301, 0x101));
        assert_eq!(spans[0].status.as_ref().map(|status| status.code), Some(StatusCode::Error as i32));
        assert_eq!(said(&spans[0], "error.type"), Some(&Value::StringValue("internal".to_owned())));
    }
}

//! Spans of a finished request: one for the request, with one child for each stage and pipeline step.

use std::{collections::HashMap, sync::Arc, time::Duration};

use caudal_types::{ModelId, PipelineSteps, Run, Stage, StageTimes};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::KeyValue,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};

use crate::{
    SpanId, TraceContext, TraceParent,
    attributes::{instrumentation_scope, int_attribute, otlp_resource, string_attribute},
};

/// Flags of every span: sampled, and the remoteness of its parent is known.
const SPAN_FLAGS: u32 = 0x101;
const FLAG_RANDOM_TRACE_ID: u32 = 0x2;
const FLAG_PARENT_IS_REMOTE: u32 = 0x200;

/// A finished request.
#[derive(Debug, Clone)]
pub struct FinishedRequest {
    /// Its trace context.
    pub context: TraceContext,
    /// HTTP method; empty for a background run of a pipeline.
    pub method: &'static str,
    /// Route pattern, if one matched.
    pub route: Option<&'static str>,
    /// Path.
    pub path: String,
    /// Status code.
    pub status: u16,
    /// Error code of the response.
    pub error: Option<&'static str>,
    /// Request id.
    pub request_id: Box<str>,
    /// Requested model.
    pub model: Option<ModelId>,
    /// Content length of the request, if sent.
    pub received: Option<u64>,
    /// Bytes of the response body.
    pub sent: u64,
    /// Times of its stages.
    pub stamps: StageTimes,
    /// Steps of the pipeline that ran for it.
    pub steps: Option<Arc<PipelineSteps>>,
}

/// Selects the stages that are spans.
fn stage_filter(stages: bool) -> impl Fn(&(Stage, Duration, Duration)) -> bool {
    move |(stage, ..)| stages || matches!(stage, Stage::Queue | Stage::Infer)
}

/// Each stage with its start after the arrival and its duration.
fn stage_intervals(stamps: &StageTimes) -> impl Iterator<Item = (Stage, Duration, Duration)> + '_ {
    let mut began = Duration::ZERO;
    stamps.iter().map(move |(stage, spent)| {
        let from = began;
        began += spent;
        (stage, from, spent)
    })
}

impl FinishedRequest {
    /// Number of its spans.
    pub(crate) fn span_count(&self, stages: bool) -> u64 {
        let steps = self.steps.as_ref().map_or(0, |steps| steps.steps.len());
        1 + (stage_intervals(&self.stamps).filter(stage_filter(stages)).count() + steps) as u64
    }

    /// Appends its spans; `began` is its arrival in nanoseconds since 1970.
    pub(crate) fn push_spans(self, began: u64, stages: bool, into: &mut Vec<Span>) {
        let (own, place) = (SpanId::random_id(), into.len());
        // Placeholder of the root span, which consumes what its children read.
        into.push(Span::default());
        let parts = stage_intervals(&self.stamps).filter(stage_filter(stages));
        into.extend(parts.map(|(stage, from, spent)| {
            let mut attributes = Vec::new();
            if let (Stage::Queue | Stage::Prepare | Stage::Infer | Stage::Finish, Some(model)) = (stage, &self.model) {
                push_model(&mut attributes, model);
            }
            if let (Stage::Infer, Some(run)) = (stage, self.stamps.run()) {
                push_run(&mut attributes, run);
            }
            let start = began + to_nanos(from);
            Span {
                parent_span_id: own.bytes().to_vec(),
                name: stage.name().to_owned(),
                kind: SpanKind::Internal as i32,
                flags: SPAN_FLAGS | self.random_flag(),
                start_time_unix_nano: start,
                end_time_unix_nano: start + to_nanos(spent),
                attributes,
                ..self.base_span(SpanId::random_id())
            }
        }));
        self.push_steps(own, began, into);
        into[place] = self.root_span(own, began);
    }

    /// Appends the spans of a pipeline's steps, each below the step that contains it.
    fn push_steps(&self, own: SpanId, began: u64, into: &mut Vec<Span>) {
        let Some(run) = &self.steps else { return };
        let mut ids: HashMap<&str, SpanId> = HashMap::with_capacity(run.steps.len());
        for step in &run.steps {
            let id = SpanId::random_id();
            let around = step.path.rsplit_once('/').and_then(|(around, _)| ids.get(around)).copied().unwrap_or(own);
            ids.insert(&step.path, id);
            let start = began + to_nanos(step.began);
            let mut attributes = vec![
                string_attribute("caudal.flow.pipeline", &*run.pipeline),
                string_attribute("caudal.flow.run.id", &*run.run),
                string_attribute("caudal.flow.step.path", &*step.path),
                string_attribute("caudal.flow.step.kind", step.kind),
                int_attribute("caudal.flow.step.attempts", step.attempts.into()),
            ];
            if step.cached {
                attributes.push(string_attribute("caudal.flow.step.cache", "hit"));
            }
            into.push(Span {
                parent_span_id: around.bytes().to_vec(),
                name: step.path.rsplit('/').next().unwrap_or_default().to_owned(),
                kind: SpanKind::Internal as i32,
                flags: SPAN_FLAGS | self.random_flag(),
                start_time_unix_nano: start,
                end_time_unix_nano: start + to_nanos(step.took),
                status: (step.status == "failed")
                    .then(|| Status { code: StatusCode::Error as i32, message: "the step failed".to_owned() }),
                attributes,
                ..self.base_span(id)
            });
        }
    }

    /// The flag of a random trace id; ids created here are random.
    fn random_flag(&self) -> u32 {
        if self.context.parent.is_none_or(|parent| parent.random) { FLAG_RANDOM_TRACE_ID } else { 0 }
    }

    fn base_span(&self, id: SpanId) -> Span {
        Span {
            trace_id: self.context.trace.bytes().to_vec(),
            span_id: id.bytes().to_vec(),
            trace_state: self.context.state.to_string(),
            ..Span::default()
        }
    }

    /// The root span of a background run of a pipeline.
    fn run_span(&self, run: &PipelineSteps, own: SpanId, began: u64) -> Span {
        let mut attributes = vec![
            string_attribute("caudal.flow.pipeline", &*run.pipeline),
            string_attribute("caudal.flow.run.id", &*run.run),
        ];
        attributes.extend(self.error.map(|code| string_attribute("error.type", code)));
        Span {
            parent_span_id: self.context.parent.map_or_else(Vec::new, |TraceParent { span, .. }| span.bytes().to_vec()),
            name: format!("flow {}", run.pipeline),
            kind: SpanKind::Internal as i32,
            flags: SPAN_FLAGS
                | self.random_flag()
                | if self.context.parent.is_some() { FLAG_PARENT_IS_REMOTE } else { 0 },
            start_time_unix_nano: began,
            end_time_unix_nano: began + to_nanos(self.stamps.total()),
            status: self.error.map(|code| Status { code: StatusCode::Error as i32, message: code.to_owned() }),
            attributes,
            ..self.base_span(own)
        }
    }

    /// The root span, by OpenTelemetry's conventions for HTTP servers.
    fn root_span(self, own: SpanId, began: u64) -> Span {
        if let (None, "", Some(run)) = (self.route, self.method, &self.steps) {
            return self.run_span(run, own, began);
        }
        let mut attributes = vec![
            string_attribute("http.request.method", self.method),
            string_attribute("url.scheme", "http"),
            int_attribute("http.response.status_code", u64::from(self.status)),
            int_attribute("http.response.body.size", self.sent),
            string_attribute("request_id", &*self.request_id),
        ];
        attributes.extend(self.route.map(|route| string_attribute("http.route", route)));
        attributes.extend(self.received.map(|bytes| int_attribute("http.request.body.size", bytes)));
        attributes.extend(self.error.map(|code| string_attribute("error.type", code)));
        if let Some(model) = &self.model {
            push_model(&mut attributes, model);
        }
        if let Some(run) = self.stamps.run() {
            push_run(&mut attributes, run);
        }
        let remote = if self.context.parent.is_some() { FLAG_PARENT_IS_REMOTE } else { 0 };
        let span = Span {
            parent_span_id: self.context.parent.map_or_else(Vec::new, |TraceParent { span, .. }| span.bytes().to_vec()),
            name: self.route.map_or_else(|| "HTTP".to_owned(), |route| format!("{} {route}", self.method)),
            kind: SpanKind::Server as i32,
            flags: SPAN_FLAGS | self.random_flag() | remote,
            start_time_unix_nano: began,
            end_time_unix_nano: began + to_nanos(self.stamps.total()),
            // A client error is not an error of this server.
            status: (self.status >= 500)
                .then(|| Status { code: StatusCode::Error as i32, message: self.error.unwrap_or_default().to_owned() }),
            ..self.base_span(own)
        };
        attributes.push(string_attribute("url.path", self.path));
        Span { attributes, ..span }
    }
}

fn push_model(attributes: &mut Vec<KeyValue>, model: &ModelId) {
    attributes.push(string_attribute("caudal.model.name", &*model.name));
    attributes.push(string_attribute("caudal.model.version", model.version.to_string()));
}

/// Attributes of a model run; requests with the same number ran in the same batch.
fn push_run(attributes: &mut Vec<KeyValue>, run: Run) {
    attributes.push(int_attribute("caudal.run.number", run.number));
    attributes.push(int_attribute("caudal.run.requests", run.requests as u64));
    attributes.push(int_attribute("caudal.run.rows", run.rows as u64));
    attributes.push(string_attribute("caudal.run.reason", run.why));
}

fn to_nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// The export request with `spans` of the process described by `resource`.
pub(crate) fn trace_request(resource: &[(String, String)], spans: Vec<Span>) -> ExportTraceServiceRequest {
    let spans = ScopeSpans { scope: Some(instrumentation_scope()), spans, ..ScopeSpans::default() };
    let resource_spans =
        ResourceSpans { resource: Some(otlp_resource(resource)), scope_spans: vec![spans], ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_types::{StepTiming, TraceId};
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use std::time::Instant;

    const MS: Duration = Duration::from_millis(1);

    fn finished_request(status: u16, parent: Option<TraceParent>) -> FinishedRequest {
        let start = Instant::now();
        let mut stamps = StageTimes::new(start);
        stamps.enter(Stage::Queue, start + 2 * MS);
        stamps.enter(Stage::Infer, start + 5 * MS);
        stamps.enter(Stage::Encode, start + 12 * MS);
        stamps.enter(Stage::Encode, start + 13 * MS);
        FinishedRequest {
            context: TraceContext { trace: TraceId::new([3; 16]).unwrap(), parent, state: "a=b".into() },
            method: "POST",
            route: Some("/predict/{model}"),
            path: "/predict/m".to_owned(),
            status,
            error: (status >= 400).then_some("internal"),
            request_id: "r1".into(),
            model: Some(ModelId { name: "m".into(), version: 2 }),
            received: Some(10),
            sent: 20,
            stamps,
            steps: None,
        }
    }

    fn built_spans(finished: FinishedRequest, stages: bool) -> Vec<Span> {
        let (mut spans, count) = (Vec::new(), finished.span_count(stages));
        finished.push_spans(1000, stages, &mut spans);
        assert_eq!(spans.len() as u64, count);
        spans
    }

    fn attribute_of<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
        span.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()
    }

    #[test]
    fn spans_cover_queue_and_inference() {
        let spans = built_spans(finished_request(200, None), false);
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
        assert_eq!(attribute_of(&spans[0], "request_id"), Some(&Value::StringValue("r1".to_owned())));
        assert_eq!(attribute_of(&spans[2], "caudal.model.version"), Some(&Value::StringValue("2".to_owned())));
        assert_eq!(attribute_of(&spans[0], "error.type"), None);
    }

    #[test]
    fn spans_cover_every_stage_if_enabled() {
        let spans = built_spans(finished_request(200, None), true);
        assert_eq!(
            spans[1..].iter().map(|span| &*span.name).collect::<Vec<_>>(),
            ["receive", "queue", "infer", "encode"]
        );
        assert_eq!(spans[4].end_time_unix_nano, spans[0].end_time_unix_nano, "without a gap");
    }

    #[test]
    fn step_spans_are_nested() {
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
        let spans = built_spans(FinishedRequest { steps: Some(Arc::new(steps)), ..finished_request(200, None) }, false);
        let [around, _, _, both, a, end] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((&*both.name, &*a.name, &*end.name), ("both", "a", "end"));
        assert!(both.parent_span_id == around.span_id && a.parent_span_id == both.span_id);
        assert_eq!((a.start_time_unix_nano, a.end_time_unix_nano), (1000 + 3_000_000, 1000 + 7_000_000));
        assert_eq!(attribute_of(a, "caudal.flow.step.path"), Some(&Value::StringValue("both/a".to_owned())));
        assert_eq!(end.status.as_ref().map(|status| status.code), Some(StatusCode::Error as i32));
    }

    #[test]
    fn background_run_has_a_root_span_of_its_own() {
        let steps = Some(Arc::new(PipelineSteps { run: "r".into(), pipeline: "p".into(), steps: Box::default() }));
        let run = FinishedRequest {
            steps,
            method: "",
            route: None,
            error: Some("step_failed"),
            ..finished_request(500, None)
        };
        let spans = built_spans(run, false);
        assert_eq!((&*spans[0].name, spans[0].kind), ("flow p", SpanKind::Internal as i32));
        assert_eq!(attribute_of(&spans[0], "caudal.flow.run.id"), Some(&Value::StringValue("r".to_owned())));
        assert_eq!(attribute_of(&spans[0], "http.response.status_code"), None);
        assert!(spans[0].status.is_some());
    }

    #[test]
    fn root_span_has_the_parent_and_the_error() {
        let trace = TraceId::new([3; 16]).unwrap();
        let parent = TraceParent { trace, span: SpanId::new([5; 8]).unwrap(), sampled: true, random: false };
        let spans = built_spans(finished_request(500, Some(parent)), false);
        assert_eq!(spans[0].parent_span_id, [5; 8]);
        assert_eq!((spans[0].flags, spans[1].flags), (0x301, 0x101));
        assert_eq!(spans[0].status.as_ref().map(|status| status.code), Some(StatusCode::Error as i32));
        assert_eq!(attribute_of(&spans[0], "error.type"), Some(&Value::StringValue("internal".to_owned())));
    }
}

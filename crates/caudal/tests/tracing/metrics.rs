//! Metrics as a collector is told of them: what `/metrics` says, by OpenTelemetry's protocol.

use std::path::Path;

use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, HistogramDataPoint, Metric, NumberDataPoint, metric::Data, number_data_point,
};

use super::*;
use crate::collector::said;

const EVENTS: &str = "/consultations/{id}/events";

/// A server with a record, under `variables`, that tells of its metrics ten times a second.
fn keeps(variables: &[(&str, &str)]) -> Server {
    let variables = [&[("OTEL_METRIC_EXPORT_INTERVAL", "100")], variables].concat();
    Server::start_in(CAUDAL, Path::new("no-models"), &["--data-dir", "data"], &variables)
}

/// Appends so many events to a new consultation.
fn append(server: &Server, events: usize) {
    let made = server.post_json("/consultations", r#"{"user_id":"dra"}"#).json();
    let path = EVENTS.replace("{id}", made["consultation_id"].as_str().unwrap());
    for n in 0..events {
        let event = format!(r#"{{"event_type":"MESSAGE_RECEIVED","payload":{{"message":"{n}"}},"user_id":"dra"}}"#);
        assert_eq!(server.post_json(&path, &event).status, 201);
    }
}

fn data<'a>(metrics: &'a [Metric], name: &str) -> Option<&'a Data> {
    metrics.iter().find(|metric| metric.name == name)?.data.as_ref()
}

/// The number with `labels` of a counter or gauge.
fn number(metrics: &[Metric], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let points = match data(metrics, name)? {
        Data::Sum(sum) => &sum.data_points,
        Data::Gauge(gauge) => &gauge.data_points,
        other => panic!("{name}: {other:?}"),
    };
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let point = |point: &&NumberDataPoint| said(&point.attributes) == labels;
    match points.iter().find(point)?.value? {
        number_data_point::Value::AsDouble(value) => Some(value),
        number_data_point::Value::AsInt(value) => Some(value as f64),
    }
}

/// The times that events spent at `stage`.
fn times<'a>(metrics: &'a [Metric], stage: &str) -> Option<&'a HistogramDataPoint> {
    let Data::Histogram(histogram) = data(metrics, "fi.ingest.latency_ms")? else { panic!("{metrics:?}") };
    assert_eq!(histogram.aggregation_temporality(), AggregationTemporality::Cumulative);
    histogram.data_points.iter().find(|point| said(&point.attributes)["stage"] == stage)
}

const STAGES: [&str; 4] = ["ingest", "segment", "hash", "persist"];

/// Waits until `collector` was told of so many events, at all stages.
fn told(collector: &Collector, events: usize) -> Vec<Metric> {
    let labels = [("method", "POST"), ("route", EVENTS), ("status", "201")];
    wait_for(|| {
        let (_, _, metrics) = collector.metrics()?;
        let of = |stage| times(&metrics, stage).is_some_and(|times| times.count == events as u64);
        let all = STAGES.into_iter().all(of) && number(&metrics, "http_requests_total", &labels) == Some(events as f64);
        all.then_some(metrics)
    })
}

fn tells(collector: &Collector, variables: &[(&str, &str)]) {
    let endpoint = collector.endpoint();
    let server =
        keeps(&[&[("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_SERVICE_NAME", "eyes")], variables].concat());
    append(&server, 3);
    let metrics = told(collector, 3);
    let Some(Data::Sum(appended)) = data(&metrics, "fi.events.appended") else { panic!("{metrics:?}") };
    assert!(appended.is_monotonic);
    assert_eq!(appended.aggregation_temporality(), AggregationTemporality::Cumulative);
    let point = &appended.data_points[0];
    assert!(point.start_time_unix_nano > 0 && point.start_time_unix_nano < point.time_unix_nano, "{point:?}");
    let total = server.metric("fi_events_appended_total", "");
    assert_eq!((number(&metrics, "fi.events.appended", &[]), total), (Some(3.0), 3.0));
    assert_eq!(number(&metrics, "fi.persist.errors", &[("error_type", "disk_full")]), Some(0.0));
    let Some(Data::Gauge(_)) = data(&metrics, "fi.buffer.size") else { panic!("{metrics:?}") };
    assert_eq!(number(&metrics, "fi.buffer.size", &[]), Some(0.0));
    for stage in STAGES {
        let times = times(&metrics, stage).unwrap();
        assert_eq!(times.bucket_counts.len(), times.explicit_bounds.len() + 1, "{times:?}");
        assert_eq!(times.bucket_counts.iter().sum::<u64>(), 3, "{times:?}");
        assert_eq!(times.start_time_unix_nano, point.start_time_unix_nano);
    }
    let unit = |name: &str| metrics.iter().find(|metric| metric.name == name).map(|metric| &*metric.unit);
    let units = ["fi.ingest.latency_ms", "process_resident_memory_bytes", "process_cpu_seconds_total"].map(unit);
    assert_eq!(units, [Some("ms"), Some("By"), Some("s")]);
    // Whatever is on the page is told, by its name there but for the four above.
    let page = server.get("/metrics").text();
    let names: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let (own, others): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| name.starts_with("fi_"));
    assert_eq!(own.len(), 4);
    let has_points = |name: &&str| {
        let of_it = |rest: &str| rest.starts_with(['{', ' ']) || rest.starts_with("_bucket");
        page.lines().any(|line| line.strip_prefix(name).is_some_and(of_it))
    };
    for name in others.into_iter().filter(has_points) {
        assert!(data(&metrics, name).is_some(), "{name}");
    }
    let labels = format!("route=\"{EVENTS}\",status=\"201\"");
    assert_eq!(server.metric("http_requests_total", &labels), 3.0);
    assert!(server.metric("caudal_otlp_points_exported_total", "") > 0.0);
    let (_, resource, _) = collector.metrics().unwrap();
    assert_eq!(resource["service.name"], "eyes");
}

#[test]
fn by_http_a_collector_is_told_what_the_page_says() {
    let collector = Collector::http(Manner::Takes);
    tells(&collector, &[("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"), ("OTEL_TRACES_EXPORTER", "none")]);
    let (headers, _, _) = collector.metrics().unwrap();
    assert_eq!(headers["request"], "POST /v1/metrics HTTP/1.1");
    assert_eq!((&*headers["content-type"], &*headers["content-encoding"]), ("application/x-protobuf", "gzip"));
    assert!(collector.spans().is_empty());
}

#[test]
fn by_grpc_too_with_headers_of_its_own() {
    let collector = Collector::grpc(None);
    tells(
        &collector,
        &[
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-secret=of-traces"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-tenant=me"),
        ],
    );
    let (headers, _, _) = collector.metrics().unwrap();
    assert_eq!((&*headers["x-tenant"], headers.get("x-secret")), ("me", None));
}

#[test]
fn the_last_values_are_told_before_the_end() {
    let collector = Collector::http(Manner::Takes);
    let endpoint = format!("{}/v1/metrics", collector.endpoint());
    let server =
        keeps(&[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &*endpoint), ("OTEL_METRIC_EXPORT_INTERVAL", "3600000")]);
    append(&server, 2);
    assert!(collector.metrics().is_none());
    ends(server);
    told(&collector, 2);
    assert!(collector.spans().is_empty(), "who names a collector of metrics alone has no traces told");
}

#[test]
fn who_wants_no_metrics_told_has_none_told() {
    let collector = Collector::http(Manner::Takes);
    let server =
        super::server(&collector.endpoint(), &["--otel-metrics-exporter", "none", "--otel-metrics-interval-ms", "1"]);
    ask(&server, "told", "");
    collector.request("told");
    super::check_nothing_exported(&server, "caudal_otlp_points");
    ends(server);
    assert!(collector.metrics().is_none());
}

#[test]
fn a_collector_that_is_away_holds_nothing_up() {
    for protocol in ["http/protobuf", "grpc"] {
        let server = keeps(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &*nobody()), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]);
        let lost = || server.metric("caudal_otlp_points_dropped_total", "failed");
        let first = wait_for(|| Some(lost()).filter(|lost| *lost > 0.0));
        append(&server, 1);
        wait_for(|| (lost() > first).then_some(()));
        let log = ends(server);
        assert_eq!(log.matches("export of metrics failed").count(), 1, "{log}");
    }
    let silent = Collector::http(Manner::Silent);
    let server =
        keeps(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &*silent.endpoint()), ("OTEL_EXPORTER_OTLP_TIMEOUT", "600000")]);
    wait_for(|| (server.metric("caudal_otlp_points_dropped_total", "queue_full") > 0.0).then_some(()));
    let log = ends(server);
    assert!(log.contains("export of the last metrics timed out"), "{log}");
}

#[test]
fn a_collector_that_comes_back_is_told_everything() {
    let collector = Collector::http(Manner::Refuses);
    let server = keeps(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint())]);
    append(&server, 2);
    wait_for(|| (server.metric("caudal_otlp_points_dropped_total", "failed") > 0.0).then_some(()));
    collector.behave(Manner::Takes);
    told(&collector, 2);
    server.log_line("collector accepts metrics again");
}

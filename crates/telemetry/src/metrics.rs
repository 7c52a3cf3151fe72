//! Snapshots of metrics in OTLP. All counters are cumulative, so that a lost export loses no information that the next
//! one does not have.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        self as otlp, AggregationTemporality, HistogramDataPoint, NumberDataPoint, ResourceMetrics, ScopeMetrics,
        metric::Data, number_data_point::Value,
    },
};

use crate::attributes::{instrumentation_scope, otlp_resource, string_attribute};

/// A snapshot of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Name.
    pub name: String,
    /// Description.
    pub help: String,
    /// Unit in UCUM (`s`, `By`); empty for counts.
    pub unit: &'static str,
    /// Data points.
    pub values: Values,
}

/// Data points, by kind of metric.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Monotonic sums since the start.
    Sums(Vec<Point<f64>>),
    /// Current values.
    Gauges(Vec<Point<f64>>),
    /// Distributions since the start.
    Histograms(Vec<Point<Histogram>>),
}

/// A data point with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Point<T> {
    /// Labels that distinguish it from other points of the metric.
    pub labels: Vec<(String, String)>,
    /// Value.
    pub value: T,
}

/// A distribution of values.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Sum of all values.
    pub sum: f64,
    /// Upper bounds of the buckets, inclusive.
    pub bounds: Vec<f64>,
    /// Number of values per bucket; the last one counts the values above all bounds.
    pub counts: Vec<u64>,
}

/// Start and end of counting, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeRange {
    pub(crate) started: u64,
    pub(crate) now: u64,
}

impl Metric {
    /// Number of data points.
    pub(crate) fn point_count(&self) -> u64 {
        let points = match &self.values {
            Values::Sums(points) | Values::Gauges(points) => points.len(),
            Values::Histograms(points) => points.len(),
        };
        points as u64
    }

    fn into_otlp(self, time: TimeRange) -> otlp::Metric {
        let temporality = AggregationTemporality::Cumulative as i32;
        let data = match self.values {
            Values::Sums(points) => Data::Sum(otlp::Sum {
                data_points: number_points(points, time),
                aggregation_temporality: temporality,
                is_monotonic: true,
            }),
            Values::Gauges(points) => Data::Gauge(otlp::Gauge { data_points: number_points(points, time) }),
            Values::Histograms(points) => Data::Histogram(otlp::Histogram {
                data_points: points.into_iter().map(|point| histogram_point(point, time)).collect(),
                aggregation_temporality: temporality,
            }),
        };
        let (name, description, unit) = (self.name, self.help, self.unit.to_owned());
        otlp::Metric { name, description, unit, data: Some(data), ..otlp::Metric::default() }
    }
}

fn number_points(points: Vec<Point<f64>>, TimeRange { started, now }: TimeRange) -> Vec<NumberDataPoint> {
    let number = |Point { labels, value }| NumberDataPoint {
        attributes: label_attributes(labels),
        start_time_unix_nano: started,
        time_unix_nano: now,
        value: Some(Value::AsDouble(value)),
        ..NumberDataPoint::default()
    };
    points.into_iter().map(number).collect()
}

fn histogram_point(
    Point { labels, value }: Point<Histogram>,
    TimeRange { started, now }: TimeRange,
) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: label_attributes(labels),
        start_time_unix_nano: started,
        time_unix_nano: now,
        count: value.counts.iter().sum(),
        sum: Some(value.sum),
        bucket_counts: value.counts,
        explicit_bounds: value.bounds,
        ..HistogramDataPoint::default()
    }
}

fn label_attributes(labels: Vec<(String, String)>) -> Vec<KeyValue> {
    labels.into_iter().map(|(name, value)| string_attribute(&name, value)).collect()
}

/// The export request with `metrics` of the process described by `resource`.
pub(crate) fn metrics_request(
    resource: &[(String, String)],
    metrics: Vec<Metric>,
    time: TimeRange,
) -> ExportMetricsServiceRequest {
    let metrics = metrics.into_iter().map(|metric| metric.into_otlp(time)).collect();
    let metrics = ScopeMetrics { scope: Some(instrumentation_scope()), metrics, ..ScopeMetrics::default() };
    let resource_metrics = ResourceMetrics {
        resource: Some(otlp_resource(resource)),
        scope_metrics: vec![metrics],
        ..ResourceMetrics::default()
    };
    ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] }
}

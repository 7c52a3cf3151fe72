//! Metrics as they stand, in OTLP's words. Everything is counted from the start on (cumulative): an export that is lost takes
//! nothing with it that the next does not say.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        self as otlp, AggregationTemporality, HistogramDataPoint, NumberDataPoint, ResourceMetrics, ScopeMetrics,
        metric::Data, number_data_point::Value,
    },
};

use crate::attributes::{resource, scope, text};

/// A metric as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// What it tells.
    pub help: String,
    /// What its values are measured in, as UCUM writes it (`s`, `By`); empty where they are counts.
    pub unit: &'static str,
    /// Its values.
    pub values: Values,
}

/// Values, by what they mean.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// How much since the start: it never goes down.
    Sums(Vec<Point<f64>>),
    /// How much now.
    Gauges(Vec<Point<f64>>),
    /// How often it was how much, since the start.
    Histograms(Vec<Point<Histogram>>),
}

/// A value, and what it is the value of.
#[derive(Debug, Clone, PartialEq)]
pub struct Point<T> {
    /// Names and values that tell it from others of its metric.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: T,
}

/// How often values were of which size.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// All values together.
    pub sum: f64,
    /// Upper bounds, which belong to what is below them.
    pub bounds: Vec<f64>,
    /// How many values lie between each bound and the one before it; as the last, how many above all bounds.
    pub counts: Vec<u64>,
}

/// From when to when was counted, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time {
    pub(crate) started: u64,
    pub(crate) now: u64,
}

impl Metric {
    /// How many values it has.
    pub(crate) fn points(&self) -> u64 {
        let points = match &self.values {
            Values::Sums(points) | Values::Gauges(points) => points.len(),
            Values::Histograms(points) => points.len(),
        };
        points as u64
    }

    fn told(self, time: Time) -> otlp::Metric {
        let temporality = AggregationTemporality::Cumulative as i32;
        let data = match self.values {
            Values::Sums(points) => Data::Sum(otlp::Sum {
                data_points: numbers(points, time),
                aggregation_temporality: temporality,
                is_monotonic: true,
            }),
            Values::Gauges(points) => Data::Gauge(otlp::Gauge { data_points: numbers(points, time) }),
            Values::Histograms(points) => Data::Histogram(otlp::Histogram {
                data_points: points.into_iter().map(|point| spread(point, time)).collect(),
                aggregation_temporality: temporality,
            }),
        };
        let (name, description, unit) = (self.name, self.help, self.unit.to_owned());
        otlp::Metric { name, description, unit, data: Some(data), ..otlp::Metric::default() }
    }
}

fn numbers(points: Vec<Point<f64>>, Time { started, now }: Time) -> Vec<NumberDataPoint> {
    let number = |Point { labels, value }| NumberDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: started,
        time_unix_nano: now,
        value: Some(Value::AsDouble(value)),
        ..NumberDataPoint::default()
    };
    points.into_iter().map(number).collect()
}

fn spread(Point { labels, value }: Point<Histogram>, Time { started, now }: Time) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: started,
        time_unix_nano: now,
        count: value.counts.iter().sum(),
        sum: Some(value.sum),
        bucket_counts: value.counts,
        explicit_bounds: value.bounds,
        ..HistogramDataPoint::default()
    }
}

fn attributes(labels: Vec<(String, String)>) -> Vec<KeyValue> {
    labels.into_iter().map(|(name, value)| text(&name, value)).collect()
}

/// `metrics` of the process that `of` tells of, as they are sent.
pub(crate) fn export(of: &[(String, String)], metrics: Vec<Metric>, time: Time) -> ExportMetricsServiceRequest {
    let metrics = metrics.into_iter().map(|metric| metric.told(time)).collect();
    let metrics = ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() };
    let of_this =
        ResourceMetrics { resource: Some(resource(of)), scope_metrics: vec![metrics], ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![of_this] }
}

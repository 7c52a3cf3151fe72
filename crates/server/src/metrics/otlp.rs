//! The same metrics for collectors: what Prometheus would read, by the same names, taken apart.

use std::{mem, sync::Arc};

use caudal_telemetry::{Histogram, Metric, Point, Values};
use prometheus_client::encoding::prometheus_protobuf::{
    encode,
    prometheus_data_model::{self as prometheus, MetricFamily, MetricType},
};

use super::{record, registry};
use crate::app::App;

/// How names end, with the unit that this says as UCUM writes it.
const UNITS: [(&str, &str); 5] = [("_seconds", "s"), ("_bytes", "By"), ("_ms", "ms"), ("_us", "us"), ("_percent", "%")];

/// Everything that `app` knows.
pub(crate) fn told(app: &Arc<App>) -> Vec<Metric> {
    let families = encode(&registry(app)).expect("every value is a number");
    families.into_iter().filter(|family| !family.metric.is_empty()).map(metric).collect()
}

fn metric(family: MetricFamily) -> Metric {
    let kind = family.r#type();
    let MetricFamily { name, help, metric: points, .. } = family;
    let values = match kind {
        MetricType::Counter => Values::Sums(all(points, |point| Some(point.counter.take()?.value))),
        MetricType::Histogram => Values::Histograms(all(points, |point| point.histogram.take().map(histogram))),
        // What is left open may be anything.
        _ => Values::Gauges(all(points, |point| Some(point.gauge.take()?.value))),
    };
    let unit = unit(&name);
    let otel = record::OTEL.iter().find(|(known, _)| *known == name);
    Metric { name: otel.map_or(name, |(_, otel)| (*otel).to_owned()), help, unit, values }
}

fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    UNITS.iter().find(|(end, _)| name.ends_with(end)).map_or("", |(_, unit)| *unit)
}

/// All `points` with what `value` takes out of each.
fn all<T>(points: Vec<prometheus::Metric>, value: impl Fn(&mut prometheus::Metric) -> Option<T>) -> Vec<Point<T>> {
    let point = |mut point: prometheus::Metric| {
        let value = value(&mut point)?;
        let labels = point.label.into_iter().map(|label| (label.name, label.value)).collect();
        Some(Point { labels, value })
    };
    points.into_iter().filter_map(point).collect()
}

/// Prometheus counts all values up to each bound, the last of which has no end.
fn histogram(of: prometheus::Histogram) -> Histogram {
    let bounds = of.bucket.iter().map(|bucket| bucket.upper_bound).filter(|bound| bound.is_finite()).collect();
    let mut before = 0;
    let counts = of.bucket.iter().map(|bucket| {
        let up_to = bucket.cumulative_count;
        up_to - mem::replace(&mut before, up_to)
    });
    Histogram { sum: of.sample_sum, bounds, counts: counts.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::Bucket;

    #[test]
    fn units_are_read_off_names() {
        let check = |name, expected| assert_eq!(unit(name), expected, "{name}");
        check("process_cpu_seconds_total", "s");
        check("caudal_memory_used_bytes", "By");
        check("fi_ingest_latency_ms", "ms");
        check("http_requests_total", "");
    }

    #[test]
    fn what_lies_between_bounds_is_counted() {
        let bucket = |(upper_bound, cumulative_count)| Bucket { cumulative_count, upper_bound, ..Bucket::default() };
        let bucket = [(1.0, 2), (5.0, 2), (f64::INFINITY, 3)].map(bucket).to_vec();
        let histogram = histogram(prometheus::Histogram { sample_sum: 9.5, bucket, ..Default::default() });
        assert_eq!(histogram, Histogram { sum: 9.5, bounds: vec![1.0, 5.0], counts: vec![2, 0, 1] });
    }
}

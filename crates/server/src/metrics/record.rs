//! What Prometheus reads of what is recorded: Free Intelligence's names, and the store's own.

use std::fmt;

use caudal_observe::Histogram;
use caudal_record::{AuditBacklog, SPACE};
use caudal_store::Figures;
use caudal_types::{ErrorKind, Stage};
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use super::{STAGES, histogram};
use crate::route::Route;

/// Bounds of Free Intelligence's budgets, in milliseconds.
const MILLISECONDS: [f64; 14] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_700.0, 2_000.0];

/// What keeps an event from being recorded.
const FAULTS: [ErrorKind; 4] =
    [ErrorKind::DiskFull, ErrorKind::StoreUnavailable, ErrorKind::RecordDamaged, ErrorKind::TooManyRequests];

/// What Free Intelligence's metrics are called by OpenTelemetry's protocol; all others have one name.
pub(super) const OTEL: [(&str, &str); 4] = [
    ("fi_ingest_latency_ms", "fi.ingest.latency_ms"),
    ("fi_events_appended_total", "fi.events.appended"),
    ("fi_buffer_size", "fi.buffer.size"),
    ("fi_persist_errors_total", "fi.persist.errors"),
];

pub(crate) fn encode(encoder: &mut DescriptorEncoder<'_>, figures: &Figures, audit: AuditBacklog) -> fmt::Result {
    let help = "Time that appended events spent at each stage (fi.ingest.latency_ms).";
    let mut family = encoder.encode_descriptor("fi_ingest_latency_ms", help, None, MetricType::Histogram)?;
    for stage in [Stage::Ingest, Stage::Segment, Stage::Hash, Stage::Persist] {
        let section = &STAGES[Route::EventAppend as usize][stage as usize];
        let summaries = caudal_observe::summaries();
        let found = summaries.iter().find(|summary| std::ptr::eq(summary.section, section));
        let times = found.map_or_else(|| Histogram::new().snapshot(), |summary| summary.times.clone());
        histogram(&mut family, &[("stage", stage.name())], &times, &MILLISECONDS, 1e6)?;
    }
    let counter = |encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64| {
        encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    };
    let gauge = |encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64| {
        encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    };
    // Notes of who read what, and runs of pipelines, are kept in the same store and are no events of consultations.
    let events = figures.space(SPACE);
    let help = "Events appended to consultations since the start (fi.events.appended).";
    counter(encoder, "fi_events_appended", help, events.appended)?;
    let help = "Events of consultations that wait to be written (fi.buffer.size).";
    gauge(encoder, "fi_buffer_size", help, events.waiting as u64)?;
    let help = "Appends of events that could not be made to last (fi.persist.errors).";
    let mut family = encoder.encode_descriptor("fi_persist_errors", help, None, MetricType::Counter)?;
    for kind in FAULTS {
        let count = events.faults_of(kind);
        family.encode_family(&[("error_type", kind.code())])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    counter(encoder, "caudal_store_commits", "Groups of appends that were committed.", figures.commits)?;
    counter(encoder, "caudal_store_failures", "Groups of appends that could not be committed.", figures.failures)?;
    gauge(encoder, "caudal_store_waiting_bytes", "Bytes of the appends that wait.", figures.waiting_bytes)?;
    let help = "Notes of who read what that wait until the record can be written.";
    gauge(encoder, "caudal_audit_notes_waiting", help, audit.notes as u64)?;
    let help =
        "Reads without a note, because the reserve for notes was full, that no entry of the audit log counts yet.";
    gauge(encoder, "caudal_audit_reads_unnoted", help, audit.unnoted)?;
    encoder
        .encode_descriptor(
            "caudal_store_commit",
            "Time spent committing, the disk's flush included.",
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?
        .encode_counter::<NoLabelSet, _, u64>(&figures.committing.as_secs_f64(), None)?;
    let help =
        "Connections to the database: that there may be, that there are, that are in use, that callers wait for.";
    let mut family = encoder.encode_descriptor("caudal_store_connections", help, None, MetricType::Gauge)?;
    for (state, count) in [
        ("max", figures.connections_max),
        ("open", figures.connections),
        ("busy", figures.connections_busy),
        ("awaited", figures.connections_awaited),
    ] {
        family.encode_family(&[("state", state)])?.encode_gauge(&(count as u64))?;
    }
    let help = "The longest that each kind of statement took, of the slowest ten.";
    let mut family =
        encoder.encode_descriptor("caudal_store_slowest", help, Some(&Unit::Seconds), MetricType::Gauge)?;
    for statement in &figures.slowest {
        let labels = [("statement", &*statement.text)];
        family.encode_family(&labels)?.encode_gauge(&statement.longest.as_secs_f64())?;
    }
    Ok(())
}

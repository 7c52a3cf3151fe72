//! Export of recorded requests: as Chrome trace events, or as arrivals for a load replay.

use serde_json::{Value, json};

use crate::RequestView;

/// `records` as Chrome trace events (Trace Event Format, Google, 2016), readable by Perfetto, Chrome and Speedscope.
/// Overlapping requests are put in separate lanes, each with its stages nested.
pub fn chrome_trace(records: &[RequestView]) -> Value {
    let mut ordered: Vec<&RequestView> = records.iter().collect();
    ordered.sort_by(|a, b| a.began_us.total_cmp(&b.began_us));
    // The time at which each lane is free.
    let mut lanes: Vec<f64> = Vec::new();
    let mut events = vec![json!({
        "ph": "M", "pid": 1, "name": "process_name", "args": { "name": "caudal" },
    })];
    for record in ordered {
        let end = record.began_us + record.total_ms * 1e3;
        let lane = lanes.iter().position(|free| *free <= record.began_us).unwrap_or_else(|| {
            lanes.push(0.0);
            lanes.len() - 1
        });
        lanes[lane] = end;
        let event = |name: &str, kind: &str, start_us: f64, ms: f64, args: Value| {
            json!({
                "ph": "X", "pid": 1, "tid": lane + 1, "name": name, "cat": kind, "ts": start_us, "dur": ms * 1e3,
                "args": args,
            })
        };
        let args = json!({
            "request_id": record.request_id, "status": record.status, "model": record.model,
            "version": record.version, "batch": record.batch,
        });
        events.push(event(record.route, "request", record.began_us, record.total_ms, args));
        for stage in &record.stages {
            let start = record.began_us + stage.start_ms * 1e3;
            events.push(event(stage.stage, "stage", start, stage.ms, json!({})));
        }
    }
    for lane in 0..lanes.len() {
        let args = json!({ "name": format!("requests {}", lane + 1) });
        events.push(json!({ "ph": "M", "pid": 1, "tid": lane + 1, "name": "thread_name", "args": args }));
    }
    json!({ "traceEvents": events, "displayTimeUnit": "ms" })
}

/// `records` as arrivals for a load replay: one JSON object per line in the order of arrival, with `at_ms` after the
/// first, route, model and size. Payloads are not recorded.
pub fn arrival_trace(records: &[RequestView]) -> String {
    let mut ordered: Vec<&RequestView> = records.iter().collect();
    ordered.sort_by(|a, b| a.began_us.total_cmp(&b.began_us));
    let first = ordered.first().map_or(0.0, |record| record.began_us);
    let line = |record: &&RequestView| {
        let at_ms = (record.began_us - first) / 1e3;
        let line = json!({
            "at_ms": at_ms, "route": record.route, "model": record.model, "received_bytes": record.received_bytes,
            "status": record.status, "total_ms": record.total_ms,
        });
        format!("{line}\n")
    };
    ordered.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StageView;

    fn record(id: &str, began_us: f64, total_ms: f64) -> RequestView {
        RequestView {
            trace_id: None,
            request_id: id.to_owned(),
            route: "POST /predict/{model}",
            status: 200,
            error: None,
            at: 0.0,
            began_us,
            total_ms,
            model: Some("m".to_owned()),
            version: None,
            received_bytes: Some(7),
            sent_bytes: 1,
            batch: None,
            stages: vec![StageView { stage: "infer", start_ms: 0.5, ms: total_ms - 0.5 }],
            pipeline: None,
        }
    }

    #[test]
    fn chrome_trace_puts_overlapping_requests_in_separate_lanes() {
        let trace = chrome_trace(&[record("b", 1000.0, 2.0), record("a", 0.0, 2.0), record("c", 2000.0, 1.0)]);
        let events = trace["traceEvents"].as_array().unwrap();
        let lane = |id: &str| {
            let event = events.iter().find(|event| event["args"]["request_id"] == id).unwrap();
            event["tid"].as_u64().unwrap()
        };
        assert_eq!((lane("a"), lane("b"), lane("c")), (1, 2, 1));
        let stage = events.iter().find(|event| event["name"] == "infer" && event["tid"] == 2).unwrap();
        assert_eq!((&stage["ts"], &stage["dur"]), (&json!(1500.0), &json!(1500.0)));
    }

    #[test]
    fn arrival_trace_counts_from_first_request() {
        let text = arrival_trace(&[record("b", 1500.0, 2.0), record("a", 500.0, 2.0)]);
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["at_ms"], &lines[1]["at_ms"]), (&json!(0.0), &json!(1.0)));
    }
}

//! Answers of a real server, held against what the document says of them.

use std::sync::Arc;

use caudal_testkit::{
    Server, fixture,
    http::{Answer, Ask, get, post, tensor_request},
};
use serde_json::{Value, json};

use crate::{Place, document::Document, place};

/// What all tests here need.
struct Case {
    place: Arc<Place>,
    document: Document,
}

impl Case {
    fn new() -> Self {
        let place = place();
        Self { document: Document::of(&place.server), place }
    }

    fn server(&self) -> &Server {
        &self.place.server
    }

    fn check(&self, operation: &str, status: u16, answer: Answer) -> Answer {
        assert_eq!(answer.status, status, "{operation}: {}", answer.text());
        self.document.check(operation, &answer);
        answer
    }

    fn get(&self, operation: &str, status: u16, path: &str) -> Answer {
        self.check(operation, status, self.server().get(path))
    }

    /// Posts JSON that is itself as declared.
    fn post(&self, operation: &str, status: u16, path: &str, body: &Value) -> Answer {
        self.document.check_request(operation, body);
        self.check(operation, status, self.server().post_json(path, &body.to_string()))
    }

    fn post_nothing(&self, operation: &str, status: u16, path: &str) -> Answer {
        self.check(operation, status, self.server().ask(&post(path, &[], b"")))
    }
}

#[test]
fn predictions_are_as_declared() {
    let case = Case::new();
    let bus = fixture("double_decker_bus.jpg");
    let found = case.check("predict_picture", 200, case.server().post_picture("/predict/small", &bus)).json();
    assert!(found["detections"].as_array().is_some_and(|boxes| !boxes.is_empty()), "{found}");
    for path in ["/predict/orientation", "/predict/selfie", "/predict/selfie?masks=rle", "/predict/small?draw=true"] {
        case.check("predict_picture", 200, case.server().post_picture(path, &bus));
    }
    let parts: [(&str, Option<&str>, &[u8]); 2] =
        [("images", Some("bus.jpg"), &bus), ("images", Some("note.txt"), b"hello")];
    let some = case.server().post_form("/predict_batch/small", &parts);
    assert_eq!(case.check("predict_pictures", 200, some).json()["status"], "partial");
    case.check("infer_image", 200, case.server().post_form("/api/v1/inference/image", &[("file", None, &bus)]));
    case.check("predict_picture", 404, case.server().post_picture("/predict/nobody", &bus));
    case.check("predict_picture", 400, case.server().post_picture("/predict/small?conf=2", &bus));
    case.check("predict_picture", 415, case.server().post_picture("/predict/small", b"no picture"));
}

#[test]
fn tensors_are_as_declared() {
    let case = Case::new();
    let body: Value = serde_json::from_str(&tensor_request(&[[1.0; 4]], r#""priority": 1"#)).unwrap();
    case.post("infer_tensors", 200, "/v2/models/double/infer", &body);
    case.post("infer_tensors_with_version", 200, "/v2/models/double/versions/1/infer", &body);
    let nobody = case.post("infer_tensors", 404, "/v2/models/nobody/infer", &body).json();
    assert!(nobody["error"].as_str().is_some_and(|text| text.starts_with("model_not_found: ")), "{nobody}");
    let wrong = json!({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]});
    case.post("infer_tensors", 400, "/v2/models/double/infer", &wrong);
    case.get("get_server_metadata", 200, "/v2");
    case.get("get_model_metadata", 200, "/v2/models/double");
    case.get("get_model_version_metadata", 200, "/v2/models/double/versions/1");
    case.get("check_model_ready", 200, "/v2/models/double/ready");
    case.get("check_model_ready", 404, "/v2/models/nobody/ready");
    case.get("check_model_version_ready", 200, "/v2/models/double/versions/1/ready");
    case.post("list_repository_models", 200, "/v2/repository/index", &json!({"ready": true}));
    case.post_nothing("load_model", 403, "/v2/repository/models/double/load");
}

#[test]
fn embeddings_are_as_declared() {
    let case = Case::new();
    for format in ["float", "base64"] {
        let body = json!({"model": "enc", "input": ["good", "news"], "encoding_format": format});
        case.post("create_embeddings", 200, "/v1/embeddings", &body);
    }
    case.post(
        "create_embeddings",
        400,
        "/v1/embeddings",
        &json!({"model": "enc", "input": "x", "dimensions": 100_000}),
    );
    case.get("list_models", 200, "/v1/models");
    case.get("retrieve_model", 200, "/v1/models/enc");
    case.get("retrieve_model", 404, "/v1/models/nobody");
}

#[test]
fn health_is_as_declared() {
    let case = Case::new();
    case.get("get_health", 200, "/health");
    case.get("get_status", 200, "/status");
    case.get("get_metrics", 200, "/metrics");
    for (operation, path) in [
        ("check_live", "/livez"),
        ("check_ready", "/readyz"),
        ("check_server_live", "/v2/health/live"),
        ("check_server_ready", "/v2/health/ready"),
    ] {
        case.get(operation, 200, path);
    }
    for view in ["summary", "chips", "timeseries"] {
        case.get("get_kpis", 200, &format!("/api/kpis?window=1m&view={view}"));
    }
    case.get("get_kpis", 400, "/api/kpis?window=2h");
}

#[test]
fn consultations_are_as_declared() {
    let case = Case::new();
    let new = json!({"user_id": "dra", "patient_stub": {"age": 40}});
    let made = case.post("create_consultation", 201, "/consultations", &new).json();
    let at = format!("/consultations/{}", made["consultation_id"].as_str().unwrap());
    let event = json!({"event_type": "MESSAGE_RECEIVED", "payload": {"message": "Hola"}, "user_id": "dra"});
    let first = case.post("append_event", 201, &format!("{at}/events"), &event).json();
    case.post("append_events", 201, &format!("{at}/events/batch"), &json!({"events": [event, event]}));
    let lines = [("Content-Type", "application/x-ndjson")];
    let (stream, line) = (format!("{at}/events/stream"), event.to_string());
    case.check("stream_events", 201, case.server().ask(&post(&stream, &lines, line.as_bytes())));
    let wrong = json!({"event_type": "MESSAGE_RECEIVED", "payload": {}});
    case.post("append_event", 422, &format!("{at}/events"), &wrong);
    let late = json!({"event_type": "MESSAGE_RECEIVED", "payload": {"message": "Adiós"}, "expected_version": 1});
    case.post("append_event", 409, &format!("{at}/events"), &late);
    case.get("list_consultations", 200, "/consultations?sort=events_desc&limit=10");
    case.get("get_consultation", 200, &at);
    case.get("get_consultation", 404, "/consultations/nobody");
    case.get("list_events", 200, &format!("{at}/events?limit=2"));
    case.get("get_event", 200, &format!("{at}/events/{}", first["event_id"].as_str().unwrap()));
    case.get("get_receipt", 200, &format!("{at}/events/1/receipt"));
    case.get("get_soap_note", 200, &format!("{at}/soap"));
    let head = case.get("get_consultation_head", 200, &format!("{at}/head")).json();
    case.post_nothing("verify_consultation", 200, &format!("{at}/verify"));
    case.document.check_request("verify_consultation", &head);
}

#[test]
fn timeline_exports_and_audit_are_as_declared() {
    let case = Case::new();
    let made = case.post("create_consultation", 201, "/consultations", &json!({"user_id": "dra"})).json();
    let id = made["consultation_id"].as_str().unwrap();
    let event = json!({"event_type": "MESSAGE_RECEIVED", "payload": {"message": "Hola"}, "user_id": "dra"});
    let recorded = case.post("append_event", 201, &format!("/consultations/{id}/events"), &event).json();
    case.get("list_sessions", 200, "/api/timeline/sessions");
    case.get("get_session", 200, &format!("/api/timeline/sessions/{id}"));
    case.get("get_timeline_stats", 200, "/api/timeline/stats");
    let expected = [
        json!({"target_id": recorded["event_id"], "expected_hash": recorded["audit_hash"]}),
        json!({"target_id": "nobody", "expected_hash": "0".repeat(64)}),
    ];
    case.post("verify_hashes", 200, "/api/timeline/verify-hash", &json!({"items": expected}));
    let order = json!({"consultation_id": id, "formats": ["md", "json", "csv"]});
    let export = case.post("create_export", 201, "/api/exports", &order).json();
    let at = format!("/api/exports/{}", export["export_id"].as_str().unwrap());
    case.get("get_export", 200, &at);
    case.post_nothing("verify_export", 200, &format!("{at}/verify"));
    for file in export["manifest"]["files"].as_array().unwrap() {
        case.get("download_export_file", 200, &format!("{at}/download/{}", file["name"].as_str().unwrap()));
    }
    case.get("list_audit_log", 200, "/api/audit/logs");
    case.get("get_audit_stats", 200, "/api/audit/stats");
    case.get("list_audit_operations", 200, "/api/audit/operations");
}

#[test]
fn pipelines_and_runs_are_as_declared() {
    let case = Case::new();
    case.get("list_pipelines", 200, "/api/v1/pipelines");
    case.get("get_pipeline", 200, "/api/v1/pipelines/ask");
    case.get("get_pipeline", 422, "/api/v1/pipelines/bad");
    case.get("get_pipeline", 404, "/api/v1/pipelines/nobody");
    let order = json!({"input": "Ada", "context": {"a": 1}, "timeout_s": 60, "limits": {"total_steps_limit": 100}});
    case.post("run_pipeline", 200, "/api/v1/pipelines/greet/run", &order);
    case.post("run_pipeline", 202, "/api/v1/pipelines/greet/run?wait=false", &json!({}));
    let paused = case.post("run_pipeline", 202, "/api/v1/pipelines/ask/run", &json!({"input": "this"})).json();
    assert_eq!(paused["status"], "paused", "{paused}");
    let at = format!("/api/v1/runs/{}", paused["run_id"].as_str().unwrap());
    case.get("get_run", 200, &at);
    case.post("resume_run", 200, &format!("{at}/resume"), &json!({"answer": true}));
    case.get("get_run", 404, "/api/v1/runs/nobody");
    let other = case.post("run_pipeline", 202, "/api/v1/pipelines/ask/run", &json!({"input": "that"})).json();
    case.post_nothing("cancel_run", 200, &format!("/api/v1/runs/{}/cancel", other["run_id"].as_str().unwrap()));
    case.get("list_runs", 200, "/api/v1/runs");
}

#[test]
fn administration_is_as_declared() {
    let case = Case::new();
    let bus = fixture("double_decker_bus.jpg");
    let name = case.server().post_picture("/predict/small", &bus).header("x-request-id").to_owned();
    case.get("get_model", 200, "/admin/models/small");
    case.get("profile_model_operators", 200, "/admin/models/double/operators?runs=2");
    let patch = json!({"thresholds": {"conf": 0.25}});
    case.document.check_request("change_model", &patch);
    let change = Ask { method: "PATCH", ..post("/admin/models/nanodet", &[], b"{\"thresholds\": {\"conf\": 0.25}}") };
    case.check("change_model", 200, case.server().ask(&change));
    case.get("list_requests", 200, "/admin/requests?sort=slowest&limit=5");
    case.get("get_request", 200, &format!("/admin/requests/{name}"));
    case.get("get_request", 404, "/admin/requests/nobody");
    case.get("export_requests", 200, "/admin/requests/trace?limit=5");
    case.get("list_sections", 200, "/admin/profiling/stats?recent=true");
    case.get("list_bottlenecks", 200, "/admin/profiling/bottlenecks?threshold_ms=0.001");
    case.get("list_latency_budgets", 200, "/admin/profiling/budgets");
    case.get("get_section_history", 200, "/admin/profiling/history?group=a&name=b");
    case.get("explain_load", 200, "/admin/profiling/explain?seconds=0.5");
    for format in ["json", "csv", "txt"] {
        case.get("export_sections", 200, &format!("/admin/profiling/export?format={format}"));
    }
    case.post_nothing("save_sections", 201, "/admin/profiling/export");
    case.get("get_memory", 200, "/admin/memory");
    case.post("clean_up_memory", 200, "/admin/memory/cleanup", &json!({"idle_secs": 3600}));
    case.get("get_memory", 200, "/admin/memory");
    let stranger = Ask { headers: &[("Authorization", "Bearer guess")], ..get("/admin/memory") };
    case.check("get_memory", 401, case.server().ask(&stranger));
}

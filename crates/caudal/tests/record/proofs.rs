//! What is handed out to be checked elsewhere: receipts, heads, exports; and who asked for what.

use std::fs;

use caudal_record::{
    hash::Hex,
    proof::{Receipt, VerifyingKey},
};
use caudal_testkit::{
    Server,
    http::{get, post},
};
use serde_json::{Value, json};

use crate::{SHARED, append, ask_with, fill, keeps, keeps_in, make, message, read, refused, well, whole};

/// The key that signs a server's heads, as it tells.
fn key(head: &Value) -> VerifyingKey {
    let Hex(bytes) = head["public_key"].as_str().unwrap().parse::<Hex<32>>().unwrap();
    VerifyingKey::from_bytes(&bytes).unwrap()
}

fn verify(server: &Server, id: &str, head: &Value) -> Value {
    well(&server.post_json(&format!("/consultations/{id}/verify"), &head.to_string()))
}

#[test]
fn receipts_prove_without_the_server() {
    let server = SHARED.get();
    let id = make(&server);
    fill(&server, &id, 37);
    let key = key(&read(&server, &format!("/consultations/{id}/head")));
    for which in [1, 2, 16, 17, 36, 37] {
        let answer = read(&server, &format!("/consultations/{id}/events/{which}/receipt"));
        let receipt: Receipt = serde_json::from_value(answer.clone()).unwrap();
        receipt.verify(Some(&key)).unwrap();
        assert_eq!((receipt.event.sequence, receipt.head.sequence), (which, 37));
        let event = read(&server, &format!("/consultations/{id}/events/{which}"));
        assert_eq!(
            (&answer["event"]["event_id"], &answer["chain"]["link"]),
            (&event["event_id"], &event["chain_hash"])
        );
        let mut forged = answer;
        forged["event"]["payload"]["message"] = "another".into();
        assert!(serde_json::from_value::<Receipt>(forged).unwrap().verify(Some(&key)).is_err());
    }
    let name = read(&server, &format!("/consultations/{id}/events/5"))["event_id"].as_str().unwrap().to_owned();
    let receipt = server.get(&format!("/consultations/{id}/events/{name}/receipt"));
    serde_json::from_slice::<Receipt>(&receipt.body).unwrap().verify(Some(&key)).unwrap();
    refused(&server.get(&format!("/consultations/{id}/events/38/receipt")), 404, "not_found");
}

#[test]
fn a_head_that_was_kept_shows_what_changed_since() {
    let server = SHARED.get();
    let id = make(&server);
    let empty = read(&server, &format!("/consultations/{id}/head"));
    assert_eq!((&empty["sequence"], whole(&server, &id)), (&json!(0), 0));
    fill(&server, &id, 5);
    let mut head = read(&server, &format!("/consultations/{id}/head"));
    head.as_object_mut().unwrap().remove("public_key");
    well(&append(&server, &id, &message(6)));
    // What came since is no change to what was.
    let good = verify(&server, &id, &head);
    assert_eq!((&good["valid"], &good["events"]), (&json!(true), &json!(6)), "{good}");
    assert_eq!(good["head"]["sequence"], 6);
    for (field, value) in [
        ("chain_hash", json!("00".repeat(32))),
        ("root", json!("00".repeat(32))),
        ("sequence", json!(7)),
        ("sequence", json!(4)),
    ] {
        let mut other = head.clone();
        other[field] = value;
        let bad = verify(&server, &id, &other);
        assert!(bad["valid"] == false && bad["fault"].is_string(), "{field}: {bad}");
    }
    refused(&server.post_json(&format!("/consultations/{id}/verify"), "{}"), 400, "invalid_parameter");
    refused(&server.post_json("/consultations/nobody/verify", ""), 404, "not_found");
}

#[test]
fn an_export_is_what_its_manifest_says() {
    let server = keeps(&[]);
    let id = make(&server);
    fill(&server, &id, 600);
    let made = server.post_json(
        "/api/exports",
        &json!({"consultation_id": id, "formats": ["md", "json", "csv", "md"], "user_id": "dra"}).to_string(),
    );
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    let export = made["export_id"].as_str().unwrap();
    let path = format!("/api/exports/{export}");
    let manifest = &made["manifest"];
    assert_eq!((&manifest["event_count"], &manifest["made_by"]), (&json!(600), &json!("dra")));
    assert_eq!(read(&server, &path)["manifest"], *manifest);
    let files = manifest["files"].as_array().unwrap();
    assert_eq!(files.len(), 3);
    for file in files {
        let name = file["name"].as_str().unwrap();
        let answer = server.get(&format!("{path}/download/{name}"));
        assert_eq!((answer.status, answer.body.len() as u64), (200, file["bytes"].as_u64().unwrap()));
        let hash = Hex(caudal_record::canonical::sha256(&answer.body)).to_string();
        assert_eq!(file["sha256"], hash, "{name}");
        assert!(answer.header("content-disposition").contains(name), "{:?}", answer.headers);
    }
    assert_eq!(well(&server.get(&format!("{path}/download/manifest.json"))), *manifest);
    let json = server.get(&format!("{path}/download/consultation.json")).json();
    assert!(json.to_string().contains("Hola 600"));
    let check = || well(&server.ask(&post(&format!("{path}/verify"), &[], b"")));
    assert_eq!(check()["valid"], true);

    // No way leads out of the folder.
    for file in [
        "..%2fmanifest.json",
        "..%2f..%2fhead.key",
        "%2e%2e%2f%2e%2e%2fhead.key",
        "..",
        "%2fetc%2fpasswd",
        ".%2fmanifest.json",
        "manifest.json%00",
        "head.key",
        "consultation.MD",
    ] {
        let answer = server.get(&format!("{path}/download/{file}"));
        assert_eq!(answer.status, 404, "{file}: {}", answer.text());
    }
    for other in
        ["..", "..%2f..", "%2e%2e", &format!("..%2fexports%2f{export}"), "0191d2a0-0000-7000-8000-000000000000", "x"]
    {
        assert_eq!(server.get(&format!("/api/exports/{other}")).status, 404, "{other}");
    }

    // What is changed on the disk is told, file by file.
    let folder = server.home().join("data/exports").join(export);
    let csv = folder.join("consultation.csv");
    let text = fs::read_to_string(&csv).unwrap();
    fs::write(&csv, text.replacen("Hola 7", "Hola 8", 1)).unwrap();
    let bad = check();
    assert_eq!(bad["valid"], false, "{bad}");
    for file in bad["files"].as_array().unwrap() {
        assert_eq!(file["valid"], file["name"] != "consultation.csv", "{bad}");
    }
    fs::remove_file(&csv).unwrap();
    assert_eq!(check()["valid"], false);
    fs::write(&csv, text).unwrap();
    assert_eq!(check()["valid"], true);
    let file = folder.join("manifest.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"dra\"", "\"doc\"")).unwrap();
    let bad = check();
    assert!(bad["valid"] == false && bad["fault"].is_string(), "{bad}");
}

#[test]
fn exports_that_cannot_be_are_refused() {
    let server = SHARED.get();
    let id = make(&server);
    let ask = |body: Value| server.post_json("/api/exports", &body.to_string());
    refused(&ask(json!({"consultation_id": "nobody"})), 404, "not_found");
    refused(&ask(json!({"consultation_id": id, "formats": ["pdf"]})), 400, "invalid_parameter");
    refused(&ask(json!({"formats": ["md"]})), 400, "invalid_parameter");
    refused(&ask(json!([])), 400, "invalid_parameter");
    // An empty one is exported as well; where no form is named, two are made.
    let made = well(&ask(json!({"consultation_id": id})));
    assert_eq!(
        (made["manifest"]["files"].as_array().unwrap().len(), &made["manifest"]["made_by"]),
        (2, &json!("unknown"))
    );
    assert_eq!(
        well(&server.ask(&post(&format!("/api/exports/{}/verify", made["export_id"].as_str().unwrap()), &[], b"")))["valid"],
        true
    );
}

#[test]
fn who_reads_is_noted() {
    let server = keeps(&[]);
    let id = make(&server);
    fill(&server, &id, 2);
    let made = well(&server.post_json("/api/exports", &json!({"consultation_id": id}).to_string()));
    let export = format!("/api/exports/{}/download/manifest.json", made["export_id"].as_str().unwrap());
    let reads = [
        ("/consultations".to_owned(), "CONSULTATIONS_LISTED"),
        (format!("/consultations/{id}"), "CONSULTATION_READ"),
        (format!("/consultations/{id}/soap"), "SOAP_READ"),
        (format!("/consultations/{id}/events"), "EVENTS_READ"),
        (format!("/consultations/{id}/events/1"), "EVENT_READ"),
        (format!("/consultations/{id}/events/1/receipt"), "RECEIPT_MADE"),
        ("/api/timeline/sessions".to_owned(), "TIMELINE_LISTED"),
        (format!("/api/timeline/sessions/{id}"), "TIMELINE_READ"),
        (export, "EXPORT_DOWNLOADED"),
    ];
    for (path, operation) in &reads {
        let asked = server.ask(&ask_with(path, &[("X-User-Id", "dr. Ruiz"), ("X-Request-Id", "visit-7")]));
        assert_eq!(asked.status, 200, "{path}");
        let last = read(&server, "/api/audit/logs?limit=1")["logs"][0].take();
        assert_eq!(last["event_type"], *operation, "{path}");
        assert_eq!(
            (&last["metadata"]["user_id"], &last["metadata"]["from"]),
            (&json!("dr. Ruiz"), &json!("127.0.0.1"))
        );
        assert_eq!(last["payload"]["request_id"], asked.header("x-request-id"), "{last}");
        if path.contains(&id) {
            assert_eq!(last["payload"]["consultation_id"], id);
        }
    }
    whole(&server, &id);
    let stats = read(&server, "/api/audit/stats");
    for (_, operation) in &reads {
        assert_eq!(stats["operations"][operation], 1, "{stats}");
    }
    assert_eq!((&stats["operations"]["VERIFIED"], &stats["operations"]["EXPORTED"]), (&json!(1), &json!(1)));
    let logs = read(&server, "/api/audit/logs");
    assert_eq!((&logs["total"], &logs["returned_count"]), (&json!(11), &json!(11)));
    assert_eq!(read(&server, "/api/audit/logs?offset=10")["logs"][0]["event_type"], "EXPORTED");
    let known = read(&server, "/api/audit/operations");
    assert!(reads.iter().all(|(_, operation)| known["operations"].as_array().unwrap().contains(&json!(operation))));
    refused(&server.get("/api/audit/logs?limit=1001"), 400, "invalid_parameter");

    // What is noted is no consultation, and for admins alone.
    assert_eq!(read(&server, "/consultations")["total"], 1);
    refused(&server.get("/consultations/log"), 404, "not_found");
    for path in ["/api/audit/logs", "/api/audit/stats", "/api/audit/operations"] {
        refused(&server.ask(&ask_with(path, &[("Authorization", "Bearer guess")])), 401, "unauthorized");
    }
}

#[test]
fn what_is_kept_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = keeps_in(folder.path());
    let id = make(&server);
    fill(&server, &id, 700);
    let told = |server: &Server| {
        let paths = ["", "/soap", "/events?limit=1000", "/head", "/events/9/receipt"];
        paths.map(|path| server.ask(&get(&format!("/consultations/{id}{path}"))).json())
    };
    let before = told(&server);
    drop(server);
    let server = keeps_in(folder.path());
    assert_eq!(told(&server), before, "the same key signs, too");
    assert_eq!(whole(&server, &id), 700);
}

#[test]
fn every_route_is_in_the_documents() {
    let server = SHARED.get();
    let document = read(&server, "/openapi.json");
    let routes = [
        ("/consultations", "post"),
        ("/consultations", "get"),
        ("/consultations/{id}", "get"),
        ("/consultations/{id}/events", "post"),
        ("/consultations/{id}/events", "get"),
        ("/consultations/{id}/events/batch", "post"),
        ("/consultations/{id}/events/stream", "post"),
        ("/consultations/{id}/events/stream", "get"),
        ("/consultations/{id}/events/{event}", "get"),
        ("/consultations/{id}/events/{event}/receipt", "get"),
        ("/consultations/{id}/soap", "get"),
        ("/consultations/{id}/head", "get"),
        ("/consultations/{id}/verify", "post"),
        ("/api/timeline/sessions", "get"),
        ("/api/timeline/sessions/{id}", "get"),
        ("/api/timeline/stats", "get"),
        ("/api/timeline/verify-hash", "post"),
        ("/api/exports", "post"),
        ("/api/exports/{id}", "get"),
        ("/api/exports/{id}/verify", "post"),
        ("/api/exports/{id}/download/{file}", "get"),
        ("/api/audit/logs", "get"),
        ("/api/audit/stats", "get"),
        ("/api/audit/operations", "get"),
    ];
    for (path, method) in routes {
        let told = &document["paths"][path][method];
        assert!(told["responses"].is_object(), "{method} {path}");
        assert!(
            told["tags"] == json!(["consultations"]) || told["tags"] == json!(["admin"]),
            "{method} {path}: {told}"
        );
    }
}

//! `record`, into a real store.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use std::sync::Arc;

use caudal_flow::{Definition, Engine, Fault, Options, Registry, RunOptions, StepError, Steps, Value, value};
use caudal_flow_leaves::{Parts, Record};
use caudal_record::Consultations;
use caudal_store::{Range, sqlite};
use common::{made, registry_of, run_step, step};

struct Place {
    registry: Registry,
    all: Consultations,
    _folder: tempfile::TempDir,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let options = sqlite::Options { flush: false, ..sqlite::Options::within(folder.path()) };
    let all = Consultations::new(Arc::new(sqlite::Sqlite::open(options).unwrap()), None, 100);
    let record = Record { consultations: all.clone(), timezone: "UTC".to_owned() };
    Place { registry: registry_of(Parts { record: Some(record), ..Parts::default() }), all, _folder: folder }
}

impl Place {
    async fn say(&self, said: Value, input: Value) -> Result<Value, StepError> {
        run_step(step(made(&self.registry, "record", said).unwrap()), input, Value::Null).await
    }

    /// The same within the run of that name.
    async fn within(&self, run: &str, said: Value, input: Value) -> Value {
        let definition = Definition::new("test", Steps::new([step(made(&self.registry, "record", said).unwrap())]));
        let options = RunOptions { id: Some(run.into()), ..RunOptions::default() };
        Engine::new(Options::default()).run(&definition, input, options).await.output().unwrap()
    }

    /// Type and payload of all events of a consultation.
    async fn events(&self, name: &str) -> Vec<(String, String)> {
        let records = self.all.events(name, Range::after(0, 100)).await.unwrap();
        records.iter().map(|one| (one.kind.to_string(), String::from_utf8_lossy(&one.body).into_owned())).collect()
    }
}

#[track_caller]
fn refused(answer: Result<Value, StepError>, words: &str) {
    let error = answer.unwrap_err();
    assert_eq!((error.fault, error.again), (Fault::Input, false), "{error}");
    assert!(error.message.contains(words), "{error}");
}

fn message(create: bool) -> Value {
    value!({"consultation": "c-1", "event_type": "MESSAGE_RECEIVED", "user_id": "dr", "create": create})
}

#[tokio::test]
async fn events_are_appended_and_once_only() {
    let place = place();
    refused(place.say(message(false), value!({"message": "hi"})).await, "there is no consultation \"c-1\"");
    let first = place.within("run-1", message(true), value!({"message": "hi"})).await;
    assert_eq!((first.get("sequence"), first.get("repeated")), (Some(&value!(1)), Some(&value!(false))));
    let again = place.within("run-1", message(true), value!({"message": "hi"})).await;
    assert_eq!(again.get("repeated"), Some(&value!(true)), "the same step of the same run");
    assert_eq!(again.get("event_id"), first.get("event_id"));
    let other = place.within("run-2", message(true), value!({"message": "hi"})).await;
    assert_eq!(other.get("sequence"), Some(&value!(2)), "another run says it anew");
    let expected = ("MESSAGE_RECEIVED".to_owned(), r#"{"message": "hi"}"#.to_owned());
    assert_eq!(place.events("c-1").await, [expected.clone(), expected]);
}

#[tokio::test]
async fn a_run_without_a_consultation_has_one_made() {
    let place = place();
    let said = |kind: &str| value!({"create": true, "event_type": kind, "payload": {"n": 1}, "metadata": {"bed": 7}});
    let steps = ["clinic:A", "clinic:B"].map(|kind| step(made(&place.registry, "record", said(kind)).unwrap()));
    let options = RunOptions { id: Some("r".repeat(200).into()), ..RunOptions::default() };
    let ran =
        Engine::new(Options::default()).run(&Definition::new("test", Steps::new(steps)), Value::Null, options).await;
    let [first, second] = [0, 1].map(|place| ran.entries[place].output.clone());
    assert_eq!(first.get("consultation_id"), second.get("consultation_id"));
    let name = first.get("consultation_id").unwrap().as_text().unwrap();
    assert_eq!(place.events(name).await[0], ("clinic:A".to_owned(), r#"{"n": 1}"#.to_owned()));
    assert_eq!(place.all.find(name).await.unwrap().about.user_id, "pipeline");
}

#[tokio::test]
async fn what_is_no_event_is_refused() {
    let place = place();
    place
        .all
        .make(&caudal_record::NewConsultation { consultation_id: Some("c".into()), ..Default::default() }, None)
        .await
        .unwrap();
    let said = |kind: Value| Value::Map([("consultation", value!("c")), ("event_type", kind)].into_iter().collect());
    refused(place.say(said(value!("MESSAGE_RECEIVD")), value!({"message": "x"})).await, "MESSAGE_RECEIVD");
    refused(place.say(said(value!("MESSAGE_RECEIVED")), value!({})).await, "message");
    refused(place.say(said(value!("MESSAGE_RECEIVED")), value!("no object")).await, "payload");
    let whole = value!({"event_type": "MESSAGE_RECEIVED", "payload": {"message": "whole"}});
    assert!(place.say(value!({"consultation": "c"}), whole).await.is_ok());
    refused(place.say(value!({"consultation": "c"}), value!([1])).await, "JSON object");
    refused(
        place.say(value!({"consultation": "../x", "create": true, "event_type": "clinic:A"}), value!({})).await,
        "consultation's id",
    );
    let wrong = |said: Value| made(&place.registry, "record", said).err().unwrap();
    assert!(wrong(Value::Null).starts_with("consultation: say which"));
    assert!(wrong(value!({"consultation": "c", "evnt_type": "x"})).contains("unknown field `evnt_type`"));
    let nowhere =
        run_step(step(common::make("record", message(true)).unwrap()), value!({}), Value::Null).await.unwrap_err();
    assert!(nowhere.message.contains("nothing is recorded where this runs") && !nowhere.again);
}

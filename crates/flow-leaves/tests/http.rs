//! `http`, asking a server of this machine; and not asking it where nobody allows that.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use caudal_flow::{Fault, StepError, Value, value};
use caudal_flow_leaves::{Allow, Net, Parts};
use common::{
    made, registry_of, run_step,
    server::{Part, Reply, Seen, Server},
    step,
};

fn parts(allow: &[&str]) -> Parts {
    Parts { net: Net::new(Allow::new(allow.iter().copied()).unwrap()), ..Parts::default() }
}

async fn ask(allow: &[&str], said: Value, input: Value) -> Result<Value, StepError> {
    let action = made(&registry_of(parts(allow)), "http", said).unwrap();
    run_step(step(action), input, Value::Null).await
}

/// Asks where this machine may be asked.
async fn get(url: String) -> Result<Value, StepError> {
    ask(&["127.0.0.1"], value!({"url": url, "gives": "body"}), Value::Null).await
}

#[track_caller]
fn refused(answer: Result<Value, StepError>, fault: Fault, again: bool, words: &str) -> StepError {
    let error = answer.unwrap_err();
    assert_eq!((error.fault, error.again), (fault, again), "{error}");
    assert!(error.message.contains(words), "{error}");
    error
}

#[tokio::test]
async fn answers_are_values() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/json" => Reply::json(serde_json::json!({"a": [1]})),
        "/problem" => Reply::new(200, "application/problem+json; charset=utf-8", "[1]"),
        "/bytes" => Reply { status: 200, headers: vec![], parts: vec![Part::Raw(vec![255, 0])] },
        "/broken" => Reply::new(200, "application/json", "{\"a\": "),
        "/none" => Reply { status: 204, headers: vec![], parts: vec![] },
        _ => Reply::text("Grüße"),
    })
    .await;
    assert_eq!(get(server.url("/json")).await, Ok(value!({"a": [1]})));
    assert_eq!(get(server.url("/problem")).await, Ok(value!([1])));
    assert_eq!(get(server.url("/text")).await, Ok(value!("Grüße")));
    assert_eq!(get(server.url("/none")).await, Ok(value!("")));
    assert_eq!(get(server.url("/bytes")).await, Ok(Value::Bytes(vec![255, 0].into())));
    refused(get(server.url("/broken")).await, Fault::Output, true, "says that it is JSON, and is not");
    let all = ask(&["127.0.0.0/8"], Value::Null, value!({"url": server.url("/json")})).await.unwrap();
    assert_eq!(all.get("status_code"), Some(&value!(200)));
    assert_eq!(all.get("headers").unwrap().get("content-type"), Some(&value!("application/json")));
    assert_eq!(all.get("body"), Some(&value!({"a": [1]})));
}

#[tokio::test]
async fn what_is_asked_is_what_was_said() {
    let server = Server::start(|_| Reply::text("ok")).await;
    let url = server.url("/a?x=1");
    let said = value!({"url": url, "method": "POST", "query": {"q": "ä&b"}, "headers": {"X-Token": "t"}});
    ask(&["127.0.0.1"], said.clone(), value!({"n": 1})).await.unwrap();
    ask(&["127.0.0.1"], said, value!("text")).await.unwrap();
    ask(&["127.0.0.1"], value!({"method": "delete"}), value!({"url": url, "body": [1]})).await.unwrap();
    ask(&["127.0.0.1"], value!({"body": "not with GET"}), value!(url)).await.unwrap();
    let seen = server.seen();
    let told = |seen: &Seen| (seen.method.clone(), seen.path.clone(), seen.body.clone());
    let told: Vec<_> = seen.iter().map(told).collect();
    let expect = |method: &str, path: &str, body: &str| (method.to_owned(), path.to_owned(), body.to_owned());
    assert_eq!(told[0], expect("POST", "/a?x=1&q=%C3%A4%26b", r#"{"n":1}"#));
    assert_eq!(told[1], expect("POST", "/a?x=1&q=%C3%A4%26b", "text"));
    assert_eq!(told[2], expect("DELETE", "/a?x=1", "[1]"));
    assert_eq!(told[3], expect("GET", "/a?x=1", ""));
    assert_eq!(seen[0].header("x-token"), "t");
    assert!(seen[0].header("idempotency-key").ends_with("/leaf"));
    assert_eq!(seen[3].header("idempotency-key"), "");
    assert_eq!(seen[0].header("content-type"), "application/json");
    assert_eq!(seen[0].header("host"), server.address.to_string());
    assert!(seen[0].header("user-agent").starts_with("caudal/"));
}

#[tokio::test]
async fn nothing_within_is_asked_unless_it_is_allowed() {
    let server = Server::start(|_| Reply::text("secret")).await;
    let port = server.address.port();
    let within = [
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://127.1:{port}/"),
        format!("http://0x7f000001:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0177.0.0.1:{port}/"),
        format!("http://0:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://[::ffff:7f00:1]:{port}/"),
        format!("http://127.0.0.1.:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://10.0.0.1/".to_owned(),
        "http://[fd00::1]/".to_owned(),
        "http://[fe80::1]/".to_owned(),
        "http://[64:ff9b::7f00:1]/".to_owned(),
    ];
    for url in within {
        let error = refused(ask(&[], Value::Null, value!(url)).await, Fault::Forbidden, false, "is not asked");
        assert!(!error.message.contains("secret") && error.hint.contains("flow.yaml"));
    }
    let other = ask(&["10.0.0.0/8", "elsewhere"], Value::Null, value!(server.url("/"))).await;
    refused(other, Fault::Forbidden, false, "127.0.0.1 is not asked");
    assert!(server.seen().is_empty());
    let by_name = format!("http://localhost:{port}/");
    assert!(ask(&["localhost"], Value::Null, value!(by_name)).await.is_ok());
}

#[tokio::test]
async fn what_is_no_address_of_the_net_is_refused() {
    let asked = |url: &str| ask(&["0.0.0.0/0"], Value::Null, value!(url));
    refused(asked("file:///etc/passwd").await, Fault::Forbidden, false, "only http and https");
    refused(asked("gopher://127.0.0.1:1/").await, Fault::Forbidden, false, "only http and https");
    refused(asked("unix:/run/docker.sock").await, Fault::Forbidden, false, "only http and https");
    let secret = asked("http://user:hunter2@127.0.0.1/").await;
    assert!(!refused(secret, Fault::Forbidden, false, "name or password").message.contains("hunter2"));
    refused(asked("no url").await, Fault::Input, false, "is no URL");
    refused(asked("http://").await, Fault::Input, false, "is no URL");
    refused(ask(&[], Value::Null, value!(1)).await, Fault::Input, false, "nobody says which URL");
    let wrong = |said: Value| made(&registry_of(parts(&[])), "http", said).err().unwrap();
    assert!(wrong(value!({"url": "ftp://x"})).starts_with("url: "));
    assert!(wrong(value!({"method": "TRACE"})).starts_with("method: \"TRACE\" is none of GET, HEAD"));
    let get = made(&registry_of(parts(&[])), "http_get", value!({"method": "POST"})).err().unwrap();
    assert_eq!(get, "method: \"POST\" is none of GET");
    assert!(wrong(value!({"headers": {"Host": "evil"}})).contains("not for a pipeline to say"));
    assert!(wrong(value!({"headers": {"a": "x\r\nb: y"}})).contains("cannot have that value"));
    assert!(wrong(value!({"timeout_s": 1e9})).starts_with("timeout_s: "));
    assert!(wrong(value!({"max_bytes": 0})).starts_with("max_bytes: "));
}

#[tokio::test]
async fn one_is_sent_on_but_not_everywhere() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/302" => Reply::to(302, "/end?x"),
        "/307" => Reply::to(307, "/end"),
        "/for-ever" => Reply::to(301, "/for-ever"),
        "/within" => Reply::to(302, "http://127.0.0.2/"),
        "/cloud" => Reply::to(302, "http://169.254.169.254/latest"),
        "/file" => Reply::to(302, "file:///etc/passwd"),
        "/user" => Reply::to(302, "http://a:b@127.0.0.1/"),
        "/nowhere" => Reply::to(302, "http://["),
        path if path.starts_with("/other") => Reply::to(302, &path[7..]),
        _ => Reply::text("the end"),
    })
    .await;
    assert_eq!(get(server.url("/302")).await, Ok(value!("the end")));
    refused(get(server.url("/for-ever")).await, Fault::Unreachable, false, "sends on more than 5 times");
    refused(get(server.url("/within")).await, Fault::Forbidden, false, "127.0.0.2 is not asked");
    refused(get(server.url("/cloud")).await, Fault::Forbidden, false, "169.254.169.254 is not asked");
    refused(get(server.url("/file")).await, Fault::Forbidden, false, "only http and https");
    refused(get(server.url("/user")).await, Fault::Forbidden, false, "name or password");
    refused(get(server.url("/nowhere")).await, Fault::Unreachable, false, "no URL");

    let post = |path: &str| {
        let said = value!({"url": server.url(path), "method": "POST", "headers": {"Authorization": "key"}});
        ask(&["127.0.0.1"], said, value!("body"))
    };
    post("/307").await.unwrap();
    post("/302").await.unwrap();
    let seen = server.seen();
    let [.., again, _, changed] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((&*again.method, &*again.body, again.header("authorization")), ("POST", "body", "key"));
    assert_eq!((&*changed.method, &*changed.body, changed.header("content-type")), ("GET", "", ""));

    let other = Server::start(|_| Reply::text("other")).await;
    post(&format!("/other?{}", other.url("/"))).await.unwrap();
    assert_eq!(other.seen()[0].header("authorization"), "", "what was said to one host is not said to another");
}

#[tokio::test]
async fn failures_say_whether_to_try_again() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/429" => {
            Reply::new(429, "application/json", r#"{"error": {"message": "slow down"}}"#).with("retry-after", "7")
        }
        "/503" => Reply::new(503, "text/html", "<html>").with("retry-after", "1"),
        "/cut" => Reply::text("begins").then(Part::Cut),
        "/slow" => Reply { parts: vec![Part::Wait(5_000)], ..Reply::text("") },
        "/drips" => Reply::text("a").then(Part::Wait(5_000)),
        "/long" => Reply::text(&"x".repeat(2_000)),
        "/endless" => (0..100).fold(Reply::text(""), |reply, _| reply.then(Part::Text("x".repeat(100)))),
        path => Reply::new(path[1..].parse().unwrap(), "text/plain", "because"),
    })
    .await;
    refused(get(server.url("/400")).await, Fault::Failed, false, "127.0.0.1 answers 400 (Bad Request): because");
    refused(get(server.url("/404")).await, Fault::Failed, false, "404");
    refused(get(server.url("/401")).await, Fault::Unauthorized, false, "401");
    refused(get(server.url("/403")).await, Fault::Unauthorized, false, "403");
    refused(get(server.url("/500")).await, Fault::Unreachable, true, "500");
    refused(get(server.url("/408")).await, Fault::Unreachable, true, "408");
    let busy =
        refused(get(server.url("/429")).await, Fault::TooManyRequests, true, "429 (Too Many Requests): slow down");
    assert_eq!(busy.after, Some(std::time::Duration::from_secs(7)));
    let down = refused(get(server.url("/503")).await, Fault::Unreachable, true, "503 (Service Unavailable)");
    assert_eq!(down.after, Some(std::time::Duration::from_secs(1)));
    refused(get(server.url("/cut")).await, Fault::Unreachable, true, "broke off");

    let within = |path: &str, key: &str, limit: Value| {
        let said = Value::Map([("url", value!(server.url(path))), (key, limit)].into_iter().collect());
        ask(&["127.0.0.1"], said, Value::Null)
    };
    refused(within("/slow", "timeout_s", value!(0.1)).await, Fault::TimedOut, true, "did not answer within 100ms");
    refused(within("/drips", "timeout", value!(0.1)).await, Fault::TimedOut, true, "did not answer within");
    refused(within("/long", "max_bytes", value!(1_999)).await, Fault::Output, false, "more than 1999 bytes");
    refused(within("/endless", "max_bytes", value!(5_000)).await, Fault::Output, false, "more than 5000 bytes");
    assert!(within("/long", "max_bytes", value!(2_000)).await.is_ok());

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    refused(get(format!("http://{closed}/")).await, Fault::Unreachable, true, "cannot be reached");
    refused(get("http://nothing.invalid/".to_owned()).await, Fault::Unreachable, true, "is not found");
    refused(get(server.url("/").replace("http:", "https:")).await, Fault::Unreachable, false, "no secure connection");
}

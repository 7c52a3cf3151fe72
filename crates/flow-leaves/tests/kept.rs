//! Connections are kept between calls: as few as need be, never one that may not be asked over, and no call fails because the
//! other side has closed one.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use caudal_flow::{Fault, Registry, StepError, Value, value};
use caudal_flow_leaves::{Allow, Llm, Net, Parts, Prices, Provider};
use common::{made, registry_of, run_step, step};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What a server does with a question: the number of the connection and of the question on it are told, from 1.
type Does = Arc<dyn Fn(&str, usize, usize) -> Then + Send + Sync>;

/// What comes after a question was read.
#[derive(Clone)]
enum Then {
    /// These bytes, and the connection stays.
    Say(String),
    /// These bytes, and then the end; after so many milliseconds, if any.
    SayAndClose(String, u64),
    /// Nothing, for ever.
    Wait,
}

/// A server that counts who comes.
struct Counting {
    port: u16,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Counting {
    async fn start(does: impl Fn(&str, usize, usize) -> Then + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self { port, connections: Arc::default(), open: Arc::default(), asked: Arc::default() };
        let (connections, open, asked) =
            (Arc::clone(&server.connections), Arc::clone(&server.open), Arc::clone(&server.asked));
        let does: Does = Arc::new(does);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = connections.fetch_add(1, Relaxed) + 1;
                let (open, asked, does) = (Arc::clone(&open), Arc::clone(&asked), Arc::clone(&does));
                tokio::spawn(async move {
                    open.fetch_add(1, Relaxed);
                    serve(stream, number, &asked, &does).await;
                    open.fetch_sub(1, Relaxed);
                });
            }
        });
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Waits until so many connections are open.
    async fn open(&self, expected: usize) {
        for _ in 0..2_000 {
            if self.open.load(Relaxed) == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{} are open, not {expected}", self.open.load(Relaxed));
    }
}

async fn serve(mut stream: TcpStream, connection: usize, asked: &Mutex<Vec<String>>, does: &Does) -> Option<()> {
    let mut read = Vec::new();
    for number in 1.. {
        let head = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break String::from_utf8(read.drain(..end + 4).collect()).unwrap();
            }
            if stream.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
        };
        let length = head
            .to_lowercase()
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
        while read.len() < length {
            if stream.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
        }
        read.drain(..length);
        let line = head.lines().next().unwrap().to_owned();
        asked.lock().unwrap().push(line.clone());
        match does(&line, connection, number) {
            Then::Say(words) => stream.write_all(words.as_bytes()).await.ok()?,
            Then::SayAndClose(words, millis) => {
                stream.write_all(words.as_bytes()).await.ok()?;
                tokio::time::sleep(Duration::from_millis(millis)).await;
                return None;
            }
            Then::Wait => std::future::pending().await,
        }
    }
    None
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn chunked(kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    )
}

fn allowed() -> Registry {
    registry_of(Parts { net: Net::new(Allow::new(["127.0.0.1"]).unwrap()), ..Parts::default() })
}

async fn call(registry: &Registry, said: Value) -> Result<Value, StepError> {
    run_step(step(made(registry, "http", said).unwrap()), Value::Null, Value::Null).await
}

async fn get(registry: &Registry, url: &str) -> Result<Value, StepError> {
    call(registry, value!({"url": url, "gives": "body"})).await
}

async fn post(registry: &Registry, url: &str) -> Result<Value, StepError> {
    call(registry, value!({"url": url, "gives": "body", "method": "POST", "body": "x"})).await
}

/// So many calls, one after the other, of a server that says this, make so many connections.
async fn check(words: String, calls: usize, connections: usize) {
    let said = words.clone();
    let server = Counting::start(move |_, _, _| Then::Say(said.clone())).await;
    let registry = allowed();
    for _ in 0..calls {
        let _ = get(&registry, &server.url("/")).await;
    }
    assert_eq!((server.asked(), server.connections()), (calls, connections), "{words}");
}

#[tokio::test]
async fn what_was_read_to_its_end_leaves_its_connection() {
    check(ok("yes"), 10, 1).await;
    check(ok(""), 10, 1).await;
    check(chunked("text/plain", "yes"), 10, 1).await;
    check("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), 10, 1).await;
    check("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno".to_owned(), 10, 1).await;
    check("HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n".to_owned(), 10, 1).await;
}

#[tokio::test]
async fn what_was_not_read_to_its_end_closes_it() {
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", 8 << 20, "x".repeat(8 << 20));
    check(long, 2, 2).await;
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a length\r\n".to_owned(), 2, 2).await;
    check("no HTTP at all\r\n\r\n".to_owned(), 2, 2).await;
    check("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx".to_owned(), 2, 2).await;
    check("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx".to_owned(), 2, 2).await;
    // What comes behind an answer belongs to no question.
    check(format!("{}{}", ok("mine"), ok("smuggled")), 2, 2).await;
}

#[tokio::test]
async fn an_answer_is_never_another_questions() {
    let server = Counting::start(|line, _, _| match line.contains("/more") {
        true => Then::Say(format!("{}{}", ok("more"), ok("smuggled"))),
        false => Then::Say(ok(line.split(' ').nth(1).unwrap())),
    })
    .await;
    let registry = allowed();
    for number in 0..20 {
        assert_eq!(get(&registry, &server.url("/more")).await, Ok(value!("more")));
        let path = format!("/{number}");
        assert_eq!(get(&registry, &server.url(&path)).await, Ok(value!(path)));
    }
}

#[tokio::test]
async fn a_server_that_closes_after_each_is_asked_anew() {
    let server = Counting::start(|_, _, _| Then::SayAndClose(ok("yes"), 0)).await;
    let registry = allowed();
    for _ in 0..10 {
        assert_eq!(get(&registry, &server.url("/")).await, Ok(value!("yes")));
    }
    for _ in 0..10 {
        // The end may be under way while the next question is; for one that may not be repeated it must have come. Nothing
        // but the kernel has seen it by then.
        std::thread::sleep(Duration::from_millis(2));
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(post(&registry, &server.url("/")).await, Ok(value!("yes")));
    }
    assert_eq!(server.connections(), 20);
}

#[tokio::test]
async fn a_server_that_closes_what_waits_fails_no_call() {
    let server = Counting::start(|_, _, _| Then::SayAndClose(ok("yes"), 50)).await;
    let registry = allowed();
    for _ in 0..4 {
        assert_eq!(post(&registry, &server.url("/")).await, Ok(value!("yes")));
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    assert_eq!((server.asked(), server.connections()), (4, 4));
}

#[tokio::test]
async fn a_question_that_was_closed_upon_is_asked_again_where_nothing_is_done_twice() {
    // The second question on a connection is read, and closed upon without a word.
    let server = Counting::start(|_, _, number| match number {
        1 => Then::Say(ok("yes")),
        _ => Then::SayAndClose(String::new(), 0),
    })
    .await;
    let registry = allowed();
    assert_eq!(get(&registry, &server.url("/")).await, Ok(value!("yes")));
    assert_eq!(get(&registry, &server.url("/")).await, Ok(value!("yes")));
    assert_eq!((server.asked(), server.connections()), (3, 2), "it was asked again over a new one");
    let lost = post(&registry, &server.url("/")).await.unwrap_err();
    assert_eq!((lost.fault, lost.again), (Fault::Unreachable, true), "{lost}");
    assert_eq!((server.asked(), server.connections()), (4, 2), "whether it was done is not known");

    // Of an answer that has begun, nothing is asked again.
    let server = Counting::start(|_, _, number| match number {
        1 => Then::Say(ok("yes")),
        _ => Then::SayAndClose("HTTP/1.1 200".to_owned(), 0),
    })
    .await;
    assert_eq!(get(&registry, &server.url("/")).await, Ok(value!("yes")));
    assert!(get(&registry, &server.url("/")).await.unwrap_err().message.contains("broke off"));
    assert_eq!((server.asked(), server.connections()), (2, 1));

    // Nor over a connection that was new: the server does not want it.
    let server = Counting::start(|_, _, _| Then::SayAndClose(String::new(), 0)).await;
    assert!(get(&registry, &server.url("/")).await.is_err());
    assert_eq!((server.asked(), server.connections()), (1, 1));
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_closes_its_connection() {
    let server = Counting::start(|line, _, _| match line.contains("/never") {
        true => Then::Wait,
        false => Then::Say(ok("yes")),
    })
    .await;
    let registry = allowed();
    assert_eq!(get(&registry, &server.url("/")).await, Ok(value!("yes")));
    let said = value!({"url": server.url("/never"), "timeout_s": 0.1});
    assert_eq!(call(&registry, said).await.unwrap_err().fault, Fault::TimedOut);
    assert_eq!(server.connections(), 1, "it was asked over the one that waited");
    assert_eq!(get(&registry, &server.url("/")).await, Ok(value!("yes")));
    assert_eq!(server.connections(), 2);
    let url = server.url("/never");
    let cancelled = tokio::time::timeout(Duration::from_millis(50), get(&registry, &url)).await;
    assert!(cancelled.is_err());
    assert_eq!(get(&registry, &server.url("/")).await, Ok(value!("yes")));
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn redirects_to_the_same_host_go_over_the_same_connection() {
    let server = Counting::start(|line, _, _| match line.contains("/from") {
        true => Then::Say("HTTP/1.1 302 Found\r\nLocation: /to\r\nContent-Length: 0\r\n\r\n".to_owned()),
        false => Then::Say(ok("the end")),
    })
    .await;
    let registry = allowed();
    for _ in 0..5 {
        assert_eq!(get(&registry, &server.url("/from")).await, Ok(value!("the end")));
    }
    assert_eq!((server.asked(), server.connections()), (10, 1));
}

#[tokio::test]
async fn as_many_wait_as_were_asked_at_once_but_not_for_long() {
    let server = Counting::start(|_, _, _| Then::Say(ok("yes"))).await;
    let registry = allowed();
    for _ in 0..3 {
        let calls = (0..40).map(|_| async { get(&registry, &server.url("/")).await });
        assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
    }
    assert!(server.connections() >= 40 && server.connections() <= 40 + 2 * 24, "{}", server.connections());
    server.open(16).await;
    // They are closed though nobody asks any more.
    server.open(0).await;
}

/// `llm`, asking a server of this machine, which the pipeline itself may not ask.
fn parts(server: &Counting, allow: &[&str]) -> Registry {
    let provider = Provider { base_url: server.url("/v1"), key_env: None };
    let llm = Llm::new([("local".to_owned(), provider)].into(), Prices::default(), |_| Some("key".to_owned()));
    let net = Net::new(Allow::new(allow.iter().copied()).unwrap());
    registry_of(Parts { net, llm, ..Parts::default() })
}

async fn say(registry: &Registry, stream: bool) -> Result<Value, StepError> {
    let said = value!({"model": "local:tiny", "stream": stream});
    run_step(step(made(registry, "llm", said).unwrap()), "hello".into(), Value::Null).await
}

#[tokio::test]
async fn models_are_asked_over_one_connection_streamed_or_not() {
    let whole = r#"{"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}"#;
    let events =
        "data: {\"choices\": [{\"delta\": {\"content\": \"yes\"}, \"finish_reason\": \"stop\"}]}\n\ndata: [DONE]\n\n";
    for (stream, words) in [(false, chunked("application/json", whole)), (true, chunked("text/event-stream", events))] {
        let server = Counting::start(move |_, _, _| Then::Say(words.clone())).await;
        let registry = parts(&server, &[]);
        for _ in 0..10 {
            assert_eq!(say(&registry, stream).await, Ok(value!("yes")));
            // The end of a stream comes behind its last word, and nobody waits for it.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!((server.asked(), server.connections()), (10, 1), "{stream}");
    }
}

#[tokio::test]
async fn a_connection_that_waits_opens_no_door() {
    let whole = r#"{"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}"#;
    let server = Counting::start(move |_, _, _| Then::Say(chunked("application/json", whole))).await;
    // Whoever runs the server names the model's address; the pipeline may not ask it.
    let registry = parts(&server, &[]);
    assert_eq!(say(&registry, false).await, Ok(value!("yes")));
    let within = get(&registry, &server.url("/v1/secrets")).await.unwrap_err();
    assert_eq!((within.fault, server.asked()), (Fault::Forbidden, 1));
    // Where it may, it is the same way.
    let registry = parts(&server, &["127.0.0.1"]);
    assert_eq!(say(&registry, false).await, Ok(value!("yes")));
    assert!(get(&registry, &server.url("/")).await.is_ok());
    assert_eq!((server.asked(), server.connections()), (3, 2));
    // One name is not the other, though both are there.
    let by_name = format!("http://localhost:{}/", server.port);
    let _ = get(&registry, &by_name).await;
    assert_eq!(server.connections(), 3);
}

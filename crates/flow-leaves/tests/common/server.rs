//! A server on this machine that answers what a test says, and remembers what it was asked.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// What was asked.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: hyper::HeaderMap,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A piece of an answer.
#[derive(Debug, Clone)]
pub enum Part {
    Text(String),
    Raw(Vec<u8>),
    Wait(u64),
    Cut,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub parts: Vec<Part>,
}

impl Reply {
    pub fn new(status: u16, kind: &str, text: impl Into<String>) -> Self {
        Self { status, headers: vec![("content-type", kind.to_owned())], parts: vec![Part::Text(text.into())] }
    }

    pub fn json(json: serde_json::Value) -> Self {
        Self::new(200, "application/json", json.to_string())
    }

    pub fn text(text: &str) -> Self {
        Self::new(200, "text/plain", text)
    }

    pub fn to(status: u16, location: &str) -> Self {
        Self::new(status, "text/plain", "").with("location", location)
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub fn then(mut self, part: Part) -> Self {
        self.parts.push(part);
        self
    }
}

/// A server. It ends with the test's runtime.
pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub async fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (kept, answer) = (Arc::clone(&seen), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                let service = service_fn(move |request| {
                    let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                    async move {
                        let seen = see(request).await;
                        kept.lock().unwrap().push(seen.clone());
                        Ok::<_, Infallible>(give(answer(&seen)).await)
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, seen }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn see(request: Request<Incoming>) -> Seen {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let path = head.uri.path_and_query().unwrap().to_string();
    Seen {
        method: head.method.to_string(),
        path,
        headers: head.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

type Answered = Response<StreamBody<stream::BoxStream<'static, Result<Frame<Bytes>, io::Error>>>>;

async fn give(reply: Reply) -> Answered {
    let mut parts = reply.parts.into_iter().peekable();
    // A pause before anything is said holds the head back too.
    while let Some(Part::Wait(millis)) = parts.next_if(|part| matches!(part, Part::Wait(_))) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
    let body = stream::unfold(parts, |mut parts| async move {
        loop {
            let data = |bytes: Vec<u8>| Ok(Frame::data(Bytes::from(bytes)));
            match parts.next()? {
                Part::Text(text) => return Some((data(text.into_bytes()), parts)),
                Part::Raw(bytes) => return Some((data(bytes), parts)),
                Part::Wait(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
                Part::Cut => {
                    // What was said before has gone out first.
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    return Some((Err(io::Error::other("cut")), parts));
                }
            }
        }
    });
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(StreamBody::new(Box::pin(body) as _)).unwrap()
}

//! Connections that are kept, and one request at a time on each.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Response,
    body::Incoming,
    client::conn::http1,
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::{LoadError, Request, Target, failure::Failure, timing};

/// Bytes of an error that are read for its code.
const MOST_OF_AN_ERROR: usize = 16 << 10;
/// Bytes of an answer that is read whole.
const MOST_OF_AN_ANSWER: usize = 16 << 20;

type Sender = http1::SendRequest<Full<Bytes>>;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The code of an error, if it says one.
    pub(crate) code: Option<String>,
    /// Stages with their milliseconds, as the server tells them.
    pub(crate) stages: Vec<(String, f64)>,
    /// Bytes of the body.
    pub(crate) received: u64,
}

/// Connections to one server: as many as requests are under way at once, kept for the next ones.
#[derive(Debug)]
pub(crate) struct Client {
    target: Target,
    patience: Duration,
    idle: Mutex<Vec<Sender>>,
    opened: AtomicU64,
}

impl Client {
    pub(crate) fn new(target: Target, patience: Duration) -> Self {
        Self { target, patience, idle: Mutex::default(), opened: AtomicU64::new(0) }
    }

    /// Connections that were opened so far.
    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// Sends `request` and reads the answer to its end, without keeping it.
    pub(crate) async fn send(&self, request: &Request) -> Result<Answer, Failure> {
        let answer = tokio::time::timeout(self.patience, async {
            let (sender, response) = self.exchange(request).await?;
            let answer = read(response).await?;
            self.keep(sender);
            Ok(answer)
        });
        answer.await.unwrap_or_else(|_| Err(Failure::timeout(self.patience.as_secs_f64())))
    }

    /// Asks a question whose answer matters: its status and its body.
    pub(crate) async fn ask(&self, path: &str) -> Result<(u16, Bytes), LoadError> {
        let failed = |reason: String| LoadError::Unreachable { url: self.target.url().to_owned(), reason };
        let answer = tokio::time::timeout(self.patience, async {
            let (_, response) =
                self.exchange(&Request::get(path)).await.map_err(|failure| failed(failure.to_string()))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MOST_OF_AN_ANSWER).collect().await;
            Ok((status, body.map_err(|error| failed(error.to_string()))?.to_bytes()))
        });
        answer.await.unwrap_or_else(|_| Err(failed("no answer in time".to_owned())))
    }

    async fn exchange(&self, request: &Request) -> Result<(Sender, Response<Incoming>), Failure> {
        while let Some(mut sender) = self.idle_one() {
            // It may still have to notice that the answer before is over, or that the server has closed.
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(self.dress(request)?).await {
                Ok(response) => return Ok((sender, response)),
                Err(mut failed) => {
                    // What comes back was never sent, because the server had closed: another connection takes it.
                    if failed.take_message().is_none() {
                        return Err(failed.into_error().into());
                    }
                }
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(self.dress(request)?).await?;
        Ok((sender, response))
    }

    fn idle_one(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The latest first: those too many fall asleep, and are closed by the server in its time.
        std::iter::from_fn(|| idle.pop()).find(|sender| !sender.is_closed())
    }

    fn keep(&self, sender: Sender) {
        if !sender.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        }
    }

    async fn connect(&self) -> Result<Sender, Failure> {
        let stream = TcpStream::connect(self.target.address()).await?;
        stream.set_nodelay(true)?;
        let sender = match self.target.tls() {
            Some((tls, host)) => handshake(tls.open(host, stream).await?).await?,
            None => handshake(stream).await?,
        };
        self.opened.fetch_add(1, Relaxed);
        Ok(sender)
    }

    fn dress(&self, request: &Request) -> Result<hyper::Request<Full<Bytes>>, Failure> {
        let wrong = |error: hyper::http::Error| Failure { kind: crate::FailureKind::Other, words: error.to_string() };
        let mut dressed = hyper::Request::builder()
            .method(request.method.clone())
            .uri(format!("{}{}", self.target.prefix(), request.path))
            .header(header::HOST, self.target.host().clone())
            .header(header::USER_AGENT, HeaderValue::from_static(concat!("caudal-bench/", env!("CARGO_PKG_VERSION"))));
        if let Some(content_type) = &request.content_type {
            dressed = dressed.header(header::CONTENT_TYPE, content_type);
        }
        dressed.body(Full::new(request.body.clone())).map_err(wrong)
    }
}

async fn handshake(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Sender, Failure> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with its sender; what goes wrong on it is told to whoever waits for an answer.
    tokio::spawn(connection);
    Ok(sender)
}

async fn read(response: Response<Incoming>) -> Result<Answer, Failure> {
    let status = response.status().as_u16();
    let told = response.headers().get("server-timing").and_then(|value| value.to_str().ok());
    let stages = told.map(|told| timing::parse(told).collect()).unwrap_or_default();
    let (mut body, mut received, mut error) = (response.into_body(), 0, Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        received += data.len() as u64;
        if status >= 400 && error.len() + data.len() <= MOST_OF_AN_ERROR {
            error.extend_from_slice(&data);
        }
    }
    Ok(Answer { status, code: code_of(&error), stages, received })
}

/// The code of an error as Caudal writes it: on its own, or in front of KServe's one sentence (`queue_full: …`).
fn code_of(body: &[u8]) -> Option<String> {
    let told: Value = serde_json::from_slice(body).ok()?;
    let code = match &told["error"] {
        Value::String(sentence) => sentence.split_once(": ")?.0,
        error => error["code"].as_str()?,
    };
    let is_code = (1..=64).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_code.then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_in_all_forms_of_errors() {
        let code = |body: &str| code_of(body.as_bytes());
        assert_eq!(code(r#"{"error":{"code":"queue_full"}}"#).as_deref(), Some("queue_full"));
        assert_eq!(code(r#"{"error":"queue_full: full; wait"}"#).as_deref(), Some("queue_full"));
        for none in ["", "<html>", "{}", r#"{"error":"Not Found: x"}"#, r#"{"error":{"code":7}}"#, r#"{"error":": x"}"#]
        {
            assert_eq!(code(none), None, "{none}");
        }
    }
}

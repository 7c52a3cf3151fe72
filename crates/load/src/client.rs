//! An HTTP client with a pool of connections, each with one request at a time.

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

use crate::{LoadError, Request, Target, failure::Failure, server_timing};

/// Bytes of an error response that are read to find its code.
const MAX_ERROR_BYTES: usize = 16 << 10;
/// Bytes of a response body that is read as a whole.
const MAX_BODY_BYTES: usize = 16 << 20;

type Sender = http1::SendRequest<Full<Bytes>>;

/// A response whose body was read and dropped.
#[derive(Debug)]
pub(crate) struct ResponseSummary {
    pub(crate) status: u16,
    /// The error code, if the body has one.
    pub(crate) code: Option<String>,
    /// Stages with their milliseconds, from the `Server-Timing` header.
    pub(crate) stages: Vec<(String, f64)>,
    /// Bytes of the body.
    pub(crate) received: u64,
}

/// A pool of connections to one server, as many as there are concurrent requests.
#[derive(Debug)]
pub(crate) struct Client {
    target: Target,
    timeout: Duration,
    idle: Mutex<Vec<Sender>>,
    connections_opened: AtomicU64,
}

impl Client {
    pub(crate) fn new(target: Target, timeout: Duration) -> Self {
        Self { target, timeout, idle: Mutex::default(), connections_opened: AtomicU64::new(0) }
    }

    /// Number of connections opened so far.
    pub(crate) fn connections_opened(&self) -> u64 {
        self.connections_opened.load(Relaxed)
    }

    /// Sends `request` and reads its response to the end, without storing the body.
    pub(crate) async fn send_request(&self, request: &Request) -> Result<ResponseSummary, Failure> {
        let response = tokio::time::timeout(self.timeout, async {
            let (sender, response) = self.exchange_on_connection(request).await?;
            let response = read_response(response).await?;
            self.return_to_pool(sender);
            Ok(response)
        });
        response.await.unwrap_or_else(|_| Err(Failure::timed_out(self.timeout.as_secs_f64())))
    }

    /// Fetches `path`; returns the status and the body.
    pub(crate) async fn fetch_path(&self, path: &str) -> Result<(u16, Bytes), LoadError> {
        let failed = |reason: String| LoadError::Unreachable { url: self.target.url().to_owned(), reason };
        let response = tokio::time::timeout(self.timeout, async {
            let (_, response) = self
                .exchange_on_connection(&Request::get(path))
                .await
                .map_err(|failure| failed(failure.to_string()))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
            Ok((status, body.map_err(|error| failed(error.to_string()))?.to_bytes()))
        });
        response.await.unwrap_or_else(|_| Err(failed("no response in time".to_owned())))
    }

    async fn exchange_on_connection(&self, request: &Request) -> Result<(Sender, Response<Incoming>), Failure> {
        while let Some(mut sender) = self.take_idle() {
            // The connection may not yet have noticed that its last response is complete, or that the server closed it.
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(self.build_request(request)?).await {
                Ok(response) => return Ok((sender, response)),
                Err(mut failed) => {
                    // A returned request was never sent, because the server had closed the connection: try another one.
                    if failed.take_message().is_none() {
                        return Err(failed.into_error().into());
                    }
                }
            }
        }
        let mut sender = self.open_connection().await?;
        let response = sender.send_request(self.build_request(request)?).await?;
        Ok((sender, response))
    }

    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The latest first, so that surplus connections stay idle and the server closes them.
        std::iter::from_fn(|| idle.pop()).find(|sender| !sender.is_closed())
    }

    fn return_to_pool(&self, sender: Sender) {
        if !sender.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        }
    }

    async fn open_connection(&self) -> Result<Sender, Failure> {
        let stream = TcpStream::connect(self.target.socket_address()).await?;
        stream.set_nodelay(true)?;
        let sender = match self.target.tls_and_host() {
            Some((tls, host)) => http_handshake(tls.connect(host, stream).await?).await?,
            None => http_handshake(stream).await?,
        };
        self.connections_opened.fetch_add(1, Relaxed);
        Ok(sender)
    }

    fn build_request(&self, request: &Request) -> Result<hyper::Request<Full<Bytes>>, Failure> {
        let wrong = |error: hyper::http::Error| Failure { kind: crate::FailureKind::Other, message: error.to_string() };
        let mut builder = hyper::Request::builder()
            .method(request.method.clone())
            .uri(format!("{}{}", self.target.path_prefix(), request.path))
            .header(header::HOST, self.target.host_header().clone())
            .header(header::USER_AGENT, HeaderValue::from_static(concat!("caudal-bench/", env!("CARGO_PKG_VERSION"))));
        if let Some(content_type) = &request.content_type {
            builder = builder.header(header::CONTENT_TYPE, content_type);
        }
        builder.body(Full::new(request.body.clone())).map_err(wrong)
    }
}

async fn http_handshake(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Sender, Failure> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The task ends with its sender; errors are reported to the caller that waits for a response.
    tokio::spawn(connection);
    Ok(sender)
}

async fn read_response(response: Response<Incoming>) -> Result<ResponseSummary, Failure> {
    let status = response.status().as_u16();
    let header = response.headers().get("server-timing").and_then(|value| value.to_str().ok());
    let stages = header.map(|header| server_timing::parse_header(header).collect()).unwrap_or_default();
    let (mut body, mut received, mut error) = (response.into_body(), 0, Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        received += data.len() as u64;
        if status >= 400 && error.len() + data.len() <= MAX_ERROR_BYTES {
            error.extend_from_slice(&data);
        }
    }
    Ok(ResponseSummary { status, code: code_of(&error), stages, received })
}

/// The code of an error in Caudal's forms: a field of its own, or a prefix of KServe's sentence (`queue_full: …`).
fn code_of(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let code = match &body["error"] {
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
    fn code_of_reads_all_forms_of_errors() {
        let code = |body: &str| code_of(body.as_bytes());
        assert_eq!(code(r#"{"error":{"code":"queue_full"}}"#).as_deref(), Some("queue_full"));
        assert_eq!(code(r#"{"error":"queue_full: full; wait"}"#).as_deref(), Some("queue_full"));
        for none in ["", "<html>", "{}", r#"{"error":"Not Found: x"}"#, r#"{"error":{"code":7}}"#, r#"{"error":": x"}"#]
        {
            assert_eq!(code(none), None, "{none}");
        }
    }
}

//! The way to a collector: OTLP by HTTP or by gRPC, one export at a time.

use std::{fs, io::Write as _, sync::Arc, time::Duration};

use flate2::{Compression, write::GzEncoder};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse, trace_service_client::TraceServiceClient,
};
use prost::Message as _;
use tokio::runtime::Runtime;
use tonic::{
    Code, Request,
    codec::CompressionEncoding,
    metadata::MetadataMap,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use ureq::{
    Agent,
    http::{StatusCode, header},
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

use crate::{Encoding, Protocol, Settings, StartError};

/// Most of an answer that is read: it says little.
const MAX_ANSWER: u64 = 64 << 10;

/// Why spans did not arrive.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
pub struct SendError {
    said: String,
    /// Whether it may go better the next time.
    pub(crate) again: bool,
    /// When that is, if the collector says so.
    pub(crate) wait: Option<Duration>,
}

/// A collector, and how to reach it.
pub(crate) enum Sender {
    Http { agent: Agent, settings: Settings },
    Grpc { runtime: Runtime, client: TraceServiceClient<Channel>, metadata: MetadataMap, timeout: Duration },
}

impl Sender {
    pub(crate) fn new(settings: &Settings) -> Result<Self, StartError> {
        let unreadable = |reason: String| {
            let path = settings.certificate.clone().unwrap_or_default();
            StartError::Certificate(path, reason)
        };
        let trusted = settings.certificate.as_ref().map(fs::read).transpose();
        let trusted = trusted.map_err(|error| unreadable(error.to_string()))?;
        match settings.protocol {
            Protocol::Http => http(settings, trusted.as_deref()).map_err(unreadable),
            Protocol::Grpc => grpc(settings, trusted),
        }
    }

    /// Sends `spans`; gives how many of them the collector did not want.
    pub(crate) fn send(&mut self, spans: &ExportTraceServiceRequest) -> Result<u64, SendError> {
        let answer = match self {
            Self::Http { agent, settings } => post(agent, settings, spans)?,
            Self::Grpc { runtime, client, metadata, timeout } => {
                let mut request = Request::new(spans.clone());
                *request.metadata_mut() = metadata.clone();
                let answer = runtime.block_on(async { tokio::time::timeout(*timeout, client.export(request)).await });
                match answer {
                    Ok(Ok(answer)) => answer.into_inner(),
                    Ok(Err(status)) => return Err(refused(&status)),
                    Err(_) => return Err(late(*timeout)),
                }
            }
        };
        Ok(answer.partial_success.map_or(0, |partial| partial.rejected_spans.max(0) as u64))
    }
}

fn http(settings: &Settings, trusted: Option<&[u8]>) -> Result<Sender, String> {
    let mut tls = TlsConfig::builder();
    if let Some(pem) = trusted {
        let certificates = parse_pem(pem).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
            Ok(_) => None,
            Err(error) => Some(Err(error.to_string())),
        });
        let certificates: Vec<_> = certificates.collect::<Result<_, _>>()?;
        if certificates.is_empty() {
            return Err("it holds no certificate in PEM".to_owned());
        }
        tls = tls.root_certs(RootCerts::Specific(Arc::new(certificates)));
    }
    let config = Agent::config_builder()
        .timeout_global(Some(settings.timeout))
        .max_redirects(0)
        .http_status_as_error(false)
        .user_agent(concat!("caudal/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.build());
    Ok(Sender::Http { agent: Agent::new_with_config(config.build()), settings: settings.clone() })
}

fn post(
    agent: &Agent,
    settings: &Settings,
    spans: &ExportTraceServiceRequest,
) -> Result<ExportTraceServiceResponse, SendError> {
    let mut request = agent.post(&settings.endpoint).header(header::CONTENT_TYPE, "application/x-protobuf");
    for (name, value) in &settings.headers {
        request = request.header(name, value);
    }
    let mut body = spans.encode_to_vec();
    if settings.encoding == Encoding::Gzip {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&body).expect("writing to memory does not fail");
        body = packed.finish().expect("writing to memory does not fail");
        request = request.header(header::CONTENT_ENCODING, "gzip");
    }
    let mut answer = request.send(&body[..]).map_err(|error| match error {
        ureq::Error::Timeout(_) => late(settings.timeout),
        error => SendError { said: error.to_string(), again: true, wait: None },
    })?;
    let status = answer.status();
    if !status.is_success() {
        let wait = answer.headers().get(header::RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse().ok());
        let again = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ]
        .contains(&status);
        return Err(SendError {
            said: format!("the collector answered {status}"),
            again,
            wait: wait.map(Duration::from_secs),
        });
    }
    // It has taken them: whatever is wrong with its answer is not worth sending them twice.
    let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().unwrap_or_default();
    Ok(ExportTraceServiceResponse::decode(&body[..]).unwrap_or_default())
}

fn grpc(settings: &Settings, trusted: Option<Vec<u8>>) -> Result<Sender, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wrong = |error: tonic::transport::Error| StartError::Endpoint(settings.endpoint.clone(), error.to_string());
    let mut endpoint = Endpoint::from_shared(settings.endpoint.clone())
        .and_then(|endpoint| endpoint.user_agent(concat!("caudal/", env!("CARGO_PKG_VERSION"))))
        .map_err(wrong)?
        .connect_timeout(settings.timeout);
    if settings.endpoint.starts_with("https://") {
        let tls = match trusted {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_webpki_roots(),
        };
        endpoint = endpoint.tls_config(tls).map_err(wrong)?;
    }
    let channel = {
        let _within = runtime.enter();
        endpoint.connect_lazy()
    };
    let mut client = TraceServiceClient::new(channel).accept_compressed(CompressionEncoding::Gzip);
    if settings.encoding == Encoding::Gzip {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    let metadata = MetadataMap::from_headers(settings.headers.clone());
    Ok(Sender::Grpc { runtime, client, metadata, timeout: settings.timeout })
}

fn refused(status: &tonic::Status) -> SendError {
    let again = [
        Code::Cancelled,
        Code::DeadlineExceeded,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unavailable,
        Code::DataLoss,
        // A connection that broke under way.
        Code::Unknown,
    ]
    .contains(&status.code());
    SendError { said: format!("{}: {}", status.code(), status.message()), again, wait: None }
}

fn late(timeout: Duration) -> SendError {
    SendError { said: format!("no answer within {} ms", timeout.as_millis()), again: true, wait: None }
}

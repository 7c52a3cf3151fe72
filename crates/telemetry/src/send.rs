//! The way to a collector: OTLP by HTTP or by gRPC, one export at a time.

use std::{fs, io::Write as _, sync::Arc, time::Duration};

use flate2::{Compression, write::GzEncoder};
use http::uri::PathAndQuery;
use opentelemetry_proto::tonic::collector::{
    metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
};
use prost::Message;
use tokio::runtime::Runtime;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::CompressionEncoding,
    metadata::MetadataMap,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_prost::ProstCodec;
use ureq::{
    Agent,
    http::{StatusCode, header},
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

use crate::{Collector, Encoding, Protocol, StartError};

/// Most of an answer that is read: it says little.
const MAX_ANSWER: u64 = 64 << 10;

/// Why an export did not arrive.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
pub struct SendError {
    said: String,
    /// Whether it may go better the next time.
    pub(crate) again: bool,
    /// When that is, if the collector says so.
    pub(crate) wait: Option<Duration>,
}

/// What collectors take.
pub(crate) trait Export: Message + Clone + 'static {
    /// What they answer.
    type Answer: Message + Default + 'static;
    /// The method of gRPC that takes it.
    const METHOD: &'static str;
    /// How much of it was not wanted.
    fn rejected(answer: Self::Answer) -> i64;
}

impl Export for ExportTraceServiceRequest {
    type Answer = ExportTraceServiceResponse;
    const METHOD: &'static str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

    fn rejected(answer: Self::Answer) -> i64 {
        answer.partial_success.map_or(0, |partial| partial.rejected_spans)
    }
}

impl Export for ExportMetricsServiceRequest {
    type Answer = ExportMetricsServiceResponse;
    const METHOD: &'static str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

    fn rejected(answer: Self::Answer) -> i64 {
        answer.partial_success.map_or(0, |partial| partial.rejected_data_points)
    }
}

/// The way to a collector.
pub(crate) enum Sender {
    Http { agent: Agent, collector: Collector },
    Grpc { runtime: Runtime, client: Grpc<Channel>, metadata: MetadataMap, timeout: Duration },
}

impl Sender {
    pub(crate) fn new(collector: &Collector) -> Result<Self, StartError> {
        let unreadable = |reason: String| {
            let path = collector.certificate.clone().unwrap_or_default();
            StartError::Certificate(path, reason)
        };
        let trusted = collector.certificate.as_ref().map(fs::read).transpose();
        let trusted = trusted.map_err(|error| unreadable(error.to_string()))?;
        match collector.protocol {
            Protocol::Http => http(collector, trusted.as_deref()).map_err(unreadable),
            Protocol::Grpc => grpc(collector, trusted),
        }
    }

    /// Sends `export`; gives how many spans, or points, of it the collector did not want.
    pub(crate) fn send<E: Export>(&mut self, export: &E) -> Result<u64, SendError> {
        let answer = match self {
            Self::Http { agent, collector } => post(agent, collector, export)?,
            Self::Grpc { runtime, client, metadata, timeout } => {
                let mut request = Request::new(export.clone());
                *request.metadata_mut() = metadata.clone();
                let answer = runtime.block_on(async { tokio::time::timeout(*timeout, call(client, request)).await });
                match answer {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(status)) => return Err(refused(&status)),
                    Err(_) => return Err(late(*timeout)),
                }
            }
        };
        Ok(E::rejected(answer).max(0) as u64)
    }
}

fn http(collector: &Collector, trusted: Option<&[u8]>) -> Result<Sender, String> {
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
        .timeout_global(Some(collector.timeout))
        .max_redirects(0)
        .http_status_as_error(false)
        .user_agent(concat!("caudal/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.build());
    Ok(Sender::Http { agent: Agent::new_with_config(config.build()), collector: collector.clone() })
}

fn post<E: Export>(agent: &Agent, collector: &Collector, export: &E) -> Result<E::Answer, SendError> {
    let mut request = agent.post(&collector.endpoint).header(header::CONTENT_TYPE, "application/x-protobuf");
    for (name, value) in &collector.headers {
        request = request.header(name, value);
    }
    let mut body = export.encode_to_vec();
    if collector.encoding == Encoding::Gzip {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&body).expect("writing to memory does not fail");
        body = packed.finish().expect("writing to memory does not fail");
        request = request.header(header::CONTENT_ENCODING, "gzip");
    }
    let mut answer = request.send(&body[..]).map_err(|error| match error {
        ureq::Error::Timeout(_) => late(collector.timeout),
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
    // It has taken it: whatever is wrong with its answer is not worth sending it twice.
    let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().unwrap_or_default();
    Ok(E::Answer::decode(&body[..]).unwrap_or_default())
}

fn grpc(collector: &Collector, trusted: Option<Vec<u8>>) -> Result<Sender, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wrong = |error: tonic::transport::Error| StartError::Endpoint(collector.endpoint.clone(), error.to_string());
    let mut endpoint = Endpoint::from_shared(collector.endpoint.clone())
        .and_then(|endpoint| endpoint.user_agent(concat!("caudal/", env!("CARGO_PKG_VERSION"))))
        .map_err(wrong)?
        .connect_timeout(collector.timeout);
    if collector.endpoint.starts_with("https://") {
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
    let mut client = Grpc::new(channel).accept_compressed(CompressionEncoding::Gzip);
    if collector.encoding == Encoding::Gzip {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    let metadata = MetadataMap::from_headers(collector.headers.clone());
    Ok(Sender::Grpc { runtime, client, metadata, timeout: collector.timeout })
}

async fn call<E: Export>(client: &mut Grpc<Channel>, export: Request<E>) -> Result<E::Answer, Status> {
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let codec = ProstCodec::<E, E::Answer>::new();
    Ok(client.unary(export, PathAndQuery::from_static(E::METHOD), codec).await?.into_inner())
}

fn refused(status: &Status) -> SendError {
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

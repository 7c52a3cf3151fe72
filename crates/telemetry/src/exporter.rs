//! OTLP exporter over HTTP or gRPC, one export at a time.

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

/// Bytes of a response body that are read.
const MAX_RESPONSE_BYTES: u64 = 64 << 10;

/// A failed export.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExportError {
    message: String,
    /// True if a retry may succeed.
    pub(crate) retryable: bool,
    /// Delay before a retry that the collector requested.
    pub(crate) retry_after: Option<Duration>,
}

/// An OTLP export request.
pub(crate) trait ExportRequest: Message + Clone + 'static {
    /// Its response.
    type Response: Message + Default + 'static;
    /// The gRPC method.
    const GRPC_METHOD: &'static str;
    /// Number of rejected spans or points.
    fn rejected_count(response: Self::Response) -> i64;
}

impl ExportRequest for ExportTraceServiceRequest {
    type Response = ExportTraceServiceResponse;
    const GRPC_METHOD: &'static str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

    fn rejected_count(response: Self::Response) -> i64 {
        response.partial_success.map_or(0, |partial| partial.rejected_spans)
    }
}

impl ExportRequest for ExportMetricsServiceRequest {
    type Response = ExportMetricsServiceResponse;
    const GRPC_METHOD: &'static str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

    fn rejected_count(response: Self::Response) -> i64 {
        response.partial_success.map_or(0, |partial| partial.rejected_data_points)
    }
}

/// A connection to a collector.
pub(crate) enum Exporter {
    Http { agent: Agent, collector: Collector },
    Grpc { runtime: Runtime, client: Grpc<Channel>, metadata: MetadataMap, timeout: Duration },
}

impl Exporter {
    pub(crate) fn new(collector: &Collector) -> Result<Self, StartError> {
        let unreadable = |reason: String| {
            let path = collector.certificate.clone().unwrap_or_default();
            StartError::Certificate(path, reason)
        };
        let trusted = collector.certificate.as_ref().map(fs::read).transpose();
        let trusted = trusted.map_err(|error| unreadable(error.to_string()))?;
        match collector.protocol {
            Protocol::Http => http_exporter(collector, trusted.as_deref()).map_err(unreadable),
            Protocol::Grpc => grpc_exporter(collector, trusted),
        }
    }

    /// Sends `export`; returns the number of spans or points that the collector rejected.
    pub(crate) fn export<E: ExportRequest>(&mut self, export: &E) -> Result<u64, ExportError> {
        let response = match self {
            Self::Http { agent, collector } => post_request(agent, collector, export)?,
            Self::Grpc { runtime, client, metadata, timeout } => {
                let mut request = Request::new(export.clone());
                *request.metadata_mut() = metadata.clone();
                let response =
                    runtime.block_on(async { tokio::time::timeout(*timeout, call_unary(client, request)).await });
                match response {
                    Ok(Ok(response)) => response,
                    Ok(Err(status)) => return Err(grpc_error(&status)),
                    Err(_) => return Err(timeout_error(*timeout)),
                }
            }
        };
        Ok(E::rejected_count(response).max(0) as u64)
    }
}

fn http_exporter(collector: &Collector, trusted: Option<&[u8]>) -> Result<Exporter, String> {
    let mut tls = TlsConfig::builder();
    if let Some(pem) = trusted {
        let certificates = parse_pem(pem).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
            Ok(_) => None,
            Err(error) => Some(Err(error.to_string())),
        });
        let certificates: Vec<_> = certificates.collect::<Result<_, _>>()?;
        if certificates.is_empty() {
            return Err("it has no PEM certificate".to_owned());
        }
        tls = tls.root_certs(RootCerts::Specific(Arc::new(certificates)));
    }
    let config = Agent::config_builder()
        .timeout_global(Some(collector.timeout))
        .max_redirects(0)
        .http_status_as_error(false)
        .user_agent(concat!("caudal/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.build());
    Ok(Exporter::Http { agent: Agent::new_with_config(config.build()), collector: collector.clone() })
}

fn post_request<E: ExportRequest>(
    agent: &Agent,
    collector: &Collector,
    export: &E,
) -> Result<E::Response, ExportError> {
    let mut request = agent.post(&collector.endpoint).header(header::CONTENT_TYPE, "application/x-protobuf");
    for (name, value) in &collector.headers {
        request = request.header(name, value);
    }
    let mut body = export.encode_to_vec();
    if collector.encoding == Encoding::Gzip {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&body).expect("writing to memory does not fail");
        body = encoder.finish().expect("writing to memory does not fail");
        request = request.header(header::CONTENT_ENCODING, "gzip");
    }
    let mut response = request.send(&body[..]).map_err(|error| match error {
        ureq::Error::Timeout(_) => timeout_error(collector.timeout),
        error => ExportError { message: error.to_string(), retryable: true, retry_after: None },
    })?;
    let status = response.status();
    if !status.is_success() {
        let wait = response.headers().get(header::RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse().ok());
        let retryable = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ]
        .contains(&status);
        return Err(ExportError {
            message: format!("collector responded with {status}"),
            retryable,
            retry_after: wait.map(Duration::from_secs),
        });
    }
    // The export was accepted: an invalid response is no reason to send it twice.
    let body = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_vec().unwrap_or_default();
    Ok(E::Response::decode(&body[..]).unwrap_or_default())
}

fn grpc_exporter(collector: &Collector, trusted: Option<Vec<u8>>) -> Result<Exporter, StartError> {
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
    Ok(Exporter::Grpc { runtime, client, metadata, timeout: collector.timeout })
}

async fn call_unary<E: ExportRequest>(client: &mut Grpc<Channel>, export: Request<E>) -> Result<E::Response, Status> {
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let codec = ProstCodec::<E, E::Response>::new();
    Ok(client.unary(export, PathAndQuery::from_static(E::GRPC_METHOD), codec).await?.into_inner())
}

fn grpc_error(status: &Status) -> ExportError {
    let retryable = [
        Code::Cancelled,
        Code::DeadlineExceeded,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unavailable,
        Code::DataLoss,
        // A connection that failed during the call.
        Code::Unknown,
    ]
    .contains(&status.code());
    ExportError { message: format!("{}: {}", status.code(), status.message()), retryable, retry_after: None }
}

fn timeout_error(timeout: Duration) -> ExportError {
    ExportError {
        message: format!("no response within {} ms", timeout.as_millis()),
        retryable: true,
        retry_after: None,
    }
}

//! A collector as OpenTelemetry describes it: it takes spans and metrics by HTTP or by gRPC, and can
//! misbehave.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use caudal_testkit::http::PATIENCE;
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::Metric,
    trace::v1::Span,
};
use prost::Message;
use rustls::{
    ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tonic::{
    Request, Response, Status,
    codec::CompressionEncoding,
    metadata::MetadataMap,
    transport::{Identity, ServerTlsConfig, server::TcpIncoming},
};

/// What it does with what it is told; `Picky` only with spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Takes them.
    Takes,
    /// Answers 400: there is no use in trying again.
    Refuses,
    /// Answers 503: it may go better the next time.
    Busy,
    /// Takes all but one.
    Picky,
    /// Reads them and never answers.
    Silent,
}

/// Values by their names.
type Texts = BTreeMap<String, String>;

/// What came, each time with its headers.
type Exports<T> = Mutex<Vec<(Texts, T)>>;

pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    told: Arc<Told>,
    secured: bool,
    _runtime: Option<tokio::runtime::Runtime>,
}

struct Told {
    exports: Exports<ExportTraceServiceRequest>,
    metrics: Exports<ExportMetricsServiceRequest>,
    manner: Mutex<Manner>,
    /// Exports of spans that it was asked to take.
    asked: AtomicUsize,
}

impl Told {
    fn new(manner: Manner) -> Arc<Self> {
        let (exports, metrics) = (Mutex::default(), Mutex::default());
        Arc::new(Self { exports, metrics, manner: Mutex::new(manner), asked: AtomicUsize::new(0) })
    }
}

/// A certificate for this machine that nobody trusts, and its key, in PEM.
pub(crate) struct Certificate {
    pub(crate) pem: String,
    key: String,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        Self { pem: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    fn server(&self) -> Arc<rustls::ServerConfig> {
        let chain = vec![CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Arc::new(config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap())
    }
}

impl Collector {
    /// One that takes Protobuf by HTTP.
    pub(crate) fn http(manner: Manner) -> Self {
        Self::http_with(manner, None)
    }

    /// The same by HTTPS, where there is a certificate.
    pub(crate) fn http_with(manner: Manner, certificate: Option<&Certificate>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, told) = (listener.local_addr().unwrap(), Told::new(manner));
        let (own, tls) = (Arc::clone(&told), certificate.map(Certificate::server));
        thread::spawn(move || {
            for stream in listener.incoming().map(Result::unwrap) {
                let (told, tls) = (Arc::clone(&own), tls.clone());
                thread::spawn(move || match tls {
                    None => serve(stream, &told),
                    Some(tls) => serve(StreamOwned::new(ServerConnection::new(tls).unwrap(), stream), &told),
                });
            }
        });
        Self { address, told, secured: certificate.is_some(), _runtime: None }
    }

    /// One that takes gRPC, secured where there is a certificate.
    pub(crate) fn grpc(certificate: Option<&Certificate>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let told = Told::new(Manner::Takes);
        let traces = TraceServiceServer::new(Grpc(Arc::clone(&told)))
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip);
        let metrics = MetricsServiceServer::new(Grpc(Arc::clone(&told))).accept_compressed(CompressionEncoding::Gzip);
        let mut server = tonic::transport::Server::builder();
        if let Some(Certificate { pem, key }) = certificate {
            let identity = Identity::from_pem(pem, key);
            server = server.tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
        }
        let address = runtime.block_on(async {
            let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let address = incoming.local_addr().unwrap();
            tokio::spawn(server.add_service(traces).add_service(metrics).serve_with_incoming(incoming));
            address
        });
        Self { address, told, secured: certificate.is_some(), _runtime: Some(runtime) }
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.told.manner.lock().unwrap() = manner;
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("{}://{}", if self.secured { "https" } else { "http" }, self.address)
    }

    /// Headers of the first export of spans.
    pub(crate) fn headers(&self) -> Texts {
        self.told.exports.lock().unwrap()[0].0.clone()
    }

    /// What the first export of spans says of the server.
    pub(crate) fn resource(&self) -> Texts {
        let exports = self.told.exports.lock().unwrap();
        said(&exports[0].1.resource_spans[0].resource.as_ref().unwrap().attributes)
    }

    /// All spans that have come.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let exports = self.told.exports.lock().unwrap();
        let of = |export: &ExportTraceServiceRequest| {
            export.resource_spans.iter().flat_map(|of| &of.scope_spans).flat_map(|of| of.spans.clone()).collect()
        };
        exports.iter().flat_map(|(_, export)| -> Vec<Span> { of(export) }).collect()
    }

    /// The spans around all requests that have come.
    pub(crate) fn requests(&self) -> Vec<Span> {
        self.spans().into_iter().filter(|span| text(span, "request_id").is_some()).collect()
    }

    /// The span around the request `id`, and those within; waits for it.
    pub(crate) fn request(&self, id: &str) -> (Span, Vec<Span>) {
        wait_for(|| {
            let spans = self.spans();
            let around = spans.iter().find(|span| text(span, "request_id").as_deref() == Some(id))?.clone();
            let within = spans.into_iter().filter(|span| span.parent_span_id == around.span_id).collect();
            Some((around, within))
        })
    }

    /// Headers of the last export of metrics, what it says of the server, and the metrics; none if none came.
    pub(crate) fn metrics(&self) -> Option<(Texts, Texts, Vec<Metric>)> {
        let exports = self.told.metrics.lock().unwrap();
        let (headers, export) = exports.last()?;
        let of = &export.resource_metrics[0];
        let metrics = of.scope_metrics.iter().flat_map(|of| of.metrics.clone()).collect();
        Some((headers.clone(), said(&of.resource.as_ref().unwrap().attributes), metrics))
    }

    /// Waits until it was asked to take so many exports.
    pub(crate) fn wait_for_asked(&self, count: usize) {
        wait_for(|| (self.told.asked.load(SeqCst) >= count).then_some(()));
    }
}

/// Waits until there is something to be had.
pub(crate) fn wait_for<T>(mut find: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < end, "it never came");
        thread::sleep(Duration::from_millis(5));
    }
}

fn serve(stream: impl Read + Write, told: &Told) {
    let mut reader = BufReader::new(stream);
    while talk(&mut reader, told).is_some() {}
}

/// One request of HTTP/1.1; none when there are no more.
fn talk<S: Read + Write>(reader: &mut BufReader<S>, told: &Told) -> Option<()> {
    let mut line = || -> Option<String> {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        Some(line.trim_end().to_owned())
    };
    let mut headers = BTreeMap::from([("request".to_owned(), line()?)]);
    while let Some((name, value)) = line()?.split_once(':') {
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    if headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut unpacked).unwrap();
        body = unpacked;
    }
    let of_metrics = headers["request"].contains("/v1/metrics ");
    let manner = *told.manner.lock().unwrap();
    let mut answer = ExportTraceServiceResponse::default();
    let status = match manner {
        Manner::Takes => "200 OK",
        Manner::Refuses => "400 Bad Request",
        Manner::Busy => "503 Service Unavailable",
        Manner::Picky if of_metrics => "200 OK",
        Manner::Picky => {
            let error_message = "one is enough".to_owned();
            answer.partial_success = Some(ExportTracePartialSuccess { rejected_spans: 1, error_message });
            "200 OK"
        }
        Manner::Silent => "",
    };
    match (status, of_metrics) {
        ("200 OK", false) => told.exports.lock().unwrap().push((headers, Message::decode(&body[..]).unwrap())),
        ("200 OK", true) => told.metrics.lock().unwrap().push((headers, Message::decode(&body[..]).unwrap())),
        _ => {}
    }
    told.asked.fetch_add(usize::from(!of_metrics), SeqCst);
    if manner == Manner::Silent {
        // Until the other side has had enough.
        let _ = reader.read(&mut [0]);
        return None;
    }
    let answer = answer.encode_to_vec();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        answer.len()
    );
    let stream = reader.get_mut();
    stream.write_all(&[head.as_bytes(), &answer].concat()).ok()?;
    stream.flush().ok()
}

struct Grpc(Arc<Told>);

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, export) = request.into_parts();
        self.0.exports.lock().unwrap().push((headers(metadata), export));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Grpc {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let (metadata, _, export) = request.into_parts();
        self.0.metrics.lock().unwrap().push((headers(metadata), export));
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn headers(metadata: MetadataMap) -> Texts {
    let headers = metadata.into_headers();
    headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
}

/// Attributes as text.
pub(crate) fn said(attributes: &[KeyValue]) -> Texts {
    let value = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    };
    attributes.iter().filter_map(|attribute| Some((attribute.key.clone(), value(attribute)?))).collect()
}

/// What `span` says of itself by the name `key`.
pub(crate) fn text(span: &Span, key: &str) -> Option<String> {
    said(&span.attributes).remove(key)
}

//! Creates requests for recorded arrivals: one for all arrivals with the same route, model and approximate size.

use std::collections::HashMap;

use bytes::Bytes;

use crate::{
    Arrival, ArrivalTrace, BodyCounts, Inputs, LoadError, Request, Target, bodies,
    client::Client,
    generator::REQUEST_TIMEOUT,
    inputs::{nearest_in_size, with_model},
    request::percent_encode,
    synthetic_jpeg::synthetic_jpeg,
};

/// Total bytes of all synthetic bodies.
const MAX_SYNTHETIC_BYTES: usize = 512 << 20;
/// Bytes of one synthetic body: the default limit of a server.
const MAX_BODY_BYTES: u64 = 50 << 20;
/// Size of a body if none was recorded.
const DEFAULT_BODY_BYTES: u64 = 64 << 10;

/// The kind of body that a route accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyKind {
    Image,
    Form,
    NamedForm,
    Tensors,
    Texts,
}

fn body_kind(route: &str) -> Option<BodyKind> {
    match route {
        "POST /predict/{model}" => Some(BodyKind::Image),
        "POST /predict_batch/{model}" => Some(BodyKind::Form),
        "POST /api/v1/inference/image" => Some(BodyKind::NamedForm),
        "POST /v2/models/{model}/infer" => Some(BodyKind::Tensors),
        "POST /v1/embeddings" => Some(BodyKind::Texts),
        _ => None,
    }
}

/// Creates requests, each once.
pub(crate) struct RequestFactory<'a> {
    client: Client,
    inputs: &'a Inputs,
    /// Median recorded body size of each route, for arrivals without one.
    median_sizes: HashMap<String, u64>,
    /// Number of each request by route, model and size.
    numbers: HashMap<(String, Option<String>, u64), Result<usize, String>>,
    requests: Vec<Request>,
    /// Body source by request number: an input file, a synthetic body, or none.
    given: Vec<Option<bool>>,
    /// Zero tensors by model, fetched once.
    zeros: HashMap<String, Result<Bytes, String>>,
    images: HashMap<usize, Bytes>,
    made: usize,
    bodies: BodyCounts,
}

impl<'a> RequestFactory<'a> {
    pub(crate) fn new(target: &Target, inputs: &'a Inputs, trace: &ArrivalTrace) -> Self {
        Self {
            client: Client::new(target.clone(), REQUEST_TIMEOUT),
            inputs,
            median_sizes: median_sizes(trace),
            numbers: HashMap::new(),
            requests: Vec::new(),
            given: Vec::new(),
            zeros: HashMap::new(),
            images: HashMap::new(),
            made: 0,
            bodies: BodyCounts::default(),
        }
    }

    /// The number of the request for `arrival`, or the reason why it has none.
    pub(crate) async fn request_number(&mut self, arrival: &Arrival) -> Result<Result<usize, String>, LoadError> {
        let kind = body_kind(&arrival.route);
        let size = arrival
            .received_bytes
            .or_else(|| self.median_sizes.get(&arrival.route).copied())
            .unwrap_or(DEFAULT_BODY_BYTES);
        let size = round_size(size.min(MAX_BODY_BYTES));
        let key = (arrival.route.clone(), arrival.model.clone(), if kind.is_some() { size } else { 0 });
        let number = match self.numbers.get(&key) {
            Some(number) => number.clone(),
            None => {
                let made = self.build_request(kind, arrival, size as usize).await?;
                let number = made.map(|(request, given)| {
                    self.requests.push(request);
                    self.given.push(given);
                    self.requests.len() - 1
                });
                self.numbers.insert(key, number.clone());
                number
            }
        };
        if let Ok(number) = number {
            match self.given[number] {
                Some(true) => self.bodies.given += 1,
                Some(false) => self.bodies.made += 1,
                None => self.bodies.none += 1,
            }
        }
        Ok(number)
    }

    /// The requests in the order of their numbers, and the sources of their bodies.
    pub(crate) fn into_requests(self) -> (Vec<Request>, BodyCounts) {
        (self.requests, self.bodies)
    }

    /// A request, and whether its body is an input file.
    async fn build_request(
        &mut self,
        kind: Option<BodyKind>,
        arrival: &Arrival,
        size: usize,
    ) -> Result<Result<(Request, Option<bool>), String>, LoadError> {
        let Some(kind) = kind else {
            return Ok(get_request(arrival).map(|request| (request, None)));
        };
        let Some(model) = arrival.model.as_deref() else {
            return Ok(Err("no model was recorded".to_owned()));
        };
        Ok(match kind {
            BodyKind::Image => {
                let (bytes, given) = self.image_bytes(size)?;
                Ok((Request::image_request(model, bytes), Some(given)))
            }
            BodyKind::Form | BodyKind::NamedForm => {
                let (image, given) = self.image_bytes(size.saturating_sub(bodies::form_overhead_bytes()))?;
                let mut request = form_request(kind, model, &image);
                request.body = self.count_synthetic(request.body)?;
                Ok((request, Some(given)))
            }
            BodyKind::Tensors => match nearest_in_size(self.inputs.tensor_bodies().cloned(), size as u64) {
                Some(body) => Ok((Request::tensor_request(model, body), Some(true))),
                None => self.zero_tensors(model).await?.map(|body| (Request::tensor_request(model, body), Some(false))),
            },
            BodyKind::Texts => {
                match nearest_in_size(self.inputs.text_bodies().map(|fields| with_model(fields, model)), size as u64) {
                    Some(body) => Ok((Request::embedding_request(body), Some(true))),
                    None => Ok((
                        Request::embedding_request(self.count_synthetic(bodies::embedding_request(model, size))?),
                        Some(false),
                    )),
                }
            }
        })
    }

    /// An image, and whether it is an input file.
    fn image_bytes(&mut self, size: usize) -> Result<(Bytes, bool), LoadError> {
        if let Some(given) = nearest_in_size(self.inputs.image_bodies().cloned(), size as u64) {
            return Ok((given, true));
        }
        if let Some(made) = self.images.get(&size) {
            return Ok((made.clone(), false));
        }
        let made = self.count_synthetic(synthetic_jpeg(size)?)?;
        self.images.insert(size, made.clone());
        Ok((made, false))
    }

    async fn zero_tensors(&mut self, model: &str) -> Result<Result<Bytes, String>, LoadError> {
        if let Some(known) = self.zeros.get(model) {
            return Ok(known.clone());
        }
        let (status, metadata) = self.client.fetch_path(&format!("/v2/models/{}", percent_encode(model))).await?;
        let body = match status {
            200 => bodies::zero_tensors(&metadata),
            _ => Err(format!("the input shapes of model {model:?} are unknown: the server responded with {status}")),
        };
        let body = match body {
            Ok(body) => Ok(self.count_synthetic(body)?),
            Err(reason) => Err(reason),
        };
        self.zeros.insert(model.to_owned(), body.clone());
        Ok(body)
    }

    /// Counts `body` against the limit on synthetic bodies.
    fn count_synthetic(&mut self, body: Bytes) -> Result<Bytes, LoadError> {
        self.made += body.len();
        match self.made <= MAX_SYNTHETIC_BYTES {
            true => Ok(body),
            false => {
                let (given, bounds) =
                    (format!("{} MiB", self.made >> 20), format!("at most {} MiB", MAX_SYNTHETIC_BYTES >> 20));
                Err(LoadError::out_of_bounds(
                    "the total size of synthetic bodies",
                    given,
                    format!("{bounds}: provide input files with --input"),
                ))
            }
        }
    }
}

fn form_request(kind: BodyKind, model: &str, image: &[u8]) -> Request {
    let (content_type, body) = bodies::multipart_form(image);
    let model = percent_encode(model);
    let path = match kind {
        BodyKind::NamedForm => format!("/api/v1/inference/image?model={model}"),
        _ => format!("/predict_batch/{model}"),
    };
    Request::post(path, content_type, body)
}

/// The request for a GET route, unless it is an admin route.
fn get_request(arrival: &Arrival) -> Result<Request, String> {
    let Some(path) = arrival.route.strip_prefix("GET ") else {
        return Err("the route changes the server, or is unknown".to_owned());
    };
    if ["/admin/", "/debug/"].iter().any(|prefix| path.starts_with(prefix)) {
        return Err("admin routes are not replayed".to_owned());
    }
    let path = match arrival.model.as_deref() {
        Some(model) => path.replace("{model}", &percent_encode(model)),
        None => path.to_owned(),
    };
    match path.starts_with('/') && !path.contains('{') {
        true => Ok(Request::get(path)),
        false => Err("no model was recorded".to_owned()),
    }
}

/// Keeps two significant digits, so that bodies of similar size share a request.
fn round_size(size: u64) -> u64 {
    let step = 10u64.pow((size.max(1).ilog10()).saturating_sub(1));
    size / step * step
}

fn median_sizes(trace: &ArrivalTrace) -> HashMap<String, u64> {
    let mut sizes: HashMap<String, Vec<u64>> = HashMap::new();
    for arrival in trace.arrivals() {
        if let Some(size) = arrival.received_bytes {
            sizes.entry(arrival.route.clone()).or_default().push(size);
        }
    }
    let median = |mut sizes: Vec<u64>| {
        sizes.sort_unstable();
        sizes[sizes.len() / 2]
    };
    sizes.into_iter().map(|(route, sizes)| (route, median(sizes))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_size_keeps_two_digits() {
        for (size, kept) in [(0, 0), (7, 7), (99, 99), (123, 120), (76_473, 76_000), (1_999_999, 1_900_000)] {
            assert_eq!(round_size(size), kept);
        }
    }

    fn check(route: &str, model: Option<&str>) -> Result<String, String> {
        let model = model.map(str::to_owned);
        let arrival =
            Arrival { at_ms: 0.0, route: route.to_owned(), model, received_bytes: None, status: 200, total_ms: 1.0 };
        get_request(&arrival).map(|request| request.path)
    }

    #[test]
    fn get_request_excludes_admin_and_changing_routes() {
        assert_eq!(check("GET /v1/models", None).unwrap(), "/v1/models");
        assert_eq!(check("GET /v2/models/{model}", Some("a b")).unwrap(), "/v2/models/a%20b");
        assert!(check("GET /v2/models/{model}", None).unwrap_err().contains("no model"));
        assert!(check("GET /admin/requests", None).unwrap_err().contains("admin"));
        assert!(check("POST /v2/repository/models/{model}/load", Some("m")).unwrap_err().contains("changes"));
        assert!(check("PATCH /admin/models/{model}", Some("m")).unwrap_err().contains("changes"));
    }
}

//! Makes requests for what was recorded: one for all arrivals of a route and a model that are of about one size.

use std::collections::HashMap;

use bytes::Bytes;

use crate::{
    Arrival, Bodies, Inputs, LoadError, Request, Target, Trace, bodies,
    client::Client,
    generator::TIMEOUT,
    inputs::{nearest, with_model},
    picture,
    request::segment,
};

/// Bytes of all bodies made up.
const MOST_MADE: usize = 512 << 20;
/// Bytes of one body made up: what a server takes unless it is told otherwise.
const LARGEST: u64 = 50 << 20;
/// The size of a body where none was recorded.
const UNKNOWN: u64 = 64 << 10;

/// What a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Picture,
    Form,
    NamedForm,
    Tensors,
    Texts,
}

fn takes(route: &str) -> Option<Takes> {
    match route {
        "POST /predict/{model}" => Some(Takes::Picture),
        "POST /predict_batch/{model}" => Some(Takes::Form),
        "POST /api/v1/inference/image" => Some(Takes::NamedForm),
        "POST /v2/models/{model}/infer" => Some(Takes::Tensors),
        "POST /v1/embeddings" => Some(Takes::Texts),
        _ => None,
    }
}

/// Makes requests, each once.
pub(crate) struct Maker<'a> {
    client: Client,
    inputs: &'a Inputs,
    /// The size of a body of a route where none was recorded: the middle one of those that were.
    usual: HashMap<String, u64>,
    /// Requests by what makes them differ: route, model, size.
    known: HashMap<(String, Option<String>, u64), Result<usize, String>>,
    requests: Vec<Request>,
    /// Which requests carry files that were given.
    given: Vec<Option<bool>>,
    /// What models take, once asked for.
    zeros: HashMap<String, Result<Bytes, String>>,
    pictures: HashMap<usize, Bytes>,
    made: usize,
    bodies: Bodies,
}

impl<'a> Maker<'a> {
    pub(crate) fn new(target: &Target, inputs: &'a Inputs, trace: &Trace) -> Self {
        Self {
            client: Client::new(target.clone(), TIMEOUT),
            inputs,
            usual: usual_sizes(trace),
            known: HashMap::new(),
            requests: Vec::new(),
            given: Vec::new(),
            zeros: HashMap::new(),
            pictures: HashMap::new(),
            made: 0,
            bodies: Bodies::default(),
        }
    }

    /// The number of the request for `arrival`, or why it has none.
    pub(crate) async fn request(&mut self, arrival: &Arrival) -> Result<Result<usize, String>, LoadError> {
        let kind = takes(&arrival.route);
        let size = arrival.received_bytes.or_else(|| self.usual.get(&arrival.route).copied()).unwrap_or(UNKNOWN);
        let size = rounded(size.min(LARGEST));
        let key = (arrival.route.clone(), arrival.model.clone(), if kind.is_some() { size } else { 0 });
        let number = match self.known.get(&key) {
            Some(number) => number.clone(),
            None => {
                let made = self.make(kind, arrival, size as usize).await?;
                let number = made.map(|(request, given)| {
                    self.requests.push(request);
                    self.given.push(given);
                    self.requests.len() - 1
                });
                self.known.insert(key, number.clone());
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

    /// The requests in the order of their numbers, and where the bodies come from.
    pub(crate) fn finish(self) -> (Vec<Request>, Bodies) {
        (self.requests, self.bodies)
    }

    /// A request, and whether its body is a file that was given.
    async fn make(
        &mut self,
        kind: Option<Takes>,
        arrival: &Arrival,
        size: usize,
    ) -> Result<Result<(Request, Option<bool>), String>, LoadError> {
        let Some(kind) = kind else {
            return Ok(question(arrival).map(|request| (request, None)));
        };
        let Some(model) = arrival.model.as_deref() else {
            return Ok(Err("no model was recorded".to_owned()));
        };
        Ok(match kind {
            Takes::Picture => {
                let (bytes, given) = self.picture(size)?;
                Ok((Request::picture(model, bytes), Some(given)))
            }
            Takes::Form | Takes::NamedForm => {
                let (picture, given) = self.picture(size.saturating_sub(bodies::form_bytes()))?;
                let mut request = in_form(kind, model, &picture);
                request.body = self.count(request.body)?;
                Ok((request, Some(given)))
            }
            Takes::Tensors => match nearest(self.inputs.tensors().cloned(), size as u64) {
                Some(body) => Ok((Request::tensors(model, body), Some(true))),
                None => self.zeros(model).await?.map(|body| (Request::tensors(model, body), Some(false))),
            },
            Takes::Texts => match nearest(self.inputs.texts().map(|asked| with_model(asked, model)), size as u64) {
                Some(body) => Ok((Request::texts(body), Some(true))),
                None => Ok((Request::texts(self.count(bodies::texts(model, size))?), Some(false))),
            },
        })
    }

    /// A picture, and whether it was given.
    fn picture(&mut self, size: usize) -> Result<(Bytes, bool), LoadError> {
        if let Some(given) = nearest(self.inputs.pictures().cloned(), size as u64) {
            return Ok((given, true));
        }
        if let Some(made) = self.pictures.get(&size) {
            return Ok((made.clone(), false));
        }
        let made = self.count(picture::jpeg(size)?)?;
        self.pictures.insert(size, made.clone());
        Ok((made, false))
    }

    async fn zeros(&mut self, model: &str) -> Result<Result<Bytes, String>, LoadError> {
        if let Some(known) = self.zeros.get(model) {
            return Ok(known.clone());
        }
        let (status, metadata) = self.client.ask(&format!("/v2/models/{}", segment(model))).await?;
        let body = match status {
            200 => bodies::zeros(&metadata),
            _ => Err(format!("what the model {model:?} takes is not known: the server answered {status}")),
        };
        let body = match body {
            Ok(body) => Ok(self.count(body)?),
            Err(reason) => Err(reason),
        };
        self.zeros.insert(model.to_owned(), body.clone());
        Ok(body)
    }

    /// All that is made up has a bound.
    fn count(&mut self, body: Bytes) -> Result<Bytes, LoadError> {
        self.made += body.len();
        match self.made <= MOST_MADE {
            true => Ok(body),
            false => {
                let (given, bounds) = (format!("{} MiB", self.made >> 20), format!("at most {} MiB", MOST_MADE >> 20));
                Err(LoadError::bounds(
                    "the size of all bodies made up",
                    given,
                    format!("{bounds}: give some by --input"),
                ))
            }
        }
    }
}

fn in_form(kind: Takes, model: &str, picture: &[u8]) -> Request {
    let (content_type, body) = bodies::form(picture);
    let model = segment(model);
    let path = match kind {
        Takes::NamedForm => format!("/api/v1/inference/image?model={model}"),
        _ => format!("/predict_batch/{model}"),
    };
    Request::post(path, content_type, body)
}

/// The request for a route that takes no body, unless it is one for the server's owner.
fn question(arrival: &Arrival) -> Result<Request, String> {
    let Some(path) = arrival.route.strip_prefix("GET ") else {
        return Err("it changes the server, or is not known".to_owned());
    };
    if ["/admin/", "/debug/"].iter().any(|prefix| path.starts_with(prefix)) {
        return Err("it is for the server's owner".to_owned());
    }
    let path = match arrival.model.as_deref() {
        Some(model) => path.replace("{model}", &segment(model)),
        None => path.to_owned(),
    };
    match path.starts_with('/') && !path.contains('{') {
        true => Ok(Request::get(path)),
        false => Err("no model was recorded".to_owned()),
    }
}

/// Two digits are kept: bodies that differ by less are one.
fn rounded(size: u64) -> u64 {
    let step = 10u64.pow((size.max(1).ilog10()).saturating_sub(1));
    size / step * step
}

fn usual_sizes(trace: &Trace) -> HashMap<String, u64> {
    let mut sizes: HashMap<String, Vec<u64>> = HashMap::new();
    for arrival in trace.arrivals() {
        if let Some(size) = arrival.received_bytes {
            sizes.entry(arrival.route.clone()).or_default().push(size);
        }
    }
    let middle = |mut sizes: Vec<u64>| {
        sizes.sort_unstable();
        sizes[sizes.len() / 2]
    };
    sizes.into_iter().map(|(route, sizes)| (route, middle(sizes))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_two_digits() {
        for (size, kept) in [(0, 0), (7, 7), (99, 99), (123, 120), (76_473, 76_000), (1_999_999, 1_900_000)] {
            assert_eq!(rounded(size), kept);
        }
    }

    fn check(route: &str, model: Option<&str>) -> Result<String, String> {
        let model = model.map(str::to_owned);
        let arrival =
            Arrival { at_ms: 0.0, route: route.to_owned(), model, received_bytes: None, status: 200, total_ms: 1.0 };
        question(&arrival).map(|request| request.path)
    }

    #[test]
    fn questions_are_asked_again_but_none_of_the_owners() {
        assert_eq!(check("GET /v1/models", None).unwrap(), "/v1/models");
        assert_eq!(check("GET /v2/models/{model}", Some("a b")).unwrap(), "/v2/models/a%20b");
        assert!(check("GET /v2/models/{model}", None).unwrap_err().contains("no model"));
        assert!(check("GET /admin/requests", None).unwrap_err().contains("owner"));
        assert!(check("POST /v2/repository/models/{model}/load", Some("m")).unwrap_err().contains("changes"));
        assert!(check("PATCH /admin/models/{model}", Some("m")).unwrap_err().contains("changes"));
    }
}

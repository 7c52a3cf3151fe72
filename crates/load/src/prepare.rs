//! From what came once to what is sent again: each arrival gets a request, or a reason why it has none.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use crate::{
    Arrival, Bodies, Control, Inputs, Limits, LoadError, OpenLoop, Recorded, Report, Request, Schedule, Skipped,
    Target, Trace, bodies,
    client::Client,
    generator::TIMEOUT,
    inputs::{nearest, with_model},
    open_loop, picture,
    report::Kind,
    request::segment,
    times::Times,
};

/// Bytes of all bodies made up.
const MOST_MADE: usize = 512 << 20;
/// Bytes of one body made up: what a server takes unless it is told otherwise.
const LARGEST: u64 = 50 << 20;
/// The size of a body where none was recorded.
const UNKNOWN: u64 = 64 << 10;
/// Speeds that make sense.
const SPEEDS: std::ops::RangeInclusive<f64> = 0.001..=1000.0;

/// A trace that is ready to be sent.
#[derive(Debug)]
pub struct Replay {
    target: Target,
    requests: Arc<[Request]>,
    schedule: Schedule,
    recorded: Recorded,
    skipped: Vec<Skipped>,
    bodies: Bodies,
    warning: Option<String>,
}

/// Makes what is sent for each arrival of `trace`, `speed` times as fast: bodies are the files of `inputs` that are nearest
/// in size, and made up where there is none. Tensors made up need the model's shape, which `target` is asked for.
pub async fn prepare(trace: &Trace, target: Target, inputs: &Inputs, speed: f64) -> Result<Replay, LoadError> {
    if !SPEEDS.contains(&speed) {
        let bounds = format!("between {} and {}", SPEEDS.start(), SPEEDS.end());
        return Err(LoadError::bounds("the speed", speed, bounds));
    }
    let mut kitchen = Kitchen::new(&target, inputs, trace);
    let (mut schedule, mut times, mut statuses) = (Vec::new(), Times::default(), BTreeMap::new());
    let mut skipped: BTreeMap<(String, String), u64> = BTreeMap::new();
    let (mut first, mut last) = (None, 0.0);
    for arrival in trace.arrivals() {
        let number = match kitchen.request(arrival).await? {
            Ok(number) => number,
            Err(reason) => {
                *skipped.entry((arrival.route.clone(), reason)).or_default() += 1;
                continue;
            }
        };
        let began = *first.get_or_insert(arrival.at_ms);
        last = arrival.at_ms - began;
        schedule.push((Duration::from_secs_f64(last / 1e3 / speed), number));
        *statuses.entry(arrival.status).or_default() += 1;
        if arrival.status < 400 {
            times.record_ms(arrival.total_ms);
        }
    }
    let name = |((route, reason), requests)| Skipped { route, reason, requests };
    let skipped: Vec<Skipped> = skipped.into_iter().map(name).collect();
    if schedule.is_empty() {
        let reason = skipped.first().map(|skipped| format!("{}: {}", skipped.route, skipped.reason));
        return Err(LoadError::NothingToSend(reason.unwrap_or_default()));
    }
    let recorded = Recorded { statuses, total_ms: times.summary(), length_s: last / 1e3, speed };
    let Kitchen { requests, bodies, .. } = kitchen;
    let (requests, schedule, warning) = (requests.into(), Schedule::At(schedule), warning(trace));
    Ok(Replay { target, requests, schedule, recorded, skipped, bodies, warning })
}

impl Replay {
    /// How many requests will be sent.
    pub fn requests(&self) -> u64 {
        self.schedule.requests()
    }

    /// How long that takes.
    pub fn duration(&self) -> Duration {
        self.schedule.duration()
    }

    /// Sends it, as [`open_loop`] does.
    pub async fn run(self, limits: Limits, control: Control) -> Result<Report, LoadError> {
        let (target, requests, schedule) = (self.target, self.requests, self.schedule);
        let config = OpenLoop { target, requests, schedule, warm_up: Duration::ZERO, limits };
        let mut report = open_loop(config, control).await?;
        report.kind = Kind::Replay;
        report.recorded = Some(self.recorded);
        report.skipped = self.skipped;
        report.bodies = Some(self.bodies);
        report.warnings.extend(self.warning);
        Ok(report)
    }
}

fn warning(trace: &Trace) -> Option<String> {
    let (route, began) = trace.forgotten()?;
    let left = (trace.length() - began).as_secs_f64();
    Some(format!(
        "{route} begins {:.1} s after the others: the server has probably forgotten what came before; only the last \
         {left:.1} s of the trace are the whole load",
        began.as_secs_f64()
    ))
}

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

/// Where requests are made, each kind once.
struct Kitchen<'a> {
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

impl<'a> Kitchen<'a> {
    fn new(target: &Target, inputs: &'a Inputs, trace: &Trace) -> Self {
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
    async fn request(&mut self, arrival: &Arrival) -> Result<Result<usize, String>, LoadError> {
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

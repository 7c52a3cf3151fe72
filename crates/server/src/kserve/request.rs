//! Reads an inference request.

use std::{borrow::Cow, time::Duration};

use caudal_tasks::{InputTensor, ServedModel, TaskError};
use caudal_types::{DType, ErrorKind, Priority, shorten};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    members, numbers,
    parameters::{self, Parameters},
};
use crate::{
    docs::schemas,
    json::{null_is_absent, without_bom},
    problem::Problem,
};

/// More than any model's input has.
const MAX_DIMENSIONS: usize = 16;

/// What a request asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) id: Option<String>,
    /// The model and the version that the body names.
    pub(crate) model: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) priority: Option<Priority>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) inputs: Vec<InputTensor>,
    /// The names of the outputs that are wanted; all when empty.
    pub(crate) wanted: Vec<String>,
}

/// An inference request. Whatever may be left out may be `null` as well.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InferRequest<'a> {
    /// Comes back in the answer.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>)]
    id: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "null_is_absent")]
    #[schema(value_type = RequestParameters)]
    parameters: Parameters,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    /// The outputs that are wanted; all when absent.
    #[serde(borrow, default, deserialize_with = "null_is_absent")]
    outputs: Vec<Output<'a>>,
    /// The model of the path, as KServe's client names it.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>)]
    model_name: Option<Cow<'a, str>>,
    /// The version that serves.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>)]
    model_version: Option<Cow<'a, str>>,
}

/// What a request asks of the queue.
#[derive(utoipa::ToSchema)]
#[schema(as = InferParameters)]
#[expect(dead_code, reason = "describes the parameters, which `Asked` reads")]
pub(crate) struct RequestParameters {
    /// 1 is the highest; 0 is the default.
    priority: Option<u64>,
    /// Microseconds until the answer is worth nothing.
    timeout: Option<u64>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = InferInput)]
#[serde(deny_unknown_fields)]
struct Input<'a> {
    #[serde(borrow)]
    #[schema(value_type = String)]
    name: Cow<'a, str>,
    /// Dimensions, outermost first.
    shape: Vec<usize>,
    /// FP32, INT64 and so on.
    #[serde(borrow)]
    #[schema(value_type = schemas::Datatype, example = "FP32")]
    datatype: Cow<'a, str>,
    #[serde(default, deserialize_with = "null_is_absent")]
    #[schema(value_type = Option<schemas::Members>)]
    parameters: Parameters,
    /// Elements, row-major, nested or flat. NaN and the infinities are the texts `"NaN"`, `"Infinity"` and `"-Infinity"`.
    #[serde(borrow, default)]
    #[schema(value_type = Vec<schemas::Element>)]
    data: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = InferRequestedOutput)]
#[serde(deny_unknown_fields)]
struct Output<'a> {
    #[serde(borrow)]
    #[schema(value_type = String)]
    name: Cow<'a, str>,
    #[serde(default, deserialize_with = "null_is_absent")]
    #[schema(value_type = Option<schemas::Members>)]
    parameters: Parameters,
}

impl Asked {
    /// Reads the JSON of a request for `model`; what the model does not take is refused before its elements are read.
    pub(crate) fn read(body: &[u8], model: &ServedModel) -> Result<Self, Problem> {
        if body.is_empty() {
            return Err(Problem::new(ErrorKind::EmptyBody, "the body is empty", "send an inference request as JSON"));
        }
        let body = without_bom(body);
        match serde_json::from_slice::<InferRequest<'_>>(body) {
            Ok(request) => Self::of(request, model),
            // Python's json writes NaN and Infinity bare. They are looked for only here: other requests pay nothing for it.
            Err(error) => match numbers::quote_not_finite(body) {
                Some(quoted) => Self::of(serde_json::from_slice(&quoted).map_err(|_| refused(&quoted, &error))?, model),
                None => Err(refused(body, &error)),
            },
        }
    }

    fn of(request: InferRequest<'_>, model: &ServedModel) -> Result<Self, Problem> {
        let asked = parameters::of_request(&request.parameters)?;
        for output in &request.outputs {
            parameters::check_output(&output.name, &output.parameters)?;
        }
        let named = |name: Option<Cow<'_, str>>| name.filter(|name| !name.is_empty()).map(Cow::into_owned);
        Ok(Self {
            id: request.id.map(Cow::into_owned),
            model: named(request.model_name),
            version: named(request.model_version),
            priority: asked.priority.map(Priority::from_level),
            timeout: asked.timeout.filter(|timeout| *timeout > 0).map(Duration::from_micros),
            inputs: request.inputs.into_iter().map(|input| input.tensor(model)).collect::<Result<_, _>>()?,
            wanted: request.outputs.into_iter().map(|output| output.name.into_owned()).collect(),
        })
    }
}

/// Why `body`, of which `error` was said, is not read.
fn refused(body: &[u8], error: &serde_json::Error) -> Problem {
    members::unknown_in_inference(body).unwrap_or_else(|| {
        Problem::new(
            ErrorKind::InvalidRequest,
            format!("the body is not an inference request: {error}"),
            "send {\"inputs\": [{\"name\", \"shape\", \"datatype\", \"data\"}]}",
        )
    })
}

impl Input<'_> {
    fn tensor(self, model: &ServedModel) -> Result<InputTensor, Problem> {
        let invalid = |words: String| {
            let message = format!("input {:?}: {words}", shorten(&self.name));
            Problem::new(ErrorKind::InvalidTensor, message, "GET /v2/models/{model} tells names, datatypes and shapes")
        };
        parameters::check_input(&self.name, &self.parameters)?;
        if self.shape.len() > MAX_DIMENSIONS {
            return Err(invalid(format!("it has {} dimensions", self.shape.len())));
        }
        let dtype: DType =
            self.datatype.parse().map_err(|error| invalid(format!("{error}, not {:?}", shorten(&self.datatype))))?;
        let expected = model.expect(&self.name, dtype, &self.shape).map_err(TaskError::from)?;
        let data = self.data.ok_or_else(|| invalid("data is missing".to_owned()))?;
        let bytes = numbers::read(data.get(), dtype, expected).map_err(|error| invalid(error.to_string()))?;
        Ok(InputTensor { name: self.name.into_owned(), dtype, shape: self.shape, bytes })
    }
}

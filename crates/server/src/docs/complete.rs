//! Completes the document that the handlers' attributes make: what holds for all operations is said here once. Every
//! response has a description, every operation its errors in the form that its path really answers, administration its
//! key.

use serde_json::{Value, json};
use utoipa::openapi::{
    Content, OpenApi, PathItem, Ref, RefOr, Response,
    example::{Example, ExampleBuilder},
    path::Operation,
    schema::{Schema, SchemaType, Type},
    security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};

use super::errors::{self, Sample};
use crate::router::Answers;

/// The name of the security scheme.
const ADMIN_KEY: &str = "admin_key";

/// How errors are written below a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `{"error": {code, message, hint, …}}`.
    Own,
    /// `{"error": "code: message; hint"}`.
    Kserve,
}

impl Form {
    fn of(path: &str) -> Self {
        if path.starts_with("/v2") { Self::Kserve } else { Self::Own }
    }

    fn schema(self) -> RefOr<Schema> {
        RefOr::Ref(Ref::from_schema_name(match self {
            Self::Own => "Error",
            Self::Kserve => "KserveError",
        }))
    }

    fn example(self, sample: &Sample) -> Value {
        let Sample { code, message, hint, .. } = sample;
        match self {
            Self::Own => json!({"error": {
                "code": code, "message": message, "hint": hint, "request_id": "5f1c2a9be07d4c33",
            }}),
            Self::Kserve => json!({"error": format!("{code}: {message}; {hint}")}),
        }
    }
}

/// Adds what holds for all operations.
pub(super) fn complete(api: &mut OpenApi) {
    let components = api.components.get_or_insert_default();
    let mut bearer = Http::new(HttpAuthScheme::Bearer);
    bearer.description =
        Some("The server's `admin_key`, or the token that a server without one writes to a file.".to_owned());
    components.security_schemes.insert(ADMIN_KEY.to_owned(), RefOr::T(SecurityScheme::Http(bearer)));
    for (path, item) in &mut api.paths.paths {
        operations(item).for_each(|operation| complete_operation(path, operation));
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, post, put, patch, delete, .. } = item;
    [get, post, put, patch, delete].into_iter().flatten()
}

fn complete_operation(path: &str, operation: &mut Operation) {
    let form = Form::of(path);
    let tag = operation.tags.iter().flatten().next().cloned().unwrap_or_default();
    let responses = &mut operation.responses.responses;
    if !answers_always(path) {
        for range in ["4XX", "5XX"] {
            responses.entry(range.to_owned()).or_insert_with(|| RefOr::T(failure(form)));
        }
    }
    if needs_admin(path) {
        for status in ["401", "403"] {
            responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(failure(form)));
        }
        operation.security = Some(vec![SecurityRequirement::new(ADMIN_KEY, Vec::<String>::new())]);
    }
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter
            && let Some(schema) = &mut parameter.schema
        {
            remove_null(schema);
        }
    }
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response {
            complete_response(form, &tag, status, response);
        }
    }
}

/// A parameter that may be left out is never null: a query and a header have no such value.
fn remove_null(schema: &mut RefOr<Schema>) {
    let is_null = |item: &RefOr<Schema>| match item {
        RefOr::T(Schema::Object(object)) => object.schema_type == SchemaType::Type(Type::Null),
        _ => false,
    };
    match schema {
        RefOr::T(Schema::Object(object)) => {
            if let SchemaType::Array(types) = &mut object.schema_type {
                types.retain(|one| *one != Type::Null);
                if let [only] = &types[..] {
                    object.schema_type = SchemaType::Type(only.clone());
                }
            }
        }
        RefOr::T(Schema::OneOf(one)) => {
            one.items.retain(|item| !is_null(item));
            if let [only] = &one.items[..] {
                *schema = only.clone();
            }
        }
        _ => {}
    }
}

/// Whether a path is answered without any parameter or body that could be wrong, and never refused.
fn answers_always(path: &str) -> bool {
    ["/livez", "/readyz", "/v2/health/live", "/v2/health/ready"].contains(&path)
}

fn needs_admin(path: &str) -> bool {
    !Answers::Public.answers(path)
}

fn failure(form: Form) -> Response {
    let mut response = Response::new("");
    response.content.insert("application/json".to_owned(), RefOr::T(Content::new(Some(form.schema()))));
    response
}

fn complete_response(form: Form, tag: &str, status: &str, response: &mut Response) {
    if response.description.is_empty() {
        response.description = description(status).to_owned();
    }
    if !status.starts_with(['4', '5']) {
        return;
    }
    // A probe says nothing, or how ready it is.
    let Some(RefOr::T(content)) = response.content.get_mut("application/json") else { return };
    if !is_error(content) {
        return;
    }
    content.schema = Some(form.schema());
    content.examples =
        errors::samples(tag, status).map(|sample| (sample.code.to_owned(), example(form, sample))).collect();
}

/// Whether an answer's schema is one of errors, in whichever form.
fn is_error(content: &Content) -> bool {
    [Form::Own, Form::Kserve].iter().any(|form| content.schema == Some(form.schema()))
}

fn example(form: Form, sample: &Sample) -> RefOr<Example> {
    let summary = format!("status {}", sample.status);
    RefOr::T(ExampleBuilder::new().summary(summary).value(Some(form.example(sample))).build())
}

/// The description of a response for which its handler has none.
fn description(status: &str) -> &'static str {
    match status {
        "200" => "success",
        "201" => "created",
        "202" => "accepted: it goes on",
        "400" => "the request is malformed, or a value is not allowed",
        "401" => "the admin key is missing or wrong",
        "403" => "only an administrator may do this",
        "404" => "there is no such thing",
        "409" => "it is not in a state for this",
        "500" => "the server failed",
        "501" => "this server cannot do it",
        "503" => "not ready, overloaded or shutting down",
        _ if status.starts_with('4') => "the request was refused; `error` says why and what to do",
        _ if status.starts_with('5') => "the server failed, is overloaded or is shutting down; `error` says which",
        _ => "the answer",
    }
}

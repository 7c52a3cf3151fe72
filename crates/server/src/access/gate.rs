//! Gate: checks every request before it is routed.

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, Method, header},
    response::Response,
};
use caudal_types::ErrorKind;
use tower::Service;

use super::{admin::is_admin, host::Authority};
use crate::{app::App, http::door, problem::Problem, route::Route, router::Answers};

/// The way to the routes of one socket.
#[derive(Clone)]
pub(crate) struct Gate {
    app: Arc<App>,
    router: Router,
    answers: Answers,
    /// Whether only this machine reaches the socket.
    loopback: bool,
}

impl Gate {
    /// The gate in front of `router`, which holds the routes of `answers`.
    pub(crate) fn new(app: &Arc<App>, router: Router, answers: Answers, loopback: bool) -> Self {
        Self { app: Arc::clone(app), router, answers, loopback }
    }

    /// Checks `request` and answers it.
    pub(crate) async fn call(mut self, request: Request) -> Response {
        match self.check(&request) {
            Ok(()) => match self.router.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
            Err(problem) => self.refuse(&request, problem),
        }
    }

    fn check(&self, request: &Request) -> Result<(), Problem> {
        let settings = self.app.settings();
        let access = &settings.access;
        let authority = Authority::of(request)?;
        access.hosts.check(authority.as_ref(), self.loopback)?;
        access.origins.check(request, authority.as_ref())?;
        check_type(request)?;
        // Where these routes have a socket of their own, the others know nothing of them.
        match self.answers.administers() && is_admin(request.uri().path()) {
            true => access.admin.check(request.headers()),
            false => Ok(()),
        }
    }

    fn refuse(&self, request: &Request, problem: Problem) -> Response {
        let unauthorized = problem.kind == ErrorKind::Unauthorized;
        let route = Route::find(request.method().as_str(), request.uri().path());
        let mut response = door::refuse_at(&self.app, route, request.headers(), request.uri(), problem);
        if unauthorized && is_shown(request) {
            // A browser asks for the key.
            let basic =
                HeaderValue::from_static("Basic realm=\"Caudal admin: the password is the admin key or token\"");
            response.headers_mut().append(header::WWW_AUTHENTICATE, basic);
        }
        response
    }
}

/// Refuses bodies of plain text, which no route reads: it is the type under which pages may send JSON to other sites.
fn check_type(request: &Request) -> Result<(), Problem> {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let is_text = |value: &HeaderValue| {
        let kind = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"text/plain")
    };
    match changes && request.headers().get_all(header::CONTENT_TYPE).iter().any(is_text) {
        true => Err(Problem::new(
            ErrorKind::UnsupportedMediaType,
            "no route reads a body of type text/plain",
            "send JSON as application/json; GET /docs lists what each route reads",
        )),
        false => Ok(()),
    }
}

/// Whether a browser wants to show the answer.
fn is_shown(request: &Request) -> bool {
    let accepts = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    request.method() == Method::GET && accepts.is_some_and(|accepts| accepts.contains("text/html"))
}

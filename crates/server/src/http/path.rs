//! The parameters in a path. What cannot be read passes the door like everything else.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts, response::Response};
use caudal_types::ErrorKind;
use serde::de::DeserializeOwned;

use super::door;
use crate::{app::App, problem::Problem};

/// The parameters of a route's path.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<App>> for Path<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let path = axum::extract::Path::from_request_parts(parts, app).await;
        path.map(|path| Self(path.0)).map_err(|rejection| {
            let message = format!("the path cannot be read: {}", rejection.body_text());
            let problem = Problem::new(ErrorKind::InvalidRequest, message, "GET /docs lists all paths");
            door::refuse(app, &parts.headers, &parts.uri, problem)
        })
    }
}

//! Admin credential: which routes need it, and how a request shows it.

use std::{borrow::Cow, fmt};

use axum::http::{HeaderMap, header};
use base64::{Engine, prelude::BASE64_STANDARD};
use caudal_types::ErrorKind;
use subtle::ConstantTimeEq;

use crate::problem::Problem;

/// Paths below which every route needs the admin credential.
const ADMIN: [&str; 4] = ["/admin", "/debug", "/v2/repository", "/api/audit"];

/// Whether `path` belongs to a group of admin routes, be there a route or not.
pub(crate) fn is_admin(path: &str) -> bool {
    ADMIN.iter().any(|group| path.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// A secret: compared in constant time, never shown.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// The secret `text`.
    pub fn new(text: &str) -> Self {
        Self(text.as_bytes().into())
    }

    fn equals(&self, given: &[u8]) -> bool {
        self.0.ct_eq(given).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What admin routes ask for.
#[derive(Debug, Clone)]
pub enum AdminAccess {
    /// Nothing opens them: there is no credential.
    Closed,
    /// This key or token.
    Credential(Secret),
    /// Nothing: they are open to every caller.
    Insecure,
}

impl AdminAccess {
    /// Checks that `headers` carry the credential: `Authorization: Bearer`, the password of `Authorization: Basic`, or
    /// `X-Admin-Key`.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let given = given(headers);
        let words = match (self, &given) {
            (Self::Insecure, _) => return Ok(()),
            (Self::Credential(secret), Some(given)) if secret.equals(given) => return Ok(()),
            (_, None) => "this route needs the admin credential: expected Authorization: Bearer, got none",
            (_, Some(_)) => "this route needs the admin credential: the one that was sent is wrong",
        };
        Err(Problem::new(
            ErrorKind::Unauthorized,
            words,
            "send the server's admin_key, or the token of its admin token file where no key is set; see docs/deploy.md",
        ))
    }
}

/// The credential that a request carries, if any.
fn given(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let value = value.as_bytes();
        let (scheme, rest) = value.split_at(value.iter().position(|byte| *byte == b' ')?);
        let rest = rest.trim_ascii();
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return Some(rest.into());
        }
        if scheme.eq_ignore_ascii_case(b"basic") {
            let pair = BASE64_STANDARD.decode(rest).ok()?;
            let colon = pair.iter().position(|byte| *byte == b':')?;
            return Some(pair[colon + 1..].to_vec().into());
        }
    }
    headers.get("x-admin-key").map(|value| value.as_bytes().trim_ascii().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn opens(name: &'static str, value: &str) -> bool {
        let headers = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())]);
        AdminAccess::Credential(Secret::new("secret")).check(&headers).is_ok()
    }

    #[test]
    fn credential_right_opens_in_each_form() {
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        for value in ["Bearer secret", "bearer  secret", &basic("admin:secret"), &basic(":secret")] {
            assert!(opens("authorization", value), "{value}");
        }
        assert!(opens("x-admin-key", "secret"));
        for value in ["Bearer secre", "Bearer secrets", "secret", "Bearer ", "Bearer", "Basic secret", "Basic !", ""] {
            assert!(!opens("authorization", value), "{value}");
        }
        for pair in ["secret:", "secret", "admin:Secret", "admin:secret:"] {
            assert!(!opens("authorization", &basic(pair)), "{pair}");
        }
        assert!(!opens("x-admin-key", "") && !opens("x-admin-key", "guess"));
    }

    #[test]
    fn credential_missing_on_server_opens_nothing() {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Bearer "))]);
        assert!(AdminAccess::Closed.check(&headers).is_err());
        assert!(AdminAccess::Closed.check(&HeaderMap::new()).is_err());
        assert!(AdminAccess::Insecure.check(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn admin_paths_are_whole_groups() {
        for path in ["/admin", "/admin/x", "/debug/pprof/heap", "/v2/repository/index", "/api/audit/logs"] {
            assert!(is_admin(path), "{path}");
        }
        for path in ["/", "/administrator", "/v2/models/admin", "/metrics", "/v2/repositoryx", "/api/v1/runs"] {
            assert!(!is_admin(path), "{path}");
        }
    }

    #[test]
    fn secret_is_not_shown() {
        assert!(!format!("{:?}", AdminAccess::Credential(Secret::new("hunter2"))).contains("hunter2"));
    }
}

//! What every request has to pass, and what every answer says.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::api;

/// Nobody else's page may show ours or read what we say, and nothing is kept.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What a guard needs to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guard {
    /// Only this machine can connect, so that every honest request names it.
    pub(super) loopback: bool,
}

pub(super) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.refuse(&request) {
        Some((status, why)) => api::refusal(status, why),
        None => next.run(request).await,
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response.into_response()
}

impl Guard {
    fn refuse(self, request: &Request) -> Option<(StatusCode, &'static str)> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Some((
                StatusCode::METHOD_NOT_ALLOWED,
                "nothing can be changed over HTTP: use the command line on the PPU",
            ));
        }
        // A page of somebody else's that makes a name of theirs lead here (DNS rebinding) names that name.
        let named = match request.uri().authority() {
            Some(authority) => Some(authority.as_str()),
            None => request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or("?")),
        };
        let several = request.headers().get_all(header::HOST).iter().count() > 1;
        let wrong = several || named.is_none_or(|host| !is_this_machine(host));
        (self.loopback && wrong).then_some((
            StatusCode::MISDIRECTED_REQUEST,
            "call it localhost: this port listens on loopback only, and other names are refused (see interfaces.http)",
        ))
    }
}

/// `localhost`, `127.0.0.1:47197`, `[::1]:47197`.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(v6) => v6.parse().ok().map(IpAddr::V6),
        None => name.parse().ok().map(IpAddr::V4),
    };
    name.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_its_names() {
        for host in [
            "localhost",
            "LocalHost:47197",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:47197",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "",
            ":",
            "?",
            "evil.example",
            "evil.example:47197",
            "localhost.evil.example",
            "localhost@evil.example",
            "evil.example:localhost",
            "localhost:",
            "localhost:80:80",
            "127.0.0.1.evil.example",
            "10.0.0.1:47197",
            "0.0.0.0",
            "::1",
            "[::1",
            "[127.0.0.1]",
            "[::2]",
            "127.1",
            "0x7f.0.0.1",
            "2130706433",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}

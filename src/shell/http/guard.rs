//! Keeps web pages out. A page from anywhere can make a browser on this machine send requests to loopback: as a plain form, or under
//! its own host name after that was rebound to 127.0.0.1. Programs are not hindered.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::problem::Problem;

/// Lets a request through, or answers it with a problem.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    match objection(&request) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

fn objection(request: &Request) -> Option<Problem> {
    let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(host) = text(header::HOST)
        && !is_here(host)
    {
        return Some(Problem::new(
            403,
            format!("The host {host:?} is not this machine; use 127.0.0.1, [::1] or localhost."),
        ));
    }
    if let Some(origin) = text(header::ORIGIN)
        && !origin.strip_prefix("http://").is_some_and(is_here)
    {
        return Some(Problem::new(403, format!("Pages from {origin:?} may not use this interface.")));
    }
    let is_json =
        |kind: &str| kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    let with_body = [Method::POST, Method::PUT].contains(request.method());
    if with_body && !text(header::CONTENT_TYPE).is_some_and(is_json) {
        return Some(Problem::new(415, "The header \"Content-Type: application/json\" is needed."));
    }
    None
}

/// Whether `host`, with or without a port, is a name of this machine that nobody else can claim.
fn is_here(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_here() {
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080", "[::1]"] {
            assert!(is_here(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "192.168.1.2",
            "localhost.evil",
            "[::2]",
        ] {
            assert!(!is_here(host), "{host}");
        }
    }
}

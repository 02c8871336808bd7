//! The dashboard: one page, no outside resources.

use std::sync::LazyLock;

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// Its parts, in the order in which they are read.
const SCRIPT: &str =
    concat!(include_str!("page/format.js"), include_str!("page/chart.js"), include_str!("page/page.js"));

/// With its style and its script inside.
pub(super) async fn page() -> Response {
    static PAGE: LazyLock<String> =
        LazyLock::new(|| HTML.replace("/*STYLE*/", STYLE).replace("/*SCRIPT*/", SCRIPT));
    static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| HeaderValue::from_str(&policy()).ok());
    let mut response = PAGE.as_str().into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if let Some(policy) = POLICY.clone() {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Only this very script and this very style; talk to nobody but us.
fn policy() -> String {
    let hash = |text: &str| format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)));
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_from_elsewhere() {
        let namespace = "http://www.w3.org/2000/svg";
        for text in [HTML, STYLE, SCRIPT] {
            let text = text.replace(namespace, "");
            for outside in ["http:", "https:", "//cdn", "@import", "url(", "innerHTML", "eval("] {
                assert!(!text.contains(outside), "{outside}");
            }
        }
        assert!(HTML.contains("<style>/*STYLE*/</style>") && HTML.contains("<script>/*SCRIPT*/</script>"));
        assert!(!STYLE.contains("</style") && !SCRIPT.contains("</script"));
    }
}

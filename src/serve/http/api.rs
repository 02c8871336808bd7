//! What is where.

use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use axum::http::{StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::board::{Board, Seen, Silent};
use super::events::{self, Refusal};
use super::guard::{Guard, guard};
use super::{metrics, openapi, page};
use crate::model::attention::Severity;
use crate::model::history::Sample;
use crate::model::message::Code;
use crate::model::status::Told;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// To `/api/v1/history`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct HistoryAnswer<'a> {
    /// About one a second, of the last ten minutes; oldest first.
    samples: Vec<&'a Sample>,
}

/// To `/api/v1/messages`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct MessagesAnswer<'a> {
    /// The highest number so far, of messages of any code.
    last: u64,
    /// Oldest first; at most the last thousand are kept.
    messages: Vec<&'a Told>,
}

/// Where a request under `/api/v1` failed.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ErrorAnswer<'a> {
    /// For people.
    error: &'a str,
}

/// All of it. `loopback`: only this machine can connect.
pub(super) fn router(board: Arc<Board>, loopback: bool) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/api/v1/status", get(status))
        .route("/api/v1/history", get(history))
        .route("/api/v1/messages", get(messages))
        .route("/api/v1/events", get(events))
        .route("/api/v1/openapi.json", get(description))
        .fallback(nothing)
        .layer(from_fn_with_state(Guard { loopback }, guard))
        .with_state(board)
}

/// Why not, as text.
pub(super) fn refusal(status: StatusCode, why: &str) -> Response {
    answer(status, TEXT, format!("{why}\n"))
}

async fn metrics(State(board): State<Arc<Board>>) -> Result<Response, Trouble> {
    let seen = board.look().await.map_err(Trouble::text)?;
    match metrics::render(seen.observation) {
        Ok(text) => Ok(answer(StatusCode::OK, metrics::CONTENT_TYPE, text)),
        Err(error) => Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())),
    }
}

async fn healthz(State(board): State<Arc<Board>>) -> Result<Response, Trouble> {
    let seen = board.look().await.map_err(Trouble::text)?;
    let problems = &seen.observation.report.problems;
    let is_error = problems.iter().any(|problem| problem.severity == Severity::Error);
    let lines = problems.iter().map(|problem| match problem.severity {
        Severity::Error => format!("ERROR {}\n", problem.text),
        Severity::Warning => format!("WARNING {}\n", problem.text),
        Severity::Advice => format!("ADVICE {}\n", problem.text),
    });
    let lines: String = lines.collect();
    Ok(match is_error {
        true => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines),
        false => answer(StatusCode::OK, TEXT, format!("ok\n{lines}")),
    })
}

async fn status(State(board): State<Arc<Board>>) -> Result<Response, Trouble> {
    Ok(json(&look(&board).await?.observation.report))
}

async fn history(State(board): State<Arc<Board>>) -> Result<Response, Trouble> {
    let seen = look(&board).await?;
    Ok(json(&HistoryAnswer { samples: seen.observation.samples.iter().map(|sample| &**sample).collect() }))
}

/// What to select.
#[derive(Debug, Deserialize)]
struct Wish {
    #[serde(default)]
    since: u64,
    /// With commas between.
    #[serde(default)]
    code: String,
}

async fn messages(
    State(board): State<Arc<Board>>,
    wish: Result<Query<Wish>, QueryRejection>,
) -> Result<Response, Trouble> {
    let Query(wish) = wish.map_err(|error| Trouble::wrong(error.body_text()))?;
    let codes = wish.code.split(',').filter(|code| !code.is_empty()).map(Code::from_str);
    let codes: Vec<Code> = codes.collect::<Result<_, _>>().map_err(Trouble::wrong)?;
    let seen = look(&board).await?;
    let wanted =
        |told: &&Told| told.number > wish.since && (codes.is_empty() || codes.contains(&told.message.code));
    Ok(json(&MessagesAnswer {
        last: seen.messages.back().map_or(0, |told| told.number),
        messages: seen.messages.iter().filter(wanted).collect(),
    }))
}

async fn events(State(board): State<Arc<Board>>, headers: HeaderMap) -> Result<Response, Trouble> {
    events::stream(&board, &headers).await.map_err(|refusal| match refusal {
        Refusal::Silent => Trouble::silent(true),
        Refusal::Full => Trouble {
            status: StatusCode::SERVICE_UNAVAILABLE,
            why: "too many watch already: try again".to_owned(),
            json: true,
        },
    })
}

async fn description() -> Response {
    json(openapi::description())
}

async fn nothing(uri: Uri) -> Trouble {
    let why =
        "there is nothing here; there are /, /metrics, /healthz and what /api/v1/openapi.json describes";
    let json = uri.path().starts_with("/api/");
    Trouble { status: StatusCode::NOT_FOUND, why: why.to_owned(), json }
}

async fn look(board: &Board) -> Result<Seen, Trouble> {
    board.look().await.map_err(|Silent| Trouble::silent(true))
}

/// Why there is no answer.
struct Trouble {
    status: StatusCode,
    why: String,
    json: bool,
}

impl Trouble {
    fn text(_: Silent) -> Self {
        Self::silent(false)
    }

    fn silent(json: bool) -> Self {
        let why = "the daemon is too busy to answer, or hangs: see its log".to_owned();
        Self { status: StatusCode::SERVICE_UNAVAILABLE, why, json }
    }

    fn wrong(why: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, why: why.into(), json: true }
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let Self { status, why, json } = self;
        let mut response = match serde_json::to_string(&ErrorAnswer { error: &why }) {
            Ok(text) if json => answer(status, JSON, text),
            _ => refusal(status, &why),
        };
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

fn json(content: &impl Serialize) -> Response {
    match serde_json::to_string(content) {
        Ok(text) => answer(StatusCode::OK, JSON, text),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

pub(super) fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response {
    (status, [(CONTENT_TYPE, content_type)], body).into_response()
}

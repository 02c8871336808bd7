//! The dashboard, metrics and a JSON API over HTTP: to look at the daemon, not to steer it.
//!
//! | path | what |
//! |---|---|
//! | `/` | the dashboard |
//! | `/metrics` | for Prometheus |
//! | `/healthz` | `ok`, or what is wrong, with status 503 |
//! | `/api/v1/status`, `history`, `messages` | JSON |
//! | `/api/v1/events` | what changes, as server-sent events |
//! | `/api/v1/openapi.json` | a description of all of it |
//!
//! However many clients there are, the ledger is asked once a second at most, and not at all while nobody is there.

mod api;
mod board;
mod events;
mod guard;
mod metrics;
mod openapi;
mod page;
mod server;
#[cfg(test)]
mod testing;

pub use board::Observe;
pub use server::{HttpError, HttpServer};

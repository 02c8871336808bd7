//! A description of the API: schemas from the very types that are sent, words from their documentation.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::api::{ErrorAnswer, HistoryAnswer, MessagesAnswer};
use crate::model::status::StatusReport;

/// OpenAPI 3.1.
pub(super) fn description() -> &'static Value {
    static DESCRIPTION: LazyLock<Value> = LazyLock::new(describe);
    &DESCRIPTION
}

fn describe() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let settings = settings.with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let status = schemas.subschema_for::<StatusReport>();
    let history = schemas.subschema_for::<HistoryAnswer<'_>>();
    let messages = schemas.subschema_for::<MessagesAnswer<'_>>();
    let error = schemas.subschema_for::<ErrorAnswer<'_>>();
    let responses = |what: &str, content: Value| {
        let failure = |what: &str| json!({ "description": what, "content": { "application/json": { "schema": error } } });
        json!({
            "200": { "description": what, "content": content },
            "400": failure("A parameter cannot be understood"),
            "503": failure("The daemon does not answer at the moment, or too many clients watch"),
        })
    };
    let json_answer = |schema: &schemars::Schema| json!({ "application/json": { "schema": schema } });
    let text = json!({ "text/plain": { "schema": { "type": "string" } } });
    let query = |name: &str, what: &str, schema: Value| json!({ "name": name, "in": "query", "required": false, "description": what, "schema": schema });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ppu-uringd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "How a PPU is: detectors, storages, shifts, messages. Read-only. Keys are added within v1, never changed: \
                            ignore those that you do not know. Times are milliseconds since the epoch on the PPU's clock.",
        },
        "paths": {
            "/api/v1/status": { "get": {
                "operationId": "status",
                "summary": "How everything is: the same as `ppu-uringd status --json`; at most a second old",
                "responses": responses("The report", json_answer(&status)),
            } },
            "/api/v1/history": { "get": {
                "operationId": "history",
                "summary": "How everything was in the last ten minutes, second by second",
                "responses": responses("The samples", json_answer(&history)),
            } },
            "/api/v1/messages": { "get": {
                "operationId": "messages",
                "summary": "The messages that the daemon keeps",
                "parameters": [
                    query("since", "Only messages with a higher number", json!({ "type": "integer", "minimum": 0 })),
                    query("code", "Only messages of this code; several with commas between", json!({ "type": "string", "examples": ["COPY_ERROR,DATA_LOST"] })),
                ],
                "responses": responses("The messages", json_answer(&messages)),
            } },
            "/api/v1/events": { "get": {
                "operationId": "events",
                "summary": "What changes, as server-sent events",
                "description": "`status` every second: the report without its messages. `sample` for each new one of the history (at the \
                                beginning the last ten). `message` for each new one (at the beginning the last hundred, or those after the \
                                Last-Event-ID). Who does not take them for ten seconds is dropped.",
                "parameters": [{ "name": "Last-Event-ID", "in": "header", "required": false,
                    "description": "Number of the last message that was received", "schema": { "type": "integer", "minimum": 0 } }],
                "responses": responses("The events", json!({ "text/event-stream": { "schema": { "type": "string" } } })),
            } },
            "/api/v1/openapi.json": { "get": {
                "operationId": "description",
                "summary": "This description",
                "responses": { "200": { "description": "OpenAPI 3.1", "content": { "application/json": { "schema": { "type": "object" } } } } },
            } },
            "/metrics": { "get": {
                "operationId": "metrics",
                "summary": "For Prometheus",
                "responses": { "200": { "description": "Prometheus' text form, version 0.0.4", "content": text },
                               "503": { "description": "The daemon does not answer at the moment", "content": text } },
            } },
            "/healthz": { "get": {
                "operationId": "healthz",
                "summary": "Whether anything is wrong; a restart cures none of it",
                "responses": { "200": { "description": "`ok`, then warnings, if any", "content": text },
                               "503": { "description": "What is wrong and what to do, one line each", "content": text } },
            } },
        },
        "components": { "schemas": schemas.take_definitions(true) },
    })
}

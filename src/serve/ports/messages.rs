//! The message port (SPEC 5.2): subscribers hear every message, or every event, as it happens.

use std::future::Future;

use serde::Deserialize;
use tokio::sync::oneshot;

use super::{Client, Line, Over, Port, append_item};
use crate::model::event::EventKind;
use crate::model::status::Told;
use crate::serve::events::{Events, NoEvents};
use crate::serve::feed::Reader;

const EXAMPLE: &str = r#"{"v":1,"want":"messages","codes":"all","since":0}"#;
/// Written at a time.
const PAGE: usize = 100;

/// What can be subscribed to.
#[derive(Debug, Clone)]
pub struct Subjects {
    /// What people are told.
    pub messages: Reader<Told>,
    /// What happens to files.
    pub events: Events,
    /// The daemon's release.
    pub software: &'static str,
}

/// Serves `port` until `stop`. When what is subscribed to ends, subscribers have heard its last.
pub fn serve(port: Port, subjects: Subjects, stop: oneshot::Receiver<()>) -> impl Future<Output = ()> {
    let converse = move |client: Client| {
        let subjects = subjects.clone();
        // However it ends: nobody is interested.
        async move { drop(converse(client, subjects).await) }
    };
    port.serve(converse, stop)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(rename = "v")]
    _version: u32,
    #[serde(default)]
    want: Want,
    codes: Option<Codes>,
    since: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Want {
    #[default]
    Messages,
    Visible,
    Stored,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Codes {
    #[default]
    All,
    /// The predecessor's six.
    Old,
}

async fn converse(mut client: Client, subjects: Subjects) -> Result<(), Over> {
    let request: Request = client.request(EXAMPLE).await?;
    let kind = match request.want {
        Want::Messages => {
            let codes = request.codes.unwrap_or_default();
            return tell_messages(client, subjects, codes, request.since).await;
        }
        Want::Visible => EventKind::Visible,
        Want::Stored => EventKind::Stored,
    };
    if request.codes.is_some() {
        return Err(client.fail("codes are those of messages: events have none".to_owned()).await);
    }
    tell_events(client, subjects, kind, request.since).await
}

async fn tell_messages(
    mut client: Client,
    subjects: Subjects,
    codes: Codes,
    since: Option<u64>,
) -> Result<(), Over> {
    let Subjects { mut messages, software, .. } = subjects;
    let last = messages.last();
    client.say_line(&Line::Subscribed { last, software: software.to_owned() }).await?;
    let mut since = since.unwrap_or(last);
    loop {
        let page = messages.after(since, PAGE);
        let mut lines = Vec::new();
        if let Some(gap) = page.gap {
            Line::Gap(gap).append_to(&mut lines);
            since = gap.before.saturating_sub(1);
        }
        for (number, told) in page.items {
            since = number;
            if let Some(told) = for_client(told, codes) {
                Line::Message(told).append_to(&mut lines);
            }
        }
        if !lines.is_empty() {
            client.say(&lines).await?;
        }
        let news = tokio::select! {
            biased;
            news = messages.news(since) => news,
            () = client.interruption() => false,
        };
        if !news {
            return Err(Over);
        }
    }
}

/// `None`: it is not for this one.
fn for_client(told: Told, codes: Codes) -> Option<Told> {
    match codes {
        Codes::All => Some(told),
        Codes::Old => Some(Told { message: told.message.for_old_clients()?, ..told }),
    }
}

async fn tell_events(
    mut client: Client,
    subjects: Subjects,
    kind: EventKind,
    since: Option<u64>,
) -> Result<(), Over> {
    let Subjects { mut events, software, .. } = subjects;
    let last = events.last(kind);
    client.say_line(&Line::Subscribed { last, software: software.to_owned() }).await?;
    let mut since = since.unwrap_or(last);
    loop {
        let items = tokio::select! {
            biased;
            items = events.after(kind, &mut since, PAGE) => items,
            () = client.interruption() => return Err(Over),
        };
        let mut lines = Vec::new();
        match items {
            Ok(items) => items.iter().for_each(|item| append_item(item, &mut lines)),
            Err(NoEvents::End) => return Err(Over),
            Err(NoEvents::Trouble(why)) => return Err(client.fail(format!("{why}; then ask again")).await),
        }
        client.say(&lines).await?;
    }
}

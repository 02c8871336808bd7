//! The message port (SPEC 5.2): subscribers hear every message, or every event, as it happens.

use std::future::Future;

use serde::Deserialize;
use tokio::sync::oneshot;

use super::{Client, Line, Over, Port, append_item};
use crate::model::event::{EventKind, Filter};
use crate::model::shift::ShiftId;
use crate::model::status::Told;
use crate::serve::events::{Events, Item, NoEvents};
use crate::serve::feed::Reader;

const EXAMPLE: &str = r#"{"v":1,"want":"messages","codes":"all","since":0}"#;
/// Written at a time.
const PAGE: usize = 100;
/// Of events that a client has not selected, so many go by before it hears how far they are.
const PASSED_MAX: usize = 1000;

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
    // However a conversation ends: nobody is interested.
    port.serve(subjects, |client, subjects| async { drop(converse(client, subjects).await) }, stop)
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
    detector: Option<String>,
    shift_ms: Option<ShiftId>,
    storage: Option<String>,
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
    let Request { want, codes, since, detector, shift_ms: shift, storage, .. } =
        client.request(EXAMPLE).await?;
    let filter = Filter { detector, shift, storage };
    let wrong = match want {
        Want::Messages if filter != Filter::default() => {
            Some("detector, shift_ms and storage select events: messages have none".to_owned())
        }
        Want::Visible | Want::Stored if codes.is_some() => {
            Some("codes are those of messages: events have none".to_owned())
        }
        Want::Visible if filter.storage.is_some() => {
            Some("storage selects what is stored: an image that becomes visible is on none".to_owned())
        }
        _ => subjects.events.check(&filter).err(),
    };
    if let Some(wrong) = wrong {
        return Err(client.fail(wrong).await);
    }
    match want {
        Want::Messages => tell_messages(client, subjects, codes.unwrap_or_default(), since).await,
        Want::Visible => tell_events(client, subjects, EventKind::Visible, &filter, since).await,
        Want::Stored => tell_events(client, subjects, EventKind::Stored, &filter, since).await,
    }
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
    filter: &Filter,
    since: Option<u64>,
) -> Result<(), Over> {
    let Subjects { mut events, software, .. } = subjects;
    let last = events.last(kind);
    client.say_line(&Line::Subscribed { last, software: software.to_owned() }).await?;
    let mut since = since.unwrap_or(last);
    let mut passed = 0;
    loop {
        let items = tokio::select! {
            biased;
            items = events.after(kind, &mut since, PAGE) => items,
            () = client.interruption() => return Err(Over),
        };
        let items = match items {
            Ok(items) => items,
            Err(NoEvents::End) => return Err(Over),
            Err(NoEvents::Trouble(why)) => return Err(client.fail(format!("{why}; then ask again")).await),
        };
        let mut lines = Vec::new();
        for item in &items {
            match item {
                Item::Event(event) if !filter.takes(event) => passed += 1,
                item => {
                    append_item(item, &mut lines);
                    passed = 0;
                }
            }
        }
        if passed >= PASSED_MAX {
            Line::Passed { number: since }.append_to(&mut lines);
            passed = 0;
        }
        client.say(&lines).await?;
    }
}

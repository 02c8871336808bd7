//! The message port (SPEC 5.2): subscribers hear every message as it happens.

use std::future::Future;

use serde::Deserialize;
use tokio::sync::oneshot;

use super::{Client, Line, Over, Port};
use crate::model::status::Told;
use crate::serve::feed::Reader;

const EXAMPLE: &str = r#"{"v":1,"want":"messages","codes":"all","since":0}"#;
/// Taken from the feed at a time.
const PAGE: usize = 100;

/// Serves `port` until `stop`; `software` is the daemon's release. When the feed ends, subscribers have heard its last.
pub fn serve(
    port: Port,
    messages: Reader<Told>,
    software: &'static str,
    stop: oneshot::Receiver<()>,
) -> impl Future<Output = ()> {
    let converse = move |mut client: Client| {
        let messages = messages.clone();
        // However it ends: nobody is interested.
        async move { drop(converse(&mut client, messages, software).await) }
    };
    port.serve(converse, stop)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(rename = "v")]
    _version: u32,
    #[serde(rename = "want", default)]
    _want: Want,
    #[serde(default)]
    codes: Codes,
    since: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Want {
    #[default]
    Messages,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Codes {
    #[default]
    All,
    /// The predecessor's six.
    Old,
}

async fn converse(
    client: &mut Client,
    mut messages: Reader<Told>,
    software: &'static str,
) -> Result<(), Over> {
    let request: Request = client.request(EXAMPLE).await?;
    let last = messages.last();
    client.say_line(&Line::Subscribed { last, software: software.to_owned() }).await?;
    let mut since = request.since.unwrap_or(last);
    loop {
        let page = messages.after(since, PAGE);
        let mut lines = Vec::new();
        if let Some(gap) = page.gap {
            Line::Gap(gap).append_to(&mut lines);
            since = gap.before - 1;
        }
        for (number, told) in page.items {
            since = number;
            if let Some(told) = for_client(told, request.codes) {
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

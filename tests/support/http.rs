//! A client of the dashboard that says exactly what a test wants to be said.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Status line and headers, in lower case.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// As a browser asks.
pub fn get(port: u16, path: &str) -> Answer {
    say(port, format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"))
        .unwrap_or_else(|| panic!("{path} is not answered"))
}

/// Says it, and hears until the other side hangs up. `None` where it does so without a word.
pub fn say(port: u16, words: impl AsRef<[u8]>) -> Option<Answer> {
    let mut stream = connect(port);
    // It may have heard enough before the end.
    let _ = stream.write_all(words.as_ref());
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    parse(&String::from_utf8_lossy(&bytes))
}

pub fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let head = head.to_lowercase();
    let body = match head.contains("transfer-encoding: chunked") {
        true => unchunk(body),
        false => body.to_owned(),
    };
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some(Answer { status, head, body })
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole += &rest[..size.min(rest.len())];
        body = rest.get(size + 2..).unwrap_or("");
    }
    whole
}

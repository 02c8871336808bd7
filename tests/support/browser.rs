//! A headless Chromium, spoken to through a pair of pipes: the DevTools protocol, JSON with a NUL at its end.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use super::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

/// One window. Killed when dropped.
pub struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    session: Option<String>,
    last: u64,
    /// What the page, or the browser about it, complained of.
    pub complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// With a window of that size.
    pub fn start(width: u32, height: u32) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let (to, from) = (profile.path().join("to"), profile.path().join("from"));
        for pipe in [&to, &from] {
            mkfifo(pipe, Mode::S_IRWXU).unwrap();
        }
        // It reads from descriptor 3 and writes to descriptor 4.
        let child = Command::new("sh")
            .args(["-c", "to=$1; from=$2; shift 2; exec chromium \"$@\" 3<\"$to\" 4>\"$from\"", "chromium"])
            .args([&to, &from])
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().join("profile").display()))
            .arg("about:blank")
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let to = File::options().write(true).open(to).unwrap();
        let from = hear(File::open(from).unwrap());
        let mut browser =
            Self { child, to, from, session: None, last: 0, complaints: Vec::new(), _profile: profile };
        browser.attach();
        for domain in ["Runtime", "Log", "Page"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        browser.resize(width, height);
        browser
    }

    fn attach(&mut self) {
        let mut target = Value::Null;
        wait_until("the browser has a window", || {
            let targets = self.ask("Target.getTargets", json!({}))["targetInfos"].clone();
            let page = targets.as_array().unwrap().iter().find(|target| target["type"] == "page");
            target = page.map_or(Value::Null, |page| page["targetId"].clone());
            !target.is_null()
        });
        let attached = self.ask("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        self.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
    }

    /// As on a screen of that size.
    pub fn resize(&mut self, width: u32, height: u32) {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.ask("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// `light` or `dark`.
    pub fn scheme(&mut self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.ask("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    pub fn open(&mut self, url: &str) {
        let opened = self.ask("Page.navigate", json!({ "url": url }));
        assert!(opened.get("errorText").is_none(), "{url}: {opened}");
    }

    /// The value of an expression.
    pub fn value(&mut self, expression: &str) -> Value {
        let wish = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let evaluated = self.ask("Runtime.evaluate", wish);
        assert!(evaluated.get("exceptionDetails").is_none(), "{expression}: {evaluated}");
        evaluated["result"].get("value").cloned().unwrap_or(Value::Null)
    }

    /// Of the first element that the selector finds; empty where there is none.
    pub fn text(&mut self, selector: &str) -> String {
        let selector = serde_json::to_string(selector).unwrap();
        let found = self.value(&format!("document.querySelector({selector})?.innerText ?? ''"));
        found.as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn wait_for(&mut self, selector: &str, text: &str) {
        let mut shown = String::new();
        wait_until(&format!("{selector} shows {text:?}"), || {
            shown = self.text(selector);
            shown.contains(text)
        });
    }

    /// Of the whole page, as PNG.
    pub fn screenshot(&mut self, file: &Path) {
        let height = self.value("document.documentElement.scrollHeight").as_f64().unwrap();
        let width = self.value("document.documentElement.clientWidth").as_f64().unwrap();
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let wish = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let taken = self.ask("Page.captureScreenshot", wish);
        let png = BASE64_STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
        std::fs::write(file, png).unwrap();
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.to.write_all(&bytes).unwrap();
        loop {
            let heard = self.from.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{method}: {error}"));
            if heard["id"] == self.last {
                assert!(heard.get("error").is_none(), "{method}: {heard}");
                return heard["result"].clone();
            }
            self.note(&heard);
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        let is_complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => parameters["type"] != "log",
            Some("Log.entryAdded") => parameters["entry"]["level"] != "verbose",
            _ => false,
        };
        if is_complaint {
            self.complaints.push(parameters.to_string());
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Message by message, on a thread, so that a browser that hangs is noticed.
fn hear(from: File) -> Receiver<Value> {
    let (tell, heard) = channel();
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut bytes = Vec::new();
        while let Ok(1..) = from.read_until(0, &mut bytes) {
            bytes.pop();
            let Ok(message) = serde_json::from_slice(&bytes) else { return };
            if tell.send(message).is_err() {
                return;
            }
            bytes.clear();
        }
    });
    heard
}

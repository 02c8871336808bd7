//! The rules that a reader may rely on, checked (ARCHITECTURE.md, "Invariants"). Each rule is shown to be able to fail.
#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helpers")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Who may import whom: a module imports only from lines below its own.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["daemon"],
    &["watch", "send", "land", "store", "serve", "keep", "intake", "simulate", "demo"],
    &["journal", "rooted", "wire", "host", "ppu_config"],
    // Know nothing of anybody.
    &["model", "ppu_uring"],
];

/// Modules without IO, without a clock and without chance, and what would give them one.
const PURE: &[&str] = &["model", "wire"];
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os::fd",
    "std::os::unix::net",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    "TimeZone::system",
    "getrandom",
    "libc",
    "nix",
    "rusqlite",
    "rustix",
    "tempfile",
    "tokio",
    "tokio_uring",
];

/// A longer file holds more than one concept.
const MAX_LINES: usize = 600;

/// Where sources are, below the workspace.
const ROOTS: &[&str] =
    &["src", "tests", "config/src", "config/tests", "uring/src", "uring/tests", "bench/src", "bench/benches"];

/// A rule and what it finds in one file.
type Rule = fn(&Source) -> Vec<String>;

const RULES: &[(&str, Rule)] = &[
    ("imports point down", imports_point_down),
    ("model and wire are pure", pure_is_pure),
    ("unsafe is in uring alone", unsafe_is_in_uring),
    ("files are short", files_are_short),
    ("nothing is unfinished or switched off", nothing_is_unfinished),
    ("tests wait for conditions", tests_do_not_sleep),
];

#[test]
fn the_tree_is_tidy() {
    let sources = tree();
    let mut findings: Vec<String> = RULES
        .iter()
        .flat_map(|(name, rule)| {
            sources.iter().flat_map(move |source| {
                rule(source).into_iter().map(move |found| format!("{found} ({name})"))
            })
        })
        .collect();
    findings.extend(dead_files(&sources));
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn every_rule_can_fail() {
    for (name, path, text, finding) in [
        ("imports point down", "src/model/a.rs", "use crate::wire::b;", "imports wire"),
        ("imports point down", "src/wire/a.rs", "use crate::{model::b, store};", "imports store"),
        ("imports point down", "src/store/a.rs", "fn f() { crate::daemon::f() }", "imports daemon"),
        ("imports point down", "src/store/a.rs", "use super::super::{land::b, model};", "imports land"),
        ("imports point down", "src/store/mod.rs", "use super::land;", "imports land"),
        ("imports point down", "src/rooted/a.rs", "use crate::journal::Journal;", "imports journal"),
        ("imports point down", "src/demo/a.rs", "use ppu_uringd::cli;", "imports cli"),
        ("imports point down", "src/model/a.rs", "type T = Box<ppu_config::Ppu>;", "imports ppu_config"),
        ("imports point down", "src/wondrous/a.rs", "", "module wondrous is in no layer"),
        ("model and wire are pure", "src/model/a.rs", "use std::{fmt, fs::File};", "std::fs"),
        (
            "model and wire are pure",
            "src/wire/a/b.rs",
            "fn f() { std::time::Instant::now(); }",
            "Instant::now",
        ),
        ("model and wire are pure", "src/wire/a.rs", "use tokio::sync::mpsc;", "tokio"),
        ("unsafe is in uring alone", "src/store/a.rs", "fn f() { unsafe { g() } }", "unsafe"),
        ("unsafe is in uring alone", "config/src/a.rs", "unsafe impl Send for T {}", "unsafe"),
        ("files are short", "tests/a.rs", &"\n".repeat(601), "601 lines"),
        ("nothing is unfinished or switched off", "uring/src/a.rs", "fn f() { todo!() }", "todo!"),
        (
            "nothing is unfinished or switched off",
            "src/a.rs",
            "fn f() { unimplemented!(); }",
            "unimplemented!",
        ),
        ("nothing is unfinished or switched off", "tests/a.rs", "#[test] #[ignore] fn f() {}", "ignore"),
        (
            "nothing is unfinished or switched off",
            "tests/a.rs",
            "mod t { #[ignore = \"slow\"] fn f() {} }",
            "ignore",
        ),
        ("tests wait for conditions", "tests/a.rs", "fn f() { thread::sleep(SECOND); }", "sleep"),
        ("tests wait for conditions", "src/store/tests.rs", "fn f() { sleep(SECOND); }", "sleep"),
        (
            "tests wait for conditions",
            "src/store/a.rs",
            "#[cfg(test)] mod t { fn f() { sleep(S) } }",
            "sleep",
        ),
        (
            "tests wait for conditions",
            "src/a.rs",
            "mod m { #[cfg(test)] mod t { fn f() { sleep(S) } } }",
            "sleep",
        ),
    ] {
        let (_, rule) = RULES.iter().find(|(rule, _)| *rule == name).unwrap();
        let found = rule(&Source::new(path, text));
        assert!(found.iter().any(|found| found.contains(finding)), "{name}: {path}: {text:.80}: {found:?}");
    }
    let tested = ["src/lib.rs", "src/lost.rs", "src/kept.rs", "src/dir/mod.rs", "src/dir/lost.rs"];
    let text = |path| if path == "src/lib.rs" { "mod kept; pub mod dir;" } else { "" };
    let found = dead_files(&tested.map(|path| Source::new(path, text(path))));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|found| found.contains("lost.rs")), "{found:?}");
}

#[test]
fn no_rule_is_too_strict() {
    for (path, text) in [
        ("src/main.rs", "mod cli; fn main() { cli::main() }"),
        ("src/cli/status.rs", "use ppu_uringd::serve; use ppu_uringd::model::status; use super::units;"),
        ("src/store/a.rs", "use crate::{model, rooted::Root, store::mount}; use super::super::wire;"),
        ("src/model/ledger/a.rs", "use super::super::path::RelPath; use super::store; struct Journal;"),
        (
            "src/model/a.rs",
            "use std::time::{Duration, Instant}; // Instant::now\nconst S: &str = \"std::fs\";",
        ),
        ("src/model/a.rs", "#[cfg(test)] mod tests { fn f() { Instant::now(); } }"),
        ("src/model/ledger/tests.rs", "fn f() { Instant::now(); }"),
        ("src/store/a.rs", "/// unsafe\nasync fn f() { sleep(S).await; log(\"todo!\") }"),
        ("uring/src/a.rs", "unsafe fn f() {}"),
        (
            "tests/a.rs",
            "use ppu_uringd::daemon; fn f() { park_timeout(POLL); let sleep = 1; ignore(sleep); }",
        ),
    ] {
        for (name, rule) in RULES {
            let found = rule(&Source::new(path, text));
            assert!(found.is_empty(), "{name}: {path}: {text}: {found:?}");
        }
    }
}

fn imports_point_down(source: &Source) -> Vec<String> {
    let Some(own) = source.module() else { return Vec::new() };
    let layer = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let Some(own_layer) = layer(own) else {
        return vec![source.found(1, &format!("module {own} is in no layer"))];
    };
    let paths = source.paths();
    let upward = paths.iter().filter_map(|path| {
        let target = imported(source, &path.names)?;
        let target_layer = layer(target)?;
        let down = target == own || target_layer > own_layer;
        (!down).then(|| source.found(path.line, &format!("{own} imports {target}")))
    });
    upward.collect()
}

/// The top module, or our own crate, that a path leads to from outside.
fn imported<'a>(source: &Source, names: &'a [String]) -> Option<&'a str> {
    let first = names.first()?.as_str();
    let supers = names.iter().take_while(|name| *name == "super").count();
    match first {
        "crate" | "ppu_uringd" => names.get(1).map(String::as_str),
        "ppu_config" | "ppu_uring" => Some(first),
        "super" if supers >= source.depth() => names.get(supers).map(String::as_str),
        _ => None,
    }
}

fn pure_is_pure(source: &Source) -> Vec<String> {
    if !source.module().is_some_and(|module| PURE.contains(&module)) {
        return Vec::new();
    }
    let paths = source.paths();
    let impure = paths.iter().filter(|path| !path.in_test).filter_map(|path| {
        let whole = format!("::{}::", path.names.join("::"));
        let what = IMPURE.iter().find(|impure| match impure.chars().next() {
            // Crates and the standard library are named from their root, types wherever they stand.
            Some('a'..='z') => whole.starts_with(&format!("::{impure}::")),
            _ => whole.contains(&format!("::{impure}::")),
        })?;
        Some(source.found(path.line, &format!("uses {what}")))
    });
    impure.collect()
}

fn unsafe_is_in_uring(source: &Source) -> Vec<String> {
    if source.path.starts_with("uring/") {
        return Vec::new();
    }
    source.find(|here| here.is("unsafe").then(|| "unsafe".to_owned()))
}

fn files_are_short(source: &Source) -> Vec<String> {
    let lines = source.lines;
    if lines > MAX_LINES { vec![source.found(lines, &format!("has {lines} lines"))] } else { Vec::new() }
}

fn nothing_is_unfinished(source: &Source) -> Vec<String> {
    source.find(|here| {
        let unfinished = ["todo", "unimplemented"].into_iter().find(|name| here.is(name) && here.then("!"));
        let ignored = here.is("#") && here.after().is_some_and(|next| next.text.starts_with("[ignore"));
        unfinished.map(|name| format!("{name}!")).or(ignored.then(|| "#[ignore]".to_owned()))
    })
}

fn tests_do_not_sleep(source: &Source) -> Vec<String> {
    source
        .find(|here| (here.token().in_test && here.is("sleep") && here.then("(")).then(|| "sleep".to_owned()))
}

/// Files of `src` directories that no `mod` leads to.
fn dead_files(sources: &[Source]) -> Vec<String> {
    let mut alive = BTreeSet::new();
    let roots = ["lib.rs", "main.rs"];
    let is_root = |source: &&Source| roots.iter().any(|root| source.path.ends_with(&format!("src/{root}")));
    let mut reached: Vec<&Source> = sources.iter().filter(is_root).collect();
    while let Some(source) = reached.pop() {
        alive.insert(&source.path);
        let children = source.submodules();
        reached.extend(sources.iter().filter(|other| children.contains(&other.path)));
    }
    let inside = sources.iter().filter(|source| source.path.split('/').any(|part| part == "src"));
    let dead = inside.filter(|source| !alive.contains(&source.path));
    dead.map(|source| source.found(1, "no `mod` leads to this file")).collect()
}

/// One file.
struct Source {
    /// Below the workspace.
    path: String,
    lines: usize,
    tokens: Vec<Token>,
}

/// A name, a mark, or an opening bracket (with what follows it up to the closing one).
struct Token {
    /// Of a bracket: itself and the first token inside.
    text: String,
    line: usize,
    /// In a file of tests, or below `#[cfg(test)]`.
    in_test: bool,
}

/// `a::b::c`, also where it stands as `a::{b::c}`.
struct Named {
    names: Vec<String>,
    line: usize,
    in_test: bool,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let stream: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        let of_tests = path.split('/').any(|part| ["tests", "tests.rs", "testing.rs"].contains(&part));
        let mut tokens = Vec::new();
        flatten(stream, of_tests, &mut tokens);
        Self { path: path.to_owned(), lines: text.lines().count(), tokens }
    }

    /// The top module that a file of the main crate belongs to; `lib.rs` only lists them.
    fn module(&self) -> Option<&str> {
        let top = self.path.strip_prefix("src/")?.split('/').next()?;
        Some(top.strip_suffix(".rs").unwrap_or(top)).filter(|top| *top != "lib")
    }

    /// How many `super`s lead to the crate's root.
    fn depth(&self) -> usize {
        let names = self.path.split('/').count() - 1;
        if self.path.ends_with("/mod.rs") { names - 1 } else { names }
    }

    /// Where `mod name;` may lead.
    fn submodules(&self) -> Vec<String> {
        let (directory, file) = self.path.rsplit_once('/').unwrap();
        let below = match file {
            "lib.rs" | "main.rs" | "mod.rs" => directory.to_owned(),
            _ => self.path.trim_end_matches(".rs").to_owned(),
        };
        let declared = self.tokens.windows(3).filter(|t| t[0].text == "mod" && t[2].text == ";");
        declared
            .flat_map(|t| [format!("{below}/{}.rs", t[1].text), format!("{below}/{}/mod.rs", t[1].text)])
            .collect()
    }

    fn found(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    fn find(&self, check: impl Fn(&Here) -> Option<String>) -> Vec<String> {
        let all = (0..self.tokens.len()).map(|at| Here { tokens: &self.tokens, at });
        all.filter_map(|here| Some(self.found(here.token().line, &check(&here)?))).collect()
    }

    /// Every path that is written in the file.
    fn paths(&self) -> Vec<Named> {
        let mut paths = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            match is_name(&self.tokens[at].text) {
                true => at = expand(&self.tokens, at, &[], &mut paths),
                false => at += 1,
            }
        }
        paths
    }
}

/// A place in a file.
struct Here<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl Here<'_> {
    fn token(&self) -> &Token {
        &self.tokens[self.at]
    }

    fn after(&self) -> Option<&Token> {
        self.tokens.get(self.at + 1)
    }

    fn is(&self, text: &str) -> bool {
        self.token().text == text
    }

    /// The next token begins with `text`.
    fn then(&self, text: &str) -> bool {
        self.after().is_some_and(|next| next.text.starts_with(text))
    }
}

/// The path that begins at `at`, behind `prefix`; returns where it ends.
fn expand(tokens: &[Token], mut at: usize, prefix: &[String], paths: &mut Vec<Named>) -> usize {
    let (line, in_test) = (tokens[at].line, tokens[at].in_test);
    let mut names = prefix.to_vec();
    let text = |at: usize| tokens.get(at).map_or("", |token: &Token| token.text.as_str());
    loop {
        names.push(tokens[at].text.clone());
        at += 1;
        if text(at) != ":" || text(at + 1) != ":" {
            break;
        }
        at += 2;
        if text(at).starts_with('{') {
            at += 1;
            while at < tokens.len() && text(at) != "}" {
                match is_name(text(at)) {
                    true => at = expand(tokens, at, &names, paths),
                    false => at += 1,
                }
            }
            at += 1;
            break;
        }
        if !is_name(text(at)) {
            break;
        }
    }
    paths.push(Named { names, line, in_test });
    at
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

fn flatten(stream: TokenStream, of_tests: bool, tokens: &mut Vec<Token>) {
    // From `#[cfg(test)]` to the end of the item that it stands before.
    let mut guarded = false;
    for tree in stream {
        let line = tree.span().start().line;
        let in_test = of_tests || guarded;
        let mut push = |text: String, line| tokens.push(Token { text, line, in_test });
        match tree {
            TokenTree::Ident(name) => push(name.to_string(), line),
            TokenTree::Punct(mark) => {
                guarded &= mark.as_char() != ';';
                push(mark.to_string(), line);
            }
            TokenTree::Literal(_) => push("\"".to_owned(), line),
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                let first = group.stream().into_iter().next().map(|first| first.to_string());
                let end = group.span_close().start().line;
                push(format!("{open}{}", first.filter(|_| open == "[").unwrap_or_default()), line);
                flatten(group.stream(), in_test, tokens);
                tokens.push(Token { text: close.to_owned(), line: end, in_test });
                match open {
                    "[" if group.stream().to_string().replace(' ', "") == "cfg(test)" => guarded = true,
                    "{" => guarded = false,
                    _ => {}
                }
            }
        }
    }
}

fn tree() -> Vec<Source> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    let mut directories: Vec<_> = ROOTS.iter().map(|root| workspace.join(root)).collect();
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(workspace).unwrap().to_str().unwrap();
                sources.push(Source::new(name, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(sources.len() > 50, "the sources are not where this test looks");
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

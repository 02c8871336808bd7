//! `config import`: the predecessors' two files become one.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ppu_config::{Checked, ConfigError, Finding, Imported, OldText, Ppu, Verdict, import};
use serde::Serialize;

use super::Failure;
use super::check_finding::{CheckFinding, Level};
use super::output::{self, note};

/// Where the old programs had them.
const FURKA: &str = "/etc/furka_dectris.conf";
const GRIMSEL: &str = "/etc/grimsel_dectris.conf";

/// Turn the configuration of FURKA and GRIMSEL into a ppu.toml
///
/// Reads furka_dectris.conf (whose the images are, and the detectors) and
/// grimsel_dectris.conf (ramdisk and storages), prints the ppu.toml that means the
/// same, and on standard error what became of every line: taken over, ignored, or in
/// need of a decision (DECIDE, also in the file). The result is checked like every
/// configuration: what is missing is named. The old files are not changed.
///
/// Examples:
///   ppu-uringd config import
///       (both files, where they were: /etc)
///   ppu-uringd config import --output /etc/ppu-uringd/ppu.toml
///   ppu-uringd config import --furka old/furka.conf --grimsel old/grimsel.conf
///
/// Then: look for DECIDE in the file, and
///   ppu-uringd config check --config /etc/ppu-uringd/ppu.toml
///
/// Exit codes: 0 = the result is complete (decisions may be open); 1 = something is
/// missing in it, and is named; 2 = an old file cannot be read, or --output exists.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// FURKA's file [default, unless --grimsel is given alone: /etc/furka_dectris.conf]
    #[arg(long, value_name = "FILE")]
    furka: Option<PathBuf>,

    /// GRIMSEL's file [default, unless --furka is given alone: /etc/grimsel_dectris.conf]
    #[arg(long, value_name = "FILE")]
    grimsel: Option<PathBuf>,

    /// Write the result there instead of to standard output; never over a file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Over a file, too
    #[arg(long, requires = "output")]
    force: bool,

    /// For scripts: one JSON object with the new file and the report
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let (furka, grimsel) = files(args)?;
    let shown = args.output.as_deref().unwrap_or(Path::new("ppu.toml"));
    let Imported { toml, findings, checked } = import(furka.as_ref(), grimsel.as_ref(), shown);
    match &args.output {
        None if args.json => {}
        None => output::print(&toml)?,
        Some(path) => write(path, &toml, args.force)?,
    }
    if args.json {
        let answer = Answer::new(args.output.as_deref(), &toml, &findings, &checked);
        output::object(&answer)?;
        return if answer.complete { Ok(()) } else { Err(Failure::Reported) };
    }
    table(&findings).iter().for_each(|line| note(line));
    let open = findings.iter().filter(|finding| finding.verdict == Verdict::Decide).count();
    match checked {
        Ok(checked) => {
            for warning in &checked.warnings {
                note(&format!("warning  {warning}"));
            }
            note(&format!(
                "{}: complete; {open} decision{} open (look for DECIDE). Next: ppu-uringd config check --config {0}",
                shown.display(),
                if open == 1 { "" } else { "s" }
            ));
            Ok(())
        }
        Err(error) => {
            note(&format!("{}: this is missing or wrong in it:", shown.display()));
            note(&error.to_string());
            Err(Failure::Reported)
        }
    }
}

/// Those that were named; both usual ones where none was.
fn files(args: &Args) -> Result<(Option<OldText>, Option<OldText>), Failure> {
    let load = |path: &Path| OldText::load(path).map_err(Failure::from);
    if let (None, None) = (&args.furka, &args.grimsel) {
        let usual = |path: &str| Path::new(path).exists().then(|| load(Path::new(path))).transpose();
        let found = (usual(FURKA)?, usual(GRIMSEL)?);
        if let (None, None) = found {
            return Err(Failure::Usage(format!(
                "neither {FURKA} nor {GRIMSEL} is there: name the old files with --furka and --grimsel"
            )));
        }
        return Ok(found);
    }
    let named = |path: &Option<PathBuf>| path.as_deref().map(load).transpose();
    Ok((named(&args.furka)?, named(&args.grimsel)?))
}

fn write(path: &Path, toml: &str, force: bool) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o644);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    match options.open(path).and_then(|mut file| file.write_all(toml.as_bytes())) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Failure::Usage(format!(
            "{} is there already: choose another --output, or --force to replace it",
            path.display()
        ))),
        written => written.map_err(|error| Failure::Failed(format!("{}: {error}", path.display()))),
    }
}

/// What needs a decision comes last, where it is seen.
fn table(findings: &[Finding]) -> Vec<String> {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.verdict == Verdict::Decide);
    let width = |of: fn(&Finding) -> &str| {
        sorted.iter().map(|finding| of(finding).chars().count()).max().unwrap_or(0)
    };
    let (from, key) = (width(|finding| &finding.from), width(|finding| &finding.key));
    let line = |finding: &&Finding| {
        let verdict = match finding.verdict {
            Verdict::Decide => "DECIDE",
            other => word(other),
        };
        format!("{verdict:<7}  {:<from$}  {:<key$}  {}", finding.from, finding.key, finding.what)
    };
    sorted.iter().map(line).collect()
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Mapped => "taken",
        Verdict::Ignored => "ignored",
        Verdict::Decide => "decide",
    }
}

/// All of it for scripts.
#[derive(Serialize)]
struct Answer<'a> {
    /// Where it was written.
    output: Option<String>,
    toml: &'a str,
    /// Nothing is missing or wrong in it.
    complete: bool,
    findings: Vec<Shown<'a>>,
    /// What `config check` says of it in itself.
    check: Vec<CheckFinding>,
}

#[derive(Serialize)]
struct Shown<'a> {
    verdict: &'static str,
    from: &'a str,
    key: &'a str,
    what: &'a str,
}

impl<'a> Answer<'a> {
    fn new(
        output: Option<&Path>,
        toml: &'a str,
        findings: &'a [Finding],
        checked: &Result<Checked<Ppu>, ConfigError>,
    ) -> Self {
        let shown = |finding: &'a Finding| {
            let Finding { from, key, verdict, what } = finding;
            Shown { verdict: word(*verdict), from, key, what }
        };
        let warning = |problem| CheckFinding::of_problem(Level::Warning, problem);
        let check = match checked {
            Ok(checked) => checked.warnings.iter().map(warning).collect(),
            Err(error) => CheckFinding::of_error(error),
        };
        Self {
            output: output.map(|path| path.display().to_string()),
            toml,
            complete: checked.is_ok(),
            findings: findings.iter().map(shown).collect(),
            check,
        }
    }
}

//! The command line: what there is to say, and what the exit code means.
#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they panic where nobody reads any more: `output` does not"
)]

mod add;
mod check_finding;
mod completions;
mod config_check;
mod config_import;
mod control;
mod daemon;
mod demo;
mod detector;
mod journald;
mod log_file;
mod logging;
mod machine;
mod messages;
mod output;
mod pause;
mod ppu;
mod retry;
mod shift;
mod simulate;
mod size;
mod status;
mod stop;
mod tune;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::note;

/// Moves a detector's images to the PPU's ramdisk and on to every storage: verified, atomic, durable.
#[derive(Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "\
Exit codes: 0 = done; 1 = failed, the reason is on standard error; 2 = wrong
usage or configuration, nothing was begun. For scripts, every command that tells
something has --json.

Start here: `ppu-uringd demo` shows all of it on this machine, without root and
without configuration. Each command explains itself: `ppu-uringd COMMAND --help`.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Add(add::Args),
    Completions(completions::Args),
    #[command(subcommand)]
    Config(ConfigCommand),
    Demo(demo::Args),
    Detector(detector::Args),
    Messages(messages::Args),
    Pause(pause::PauseArgs),
    Ppu(ppu::Args),
    Resume(pause::ResumeArgs),
    Retry(retry::Args),
    #[command(subcommand)]
    Shift(shift::Command),
    Simulate(simulate::Args),
    Status(status::Args),
    Tune(tune::Args),
    Verify(verify::Args),
}

/// Look after configuration files.
#[derive(Subcommand)]
enum ConfigCommand {
    Check(config_check::Args),
    Import(config_import::Args),
}

/// Why a command did not do what it was asked to.
enum Failure {
    /// Exit code 1, and why.
    Failed(String),
    /// Exit code 2, and why.
    Usage(String),
    /// Exit code 1; the command has said everything already.
    Reported,
}

impl Failure {
    fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<ppu_config::ConfigError> for Failure {
    fn from(error: ppu_config::ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

pub(crate) fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Add(args) => add::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Config(ConfigCommand::Check(args)) => config_check::run(&args),
        Command::Config(ConfigCommand::Import(args)) => config_import::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Detector(args) => detector::run(&args),
        Command::Messages(args) => messages::run(&args),
        Command::Pause(args) => pause::pause(&args),
        Command::Ppu(args) => ppu::run(&args),
        Command::Resume(args) => pause::resume(&args),
        Command::Retry(args) => retry::run(&args),
        Command::Shift(command) => shift::run(&command),
        Command::Simulate(args) => simulate::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Verify(args) => verify::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Reported) => ExitCode::from(1),
        Err(Failure::Failed(reason)) => {
            note(&format!("ppu-uringd: {reason}"));
            ExitCode::from(1)
        }
        Err(Failure::Usage(reason)) => {
            for line in reason.lines() {
                note(&format!("ppu-uringd: {line}"));
            }
            ExitCode::from(2)
        }
    }
}

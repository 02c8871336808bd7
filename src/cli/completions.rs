//! `completions`: what the shell offers when Tab is pressed.

use std::io;

use clap::{CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

use super::output::print;
use super::{Cli, Failure};

/// Print a script that completes this program's commands and options
///
/// Examples:
///   ppu-uringd completions bash > /etc/bash_completion.d/ppu-uringd
///   ppu-uringd completions zsh > /usr/local/share/zsh/site-functions/_ppu-uringd
///   ppu-uringd completions fish > /etc/fish/completions/ppu-uringd.fish
///
/// Exit codes: 0 = done; 1 = standard output cannot be written; 2 = wrong usage.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// Whose language
    shell: Language,
}

#[derive(Clone, Copy, ValueEnum)]
enum Language {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let shell = match args.shell {
        Language::Bash => Shell::Bash,
        Language::Zsh => Shell::Zsh,
        Language::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "ppu-uringd", &mut script);
    print(&String::from_utf8(script).map_err(|error| Failure::failed(io::Error::other(error)))?)
}

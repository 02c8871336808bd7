//! The program: a command line, and one file for each of its commands.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}

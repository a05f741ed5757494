//! `cargo xtask`: Turnpike's developer commands.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nix::sys::signal::{SigHandler, Signal, signal};
use xtask::{build, ci, conformance, lab_command, run, soak, test};

/// Turnpike's developer commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the daemon, with its kernel program; install what that needs first.
    Build(build::Arguments),
    /// Run the relay: in the lab with a demonstration call, or, with daemon options after `--`, on this host.
    Run(run::Arguments),
    /// Run every test, or those that a filter names; install what they need first.
    Test(test::Arguments),
    /// What a change has to pass: formatting, lints and documentation, then every test.
    Ci(ci::Arguments),
    /// Let two browsers call each other through the lab's relay for longer than any lifetime, and judge what was lost.
    Soak(soak::Arguments),
    /// Write docs/conformance.md: every requirement of the RFCs with its tests, or the reason why there is none.
    Conformance(conformance::Arguments),
    /// Build the lab and keep it until Ctrl-C, to try things in it by hand.
    Lab(lab_command::Arguments),
}

fn main() -> ExitCode {
    // `cargo xtask run | head` ends quietly; the lab's janitor sees the end and cleans up.
    // SAFETY: the default action runs no code of ours.
    if let Err(error) = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) } {
        eprintln!("warning: SIGPIPE stays ignored: {error}");
    }
    let result = match Arguments::parse().command {
        Command::Build(arguments) => build::command(&arguments).map(|_| ExitCode::SUCCESS),
        Command::Run(arguments) => run::command(&arguments),
        Command::Test(arguments) => test::command(&arguments),
        Command::Ci(arguments) => ci::command(&arguments),
        Command::Soak(arguments) => soak::command(&arguments),
        Command::Conformance(arguments) => conformance::command(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Lab(arguments) => lab_command::command(&arguments).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        // Debug would add a backtrace, which helps nobody who types a command.
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

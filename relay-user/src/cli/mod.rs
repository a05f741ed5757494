//! What users type: one file for each command.

mod check;
mod detach;
mod log;
mod options;
mod privileges;
mod run;
mod server;
mod sessions;
mod status;
mod table;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use serde::de::DeserializeOwned;

use crate::control::{
    client,
    config::{DEFAULT_ADMIN_SOCKET, DEFAULT_BPFFS, LogFormat},
};

const EXAMPLES: &str = "\
Examples:
  turnpike run -i eth0 --user alice:SECRET
      serve clients on eth0, port 3478, and relay from its address
  turnpike run -i eth0 -i eth1 --relay-address 10.0.0.5 --external-ip 203.0.113.7/10.0.0.5 --user alice:SECRET
      two NICs behind a one-to-one NAT
  turnpike check -c /etc/turnpike/turnpike.toml
  turnpike status
  turnpike sessions --json

The keys of the configuration file are explained in docs/configuration.md.";

/// A TURN server whose media stays in the kernel
#[derive(Debug, Parser)]
#[command(name = "turnpike", version, propagate_version = true, after_help = EXAMPLES, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What to log: error, warn, info, debug or trace, or directives as in RUST_LOG [default: RUST_LOG, else info]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = log::parse_level)]
    log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve clients until SIGTERM, SIGINT or SIGHUP
    #[command(after_help = run::EXAMPLES)]
    Run(options::ServerOptions),
    /// Show what is attached, what was carried where, and why packets were dropped
    Status(QueryOptions),
    /// Show each allocation with its permissions, channels and traffic
    Sessions(QueryOptions),
    /// Check configuration, host and NICs, changing nothing; exit status 1 if the daemon could not run so
    Check(options::ServerOptions),
    /// Remove from the kernel what a crashed daemon left there
    Detach(DetachOptions),
}

#[derive(Args, Debug)]
struct QueryOptions {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The daemon's admin socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_ADMIN_SOCKET)]
    admin_socket: PathBuf,
}

#[derive(Args, Debug)]
struct DetachOptions {
    /// The bpffs that the daemon had
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    bpffs: PathBuf,
}

/// The whole program: exit code 0, 1 for an error, 2 for wrong usage.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = cli.log_level.as_deref();
    if !matches!(cli.command, Command::Run(_)) {
        log::start(level, LogFormat::default());
    }
    let result = match cli.command {
        Command::Run(options) => run::run(options, level),
        Command::Status(options) => status::status(&options),
        Command::Sessions(options) => sessions::sessions(&options),
        Command::Check(options) => check::check(options),
        Command::Detach(options) => detach::detach(&options),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            // A configuration may have several errors, one to a line.
            for line in format!("{error:#}").lines() {
                // There is nowhere else to say it; `eprintln!` would panic.
                let _ = writeln!(io::stderr(), "error: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Asks the running daemon for a `T` and prints the answer as it came, or as `describe` puts it.
fn query<T: DeserializeOwned>(
    options: &QueryOptions,
    target: &str,
    describe: fn(&T) -> String,
) -> anyhow::Result<ExitCode> {
    let (json, answer) = runtime()?.block_on(client::get(&options.admin_socket, target))?;
    let text = if options.json { format!("{json}\n") } else { describe(&answer) };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes to stdout. A reader that has seen enough (`| head -1`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

/// A runtime for commands and daemon: one thread.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

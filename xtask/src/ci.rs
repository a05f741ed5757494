//! `cargo xtask ci`.

use std::process::{Command, ExitCode};

use crate::bootstrap::{Need, bootstrap};
use crate::build::REQUIRE_BPF;
use crate::{conformance, process, test, workspace};

/// Arguments of `cargo xtask ci`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Stop before the tests: formatting, lints, documentation and the conformance page only.
    #[arg(long)]
    lint: bool,
}

/// Checks formatting, lints, documentation and the conformance page, then runs every test.
pub fn command(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    bootstrap(Need::Build, false)?;
    for mut check in lints() {
        println!("$ {}", process::display(&check));
        process::run(check.current_dir(workspace::root()).env(REQUIRE_BPF.0, REQUIRE_BPF.1))?;
    }
    println!("$ cargo xtask conformance --check");
    conformance::check(workspace::root())?;
    if arguments.lint {
        return Ok(ExitCode::SUCCESS);
    }
    test::command(&test::Arguments::default())
}

fn lints() -> Vec<Command> {
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(arguments);
        command
    };
    let format = cargo(&["fmt", "--all", "--check"]);
    let clippy = cargo(&["clippy", "--all-targets", "--", "-D", "warnings"]);
    // The kernel program, for its own target: stable Rust with the unstable build of core.
    let mut clippy_bpf = cargo(&["clippy", "--package", "relay-ebpf", "--target", "bpfel-unknown-none"]);
    clippy_bpf.args(["-Z", "build-std=core", "--", "-D", "warnings"]).env("RUSTC_BOOTSTRAP", "1");
    let mut documentation = cargo(&["doc", "--no-deps"]);
    documentation.env("RUSTDOCFLAGS", "-Dwarnings");
    vec![format, clippy, clippy_bpf, documentation]
}

//! `cargo xtask build`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::bail;

use crate::bootstrap::{Need, bootstrap};
use crate::process;
use crate::workspace::{self, Profile};

/// Makes relay-user's build script fail, instead of leaving the kernel program out, when the BPF toolchain is
/// missing.
pub const REQUIRE_BPF: (&str, &str) = ("TURNPIKE_REQUIRE_BPF", "1");

/// Arguments of `cargo xtask build`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Build with optimizations.
    #[arg(long)]
    release: bool,
    /// Do without the BPF toolchain: the daemon relays in userspace only.
    #[arg(long)]
    userspace: bool,
}

/// Builds the daemon and says where it is.
pub fn command(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    bootstrap(Need::Build, arguments.userspace)?;
    let profile = if arguments.release { Profile::Release } else { Profile::Debug };
    let binary = build(profile, arguments.userspace)?;
    println!("{}", binary.display());
    Ok(binary)
}

/// Builds the daemon, once what it needs is installed.
pub(crate) fn build(profile: Profile, userspace: bool) -> anyhow::Result<PathBuf> {
    let mut command = Command::new("cargo");
    command.args(["build", "--package", "relay-user"]).current_dir(workspace::root());
    if profile == Profile::Release {
        command.arg("--release");
    }
    if !userspace {
        command.env(REQUIRE_BPF.0, REQUIRE_BPF.1);
    }
    process::run(&mut command)?;
    let binary = workspace::turnpike(profile);
    if !binary.is_file() {
        bail!("cargo built no {}", binary.display());
    }
    Ok(binary)
}

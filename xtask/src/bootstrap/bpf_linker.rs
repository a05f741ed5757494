//! bpf-linker, which links the kernel program.

use std::process::Command;

use anyhow::{Context, bail};

use super::announce;
use crate::process;

/// The last version whose default features use rustc's own LLVM.
const VERSION: &str = "0.10.4";

/// Installs bpf-linker with cargo unless this version is there.
pub(super) fn ensure() -> anyhow::Result<()> {
    let present = installed();
    if present.as_deref() == Some(VERSION) {
        return Ok(());
    }
    let instead = present.map(|version| format!(", in place of {version}")).unwrap_or_default();
    announce(
        &format!("bpf-linker {VERSION} (cargo install){instead}"),
        "it links the kernel program; this takes a few minutes",
    );
    process::run(Command::new("cargo").args(["install", "bpf-linker", "--version", VERSION, "--locked"]))?;
    let found = installed().context(
        "bpf-linker was installed but is not in PATH: add cargo's bin directory (~/.cargo/bin) to it",
    )?;
    if found != VERSION {
        bail!(
            "another bpf-linker, {found}, comes first in PATH: remove it, or put cargo's bin directory first"
        );
    }
    Ok(())
}

fn installed() -> Option<String> {
    let output = process::output(Command::new("bpf-linker").arg("--version")).ok()?;
    version(&output).map(str::to_owned)
}

/// The version in "bpf-linker 0.10.4".
fn version(output: &str) -> Option<&str> {
    output.strip_prefix("bpf-linker ")?.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read() {
        assert_eq!(version("bpf-linker 0.10.4\n"), Some("0.10.4"));
        assert_eq!(version("bpf-linker 0.11.0 (LLVM 22)\n"), Some("0.11.0"));
        assert_eq!(version("something else"), None);
    }
}

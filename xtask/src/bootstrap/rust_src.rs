//! rust-src: the standard library's source, from which `core` is built for the kernel program.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::{announce, apt};
use crate::{process, workspace};

const WHY: &str = "the kernel program builds core from it";

/// Installs rust-src into the toolchain in use: with rustup unless `RUSTUP_AUTO_INSTALL=0` forbids, else from
/// Debian's package of the very same version.
pub(super) fn ensure() -> anyhow::Result<()> {
    let sysroot = process::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let sysroot = Path::new(sysroot.trim());
    if is_present(sysroot) {
        return Ok(());
    }
    if process::find("rustup").is_some() && std::env::var("RUSTUP_AUTO_INSTALL").as_deref() != Ok("0") {
        announce("rust-src (rustup component)", WHY);
        process::run(Command::new("rustup").args(["component", "add", "rust-src"]))?;
    } else {
        let version = rustc_version()?;
        announce(&format!("rust-src {version} (Debian's package, unpacked into the toolchain)"), WHY);
        from_debian(&version, sysroot, &workspace::target_dir().join("rust-src"))?;
    }
    if !is_present(sysroot) {
        bail!("rust-src was installed, but {} is still missing", library(sysroot).display());
    }
    Ok(())
}

/// Fetches Debian's `rust-src` of exactly this version and copies its `library` into `sysroot`. The system's
/// apt configuration and lists stay as they are; `scratch` holds our own, and is removed.
fn from_debian(version: &str, sysroot: &Path, scratch: &Path) -> anyhow::Result<()> {
    let archive = apt::PrivateArchive::backports(scratch)?;
    let package_version = archive.newest("rust-src", &format!("{version}+"))?;
    let tree = archive.unpack("rust-src", &package_version)?;
    let source = tree.join(format!("usr/src/rustc-{version}/library"));
    if !source.is_dir() {
        bail!("Debian's rust-src {package_version} has no {}", source.display());
    }
    let destination = library(sysroot);
    let parent = destination.parent().expect("library is below src/rust");
    std::fs::create_dir_all(parent)
        .with_context(|| format!("could not create {}: is the toolchain yours?", parent.display()))?;
    // Copied beside its place and renamed, so that an interrupted copy is not taken for a whole one.
    let partial = parent.join("library.partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial)?;
    }
    process::output(Command::new("cp").arg("-rL").arg(&source).arg(&partial))?;
    std::fs::rename(&partial, &destination)
        .with_context(|| format!("could not create {}", destination.display()))?;
    std::fs::remove_dir_all(scratch)?;
    Ok(())
}

fn is_present(sysroot: &Path) -> bool {
    library(sysroot).join("core/src/lib.rs").is_file()
}

fn library(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library")
}

fn rustc_version() -> anyhow::Result<String> {
    let verbose = process::output(Command::new("rustc").arg("-vV"))?;
    let release = verbose.lines().find_map(|line| line.strip_prefix("release: "));
    Ok(release.context("rustc -vV names no release")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "fetches 30 MB from a Debian mirror: run by hand"]
    fn debian_package_gives_a_library_of_this_version() {
        let directory = tempfile::tempdir().unwrap();
        let sysroot = directory.path().join("sysroot");
        let version = rustc_version().unwrap();
        from_debian(&version, &sysroot, &directory.path().join("scratch")).unwrap();
        assert!(is_present(&sysroot));
        assert!(library(&sysroot).join("Cargo.lock").is_file());
    }

    #[test]
    fn missing_library_is_noticed() {
        let sysroot = tempfile::tempdir().unwrap();
        assert!(!is_present(sysroot.path()));
        let core = library(sysroot.path()).join("core/src");
        std::fs::create_dir_all(&core).unwrap();
        std::fs::write(core.join("lib.rs"), "").unwrap();
        assert!(is_present(sysroot.path()));
    }
}

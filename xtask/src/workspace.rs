//! Where things are in this workspace.

use std::path::{Path, PathBuf};

/// The workspace's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a member, one level below the root")
}

/// Cargo's target directory.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// How the workspace is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// `cargo build`.
    Debug,
    /// `cargo build --release`.
    Release,
}

/// The daemon as built with `profile`, or the one that `TURNPIKE_BIN` names.
pub fn turnpike(profile: Profile) -> PathBuf {
    if let Some(path) = std::env::var_os("TURNPIKE_BIN") {
        return path.into();
    }
    let directory = match profile {
        Profile::Debug => "debug",
        Profile::Release => "release",
    };
    target_dir().join(directory).join("turnpike")
}

/// A path as one would type it in the current directory.
pub fn relative(path: &Path) -> &Path {
    let current = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(current).unwrap_or(path)
}

/// The driver of the browser test: package.json, its lock file and the script.
pub fn browser_dir() -> PathBuf {
    root().join("xtask/browser")
}

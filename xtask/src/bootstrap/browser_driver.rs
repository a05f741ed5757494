//! playwright-core, which drives the browsers of the browser test.

use std::process::Command;

use super::announce;
use crate::{browser, process, workspace};

/// Installs what the lock file names, below `xtask/browser`.
pub(super) fn ensure() -> anyhow::Result<()> {
    if browser::has_driver() {
        return Ok(());
    }
    if process::find("npm").is_none() {
        println!("npm is missing: the browser test will be skipped");
        return Ok(());
    }
    announce("playwright-core (npm ci in xtask/browser)", "drives the browsers of the browser test");
    process::run(
        Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .env("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1")
            .current_dir(workspace::browser_dir()),
    )
}

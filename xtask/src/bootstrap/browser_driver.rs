//! playwright-core and puppeteer-core, which drive the browsers of the browser tests.

use std::process::Command;

use super::announce;
use crate::{browser, process, workspace};

/// Installs what the lock file names, below `xtask/browser`.
pub(super) fn ensure() -> anyhow::Result<()> {
    if browser::has_drivers() {
        return Ok(());
    }
    if process::find("npm").is_none() {
        println!("npm is missing: the browser tests will be skipped");
        return Ok(());
    }
    announce(
        "playwright-core and puppeteer-core (npm ci in xtask/browser)",
        "drive the browsers of the browser tests",
    );
    process::run(
        Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .env("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1")
            .current_dir(workspace::browser_dir()),
    )
}

//! The browser of the browser test.

use std::path::PathBuf;

use crate::{process, workspace};

/// Names under which Chromium may be installed.
pub const PROGRAMS: &[&str] = &["chromium", "google-chrome", "google-chrome-stable"];

/// Where Chromium is.
pub fn chromium() -> Option<PathBuf> {
    PROGRAMS.iter().find_map(|program| process::find(program))
}

/// Whether the browsers' driver (playwright-core) is installed, in the version of its lock file.
pub fn has_driver() -> bool {
    let directory = workspace::browser_dir();
    let modified = |file: &str| std::fs::metadata(directory.join(file)).and_then(|data| data.modified()).ok();
    let installed = modified("node_modules/.package-lock.json");
    installed.is_some() && installed >= modified("package-lock.json")
}

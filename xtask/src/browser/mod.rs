//! The browsers of the browser tests and the soak, and their calls.

mod call;

use std::path::PathBuf;

use serde::Serialize;

use crate::{process, workspace};

pub use call::{Call, Inbound, Report, Side};

/// Names under which Chromium may be installed.
pub const CHROMIUM: &[&str] = &["chromium", "google-chrome", "google-chrome-stable"];
/// Names under which Firefox may be installed. A snap, which `firefox` may be, cannot enter the lab.
pub const FIREFOX: &[&str] = &["firefox-esr"];

/// A browser, as the driver's script takes it.
#[derive(Clone, Debug, Serialize)]
pub struct Browser {
    /// Which one it is: `chromium` or `firefox`.
    pub kind: &'static str,
    /// The program.
    pub path: PathBuf,
}

/// Chromium, if it is installed.
pub fn chromium() -> Option<Browser> {
    find("chromium", CHROMIUM)
}

/// Firefox, if it is installed.
pub fn firefox() -> Option<Browser> {
    find("firefox", FIREFOX)
}

fn find(kind: &'static str, programs: &[&str]) -> Option<Browser> {
    let path = programs.iter().find_map(|program| process::find(program))?;
    Some(Browser { kind, path })
}

/// Whether the browsers' drivers (playwright-core, puppeteer-core) are installed, in the versions of the lock file.
pub fn has_drivers() -> bool {
    let directory = workspace::browser_dir();
    let modified = |file: &str| std::fs::metadata(directory.join(file)).and_then(|data| data.modified()).ok();
    let installed = modified("node_modules/.package-lock.json");
    installed.is_some() && installed >= modified("package-lock.json")
}

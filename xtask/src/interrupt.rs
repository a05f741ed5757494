//! Ctrl-C, SIGTERM and SIGHUP as a request to end in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on these signals are noted instead of ending the process. A second one ends it: the lab's janitor
/// cleans up all the same.
pub fn watch() -> anyhow::Result<()> {
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESETHAND, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("could not handle {signal}"))?;
    }
    Ok(())
}

/// Whether a signal came.
pub fn requested() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Waits for a signal.
pub fn wait() {
    while !requested() {
        std::thread::sleep(Duration::from_millis(100));
    }
}

extern "C" fn note(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

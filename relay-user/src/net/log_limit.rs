//! Keeps what outsiders can cause from filling the log.

use relay_common::clock::BootNanos;

/// Nanoseconds in which [`LINES`] lines may be logged.
const WINDOW: BootNanos = 10_000_000_000;

/// Lines in a window.
const LINES: u32 = 10;

/// Lets some lines of one kind through and counts the others.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    window_ends: BootNanos,
    logged: u32,
    suppressed: u64,
}

impl LogLimit {
    /// Whether a line may be logged now: the number of lines left out since the last one that was.
    pub(super) fn admit(&mut self, now: BootNanos) -> Option<u64> {
        if now >= self.window_ends {
            self.window_ends = now + WINDOW;
            self.logged = 0;
        }
        if self.logged == LINES {
            self.suppressed += 1;
            return None;
        }
        self.logged += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_its_size_told_later() {
        let mut limit = LogLimit::default();
        let admitted = (0..1000).filter(|_| limit.admit(5).is_some()).count();
        assert_eq!(admitted, LINES as usize);
        assert_eq!(limit.admit(5 + WINDOW), Some(1000 - u64::from(LINES)));
        assert_eq!(limit.admit(5 + WINDOW), Some(0));
    }
}

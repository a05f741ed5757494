//! Array indices that the program may still be using for a moment after they were given up.

use std::collections::VecDeque;

use relay_common::clock::BootNanos;

/// How long a packet that is being processed may go on using an index, in nanoseconds. A program run takes
/// microseconds; the rest is for a virtual CPU that is not scheduled meanwhile.
pub(super) const GRACE: BootNanos = 1_000_000_000;

/// Indices in use for `wanted` at a time, with room for those that wait for reuse.
pub(super) const fn with_room_for_retired(wanted: u32) -> u32 {
    wanted.saturating_add(wanted / 8).saturating_add(1024)
}

/// Hands out indices below a limit and takes them back; none is handed out again within [`GRACE`].
#[derive(Debug)]
pub(super) struct Slots {
    next: u32,
    limit: u32,
    free: Vec<u32>,
    retired: VecDeque<(BootNanos, u32)>,
}

impl Slots {
    /// Indices `first..limit`.
    pub(super) const fn new(first: u32, limit: u32) -> Self {
        Self { next: first, limit, free: Vec::new(), retired: VecDeque::new() }
    }

    /// An index that nobody uses. `None`: all are in use or waiting.
    pub(super) fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let slot = self.next;
            (slot < self.limit).then(|| {
                self.next += 1;
                slot
            })
        })
    }

    /// Takes back an index that the program no longer finds in any map.
    pub(super) fn retire(&mut self, slot: u32, now: BootNanos) {
        self.retired.push_back((now, slot));
    }

    /// The next index whose wait is over; it may be handed out again after this.
    pub(super) fn reclaim(&mut self, now: BootNanos) -> Option<u32> {
        let &(since, slot) = self.retired.front()?;
        (now >= since + GRACE).then(|| {
            self.retired.pop_front();
            self.free.push(slot);
            slot
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retired_index_waits_before_it_is_used_again() {
        let mut slots = Slots::new(1, 3);
        assert_eq!([slots.take(), slots.take(), slots.take()], [Some(1), Some(2), None]);
        slots.retire(1, 100);
        assert_eq!((slots.reclaim(100 + GRACE - 1), slots.take()), (None, None));
        assert_eq!(slots.reclaim(100 + GRACE), Some(1));
        assert_eq!((slots.reclaim(u64::MAX), slots.take()), (None, Some(1)));
    }
}

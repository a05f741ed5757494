//! When something ends: one deadline for each relayed address, permission, channel and reservation that lives, in
//! one queue.

use std::{collections::BTreeSet, net::IpAddr};

use relay_common::clock::BootNanos;

use super::{
    address::{ChannelNumber, Family},
    flow::AllocationId,
    reservation::Token,
};

/// What ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Relayed(AllocationId, Family),
    Permission(AllocationId, IpAddr),
    Channel(AllocationId, ChannelNumber),
    Reservation(Token),
}

/// The queue. Whoever keeps the deadline of a thing moves it here with [`Timers::set`], so that there is
/// exactly one entry for each.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(BootNanos, Timer)>);

impl Timers {
    /// Moves a deadline from `old` (`None`: there was none) to `new` (`None`: there is none any more).
    pub(super) fn set(&mut self, timer: Timer, old: Option<BootNanos>, new: Option<BootNanos>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            let was_there = self.0.remove(&(old, timer));
            debug_assert!(was_there, "{timer:?} has no deadline at {old}");
        }
        if let Some(new) = new {
            self.0.insert((new, timer));
        }
    }

    /// Takes out the earliest deadline that is at or before `now`.
    pub(super) fn pop_due(&mut self, now: BootNanos) -> Option<(BootNanos, Timer)> {
        let &(deadline, _) = self.0.first()?;
        if deadline > now {
            return None;
        }
        self.0.pop_first()
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<BootNanos> {
        self.0.first().map(|&(deadline, _)| deadline)
    }
}

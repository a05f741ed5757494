//! Indices into `NEXT_HOPS`, shared by all flows with the same source and destination address.

use std::{collections::HashMap, net::Ipv4Addr};

use relay_common::{clock::BootNanos, next_hop::NextHop};

use super::slots::Slots;
use crate::net::next_hop::NextHops;

/// Keeps an index resolved; see [`NextHops`].
pub(super) trait Resolve {
    /// See [`NextHops::track`].
    fn track(&mut self, index: u32, source: Ipv4Addr, destination: Ipv4Addr);
    /// See [`NextHops::release`].
    fn release(&mut self, index: u32);
    /// See [`NextHops::released`].
    fn released(&mut self) -> Option<u32>;
    /// See [`NextHops::stop`].
    fn stop(&mut self);
}

impl Resolve for NextHops {
    fn track(&mut self, index: u32, source: Ipv4Addr, destination: Ipv4Addr) {
        Self::track(self, index, source, destination);
    }

    fn release(&mut self, index: u32) {
        Self::release(self, index);
    }

    fn released(&mut self) -> Option<u32> {
        Self::released(self)
    }

    fn stop(&mut self) {
        Self::stop(self);
    }
}

/// Source and destination address of the packets that leave by a next hop.
type Pair = (Ipv4Addr, Ipv4Addr);

/// The table of next hops in use.
pub(super) struct NextHopTable<R> {
    resolver: R,
    slots: Slots,
    by_pair: HashMap<Pair, Shared>,
    pairs: HashMap<u32, Pair>,
}

struct Shared {
    index: u32,
    users: u32,
}

impl<R: Resolve> NextHopTable<R> {
    /// A table in a map of `limit` elements; index 0 is [`NextHop::NONE`].
    pub(super) fn new(resolver: R, limit: u32) -> Self {
        let slots = Slots::new(NextHop::NONE + 1, limit);
        Self { resolver, slots, by_pair: HashMap::new(), pairs: HashMap::new() }
    }

    /// The index for packets from `source` to `destination`, for one more user. `None`: the table is full.
    pub(super) fn acquire(&mut self, source: Ipv4Addr, destination: Ipv4Addr) -> Option<u32> {
        if let Some(shared) = self.by_pair.get_mut(&(source, destination)) {
            shared.users += 1;
            return Some(shared.index);
        }
        let index = self.slots.take()?;
        self.by_pair.insert((source, destination), Shared { index, users: 1 });
        self.pairs.insert(index, (source, destination));
        self.resolver.track(index, source, destination);
        Some(index)
    }

    /// One user less. [`NextHop::NONE`] has none.
    pub(super) fn release(&mut self, index: u32) {
        let Some(pair) = self.pairs.get(&index) else { return };
        let shared = self.by_pair.get_mut(pair).expect("both maps change together");
        shared.users -= 1;
        if shared.users == 0 {
            self.by_pair.remove(pair);
            self.pairs.remove(&index);
            self.resolver.release(index);
        }
    }

    /// Makes indices usable again that were released long enough ago.
    ///
    /// The wait begins when the resolver has taken the next hop back, which may be long after the release: it may
    /// be waiting for the kernel. A new flow must not find the old next hop here, nor a packet under way the new.
    pub(super) fn reclaim(&mut self, now: BootNanos) {
        while let Some(index) = self.resolver.released() {
            self.slots.retire(index, now);
        }
        while self.slots.reclaim(now).is_some() {}
    }

    /// Ends resolving.
    pub(super) fn stop(&mut self) {
        self.resolver.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::{super::slots::GRACE, super::testing::Recorder, *};

    const US: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
    const THEM: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 2);

    #[test]
    fn flows_between_the_same_addresses_share_an_index() {
        let recorder = Recorder::default();
        let mut table = NextHopTable::new(recorder.clone(), 8);
        let index = table.acquire(US, THEM).unwrap();
        assert_eq!(table.acquire(US, THEM), Some(index));
        assert_ne!(table.acquire(THEM, US), Some(index));
        table.release(index);
        assert!(recorder.tracked().contains_key(&index), "one user is left");
        table.release(index);
        assert!(!recorder.tracked().contains_key(&index));
    }

    #[test]
    fn index_zero_is_never_given_and_never_released() {
        let mut table = NextHopTable::new(Recorder::default(), 2);
        assert_eq!(table.acquire(US, THEM), Some(1));
        assert_eq!(table.acquire(THEM, US), None, "full");
        table.release(NextHop::NONE);
        table.release(1);
        assert_eq!(table.acquire(THEM, US), None, "a packet may still be on its way by index 1");
        table.reclaim(0);
        table.reclaim(GRACE);
        assert_eq!(table.acquire(THEM, US), Some(1));
    }

    #[test]
    fn an_index_is_not_used_again_while_its_old_next_hop_may_still_be_published() {
        let recorder = Recorder::default();
        let mut table = NextHopTable::new(recorder.clone(), 2);
        recorder.hold(true);
        assert_eq!(table.acquire(US, THEM), Some(1));
        table.release(1);
        for now in [0, GRACE, 100 * GRACE] {
            table.reclaim(now);
            assert_eq!(table.acquire(THEM, US), None, "the resolver waits for the kernel");
        }
        recorder.hold(false);
        table.reclaim(100 * GRACE);
        assert_eq!(table.acquire(THEM, US), None, "a packet may still be on its way by index 1");
        table.reclaim(101 * GRACE);
        assert_eq!(table.acquire(THEM, US), Some(1));
    }
}

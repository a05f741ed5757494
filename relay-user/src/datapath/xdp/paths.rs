//! Indices into `PATHS`, shared by all flows that lead the same way.

use std::collections::HashMap;

use relay_common::{clock::BootNanos, path::Path};

use super::{super::encode::Way, slots::Slots};
use crate::net::next_hop::NextHops;

/// Keeps an index resolved; see [`NextHops`].
pub(super) trait Resolve {
    /// See [`NextHops::track`].
    fn track(&mut self, index: u32, way: Way);
    /// See [`NextHops::release`].
    fn release(&mut self, index: u32);
    /// See [`NextHops::released`].
    fn released(&mut self) -> Option<u32>;
    /// See [`NextHops::stop`].
    fn stop(&mut self);
}

impl Resolve for NextHops {
    fn track(&mut self, index: u32, way: Way) {
        Self::track(self, index, way);
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

/// The table of paths in use.
pub(super) struct PathTable<R> {
    resolver: R,
    slots: Slots,
    by_way: HashMap<Way, Shared>,
    ways: HashMap<u32, Way>,
}

struct Shared {
    index: u32,
    users: u32,
}

impl<R: Resolve> PathTable<R> {
    /// A table in a map of `limit` elements; index 0 is [`Path::NONE`].
    pub(super) fn new(resolver: R, limit: u32) -> Self {
        let slots = Slots::new(Path::NONE + 1, limit);
        Self { resolver, slots, by_way: HashMap::new(), ways: HashMap::new() }
    }

    /// The index of the path that leads this way, for one more user. `None`: the table is full.
    pub(super) fn acquire(&mut self, way: Way) -> Option<u32> {
        if let Some(shared) = self.by_way.get_mut(&way) {
            shared.users += 1;
            return Some(shared.index);
        }
        let index = self.slots.take()?;
        self.by_way.insert(way, Shared { index, users: 1 });
        self.ways.insert(index, way);
        self.resolver.track(index, way);
        Some(index)
    }

    /// One user less. [`Path::NONE`] has none.
    pub(super) fn release(&mut self, index: u32) {
        let Some(way) = self.ways.get(&index) else { return };
        let shared = self.by_way.get_mut(way).expect("both maps change together");
        shared.users -= 1;
        if shared.users == 0 {
            self.by_way.remove(way);
            self.ways.remove(&index);
            self.resolver.release(index);
        }
    }

    /// Makes indices usable again that were released long enough ago.
    ///
    /// The wait begins when the resolver has taken the path back, which may be long after the release: it may
    /// be waiting for the kernel. A new flow must not find the old path here, nor a packet under way the new.
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
    use std::net::{IpAddr, Ipv4Addr};

    use super::{super::slots::GRACE, super::testing::Recorder, *};

    const US: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 1, 1));
    const THEM: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 1, 2));
    const OUT: Way = Way::Out(US, THEM);
    const BACK: Way = Way::Out(THEM, US);

    #[test]
    fn flows_that_lead_the_same_way_share_an_index() {
        let recorder = Recorder::default();
        let mut table = PathTable::new(recorder.clone(), 8);
        let index = table.acquire(OUT).unwrap();
        assert_eq!(table.acquire(OUT), Some(index));
        assert_ne!(table.acquire(BACK), Some(index));
        table.release(index);
        assert!(recorder.tracked().contains_key(&index), "one user is left");
        table.release(index);
        assert!(!recorder.tracked().contains_key(&index));
    }

    #[test]
    fn index_zero_is_never_given_and_never_released() {
        let mut table = PathTable::new(Recorder::default(), 2);
        assert_eq!(table.acquire(OUT), Some(1));
        assert_eq!(table.acquire(BACK), None, "full");
        table.release(Path::NONE);
        table.release(1);
        assert_eq!(table.acquire(BACK), None, "a packet may still be on its way by index 1");
        table.reclaim(0);
        table.reclaim(GRACE);
        assert_eq!(table.acquire(BACK), Some(1));
    }

    #[test]
    fn an_index_is_not_used_again_while_its_old_path_may_still_be_published() {
        let recorder = Recorder::default();
        let mut table = PathTable::new(recorder.clone(), 2);
        recorder.hold(true);
        assert_eq!(table.acquire(OUT), Some(1));
        table.release(1);
        for now in [0, GRACE, 100 * GRACE] {
            table.reclaim(now);
            assert_eq!(table.acquire(BACK), None, "the resolver waits for the kernel");
        }
        recorder.hold(false);
        table.reclaim(100 * GRACE);
        assert_eq!(table.acquire(BACK), None, "a packet may still be on its way by index 1");
        table.reclaim(101 * GRACE);
        assert_eq!(table.acquire(BACK), Some(1));
    }
}

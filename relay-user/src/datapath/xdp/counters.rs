//! Who each flow counter counts for, and what it came to.

use std::collections::HashMap;

use relay_common::{clock::BootNanos, counter::FlowCounter};

use super::{
    super::{Relayed, Traffic},
    slots::Slots,
    words::Words,
};
use crate::turn::{AllocationId, Direction};

/// The index of a flow that counts nothing.
pub(super) const UNCOUNTED: u32 = 0;

/// The flow counters: one word in the kernel for each flow, added up by differences.
///
/// A removed flow's counter is read for a last time only when no packet can be under way any more, and not
/// used for another flow before, so that nothing is lost and nothing is counted for the wrong allocation.
pub(super) struct Counters<W> {
    words: W,
    slots: Slots,
    /// By slot.
    counted: Vec<Option<Counted>>,
    accounts: HashMap<AllocationId, Account>,
    totals: Relayed,
}

/// What a counter counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CountsFor {
    pub(super) allocation: AllocationId,
    pub(super) direction: Direction,
    pub(super) hairpin: bool,
}

struct Counted {
    counts_for: CountsFor,
    last: FlowCounter,
}

#[derive(Default)]
struct Account {
    to_peer: Traffic,
    to_client: Traffic,
    /// Counters that still count for it.
    slots: Vec<u32>,
    forgotten: bool,
}

impl<W: Words> Counters<W> {
    /// Counters in the first `limit` of `words`, but for the very first, which counts nothing.
    pub(super) fn new(words: W, limit: u32) -> Self {
        Self {
            words,
            slots: Slots::new(UNCOUNTED + 1, limit),
            counted: Vec::new(),
            accounts: HashMap::new(),
            totals: Relayed::default(),
        }
    }

    /// A counter for a new flow. `None`: all are in use.
    pub(super) fn open(&mut self, counts_for: CountsFor) -> Option<u32> {
        let slot = self.slots.take()?;
        let last = FlowCounter(self.words.load(slot));
        let index = slot as usize;
        if self.counted.len() <= index {
            self.counted.resize_with(index + 1, || None);
        }
        self.counted[index] = Some(Counted { counts_for, last });
        self.accounts.entry(counts_for.allocation).or_default().slots.push(slot);
        Some(slot)
    }

    /// Gives up the counter of a flow that is no longer in the flow table.
    pub(super) fn close(&mut self, slot: u32, now: BootNanos) {
        self.slots.retire(slot, now);
    }

    /// Reads all counters, and for the last time those that were closed long enough ago.
    pub(super) fn sweep(&mut self, now: BootNanos) {
        for slot in 0..self.counted.len() {
            self.read(slot as u32);
        }
        while let Some(slot) = self.slots.reclaim(now) {
            self.settle(slot);
        }
    }

    /// Whom `slot` counts for.
    pub(super) fn counts_for(&self, slot: u32) -> Option<CountsFor> {
        self.counted.get(slot as usize)?.as_ref().map(|counted| counted.counts_for)
    }

    /// Totals as of the last sweep.
    pub(super) fn totals(&self) -> Relayed {
        self.totals
    }

    /// What was counted for one allocation until now: to peers, to the client.
    pub(super) fn traffic(&mut self, allocation: AllocationId) -> (Traffic, Traffic) {
        let Some(account) = self.accounts.get(&allocation) else { return Default::default() };
        for slot in account.slots.clone() {
            self.read(slot);
        }
        let account = &self.accounts[&allocation];
        (account.to_peer, account.to_client)
    }

    /// Whether no counter counts for an allocation any more.
    pub(super) fn is_settled(&self, allocation: AllocationId) -> bool {
        self.accounts.get(&allocation).is_none_or(|account| account.slots.is_empty())
    }

    /// Drops an account when its last counter is settled.
    pub(super) fn forget(&mut self, allocation: AllocationId) {
        if let Some(account) = self.accounts.get_mut(&allocation) {
            account.forgotten = true;
            self.drop_if_done(allocation);
        }
    }

    fn settle(&mut self, slot: u32) {
        self.read(slot);
        let Some(counted) = self.counted.get_mut(slot as usize).and_then(Option::take) else { return };
        let allocation = counted.counts_for.allocation;
        if let Some(account) = self.accounts.get_mut(&allocation) {
            account.slots.retain(|&other| other != slot);
            self.drop_if_done(allocation);
        }
    }

    fn drop_if_done(&mut self, allocation: AllocationId) {
        if self.accounts.get(&allocation).is_some_and(|account| account.forgotten && account.slots.is_empty())
        {
            self.accounts.remove(&allocation);
        }
    }

    fn read(&mut self, slot: u32) {
        let Some(Some(counted)) = self.counted.get_mut(slot as usize) else { return };
        let word = FlowCounter(self.words.load(slot));
        let (packets, bytes) = word.since(counted.last);
        if packets == 0 {
            return;
        }
        counted.last = word;
        let traffic = Traffic { packets, bytes };
        let CountsFor { allocation, direction, hairpin } = counted.counts_for;
        match (direction, hairpin) {
            (Direction::ToPeer, false) => self.totals.to_peer += traffic,
            (Direction::ToClient, false) => self.totals.to_client += traffic,
            // A hairpin packet is counted by the sender's flow to the peer and by the receiver's flow to the
            // client; it is one packet.
            (Direction::ToPeer, true) => self.totals.hairpin += traffic,
            (Direction::ToClient, true) => {}
        }
        let account = self.accounts.entry(allocation).or_default();
        match direction {
            Direction::ToPeer => account.to_peer += traffic,
            Direction::ToClient => account.to_client += traffic,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::slots::GRACE, super::testing::Memory, *};

    const ALICE: AllocationId = AllocationId(1);
    const BOB: AllocationId = AllocationId(2);

    fn counts_for(allocation: AllocationId, direction: Direction, hairpin: bool) -> CountsFor {
        CountsFor { allocation, direction, hairpin }
    }

    fn traffic(packets: u64, bytes: u64) -> Traffic {
        Traffic { packets, bytes }
    }

    #[test]
    fn totals_and_accounts_agree_by_direction() {
        let words = Memory::used_counters(8);
        let mut counters = Counters::new(words.clone(), 8);
        let to_peer = counters.open(counts_for(ALICE, Direction::ToPeer, false)).unwrap();
        let to_client = counters.open(counts_for(ALICE, Direction::ToClient, false)).unwrap();
        words.count(to_peer, 100);
        words.count(to_peer, 50);
        words.count(to_client, 7);
        assert_eq!(counters.traffic(ALICE), (traffic(2, 150), traffic(1, 7)));
        words.count(to_client, 1);
        counters.sweep(0);
        let totals = counters.totals();
        assert_eq!((totals.to_peer, totals.to_client), (traffic(2, 150), traffic(2, 8)));
        assert_eq!(counters.traffic(BOB), Default::default());
    }

    #[test]
    fn a_hairpin_packet_is_one_packet() {
        let words = Memory::used_counters(8);
        let mut counters = Counters::new(words.clone(), 8);
        let sender = counters.open(counts_for(ALICE, Direction::ToPeer, true)).unwrap();
        let receiver = counters.open(counts_for(BOB, Direction::ToClient, true)).unwrap();
        words.count(sender, 160);
        words.count(receiver, 160);
        counters.sweep(0);
        assert_eq!(counters.totals(), Relayed { hairpin: traffic(1, 160), ..Relayed::default() });
        assert_eq!(counters.traffic(ALICE).0, traffic(1, 160));
        assert_eq!(counters.traffic(BOB).1, traffic(1, 160));
    }

    #[test]
    fn packets_under_way_when_a_flow_ends_are_counted_for_its_allocation() {
        let words = Memory::used_counters(2);
        let mut counters = Counters::new(words.clone(), 2);
        let slot = counters.open(counts_for(ALICE, Direction::ToPeer, false)).unwrap();
        words.count(slot, 10);
        counters.close(slot, 0);
        counters.sweep(1);
        words.count(slot, 20);
        assert_eq!(counters.open(counts_for(BOB, Direction::ToPeer, false)), None, "still settling");
        assert_eq!(counters.traffic(ALICE).0, traffic(2, 30));
        words.count(slot, 30);
        assert!(!counters.is_settled(ALICE), "the last packet may be under way still");
        counters.sweep(GRACE);
        assert!(counters.is_settled(ALICE) && counters.is_settled(BOB));
        assert_eq!(counters.traffic(ALICE).0, traffic(3, 60));

        let reused = counters.open(counts_for(BOB, Direction::ToPeer, false)).unwrap();
        assert_eq!(reused, slot);
        words.count(reused, 1);
        counters.sweep(GRACE);
        assert_eq!(counters.traffic(BOB).0, traffic(1, 1));
        assert_eq!(counters.traffic(ALICE).0, traffic(3, 60));
        assert_eq!(counters.totals().to_peer, traffic(4, 61));
    }

    #[test]
    fn a_forgotten_account_goes_when_its_last_counter_is_settled_and_leaves_its_share_in_the_totals() {
        let words = Memory::used_counters(2);
        let mut counters = Counters::new(words.clone(), 2);
        let slot = counters.open(counts_for(ALICE, Direction::ToPeer, false)).unwrap();
        counters.close(slot, 0);
        counters.forget(ALICE);
        words.count(slot, 5);
        counters.sweep(GRACE);
        assert!(counters.accounts.is_empty());
        assert_eq!(counters.totals().to_peer, traffic(1, 5));
    }
}

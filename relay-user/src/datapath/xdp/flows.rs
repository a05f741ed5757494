//! The flow table: which flows the kernel knows, and the counter and path that each of them has.

use std::{
    collections::{HashMap, HashSet},
    io, iter,
    net::SocketAddr,
};

use relay_common::{clock::BootNanos, flow::FlowEntry};

use super::{
    super::{
        InstallError,
        encode::{self, Indices, Key},
    },
    counters::{Counters, CountsFor, UNCOUNTED},
    paths::{PathTable, Resolve},
    ports::Ports,
    words::Words,
};
use crate::turn::{Direction, Flow, FlowForm, FlowId};

/// `FLOWS_V4` and `FLOWS_V6`, the kernel's side of the table.
pub(super) trait FlowMap {
    /// Adds an entry or replaces the one under the same key.
    fn insert(&mut self, key: &Key, entry: &FlowEntry) -> io::Result<()>;
    /// Removes an entry; `ENOENT` if there is none.
    fn remove(&mut self, key: &Key) -> io::Result<()>;
}

/// Flows and endpoints, as installed.
pub(super) struct FlowTable<M, W, R> {
    map: M,
    pub(super) counters: Counters<W>,
    pub(super) paths: PathTable<R>,
    ports: Ports<W>,
    max_flows: u32,
    flows: HashMap<FlowId, Installed>,
    by_key: HashMap<Key, FlowId>,
    relayed: HashSet<SocketAddr>,
    /// Channel flows to the client that were refused, by the permission's flow that would take their packets instead.
    refused_channels: HashMap<FlowId, HashSet<FlowId>>,
}

/// A flow's place in the maps.
#[derive(Clone, Copy)]
struct Installed {
    key: Key,
    alias: Option<Key>,
    counter: u32,
    path: u32,
}

impl Installed {
    fn keys(&self) -> impl Iterator<Item = Key> + use<> {
        iter::once(self.key).chain(self.alias)
    }
}

impl<M: FlowMap, W: Words, R: Resolve> FlowTable<M, W, R> {
    pub(super) fn new(
        map: M,
        counters: Counters<W>,
        paths: PathTable<R>,
        ports: Ports<W>,
        max_flows: u32,
    ) -> Self {
        Self {
            map,
            counters,
            paths,
            ports,
            max_flows,
            flows: HashMap::new(),
            by_key: HashMap::new(),
            relayed: HashSet::new(),
            refused_channels: HashMap::new(),
        }
    }

    /// Adds a flow or replaces the one of the same id, in place. After an error the kernel has no such flow under any
    /// of its keys, neither the new one nor an older one that might outlive it.
    ///
    /// While a channel's flow to the client is missing, so is its permission's: the program would make Data indications
    /// of what must leave as ChannelData (RFC 8656 section 12.7). The permission's comes back when it is installed again.
    pub(super) fn install(&mut self, flow: &Flow, now: BootNanos) -> Result<(), InstallError> {
        let Some(permission) = permission_to_client(&flow.id) else {
            if self.refused_channels.contains_key(&flow.id) {
                return Err(InstallError::Full { capacity: self.max_flows });
            }
            return self.place(flow, now);
        };
        let placed = self.place(flow, now);
        if placed.is_ok() {
            self.forget_refusal(&flow.id);
        } else {
            self.refused_channels.entry(permission).or_default().insert(flow.id);
            self.take_out(&permission, now);
        }
        placed
    }

    fn place(&mut self, flow: &Flow, now: BootNanos) -> Result<(), InstallError> {
        // The channel or the peer's address now belongs to another binding.
        for key in encode::keys(flow) {
            if let Some(other) = self.by_key.get(&key).filter(|other| **other != flow.id).copied() {
                self.take_out(&other, now);
            }
        }
        let old = self.flows.get(&flow.id).copied();
        let new = match self.prepare(flow, old, now) {
            Ok(new) => new,
            Err(error) => {
                self.take_out(&flow.id, now);
                return Err(error);
            }
        };
        if let Err(error) = self.write(flow, &new) {
            let fresh = old.is_none_or(|old| old.counter != new.counter);
            self.undo(&new, fresh, now);
            self.take_out(&flow.id, now);
            return Err(self.refused(error));
        }
        if let Some(old) = self.flows.insert(flow.id, new) {
            for key in old.keys().filter(|old| new.keys().all(|new| new != *old)) {
                self.remove_key(&key);
            }
            if old.counter != new.counter {
                self.close_counter(old.counter, now);
            }
            self.paths.release(old.path);
        }
        self.by_key.extend(new.keys().map(|key| (key, flow.id)));
        Ok(())
    }

    /// Removes a flow; unknown ones are ignored. What it counted stays.
    pub(super) fn remove(&mut self, id: &FlowId, now: BootNanos) {
        self.forget_refusal(id);
        self.take_out(id, now);
    }

    fn take_out(&mut self, id: &FlowId, now: BootNanos) {
        if let Some(installed) = self.flows.remove(id) {
            self.undo(&installed, true, now);
        }
    }

    /// Makes datagrams to a listener ours, if the program can be told.
    pub(super) fn add_listener(&mut self, listener: SocketAddr) -> Result<(), InstallError> {
        let (key, entry) = encode::listener(listener);
        self.map.insert(&key, &entry).map_err(|error| self.refused(error))?;
        self.ports.add_listener(listener.port());
        Ok(())
    }

    /// Makes datagrams to a relayed transport address ours, likewise.
    pub(super) fn add_relayed(&mut self, relayed: SocketAddr) -> Result<(), InstallError> {
        let (key, entry) = encode::relayed(relayed);
        self.map.insert(&key, &entry).map_err(|error| self.refused(error))?;
        if self.relayed.insert(relayed) {
            self.ports.add_relayed(relayed.port());
        }
        Ok(())
    }

    /// Ends what [`Self::add_relayed`] began.
    pub(super) fn remove_relayed(&mut self, relayed: SocketAddr) {
        if self.relayed.remove(&relayed) {
            self.ports.remove_relayed(relayed.port());
            self.remove_key(&encode::relayed(relayed).0);
        }
    }

    /// The place for a flow: the counter of the `old` one, if that counts for the same, and one more use of a path.
    fn prepare(
        &mut self,
        flow: &Flow,
        old: Option<Installed>,
        now: BootNanos,
    ) -> Result<Installed, InstallError> {
        let full = InstallError::Full { capacity: self.max_flows };
        if old.is_none() && self.flows.len() >= self.max_flows as usize {
            return Err(full);
        }
        self.paths.reclaim(now);
        let Some(path) = self.paths.acquire(encode::way(flow)) else { return Err(full) };
        let counts_for = counts_for(flow);
        let counter = match (old, counts_for) {
            (Some(old), _) if self.counters.counts_for(old.counter) == counts_for => Some(old.counter),
            (_, Some(counts_for)) => self.counters.open(counts_for),
            (_, None) => Some(UNCOUNTED),
        };
        let Some(counter) = counter else {
            self.paths.release(path);
            return Err(full);
        };
        let mut keys = encode::keys(flow);
        let key = keys.next().expect("each flow has a key");
        Ok(Installed { key, alias: keys.next(), counter, path })
    }

    fn write(&mut self, flow: &Flow, place: &Installed) -> io::Result<()> {
        let indices = Indices { counter: place.counter, path: place.path };
        place.keys().try_for_each(|key| self.map.insert(&key, &encode::entry(flow, &key, indices)))
    }

    /// Gives up a place and takes its entries, if any, out of the kernel. What one uses that the kernel keeps is never
    /// given to another flow.
    fn undo(&mut self, place: &Installed, with_counter: bool, now: BootNanos) {
        let mut all_gone = true;
        for key in place.keys() {
            all_gone &= self.remove_key(&key);
            self.by_key.remove(&key);
        }
        if !all_gone {
            return;
        }
        if with_counter {
            self.close_counter(place.counter, now);
        }
        self.paths.release(place.path);
    }

    fn forget_refusal(&mut self, channel: &FlowId) {
        let Some(permission) = permission_to_client(channel) else { return };
        if let Some(channels) = self.refused_channels.get_mut(&permission) {
            channels.remove(channel);
            if channels.is_empty() {
                self.refused_channels.remove(&permission);
            }
        }
    }

    fn close_counter(&mut self, counter: u32, now: BootNanos) {
        if counter != UNCOUNTED {
            self.counters.close(counter, now);
        }
    }

    /// Whether there is no such entry any more.
    fn remove_key(&mut self, key: &Key) -> bool {
        match self.map.remove(key) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                tracing::error!("the kernel did not remove a flow, which goes on until it expires: {error}");
                false
            }
            _ => true,
        }
    }

    fn refused(&self, error: io::Error) -> InstallError {
        match error.raw_os_error() {
            Some(libc::E2BIG) => InstallError::Full { capacity: self.max_flows },
            _ => InstallError::Kernel(error),
        }
    }
}

/// The flow that takes what a channel's flow to the client does not; `None` for all other flows.
fn permission_to_client(id: &FlowId) -> Option<FlowId> {
    match *id {
        FlowId { direction: Direction::ToClient, form: FlowForm::Channel { peer, .. }, .. } => {
            Some(FlowId { form: FlowForm::Permission { peer: peer.0.ip() }, ..*id })
        }
        _ => None,
    }
}

/// `None`: nothing, it carries nothing alone.
fn counts_for(flow: &Flow) -> Option<CountsFor> {
    let FlowId { direction, form, .. } = flow.id;
    let hairpin = flow.hairpin.is_some();
    (form != FlowForm::Allocation).then_some(CountsFor { allocation: flow.allocation, direction, hairpin })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use relay_common::{flow::FlowKind, port_class};

    use super::{
        super::{
            super::{Traffic, encode::Way},
            slots::{GRACE, with_room_for_retired},
            testing::{Memory, Recorder, Table},
        },
        *,
    };
    use crate::turn::{
        AllocationId, ChannelNumber, ClientAddr, Direction, FiveTuple, Hairpin, PeerAddr, RelayedAddr,
        ServerAddr, Transport,
    };

    const ALICE: AllocationId = AllocationId(1);

    struct Bench {
        table: FlowTable<Table, Memory, Recorder>,
        map: Table,
        words: Memory,
        resolver: Recorder,
    }

    impl Bench {
        fn new(max_flows: u32) -> Self {
            let (map, resolver) = (Table::default(), Recorder::default());
            let limit = with_room_for_retired(max_flows);
            let words = Memory::used_counters(limit);
            let table = FlowTable::new(
                map.clone(),
                Counters::new(words.clone(), limit),
                PathTable::new(resolver.clone(), limit),
                Ports::new(Memory::new(port_class::WORDS)),
                max_flows,
            );
            Self { table, map, words, resolver }
        }

        fn entry(&self, flow: &Flow) -> Option<FlowEntry> {
            self.entries(flow)[0]
        }

        /// Under each key of a flow, what there is.
        fn entries(&self, flow: &Flow) -> Vec<Option<FlowEntry>> {
            encode::keys(flow).map(|key| self.map.entries.borrow().get(&key).copied()).collect()
        }

        /// Where the paths in use lead.
        fn ways(&self) -> HashSet<Way> {
            self.resolver.tracked().into_values().collect()
        }

        /// Takes the counters that are left.
        fn exhaust_counters(&mut self) {
            while self.table.counters.open(counts_for(&to_peer(0x4001)).unwrap()).is_some() {}
        }
    }

    fn of_form(direction: Direction, form: FlowForm) -> Flow {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let id = FlowId {
            direction,
            five_tuple: FiveTuple {
                client: ClientAddr(address("198.18.1.2:5000")),
                server: ServerAddr(address("198.18.1.1:3478")),
                transport: Transport::Udp,
            },
            relayed: RelayedAddr(address("198.18.2.1:49152")),
            form,
        };
        Flow { id, allocation: ALICE, expires: 100, hairpin: None, meter: None }
    }

    fn flow(direction: Direction, channel: u16, peer: &str) -> Flow {
        let (peer, number) = (PeerAddr(peer.parse().unwrap()), ChannelNumber::new(channel).unwrap());
        of_form(direction, FlowForm::Channel { peer, number })
    }

    fn to_peer(channel: u16) -> Flow {
        flow(Direction::ToPeer, channel, "198.18.2.2:3480")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A permission for another allocation's relayed address, which clients may know by an external one too.
    fn hairpin_permission(alias: Option<&str>) -> Flow {
        let flow = of_form(Direction::ToPeer, FlowForm::Permission { peer: ip("198.18.2.1") });
        let hairpin = Hairpin { advertised: ip("203.0.113.1"), alias: alias.map(ip) };
        Flow { hairpin: Some(hairpin), ..flow }
    }

    #[test]
    fn replacing_a_flow_keeps_its_counter_and_counts() {
        let mut bench = Bench::new(4);
        bench.table.install(&to_peer(0x4000), 0).unwrap();
        let before = bench.entry(&to_peer(0x4000)).unwrap();
        bench.words.count(before.counter, 100);
        bench.table.install(&Flow { expires: 200, ..to_peer(0x4000) }, 0).unwrap();
        let after = bench.entry(&to_peer(0x4000)).unwrap();
        assert_eq!((after.expires, after.counter, after.path), (200, before.counter, before.path));
        assert_eq!(bench.resolver.tracked().len(), 1);
        bench.words.count(after.counter, 100);
        assert_eq!(bench.table.counters.traffic(ALICE).0, Traffic { packets: 2, bytes: 200 });
    }

    #[test]
    fn a_removed_flow_leaves_nothing_but_its_counts() {
        let mut bench = Bench::new(4);
        let (there, back) = (to_peer(0x4000), flow(Direction::ToClient, 0x4000, "198.18.2.2:3480"));
        bench.table.install(&there, 0).unwrap();
        bench.table.install(&back, 0).unwrap();
        let out = |source, destination| Way::Out(ip(source), ip(destination));
        let ways = [out("198.18.1.1", "198.18.1.2"), out("198.18.2.1", "198.18.2.2")];
        assert_eq!(bench.ways(), HashSet::from(ways));
        bench.words.count(bench.entry(&back).unwrap().counter, 7);

        bench.table.remove(&there.id, 0);
        bench.table.remove(&back.id, 0);
        bench.table.remove(&back.id, 0);
        assert!(bench.map.entries.borrow().is_empty());
        assert!(bench.resolver.tracked().is_empty());
        bench.table.counters.sweep(GRACE);
        assert_eq!(bench.table.counters.traffic(ALICE).1, Traffic { packets: 1, bytes: 7 });
    }

    #[test]
    fn a_full_table_refuses_new_flows_and_keeps_the_old() {
        let mut bench = Bench::new(2);
        bench.table.install(&to_peer(0x4000), 0).unwrap();
        bench.table.install(&to_peer(0x4001), 0).unwrap();
        let error = bench.table.install(&to_peer(0x4002), 0).unwrap_err();
        assert!(matches!(error, InstallError::Full { capacity: 2 }), "{error}");
        assert!(error.to_string().contains("max_flows"), "{error}");
        assert_eq!(bench.map.entries.borrow().len(), 2);
        bench
            .table
            .install(&Flow { expires: 300, ..to_peer(0x4001) }, 0)
            .expect("a replacement needs no room");
        bench.table.remove(&to_peer(0x4000).id, 0);
        bench.table.install(&to_peer(0x4002), 0).expect("one was removed");
    }

    #[test]
    fn dp_035_while_a_channel_has_no_room_its_peer_is_not_heard_in_data_indications_either() {
        let mut bench = Bench::new(2);
        let permission = of_form(Direction::ToClient, FlowForm::Permission { peer: ip("198.18.2.2") });
        let channel = flow(Direction::ToClient, 0x4000, "198.18.2.2:3480");
        bench.table.install(&permission, 0).unwrap();
        bench.table.install(&to_peer(0x4001), 0).unwrap();
        bench.table.install(&channel, 0).unwrap_err();
        assert_eq!(bench.entry(&permission), None);
        bench.table.install(&permission, 0).expect_err("not before the channel");
        bench.table.install(&channel, 0).expect("the permission has made room");
        bench.table.remove(&to_peer(0x4001).id, 0);
        bench.table.install(&permission, 0).unwrap();

        // A channel that ends has no part in it any more.
        let other = flow(Direction::ToClient, 0x4002, "198.18.2.2:3482");
        bench.table.install(&other, 0).unwrap_err();
        bench.table.install(&permission, 0).unwrap_err();
        bench.table.remove(&other.id, 0);
        bench.table.install(&permission, 0).unwrap();
    }

    #[test]
    fn a_refused_replacement_does_not_leave_the_older_flow_behind() {
        let mut bench = Bench::new(4);
        bench.table.install(&to_peer(0x4000), 0).unwrap();
        bench.words.count(bench.entry(&to_peer(0x4000)).unwrap().counter, 9);
        bench.map.refuse.set(Some(libc::ENOMEM));
        bench.table.install(&Flow { expires: 50, ..to_peer(0x4000) }, 0).unwrap_err();
        assert!(bench.map.entries.borrow().is_empty());
        assert!(bench.resolver.tracked().is_empty());
        bench.map.refuse.set(None);
        bench.table.install(&to_peer(0x4000), 0).unwrap();
        assert_eq!(bench.table.counters.traffic(ALICE).0, Traffic { packets: 1, bytes: 9 });
    }

    #[test]
    fn without_room_for_a_replacement_the_older_flow_does_not_stay_behind() {
        // The counters come to an end before the flows: what was removed a moment ago still holds some.
        let mut bench = Bench::new(1);
        bench.table.install(&to_peer(0x4000), 0).unwrap();
        bench.exhaust_counters();

        let of_another_allocation = Flow { allocation: AllocationId(2), ..to_peer(0x4000) };
        let error = bench.table.install(&of_another_allocation, 0).unwrap_err();
        assert!(matches!(error, InstallError::Full { .. }), "{error}");
        assert!(bench.map.entries.borrow().is_empty(), "it would count for the allocation before");
        assert!(bench.resolver.tracked().is_empty());
    }

    #[test]
    fn without_room_for_a_channel_bound_anew_the_older_binding_does_not_stay_behind() {
        let mut bench = Bench::new(1);
        let (old, new) = (to_peer(0x4000), flow(Direction::ToPeer, 0x4000, "198.18.2.3:9"));
        bench.table.install(&old, 0).unwrap();
        bench.exhaust_counters();

        bench.table.install(&new, 0).unwrap_err();
        assert!(bench.map.entries.borrow().is_empty(), "media for the new peer would reach the old one");
        assert!(bench.resolver.tracked().is_empty());
    }

    #[test]
    fn a_refused_new_flow_gives_everything_back() {
        let mut bench = Bench::new(1);
        bench.map.refuse.set(Some(libc::E2BIG));
        let error = bench.table.install(&to_peer(0x4000), 0).unwrap_err();
        assert!(matches!(error, InstallError::Full { .. }), "{error}");
        assert!(bench.resolver.tracked().is_empty());
        bench.map.refuse.set(None);
        bench.table.install(&to_peer(0x4000), 0).unwrap();
    }

    #[test]
    fn a_channel_bound_anew_is_not_removed_with_its_predecessor() {
        let mut bench = Bench::new(4);
        let (old, new) = (to_peer(0x4000), flow(Direction::ToPeer, 0x4000, "198.18.2.3:9"));
        bench.table.install(&old, 0).unwrap();
        bench.words.count(bench.entry(&old).unwrap().counter, 1);
        bench.table.install(&new, 0).unwrap();
        bench.table.remove(&old.id, 0);
        let entry = bench.entry(&new).expect("still there");
        assert_eq!(entry.destination_port, 9u16.to_be());
        assert_eq!(bench.resolver.tracked().len(), 1);
        assert_eq!(bench.table.counters.traffic(ALICE).0, Traffic { packets: 1, bytes: 1 });
    }

    #[test]
    fn a_flow_of_a_new_allocation_has_a_new_account() {
        let mut bench = Bench::new(1);
        let bob = AllocationId(2);
        bench.table.install(&to_peer(0x4000), 0).unwrap();
        bench.words.count(bench.entry(&to_peer(0x4000)).unwrap().counter, 1);
        bench.table.install(&Flow { allocation: bob, ..to_peer(0x4000) }, 0).unwrap();
        bench.words.count(bench.entry(&to_peer(0x4000)).unwrap().counter, 2);
        assert_eq!(bench.table.counters.traffic(ALICE).0, Traffic { packets: 1, bytes: 1 });
        assert_eq!(bench.table.counters.traffic(bob).0, Traffic { packets: 1, bytes: 2 });
        assert_eq!(bench.resolver.tracked().len(), 1);
    }

    #[test]
    fn a_hairpin_leads_nowhere_and_says_what_the_receiver_is_shown() {
        let mut bench = Bench::new(4);
        let hairpin = |advertised| Some(Hairpin { advertised: ip(advertised), alias: None });
        let flow = Flow { hairpin: hairpin("203.0.113.1"), ..to_peer(0x4000) };
        bench.table.install(&flow, 0).unwrap();
        let [source, destination] = ["198.18.2.1", "198.18.2.2"].map(ip);
        let way = |advertised| Way::Internal { source, destination, advertised: ip(advertised) };
        assert_eq!(bench.ways(), HashSet::from([way("203.0.113.1")]));
        let before = bench.entry(&flow).unwrap();

        bench.table.install(&Flow { hairpin: hairpin("203.0.113.2"), ..flow }, 0).unwrap();
        assert_eq!(bench.ways(), HashSet::from([way("203.0.113.2")]));
        let after = bench.entry(&flow).unwrap();
        assert_ne!(after.path, before.path);
        assert_eq!(after.counter, before.counter);
    }

    #[test]
    fn an_allocation_counts_nothing() {
        let mut bench = Bench::new(2);
        let allocation = of_form(Direction::ToPeer, FlowForm::Allocation);
        let metered = Flow { meter: Some(7), ..allocation };
        bench.table.install(&metered, 0).unwrap();
        bench.table.install(&Flow { expires: 200, ..metered }, 0).unwrap();
        let entry = bench.entry(&allocation).unwrap();
        assert_eq!((entry.counter, entry.meter, entry.expires), (UNCOUNTED, 7, 200));
        assert_eq!(entry.kind, FlowKind::Allocation as u8);

        bench.table.install(&to_peer(0x4000), 0).unwrap();
        assert_ne!(bench.entry(&to_peer(0x4000)).unwrap().counter, UNCOUNTED);
        bench.table.remove(&allocation.id, 0);
        assert_eq!(bench.map.entries.borrow().len(), 1);
        assert_eq!(bench.resolver.tracked().len(), 1);
        assert!(!bench.table.counters.is_settled(ALICE), "the channel's counter is another");
        bench.table.counters.sweep(GRACE);
        bench.table.install(&metered, 0).unwrap();
        assert_eq!(bench.entry(&allocation).unwrap().counter, UNCOUNTED);
    }

    #[test]
    fn a_flow_is_under_both_its_keys_or_under_neither() {
        let mut bench = Bench::new(4);
        let (one, both) = (hairpin_permission(None), hairpin_permission(Some("203.0.113.1")));
        bench.table.install(&both, 0).unwrap();
        let entries = bench.entries(&both);
        assert_eq!(entries.len(), 2);
        assert!(entries.iter().all(Option::is_some), "{entries:?}");
        let indices = |entry: Option<FlowEntry>| entry.map(|entry| (entry.counter, entry.path));
        assert_eq!(indices(entries[0]), indices(entries[1]));

        bench.table.install(&one, 0).unwrap();
        assert_eq!(bench.entries(&both)[1], None, "the alias is gone");
        bench.table.install(&both, 0).unwrap();
        bench.table.remove(&both.id, 0);
        assert!(bench.map.entries.borrow().is_empty() && bench.ways().is_empty());
        bench.table.install(&both, 0).expect("nothing of it is left");

        for patience in [0, 1] {
            bench.map.refuse.set(Some(libc::ENOMEM));
            bench.map.patience.set(patience);
            bench.table.install(&Flow { expires: 50, ..both }, 0).unwrap_err();
            assert!(bench.map.entries.borrow().is_empty(), "after {patience}");
            assert!(bench.ways().is_empty());
            bench.map.refuse.set(None);
            bench.table.install(&both, 0).unwrap();
        }
    }

    #[test]
    fn who_takes_one_key_of_a_flow_over_takes_the_whole_flow_away() {
        let mut bench = Bench::new(4);
        let both = hairpin_permission(Some("203.0.113.1"));
        bench.table.install(&both, 0).unwrap();
        bench.words.count(bench.entry(&both).unwrap().counter, 3);
        let other = of_form(Direction::ToPeer, FlowForm::Permission { peer: ip("203.0.113.1") });
        bench.table.install(&other, 0).unwrap();
        assert_eq!(bench.entry(&both), None);
        assert!(bench.entry(&other).is_some());
        bench.table.remove(&both.id, 0);
        assert!(bench.entry(&other).is_some());
        assert_eq!(bench.table.counters.traffic(ALICE).0, Traffic { packets: 1, bytes: 3 });
    }

    #[test]
    fn both_families_share_counters_and_room() {
        let mut bench = Bench::new(2);
        let mut from_ipv6 = to_peer(0x4000);
        from_ipv6.id.five_tuple.client = ClientAddr("[2001:db8::2]:5000".parse().unwrap());
        from_ipv6.id.five_tuple.server = ServerAddr("[2001:db8::1]:3478".parse().unwrap());
        bench.table.install(&from_ipv6, 0).unwrap();
        bench.table.install(&to_peer(0x4000), 0).unwrap();
        assert!(matches!(encode::keys(&from_ipv6).next(), Some(Key::V6(_))));
        let [six, four] = [from_ipv6, to_peer(0x4000)].map(|flow| bench.entry(&flow).unwrap());
        assert_ne!(six.counter, four.counter);
        assert_eq!(six.path, four.path, "both leave the same way");
        bench.table.install(&to_peer(0x4001), 0).unwrap_err();
        bench.table.remove(&from_ipv6.id, 0);
        assert_eq!(bench.entry(&from_ipv6), None);
        bench.table.install(&to_peer(0x4001), 0).unwrap();
    }

    #[test]
    fn endpoints_come_and_go() {
        let mut bench = Bench::new(1);
        for (listener, relayed) in
            [("198.18.1.1:3478", "198.18.2.1:49152"), ("[2001:db8::1]:3478", "[2001:db8::2]:49152")]
        {
            let relayed = relayed.parse().unwrap();
            bench.table.add_listener(listener.parse().unwrap()).unwrap();
            bench.table.add_relayed(relayed).unwrap();
            let kinds = |bench: &Bench| {
                let mut kinds: Vec<u8> =
                    bench.map.entries.borrow().values().map(|value| value.kind).collect();
                kinds.sort();
                kinds
            };
            assert_eq!(kinds(&bench), [FlowKind::Listener as u8, FlowKind::Relayed as u8]);
            bench.table.remove_relayed(relayed);
            bench.table.remove_relayed(relayed);
            assert_eq!(kinds(&bench), [FlowKind::Listener as u8]);
            bench.map.entries.borrow_mut().clear();
        }
    }
}

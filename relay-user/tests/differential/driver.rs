//! The driver's part: the server's words become map entries. It keeps account of all that it has put there.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use relay_common::{flow::FlowEntry, interface::Interface, path::Path, port_class::PortClass};
use relay_user::{
    datapath::encode::{self, Indices, Key, Way},
    net::next_hop::{NextHop, Tag},
    turn::{Flow, FlowForm, FlowId, Output, RelayedAddr},
};

use crate::{
    program::{INTERFACES, METERS, Program},
    receive::Endpoint,
    world::{SENDING, Vlan, mac},
};

type Meters = Arc<dyn AsRef<[AtomicU64]> + Send + Sync>;

/// What is in the maps.
pub struct Driver<'a> {
    pub program: &'a mut Program,
    rng: StdRng,
    pub flows: Vec<Installed>,
    /// Flows that were removed, the last ones.
    pub gone: Vec<Flow>,
    entries: HashMap<Key, (FlowEntry, Option<FlowId>)>,
    ways: HashMap<Way, u32>,
    paths: Vec<(Way, Option<NextHop>)>,
    endpoints: HashMap<SocketAddr, Endpoint>,
    ports: HashMap<u16, u32>,
    /// By counter: what it holds.
    pub counted: Vec<u64>,
    meters: Meters,
    pub tx_ports: [bool; INTERFACES],
    /// What is still to be done, while the driver is late.
    late: Option<VecDeque<Output>>,
    torn: Vec<Torn>,
}

/// A flow in the maps.
#[derive(Clone, Debug)]
pub struct Installed {
    pub flow: Flow,
    keys: Vec<Key>,
    pub counter: u32,
}

/// Something in the maps that is not what belongs there.
#[derive(Clone, Debug)]
enum Torn {
    Flow(Key, FlowEntry),
    Path(u32, Path),
}

impl<'a> Driver<'a> {
    /// Empty maps.
    pub fn new(program: &'a mut Program, meters: Meters, seed: u64) -> Self {
        for index in 0..METERS {
            program.meters.store(index, 0);
        }
        program.clear_vlans();
        Self {
            program,
            rng: StdRng::seed_from_u64(seed),
            flows: Vec::new(),
            gone: Vec::new(),
            entries: HashMap::new(),
            ways: HashMap::new(),
            // The first is never valid, and no counter either.
            paths: Vec::new(),
            endpoints: HashMap::new(),
            ports: HashMap::new(),
            counted: vec![0],
            meters,
            tx_ports: [false; INTERFACES],
            late: None,
            torn: Vec::new(),
        }
    }

    pub fn set_interfaces(&mut self, macs: &[Option<[u8; 6]>; INTERFACES], vlans: &[Vlan]) {
        for (place, mac) in macs.iter().enumerate() {
            self.program.set_interface(place, mac.map_or(Interface::default(), encode::interface));
            self.tx_ports[place] = mac.is_some() && self.rng.random_bool(0.97);
            self.program.set_tx_port(place, self.tx_ports[place]);
        }
        for vlan in vlans {
            let key = encode::vlan_key(self.program.ifindexes[vlan.ingress], vlan.tags);
            self.program.insert_vlan(key, encode::interface(vlan.mac));
        }
    }

    pub fn add_listener(&mut self, listener: SocketAddr) {
        let (key, entry) = encode::listener(listener);
        self.insert(key, entry, None);
        self.endpoints.insert(listener, Endpoint::Listener);
        self.program.set_port_class(listener.port(), PortClass::Listener);
    }

    pub fn open_relayed(&mut self, RelayedAddr(relayed): RelayedAddr) {
        let (key, entry) = encode::relayed(relayed);
        self.insert(key, entry, None);
        self.endpoints.insert(relayed, Endpoint::Relayed);
        *self.ports.entry(relayed.port()).or_default() += 1;
        self.program.set_port_class(relayed.port(), PortClass::Relayed);
    }

    fn close_relayed(&mut self, RelayedAddr(relayed): RelayedAddr) {
        self.remove(&encode::relayed(relayed).0, None);
        self.endpoints.remove(&relayed);
        let users = self.ports.get_mut(&relayed.port()).expect("it was opened");
        *users -= 1;
        if *users == 0 {
            self.program.set_port_class(relayed.port(), PortClass::Foreign);
        }
    }

    /// Does what the server wants done, now or later.
    pub fn apply(&mut self, output: Output) {
        if let Some(late) = &mut self.late {
            let is_urgent = matches!(output, Output::InstallFlow(_));
            late.push_back(output);
            if is_urgent {
                // A response waits for it, and it for what comes before.
                std::mem::take(late).into_iter().for_each(|output| self.do_now(output));
            }
        } else {
            self.do_now(output);
        }
    }

    fn do_now(&mut self, output: Output) {
        match output {
            Output::InstallFlow(flow) => self.install(&flow),
            Output::RemoveFlow(id) => self.remove_flow(&id),
            Output::CloseRelayed { relayed } => self.close_relayed(relayed),
            Output::OpenRelayed { .. }
            | Output::ToClient { .. }
            | Output::ToPeer { .. }
            | Output::Icmp(_)
            | Output::Event(_) => {}
        }
    }

    /// From now on the driver is late: what has expired stays in the maps.
    pub fn delay(&mut self) {
        self.late.get_or_insert_default();
    }

    /// Does what it is late with, and mends what was torn.
    pub fn catch_up(&mut self) {
        self.mend();
        self.torn.clear();
        for output in self.late.take().into_iter().flatten() {
            self.do_now(output);
        }
    }

    fn install(&mut self, flow: &Flow) {
        let path = self.path(encode::way(flow));
        let old = self.flows.iter().position(|installed| installed.flow.id == flow.id);
        let old = old.map(|place| self.flows.remove(place));
        let counter = match old {
            Some(old) if old.flow.allocation == flow.allocation => old.counter,
            _ if flow.id.form == FlowForm::Allocation => 0,
            _ => self.counter(),
        };
        let keys: Vec<_> = encode::keys(flow).collect();
        for key in &keys {
            let entry = encode::entry(flow, key, Indices { counter, path });
            self.insert(*key, entry, Some(flow.id));
        }
        self.flows.push(Installed { flow: *flow, keys, counter });
    }

    fn remove_flow(&mut self, id: &FlowId) {
        let Some(place) = self.flows.iter().position(|installed| installed.flow.id == *id) else { return };
        let Installed { flow, keys, .. } = self.flows.remove(place);
        for key in &keys {
            self.remove(key, Some(*id));
        }
        if self.gone.len() >= 16 {
            self.gone.remove(0);
        }
        self.gone.push(flow);
    }

    fn insert(&mut self, key: Key, entry: FlowEntry, owner: Option<FlowId>) {
        self.program.insert_flow(&key, &entry);
        self.entries.insert(key, (entry, owner));
    }

    fn remove(&mut self, key: &Key, owner: Option<FlowId>) {
        // A channel bound anew has the key of the one before.
        if self.entries.get(key).is_some_and(|&(_, of)| of == owner) {
            self.entries.remove(key);
            self.program.remove_flow(key);
        }
    }

    fn counter(&mut self) -> u32 {
        let index = self.counted.len();
        self.counted.push(0);
        self.program.counters.store(index, 0);
        index as u32
    }

    fn path(&mut self, way: Way) -> u32 {
        if let Some(&index) = self.ways.get(&way) {
            return index;
        }
        let next_hop = self.next_hop(&way);
        self.paths.push((way, next_hop));
        let index = self.paths.len() as u32;
        self.ways.insert(way, index);
        self.program.set_path(index, encode::path(index, way, next_hop.as_ref()));
        index
    }

    /// The path that packets from one address to another leave by; `None`: it is not resolved.
    pub fn next_hop_of(&self, source: SocketAddr, destination: SocketAddr) -> Option<NextHop> {
        let index = self.ways.get(&Way::Out(source.ip(), destination.ip()))?;
        self.paths[*index as usize - 1].1
    }

    /// Routes and neighbours change.
    pub fn change_paths(&mut self, rng: &mut StdRng) {
        for index in 1..=self.paths.len() as u32 {
            if rng.random_bool(0.1) {
                let way = self.paths[index as usize - 1].0;
                let next_hop = self.next_hop(&way);
                self.paths[index as usize - 1].1 = next_hop;
                self.program.set_path(index, encode::path(index, way, next_hop.as_ref()));
            }
        }
    }

    fn next_hop(&mut self, way: &Way) -> Option<NextHop> {
        let rng = &mut self.rng;
        if matches!(way, Way::Internal { .. }) || rng.random_bool(0.04) {
            return None;
        }
        let tag = |rng: &mut StdRng, service| Tag { id: rng.random_range(1..4095), service };
        let service = rng.random_bool(0.3);
        let tags = match rng.random_range(0..10) {
            0 | 1 => [Some(tag(rng, service)), None],
            2 => [Some(tag(rng, service)), Some(tag(rng, false))],
            _ => [None, None],
        };
        Some(NextHop {
            ifindex: self.program.ifindexes[rng.random_range(0..SENDING)],
            mtu: *[1500, 1500, 1500, 1500, 1280, 1492, 576, 9000, 9000, 65_536].choose(rng).unwrap(),
            destination_mac: mac(rng),
            source_mac: mac(rng),
            tags,
            scatter_gather: rng.random(),
        })
    }

    pub fn endpoint(&self, address: SocketAddr) -> Option<Endpoint> {
        self.endpoints.get(&address).copied()
    }

    /// The flow that a counter is of.
    pub fn flow_of_counter(&self, counter: usize) -> Option<&Flow> {
        self.flows
            .iter()
            .find(|installed| installed.counter as usize == counter)
            .map(|installed| &installed.flow)
    }

    /// Counters that the kernel has moved since they were last accepted: index and difference.
    pub fn moved_counters(&self) -> Vec<(usize, u64)> {
        let counters = self.program.counters;
        self.counted
            .iter()
            .enumerate()
            .filter_map(|(index, &counted)| {
                let difference = counters.load(index).wrapping_sub(counted);
                (difference != 0).then_some((index, difference))
            })
            .collect()
    }

    pub fn accept_counters(&mut self) {
        for (index, counted) in self.counted.iter_mut().enumerate() {
            *counted = self.program.counters.load(index);
        }
    }

    /// The words of the server that the kernel's differ from: index, the server's, the kernel's.
    pub fn meters_that_differ(&self) -> Option<(usize, u64, u64)> {
        let words = (*self.meters).as_ref().iter().map(|word| word.load(Ordering::Relaxed));
        words
            .enumerate()
            .map(|(index, word)| (index, word, self.program.meters.load(index)))
            .find(|(_, server, kernel)| server != kernel)
    }

    /// What the slow path has metered holds for the kernel too.
    pub fn copy_meters(&mut self) {
        for (index, word) in (*self.meters).as_ref().iter().enumerate() {
            self.program.meters.store(index, word.load(Ordering::Relaxed));
        }
    }

    /// Makes counters and meters what they were before the last packet: the server has not seen it yet.
    pub fn undo(program: &Program, counted: &[u64], meters: &Meters) {
        for (index, &counted) in counted.iter().enumerate() {
            program.counters.store(index, counted);
        }
        for (index, word) in (**meters).as_ref().iter().enumerate() {
            program.meters.store(index, word.load(Ordering::Relaxed));
        }
    }

    pub fn meters(&self) -> Meters {
        self.meters.clone()
    }

    /// Makes some entries what a reader may see of them while they are changed.
    pub fn tear(&mut self, rng: &mut StdRng) {
        let flows: Vec<Key> = self.flows.iter().flat_map(|installed| installed.keys.clone()).collect();
        for _ in 0..rng.random_range(1..4) {
            if let Some(&key) = flows.choose(rng) {
                let other = self.entries[flows.choose(rng).unwrap()].0;
                let mut entry = self.entries[&key].0;
                match rng.random_range(0..4) {
                    0 => entry = FlowEntry::default(),
                    1 => entry.expires ^= 1 << 62,
                    2 => entry.path = entry.path.wrapping_add(1),
                    _ => entry = other,
                }
                if !key.verify(&entry) {
                    self.torn.push(Torn::Flow(key, entry));
                }
            }
            if !self.paths.is_empty() {
                let index = rng.random_range(1..=self.paths.len() as u32);
                let (way, next_hop) = &self.paths[index as usize - 1];
                let mut path = encode::path(index, *way, next_hop.as_ref());
                match rng.random_range(0..3) {
                    0 => path = Path::default(),
                    1 => path.mtu ^= 0x100,
                    _ => path.destination.0[0] ^= 1,
                }
                self.torn.push(Torn::Path(index, path));
            }
        }
        self.spoil();
    }

    pub fn is_torn(&self) -> bool {
        !self.torn.is_empty()
    }

    /// Puts the torn entries in place.
    pub fn spoil(&mut self) {
        for torn in &self.torn {
            match torn {
                Torn::Flow(key, entry) if self.entries.contains_key(key) => {
                    self.program.insert_flow(key, entry)
                }
                Torn::Flow(..) => {}
                Torn::Path(index, path) => self.program.set_path(*index, *path),
            }
        }
    }

    /// Puts the right entries in their place.
    pub fn mend(&mut self) {
        for torn in &self.torn {
            match torn {
                Torn::Flow(key, _) => {
                    if let Some((entry, _)) = self.entries.get(key) {
                        self.program.insert_flow(key, entry);
                    }
                }
                Torn::Path(index, _) => {
                    let (way, next_hop) = &self.paths[*index as usize - 1];
                    self.program.set_path(*index, encode::path(*index, *way, next_hop.as_ref()));
                }
            }
        }
    }
}

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        for key in self.entries.keys() {
            self.program.remove_flow(key);
        }
        for address in self.endpoints.keys() {
            self.program.set_port_class(address.port(), PortClass::Foreign);
        }
    }
}

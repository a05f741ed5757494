//! Stand-ins for the kernel's side, shared by the tables' unit tests.

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque},
    io,
    net::Ipv4Addr,
    rc::Rc,
    sync::{Arc, Mutex},
};

use relay_common::{
    counter::FlowCounter,
    flow::{FlowKeyV4, FlowV4},
};

use super::{flows::FlowMap, next_hops::Resolve, words::Words};

/// Shared words in plain memory.
#[derive(Clone)]
pub(super) struct Memory(Rc<[Cell<u64>]>);

impl Memory {
    pub(super) fn new(len: u32) -> Self {
        Self((0..len).map(|_| Cell::new(0)).collect())
    }

    /// Counters just below the wrap, as they may well be when they have served another flow.
    pub(super) fn used_counters(len: u32) -> Self {
        Self((0..len).map(|_| Cell::new(u64::MAX - 1)).collect())
    }

    /// Counts one packet, as the program does.
    pub(super) fn count(&self, index: u32, bytes: u16) {
        self.store(index, self.load(index).wrapping_add(FlowCounter::one(bytes)));
    }
}

impl Words for Memory {
    fn load(&self, index: u32) -> u64 {
        self.0[index as usize].get()
    }

    fn store(&self, index: u32, word: u64) {
        self.0[index as usize].set(word);
    }
}

/// A resolver that only remembers.
#[derive(Clone, Default)]
pub(super) struct Recorder(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    tracked: HashMap<u32, (Ipv4Addr, Ipv4Addr)>,
    released: VecDeque<u32>,
    held: bool,
}

impl Recorder {
    pub(super) fn tracked(&self) -> HashMap<u32, (Ipv4Addr, Ipv4Addr)> {
        self.0.lock().unwrap().tracked.clone()
    }

    /// Whether it is to keep what is released to itself, as one that waits for the kernel.
    pub(super) fn hold(&self, held: bool) {
        self.0.lock().unwrap().held = held;
    }
}

impl Resolve for Recorder {
    fn track(&mut self, index: u32, source: Ipv4Addr, destination: Ipv4Addr) {
        let before = self.0.lock().unwrap().tracked.insert(index, (source, destination));
        assert_eq!(before, None, "index {index} is in use");
    }

    fn release(&mut self, index: u32) {
        let mut recorded = self.0.lock().unwrap();
        recorded.tracked.remove(&index).expect("released what was not tracked");
        recorded.released.push_back(index);
    }

    fn released(&mut self) -> Option<u32> {
        let mut recorded = self.0.lock().unwrap();
        if recorded.held { None } else { recorded.released.pop_front() }
    }

    fn stop(&mut self) {}
}

/// A flow map that can be told to refuse.
#[derive(Clone, Default)]
pub(super) struct Table {
    pub(super) entries: Rc<std::cell::RefCell<HashMap<FlowKeyV4, FlowV4>>>,
    pub(super) refuse: Rc<Cell<Option<i32>>>,
}

impl FlowMap for Table {
    fn insert(&mut self, key: &FlowKeyV4, value: &FlowV4) -> io::Result<()> {
        if let Some(errno) = self.refuse.get() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        assert!(value.verify(key), "stored unsealed");
        self.entries.borrow_mut().insert(*key, *value);
        Ok(())
    }

    fn remove(&mut self, key: &FlowKeyV4) -> io::Result<()> {
        let removed = self.entries.borrow_mut().remove(key);
        removed.map(|_| ()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }
}

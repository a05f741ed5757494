//! Stand-ins for the kernel's side, shared by the tables' unit tests.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    io,
    rc::Rc,
    sync::{Arc, Mutex},
};

use relay_common::{counter::FlowCounter, flow::FlowEntry};

use super::{
    super::encode::{Key, Way},
    flows::FlowMap,
    paths::Resolve,
    words::Words,
};

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
    tracked: HashMap<u32, Way>,
    released: VecDeque<u32>,
    held: bool,
}

impl Recorder {
    pub(super) fn tracked(&self) -> HashMap<u32, Way> {
        self.0.lock().unwrap().tracked.clone()
    }

    /// Whether it is to keep what is released to itself, as one that waits for the kernel.
    pub(super) fn hold(&self, held: bool) {
        self.0.lock().unwrap().held = held;
    }
}

impl Resolve for Recorder {
    fn track(&mut self, index: u32, way: Way) {
        let before = self.0.lock().unwrap().tracked.insert(index, way);
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
    pub(super) entries: Rc<RefCell<HashMap<Key, FlowEntry>>>,
    pub(super) refuse: Rc<Cell<Option<i32>>>,
    /// Insertions that succeed before that.
    pub(super) patience: Rc<Cell<u32>>,
}

impl FlowMap for Table {
    fn insert(&mut self, key: &Key, value: &FlowEntry) -> io::Result<()> {
        if let Some(errno) = self.refuse.get() {
            let Some(patience) = self.patience.get().checked_sub(1) else {
                return Err(io::Error::from_raw_os_error(errno));
            };
            self.patience.set(patience);
        }
        assert!(key.verify(value), "stored unsealed");
        self.entries.borrow_mut().insert(*key, *value);
        Ok(())
    }

    fn remove(&mut self, key: &Key) -> io::Result<()> {
        let removed = self.entries.borrow_mut().remove(key);
        removed.map(|_| ()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }
}

//! Maps read at once: arrays of words as memory, and the outcomes in one system call ([`crate::batch`]).

use std::{
    collections::BTreeMap,
    ops::Deref,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::AtomicU64,
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use relay_common::outcome::Outcome;

use crate::batch::lookup_batch;

/// A mappable array map of words.
pub struct Words {
    memory: NonNull<AtomicU64>,
    len: usize,
}

impl Words {
    /// Maps the first `len` words of the map `fd`.
    pub fn new(fd: impl AsFd, len: usize) -> Self {
        let size = (len * 8).try_into().expect("more than nothing");
        // SAFETY: a new mapping, of a map whose elements are words.
        let memory = unsafe {
            mmap(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, fd, 0)
        };
        Self { memory: memory.expect("a mappable array").cast(), len }
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `len` words that stay mapped as long as `self` lives; the kernel changes them atomically.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` in this size; no reference outlives `self`.
        unsafe { munmap(self.memory.cast(), self.len * 8) }.expect("a mapping of ours");
    }
}

// SAFETY: shared memory of atomics, bound to no thread.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

/// Every outcome that is not 0, all CPUs added up, of the map `OUTCOMES`.
pub fn outcomes(map: BorrowedFd<'_>) -> BTreeMap<&'static str, u64> {
    let cpus = aya::util::nr_cpus().expect("the number of CPUs");
    let mut counts = vec![0u64; Outcome::ALL.len() * cpus];
    lookup_batch(map, Outcome::ALL.len(), &mut counts).expect("BPF_MAP_LOOKUP_BATCH");
    Outcome::ALL
        .iter()
        .zip(counts.chunks(cpus))
        .map(|(outcome, counts)| (outcome.name(), counts.iter().sum()))
        .filter(|&(_, count)| count > 0)
        .collect()
}

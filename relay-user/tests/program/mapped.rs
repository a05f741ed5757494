//! Maps read at once: arrays of words as memory, and the outcomes in one system call.

use std::{
    collections::BTreeMap,
    io,
    ops::Deref,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    sync::atomic::AtomicU64,
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use relay_common::outcome::Outcome;

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

/// The first `count` elements of a map with keys of 4 bytes (`BPF_MAP_LOOKUP_BATCH` of include/uapi/linux/bpf.h).
fn lookup_batch(map: BorrowedFd<'_>, count: usize, values: &mut [u64]) -> io::Result<()> {
    const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
    #[repr(C)]
    struct Batch {
        in_batch: u64,
        out_batch: u64,
        keys: u64,
        values: u64,
        count: u32,
        map_fd: u32,
        elem_flags: u64,
        flags: u64,
    }
    let mut keys = vec![0u32; count];
    let mut next = 0u32;
    let mut batch = Batch {
        in_batch: 0,
        out_batch: (&raw mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: count as u32,
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the attributes are this command's, and its buffers hold `count` keys and all CPUs' values of each.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_BATCH,
            &raw mut batch,
            size_of::<Batch>() as libc::c_ulong,
        )
    };
    let error = io::Error::last_os_error();
    // ENOENT: there are no more, which is how it ends.
    if (result == 0 || error.raw_os_error() == Some(libc::ENOENT)) && batch.count as usize == count {
        return Ok(());
    }
    Err(error)
}

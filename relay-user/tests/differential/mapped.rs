//! Array maps of words in memory.

use std::{
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap};

/// A BPF array map of `u64` in memory, for the life of the process.
#[derive(Clone, Copy)]
pub struct Mapped(&'static [AtomicU64]);

impl Mapped {
    /// Maps an array map of `len` words.
    pub fn new(map: impl AsFd, len: u32) -> Self {
        let size = NonZeroUsize::new(len as usize * 8).unwrap();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new shared mapping at an address of the kernel's choice; it overlaps nothing.
        let address = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, map, 0) }.unwrap();
        let words: NonNull<AtomicU64> = address.cast();
        // SAFETY: the mapping is so long, aligned to a page, and never unmapped.
        Self(unsafe { slice::from_raw_parts(words.as_ptr(), len as usize) })
    }

    pub fn load(&self, index: usize) -> u64 {
        self.0[index].load(Ordering::Relaxed)
    }

    pub fn store(&self, index: usize, word: u64) {
        self.0[index].store(word, Ordering::Relaxed);
    }
}

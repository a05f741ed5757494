//! Arrays of `u64` that kernel and userspace share: BPF arrays mapped into memory (`BPF_F_MMAPABLE`), so
//! that reading a hundred thousand counters costs no system call.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// An array of words that the program reads or writes at the same time.
pub(super) trait Words {
    /// The word at `index`.
    fn load(&self, index: u32) -> u64;
    /// Sets the word at `index`. Only one thread of userspace does.
    fn store(&self, index: u32, word: u64);
}

/// A BPF array map of `u64` in memory.
#[derive(Debug)]
pub(super) struct Mapped {
    words: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone and is accessed by atomics only.
unsafe impl Send for Mapped {}
// SAFETY: likewise.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps an array map of `len` elements of 8 bytes.
    pub(super) fn new(map: impl AsFd, len: u32) -> io::Result<Self> {
        let len = len as usize;
        let size = NonZeroUsize::new(len * size_of::<u64>())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "an empty map"))?;
        // SAFETY: a new shared mapping at an address of the kernel's choice; it overlaps nothing.
        let address = unsafe {
            mmap(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, map, 0)
        }?;
        Ok(Self { words: address.cast(), len })
    }

    fn word(&self, index: u32) -> &AtomicU64 {
        &self.as_ref()[index as usize]
    }
}

impl AsRef<[AtomicU64]> for Mapped {
    fn as_ref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has this many words and lives as long as the value; pages are aligned to more than 8
        // bytes; the kernel side accesses the words by whole 8-byte loads and atomic operations.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.len) }
    }
}

impl Words for Mapped {
    fn load(&self, index: u32) -> u64 {
        self.word(index).load(Ordering::Acquire)
    }

    fn store(&self, index: u32, word: u64) {
        self.word(index).store(word, Ordering::Release);
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this size; no reference outlives the value.
        if let Err(error) = unsafe { munmap(self.words.cast(), self.len * size_of::<u64>()) } {
            tracing::error!("munmap of a BPF array: {error}");
        }
    }
}

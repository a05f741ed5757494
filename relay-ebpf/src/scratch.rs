//! What one part of the program finds out about a packet, for the next: it would not fit the stack, and the verifier
//! would follow every way through the one part with every way through the next.

use core::arch::asm;

use crate::{decide::Relayed, maps::SCRATCH};

/// A CPU's notes on the packet it is processing.
pub(crate) struct Scratch {
    pub(crate) relayed: Relayed,
    /// Data on its way from one place in the frame to another.
    pub(crate) data: [u64; DATA_WORDS],
}

/// Words for all data that fits an ordinary link.
pub(crate) const DATA_WORDS: usize = 2048 / 8;

/// This CPU's.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: a map value of this size and alignment, which is this CPU's own while the program runs, and asked for once.
    // What is read of it was written before.
    SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}

/// Puts `value` into its place. The compiler must not remember what it was, or the verifier would too.
#[inline(always)]
pub(crate) fn note<T>(place: &mut T, value: T) -> &T {
    *place = value;
    // SAFETY: changes nothing. (One instruction, since line information takes none of none.)
    unsafe {
        asm!("{0} = {0}", inout(reg) core::ptr::from_mut(place) => _, options(nostack, preserves_flags));
    }
    place
}

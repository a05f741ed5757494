//! The packet's bytes: the only place that turns offsets into pointers.
//!
//! A pointer into the packet is dead after its head or tail has moved. The borrow checker holds what the
//! verifier asks: references borrow the [`Packet`], and moving takes it mutably.

use core::{arch::asm, intrinsics::is_val_statically_known};

use aya_ebpf::{
    EbpfContext as _,
    cty::c_void,
    helpers::generated::{
        bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
        bpf_xdp_store_bytes,
    },
    programs::XdpContext,
};

/// What may be read and written in a packet in place.
///
/// # Safety
/// Every bit pattern is valid, there is no padding, and the alignment is 1.
pub(crate) unsafe trait Plain: Copy {}

/// A packet being processed.
pub(crate) struct Packet {
    ctx: XdpContext,
}

impl Packet {
    #[inline(always)]
    pub(crate) const fn new(ctx: XdpContext) -> Self {
        Self { ctx }
    }

    /// The `T` at `offset`, if the linear part of the frame holds all of it.
    #[inline(always)]
    pub(crate) fn at<T: Plain>(&self, offset: usize) -> Option<&T> {
        let start = self.ctx.data() + offset;
        if start + size_of::<T>() > self.ctx.data_end() {
            return None;
        }
        // SAFETY: within the frame (just checked), which lives as long as the program runs and is moved only
        // through &mut self; any bits at any address are a `T`.
        Some(unsafe { &*(start as *const T) })
    }

    /// The `T` at `offset`, to be overwritten.
    #[inline(always)]
    pub(crate) fn at_mut<T: Plain>(&mut self, offset: usize) -> Option<&mut T> {
        let start = self.ctx.data() + offset;
        if start + size_of::<T>() > self.ctx.data_end() {
            return None;
        }
        // SAFETY: as in `at`; &mut self makes it the only reference.
        Some(unsafe { &mut *(start as *mut T) })
    }

    /// [`Self::at`] an offset that the verifier knows no number for.
    #[inline(always)]
    pub(crate) fn at_any<T: Plain>(&self, offset: usize) -> Option<&T> {
        self.at(bounded(offset))
    }

    /// [`Self::at_mut`] an offset that the verifier knows no number for.
    #[inline(always)]
    pub(crate) fn at_any_mut<T: Plain>(&mut self, offset: usize) -> Option<&mut T> {
        self.at_mut(bounded(offset))
    }

    /// Copies `len` bytes at `offset` to the beginning of `to`, of which there are as many. False: the frame has not so
    /// many.
    #[inline(always)]
    pub(crate) fn read<const N: usize>(&self, offset: usize, to: &mut [u64; N], len: usize) -> bool {
        if len == 0 {
            return true;
        }
        let Some(len) = len_within::<N>(len) else { return false };
        // SAFETY: the context is the kernel's; there is room for so many bytes, any of which are numbers.
        unsafe { bpf_xdp_load_bytes(self.ctx.ctx, offset as u32, to.as_mut_ptr().cast(), len) == 0 }
    }

    /// Copies `len` bytes (at least one, and at most what `scratch` holds) from one offset to another. False: the frame has not
    /// so many.
    #[inline(always)]
    pub(crate) fn copy<const N: usize>(
        &mut self,
        from: u32,
        to: u32,
        len: usize,
        scratch: &mut [u64; N],
    ) -> bool {
        let Some(len) = len_within::<N>(len) else { return false };
        let scratch = scratch.as_mut_ptr().cast();
        // SAFETY: the context is the kernel's; there is room for so many bytes, any of which are numbers; &mut self means
        // that no reference is left.
        unsafe {
            bpf_xdp_load_bytes(self.ctx.ctx, from, scratch, len) == 0
                && bpf_xdp_store_bytes(self.ctx.ctx, to, scratch, len) == 0
        }
    }

    /// Bytes of the frame in its first piece of memory, which is all that the program can read and write.
    #[inline(always)]
    pub(crate) fn linear_len(&self) -> usize {
        // Else the compiler may begin with the end, from which the verifier lets nothing but a beginning be taken.
        unfolded(self.ctx.data_end() - self.ctx.data())
    }

    /// Bytes of the frame in all its pieces.
    #[inline(always)]
    pub(crate) fn whole_len(&self) -> usize {
        // SAFETY: the context is the one the kernel gave.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as usize }
    }

    /// Index of the interface that the packet came in by.
    #[inline(always)]
    pub(crate) fn ingress_ifindex(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }

    /// Takes `delta` bytes off the front of the frame, or adds some for a negative one. False when the driver
    /// has left no room; the frame is then as it was.
    #[inline(always)]
    pub(crate) fn move_head(&mut self, delta: i32) -> bool {
        // SAFETY: the context is the one the kernel gave; &mut self means that no reference is left.
        delta == 0 || unsafe { bpf_xdp_adjust_head(self.ctx.ctx, delta) } == 0
    }

    /// Adds `delta` bytes to the end of the frame, or takes some off for a negative one. False when the driver has left
    /// no room; the frame is then as it was.
    #[inline(always)]
    pub(crate) fn move_tail(&mut self, delta: i32) -> bool {
        // SAFETY: as in `move_head`.
        delta == 0 || unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, delta) } == 0
    }

    /// For helpers that take the context.
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut c_void {
        self.ctx.as_ptr()
    }
}

/// The same offset, of which the compiler knows nothing any more: it would work out the beginning and the end of what is
/// read apart from each other, and the verifier, which follows pointers and not numbers, would not see that the one is
/// checked by the other.
#[inline(always)]
pub(crate) fn unfolded(mut offset: usize) -> usize {
    // SAFETY: changes nothing. (One instruction, since line information takes none of none.)
    unsafe { asm!("{0} = {0}", inout(reg) offset, options(pure, nomem, nostack, preserves_flags)) };
    offset
}

/// [`unfolded`], and at most 32767, as the verifier sees too whatever it has forgotten: Linux 6.1 does not know that numbers on
/// the stack are the same as one that was compared, and 6.12 not how wide a number with its bytes exchanged is.
#[inline(always)]
fn bounded(mut offset: usize) -> usize {
    // A number is one for the verifier, too.
    if is_val_statically_known(offset) {
        return offset;
    }
    // SAFETY: arithmetic.
    unsafe { asm!("{0} &= 0x7fff", inout(reg) offset, options(pure, nomem, nostack, preserves_flags)) };
    offset
}

/// `len`, if it is at least 1 and at most what `N` words hold: one comparison that says both. (Linux 6.1's verifier learns nothing
/// from "not 0".)
#[inline(always)]
fn len_within<const N: usize>(len: usize) -> Option<u32> {
    let last = unfolded(len.wrapping_sub(1));
    if last < 8 * N { Some(last as u32 + 1) } else { None }
}

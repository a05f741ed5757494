//! The packet's bytes: the only place that turns offsets into pointers.
//!
//! A pointer into the packet is dead after its head or tail has moved. The borrow checker holds what the
//! verifier asks: references borrow the [`Packet`], and moving takes it mutably.

use aya_ebpf::cty::c_void;
use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    programs::XdpContext,
};

/// Bytes of the Ethernet header.
pub(crate) const ETHERNET_LEN: usize = 14;
/// Bytes of an IPv4 header without options.
pub(crate) const IPV4_LEN: usize = 20;
/// Bytes of the UDP header.
pub(crate) const UDP_LEN: usize = 8;
/// Where the UDP payload begins behind an IPv4 header without options.
pub(crate) const PAYLOAD_AT: usize = ETHERNET_LEN + IPV4_LEN + UDP_LEN;

/// What may be read and written in a packet in place.
///
/// # Safety
/// Every bit pattern is valid, and the alignment is at most 2: frames begin at an even address, and nothing
/// more can be relied on.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: bytes and 16-bit words.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for [u16; 2] {}

/// Ethernet, IPv4 (without options) and UDP headers as they lie in a frame, network byte order. All in
/// 16-bit words: anything wider would be read byte by byte.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Headers {
    pub(crate) destination_mac: [u16; 3],
    pub(crate) source_mac: [u16; 3],
    pub(crate) ether_type: u16,
    /// Version and header length, then DSCP and ECN.
    pub(crate) version_tos: u16,
    pub(crate) total_len: u16,
    pub(crate) identification: u16,
    /// Flags and fragment offset.
    pub(crate) fragment: u16,
    pub(crate) ttl_protocol: u16,
    pub(crate) ip_checksum: u16,
    pub(crate) source_addr: [u16; 2],
    pub(crate) destination_addr: [u16; 2],
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) udp_len: u16,
    pub(crate) udp_checksum: u16,
}
const _: () = assert!(size_of::<Headers>() == PAYLOAD_AT);
// SAFETY: 16-bit words.
unsafe impl Plain for Headers {}

/// The ChannelData header (RFC 8656 section 12.4), network byte order.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ChannelDataHeader {
    pub(crate) number: u16,
    pub(crate) len: u16,
}
const _: () = assert!(size_of::<ChannelDataHeader>() == relay_common::channel_data::HEADER_LEN);
// SAFETY: 16-bit words.
unsafe impl Plain for ChannelDataHeader {}

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
        // through &mut self; any bits at any even address are a `T`.
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

    /// Bytes of the frame in its first piece of memory, which is all that the program can read and write.
    #[inline(always)]
    pub(crate) fn linear_len(&self) -> usize {
        self.ctx.data_end() - self.ctx.data()
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

    /// Takes `len` bytes off the end of the frame.
    #[inline(always)]
    pub(crate) fn cut_tail(&mut self, len: u32) -> bool {
        // SAFETY: as in `move_head`.
        len == 0 || unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, -(len as i32)) } == 0
    }

    /// For helpers that take the context.
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut c_void {
        self.ctx.as_ptr()
    }
}

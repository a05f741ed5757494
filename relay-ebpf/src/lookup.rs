//! Reads the maps. Whatever userspace changes in place is copied word by word, and a copy counts only when its
//! check word proves it whole.

use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    ptr::read_volatile,
};

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use relay_common::{
    clock::BootNanos,
    counter::FlowCounter,
    flow::{FLOW_V4_WORDS, FlowKeyV4, FlowV4},
    next_hop::NextHop,
    outcome::Outcome,
    port_class::{self, PortClass},
};

use crate::maps::{CLOCK, FLOW_COUNTERS, FLOWS_V4, INTERFACES, NEXT_HOPS, PORT_CLASSES};

/// The whole flow stored under `key`, whatever its kind and age.
#[inline(always)]
pub(crate) fn flow(key: &FlowKeyV4) -> Result<FlowV4, Outcome> {
    let key = &key.in_words();
    let entry = FLOWS_V4.get_ptr(key).ok_or(Outcome::NoFlow)?;
    // SAFETY: a map value of 56 bytes, aligned to 8.
    let flow = FlowV4::from_words(unsafe { copy::<FLOW_V4_WORDS>(entry.cast()) });
    if flow.verify(key) { Ok(flow) } else { Err(Outcome::Torn) }
}

/// Whether the local address and port of `key` are a listener or a live relayed address.
#[inline(always)]
pub(crate) fn is_endpoint(key: &FlowKeyV4) -> bool {
    FLOWS_V4.get_ptr(key.endpoint().in_words()).is_some()
}

/// The whole next hop at `index`. Its MTU is 0 while it is not resolved.
#[inline(always)]
pub(crate) fn next_hop(index: u32) -> Result<NextHop, Outcome> {
    let entry = NEXT_HOPS.get_ptr(index).ok_or(Outcome::NextHop)?;
    // SAFETY: a map value of 32 bytes, aligned to 8.
    let next_hop = NextHop::from_words(unsafe { copy::<4>(entry.cast()) });
    if next_hop.verify(index) {
        Ok(next_hop)
    } else {
        Err(if index == NextHop::NONE { Outcome::NextHop } else { Outcome::Torn })
    }
}

/// What the relay uses `port` (host byte order) for, if it uses it.
#[inline(always)]
pub(crate) fn port_class(port: u16) -> Option<PortClass> {
    let entry = PORT_CLASSES.get_ptr(port_class::word(port))?;
    // SAFETY: a map value of 8 bytes, aligned to 8.
    let word = unsafe { read_volatile(entry) };
    match port_class::of(word, port) {
        class if class == PortClass::Listener as u8 => Some(PortClass::Listener),
        class if class == PortClass::Relayed as u8 => Some(PortClass::Relayed),
        _ => None,
    }
}

/// The word that an attached interface is ([`relay_common::interface::Interface::word`]), else 0.
#[inline(always)]
pub(crate) fn interface(ifindex: u32) -> u64 {
    match INTERFACES.get_ptr(ifindex) {
        // SAFETY: a map value of 8 bytes, aligned to 8: one word, so never torn.
        Some(entry) => unsafe { read_volatile(entry.cast()) },
        None => 0,
    }
}

/// CLOCK_BOOTTIME to the last tick.
#[inline(always)]
pub(crate) fn now() -> BootNanos {
    let boot_offset = match CLOCK.get_ptr(0) {
        // SAFETY: a map value of 8 bytes, aligned to 8.
        Some(clock) => unsafe { read_volatile(clock.cast::<u64>()) },
        None => 0,
    };
    // SAFETY: takes nothing, returns a number.
    boot_offset + unsafe { bpf_ktime_get_coarse_ns() }
}

/// The counter of one flow.
#[derive(Clone, Copy)]
pub(crate) struct Counter(*mut u64);

impl Counter {
    /// The counter at `index`. A flow without one is not whole.
    #[inline(always)]
    pub(crate) fn at(index: u32) -> Result<Self, Outcome> {
        FLOW_COUNTERS.get_ptr_mut(index).map(Self).ok_or(Outcome::Torn)
    }

    /// The low half of the number of packets counted so far.
    #[inline(always)]
    pub(crate) fn packets(self) -> u16 {
        // SAFETY: a map value of 8 bytes, aligned to 8.
        (unsafe { read_volatile(self.0) } >> FlowCounter::PACKETS_SHIFT) as u16
    }

    /// Counts one packet with `bytes` of application data.
    #[inline(always)]
    pub(crate) fn add(self, bytes: u16) {
        // SAFETY: a map value of 8 bytes, aligned to 8, which other CPUs change by this operation alone. (Its
        // result would need a BPF instruction that the target's default CPU does not have.)
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(self.0, FlowCounter::one(bytes)) };
    }
}

/// Copies `N` words, each in one access.
///
/// # Safety
/// `from` must be the start of a map value of at least `N` words.
#[inline(always)]
unsafe fn copy<const N: usize>(from: *const u64) -> [u64; N] {
    let mut words = [0; N];
    let mut i = 0;
    while i < N {
        // SAFETY: the caller's promise.
        words[i] = unsafe { read_volatile(from.add(i)) };
        i += 1;
    }
    words
}

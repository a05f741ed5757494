//! Reads the maps. Whatever userspace changes in place is copied word by word, and a copy counts only when its
//! check word proves it whole.

use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd},
    ptr::{NonNull, read_volatile},
};

use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_coarse_ns};
use relay_common::{
    clock::BootNanos,
    counter::FlowCounter,
    flow::{FlowEntry, FlowKind},
    globals::word,
    interface::VlanKey,
    meter::{self, Rate},
    outcome::Outcome,
    path::Path,
    port_class::{self, PortClass},
    siphash::siphash_1_3,
};

use crate::{
    key::Key,
    maps::{
        FLOW_COUNTERS, GLOBALS, INTERFACES, METERS, PATHS, PORT_CLASSES, SCRATCH, SCRATCH_WORDS,
        TRANSACTIONS, VLANS,
    },
};

/// Compare-and-swaps that one packet attempts on a meter. Each one lost is another CPU's packet admitted.
const METER_ATTEMPTS: u32 = 16;

/// The flow of this kind under `key`, before its end.
#[inline(always)]
pub(crate) fn live(key: &Key, kind: FlowKind, now: BootNanos) -> Result<FlowEntry, Outcome> {
    let flow = key.flow()?;
    if flow.kind != kind as u8 {
        return Err(Outcome::NoFlow);
    }
    if now >= flow.expires {
        return Err(Outcome::Expired);
    }
    Ok(flow)
}

/// The whole path at `index`. Its MTU is 0 while it is not resolved.
#[inline(always)]
pub(crate) fn path(index: u32) -> Result<Path, Outcome> {
    let entry = PATHS.get_ptr(index).ok_or(Outcome::Torn)?;
    // SAFETY: a map value of 64 bytes, aligned to 8.
    let path = Path::from_words(unsafe { copy::<8>(entry.cast()) });
    if path.verify(index) { Ok(path) } else { Err(Outcome::Torn) }
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

/// The same for a VLAN on it.
#[inline(always)]
pub(crate) fn vlan(key: &VlanKey) -> Option<u64> {
    // SAFETY: as in `interface`.
    VLANS.get_ptr(key).map(|entry| unsafe { read_volatile(entry.cast()) })
}

/// CLOCK_BOOTTIME to the last tick.
#[inline(always)]
pub(crate) fn now() -> BootNanos {
    // SAFETY: takes nothing, returns a number.
    global(word::BOOT_OFFSET) + unsafe { bpf_ktime_get_coarse_ns() }
}

/// The lowest MTU of IPv6 paths, in bytes.
#[inline(always)]
pub(crate) fn min_ipv6_mtu() -> usize {
    global(word::MIN_IPV6_MTU) as usize
}

/// A word of [`relay_common::globals::Globals`].
#[inline(always)]
fn global(word: u32) -> u64 {
    match GLOBALS.get_ptr(0) {
        // SAFETY: one of the words of the map's one value, aligned to 8.
        Some(globals) => unsafe { read_volatile(globals.cast::<u64>().add(word as usize)) },
        None => 0,
    }
}

/// Some memory of this CPU's own, with anything in it.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut [u64; SCRATCH_WORDS]> {
    // SAFETY: a map value of this size, aligned to 8, which nobody else uses while the program runs; asked for once.
    SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}

/// The counter of one flow. Never null, so that an `Option` of it is one pointer: that some other number says whether it is there,
/// Linux 6.1's verifier forgets.
#[derive(Clone, Copy)]
pub(crate) struct Counter(NonNull<u64>);

impl Counter {
    /// The counter at `index`. A flow without one is not whole.
    #[inline(always)]
    pub(crate) fn at(index: u32) -> Result<Self, Outcome> {
        FLOW_COUNTERS.get_ptr_mut(index).and_then(NonNull::new).map(Self).ok_or(Outcome::Torn)
    }

    /// The low half of the number of packets counted so far.
    #[inline(always)]
    pub(crate) fn packets(self) -> u16 {
        // SAFETY: a map value of 8 bytes, aligned to 8.
        (unsafe { read_volatile(self.0.as_ptr()) } >> FlowCounter::PACKETS_SHIFT) as u16
    }

    /// Counts one packet with `bytes` of application data.
    #[inline(always)]
    pub(crate) fn add(self, bytes: u16) {
        // SAFETY: a map value of 8 bytes, aligned to 8, which other CPUs change by this operation alone.
        unsafe {
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(self.0.as_ptr(), FlowCounter::one(bytes))
        };
    }
}

/// Whether `bytes` more of application data are within the limit of the allocation with this meter.
#[inline(always)]
pub(crate) fn admit(meter: u32, now: BootNanos, bytes: u16) -> bool {
    if meter == meter::UNLIMITED {
        return true;
    }
    let Some(word) = METERS.get_ptr_mut(meter) else { return false };
    let rate = Rate { per_byte: global(word::RATE_PER_BYTE), burst: global(word::RATE_BURST) };
    // SAFETY: a map value of 8 bytes, aligned to 8.
    let mut through = unsafe { read_volatile(word) };
    let mut attempt = 0;
    while attempt < METER_ATTEMPTS {
        let Some(next) = rate.admit(through, now, bytes) else { return false };
        // SAFETY: as above; other CPUs and userspace change it by this operation alone.
        let (before, swapped) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, through, next)
        };
        if swapped {
            return true;
        }
        through = before;
        attempt += 1;
    }
    false
}

/// A transaction ID that nobody can predict and that does not come again: a keyed function of how many there were
/// before (RFC 8489 section 5).
#[inline(always)]
pub(crate) fn transaction_id() -> Option<[u32; 3]> {
    let count = TRANSACTIONS.get_ptr_mut(0)?;
    // SAFETY: takes nothing, returns a number.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    // SAFETY: a map value of 8 bytes of this CPU's own.
    let number = unsafe {
        *count += 1;
        *count
    };
    let key = [global(word::TRANSACTION_KEY), global(word::TRANSACTION_KEY + 1)];
    let [a, b] = siphash_1_3(key, number | u64::from(cpu) << 48);
    Some([a as u32, (a >> 32) as u32, b as u32])
}

/// Copies `N` words, each in one access.
///
/// # Safety
/// `from` must be the start of a map value of at least `N` words.
#[inline(always)]
pub(crate) unsafe fn copy<const N: usize>(from: *const u64) -> [u64; N] {
    let mut words = [0; N];
    let mut i = 0;
    while i < N {
        // SAFETY: the caller's promise.
        words[i] = unsafe { read_volatile(from.add(i)) };
        i += 1;
    }
    words
}

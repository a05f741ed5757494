//! The maps, by the names of [`relay_common::maps`]. Userspace sets the sizes when it loads the program
//! (how many flows the configuration wants); those given here are what a test needs.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, DevMapHash, HashMap, PerCpuArray},
};
use relay_common::{
    flow::{FlowEntry, FlowKeyV4, FlowKeyV6},
    globals::Globals,
    interface::{Interface, VlanKey},
    outcome,
    path::Path,
    port_class,
};

/// Flows, listeners and relayed addresses that packets come in by IPv4 for. Never LRU: a live binding is never
/// evicted.
#[map]
pub(crate) static FLOWS_V4: HashMap<FlowKeyV4, FlowEntry> =
    HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// Likewise for IPv6.
#[map]
pub(crate) static FLOWS_V6: HashMap<FlowKeyV6, FlowEntry> =
    HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// One [`relay_common::counter::FlowCounter`] for each flow.
#[map]
pub(crate) static FLOW_COUNTERS: Array<u64> = Array::with_max_entries(4096, BPF_F_MMAPABLE);

/// One word for each limited allocation, see [`relay_common::meter`].
#[map]
pub(crate) static METERS: Array<u64> = Array::with_max_entries(1024, BPF_F_MMAPABLE);

/// Where rewritten packets leave, and their addresses.
#[map]
pub(crate) static PATHS: Array<Path> = Array::with_max_entries(4096, 0);

/// Two bits for each UDP port, see [`relay_common::port_class`].
#[map]
pub(crate) static PORT_CLASSES: Array<u64> = Array::with_max_entries(port_class::WORDS, BPF_F_MMAPABLE);

/// What is the same for all packets.
#[map]
pub(crate) static GLOBALS: Array<Globals> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The interfaces that the program is attached to, by ifindex.
#[map]
pub(crate) static INTERFACES: Array<Interface> = Array::with_max_entries(1024, 0);

/// The VLANs that the host has on them.
#[map]
pub(crate) static VLANS: HashMap<VlanKey, Interface> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// Packets that were ours and were not forwarded, by [`outcome::Outcome`].
#[map]
pub(crate) static OUTCOMES: PerCpuArray<u64> = PerCpuArray::with_max_entries(outcome::COUNT, 0);

/// How many Data indications each CPU has made.
#[map]
pub(crate) static TRANSACTIONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Data on its way from one place in a frame to another: room for all that fits an ordinary link.
#[map]
pub(crate) static SCRATCH: PerCpuArray<[u64; SCRATCH_WORDS]> = PerCpuArray::with_max_entries(1, 0);
pub(crate) const SCRATCH_WORDS: usize = 2048 / 8;

/// The interfaces that the program may send on, by ifindex.
#[map]
pub(crate) static TX_PORTS: DevMapHash = DevMapHash::with_max_entries(64, 0);

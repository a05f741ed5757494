//! The maps, by the names of [`relay_common::maps`]. Userspace sets the sizes when it loads the program
//! (how many flows the configuration wants); those given here are what a test needs.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, DevMapHash, HashMap, PerCpuArray},
};
use relay_common::{
    clock::Clock,
    flow::{FlowKeyV4, FlowV4},
    interface::Interface,
    next_hop::NextHop,
    outcome, port_class,
};

/// Flows, listeners and relayed addresses. Never LRU: a live binding is never evicted.
#[map]
pub(crate) static FLOWS_V4: HashMap<FlowKeyV4, FlowV4> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// One [`relay_common::counter::FlowCounter`] for each flow.
#[map]
pub(crate) static FLOW_COUNTERS: Array<u64> = Array::with_max_entries(1024, BPF_F_MMAPABLE);

/// Where rewritten packets leave.
#[map]
pub(crate) static NEXT_HOPS: Array<NextHop> = Array::with_max_entries(256, 0);

/// Two bits for each UDP port, see [`relay_common::port_class`].
#[map]
pub(crate) static PORT_CLASSES: Array<u64> = Array::with_max_entries(port_class::WORDS, BPF_F_MMAPABLE);

/// What userspace tells about time.
#[map]
pub(crate) static CLOCK: Array<Clock> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The interfaces that the program is attached to, by ifindex.
#[map]
pub(crate) static INTERFACES: Array<Interface> = Array::with_max_entries(1024, 0);

/// Packets that were ours and were not forwarded, by [`outcome::Outcome`].
#[map]
pub(crate) static OUTCOMES: PerCpuArray<u64> = PerCpuArray::with_max_entries(outcome::COUNT, 0);

/// The interfaces that the program may send on, by ifindex.
#[map]
pub(crate) static TX_PORTS: DevMapHash = DevMapHash::with_max_entries(64, 0);

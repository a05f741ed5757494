//! What Turnpike's kernel program and its daemon must agree on, and nothing else: the layout of every
//! shared map and the pure packet arithmetic (checksums, ChannelData framing).
//!
//! Unless a field says otherwise, addresses and ports are in network byte order as they lie in a packet
//! (`u32::from_ne_bytes(octets)`), everything else is in host byte order.
#![no_std]

pub mod channel_data;
pub mod checksum;
pub mod clock;
pub mod counter;
pub mod flow;
pub mod interface;
pub mod next_hop;
pub mod outcome;
pub mod port_class;
mod verified;

/// Version of every layout in this crate. A map or pin made under another number is never used as it is.
pub const ABI_VERSION: u32 = 1;

/// Names of the maps in the kernel program, as userspace looks them up.
pub mod maps {
    /// `HASH<FlowKeyV4, FlowV4>`, `BPF_F_NO_PREALLOC`: flows, listeners and relayed addresses.
    pub const FLOWS_V4: &str = "FLOWS_V4";
    /// `ARRAY<u64>`, mappable: one [`crate::counter::FlowCounter`] for each flow.
    pub const FLOW_COUNTERS: &str = "FLOW_COUNTERS";
    /// `ARRAY<NextHop>`, index 0 never valid.
    pub const NEXT_HOPS: &str = "NEXT_HOPS";
    /// `ARRAY<u64>`, mappable: two bits for each UDP port, see [`crate::port_class`].
    pub const PORT_CLASSES: &str = "PORT_CLASSES";
    /// `ARRAY<Clock>`, one element, mappable.
    pub const CLOCK: &str = "CLOCK";
    /// `ARRAY<Interface>`, by ifindex.
    pub const INTERFACES: &str = "INTERFACES";
    /// `PERCPU_ARRAY<u64>`, by [`crate::outcome::Outcome`].
    pub const OUTCOMES: &str = "OUTCOMES";
    /// `DEVMAP_HASH`, by ifindex: the interfaces the program may send on.
    pub const TX_PORTS: &str = "TX_PORTS";
}

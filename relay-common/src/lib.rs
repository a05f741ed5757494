//! What Turnpike's kernel program and its daemon must agree on, and nothing else: the layout of every
//! shared map and the pure packet arithmetic (checksums, ChannelData framing).
//!
//! Unless a field says otherwise, addresses and ports are in network byte order as they lie in a packet
//! (`u32::from_ne_bytes(octets)`), everything else is in host byte order.
#![no_std]

pub mod address;
pub mod channel_data;
pub mod checksum;
pub mod clock;
pub mod counter;
pub mod flow;
pub mod globals;
pub mod interface;
pub mod meter;
pub mod outcome;
pub mod path;
pub mod port_class;
pub mod siphash;
mod verified;

/// Version of every layout in this crate. A map or pin made under another number is never used as it is.
pub const ABI_VERSION: u32 = 2;

/// Names of the maps in the kernel program, as userspace looks them up.
pub mod maps {
    /// `HASH<FlowKeyV4, FlowEntry>`, `BPF_F_NO_PREALLOC`: flows, listeners and relayed addresses that packets come in
    /// by IPv4 for.
    pub const FLOWS_V4: &str = "FLOWS_V4";
    /// `HASH<FlowKeyV6, FlowEntry>`, likewise for IPv6.
    pub const FLOWS_V6: &str = "FLOWS_V6";
    /// `ARRAY<u64>`, mappable: one [`crate::counter::FlowCounter`] for each flow; the first counts nothing.
    pub const FLOW_COUNTERS: &str = "FLOW_COUNTERS";
    /// `ARRAY<u64>`, mappable: one word for each limited allocation, see [`crate::meter`]; the first is for none.
    pub const METERS: &str = "METERS";
    /// `ARRAY<Path>`, index 0 never valid.
    pub const PATHS: &str = "PATHS";
    /// `ARRAY<u64>`, mappable: two bits for each UDP port, see [`crate::port_class`].
    pub const PORT_CLASSES: &str = "PORT_CLASSES";
    /// `ARRAY<Globals>`, one element, mappable.
    pub const GLOBALS: &str = "GLOBALS";
    /// `ARRAY<Interface>`, by ifindex.
    pub const INTERFACES: &str = "INTERFACES";
    /// `HASH<VlanKey, Interface>`: the VLANs that the host has on those interfaces.
    pub const VLANS: &str = "VLANS";
    /// `PERCPU_ARRAY<u64>`, by [`crate::outcome::Outcome`].
    pub const OUTCOMES: &str = "OUTCOMES";
    /// `PERCPU_ARRAY<u64>`, one element: how many Data indications a CPU has made.
    pub const TRANSACTIONS: &str = "TRANSACTIONS";
    /// `DEVMAP_HASH`, by ifindex: the interfaces the program may send on.
    pub const TX_PORTS: &str = "TX_PORTS";
}

//! What forwards established flows. A datapath knows flows, not TURN.
//!
//! *A miss is a punt*: whatever a datapath does not forward reaches the core through the sockets, so every
//! datapath may fail or stop at any moment and media goes on, slower.

pub mod encode;
mod open;
pub mod program;
mod userspace;
mod xdp;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
};

pub use open::{
    AttachedInterface, DEFAULT_MAX_FLOWS, DatapathMode, OpenError, Opened, ParseDatapathModeError,
    XdpOptions, detach, open, pinned,
};
pub use userspace::Userspace;
pub use xdp::Pinned;

use relay_common::{clock::BootNanos, meter::Rate};

use crate::turn::{AllocationId, Flow, FlowId, RelayedAddr};
pub use crate::turn::{Relayed, Traffic};

/// Everything a datapath forwarded, punted and dropped since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Forwarded.
    pub forwarded: Relayed,
    /// Packets handed to the slow path, by reason.
    pub punts: Vec<(&'static str, u64)>,
    /// Packets dropped, by reason.
    pub drops: Vec<(&'static str, u64)>,
}

/// Why a flow was not installed. The slow path carries it meanwhile.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The flow table or the counters are at the configured capacity.
    #[error("the flow table is full ({capacity} flows): raise max_flows")]
    Full {
        /// Configured number of flows.
        capacity: u32,
    },
    /// The kernel refused.
    #[error("the kernel refused the flow: {0}")]
    Kernel(#[from] std::io::Error),
}

/// Forwards established flows until they expire, and counts what it forwards.
pub trait Datapath: Send {
    /// Starts to recognise datagrams to a listener as ours.
    fn add_listener(&mut self, listener: SocketAddr) -> Result<(), InstallError>;
    /// Starts to recognise datagrams to a relayed address as ours.
    fn add_relayed(&mut self, relayed: RelayedAddr) -> Result<(), InstallError>;
    /// Ends what [`add_relayed`](Self::add_relayed) began.
    fn remove_relayed(&mut self, relayed: RelayedAddr);
    /// Installs a flow, or replaces the one of the same id.
    fn install_flow(&mut self, flow: &Flow) -> Result<(), InstallError>;
    /// Removes a flow. Unknown ones are ignored.
    fn remove_flow(&mut self, flow: &FlowId);
    /// Reads counters, retires removed flows, keeps the kernel's clock offset fresh. To be called at least
    /// once a second.
    fn tick(&mut self, now: BootNanos);
    /// Totals up to now.
    fn counts(&mut self) -> Counts;
    /// What was forwarded for one allocation: to its peers, to its client (hairpins included in both).
    fn allocation_traffic(&mut self, allocation: AllocationId) -> (Traffic, Traffic);
    /// Whether all flows of an allocation are removed and no packet can be under way on one any more, so that
    /// [`allocation_traffic`](Self::allocation_traffic) will not change. It comes about in a
    /// [`tick`](Self::tick), within seconds.
    fn traffic_is_final(&self, allocation: AllocationId) -> bool;
    /// The words that allocations are metered by, to be shared with the core ([`relay_common::meter`]); index 0 is for no
    /// limit. `None`: nothing is forwarded here.
    fn meters(&self) -> Option<Arc<dyn AsRef<[AtomicU64]> + Send + Sync>>;
    /// The rate that flows with a meter must keep to, from now on.
    fn set_rate(&mut self, rate: Rate);
    /// The lowest MTU of IPv6 paths in bytes, from now on.
    fn set_min_ipv6_mtu(&mut self, mtu: u16);
    /// Forgets an allocation's account once its last flow is read. Its share of the totals remains.
    fn forget_allocation(&mut self, allocation: AllocationId);
    /// Ends forwarding and leaves nothing behind in the kernel: programs detached, pins and neighbour
    /// entries released. Counts stay readable. Also done on drop; a second call does nothing.
    fn close(&mut self);
}

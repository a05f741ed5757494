//! Flows as the core states them: one direction of one established mapping, to be installed in whatever
//! datapath there is.

use std::net::IpAddr;

use relay_common::clock::BootNanos;

use super::address::{ChannelNumber, FiveTuple, PeerAddr, RelayedAddr};

/// Names an allocation for the life of the process. Never reused, so late counts cannot reach another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllocationId(pub u64);

/// Which way a flow carries data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// ChannelData or a Send indication from the client becomes a datagram from the relayed address to the peer.
    ToPeer,
    /// A datagram from the peer to the relayed address becomes ChannelData or a Data indication to the client.
    ToClient,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::ToPeer, Self::ToClient];
}

/// Names a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId {
    /// Which way.
    pub direction: Direction,
    /// The allocation's 5-tuple.
    pub five_tuple: FiveTuple,
    /// The allocation's relayed transport address, of the peer's family.
    pub relayed: RelayedAddr,
    /// Who it is to or from.
    pub form: FlowForm,
}

/// What a flow is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FlowForm {
    /// A channel binding: ChannelData on the client's side.
    Channel {
        /// The peer the channel is bound to.
        peer: PeerAddr,
        /// The channel.
        number: ChannelNumber,
    },
    /// A permission: Send and Data indications on the client's side.
    Permission {
        /// Any port of this address, in its local form ([`Hairpin::alias`]).
        peer: IpAddr,
    },
    /// The relayed address itself, which [`Permission`](Self::Permission) flows to peers of its family build on. Only
    /// [`Direction::ToPeer`]; carries nothing alone.
    Allocation,
}

/// A flow with everything a datapath needs to carry it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Its name.
    pub id: FlowId,
    /// The allocation that its packets are counted for.
    pub allocation: AllocationId,
    /// The earliest end of what it is made for (allocation, permission, channel): CLOCK_BOOTTIME nanoseconds. At or past
    /// it nothing is forwarded.
    pub expires: BootNanos,
    /// The peer is a relayed address of this same server.
    pub hairpin: Option<Hairpin>,
    /// Index of the allocation's word among the shared meters; `None`: no limit.
    pub meter: Option<u32>,
}

/// What a hairpin needs to know of external addresses (static NAT).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hairpin {
    /// The address that the receiver is shown as the sender of what this allocation sends: the external form of
    /// [`FlowId::relayed`]'s, else the same.
    pub advertised: IpAddr,
    /// The external form of the peer's address, by which Send indications may name it, if it has one.
    pub alias: Option<IpAddr>,
}

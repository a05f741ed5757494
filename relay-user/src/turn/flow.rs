//! Flows as the core states them: one direction of one established mapping, to be installed in whatever
//! datapath there is.

use relay_common::clock::BootNanos;

use super::address::{ChannelNumber, FiveTuple, PeerAddr, RelayedAddr};

/// Names an allocation for the life of the process. Never reused, so late counts cannot reach another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllocationId(pub u64);

/// Which way a flow carries data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// ChannelData from the client becomes a datagram from the relayed address to the peer.
    ToPeer,
    /// A datagram from the peer to the relayed address becomes ChannelData to the client.
    ToClient,
}

/// Names a flow: one channel binding of one allocation, one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId {
    /// Which way.
    pub direction: Direction,
    /// The allocation's 5-tuple.
    pub five_tuple: FiveTuple,
    /// The allocation's relayed transport address.
    pub relayed: RelayedAddr,
    /// The peer the channel is bound to.
    pub peer: PeerAddr,
    /// The channel.
    pub channel: ChannelNumber,
}

/// A flow with everything a datapath needs to carry it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Its name.
    pub id: FlowId,
    /// The allocation that its packets are counted for.
    pub allocation: AllocationId,
    /// The earliest end of allocation, permission and channel: CLOCK_BOOTTIME nanoseconds. At or past it
    /// nothing is forwarded.
    pub expires: BootNanos,
    /// The peer is a relayed transport address of this same server.
    pub hairpin: bool,
}

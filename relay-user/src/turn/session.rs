//! What an operator may see of an allocation.

use std::net::{IpAddr, SocketAddr};

use relay_common::clock::BootNanos;

use super::{
    address::{ChannelNumber, FiveTuple, PeerAddr, RelayedAddr},
    flow::AllocationId,
    traffic::Traffic,
};

/// One live allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its name.
    pub allocation: AllocationId,
    /// Whose it is.
    pub username: String,
    /// Client, server and transport.
    pub five_tuple: FiveTuple,
    /// The relayed transport address on this host.
    pub relayed: RelayedAddr,
    /// The relayed transport address as it is advertised, where that differs.
    pub external: Option<SocketAddr>,
    /// When it ends.
    pub expires: BootNanos,
    /// Permitted peers, and until when. A relay address of this server stands for its external form too.
    pub permissions: Vec<(IpAddr, BootNanos)>,
    /// Channel bindings.
    pub channels: Vec<SessionChannel>,
    /// Relayed by the slow path from the client, hairpins included.
    pub to_peer: Traffic,
    /// Relayed by the slow path to the client, hairpins included.
    pub to_client: Traffic,
}

/// One live channel binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionChannel {
    /// The channel.
    pub number: ChannelNumber,
    /// The peer it is bound to; a hairpin peer as the relayed transport address on this host.
    pub peer: PeerAddr,
    /// When the binding ends.
    pub expires: BootNanos,
}

/// Numbers of live things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Allocations.
    pub allocations: usize,
    /// Permissions of all allocations.
    pub permissions: usize,
    /// Channel bindings of all allocations.
    pub channels: usize,
}

//! What an operator may see of an allocation.

use std::net::{IpAddr, SocketAddr};

use relay_common::clock::BootNanos;

use super::{
    address::{ChannelNumber, FiveTuple, PeerAddr, RelayedAddr},
    flow::AllocationId,
    output::EndReason,
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
    /// The relayed transport addresses: one, or one of each family.
    pub relayed: Vec<SessionRelayed>,
    /// Permitted peers, and until when. A relay address of this server stands for its external form too.
    pub permissions: Vec<(IpAddr, BootNanos)>,
    /// Channel bindings.
    pub channels: Vec<SessionChannel>,
    /// Relayed by the slow path from the client, hairpins included.
    pub to_peer: Traffic,
    /// Relayed by the slow path to the client, hairpins included.
    pub to_client: Traffic,
}

/// One relayed transport address of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRelayed {
    /// On this host.
    pub address: RelayedAddr,
    /// As it is advertised, where that differs.
    pub external: Option<SocketAddr>,
    /// When it ends, or ended.
    pub expires: BootNanos,
}

/// What is to be remembered of an allocation that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its name.
    pub allocation: AllocationId,
    /// Whose it was.
    pub username: String,
    /// Where the user name is valid.
    pub realm: String,
    /// Client, server and transport.
    pub five_tuple: FiveTuple,
    /// Every relayed transport address it had, in the order they ended.
    pub relayed: Vec<SessionRelayed>,
    /// The first peers it permitted, each once, at most [`Self::MAX_PEERS`].
    pub peers: Vec<IpAddr>,
    /// Number of different peers it permitted, counted up to the limit of permissions.
    pub peer_count: usize,
    /// When it was made.
    pub started: BootNanos,
    /// When it ended.
    pub ended: BootNanos,
    /// Why.
    pub reason: EndReason,
    /// Relayed by the slow path from the client, hairpins included.
    pub to_peer: Traffic,
    /// Relayed by the slow path to the client, hairpins included.
    pub to_client: Traffic,
}

impl SessionRecord {
    /// Most peers that are remembered.
    pub const MAX_PEERS: usize = 16;
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
    /// Ports held in reserve for whoever brings their token.
    pub reservations: usize,
}

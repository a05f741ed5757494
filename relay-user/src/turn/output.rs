//! What the core wants done. Mutate once, then drain `poll_output` until `None`, in order: a flow is
//! installed before the response that announces it leaves (DP-064 to DP-066).

use super::{
    address::{FiveTuple, PeerAddr, RelayedAddr},
    flow::{AllocationId, Flow, FlowId},
};

/// One thing for the driver to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send to the client, from the 5-tuple's server address.
    ToClient {
        /// Where to.
        five_tuple: FiveTuple,
        /// A STUN message or ChannelData.
        datagram: Vec<u8>,
    },
    /// Send from the relayed address to the peer. Never one of our own addresses: a hairpin stays inside.
    ToPeer {
        /// Source.
        relayed: RelayedAddr,
        /// Destination.
        peer: PeerAddr,
        /// UDP payload.
        data: Vec<u8>,
    },
    /// Open the relayed address for an allocation being made and answer with
    /// [`Server::relayed_address_opened`](super::Server::relayed_address_opened) before any other input.
    OpenRelayed {
        /// The allocation being made.
        allocation: AllocationId,
        /// What to bind.
        relayed: RelayedAddr,
    },
    /// The relayed address is no longer anybody's: close it.
    CloseRelayed {
        /// The allocation it belonged to.
        allocation: AllocationId,
        /// What to close.
        relayed: RelayedAddr,
    },
    /// Install this flow in the datapath, or replace the one of the same [`FlowId`].
    InstallFlow(Flow),
    /// Remove this flow from the datapath.
    RemoveFlow(FlowId),
    /// Something an operator may want logged.
    Event(Event),
}

/// What happened, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An allocation was made.
    AllocationCreated {
        /// Its name.
        allocation: AllocationId,
        /// The client's 5-tuple.
        five_tuple: FiveTuple,
        /// The relayed transport address.
        relayed: RelayedAddr,
        /// The user it belongs to.
        username: String,
    },
    /// An allocation ended.
    AllocationEnded {
        /// Its name.
        allocation: AllocationId,
        /// The client's 5-tuple.
        five_tuple: FiveTuple,
        /// Why.
        reason: EndReason,
    },
    /// A request failed authentication.
    AuthenticationFailed {
        /// Who asked.
        five_tuple: FiveTuple,
        /// Why it was refused.
        cause: AuthenticationFailure,
    },
}

/// Why an allocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The client deleted it (Refresh with LIFETIME 0).
    Deleted,
    /// Its lifetime ran out.
    Expired,
    /// The server stops.
    Shutdown,
}

/// Why a request with credentials was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthenticationFailure {
    /// No such user.
    UnknownUser,
    /// The integrity value does not match the user's key.
    WrongPassword,
    /// The nonce is too old or was not given to this client. Clients recover from this by themselves.
    StaleNonce,
}

//! What the core wants done. Mutate once, then drain `poll_output` until `None`, in order: a flow is
//! installed before the response that announces it leaves (DP-064 to DP-066).

use super::{
    address::{FiveTuple, PeerAddr, RelayedAddr},
    flow::{AllocationId, Flow, FlowId},
    icmp::IcmpMessage,
    ip::IpHeader,
    session::SessionRecord,
};

/// One thing for the driver to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send to the client, from the 5-tuple's server address.
    ToClient {
        /// Where to.
        five_tuple: FiveTuple,
        /// How.
        ip: IpHeader,
        /// A STUN message or ChannelData.
        datagram: Vec<u8>,
    },
    /// Send from the relayed address to the peer. Never one of our own addresses: a hairpin stays inside.
    ToPeer {
        /// Source.
        relayed: RelayedAddr,
        /// Destination.
        peer: PeerAddr,
        /// How.
        ip: IpHeader,
        /// UDP payload.
        data: Vec<u8>,
    },
    /// Send an ICMP error to whoever sent a datagram that cannot be relayed.
    Icmp(IcmpMessage),
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
        /// The relayed transport addresses: one, or one of each family.
        relayed: Vec<RelayedAddr>,
        /// The user it belongs to.
        username: String,
    },
    /// An allocation ended: its flows are removed and its relayed addresses closed by now.
    AllocationEnded(Box<SessionRecord>),
    /// A request failed authentication.
    AuthenticationFailed {
        /// Who asked.
        five_tuple: FiveTuple,
        /// Who the client said it is, also by USERHASH of a user there is; `None` where that is no text.
        username: Option<String>,
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
    /// The password is right, but the time-limited credential is over.
    ExpiredCredential,
    /// The nonce is too old or was not given to this client. Clients recover from this by themselves.
    StaleNonce,
}

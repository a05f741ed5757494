//! The TURN server as a sans-IO state machine (RFC 8489, RFC 8656): no sockets, no clock, no global random
//! numbers. *Mutate once, then drain `poll_output` until `None`.*

mod address;
mod flow;
mod output;

pub use address::{ChannelNumber, ClientAddr, FiveTuple, PeerAddr, RelayedAddr, ServerAddr, Transport};
pub use flow::{AllocationId, Direction, Flow, FlowId};
pub use output::{AuthenticationFailure, EndReason, Event, Output};

/// The TURN server. To be filled in.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Placeholder for the link in the docs of [`Output`].
    pub fn relayed_address_opened(&mut self) {}
}

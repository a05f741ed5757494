//! The TURN server as a sans-IO state machine (RFC 8489, RFC 8656): no sockets, no clock, no global random
//! numbers. *Mutate once, then drain [`Server::poll_output`] until `None`.*

mod address;
mod allocation;
mod channel;
pub mod channel_data;
mod config;
mod credentials;
mod drops;
mod flow;
mod icmp;
mod ip;
mod ipv4_in_ipv6;
mod long_term_key;
mod meters;
mod nonce;
mod opaque_string;
mod output;
mod own_addresses;
mod permission;
mod policy;
mod ports;
mod quota;
mod relay;
mod requests;
mod reservation;
mod responses;
mod server;
mod session;
mod strangers;
pub mod stun;
mod time_limited;
mod timers;
mod traffic;

pub use address::{
    ChannelNumber, ClientAddr, Family, FiveTuple, PeerAddr, RelayedAddr, ServerAddr, Transport,
};
pub use config::{Config, ConfigError, Lifetimes, Limits, MAX_REALM_LEN};
pub use credentials::{CredentialError, Credentials};
pub use flow::{AllocationId, Direction, Flow, FlowForm, FlowId, Hairpin};
pub use icmp::{IcmpError, IcmpMessage, Received};
pub use ip::{Fragmentation, IpHeader, IpMeta};
pub use long_term_key::LongTermKey;
pub use output::{AuthenticationFailure, EndReason, Event, Output};
pub use policy::PeerPolicy;
pub use server::{OpenError, Server};
pub use session::{Session, SessionChannel, SessionRecord, SessionRelayed, Totals};
pub use traffic::{Relayed, Traffic};

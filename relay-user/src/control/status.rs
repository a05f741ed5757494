//! What `turnpike status` and `turnpike sessions` show: the JSON of the admin API.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::datapath::{Relayed, Traffic};

/// `GET /api/v1/status`. Byte counts are application data, without any header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// Seconds since it was ready, suspended time included.
    pub uptime_seconds: u64,
    /// What carries the flows.
    pub datapath: DatapathStatus,
    /// Where clients are served, as `udp://IP:PORT`.
    pub listeners: Vec<String>,
    /// Live allocations.
    pub allocations: usize,
    /// Live permissions.
    pub permissions: usize,
    /// Live channel bindings.
    pub channels: usize,
    /// Ports held for whoever brings their reservation token.
    pub reservations: usize,
    /// Forwarded in the kernel.
    pub fast_path: Relayed,
    /// Relayed by the daemon.
    pub slow_path: Relayed,
    /// Packets that the kernel program handed up, by reason.
    pub punts: BTreeMap<String, u64>,
    /// Packets dropped in kernel or daemon, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Responses sent: by method, then by `success` or the error code's number.
    pub responses: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What carries the flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatapathStatus {
    /// `xdp-native`, `xdp-generic` or `userspace`.
    pub mode: String,
    /// Where the program is attached.
    pub interfaces: Vec<InterfaceStatus>,
    /// Why it is less than it could be: steps down from a better mode, missing pins.
    pub reason: Option<String>,
    /// Flows that the kernel has no room for now, so that the daemon carries them until it has.
    pub not_installed: u64,
}

/// One interface that the program is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// `xdp-native` or `xdp-generic`.
    pub mode: String,
}

/// `GET /api/v1/sessions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// One for each allocation, oldest first.
    pub sessions: Vec<Session>,
}

/// One allocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its name; never reused while the daemon runs.
    pub id: u64,
    /// The user it belongs to.
    pub user: String,
    /// The client's address.
    pub client: SocketAddr,
    /// The listener it came to.
    pub server: SocketAddr,
    /// How the client reaches the server.
    pub transport: String,
    /// The relayed transport addresses: one, or one of each family.
    pub relayed: Vec<RelayedStatus>,
    /// Live permissions.
    pub permissions: Vec<PermissionStatus>,
    /// Live channel bindings.
    pub channels: Vec<ChannelStatus>,
    /// Forwarded in the kernel.
    pub fast_path: SessionTraffic,
    /// Relayed by the daemon.
    pub slow_path: SessionTraffic,
}

/// One relayed transport address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayedStatus {
    /// On this host.
    pub address: SocketAddr,
    /// As the client was told, where an external address stands for it.
    pub external: Option<SocketAddr>,
    /// Seconds to its end, rounded up.
    pub expires_in_seconds: u64,
}

/// One permission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionStatus {
    /// The peer's address.
    pub peer: std::net::IpAddr,
    /// Seconds to its end, rounded up.
    pub expires_in_seconds: u64,
}

/// One channel binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelStatus {
    /// As in `0x4000`.
    pub number: String,
    /// The peer's transport address.
    pub peer: SocketAddr,
    /// Seconds to its end, rounded up.
    pub expires_in_seconds: u64,
}

/// Traffic of one allocation, hairpins included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTraffic {
    /// From the client.
    pub to_peer: Traffic,
    /// To the client.
    pub to_client: Traffic,
}

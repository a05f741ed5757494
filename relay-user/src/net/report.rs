//! What the admin API tells, put together from the core, the datapath and the driver's own counts.

use std::{collections::BTreeMap, net::SocketAddr, process, time::Duration};

use relay_common::clock::BootNanos;

use crate::{
    control::status::{
        ChannelStatus, DatapathStatus, InterfaceStatus, PermissionStatus, RelayedStatus, Session,
        SessionTraffic, Sessions, Status,
    },
    datapath::{Counts, Datapath, Opened},
    turn::{self, Server},
};

/// What is known of the datapath since it was opened.
#[derive(Clone, Debug)]
pub struct DatapathInfo {
    mode: String,
    interfaces: Vec<InterfaceStatus>,
    reason: Option<String>,
}

impl From<&Opened> for DatapathInfo {
    fn from(opened: &Opened) -> Self {
        let interfaces = opened.interfaces.iter().map(|interface| InterfaceStatus {
            name: interface.name.clone(),
            ifindex: interface.ifindex,
            mode: interface.mode.to_string(),
        });
        Self {
            mode: opened.mode.to_string(),
            interfaces: interfaces.collect(),
            reason: (!opened.warnings.is_empty()).then(|| opened.warnings.join("; ")),
        }
    }
}

/// What the driver itself counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DriverCounts {
    /// Datagrams dropped because the socket's queue was full.
    pub(super) send_buffer_full: u64,
    /// Datagrams that the kernel refused to send.
    pub(super) send_failed: u64,
    /// Datagrams dropped because the queue of their socket was full (or their checksum wrong).
    pub(super) receive_buffer_full: u64,
    /// Errors while receiving.
    pub(super) receive_failed: u64,
}

/// All that a [`Status`] is made of.
pub(super) struct Sources<'a> {
    pub(super) server: &'a Server,
    pub(super) datapath: Counts,
    pub(super) datapath_info: &'a DatapathInfo,
    pub(super) counts: DriverCounts,
    pub(super) not_installed: u64,
    pub(super) listeners: Vec<SocketAddr>,
    pub(super) uptime: Duration,
}

pub(super) fn status(sources: &Sources<'_>) -> Status {
    let Sources { server, datapath, datapath_info, counts, not_installed, listeners, uptime } = sources;
    let own = [
        ("send_buffer_full", counts.send_buffer_full),
        ("send_failed", counts.send_failed),
        ("receive_buffer_full", counts.receive_buffer_full),
        ("receive_failed", counts.receive_failed),
    ];
    let totals = server.totals();
    let mut listeners = listeners.clone();
    listeners.sort();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: process::id(),
        uptime_seconds: uptime.as_secs(),
        datapath: DatapathStatus {
            mode: datapath_info.mode.clone(),
            interfaces: datapath_info.interfaces.clone(),
            reason: datapath_info.reason.clone(),
            not_installed: *not_installed,
        },
        listeners: listeners.iter().map(|address| format!("udp://{address}")).collect(),
        allocations: totals.allocations,
        permissions: totals.permissions,
        channels: totals.channels,
        reservations: totals.reservations,
        fast_path: datapath.forwarded,
        slow_path: server.relayed_traffic(),
        punts: by_reason(datapath.punts.iter().copied()),
        drops: by_reason(datapath.drops.iter().copied().chain(server.drops()).chain(own)),
        responses: responses(server),
    }
}

fn responses(server: &Server) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut methods = BTreeMap::<_, BTreeMap<_, _>>::new();
    for (method, error, count) in server.responses() {
        let outcome = error.map_or("success".to_owned(), |error| error.code().to_string());
        methods.entry(method.to_owned()).or_default().insert(outcome, count);
    }
    methods
}

/// Counts of one reason from several places are one count.
fn by_reason(counts: impl Iterator<Item = (&'static str, u64)>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (reason, count) in counts {
        *sums.entry(reason.to_owned()).or_default() += count;
    }
    sums
}

pub(super) fn sessions(server: &Server, datapath: &mut dyn Datapath, now: BootNanos) -> Sessions {
    let mut sessions = server.sessions().map(|session| describe(session, datapath, now)).collect::<Vec<_>>();
    sessions.sort_by_key(|session| session.id);
    Sessions { sessions }
}

fn describe(session: turn::Session, datapath: &mut dyn Datapath, now: BootNanos) -> Session {
    let expires_in = |expires: BootNanos| expires.saturating_sub(now).div_ceil(1_000_000_000);
    let (to_peer, to_client) = datapath.allocation_traffic(session.allocation);
    let relayed = session.relayed.iter().map(|relayed| RelayedStatus {
        address: relayed.address.0,
        external: relayed.external,
        expires_in_seconds: expires_in(relayed.expires),
    });
    let permissions = session
        .permissions
        .iter()
        .map(|&(peer, expires)| PermissionStatus { peer, expires_in_seconds: expires_in(expires) });
    let channels = session.channels.iter().map(|channel| ChannelStatus {
        number: channel.number.to_string(),
        peer: channel.peer.0,
        expires_in_seconds: expires_in(channel.expires),
    });
    Session {
        id: session.allocation.0,
        user: session.username,
        client: session.five_tuple.client.0,
        server: session.five_tuple.server.0,
        transport: session.five_tuple.transport.to_string(),
        relayed: relayed.collect(),
        permissions: permissions.collect(),
        channels: channels.collect(),
        fast_path: SessionTraffic { to_peer, to_client },
        slow_path: SessionTraffic { to_peer: session.to_peer, to_client: session.to_client },
    }
}

//! Flows and addresses as the kernel program reads them. Pure: from the core's words to map entries.

use std::{
    iter,
    net::{IpAddr, SocketAddr},
};

use relay_common::{
    address::{Address, Family},
    checksum,
    clock::BootNanos,
    flow::{FlowEntry, FlowKey, FlowKeyV4, FlowKeyV6, FlowKind, flags, form},
    interface::{Interface, VlanKey},
    meter,
    path::{self, Path},
};

use crate::{
    net::next_hop::{NextHop, Tag},
    turn::{Direction, Flow, FlowForm, FlowId, Hairpin},
};

/// A key of `FLOWS_V4` or `FLOWS_V6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Packets come in by IPv4.
    V4(FlowKeyV4),
    /// Packets come in by IPv6.
    V6(FlowKeyV6),
}

impl Key {
    /// The key for packets from `remote` to `local`, which are of one family. `None` for the remote: 0.
    fn new(local: SocketAddr, remote: Option<SocketAddr>, channel: u16, form: u16) -> Self {
        let remote_port = remote.map_or(0, |remote| remote.port().to_be());
        let remote_addr = remote.map_or(Address::default(), |remote| address(remote.ip()));
        let (local_addr, local_port) = (address(local.ip()), local.port().to_be());
        match local {
            SocketAddr::V4(_) => Self::V4(FlowKeyV4 {
                local_addr: local_addr.to_v4(),
                remote_addr: remote_addr.to_v4(),
                local_port,
                remote_port,
                channel,
                form,
            }),
            SocketAddr::V6(_) => {
                Self::V6(FlowKeyV6 { local_addr, remote_addr, local_port, remote_port, channel, form })
            }
        }
    }

    fn seal(&self, entry: FlowEntry) -> FlowEntry {
        match self {
            Self::V4(key) => entry.sealed(key),
            Self::V6(key) => entry.sealed(key),
        }
    }

    /// Whether the entry is whole and belongs to this key.
    pub fn verify(&self, entry: &FlowEntry) -> bool {
        fn verify(key: &impl FlowKey, entry: &FlowEntry) -> bool {
            entry.verify(key)
        }
        match self {
            Self::V4(key) => verify(key, entry),
            Self::V6(key) => verify(key, entry),
        }
    }
}

/// Indices that a flow's entry has into other maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indices {
    /// Into `FLOW_COUNTERS`; 0 for [`FlowForm::Allocation`], which counts nothing.
    pub counter: u32,
    /// Into `PATHS`: the one that [`way`] says.
    pub path: u32,
}

/// From where to where a flow's path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Out of the host: source and destination address of what is sent.
    Out(IpAddr, IpAddr),
    /// Nowhere: to another allocation of this server (see [`Path::internal`]), or to peers not yet named.
    Internal {
        /// A relayed address.
        source: IpAddr,
        /// Another, or the unspecified one of the same family.
        destination: IpAddr,
        /// What the receiver is shown for the source.
        advertised: IpAddr,
    },
}

/// The path that a flow needs.
pub fn way(flow: &Flow) -> Way {
    let FlowId { direction, five_tuple, relayed, form } = flow.id;
    let source = relayed.0.ip();
    let peer = match form {
        FlowForm::Channel { peer, .. } => peer.0.ip(),
        FlowForm::Permission { peer } => peer,
        FlowForm::Allocation => {
            return Way::Internal { source, destination: unspecified(source), advertised: source };
        }
    };
    match (direction, flow.hairpin) {
        (Direction::ToPeer, None) => Way::Out(source, peer),
        (Direction::ToPeer, Some(Hairpin { advertised, .. })) => {
            Way::Internal { source, destination: peer, advertised }
        }
        (Direction::ToClient, _) => Way::Out(five_tuple.server.0.ip(), five_tuple.client.0.ip()),
    }
}

/// The keys of a flow: one, and a second where Send indications may name its peer by another address.
pub fn keys(flow: &Flow) -> impl Iterator<Item = Key> + use<> {
    let FlowId { direction, five_tuple, relayed, form } = flow.id;
    let (client, server) = (five_tuple.client.0, five_tuple.server.0);
    let mut alias = None;
    let key = match (form, direction) {
        (FlowForm::Channel { number, .. }, Direction::ToPeer) => {
            Key::new(server, Some(client), number.get().to_be(), form::DATA)
        }
        (FlowForm::Channel { peer, .. }, Direction::ToClient) => {
            Key::new(relayed.0, Some(peer.0), 0, form::DATA)
        }
        (FlowForm::Permission { peer }, Direction::ToPeer) => {
            let key = |ip| Key::new(relayed.0, Some(SocketAddr::new(ip, 0)), 0, form::TO_PEER);
            alias = flow.hairpin.and_then(|hairpin| hairpin.alias).map(key);
            key(peer)
        }
        (FlowForm::Permission { peer }, Direction::ToClient) => {
            Key::new(relayed.0, Some(SocketAddr::new(peer, 0)), 0, form::TO_CLIENT)
        }
        (FlowForm::Allocation, _) => {
            let peers = if relayed.0.is_ipv4() { form::PEERS_V4 } else { form::PEERS_V6 };
            Key::new(server, Some(client), 0, peers)
        }
    };
    iter::once(key).chain(alias)
}

/// The entry of a flow under one of its keys, sealed.
pub fn entry(flow: &Flow, key: &Key, indices: Indices) -> FlowEntry {
    let FlowId { direction, five_tuple, relayed, form } = flow.id;
    let (client, server) = (five_tuple.client.0, five_tuple.server.0);
    let (kind, peer, channel) = match (form, direction) {
        (FlowForm::Allocation, _) => {
            let entry = FlowEntry {
                expires: flow.expires,
                source_port: relayed.0.port().to_be(),
                kind: FlowKind::Allocation as u8,
                path: indices.path,
                meter: flow.meter.unwrap_or(meter::UNLIMITED),
                ..FlowEntry::default()
            };
            return key.seal(entry);
        }
        (FlowForm::Channel { peer, number }, direction) => {
            let kind = match direction {
                Direction::ToPeer => FlowKind::ChannelToPeer,
                Direction::ToClient => FlowKind::ChannelToClient,
            };
            (kind, peer.0, number.get().to_be())
        }
        (FlowForm::Permission { peer }, direction) => {
            let kind = match direction {
                Direction::ToPeer => FlowKind::PermissionToPeer,
                Direction::ToClient => FlowKind::PermissionToClient,
            };
            (kind, SocketAddr::new(peer, 0), 0)
        }
    };
    // A packet that comes in, and what becomes of it: from, to.
    let (old, new, channel_change) = match direction {
        Direction::ToPeer => ((client, server), (relayed.0, peer), !channel),
        Direction::ToClient => ((peer, relayed.0), (server, client), channel),
    };
    let channel_change = if channel == 0 { 0 } else { channel_change };
    key.seal(FlowEntry {
        expires: flow.expires,
        source_port: new.0.port().to_be(),
        destination_port: new.1.port().to_be(),
        channel,
        kind: kind as u8,
        flags: if flow.hairpin.is_some() { flags::HAIRPIN } else { 0 },
        path: indices.path,
        counter: indices.counter,
        meter: flow.meter.unwrap_or(meter::UNLIMITED),
        udp_delta: checksum::fold_wide(
            u64::from(udp_sum(new)) + u64::from(!udp_sum(old)) + u64::from(channel_change),
        ),
        ip_sum: checksum::fold_wide(address(new.0.ip()).sum() + address(new.1.ip()).sum()),
        pseudo_sum: checksum::fold_wide(checksum::pseudo(address(old.0.ip()), address(old.1.ip()))),
        ..FlowEntry::default()
    })
}

/// The entry that makes datagrams to a listener the relay's. It must be there before any flow of
/// the listener and as long as one is, and has no end of its own.
pub fn listener(listener: SocketAddr) -> (Key, FlowEntry) {
    endpoint(listener, FlowKind::Listener)
}

/// The entry that makes datagrams to a relayed transport address the relay's, as [`listener`].
pub fn relayed(relayed: SocketAddr) -> (Key, FlowEntry) {
    endpoint(relayed, FlowKind::Relayed)
}

/// The entry of `PATHS` at `index` for a way; without a next hop (never for an internal one) it is unresolved: packets are
/// punted. An MTU beyond an IPv4 packet's own limit is cut to it.
pub fn path(index: u32, way: Way, next_hop: Option<&NextHop>) -> Path {
    let (source, destination) = match way {
        Way::Out(source, destination) => (source, destination),
        Way::Internal { source, destination, advertised } => {
            let [source, destination, advertised] =
                [source, destination, advertised].map(|ip| (family(ip), address(ip)));
            return Path::internal(source.0, source.1, destination.1, advertised.1).sealed(index);
        }
    };
    let unresolved = Path {
        source: address(source),
        destination: address(destination),
        family: family(source) as u8,
        ..Path::default()
    };
    let Some(hop) = next_hop else { return unresolved.sealed(index) };
    let mut macs = [0; 12];
    macs[..6].copy_from_slice(&hop.destination_mac);
    macs[6..].copy_from_slice(&hop.source_mac);
    let [outer, inner] = hop.tags;
    let tags = u8::from(outer.is_some()) + u8::from(inner.is_some());
    let service = outer.is_some_and(|tag| tag.service);
    let scatter_gather = if hop.scatter_gather { path::flags::SCATTER_GATHER } else { 0 };
    Path {
        macs,
        vlans: hop.tags.map(|tag| tag.map_or(0, |tag| tag.id.to_be())),
        ifindex: hop.ifindex,
        mtu: u16::try_from(hop.mtu).unwrap_or(u16::MAX),
        flags: tags | if service { path::flags::SERVICE_TAG } else { 0 } | scatter_gather,
        ..unresolved
    }
    .sealed(index)
}

/// The entry of `INTERFACES` or `VLANS` for an interface that the program is attached to, or a VLAN on it.
pub const fn interface(mac: [u8; 6]) -> Interface {
    Interface { mac, attached: 1 }
}

/// The key of `VLANS` for a VLAN device on the attached interface `ifindex`: its tags as they lie in a frame, the
/// outer first.
pub fn vlan_key(ifindex: u32, [outer, inner]: [Option<Tag>; 2]) -> VlanKey {
    let service = |tag: Tag| if tag.service { VlanKey::SERVICE_TAG } else { 0 };
    VlanKey {
        ifindex,
        outer: outer.map_or(0, |tag| tag.id | service(tag)),
        inner: inner.map_or(0, |tag| tag.id),
    }
}

fn endpoint(address: SocketAddr, kind: FlowKind) -> (Key, FlowEntry) {
    let key = Key::new(address, None, 0, form::ENDPOINT);
    let entry = FlowEntry { expires: BootNanos::MAX, kind: kind as u8, ..FlowEntry::default() };
    (key, key.seal(entry))
}

/// An address as the shared layouts have it.
pub const fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => Address::v4(u32::from_ne_bytes(ip.octets())),
        IpAddr::V6(ip) => Address::v6(ip.octets()),
    }
}

const fn family(ip: IpAddr) -> Family {
    match ip {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

const fn unspecified(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

/// Sum of the addresses and ports of a datagram.
fn udp_sum((source, destination): (SocketAddr, SocketAddr)) -> u16 {
    let ports = u64::from(source.port().to_be()) + u64::from(destination.port().to_be());
    checksum::fold_wide(address(source.ip()).sum() + address(destination.ip()).sum() + ports)
}

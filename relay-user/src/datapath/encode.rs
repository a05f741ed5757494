//! Flows and addresses as the kernel program reads them. Pure: from the core's words to map entries.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use relay_common::{
    channel_data::HEADER_LEN,
    checksum::{self, ChannelHeader, UdpV4},
    clock::BootNanos,
    flow::{FlowKeyV4, FlowKind, FlowV4, flags},
    interface::Interface,
    next_hop::NextHop,
};

use crate::turn::{Direction, Flow, FlowId};

const _: () = assert!(HEADER_LEN == 4, "udp_delta_v4 counts on it");

/// The entry of `FLOWS_V4` for a flow, sealed under its key. `counter` is its index in `FLOW_COUNTERS`,
/// `next_hop` that of the way to where it sends (the peer or the client) in `NEXT_HOPS`. `None` when any of its
/// addresses is not IPv4.
///
/// A hairpin's peer must be named by its relayed address on this host, not by the external one, in the flows of
/// both allocations: the program finds one by the other.
pub fn flow_v4(flow: &Flow, counter: u32, next_hop: u32) -> Option<(FlowKeyV4, FlowV4)> {
    let Ends { local, remote, source, destination } = Ends::of(&flow.id)?;
    let channel = flow.id.channel.get().to_be();
    let (kind, channel_header) = match flow.id.direction {
        Direction::ToPeer => (FlowKind::ToPeer, ChannelHeader::Removed(channel)),
        Direction::ToClient => (FlowKind::ToClient, ChannelHeader::Added(channel)),
    };
    let key = flow_key_v4(&flow.id)?;
    let value = FlowV4 {
        expires: flow.expires,
        source_addr: addr(*source.ip()),
        destination_addr: addr(*destination.ip()),
        source_port: source.port().to_be(),
        destination_port: destination.port().to_be(),
        channel,
        kind: kind as u8,
        flags: if flow.hairpin { flags::HAIRPIN } else { 0 },
        next_hop,
        counter,
        udp_delta: checksum::udp_delta_v4(udp(remote, local), udp(source, destination), channel_header),
        ip_sum: checksum::fold(
            checksum::addr_v4(addr(*source.ip())) + checksum::addr_v4(addr(*destination.ip())),
        ),
        pseudo_sum: checksum::fold(checksum::pseudo_v4(addr(*remote.ip()), addr(*local.ip()))),
        ..FlowV4::default()
    };
    Some((key, value.sealed(&key)))
}

/// The key of a flow's entry in `FLOWS_V4`. `None` when any of its addresses is not IPv4.
pub fn flow_key_v4(id: &FlowId) -> Option<FlowKeyV4> {
    let Ends { local, remote, .. } = Ends::of(id)?;
    Some(FlowKeyV4 {
        local_addr: addr(*local.ip()),
        remote_addr: addr(*remote.ip()),
        local_port: local.port().to_be(),
        remote_port: remote.port().to_be(),
        channel: match id.direction {
            Direction::ToPeer => id.channel.get().to_be(),
            Direction::ToClient => 0,
        },
        reserved: 0,
    })
}

/// The entry of `FLOWS_V4` that makes datagrams to a listener the relay's. It must be there before any flow of
/// the listener and as long as one is, and has no end of its own.
pub fn listener_v4(listener: SocketAddrV4) -> (FlowKeyV4, FlowV4) {
    endpoint_v4(listener, FlowKind::Listener)
}

/// The entry of `FLOWS_V4` that makes datagrams to a relayed transport address the relay's, as
/// [`listener_v4`].
pub fn relayed_v4(relayed: SocketAddrV4) -> (FlowKeyV4, FlowV4) {
    endpoint_v4(relayed, FlowKind::Relayed)
}

/// The entry of `NEXT_HOPS` at `index` for a resolved next hop. `mtu` is the largest IP packet; what exceeds an
/// IPv4 packet's own limit is cut to it.
pub fn next_hop(
    index: u32,
    ifindex: u32,
    mtu: u32,
    destination_mac: [u8; 6],
    source_mac: [u8; 6],
) -> NextHop {
    let mut macs = [0; 12];
    macs[..6].copy_from_slice(&destination_mac);
    macs[6..].copy_from_slice(&source_mac);
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    NextHop { ifindex, mtu, macs, ..NextHop::default() }.sealed(index)
}

/// The entry of `NEXT_HOPS` at `index` while there is no next hop: packets are punted.
pub fn unresolved_next_hop(index: u32) -> NextHop {
    NextHop::default().sealed(index)
}

/// The entry of `INTERFACES` for an interface that the program is attached to.
pub const fn interface(mac: [u8; 6]) -> Interface {
    Interface { mac, attached: 1 }
}

fn endpoint_v4(address: SocketAddrV4, kind: FlowKind) -> (FlowKeyV4, FlowV4) {
    let key = FlowKeyV4 {
        local_addr: addr(*address.ip()),
        local_port: address.port().to_be(),
        ..FlowKeyV4::default()
    };
    let value = FlowV4 { expires: BootNanos::MAX, kind: kind as u8, ..FlowV4::default() };
    (key, value.sealed(&key))
}

/// Where a flow's packets come in, and where they go out.
struct Ends {
    local: SocketAddrV4,
    remote: SocketAddrV4,
    source: SocketAddrV4,
    destination: SocketAddrV4,
}

impl Ends {
    fn of(id: &FlowId) -> Option<Self> {
        let v4 = |address| match address {
            SocketAddr::V4(address) => Some(address),
            SocketAddr::V6(_) => None,
        };
        let client = v4(id.five_tuple.client.0)?;
        let server = v4(id.five_tuple.server.0)?;
        let relayed = v4(id.relayed.0)?;
        let peer = v4(id.peer.0)?;
        Some(match id.direction {
            Direction::ToPeer => Self { local: server, remote: client, source: relayed, destination: peer },
            Direction::ToClient => Self { local: relayed, remote: peer, source: server, destination: client },
        })
    }
}

/// An address as the shared layouts have it: its octets as they lie in a packet.
const fn addr(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

const fn udp(source: SocketAddrV4, destination: SocketAddrV4) -> UdpV4 {
    UdpV4 {
        source_addr: addr(*source.ip()),
        destination_addr: addr(*destination.ip()),
        source_port: source.port().to_be(),
        destination_port: destination.port().to_be(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::{
        AllocationId, ChannelNumber, ClientAddr, FiveTuple, PeerAddr, RelayedAddr, ServerAddr, Transport,
    };

    fn flow(direction: Direction, peer: &str) -> Flow {
        Flow {
            id: FlowId {
                direction,
                five_tuple: FiveTuple {
                    client: ClientAddr("192.0.2.1:1001".parse().unwrap()),
                    server: ServerAddr("192.0.2.2:1002".parse().unwrap()),
                    transport: Transport::Udp,
                },
                relayed: RelayedAddr("192.0.2.3:1003".parse().unwrap()),
                peer: PeerAddr(peer.parse().unwrap()),
                channel: ChannelNumber::new(0x4123).unwrap(),
            },
            allocation: AllocationId(1),
            expires: 77,
            hairpin: false,
        }
    }

    #[test]
    fn to_peer_comes_from_the_client_and_leaves_from_the_relayed_address() {
        let (key, value) = flow_v4(&flow(Direction::ToPeer, "192.0.2.4:1004"), 5, 6).unwrap();
        assert_eq!(key.local_addr.to_ne_bytes(), [192, 0, 2, 2]);
        assert_eq!(key.remote_addr.to_ne_bytes(), [192, 0, 2, 1]);
        assert_eq!([key.local_port, key.remote_port, key.channel].map(u16::from_be), [1002, 1001, 0x4123]);
        assert_eq!(value.source_addr.to_ne_bytes(), [192, 0, 2, 3]);
        assert_eq!(value.destination_addr.to_ne_bytes(), [192, 0, 2, 4]);
        assert_eq!([value.source_port, value.destination_port].map(u16::from_be), [1003, 1004]);
        assert_eq!((value.expires, value.counter, value.next_hop), (77, 5, 6));
        assert!(value.verify(&key));
    }

    #[test]
    fn to_client_comes_from_the_peer_without_a_channel_and_leaves_from_the_server_with_one() {
        let (key, value) = flow_v4(&flow(Direction::ToClient, "192.0.2.4:1004"), 5, 6).unwrap();
        assert_eq!(key.local_addr.to_ne_bytes(), [192, 0, 2, 3]);
        assert_eq!(key.remote_addr.to_ne_bytes(), [192, 0, 2, 4]);
        assert_eq!([key.local_port, key.remote_port, key.channel].map(u16::from_be), [1003, 1004, 0]);
        assert_eq!(value.source_addr.to_ne_bytes(), [192, 0, 2, 2]);
        assert_eq!(value.destination_addr.to_ne_bytes(), [192, 0, 2, 1]);
        assert_eq!(u16::from_be(value.channel), 0x4123);
        assert!(value.verify(&key));
    }

    #[test]
    fn what_is_not_ipv4_all_through_has_no_entry() {
        assert_eq!(flow_v4(&flow(Direction::ToPeer, "[2001:db8::4]:1004"), 5, 6), None);
        assert_eq!(flow_v4(&flow(Direction::ToClient, "[2001:db8::4]:1004"), 5, 6), None);
    }

    #[test]
    fn an_mtu_beyond_ipv4_is_cut_to_its_limit() {
        assert_eq!(next_hop(1, 2, 65536, [0; 6], [0; 6]).mtu, u16::MAX);
    }
}

//! What the kernel's messages say.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::{
    AddressFamily,
    link::{
        AfSpecInet6, AfSpecUnspec, InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType,
        LinkMessage, LinkProtoInfoInet6, VlanProtocol,
    },
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
        NeighbourState,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
};
use rtnetlink::packet_core::Nla as _;

use super::{
    Tag,
    links::{Link, Vlan},
    netlink::PROTOCOL,
    resolver::{Neighbour, NeighbourKey, Route, Upkeep},
};

/// A route that the kernel would take. `None`: not a plain unicast route.
pub(super) fn route(message: &RouteMessage) -> Option<Route> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route { ifindex: 0, gateway: None, mtu: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => route.ifindex = *ifindex,
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => route.gateway = Some((*gateway).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) => route.gateway = Some((*gateway).into()),
            // An IPv4 route through an IPv6 gateway (RFC 5549).
            RouteAttribute::Via(RouteVia::Inet(gateway)) => route.gateway = Some((*gateway).into()),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => route.gateway = Some((*gateway).into()),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            // A tunnel's header would be missing.
            RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => return None,
            _ => {}
        }
    }
    (route.ifindex != 0).then_some(route)
}

/// The prefix that a route message is about.
pub(super) fn prefix(message: &RouteMessage) -> Option<IpNet> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    match address {
        Some(address) => IpNet::new(address, message.header.destination_prefix_length).ok(),
        None => everywhere(message.header.address_family),
    }
}

/// All destinations of a family; `None` if it is not one of ours.
pub(super) fn everywhere(family: AddressFamily) -> Option<IpNet> {
    match family {
        AddressFamily::Inet => Some(Ipv4Net::default().into()),
        AddressFamily::Inet6 => Some(Ipv6Net::default().into()),
        _ => None,
    }
}

/// A link and its index.
pub(super) fn link(message: &LinkMessage) -> Option<(u32, Link)> {
    // Bridges announce their ports with family AF_BRIDGE and half of the attributes.
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let flags = message.header.flags;
    let up = flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::Running);
    let mut link = Link { name: String::new(), mac: None, mtu: 0, ipv6_mtu: None, up, vlan: None };
    let (mut below, mut tag) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(address) if ethernet => link.mac = address.as_slice().try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::AfSpecUnspec(families) => link.ipv6_mtu = families.iter().find_map(ipv6_mtu),
            LinkAttribute::Link(ifindex) => below = Some(*ifindex),
            LinkAttribute::LinkInfo(info) => tag = vlan_tag(info),
            _ => {}
        }
    }
    // What is below may be in another network namespace, where the index is another link's.
    let elsewhere =
        message.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::LinkNetNsId(_)));
    if let (Some(below), Some(tag), false) = (below, tag, elsewhere) {
        link.vlan = Some(Vlan { below, tag });
    }
    Some((message.header.index, link))
}

/// The index of a link and the MTU that IPv6 now keeps to there, from a message about IPv6 on that link.
pub(super) fn ipv6_link(message: &LinkMessage) -> Option<(u32, u32)> {
    // linux/if_link.h, linux/ipv6.h: an array of i32.
    const IFLA_INET6_CONF: u16 = 2;
    const DEVCONF_MTU6: usize = 2;
    if message.header.interface_family != AddressFamily::Inet6 {
        return None;
    }
    let mtu = message.attributes.iter().find_map(|attribute| {
        let LinkAttribute::ProtoInfoInet6(info) = attribute else { return None };
        let LinkProtoInfoInet6::Other(conf) = info.iter().find(|nla| nla.kind() == IFLA_INET6_CONF)? else {
            return None;
        };
        let mut values = vec![0; conf.value_len()];
        conf.emit_value(&mut values);
        Some(u32::from_ne_bytes(*values.as_chunks().0.get(DEVCONF_MTU6)?))
    })?;
    Some((message.header.index, mtu))
}

fn ipv6_mtu(family: &AfSpecUnspec) -> Option<u32> {
    let AfSpecUnspec::Inet6(attributes) = family else { return None };
    attributes.iter().find_map(|attribute| match attribute {
        AfSpecInet6::DevConf(conf) => u32::try_from(conf.mtu6).ok(),
        _ => None,
    })
}

/// The tag of a VLAN device.
fn vlan_tag(info: &[LinkInfo]) -> Option<Tag> {
    let attributes = info.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(attributes)) => Some(attributes),
        _ => None,
    })?;
    let (mut id, mut service) = (None, false);
    for attribute in attributes {
        match attribute {
            InfoVlan::Id(vid) => id = Some(*vid),
            InfoVlan::Protocol(protocol) => service = *protocol == VlanProtocol::Ieee8021Ad,
            _ => {}
        }
    }
    Some(Tag { id: id?, service })
}

/// An entry of the neighbour table.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<(NeighbourKey, Neighbour)> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut address, mut mac, mut managed, mut ours) = (None, None, false, false);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            NeighbourAttribute::ExtFlags(flags) => managed = flags.contains(NeighbourExtFlags::Managed),
            NeighbourAttribute::Protocol(protocol) => ours = *protocol == PROTOCOL,
            _ => {}
        }
    }
    let state = message.header.state;
    let valid = matches!(
        state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Noarp
            | NeighbourState::Permanent
    );
    let upkeep = match (state, managed) {
        (NeighbourState::Permanent | NeighbourState::Noarp, _) => Upkeep::Others,
        (_, true) if ours => Upkeep::Ours,
        (_, true) => Upkeep::Others,
        (_, false) => Upkeep::None,
    };
    let idle = matches!(state, NeighbourState::None | NeighbourState::Stale | NeighbourState::Failed);
    Some(((message.header.ifindex, address?), Neighbour { mac: mac.filter(|_| valid), upkeep, idle }))
}

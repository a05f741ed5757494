//! What the kernel's messages say.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
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

/// The address of ours that a message is about.
pub(super) fn address(message: &AddressMessage) -> Option<IpAddr> {
    let find = |of: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(of);
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    // Where there is no other end it is the only one.
    local.or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })
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

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::InfoKind;
    use rtnetlink::packet_core::DefaultNla;

    use super::*;

    fn message(family: AddressFamily, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.interface_family = family;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.header.index = 20;
        message.header.flags = LinkFlags::Up | LinkFlags::Running;
        message.attributes = attributes;
        message
    }

    /// `ip link add link NIC name NIC.100 type vlan id 100 proto 802.1ad` with index 20, above index 3.
    fn vlan_device() -> Vec<LinkAttribute> {
        let vlan = vec![InfoVlan::Protocol(VlanProtocol::Ieee8021Ad), InfoVlan::Id(100)];
        vec![
            LinkAttribute::IfName("nic.100".to_owned()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
            LinkAttribute::Mtu(1496),
            LinkAttribute::Link(3),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vlan),
                LinkInfo::Data(InfoData::Vlan(vlan)),
            ]),
        ]
    }

    #[test]
    fn a_vlan_device_has_a_tag_and_a_link_below() {
        let (ifindex, read) = link(&message(AddressFamily::Unspec, vlan_device())).unwrap();
        let vlan = Some(Vlan { below: 3, tag: Tag { id: 100, service: true } });
        let (mac, name) = (Some([2, 0, 0, 0, 0, 1]), "nic.100".to_owned());
        assert_eq!(ifindex, 20);
        assert_eq!(read, Link { name, mac, mtu: 1496, ipv6_mtu: None, up: true, vlan });
    }

    #[test]
    fn what_is_below_is_not_looked_for_in_another_namespace_or_under_other_devices() {
        let elsewhere = [vlan_device(), vec![LinkAttribute::LinkNetNsId(0)]].concat();
        assert_eq!(link(&message(AddressFamily::Unspec, elsewhere)).unwrap().1.vlan, None);
        // A veth's is its other end.
        let veth = [LinkAttribute::Link(3), LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)])];
        assert_eq!(link(&message(AddressFamily::Unspec, veth.into())).unwrap().1.vlan, None);
        assert_eq!(link(&message(AddressFamily::Bridge, vlan_device())), None);
    }

    #[test]
    fn a_router_may_advertise_another_mtu() {
        let conf = [64i32, 255, 1400, 1].map(i32::to_ne_bytes).concat();
        let conf = vec![LinkProtoInfoInet6::Other(DefaultNla::new(2, conf))];
        let advertised = message(AddressFamily::Inet6, vec![LinkAttribute::ProtoInfoInet6(conf)]);
        assert_eq!(ipv6_link(&advertised), Some((20, 1400)));
        assert_eq!(link(&advertised), None, "not a link as a whole");
        assert_eq!(ipv6_link(&message(AddressFamily::Unspec, vlan_device())), None);
    }
}

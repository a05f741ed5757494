//! Tells what may be the relay's from everything else, which goes to the kernel untouched and uncounted, and checks
//! its headers.

use relay_common::{
    address::{Address, Family},
    checksum,
    flow::form,
    interface::{Interface, VlanKey},
    outcome::Outcome,
    port_class::PortClass,
};

use crate::{
    decide::{COMMON, Case},
    headers::{
        ETHERNET_LEN, Ethernet, IPV4_LEN, IPV6_LEN, IpUdp, Ipv4, Ipv6, PROTOCOL_UDP, Ports, TAG_LEN, Tag,
        UDP_LEN, Words, ether_type,
    },
    key::Key,
    lookup,
    packet::Packet,
};

/// The fragment offset within the word of flags and offset, as it lies in a header.
const FRAGMENT_OFFSET: u16 = u16::to_be(0x1fff);
/// "More fragments" and the fragment offset.
const ANY_FRAGMENT: u16 = u16::to_be(0x3fff);
/// "Don't fragment".
pub(crate) const DONT_FRAGMENT: u16 = u16::to_be(0x4000);
/// Version 4, and 32-bit words of a header without options.
const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
/// The VLAN identifier within a tag's control information (host byte order).
const VLAN_ID: u16 = 0x0fff;

/// What the link layer says of a frame.
pub(crate) struct Link {
    /// The packet's EtherType, behind any tags.
    pub(crate) ether_type: u16,
    /// Where the IP header begins: behind at most two tags.
    network_at: usize,
    /// What the first word of the frame must be, see [`Interface::word`]; 0 where nothing is received.
    own_mac: u64,
}

/// `None`: too short, or tagged as no VLAN of this host is.
#[inline(always)]
pub(crate) fn link<const CASE: Case>(packet: &Packet) -> Option<Link> {
    let ifindex = packet.ingress_ifindex();
    let Ethernet { ether_type, .. } = *packet.at(0)?;
    if CASE == COMMON {
        return Some(Link { ether_type, network_at: ETHERNET_LEN, own_mac: lookup::interface(ifindex) });
    }
    if ether_type != ether_type::VLAN && ether_type != ether_type::SERVICE_VLAN {
        return Some(Link::new(ether_type, ETHERNET_LEN, lookup::interface(ifindex)));
    }
    let service = if ether_type == ether_type::SERVICE_VLAN { VlanKey::SERVICE_TAG } else { 0 };
    let Tag { control, mut ether_type } = *packet.at(ETHERNET_LEN)?;
    let outer = u16::from_be(control) & VLAN_ID;
    let mut inner = 0;
    let mut network_at = ETHERNET_LEN + TAG_LEN;
    if ether_type == ether_type::VLAN {
        let tag: &Tag = packet.at(ETHERNET_LEN + TAG_LEN)?;
        inner = u16::from_be(tag.control) & VLAN_ID;
        // A tag without an identifier is no VLAN's, and not the same as no tag.
        if inner == 0 {
            return None;
        }
        ether_type = tag.ether_type;
        network_at += TAG_LEN;
    }
    if outer == 0 {
        return None;
    }
    let own_mac = lookup::vlan(&VlanKey { ifindex, outer: outer | service, inner })?;
    Some(Link::new(ether_type, network_at, own_mac))
}

impl Link {
    #[inline(always)]
    const fn new(ether_type: u16, network_at: usize, own_mac: u64) -> Self {
        // Adds 0, which the verifier does not know: it would follow the rest of the program for each number of tags apart.
        Self { ether_type, network_at: network_at + (own_mac >> 63) as usize, own_mac }
    }

    /// The same, with its EtherType as a number that the compiler knows.
    #[inline(always)]
    pub(crate) const fn of(self, ether_type: u16) -> Self {
        Self { ether_type, ..self }
    }
}

/// A UDP datagram, or the first fragment of one, to a port that the relay uses on some address.
pub(crate) struct Arrival {
    /// Where to and where from; no channel.
    pub(crate) key: Key,
    /// What the relay uses the destination port for.
    class: PortClass,
}

/// What the packet says of where it goes. `None`: not the relay's, or too broken to tell. Later fragments have
/// no ports, so they never are; and without a walk along IPv6 extension headers nobody knows the ports.
#[inline(always)]
pub(crate) fn arrival(packet: &Packet, link: &Link) -> Option<Arrival> {
    let key = match link.ether_type {
        ether_type::IPV4 => ipv4_key(packet, link)?,
        ether_type::IPV6 => ipv6_key(packet, link)?,
        _ => return None,
    };
    let class = lookup::port_class(u16::from_be(key.local_port))?;
    Some(Arrival { key, class })
}

#[inline(always)]
fn ipv4_key(packet: &Packet, link: &Link) -> Option<Key> {
    let IpUdp { ip, udp } = *packet.at_any::<IpUdp<Ipv4>>(link.network_at)?;
    if ip.protocol != PROTOCOL_UDP || ip.fragment & FRAGMENT_OFFSET != 0 {
        return None;
    }
    let ports = if ip.version_ihl == IPV4_WITHOUT_OPTIONS {
        Ports { source: udp.source_port, destination: udp.destination_port }
    } else if ip.version_ihl > IPV4_WITHOUT_OPTIONS && ip.version_ihl >> 4 == 4 {
        *packet.at_any::<Ports>(link.network_at + (ip.version_ihl & 0xf) as usize * 4)?
    } else {
        return None;
    };
    Some(Key {
        version: Family::V4 as u8,
        local: Address::v4(ip.destination),
        remote: Address::v4(ip.source),
        local_port: ports.destination,
        remote_port: ports.source,
        channel: 0,
        form: form::DATA,
    })
}

#[inline(always)]
fn ipv6_key(packet: &Packet, link: &Link) -> Option<Key> {
    let IpUdp { ip, udp } = *packet.at_any::<IpUdp<Ipv6>>(link.network_at)?;
    if ip.version_class_flow.to_ne_bytes()[0] >> 4 != 6 || ip.next_header != PROTOCOL_UDP {
        return None;
    }
    Some(Key {
        version: Family::V6 as u8,
        local: Address(ip.destination),
        remote: Address(ip.source),
        local_port: udp.destination_port,
        remote_port: udp.source_port,
        channel: 0,
        form: form::DATA,
    })
}

/// A UDP datagram in order, in a frame that holds all of it.
pub(crate) struct Received {
    /// Where to and where from; no channel.
    pub(crate) key: Key,
    /// What the relay uses the destination port for.
    pub(crate) class: PortClass,
    /// Where UDP's payload begins.
    payload_at: usize,
    /// Bytes of the frame in all its pieces.
    pub(crate) frame_len: usize,
    /// Bytes of the frame that are not in the first. (A number: of a yes or no the verifier would follow both ways to the end.)
    pub(crate) further_len: usize,
    /// What the UDP header says: at least 8.
    pub(crate) udp_len: usize,
    pub(crate) udp_checksum: u16,
    /// TTL or hop limit.
    pub(crate) ttl: u8,
    /// DSCP and ECN.
    pub(crate) traffic_class: u8,
    /// IPv4's DF as it lies in a header, or 0.
    pub(crate) dont_fragment: u16,
}

impl Received {
    /// Where UDP's payload begins: small, as the verifier wants to see.
    #[inline(always)]
    pub(crate) const fn payload_at(&self) -> usize {
        self.payload_at & 0x7f
    }

    /// The same, with its class as a number that the compiler knows.
    #[inline(always)]
    pub(crate) const fn of(self, class: PortClass) -> Self {
        Self { class, ..self }
    }
}
const _: () = assert!(ETHERNET_LEN + 2 * TAG_LEN + IPV6_LEN + UDP_LEN < 0x7f);

/// Everything that must hold of the headers.
#[inline(always)]
pub(crate) fn check(packet: &Packet, link: &Link, arrival: Arrival) -> Result<Received, Outcome> {
    if arrival.key.is_v4() { check_ipv4(packet, link, arrival) } else { check_ipv6(packet, link, arrival) }
}

/// A packet in order takes one branch; which rule another one breaks is told apart beside the way.
#[inline(always)]
fn check_ipv4(packet: &Packet, link: &Link, arrival: Arrival) -> Result<Received, Outcome> {
    let (frame_len, linear_len) = (packet.whole_len(), packet.linear_len());
    let IpUdp { ip, udp } = *packet.at_any::<IpUdp<Ipv4>>(link.network_at).ok_or(Outcome::NonLinear)?;
    let IpUdp { ip: words, .. } =
        *packet.at_any::<IpUdp<Words<5>>>(link.network_at).ok_or(Outcome::NonLinear)?;
    let mac_difference = link.own_mac ^ first_word(packet)?;
    let options = (ip.version_ihl ^ IPV4_WITHOUT_OPTIONS) as u64;
    let fragment = (ip.fragment & ANY_FRAGMENT) as u64;
    let ip_checksum = !checksum::fold_wide(words.sum()) as u64;
    let total_len = u16::from_be(ip.total_len) as i64;
    let udp_len = u16::from_be(udp.len) as i64;
    // Negative where one length does not fit the other.
    let misfit = (udp_len - UDP_LEN as i64)
        | (total_len - IPV4_LEN as i64 - udp_len)
        | (frame_len as i64 - link.network_at as i64 - total_len);

    if mac_difference | options | fragment | ip_checksum | (misfit as u64 >> 63) == 0 {
        Ok(Received {
            key: arrival.key,
            class: arrival.class,
            payload_at: link.network_at + IPV4_LEN + UDP_LEN,
            frame_len,
            further_len: frame_len - linear_len,
            udp_len: udp_len as usize,
            udp_checksum: udp.checksum,
            ttl: ip.ttl,
            traffic_class: ip.traffic_class,
            dont_fragment: ip.fragment & DONT_FRAGMENT,
        })
    } else if options != 0 {
        Err(Outcome::IpOptions)
    } else if fragment != 0 {
        Err(Outcome::Fragment)
    } else if mac_difference != 0 {
        Err(Outcome::ForeignMac)
    } else if ip_checksum != 0 {
        Err(Outcome::IpChecksum)
    } else {
        Err(Outcome::UdpLength)
    }
}

#[inline(always)]
fn check_ipv6(packet: &Packet, link: &Link, arrival: Arrival) -> Result<Received, Outcome> {
    let (frame_len, linear_len) = (packet.whole_len(), packet.linear_len());
    let IpUdp { ip, udp } = *packet.at_any::<IpUdp<Ipv6>>(link.network_at).ok_or(Outcome::NonLinear)?;
    let payload_len = u16::from_be(ip.payload_len) as i64;
    let udp_len = u16::from_be(udp.len) as i64;
    let misfit = (udp_len - UDP_LEN as i64)
        | (payload_len - udp_len)
        | (frame_len as i64 - (link.network_at + IPV6_LEN) as i64 - payload_len);

    if link.own_mac != first_word(packet)? {
        return Err(Outcome::ForeignMac);
    }
    if misfit < 0 {
        return Err(Outcome::UdpLength);
    }
    if udp.checksum == 0 {
        return Err(Outcome::Ipv6ZeroChecksum);
    }
    let [first, second, ..] = ip.version_class_flow.to_ne_bytes();
    Ok(Received {
        key: arrival.key,
        class: arrival.class,
        payload_at: link.network_at + IPV6_LEN + UDP_LEN,
        frame_len,
        further_len: frame_len - linear_len,
        udp_len: udp_len as usize,
        udp_checksum: udp.checksum,
        ttl: ip.hop_limit,
        traffic_class: first << 4 | second >> 4,
        dont_fragment: 0,
    })
}

#[inline(always)]
fn first_word(packet: &Packet) -> Result<u64, Outcome> {
    let ethernet: &Ethernet = packet.at(0).ok_or(Outcome::NonLinear)?;
    Ok(Interface::word(ethernet.macs))
}

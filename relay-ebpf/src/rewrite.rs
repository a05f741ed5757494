//! The only place where a byte of a packet changes.

use relay_common::{
    address::{Address, Family},
    checksum,
    path::{self, Path},
};

use crate::{
    decide::{Header, Plan, padding_mask},
    headers::{
        ChannelData, ETHERNET_LEN, Ethernet, IPV4_LEN, IPV6_LEN, Ipv4, Ipv6, PROTOCOL_UDP, TAG_LEN, Tag,
        UDP_LEN, Udp, Words, ether_type,
    },
    indication,
    packet::Packet,
};

/// Writes the outgoing headers and counts the packet. Head and tail have been moved. `None`: the frame is not what
/// the plan was made for, and must be dropped.
#[inline(always)]
pub(crate) fn rewrite(packet: &mut Packet, plan: &Plan) -> Option<()> {
    if plan.padding_len > 0 {
        zero(packet, plan.padding_end, plan.padding_len)?;
    }
    let to_v4 = plan.path.family == Family::V4 as u8;
    write_link(packet, plan, if to_v4 { ether_type::IPV4 } else { ether_type::IPV6 })?;
    if to_v4 {
        write_ipv4(packet, plan)?;
        write_udp(packet, plan, plan.link_len + IPV4_LEN)
    } else {
        write_ipv6(packet, plan)?;
        write_udp(packet, plan, plan.link_len + IPV6_LEN)
    }?;
    plan.account.counter.add(plan.data_len);
    if let Some(sender) = plan.sender {
        sender.counter.add(plan.data_len);
    }
    Some(())
}

/// Zeroes the padding of `len` bytes that ends at `end`.
#[inline(always)]
fn zero(packet: &mut Packet, end: usize, len: usize) -> Option<()> {
    if end > indication::MAX_OFFSET {
        return None;
    }
    let word: &mut Words<1> = packet.at_any_mut(end - size_of::<Words<1>>())?;
    *word = Words([(word.sum() & !padding_mask(len)) as u32]);
    Some(())
}

#[inline(always)]
fn write_link(packet: &mut Packet, plan: &Plan, payload: u16) -> Option<()> {
    let Path { vlans, flags, .. } = plan.path;
    let tags = flags & path::flags::TAGS;
    let (macs, macs_rest) = plan.path.mac_words();
    let ethernet: &mut Ethernet = packet.at_mut(0)?;
    (ethernet.macs, ethernet.macs_rest) = (macs, macs_rest);
    if tags == 0 {
        ethernet.ether_type = payload;
        return Some(());
    }
    ethernet.ether_type =
        if flags & path::flags::SERVICE_TAG != 0 { ether_type::SERVICE_VLAN } else { ether_type::VLAN };
    let inner = if tags == 1 { payload } else { ether_type::VLAN };
    *packet.at_mut(ETHERNET_LEN)? = Tag { control: vlans[0], ether_type: inner };
    if tags == 2 {
        *packet.at_mut(ETHERNET_LEN + TAG_LEN)? = Tag { control: vlans[1], ether_type: payload };
    }
    Some(())
}

#[inline(always)]
fn write_ipv4(packet: &mut Packet, plan: &Plan) -> Option<()> {
    let total_len = (IPV4_LEN as u16 + plan.udp_len).to_be();
    // Ours, and with DF clear not constant (RFC 6864 section 4). One flow's packets come by one receive queue, so
    // reading the count before adding to it is as good as one operation.
    let identification = plan.identification_base.wrapping_add(plan.account.counter.packets());
    let fragment = plan.dont_fragment;
    let version_class = u16::from_ne_bytes([0x45, plan.traffic_class]);
    let ttl_protocol = u16::from_ne_bytes([plan.ttl, PROTOCOL_UDP]);
    let sum = version_class as u64
        + total_len as u64
        + identification as u64
        + fragment as u64
        + ttl_protocol as u64
        + plan.ip_sum as u64;
    *packet.at_mut(plan.link_len)? = Ipv4 {
        version_ihl: 0x45,
        traffic_class: plan.traffic_class,
        total_len,
        identification,
        fragment,
        ttl: plan.ttl,
        protocol: PROTOCOL_UDP,
        checksum: !checksum::fold(sum),
        source: plan.path.source.to_v4(),
        destination: plan.path.destination.to_v4(),
    };
    Some(())
}

/// The flow label is 0, which is one of the two that RFC 8656 section 13.1 has.
#[inline(always)]
fn write_ipv6(packet: &mut Packet, plan: &Plan) -> Option<()> {
    let (Address(source), Address(destination)) = (plan.path.source, plan.path.destination);
    *packet.at_mut(plan.link_len)? = Ipv6 {
        version_class_flow: (6 << 28 | (plan.traffic_class as u32) << 20).to_be(),
        payload_len: plan.udp_len.to_be(),
        next_header: PROTOCOL_UDP,
        hop_limit: plan.ttl,
        source,
        destination,
    };
    Some(())
}

#[inline(always)]
fn write_udp(packet: &mut Packet, plan: &Plan, at: usize) -> Option<()> {
    *packet.at_mut(at)? = Udp {
        source_port: plan.source_port,
        destination_port: plan.destination_port,
        len: plan.udp_len.to_be(),
        checksum: plan.udp_checksum,
    };
    match &plan.header {
        Header::None => {}
        Header::ChannelData { number, len } => {
            *packet.at_mut(at + UDP_LEN)? = ChannelData { number: *number, len: *len };
        }
        Header::DataIndication(header) => header.write(packet, at + UDP_LEN)?,
    }
    Some(())
}

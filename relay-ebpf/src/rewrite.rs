//! The only place where a byte of a packet changes.

use relay_common::checksum;

use crate::{
    decide::Plan,
    packet::{ChannelDataHeader, Headers, PAYLOAD_AT, Packet},
    parse::ETHER_TYPE_IPV4,
};

/// Writes the outgoing headers and counts the packet. The head has been moved. `None`: the frame is not what
/// the plan was made for, and must be dropped.
#[inline(always)]
pub(crate) fn rewrite(packet: &mut Packet, plan: &Plan) -> Option<()> {
    if !packet.cut_tail(plan.tail) {
        return None;
    }
    if let Some(header) = plan.channel_data {
        *packet.at_mut::<ChannelDataHeader>(PAYLOAD_AT)? = header;
    }
    let headers: &mut Headers = packet.at_mut(0)?;

    // Nothing can fail any more.
    // Ours, and with DF clear not constant (RFC 6864 section 4). One flow's packets come by one receive queue, so
    // reading the count before adding to it is as good as one operation.
    let identification = plan.identification_base.wrapping_add(plan.counter.packets());
    plan.counter.add(plan.data_len);
    if let Some(counter) = plan.hairpin_counter {
        counter.add(plan.data_len);
    }

    let [d0, d1, d2, s0, s1, s2] = mac_words(plan.macs);
    headers.destination_mac = [d0, d1, d2];
    headers.source_mac = [s0, s1, s2];
    headers.ether_type = ETHER_TYPE_IPV4;

    headers.version_tos = plan.version_tos;
    headers.total_len = plan.total_len;
    headers.identification = identification;
    headers.fragment = plan.fragment;
    headers.ttl_protocol = plan.ttl_protocol;
    headers.ip_checksum = !checksum::fold(
        plan.version_tos as u64
            + plan.total_len as u64
            + identification as u64
            + plan.fragment as u64
            + plan.ttl_protocol as u64
            + plan.ip_sum as u64,
    );
    headers.source_addr = address_words(plan.source_addr);
    headers.destination_addr = address_words(plan.destination_addr);

    headers.source_port = plan.source_port;
    headers.destination_port = plan.destination_port;
    headers.udp_len = plan.udp_len;
    headers.udp_checksum = plan.udp_checksum;
    Some(())
}

#[inline(always)]
const fn mac_words(macs: [u8; 12]) -> [u16; 6] {
    let mut words = [0; 6];
    let mut i = 0;
    while i < words.len() {
        words[i] = u16::from_ne_bytes([macs[2 * i], macs[2 * i + 1]]);
        i += 1;
    }
    words
}

#[inline(always)]
const fn address_words(address: u32) -> [u16; 2] {
    let [a, b, c, d] = address.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}

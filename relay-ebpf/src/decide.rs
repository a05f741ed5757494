//! Every rule about what may be forwarded and how. Nothing here changes the packet.

use aya_ebpf::bindings::xdp_action::{XDP_PASS, XDP_TX};
use relay_common::{
    channel_data::{self, FirstByte, classify},
    checksum,
    flow::{FlowKeyV4, FlowKind, FlowV4, flags},
    interface::Interface,
    outcome::Outcome,
    port_class::PortClass,
};

use crate::{
    lookup::{self, Counter},
    maps::TX_PORTS,
    packet::{ChannelDataHeader, ETHERNET_LEN, Headers, IPV4_LEN, PAYLOAD_AT, Packet, UDP_LEN},
    parse::{Arrival, IHL_WITHOUT_OPTIONS},
};

const CHANNEL_DATA_AT: usize = PAYLOAD_AT + channel_data::HEADER_LEN;
/// ChannelData over UDP may be padded to a multiple of 4 (RFC 8656 section 12.5). What is longer is odd enough
/// for the slow path.
const MAX_PADDING: usize = 3;
/// What all channel numbers and nothing else has in common, as it lies in a header: RFC 5766's too, whether the
/// daemon accepts those or not, for only then they have flows.
const CHANNEL_NUMBERS: u16 = u16::to_be(0xc000);
const CHANNEL_MIN: u16 = channel_data::CHANNEL_MIN.to_be();
/// "More fragments" and the fragment offset, as they lie in a header.
const ANY_FRAGMENT: u16 = u16::to_be(0x3fff);
/// "Don't fragment", as it lies in a header.
const DONT_FRAGMENT: u16 = u16::to_be(0x4000);

/// The outgoing packet. Whatever goes into a header is in network byte order.
pub(crate) struct Plan {
    /// What the program returns.
    pub(crate) verdict: u32,
    /// Destination, then source MAC address.
    pub(crate) macs: [u8; 12],
    /// Bytes to take off the front of the frame; negative: to add.
    pub(crate) head: i32,
    /// Bytes to take off its end.
    pub(crate) tail: u32,
    pub(crate) version_tos: u16,
    pub(crate) total_len: u16,
    pub(crate) fragment: u16,
    pub(crate) ttl_protocol: u16,
    /// Sum of the two addresses.
    pub(crate) ip_sum: u16,
    pub(crate) source_addr: u32,
    pub(crate) destination_addr: u32,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) udp_len: u16,
    pub(crate) udp_checksum: u16,
    /// Header of outgoing ChannelData.
    pub(crate) channel_data: Option<ChannelDataHeader>,
    /// Bytes of application data, host byte order.
    pub(crate) data_len: u16,
    pub(crate) counter: Counter,
    /// Differs from flow to flow; the packet count is added to make the Identification.
    pub(crate) identification_base: u16,
    /// Of the sending allocation's flow, in a hairpin.
    pub(crate) hairpin_counter: Option<Counter>,
}

/// What becomes of an arrival: a plan, or the reason why there is none.
#[inline(always)]
pub(crate) fn decide(packet: &Packet, arrival: &Arrival) -> Result<Plan, Outcome> {
    let headers: &Headers = packet.at(0).ok_or(Outcome::NonLinear)?;
    let lengths = check_headers(packet, arrival, headers)?;
    let datagram = match arrival.class {
        PortClass::Listener => from_client(packet, arrival, lengths.udp - UDP_LEN)?,
        _ => from_peer(arrival, lengths.udp - UDP_LEN)?,
    };
    plan(packet, headers, lengths.frame, &datagram)
}

/// What the frame measures, and what its UDP header says. The frame holds all of the datagram.
struct Lengths {
    frame: usize,
    udp: usize,
}

/// Data on its way, and the flow that it leaves by.
struct Datagram {
    flow: FlowV4,
    /// Where the data begins in the incoming frame.
    data_at: usize,
    data_len: usize,
    /// Whether it leaves as ChannelData.
    to_client: bool,
    /// What the UDP checksum changes by.
    udp_delta: u64,
    /// See [`FlowV4::pseudo_sum`], of the flow that it came in by.
    pseudo_sum: u16,
    head: i32,
    hairpin_counter: Option<Counter>,
}

/// Everything that must hold of the headers. A packet in order takes one branch; which rule another one breaks
/// is told apart beside the way.
#[inline(always)]
fn check_headers(packet: &Packet, arrival: &Arrival, headers: &Headers) -> Result<Lengths, Outcome> {
    let frame_len = packet.linear_len();
    let further_len = packet.whole_len() - frame_len;
    let mac_difference =
        lookup::interface(packet.ingress_ifindex()) ^ Interface::word(headers.destination_mac);
    let options = (arrival.ihl ^ IHL_WITHOUT_OPTIONS) as u64;
    let fragment = (headers.fragment & ANY_FRAGMENT) as u64;
    let sum = headers.version_tos as u64
        + headers.total_len as u64
        + headers.identification as u64
        + headers.fragment as u64
        + headers.ttl_protocol as u64
        + headers.ip_checksum as u64
        + headers.source_addr[0] as u64
        + headers.source_addr[1] as u64
        + headers.destination_addr[0] as u64
        + headers.destination_addr[1] as u64;
    let ip_checksum = !checksum::fold(sum) as u64;
    let total_len = u16::from_be(headers.total_len) as i64;
    let udp_len = u16::from_be(headers.udp_len) as i64;
    // Negative where one length does not fit the other.
    let misfit = (udp_len - UDP_LEN as i64)
        | (total_len - IPV4_LEN as i64 - udp_len)
        | (frame_len as i64 - ETHERNET_LEN as i64 - total_len);

    if further_len as u64 | mac_difference | options | fragment | ip_checksum | (misfit as u64 >> 63) == 0 {
        Ok(Lengths { frame: frame_len, udp: udp_len as usize })
    } else if further_len != 0 {
        Err(Outcome::NonLinear)
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
fn from_client(packet: &Packet, arrival: &Arrival, payload_len: usize) -> Result<Datagram, Outcome> {
    let Some(&header) = packet.at::<ChannelDataHeader>(PAYLOAD_AT) else {
        return Err(no_channel_data(packet, payload_len));
    };
    let data_len = u16::from_be(header.len) as usize;
    // Huge where the datagram is too short.
    let padding_len = payload_len.wrapping_sub(channel_data::HEADER_LEN + data_len);
    if header.number & CHANNEL_NUMBERS != CHANNEL_MIN || padding_len > MAX_PADDING {
        return Err(no_channel_data(packet, payload_len));
    }

    let key = FlowKeyV4 { channel: header.number, ..arrival.key };
    let flow = live(&key, FlowKind::ToPeer)?;
    let mut udp_delta = flow.udp_delta as u64;
    if padding_len > 0 {
        udp_delta += padding_delta(packet, data_len, padding_len)?;
    }
    if flow.flags & flags::HAIRPIN != 0 {
        return hairpin(&flow, data_len, udp_delta);
    }
    Ok(Datagram {
        data_at: CHANNEL_DATA_AT,
        data_len,
        to_client: false,
        udp_delta: udp_delta + !header.len as u64,
        pseudo_sum: flow.pseudo_sum,
        head: channel_data::HEADER_LEN as i32,
        hairpin_counter: None,
        flow,
    })
}

/// Why a datagram to a listener is not ChannelData, or not in order.
#[inline(always)]
fn no_channel_data(packet: &Packet, payload_len: usize) -> Outcome {
    let Some(first_byte) = packet.at::<u8>(PAYLOAD_AT).filter(|_| payload_len > 0) else {
        return Outcome::NotTurn;
    };
    match classify(*first_byte) {
        FirstByte::Stun | FirstByte::Dtls => return Outcome::Control,
        FirstByte::Other => return Outcome::NotTurn,
        FirstByte::ChannelData | FirstByte::Rfc5766ChannelData => {}
    }
    match packet.at::<ChannelDataHeader>(PAYLOAD_AT) {
        Some(header) if channel_data::HEADER_LEN + u16::from_be(header.len) as usize <= payload_len => {
            Outcome::Trailer
        }
        _ => Outcome::ChannelDataLength,
    }
}

#[inline(always)]
fn from_peer(arrival: &Arrival, data_len: usize) -> Result<Datagram, Outcome> {
    let flow = live(&arrival.key, FlowKind::ToClient)?;
    // Such a peer is one of our own addresses, and nothing from those comes in by a wire.
    if flow.flags & flags::HAIRPIN != 0 {
        return Err(Outcome::NoFlow);
    }
    Ok(Datagram {
        data_at: PAYLOAD_AT,
        data_len,
        to_client: true,
        udp_delta: flow.udp_delta as u64 + (data_len as u16).to_be() as u64,
        pseudo_sum: flow.pseudo_sum,
        head: -(channel_data::HEADER_LEN as i32),
        hairpin_counter: None,
        flow,
    })
}

/// From one allocation of this server to another: `sending` took the data out of one client's channel, the
/// flow for its relayed address puts it into the other's. The two checksum changes add up.
#[inline(always)]
fn hairpin(sending: &FlowV4, data_len: usize, udp_delta: u64) -> Result<Datagram, Outcome> {
    let key = FlowKeyV4 {
        local_addr: sending.destination_addr,
        remote_addr: sending.source_addr,
        local_port: sending.destination_port,
        remote_port: sending.source_port,
        channel: 0,
        reserved: 0,
    };
    let receiving = live(&key, FlowKind::ToClient).map_err(|outcome| match outcome {
        Outcome::Torn => Outcome::Torn,
        _ => Outcome::HairpinMiss,
    })?;
    Ok(Datagram {
        data_at: CHANNEL_DATA_AT,
        data_len,
        to_client: true,
        udp_delta: udp_delta + receiving.udp_delta as u64,
        pseudo_sum: sending.pseudo_sum,
        head: 0,
        hairpin_counter: Some(Counter::at(sending.counter)?),
        flow: receiving,
    })
}

/// The flow of this kind under `key`, before its end.
#[inline(always)]
fn live(key: &FlowKeyV4, kind: FlowKind) -> Result<FlowV4, Outcome> {
    let flow = lookup::flow(key)?;
    if flow.kind != kind as u8 {
        return Err(Outcome::NoFlow);
    }
    if lookup::now() >= flow.expires {
        return Err(Outcome::Expired);
    }
    Ok(flow)
}

/// What the UDP checksum loses with the padding behind the data.
#[inline(always)]
fn padding_delta(packet: &Packet, data_len: usize, padding_len: usize) -> Result<u64, Outcome> {
    // The verifier follows no larger offset.
    if data_len > 0x3fff {
        return Err(Outcome::Trailer);
    }
    let mut delta = 2 * !(padding_len as u16).to_be() as u64;
    let mut i = 0;
    while i < MAX_PADDING {
        if i < padding_len {
            let byte = *packet.at::<u8>(CHANNEL_DATA_AT + i + data_len).ok_or(Outcome::UdpLength)?;
            // The data begins at an even distance from the UDP header.
            let word = if (data_len + i).is_multiple_of(2) { [byte, 0] } else { [0, byte] };
            delta += !u16::from_ne_bytes(word) as u64;
        }
        i += 1;
    }
    Ok(delta)
}

/// The rules that concern the outgoing packet. The redirect comes last: it is in vain if anything else fails.
#[inline(always)]
fn plan(packet: &Packet, headers: &Headers, frame_len: usize, datagram: &Datagram) -> Result<Plan, Outcome> {
    let [ttl, protocol] = headers.ttl_protocol.to_ne_bytes();
    if ttl <= 1 {
        return Err(Outcome::Ttl);
    }
    if headers.udp_checksum == checksum::fold(datagram.pseudo_sum as u64 + headers.udp_len as u64) {
        return Err(Outcome::PartialChecksum);
    }
    let flow = &datagram.flow;
    let header_len = if datagram.to_client { channel_data::HEADER_LEN } else { 0 };
    let udp_len = UDP_LEN + header_len + datagram.data_len;
    let total_len = IPV4_LEN + udp_len;
    let next_hop = lookup::next_hop(flow.next_hop)?;
    if total_len > next_hop.mtu as usize {
        return Err(if next_hop.ifindex == 0 { Outcome::NextHop } else { Outcome::Mtu });
    }
    let counter = Counter::at(flow.counter)?;
    let verdict = if next_hop.ifindex == packet.ingress_ifindex() {
        XDP_TX
    } else {
        TX_PORTS.redirect(next_hop.ifindex, XDP_PASS as u64).map_err(|_| Outcome::TxPort)?
    };
    Ok(Plan {
        verdict,
        macs: next_hop.macs,
        head: datagram.head,
        tail: (frame_len - datagram.data_at - datagram.data_len) as u32,
        version_tos: headers.version_tos,
        total_len: (total_len as u16).to_be(),
        fragment: headers.fragment & DONT_FRAGMENT,
        ttl_protocol: u16::from_ne_bytes([ttl - 1, protocol]),
        ip_sum: flow.ip_sum,
        source_addr: flow.source_addr,
        destination_addr: flow.destination_addr,
        source_port: flow.source_port,
        destination_port: flow.destination_port,
        udp_len: (udp_len as u16).to_be(),
        udp_checksum: match headers.udp_checksum {
            0 => 0,
            checksum => checksum::udp_nonzero(checksum::update(checksum, datagram.udp_delta)),
        },
        channel_data: datagram
            .to_client
            .then_some(ChannelDataHeader { number: flow.channel, len: (datagram.data_len as u16).to_be() }),
        data_len: datagram.data_len as u16,
        counter,
        identification_base: (flow.counter.wrapping_mul(0x9e37_79b1) >> 16) as u16,
        hairpin_counter: datagram.hairpin_counter,
    })
}

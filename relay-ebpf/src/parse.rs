//! Tells what may be the relay's from everything else, which goes to the kernel untouched and uncounted.

use relay_common::{flow::FlowKeyV4, port_class::PortClass};

use crate::{
    lookup,
    packet::{ETHERNET_LEN, Headers, Packet},
};

/// EtherType of IPv4, as it lies in a frame.
pub(crate) const ETHER_TYPE_IPV4: u16 = u16::to_be(0x0800);
/// IP protocol number of UDP.
const PROTOCOL_UDP: u8 = 17;
/// The fragment offset within the word of flags and offset, as it lies in a header.
const FRAGMENT_OFFSET: u16 = u16::to_be(0x1fff);
/// 32-bit words of an IPv4 header without options.
pub(crate) const IHL_WITHOUT_OPTIONS: u8 = 5;

/// A UDP datagram over IPv4, or the first fragment of one, to a port that the relay uses on some address.
pub(crate) struct Arrival {
    /// Where to and where from; channel 0.
    pub(crate) key: FlowKeyV4,
    /// What the relay uses the destination port for.
    pub(crate) class: PortClass,
    /// 32-bit words in the IPv4 header: at least 5, more with options.
    pub(crate) ihl: u8,
}

/// What the packet says of where it goes. `None`: not the relay's, or too broken to tell. Later fragments have
/// no ports, so they never are.
#[inline(always)]
pub(crate) fn arrival(packet: &Packet) -> Option<Arrival> {
    let headers: &Headers = packet.at(0)?;
    let version_ihl = headers.version_tos.to_ne_bytes()[0];
    if headers.ether_type != ETHER_TYPE_IPV4
        || version_ihl >> 4 != 4
        || headers.ttl_protocol.to_ne_bytes()[1] != PROTOCOL_UDP
        || headers.fragment & FRAGMENT_OFFSET != 0
    {
        return None;
    }
    let ihl = version_ihl & 0xf;
    let [remote_port, local_port] = if ihl == IHL_WITHOUT_OPTIONS {
        [headers.source_port, headers.destination_port]
    } else if ihl > IHL_WITHOUT_OPTIONS {
        *packet.at::<[u16; 2]>(ETHERNET_LEN + ihl as usize * 4)?
    } else {
        return None;
    };
    Some(Arrival {
        class: lookup::port_class(u16::from_be(local_port))?,
        key: FlowKeyV4 {
            local_addr: address(headers.destination_addr),
            remote_addr: address(headers.source_addr),
            local_port,
            remote_port,
            channel: 0,
            reserved: 0,
        },
        ihl,
    })
}

/// An address as the shared layouts have it.
#[inline(always)]
pub(crate) const fn address(words: [u16; 2]) -> u32 {
    if cfg!(target_endian = "little") {
        words[0] as u32 | (words[1] as u32) << 16
    } else {
        (words[0] as u32) << 16 | words[1] as u32
    }
}

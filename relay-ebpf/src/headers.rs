//! Headers as they lie in a frame. Numbers are in network byte order; addresses and sums are not changed by it.

use relay_common::channel_data;

use crate::packet::Plain;

/// EtherTypes, as they lie in a frame.
pub(crate) mod ether_type {
    pub(crate) const IPV4: u16 = u16::to_be(0x0800);
    pub(crate) const IPV6: u16 = u16::to_be(0x86dd);
    /// IEEE 802.1Q: the only tag, or the inner one.
    pub(crate) const VLAN: u16 = u16::to_be(0x8100);
    /// IEEE 802.1ad: the outer tag of two, or the only one.
    pub(crate) const SERVICE_VLAN: u16 = u16::to_be(0x88a8);
}

/// IP protocol number, or next header, of UDP.
pub(crate) const PROTOCOL_UDP: u8 = 17;

/// Ethernet header without tags. The MAC addresses as words, to be copied whole.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Ethernet {
    /// Destination MAC address, then 2 bytes of the source.
    pub(crate) macs: u64,
    /// The rest of the source MAC address.
    pub(crate) macs_rest: u32,
    pub(crate) ether_type: u16,
}
pub(crate) const ETHERNET_LEN: usize = 14;
const _: () = assert!(size_of::<Ethernet>() == ETHERNET_LEN);
// SAFETY: integers, packed.
unsafe impl Plain for Ethernet {}

/// A VLAN tag behind its own EtherType: tag control information, then the EtherType of what follows.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Tag {
    pub(crate) control: u16,
    pub(crate) ether_type: u16,
}
pub(crate) const TAG_LEN: usize = 4;
const _: () = assert!(size_of::<Tag>() == TAG_LEN);
// SAFETY: integers, packed.
unsafe impl Plain for Tag {}

/// IPv4 header without options.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Ipv4 {
    pub(crate) version_ihl: u8,
    /// DSCP and ECN.
    pub(crate) traffic_class: u8,
    pub(crate) total_len: u16,
    pub(crate) identification: u16,
    /// Flags and fragment offset.
    pub(crate) fragment: u16,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) checksum: u16,
    pub(crate) source: u32,
    pub(crate) destination: u32,
}
pub(crate) const IPV4_LEN: usize = 20;
const _: () = assert!(size_of::<Ipv4>() == IPV4_LEN);
// SAFETY: integers, packed.
unsafe impl Plain for Ipv4 {}

/// IPv6 header.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Ipv6 {
    /// Version, traffic class and flow label.
    pub(crate) version_class_flow: u32,
    pub(crate) payload_len: u16,
    pub(crate) next_header: u8,
    pub(crate) hop_limit: u8,
    pub(crate) source: [u64; 2],
    pub(crate) destination: [u64; 2],
}
pub(crate) const IPV6_LEN: usize = 40;
const _: () = assert!(size_of::<Ipv6>() == IPV6_LEN);
// SAFETY: integers, packed.
unsafe impl Plain for Ipv6 {}

/// UDP header.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Udp {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) len: u16,
    pub(crate) checksum: u16,
}
pub(crate) const UDP_LEN: usize = 8;
const _: () = assert!(size_of::<Udp>() == UDP_LEN);
// SAFETY: integers, packed.
unsafe impl Plain for Udp {}

/// An IP header and UDP's behind it.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct IpUdp<Ip> {
    pub(crate) ip: Ip,
    pub(crate) udp: Udp,
}
// SAFETY: two plain structs, packed.
unsafe impl<Ip: Plain> Plain for IpUdp<Ip> {}

/// ChannelData header (RFC 8656 section 12.4).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct ChannelData {
    pub(crate) number: u16,
    pub(crate) len: u16,
}
const _: () = assert!(size_of::<ChannelData>() == channel_data::HEADER_LEN);
// SAFETY: integers, packed.
unsafe impl Plain for ChannelData {}

/// STUN header (RFC 8489 section 5).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Stun {
    pub(crate) message_type: u16,
    /// Bytes behind the header.
    pub(crate) len: u16,
    pub(crate) cookie: u32,
    pub(crate) transaction_id: [u32; 3],
}
pub(crate) const STUN_LEN: usize = 20;
const _: () = assert!(size_of::<Stun>() == STUN_LEN);
// SAFETY: integers, packed.
unsafe impl Plain for Stun {}

/// Header of a STUN attribute.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Attribute {
    pub(crate) kind: u16,
    /// Bytes of its value, without padding.
    pub(crate) len: u16,
}
pub(crate) const ATTRIBUTE_LEN: usize = 4;
const _: () = assert!(size_of::<Attribute>() == ATTRIBUTE_LEN);
// SAFETY: integers, packed.
unsafe impl Plain for Attribute {}

/// Value of XOR-PEER-ADDRESS; `A` is an address of either family, XORed (RFC 8489 section 14.2).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct XorAddress<A> {
    /// A zero byte, then 1 for IPv4 or 2 for IPv6.
    pub(crate) family: u16,
    pub(crate) port: u16,
    pub(crate) address: A,
}
// SAFETY: integers, packed.
unsafe impl Plain for XorAddress<[u32; 1]> {}
// SAFETY: integers, packed.
unsafe impl Plain for XorAddress<[u32; 4]> {}

/// A Data indication up to its data (RFC 8656 section 11.5).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct DataIndication<A> {
    pub(crate) stun: Stun,
    pub(crate) peer: Attribute,
    pub(crate) peer_address: XorAddress<A>,
    pub(crate) data: Attribute,
}
// SAFETY: plain structs, packed.
unsafe impl Plain for DataIndication<[u32; 1]> {}
// SAFETY: plain structs, packed.
unsafe impl Plain for DataIndication<[u32; 4]> {}

/// Some bytes as words, to be summed.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Words<const N: usize>(pub(crate) [u32; N]);
// SAFETY: integers, packed.
unsafe impl<const N: usize> Plain for Words<N> {}

impl<const N: usize> Words<N> {
    /// Their sum, for the Internet checksum.
    #[inline(always)]
    pub(crate) const fn sum(&self) -> u64 {
        let words = self.0;
        let mut sum = 0;
        let mut i = 0;
        while i < N {
            sum += words[i] as u64;
            i += 1;
        }
        sum
    }
}

// SAFETY: a byte.
unsafe impl Plain for u8 {}
/// The two ports behind IPv4 options.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) source: u16,
    pub(crate) destination: u16,
}
// SAFETY: integers, packed.
unsafe impl Plain for Ports {}

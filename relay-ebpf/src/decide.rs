//! Every rule about what may be forwarded and how. Nothing here changes the packet.
//!
//! [`relay`] finds the flow that a packet leaves by, [`plan`] applies what concerns the outgoing packet.

use aya_ebpf::bindings::xdp_action::{XDP_PASS, XDP_TX};
use relay_common::{
    address::{Address, Family},
    channel_data::{self, FirstByte, classify},
    checksum,
    clock::BootNanos,
    flow::{FlowEntry, FlowKind, flags, form},
    outcome::Outcome,
    path::{self, Path},
    port_class::PortClass,
};

use crate::{
    headers::{ChannelData, ETHERNET_LEN, IPV4_LEN, IPV6_LEN, TAG_LEN, UDP_LEN, Words},
    indication::{self, SEND_INDICATION, Send},
    key::Key,
    lookup::{self, Counter},
    maps::TX_PORTS,
    packet::Packet,
    parse::{DONT_FRAGMENT, Received},
};

/// ChannelData over UDP may be padded to a multiple of 4 (RFC 8656 section 12.5). What is longer is odd enough
/// for the slow path.
const MAX_PADDING: usize = 3;
/// What all channel numbers and nothing else has in common, as it lies in a header: RFC 5766's too, whether the
/// daemon accepts those or not, for only then they have flows.
const CHANNEL_NUMBERS: u16 = u16::to_be(0xc000);
const CHANNEL_MIN: u16 = channel_data::CHANNEL_MIN.to_be();
/// The largest IPv4 packet that leaves with DF=0 for an IPv6 packet (RFC 7915 section 5.1).
const FRAGMENTABLE_IPV4_LEN: usize = 1260;

/// What a way through the program is made for.
pub(crate) type Case = bool;
/// Every packet.
pub(crate) const ANY: Case = true;
/// Only the most frequent: one that ends in [`UNCOMMON`], or in any other outcome, is begun anew as one of all.
pub(crate) const COMMON: Case = false;
/// Some outcome, for nobody looks at it.
pub(crate) const UNCOMMON: Outcome = Outcome::NoFlow;

/// Data on its way, and the flow that it leaves by. Whatever goes into a header is in network byte order.
pub(crate) struct Relayed {
    pub(crate) now: BootNanos,
    /// What the UDP checksum changes by, but for the lengths and for what goes before the data.
    udp_delta: u64,
    /// Whom a Data indication names.
    peer: Address,
    path: u32,
    /// Where the data begins in the incoming frame.
    data_at: u32,
    data_len: u32,
    /// Bytes behind it.
    trailing: u32,
    account: AccountIndices,
    /// Of the sending allocation, in a hairpin.
    sender: AccountIndices,
    source_port: u16,
    destination_port: u16,
    channel: u16,
    peer_port: u16,
    ip_sum: u16,
    /// How it leaves.
    framing: Framing,
    /// The IP version of the two relayed addresses, in a hairpin; else 0.
    between: u8,
}

/// What goes between UDP header and data.
pub(crate) type Framing = u8;
/// To a peer: nothing.
const PLAIN: Framing = 0;
/// To a client, on the flow's channel.
const CHANNEL_DATA: Framing = 1;
/// To a client, from a peer of this family.
const DATA_INDICATION_V4: Framing = 2;
const DATA_INDICATION_V6: Framing = 3;

/// Indices of a counter and a meter; 0: none.
#[derive(Clone, Copy)]
struct AccountIndices {
    counter: u32,
    meter: u32,
}

/// Finds the flow by which what has arrived leaves.
#[inline(always)]
pub(crate) fn relay<const CASE: Case>(
    packet: &Packet,
    received: &Received,
    now: BootNanos,
) -> Result<Relayed, Outcome> {
    let mut sent = match received.class {
        PortClass::Listener => from_client::<CASE>(packet, received, now)?,
        _ => Sent::from_peer(received),
    };
    if received.ttl <= 1 {
        return Err(Outcome::Ttl);
    }
    let mut relayed = Relayed {
        now,
        udp_delta: 0,
        peer: received.key.remote,
        path: 0,
        data_at: sent.data_at as u32,
        data_len: sent.data_len as u32,
        trailing: (received.frame_len - sent.data_at - sent.data_len) as u32,
        account: AccountIndices { counter: 0, meter: 0 },
        sender: AccountIndices { counter: 0, meter: 0 },
        source_port: 0,
        destination_port: sent.destination_port,
        channel: 0,
        peer_port: received.key.remote_port,
        ip_sum: 0,
        framing: PLAIN,
        between: 0,
    };
    let mut key = received.key;
    if let Some(flow) = sent.flow {
        check_finished(received, &flow)?;
        if flow.flags & flags::HAIRPIN == 0 {
            relayed.leave_by(&flow, sent.udp_delta);
            relayed.destination_port = sent.destination_port;
            return Ok(relayed);
        }
        if CASE == COMMON {
            return Err(UNCOMMON);
        }
        // From one allocation of this server to another: this flow took the data out of one client's hands, the
        // other's puts it into its client's. The two checksum changes add up.
        let path = lookup::path(flow.path)?;
        key = Key {
            version: path.family,
            local: path.destination,
            remote: path.source,
            local_port: sent.destination_port,
            remote_port: flow.source_port,
            channel: 0,
            form: form::DATA,
        };
        relayed.between = key.version;
        sent.udp_delta += flow.udp_delta as u64;
        relayed.sender = AccountIndices { counter: flow.counter, meter: flow.meter };
        relayed.peer = path.advertised();
        relayed.peer_port = flow.source_port;
    }
    let hairpin = relayed.between != 0;
    let flow = to_client::<CASE>(&key, hairpin, now)?;
    if !hairpin {
        check_finished(received, &flow)?;
    }
    relayed.framing = CHANNEL_DATA;
    if CASE == ANY && flow.kind == FlowKind::PermissionToClient as u8 {
        sent.udp_delta += !key.remote_port as u64;
        relayed.framing = if key.is_v4() { DATA_INDICATION_V4 } else { DATA_INDICATION_V6 };
    }
    relayed.leave_by(&flow, sent.udp_delta);
    Ok(relayed)
}

impl Relayed {
    #[inline(always)]
    fn leave_by(&mut self, flow: &FlowEntry, udp_delta: u64) {
        self.udp_delta = udp_delta + flow.udp_delta as u64;
        self.path = flow.path;
        self.account = AccountIndices { counter: flow.counter, meter: flow.meter };
        self.source_port = flow.source_port;
        self.destination_port = flow.destination_port;
        self.channel = flow.channel;
        self.ip_sum = flow.ip_sum;
    }
}

/// An unfinished UDP checksum, which cannot be updated, is the pseudo-header's sum.
#[inline(always)]
fn check_finished(received: &Received, flow: &FlowEntry) -> Result<(), Outcome> {
    let len = (received.udp_len as u16).to_be();
    if received.udp_checksum == checksum::add(flow.pseudo_sum, len) {
        return Err(Outcome::PartialChecksum);
    }
    Ok(())
}

/// Data that was sent to the relay.
struct Sent {
    /// By which a client's data goes to the peer.
    flow: Option<FlowEntry>,
    destination_port: u16,
    data_at: usize,
    data_len: usize,
    /// What the UDP checksum loses with all that is not data.
    udp_delta: u64,
}

impl Sent {
    #[inline(always)]
    const fn from_peer(received: &Received) -> Self {
        let data_len = received.udp_len - UDP_LEN;
        Self { flow: None, destination_port: 0, data_at: received.payload_at(), data_len, udp_delta: 0 }
    }
}

#[inline(always)]
fn from_client<const CASE: Case>(
    packet: &Packet,
    received: &Received,
    now: BootNanos,
) -> Result<Sent, Outcome> {
    let payload_len = received.udp_len - UDP_LEN;
    let Some(&header) = packet.at_any::<ChannelData>(received.payload_at()) else {
        return Err(no_media(packet, received, payload_len));
    };
    let (flow, destination_port, data_at, data_len, padding_len, udp_delta);
    if header.number & CHANNEL_NUMBERS == CHANNEL_MIN {
        data_len = u16::from_be(header.len) as usize;
        // Huge where the datagram is too short.
        padding_len = payload_len.wrapping_sub(channel_data::HEADER_LEN + data_len);
        if padding_len > MAX_PADDING {
            return Err(no_media(packet, received, payload_len));
        }
        let key = Key { channel: header.number, ..received.key };
        flow = lookup::live(&key, FlowKind::ChannelToPeer, now)?;
        destination_port = flow.destination_port;
        data_at = received.payload_at() + channel_data::HEADER_LEN;
        udp_delta = !header.len as u64;
    } else if CASE == ANY && header.number == SEND_INDICATION && payload_len >= size_of::<ChannelData>() {
        let send = indication::send(packet, received.payload_at(), payload_len)?;
        flow = permission(received, &send, now)?;
        Send { port: destination_port, data_at, data_len, padding_len, .. } = send;
        udp_delta = send.port as u64 + !checksum::fold_wide(send.sum) as u64;
    } else {
        return Err(no_media(packet, received, payload_len));
    }
    let padding_delta = padding_delta(packet, received, data_at, data_len, padding_len)?;
    let udp_delta = udp_delta + padding_delta;
    Ok(Sent { flow: Some(flow), destination_port, data_at, data_len, udp_delta })
}

/// Why a datagram to a listener is neither ChannelData nor a Send indication, or not in order.
#[inline(always)]
fn no_media(packet: &Packet, received: &Received, payload_len: usize) -> Outcome {
    let Some(first_byte) = packet.at_any::<u8>(received.payload_at()).filter(|_| payload_len > 0) else {
        return if payload_len > 0 { Outcome::NonLinear } else { Outcome::NotTurn };
    };
    match classify(*first_byte) {
        FirstByte::Stun | FirstByte::Dtls => return Outcome::Control,
        FirstByte::Other => return Outcome::NotTurn,
        FirstByte::ChannelData | FirstByte::Rfc5766ChannelData => {}
    }
    match packet.at_any::<ChannelData>(received.payload_at()) {
        Some(header) if channel_data::HEADER_LEN + u16::from_be(header.len) as usize <= payload_len => {
            Outcome::Trailer
        }
        None if received.further_len != 0 => Outcome::NonLinear,
        _ => Outcome::ChannelDataLength,
    }
}

/// What a Send indication goes by: the allocation names the relayed address, the permission does the rest.
#[inline(always)]
fn permission(received: &Received, send: &Send, now: BootNanos) -> Result<FlowEntry, Outcome> {
    let peers = match send.family {
        Family::V4 => form::PEERS_V4,
        Family::V6 => form::PEERS_V6,
    };
    let key = Key { form: peers, ..received.key };
    let allocation = lookup::live(&key, FlowKind::Allocation, now)?;
    let key = Key {
        version: send.family as u8,
        local: lookup::path(allocation.path)?.source,
        remote: send.peer,
        local_port: allocation.source_port,
        remote_port: 0,
        channel: 0,
        form: form::TO_PEER,
    };
    lookup::live(&key, FlowKind::PermissionToPeer, now)
}

/// The flow that takes data from a peer to the client: its channel's, else its permission's. Peers of a hairpin are our
/// own relayed addresses, and nothing from those comes in by a wire.
#[inline(always)]
fn to_client<const CASE: Case>(key: &Key, hairpin: bool, now: BootNanos) -> Result<FlowEntry, Outcome> {
    let found = match lookup::live(key, FlowKind::ChannelToClient, now) {
        // Nobody can be answered there, and STUN has no such address.
        _ if key.remote_port == 0 => Err(Outcome::NoFlow),
        Err(Outcome::NoFlow | Outcome::Expired) if CASE == ANY => {
            lookup::live(&key.permission(form::TO_CLIENT), FlowKind::PermissionToClient, now)
        }
        found => found,
    };
    if CASE == COMMON {
        let flow = found?;
        return if flow.flags & flags::HAIRPIN == 0 { Ok(flow) } else { Err(UNCOMMON) };
    }
    match found {
        Ok(flow) if (flow.flags & flags::HAIRPIN != 0) == hairpin => Ok(flow),
        Err(Outcome::Torn) => Err(Outcome::Torn),
        _ if hairpin => Err(Outcome::HairpinMiss),
        Ok(_) => Err(Outcome::NoFlow),
        Err(outcome) => Err(outcome),
    }
}

/// What the UDP checksum loses with the padding behind the data.
#[inline(always)]
fn padding_delta(
    packet: &Packet,
    received: &Received,
    data_at: usize,
    data_len: usize,
    padding_len: usize,
) -> Result<u64, Outcome> {
    if padding_len == 0 {
        return Ok(0);
    }
    if received.further_len != 0 {
        return Err(Outcome::NonLinear);
    }
    let end = data_at + data_len + padding_len;
    if end > indication::MAX_OFFSET {
        return Err(Outcome::Trailer);
    }
    // Headers lie before the data, so there is a word.
    let word: &Words<1> = packet.at_any(end - size_of::<Words<1>>()).ok_or(Outcome::UdpLength)?;
    let sum = checksum::fold_wide(word.sum() & padding_mask(padding_len));
    // The data begins at an even distance from the UDP header. Bytes at an odd one count as if exchanged (RFC 1071
    // section 2).
    let odd = (data_len + padding_len) & 1 != 0;
    Ok(!(if odd { sum.swap_bytes() } else { sum }) as u64)
}

/// The last 1 to 3 bytes of a word in memory.
#[inline(always)]
pub(crate) const fn padding_mask(len: usize) -> u64 {
    0xffff_ffff & (0xffff_ffff << (32 - 8 * len))
}

/// The outgoing packet. Whatever goes into a header is in network byte order.
pub(crate) struct Plan {
    /// What the program returns.
    pub(crate) verdict: u32,
    /// Addresses, MAC addresses and tags.
    pub(crate) path: Path,
    /// Bytes of Ethernet header and tags.
    pub(crate) link_len: usize,
    /// Bytes to take off the front of the frame; negative: to add.
    pub(crate) head: i32,
    /// Bytes to add to its end; negative: to take off.
    pub(crate) tail: i32,
    pub(crate) ttl: u8,
    pub(crate) traffic_class: u8,
    /// IPv4's DF, or 0.
    pub(crate) dont_fragment: u16,
    /// Sum of the two addresses.
    pub(crate) ip_sum: u16,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// Host byte order.
    pub(crate) udp_len: u16,
    pub(crate) udp_checksum: u16,
    /// What goes before the data.
    pub(crate) header: Header,
    /// Where the data begins in the outgoing frame.
    pub(crate) data_at: usize,
    /// Bytes of padding behind the data, to be zeroed, and where they end in the outgoing frame.
    pub(crate) padding_len: usize,
    pub(crate) padding_end: usize,
    /// Bytes of the frame that are not in its first piece.
    pub(crate) further_len: usize,
    /// Bytes of application data, host byte order.
    pub(crate) data_len: u16,
    pub(crate) account: Account,
    /// Of the sending allocation's flow, in a hairpin.
    pub(crate) sender: Option<Account>,
    /// Differs from flow to flow; the packet count is added to make the Identification.
    pub(crate) identification_base: u16,
}

/// What goes between the UDP header and the data.
#[derive(Clone, Copy)]
pub(crate) enum Header {
    None,
    ChannelData { number: u16, len: u16 },
    DataIndication(indication::Data),
}

/// Whom a packet is counted and metered for.
#[derive(Clone, Copy)]
pub(crate) struct Account {
    pub(crate) counter: Counter,
    pub(crate) meter: u32,
}

impl AccountIndices {
    #[inline(always)]
    fn account(self) -> Result<Account, Outcome> {
        Ok(Account { counter: Counter::at(self.counter)?, meter: self.meter })
    }
}

/// The rules that concern the outgoing packet. The redirect comes last: it is in vain if anything else fails.
#[inline(always)]
pub(crate) fn plan<const CASE: Case>(
    packet: &Packet,
    received: &Received,
    relayed: &Relayed,
) -> Result<Plan, Outcome> {
    let data_len = relayed.data_len as usize;
    let path = lookup::path(relayed.path)?;
    let to_v4 = path.family == Family::V4 as u8;
    let ip_len = if to_v4 { IPV4_LEN } else { IPV6_LEN };
    let (header_len, padding_len) = match relayed.framing {
        PLAIN => (0, 0),
        CHANNEL_DATA => (channel_data::HEADER_LEN, 0),
        DATA_INDICATION_V4 => (indication::Data::header_len(Family::V4), data_len.wrapping_neg() & 3),
        _ => (indication::Data::header_len(Family::V6), data_len.wrapping_neg() & 3),
    };
    let udp_len = UDP_LEN + header_len + data_len + padding_len;
    let packet_len = ip_len + udp_len;
    if packet_len > path.mtu as usize {
        return Err(if path.ifindex == 0 { Outcome::NextHop } else { Outcome::Mtu });
    }
    let dont_fragment = dont_fragment(received, relayed, path.family, packet_len)?;
    if received.udp_checksum == 0 && !to_v4 {
        return Err(Outcome::ZeroChecksum);
    }
    let trailing = relayed.trailing as usize;
    let returns = path.ifindex == packet.ingress_ifindex();
    if CASE == COMMON && (received.further_len != 0 || path.flags & path::flags::TAGS != 0) {
        return Err(UNCOMMON);
    }
    if received.further_len != 0 {
        // What is to be cut off or added would not be in the first piece, and who takes only whole frames drops the
        // others silently.
        let carries = returns || path.flags & path::flags::SCATTER_GATHER != 0;
        if !carries || trailing != 0 || padding_len != 0 {
            return Err(Outcome::NonLinear);
        }
    }

    let link_len = if CASE == COMMON {
        ETHERNET_LEN
    } else {
        ETHERNET_LEN + (path.flags & path::flags::TAGS) as usize * TAG_LEN
    };
    let data_at = link_len + ip_len + UDP_LEN + header_len;
    if padding_len != 0 && data_at + data_len + padding_len > indication::MAX_OFFSET {
        return Err(Outcome::Tailroom);
    }

    let account = relayed.account.account()?;
    let sender = match relayed.sender {
        AccountIndices { counter, .. } if CASE == COMMON || counter == 0 => None,
        sender => Some(sender.account()?),
    };
    let (header, header_sum) = match relayed.framing {
        PLAIN => (Header::None, 0),
        CHANNEL_DATA => {
            let len = (data_len as u16).to_be();
            (Header::ChannelData { number: relayed.channel, len }, len as u64)
        }
        framing => {
            let family = if framing == DATA_INDICATION_V4 { Family::V4 } else { Family::V6 };
            let header = indication::Data::new(family, relayed.peer, relayed.peer_port, data_len)
                .ok_or(Outcome::Torn)?;
            (Header::DataIndication(header), header.sum())
        }
    };
    let (old_len, new_len) = ((received.udp_len as u16).to_be(), (udp_len as u16).to_be());
    let udp_checksum = match received.udp_checksum {
        0 => 0,
        old => {
            let delta = relayed.udp_delta + header_sum + 2 * new_len as u64 + 2 * !old_len as u64;
            checksum::udp_nonzero(checksum::update(old, delta))
        }
    };
    let verdict = if returns {
        XDP_TX
    } else {
        TX_PORTS.redirect(path.ifindex, XDP_PASS as u64).map_err(|_| Outcome::TxPort)?
    };
    Ok(Plan {
        verdict,
        link_len,
        head: relayed.data_at as i32 - data_at as i32,
        tail: padding_len as i32 - trailing as i32,
        ttl: received.ttl - 1,
        traffic_class: received.traffic_class,
        dont_fragment,
        ip_sum: relayed.ip_sum,
        source_port: relayed.source_port,
        destination_port: relayed.destination_port,
        udp_len: udp_len as u16,
        udp_checksum,
        header,
        data_at,
        padding_len,
        padding_end: data_at + data_len + padding_len,
        further_len: received.further_len,
        data_len: data_len as u16,
        account,
        sender,
        identification_base: (relayed.account.counter.wrapping_mul(0x9e37_79b1) >> 16) as u16,
        path,
    })
}

/// Whether the outgoing packet of `len` bytes has DF set, as far as its family has it (RFC 8656 sections 13 and 14; the
/// slow path's rules are in `turn/ip.rs`). A hairpin is two steps.
#[inline(always)]
fn dont_fragment(received: &Received, relayed: &Relayed, to: u8, len: usize) -> Result<u16, Outcome> {
    let mut from = received.key.version;
    let mut dont_fragment = received.dont_fragment;
    if relayed.between != 0 {
        let ip_len = if relayed.between == Family::V4 as u8 { IPV4_LEN } else { IPV6_LEN };
        let len = ip_len + UDP_LEN + relayed.data_len as usize;
        dont_fragment = carried_on(from, relayed.between, dont_fragment, len)?;
        from = relayed.between;
    }
    carried_on(from, to, dont_fragment, len)
}

#[inline(always)]
fn carried_on(from: u8, to: u8, dont_fragment: u16, len: usize) -> Result<u16, Outcome> {
    let v4 = Family::V4 as u8;
    if to == v4 {
        return Ok(if from == v4 {
            dont_fragment
        } else if len > FRAGMENTABLE_IPV4_LEN {
            DONT_FRAGMENT
        } else {
            0
        });
    }
    if from == v4 && dont_fragment == 0 && len > lookup::min_ipv6_mtu() {
        return Err(Outcome::Mtu);
    }
    Ok(0)
}

//! The slow path: data between clients and peers, as the kernel program would carry it, and in Send and Data
//! indications. Data never prolongs anything (RFC 8656 sections 9 and 12.6).

use std::net::SocketAddr;

use relay_common::{channel_data, clock::BootNanos};

use super::{
    address::{Family, FiveTuple, PeerAddr, RelayedAddr},
    allocation::Allocation,
    channel_data::{ChannelData, ChannelDataError},
    drops::DropReason,
    ip::{Fragmentation, IpMeta},
    output::Output,
    own_addresses::Destination,
    server::Server,
    stun::{
        AttributeType, Class, HEADER_LEN, Header, Message, MessageError, MessageWriter, Method, TransactionId,
    },
};

/// What a Data indication has beside the data: header, XOR-PEER-ADDRESS, DATA's header.
const fn data_indication_overhead(peer: Family) -> usize {
    let address = match peer {
        Family::V4 => 12,
        Family::V6 => 24,
    };
    HEADER_LEN + address + 4
}

/// Application data on its way, and the packet that it came in.
#[derive(Clone, Copy)]
struct Data<'a> {
    now: BootNanos,
    /// The family that the packet came by.
    family: Family,
    meta: IpMeta,
    bytes: &'a [u8],
}

impl Server {
    /// ChannelData from a client (RFC 8656 section 12.6).
    pub(super) fn relay_channel_data(
        &mut self,
        now: BootNanos,
        five_tuple: FiveTuple,
        meta: IpMeta,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let ChannelData { number, data } = ChannelData::parse(datagram).map_err(|error| match error {
            ChannelDataError::Truncated => DropReason::ChannelDataLength,
            ChannelDataError::Number => DropReason::NoChannel,
        })?;
        let bound_peer = |allocation: &Allocation| {
            let channel = allocation.channels().get(number).ok_or(DropReason::NoChannel)?;
            Ok((channel.peer, channel.hairpin))
        };
        let family = Family::of(five_tuple.client.0.ip());
        self.relay_to_peer(five_tuple, bound_peer, Data { now, family, meta, bytes: data })
    }

    /// A Send indication (RFC 8656 section 11.2).
    pub(super) fn relay_send_indication(
        &mut self,
        now: BootNanos,
        five_tuple: FiveTuple,
        meta: IpMeta,
        header: Header,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let message = Message::parse_without_crc(header, bytes).map_err(|error| match error {
            MessageError::Fingerprint => DropReason::Fingerprint,
            MessageError::Malformed(_) => DropReason::MalformedIndication,
        })?;
        if !message.unknown_attributes().is_empty() {
            return Err(DropReason::UnknownAttribute);
        }
        let peer = message.xor_address(AttributeType::XOR_PEER_ADDRESS);
        let data = message.attribute(AttributeType::DATA);
        let dont_fragment = message.fixed::<0>(AttributeType::DONT_FRAGMENT);
        let (Ok(Some(peer)), Some(data), Ok(dont_fragment)) = (peer, data, dont_fragment) else {
            return Err(DropReason::MalformedIndication);
        };
        if peer.port() == 0 {
            return Err(DropReason::MalformedIndication);
        }
        let to = self.own.resolve(peer).peer().ok_or(DropReason::OwnAddress)?;
        let family = Family::of(five_tuple.client.0.ip());
        // It says the same as DF, and only from IPv4 to IPv4 (RFC 8656 sections 13 and 14).
        let meta = match (family, Family::of(peer.ip()), dont_fragment) {
            (Family::V4, Family::V4, Some(_)) => IpMeta { dont_fragment: Some(true), ..meta },
            _ => meta,
        };
        self.relay_to_peer(five_tuple, |_| Ok(to), Data { now, family, meta, bytes: data })
    }

    /// Relays data to the peer that `to` finds, and whether that is a hairpin, if it is permitted.
    fn relay_to_peer(
        &mut self,
        five_tuple: FiveTuple,
        to: impl FnOnce(&Allocation) -> Result<(PeerAddr, bool), DropReason>,
        data: Data<'_>,
    ) -> Result<(), DropReason> {
        let allocation = self.allocations.of_client(&five_tuple).ok_or(DropReason::NoAllocation)?;
        let (peer, hairpin) = to(allocation)?;
        let family = Family::of(peer.0.ip());
        let relayed = allocation.relayed(family).ok_or(DropReason::AddressFamily)?;
        if !allocation.permits(peer.0.ip()) {
            return Err(DropReason::NoPermission);
        }
        if hairpin {
            return self.relay_hairpin(relayed, RelayedAddr(peer.0), data);
        }
        let length = data.bytes.len();
        if length > family.max_udp_payload() {
            return Err(DropReason::TooLong);
        }
        let ip = data.meta.carried_on((data.family, family), length, self.config.min_ipv6_mtu);
        let ip = ip.ok_or(DropReason::Ttl)?;
        self.meters.charge(&mut allocation.meter, data.now, length)?;
        allocation.to_peer.add_packet(length);
        self.relayed.to_peer.add_packet(length);
        self.effects.outputs.push_back(Output::ToPeer { relayed, peer, ip, data: data.bytes.to_vec() });
        Ok(())
    }

    /// Data from one allocation for another, or for itself: it stays inside, and obeys the receiver's
    /// permissions and channels like any peer's (RFC 8656 section 11.3). It passes one relay, so its TTL is
    /// decremented once, as in the kernel program.
    fn relay_hairpin(
        &mut self,
        from: RelayedAddr,
        to: RelayedAddr,
        data: Data<'_>,
    ) -> Result<(), DropReason> {
        let family = from.family();
        let way = (data.family, family);
        let fragmentation = data.meta.fragmentation(way, data.bytes.len(), self.config.min_ipv6_mtu);
        let meta = IpMeta {
            dont_fragment: (family == Family::V4).then_some(fragmentation == Fragmentation::Never),
            fragmented: matches!(fragmentation, Fragmentation::AtMost(_)),
            ..data.meta
        };
        let advertised = self.own.advertised(from);
        let length = data.bytes.len();
        self.deliver(to, from.into(), advertised, Some(from), Data { family, meta, ..data }).map_err(
            |reason| match reason {
                DropReason::NoRelayedAddress => DropReason::HairpinNoAllocation,
                DropReason::PeerNotPermitted => DropReason::HairpinNotPermitted,
                other => other,
            },
        )?;
        self.relayed.hairpin.add_packet(length);
        if let Some(sender) = self.allocations.of_relayed(from) {
            sender.to_peer.add_packet(length);
        }
        Ok(())
    }

    /// Data from a peer (RFC 8656 section 11.3).
    pub(super) fn relay_peer_data(
        &mut self,
        now: BootNanos,
        relayed: RelayedAddr,
        peer: PeerAddr,
        meta: IpMeta,
        data: &[u8],
    ) -> Result<(), DropReason> {
        // Hairpins never come from outside: who claims one of our addresses is not who it says.
        if self.own.resolve(peer.0) != Destination::Peer(peer) {
            return Err(DropReason::OwnAddress);
        }
        let family = relayed.family();
        self.deliver(relayed, peer, peer.0, None, Data { now, family, meta, bytes: data })?;
        self.relayed.to_client.add_packet(data.len());
        Ok(())
    }

    /// Gives data to the client of a relayed address, if it permits the peer: over the peer's channel, else
    /// in a Data indication that names the peer `shown`. In a hairpin `sender` has its share of the bandwidth.
    fn deliver(
        &mut self,
        relayed: RelayedAddr,
        peer: PeerAddr,
        shown: SocketAddr,
        sender: Option<RelayedAddr>,
        data: Data<'_>,
    ) -> Result<(), DropReason> {
        let allocation = self.allocations.of_relayed(relayed).ok_or(DropReason::NoRelayedAddress)?;
        if !allocation.permits(peer.0.ip()) {
            return Err(DropReason::PeerNotPermitted);
        }
        let channel = allocation.channels().number_of(peer);
        let five_tuple = allocation.origin.five_tuple;
        let family = Family::of(five_tuple.client.0.ip());
        let length = data.bytes.len();
        let datagram_len = match channel {
            Some(_) => channel_data::HEADER_LEN + length,
            None => data_indication_overhead(Family::of(shown.ip())) + length.next_multiple_of(4),
        };
        if datagram_len > family.max_udp_payload() {
            return Err(DropReason::TooLong);
        }
        let ip = data.meta.carried_on((data.family, family), datagram_len, self.config.min_ipv6_mtu);
        let ip = ip.ok_or(DropReason::Ttl)?;
        // The sender first, as in the kernel program: it keeps the charge if the receiver has no more left.
        if let Some(sender) = sender.and_then(|sender| self.allocations.of_relayed(sender)) {
            self.meters.charge(&mut sender.meter, data.now, length)?;
        }
        let allocation = self.allocations.of_relayed(relayed).ok_or(DropReason::NoRelayedAddress)?;
        self.meters.charge(&mut allocation.meter, data.now, length)?;
        let datagram = match channel {
            Some(number) => ChannelData { number, data: data.bytes }.to_datagram(),
            None => {
                let mut transaction_id = [0; 12];
                self.rng.fill_bytes(&mut transaction_id);
                data_indication(TransactionId(transaction_id), shown, data.bytes, datagram_len)
            }
        };
        allocation.to_client.add_packet(length);
        self.effects.outputs.push_back(Output::ToClient { five_tuple, ip, datagram });
        Ok(())
    }
}

fn data_indication(
    transaction_id: TransactionId,
    peer: SocketAddr,
    data: &[u8],
    datagram_len: usize,
) -> Vec<u8> {
    let header = Header { class: Class::Indication, method: Method::DATA, transaction_id };
    let mut message = MessageWriter::with_capacity(header, datagram_len);
    message.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
    message.attribute(AttributeType::DATA, data);
    message.finish()
}

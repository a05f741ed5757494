//! The slow path: data between clients and peers, as the kernel program would carry it, and in Send and Data
//! indications. Data never prolongs anything (RFC 8656 sections 9 and 12.6).

use std::net::SocketAddr;

use relay_common::channel_data;

use super::{
    address::{Family, FiveTuple, PeerAddr, RelayedAddr},
    allocation::Allocation,
    channel_data::{ChannelData, ChannelDataError},
    drops::DropReason,
    ip::IpHeader,
    output::Output,
    own_addresses::Destination,
    server::Server,
    stun::{
        AttributeType, Class, HEADER_LEN, Header, Message, MessageError, MessageWriter, Method, TransactionId,
    },
};

/// The most that fits into one IPv4 UDP datagram.
const MAX_UDP_PAYLOAD: usize = 65_535 - 20 - 8;

/// What a Data indication has beside the data: header, XOR-PEER-ADDRESS for IPv4, DATA's header.
const DATA_INDICATION_OVERHEAD: usize = HEADER_LEN + 12 + 4;

impl Server {
    /// ChannelData from a client (RFC 8656 section 12.6).
    pub(super) fn relay_channel_data(
        &mut self,
        five_tuple: FiveTuple,
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
        self.relay_to_peer(five_tuple, bound_peer, data)
    }

    /// A Send indication (RFC 8656 section 11.2).
    pub(super) fn relay_send_indication(
        &mut self,
        five_tuple: FiveTuple,
        header: Header,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let message = Message::parse(header, bytes).map_err(|error| match error {
            MessageError::Fingerprint => DropReason::Fingerprint,
            MessageError::Malformed(_) => DropReason::MalformedIndication,
        })?;
        // DF cannot be set here yet, which makes DONT-FRAGMENT an attribute that is not understood.
        if !message.unknown_attributes().is_empty()
            || message.attribute(AttributeType::DONT_FRAGMENT).is_some()
        {
            return Err(DropReason::UnknownAttribute);
        }
        let peer = message.xor_address(AttributeType::XOR_PEER_ADDRESS);
        let data = message.attribute(AttributeType::DATA);
        let (Ok(Some(peer)), Some(data)) = (peer, data) else {
            return Err(DropReason::MalformedIndication);
        };
        if peer.port() == 0 {
            return Err(DropReason::MalformedIndication);
        }
        if !peer.is_ipv4() {
            return Err(DropReason::AddressFamily);
        }
        let to = self.own.resolve(peer).peer().ok_or(DropReason::OwnAddress)?;
        self.relay_to_peer(five_tuple, |_| Ok(to), data)
    }

    /// Relays data to the peer that `to` finds, and whether that is a hairpin, if it is permitted.
    fn relay_to_peer(
        &mut self,
        five_tuple: FiveTuple,
        to: impl FnOnce(&Allocation) -> Result<(PeerAddr, bool), DropReason>,
        data: &[u8],
    ) -> Result<(), DropReason> {
        let allocation = self.allocations.of_client(&five_tuple).ok_or(DropReason::NoAllocation)?;
        let (peer, hairpin) = to(allocation)?;
        if !allocation.permits(peer.0.ip()) {
            return Err(DropReason::NoPermission);
        }
        let family = Family::of(peer.0.ip());
        let relayed = allocation.relayed(family).ok_or(DropReason::AddressFamily)?;
        if hairpin {
            return self.relay_hairpin(relayed, RelayedAddr(peer.0), data);
        }
        allocation.to_peer.add_packet(data.len());
        self.relayed.to_peer.add_packet(data.len());
        self.effects.outputs.push_back(Output::ToPeer {
            relayed,
            peer,
            ip: IpHeader::default(),
            data: data.to_vec(),
        });
        Ok(())
    }

    /// Data from one allocation for another, or for itself: it stays inside, and obeys the receiver's
    /// permissions and channels like any peer's (RFC 8656 section 11.3).
    fn relay_hairpin(&mut self, from: RelayedAddr, to: RelayedAddr, data: &[u8]) -> Result<(), DropReason> {
        let advertised = self.own.advertised(from);
        self.deliver(to, from.into(), advertised, data).map_err(|reason| match reason {
            DropReason::NoRelayedAddress => DropReason::HairpinNoAllocation,
            DropReason::PeerNotPermitted => DropReason::HairpinNotPermitted,
            other => other,
        })?;
        self.relayed.hairpin.add_packet(data.len());
        if let Some(sender) = self.allocations.of_relayed(from) {
            sender.to_peer.add_packet(data.len());
        }
        Ok(())
    }

    /// Data from a peer (RFC 8656 section 11.3).
    pub(super) fn relay_peer_data(
        &mut self,
        relayed: RelayedAddr,
        peer: PeerAddr,
        data: &[u8],
    ) -> Result<(), DropReason> {
        // Hairpins never come from outside: who claims one of our addresses is not who it says.
        if self.own.resolve(peer.0) != Destination::Peer(peer) {
            return Err(DropReason::OwnAddress);
        }
        self.deliver(relayed, peer, peer.0, data)?;
        self.relayed.to_client.add_packet(data.len());
        Ok(())
    }

    /// Gives data to the client of a relayed address, if it permits the peer: over the peer's channel, else
    /// in a Data indication that names the peer `shown`.
    fn deliver(
        &mut self,
        relayed: RelayedAddr,
        peer: PeerAddr,
        shown: SocketAddr,
        data: &[u8],
    ) -> Result<(), DropReason> {
        let allocation = self.allocations.of_relayed(relayed).ok_or(DropReason::NoRelayedAddress)?;
        if !allocation.permits(peer.0.ip()) {
            return Err(DropReason::PeerNotPermitted);
        }
        let channel = allocation.channels().number_of(peer);
        let overhead = channel.map_or(DATA_INDICATION_OVERHEAD + 3, |_| channel_data::HEADER_LEN);
        if data.len() + overhead > MAX_UDP_PAYLOAD {
            return Err(DropReason::TooLong);
        }
        let datagram = match channel {
            Some(number) => ChannelData { number, data }.to_datagram(),
            None => {
                let mut transaction_id = [0; 12];
                self.rng.fill_bytes(&mut transaction_id);
                data_indication(TransactionId(transaction_id), shown, data)
            }
        };
        allocation.to_client.add_packet(data.len());
        self.effects.outputs.push_back(Output::ToClient {
            five_tuple: allocation.origin.five_tuple,
            ip: IpHeader::default(),
            datagram,
        });
        Ok(())
    }
}

fn data_indication(transaction_id: TransactionId, peer: SocketAddr, data: &[u8]) -> Vec<u8> {
    let header = Header { class: Class::Indication, method: Method::DATA, transaction_id };
    let capacity = DATA_INDICATION_OVERHEAD + data.len().next_multiple_of(4);
    let mut message = MessageWriter::with_capacity(header, capacity);
    message.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
    message.attribute(AttributeType::DATA, data);
    message.finish()
}

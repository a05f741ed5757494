//! Channel bindings of one allocation (RFC 8656 section 12): a number and a peer, one to one.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use relay_common::clock::BootNanos;

use super::address::{ChannelNumber, Family, PeerAddr};

/// A channel binding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channel {
    pub(super) number: ChannelNumber,
    pub(super) peer: PeerAddr,
    /// The peer is a relayed transport address of this server.
    pub(super) hairpin: bool,
    pub(super) expires: BootNanos,
}

/// Live channel bindings, by number and by peer.
#[derive(Debug, Default)]
pub(super) struct Channels {
    by_number: BTreeMap<ChannelNumber, Channel>,
    by_peer: BTreeMap<PeerAddr, ChannelNumber>,
}

/// The number is bound to another peer, or the peer to another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conflict;

impl Channels {
    /// Whether the two may be bound: both free, or bound to each other.
    pub(super) fn check(&self, number: ChannelNumber, peer: PeerAddr) -> Result<(), Conflict> {
        match (self.by_number.get(&number), self.by_peer.get(&peer)) {
            (None, None) => Ok(()),
            (Some(channel), Some(&bound)) if channel.peer == peer && bound == number => Ok(()),
            _ => Err(Conflict),
        }
    }

    /// Binds, or prolongs the binding, as [`check`](Self::check) allowed. Returns the end before, if any.
    pub(super) fn bind(
        &mut self,
        number: ChannelNumber,
        peer: PeerAddr,
        hairpin: bool,
        expires: BootNanos,
    ) -> Option<BootNanos> {
        if let Some(channel) = self.by_number.get_mut(&number) {
            return Some(std::mem::replace(&mut channel.expires, expires));
        }
        self.by_number.insert(number, Channel { number, peer, hairpin, expires });
        self.by_peer.insert(peer, number);
        None
    }

    pub(super) fn remove(&mut self, number: ChannelNumber) -> Option<Channel> {
        let channel = self.by_number.remove(&number)?;
        self.by_peer.remove(&channel.peer);
        Some(channel)
    }

    pub(super) fn get(&self, number: ChannelNumber) -> Option<&Channel> {
        self.by_number.get(&number)
    }

    /// The number that is bound to the peer.
    pub(super) fn number_of(&self, peer: PeerAddr) -> Option<ChannelNumber> {
        self.by_peer.get(&peer).copied()
    }

    /// What is bound to any port of the peer's address.
    pub(super) fn of_ip(&self, ip: IpAddr) -> impl Iterator<Item = (PeerAddr, ChannelNumber)> + '_ {
        let port = |port| PeerAddr(SocketAddr::new(ip, port));
        self.by_peer.range(port(0)..=port(u16::MAX)).map(|(&peer, &number)| (peer, number))
    }

    /// What is bound to peers of this family.
    pub(super) fn of_family(&self, family: Family) -> impl Iterator<Item = (PeerAddr, ChannelNumber)> + '_ {
        let all = self.by_peer.iter().map(|(&peer, &number)| (peer, number));
        all.filter(move |(peer, _)| Family::of(peer.0.ip()) == family)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Channel> + '_ {
        self.by_number.values()
    }

    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }
}

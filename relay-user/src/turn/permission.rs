//! Permissions of one relayed transport address (RFC 8656 section 9): by IP address alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use relay_common::clock::BootNanos;

use super::session::SessionRecord;

/// Live permissions with their ends.
#[derive(Debug, Default)]
pub(super) struct Permissions(BTreeMap<IpAddr, BootNanos>);

impl Permissions {
    /// Installs the permission, or prolongs it: to `until`, unless it lasts longer already. Returns its end
    /// before and after.
    pub(super) fn install(&mut self, ip: IpAddr, until: BootNanos) -> (Option<BootNanos>, BootNanos) {
        let old = self.0.get(&ip).copied();
        let new = old.map_or(until, |old| old.max(until));
        self.0.insert(ip, new);
        (old, new)
    }

    pub(super) fn remove(&mut self, ip: IpAddr) {
        self.0.remove(&ip);
    }

    /// When the permission ends, if there is one.
    pub(super) fn expires(&self, ip: IpAddr) -> Option<BootNanos> {
        self.0.get(&ip).copied()
    }

    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains_key(&ip)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, BootNanos)> + '_ {
        self.0.iter().map(|(&ip, &expires)| (ip, expires))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Every peer that an allocation has ever permitted: the first few by name, the others counted up to a limit.
#[derive(Debug)]
pub(super) struct PermittedPeers {
    first: Vec<IpAddr>,
    further: BTreeSet<IpAddr>,
    max: usize,
}

impl PermittedPeers {
    /// None yet; at most `max` are counted.
    pub(super) const fn new(max: usize) -> Self {
        Self { first: Vec::new(), further: BTreeSet::new(), max }
    }

    pub(super) fn note(&mut self, ip: IpAddr) {
        if self.count() >= self.max || self.first.contains(&ip) {
            return;
        }
        if self.first.len() < SessionRecord::MAX_PEERS {
            self.first.push(ip);
        } else {
            self.further.insert(ip);
        }
    }

    /// Number of different peers.
    pub(super) fn count(&self) -> usize {
        self.first.len() + self.further.len()
    }

    /// The first of them, in their order.
    pub(super) fn into_first(self) -> Vec<IpAddr> {
        self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_is_counted_once_and_no_more_than_the_limit() {
        let mut peers = PermittedPeers::new(20);
        for round in 0..2 {
            for last in 0..=255 {
                peers.note(IpAddr::from([8, 8, 8, last]));
                let expected = if round == 0 { (last as usize + 1).min(20) } else { 20 };
                assert_eq!(peers.count(), expected);
            }
        }
        let first: Vec<_> =
            (0..SessionRecord::MAX_PEERS as u8).map(|last| IpAddr::from([8, 8, 8, last])).collect();
        assert_eq!(peers.into_first(), first);
    }
}

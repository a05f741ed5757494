//! Permissions of one relayed transport address (RFC 8656 section 9): by IP address alone.

use std::{collections::BTreeMap, net::IpAddr};

use relay_common::clock::BootNanos;

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

//! Ports of relayed transport addresses: chosen at random (RFC 6056), never given twice.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use rand::{Rng, RngExt};

use super::address::{Family, RelayedAddr};

/// Which ports will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parity {
    /// All.
    Any,
    /// Even ones (EVEN-PORT with R=0).
    Even,
    /// Even ones whose next one is free too, which is taken with them (EVEN-PORT with R=1).
    EvenWithNext,
}

/// The ports of all relay addresses.
#[derive(Debug)]
pub(super) struct RelayedPorts {
    range: RangeInclusive<u16>,
    addresses: Vec<AddressPorts>,
}

/// The ports of one relay address: one bit each, by port, set while the port is somebody's or does not exist.
#[derive(Debug)]
struct AddressPorts {
    ip: IpAddr,
    taken: Box<[u64; WORDS]>,
}

const WORDS: usize = (1 << 16) / 64;

/// Bits of even ports.
const EVEN: u64 = 0x5555_5555_5555_5555;

impl RelayedPorts {
    /// All ports of `range` on all `addresses`, free.
    pub(super) fn new(addresses: &[IpAddr], range: &RangeInclusive<u16>) -> Self {
        let mut taken = Box::new([u64::MAX; WORDS]);
        for port in range.clone() {
            taken[port as usize / 64] &= !(1 << (port % 64));
        }
        let addresses = addresses.iter().map(|&ip| AddressPorts { ip, taken: taken.clone() }).collect();
        Self { range: range.clone(), addresses }
    }

    /// Takes a free port: of a random address of the family, at a random place, the next free one from there
    /// (RFC 6056 section 3.3.1).
    pub(super) fn take(
        &mut self,
        family: Family,
        parity: Parity,
        rng: &mut (impl Rng + ?Sized),
    ) -> Option<RelayedAddr> {
        let mut addresses: Vec<_> =
            self.addresses.iter_mut().filter(|address| Family::of(address.ip) == family).collect();
        if addresses.is_empty() {
            return None;
        }
        let first_address = rng.random_range(0..addresses.len());
        let first_port = rng.random_range(self.range.clone());
        addresses.rotate_left(first_address);
        addresses.into_iter().find_map(|address| address.take(parity, first_port))
    }

    /// Frees one port that [`take`](Self::take) gave out.
    pub(super) fn release(&mut self, RelayedAddr(relayed): RelayedAddr) {
        let address = self
            .addresses
            .iter_mut()
            .find(|address| address.ip == relayed.ip())
            .expect("relayed addresses are on relay addresses");
        address.taken[relayed.port() as usize / 64] &= !(1 << (relayed.port() % 64));
    }

    /// Whether there are relay addresses of this family.
    pub(super) fn serves(&self, family: Family) -> bool {
        self.addresses.iter().any(|address| Family::of(address.ip) == family)
    }
}

impl AddressPorts {
    fn take(&mut self, parity: Parity, first_port: u16) -> Option<RelayedAddr> {
        let first_word = first_port as usize / 64;
        let from_first_port = u64::MAX << (first_port % 64);
        // The first word comes twice: from the first port on, and at the end, once around, up to it.
        let port = (0..=WORDS).find_map(|step| {
            let word = (first_word + step) % WORDS;
            let mask = if step == 0 { from_first_port } else { u64::MAX };
            let free = !self.taken[word];
            let suitable = match parity {
                Parity::Any => free,
                Parity::Even => free & EVEN,
                // An even port and the next one are in the same word.
                Parity::EvenWithNext => free & (free >> 1) & EVEN,
            } & mask;
            (suitable != 0).then(|| word * 64 + suitable.trailing_zeros() as usize)
        })?;
        let bits = if parity == Parity::EvenWithNext { 0b11 } else { 0b1 };
        self.taken[port / 64] |= bits << (port % 64);
        Some(RelayedAddr(SocketAddr::new(self.ip, port as u16)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn ips(n: u8) -> Vec<IpAddr> {
        (1..=n).map(|last| IpAddr::from([192, 0, 2, last])).collect()
    }

    #[test]
    fn turn_026_060_every_port_is_given_once_and_then_none() {
        for range in [60_000..=60_200, 65_500..=65_535, 1024..=1024, 127..=128] {
            let mut rng = StdRng::seed_from_u64(1);
            let mut ports = RelayedPorts::new(&ips(2), &range);
            let mut taken = BTreeSet::new();
            while let Some(RelayedAddr(address)) = ports.take(Family::V4, Parity::Any, &mut rng) {
                assert!(range.contains(&address.port()));
                assert!(taken.insert(address), "{address} was given twice");
            }
            assert_eq!(taken.len(), 2 * range.clone().count());

            let one = RelayedAddr(*taken.first().unwrap());
            ports.release(one);
            assert_eq!(ports.take(Family::V4, Parity::Any, &mut rng), Some(one));
            assert_eq!(ports.take(Family::V4, Parity::Any, &mut rng), None);
        }
    }

    #[test]
    fn turn_021_each_family_has_ports_of_its_own() {
        let mut rng = StdRng::seed_from_u64(4);
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        let mut ports = RelayedPorts::new(&[v6, ips(1)[0]], &(50_000..=50_000));
        assert!(ports.serves(Family::V4) && ports.serves(Family::V6));
        for (family, ip) in [(Family::V4, ips(1)[0]), (Family::V6, v6)] {
            let relayed = RelayedAddr(SocketAddr::new(ip, 50_000));
            assert_eq!(ports.take(family, Parity::Any, &mut rng), Some(relayed));
            assert_eq!(ports.take(family, Parity::Any, &mut rng), None);
        }
        let mut ports = RelayedPorts::new(&[v6], &(50_000..=50_000));
        assert!(!ports.serves(Family::V4));
        assert_eq!(ports.take(Family::V4, Parity::Any, &mut rng), None);
    }

    #[test]
    fn turn_067_even_ports_run_out_by_themselves() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut ports = RelayedPorts::new(&ips(1), &(50_001..=50_010));
        for _ in 0..5 {
            let RelayedAddr(address) = ports.take(Family::V4, Parity::Even, &mut rng).unwrap();
            assert_eq!(address.port() % 2, 0);
        }
        assert_eq!(ports.take(Family::V4, Parity::Even, &mut rng), None);
        assert!(ports.take(Family::V4, Parity::Any, &mut rng).is_some());
    }

    #[test]
    fn turn_068_071_a_pair_is_two_free_ports_of_the_range_and_both_are_taken() {
        let mut rng = StdRng::seed_from_u64(5);
        // Whole pairs: 50_002 to 50_009, and across the end of a word of bits.
        let mut ports = RelayedPorts::new(&ips(1), &(50_001..=50_010));
        let port = |port| RelayedAddr(SocketAddr::new(ips(1)[0], port));
        let mut pairs = BTreeSet::new();
        while let Some(RelayedAddr(address)) = ports.take(Family::V4, Parity::EvenWithNext, &mut rng) {
            pairs.insert(address.port());
        }
        assert_eq!(pairs, BTreeSet::from([50_002, 50_004, 50_006, 50_008]));

        ports.release(port(50_004));
        ports.release(port(50_007));
        assert_eq!(ports.take(Family::V4, Parity::EvenWithNext, &mut rng), None, "halves of two pairs");
        ports.release(port(50_005));
        assert_eq!(ports.take(Family::V4, Parity::EvenWithNext, &mut rng), Some(port(50_004)));
        let mut left = BTreeSet::new();
        while let Some(RelayedAddr(address)) = ports.take(Family::V4, Parity::Any, &mut rng) {
            left.insert(address.port());
        }
        assert_eq!(left, BTreeSet::from([50_001, 50_007, 50_010]), "no other port was touched");
    }

    #[test]
    fn turn_074_ports_are_spread_over_the_range() {
        for parity in [Parity::Any, Parity::Even, Parity::EvenWithNext] {
            let mut rng = StdRng::seed_from_u64(3);
            let mut ports = RelayedPorts::new(&ips(1), &(49_152..=65_535));
            let mut quarters = [0; 4];
            let mut in_their_words = BTreeSet::new();
            for _ in 0..400 {
                let RelayedAddr(address) = ports.take(Family::V4, parity, &mut rng).unwrap();
                quarters[(address.port() as usize - 49_152) / 4096] += 1;
                in_their_words.insert(address.port() % 64);
            }
            assert!(quarters.iter().all(|&n| n > 50), "{quarters:?}");
            let wanted = if parity == Parity::Any { 60 } else { 30 };
            assert!(in_their_words.len() >= wanted, "{in_their_words:?}");
        }
    }
}

//! How many responses a source gets before anybody is authenticated: so many a second, and as many at once after
//! a second of quiet. A server that answers every forged request is a weapon against whoever it answers.
//!
//! The table never grows, whatever comes. A source has one of two places in it, which a key decides that nobody
//! knows, so that no source can be aimed at another's. One that finds both of them in use takes that which is
//! sooner free: a noisy source gets more than it should rather than a quiet one nothing.
//!
//! Those who know a password and lack but a good nonce have a share of their own: strangers behind the same NAT, or
//! with a forged address, cannot use it up, and so cannot end the sessions of users.

use std::{hash::Hasher, net::IpAddr};

use relay_common::clock::BootNanos;
use siphasher::sip::SipHasher24;

/// Places in the table, 16 bytes each. One is in use for as long as its source has not all of its responses
/// back: at a limit of 200 a second, 5 ms for each response.
const PLACES: usize = 1 << 14;

/// A second's responses may come at once.
const BURST: u64 = 1_000_000_000;

/// What the sender of a request has proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Not even where it is.
    Nothing,
    /// That it knows a password.
    Password,
}

/// The sources that had responses lately.
pub(super) struct Strangers {
    key: [u8; 16],
    /// Nanoseconds that a response costs; none without a limit.
    interval: u64,
    places: Box<[Place]>,
}

#[derive(Clone, Copy, Default)]
struct Place {
    /// Hash of the source and of what was proved.
    source: u64,
    /// When the source has all of its responses back (GCRA's theoretical arrival time).
    free: BootNanos,
}

impl Strangers {
    /// A table for `per_second` responses to each source, or without a limit if that is 0.
    pub(super) fn new(key: [u8; 16], per_second: u32) -> Self {
        let places = if per_second == 0 { 0 } else { PLACES };
        Self {
            key,
            interval: BURST.checked_div(per_second.into()).unwrap_or(0),
            places: vec![Place::default(); places].into(),
        }
    }

    /// Whether the source gets a response now, which is then counted.
    pub(super) fn admits(&mut self, now: BootNanos, source: IpAddr, proof: Proof) -> bool {
        if self.places.is_empty() {
            return true;
        }
        let (source, interval) = (self.hash(source, proof), self.interval);
        let place = self.place(now, source);
        let free = place.free.max(now).saturating_add(interval);
        let is_admitted = free <= now.saturating_add(BURST);
        if is_admitted {
            place.free = free;
        }
        is_admitted
    }

    /// The place of this source, taken from another if need be.
    fn place(&mut self, now: BootNanos, source: u64) -> &mut Place {
        let [first, second] = [source, source >> 32].map(|hash| hash as usize % PLACES);
        let is_own = |place: &Place| place.source == source;
        let [at_first, at_second] = [first, second].map(|index| self.places[index]);
        let index = if is_own(&at_first) || (!is_own(&at_second) && at_first.free <= at_second.free) {
            first
        } else {
            second
        };
        let place = &mut self.places[index];
        if !is_own(place) {
            *place = Place { source, free: now };
        }
        place
    }

    /// An IPv4 address counts by itself, an IPv6 address with the /64 around it, which a host has to itself.
    fn hash(&self, source: IpAddr, proof: Proof) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write_u8(proof as u8);
        match source.to_canonical() {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            IpAddr::V6(ip) => hasher.write(&ip.octets()[..8]),
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: BootNanos = 1_000 * BURST;

    fn strangers(per_second: u32) -> Strangers {
        Strangers::new([3; 16], per_second)
    }

    fn ip(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    /// How many of `attempts` at one moment are admitted.
    fn admitted(strangers: &mut Strangers, now: BootNanos, source: &str, attempts: usize) -> usize {
        (0..attempts).filter(|_| strangers.admits(now, ip(source), Proof::Nothing)).count()
    }

    #[test]
    fn a_source_gets_a_seconds_responses_at_once_and_then_so_many_a_second() {
        for rate in [1, 3, 200] {
            let mut strangers = strangers(rate);
            let mut take = |now, attempts| admitted(&mut strangers, now, "192.0.2.1", attempts) as u32;
            assert_eq!(take(NOW, 1000), rate);
            assert_eq!(take(NOW + BURST / u64::from(rate) / 2, 1000), 0);
            assert_eq!(take(NOW + BURST, 1000), rate);
            assert_eq!(take(NOW + 100 * BURST, 1000), rate, "quiet saves up no more than a second's");
            let ten_seconds: u32 = (0..1000).map(|i| take(NOW + 200 * BURST + i * BURST / 100, 10)).sum();
            assert!((9 * rate..=11 * rate).contains(&ten_seconds), "{ten_seconds} at {rate}");
        }
    }

    #[test]
    fn ipv4_counts_by_address_and_ipv6_by_64_bits() {
        let mut strangers = strangers(2);
        for (first, same, other) in [
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:2::1"),
        ] {
            assert_eq!(admitted(&mut strangers, NOW, first, 3), 2);
            assert_eq!(admitted(&mut strangers, NOW, same, 3), 0, "{same}");
            assert_eq!(admitted(&mut strangers, NOW, other, 3), 2, "{other}");
        }
    }

    #[test]
    fn no_limit_keeps_no_table() {
        let mut strangers = strangers(0);
        assert_eq!(admitted(&mut strangers, NOW, "192.0.2.1", 10_000), 10_000);
        assert!(strangers.places.is_empty());
    }

    #[test]
    fn an_unauthenticated_packet_costs_no_memory() {
        let mut strangers = strangers(200);
        let table = strangers.places.as_ptr();
        for address in 0..100_000u32 {
            strangers.admits(NOW + u64::from(address), IpAddr::V4(address.into()), Proof::Nothing);
            strangers.admits(NOW, IpAddr::V6((u128::from(address) << 64).into()), Proof::Nothing);
        }
        assert_eq!((strangers.places.as_ptr(), strangers.places.len()), (table, PLACES));
    }

    #[test]
    fn noisy_sources_do_not_silence_a_quiet_one() {
        let mut strangers = strangers(200);
        // More sources than there are places, each with all it gets.
        for address in 0..2 * PLACES as u32 {
            for _ in 0..200 {
                strangers.admits(NOW, IpAddr::V4(address.into()), Proof::Nothing);
            }
        }
        for last in 1..=255 {
            assert!(strangers.admits(NOW, ip(&format!("198.51.100.{last}")), Proof::Nothing));
        }
        // And while there is room, they get no more for it.
        let mut strangers = Strangers::new([4; 16], 200);
        for _ in 0..10 {
            for address in 0..100u32 {
                assert!(strangers.admits(NOW, IpAddr::V4(address.into()), Proof::Nothing));
            }
        }
        let rest: usize = (0..100u32)
            .map(|address| admitted(&mut strangers, NOW, &IpAddr::V4(address.into()).to_string(), 1000))
            .sum();
        assert_eq!(rest, 100 * 190);
    }

    #[test]
    fn places_depend_on_the_key() {
        let hash = |key| Strangers::new(key, 1).hash(ip("192.0.2.1"), Proof::Nothing);
        assert_ne!(hash([1; 16]), hash([2; 16]));
    }
}

//! What RFC 8656 lets each client have, from the requests that reached the server alone. It knows nothing of the
//! core but what responses say that the server is free to choose: relayed addresses and tokens.

mod addresses;
mod route;
mod verdict;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use relay_user::turn::{Family, FiveTuple};

use crate::{
    ask::{Allocate, Ask, Sent},
    pair::SECOND,
    wire::Message,
};
use addresses::Peer;
pub use route::Route;
pub use verdict::Verdict;

/// What the operator of this world decided.
#[derive(Clone, Debug)]
pub struct Rules {
    pub strict_permissions: bool,
    /// Relay address of each family that is relayed, with the address it is reached by.
    pub relays: Vec<Relay>,
    pub ports: RangeInclusive<u16>,
    /// Other addresses of the host.
    pub own: Vec<IpAddr>,
    pub allocations: usize,
    pub allocations_per_user: usize,
    pub permissions: usize,
    pub channels: usize,
    /// The operator limits bandwidth, and as many allocations as this can be metered by core and kernel together.
    pub meters: Option<usize>,
    /// Clients may be each other's peers.
    pub hairpin: bool,
    /// Responses to strangers are limited, so that they may get none.
    pub shy: bool,
    /// Clients of these families are sent elsewhere.
    pub redirected: Vec<Family>,
}

#[derive(Clone, Copy, Debug)]
pub struct Relay {
    pub ip: IpAddr,
    pub external: IpAddr,
}

/// What a client has been granted.
#[derive(Clone, Debug)]
pub struct Granted {
    pub username: &'static str,
    transaction: [u8; 12],
    pub relayed: BTreeMap<Family, Relayed>,
    pub channels: BTreeMap<u16, (SocketAddr, u64)>,
    /// RESERVATION-TOKEN and ADDRESS-ERROR-CODE of the success response: a repeated one has them too.
    token: Option<Token>,
    missing: Option<(u8, u16)>,
    /// The Refresh that deleted one of two relayed addresses.
    deleted_by: Option<[u8; 12]>,
    /// Channel numbers that are free again.
    expired: BTreeSet<u16>,
    /// Whether the kernel could keep it within its bandwidth, if that is limited: else it has no flows.
    pub has_flows: bool,
}

#[derive(Clone, Debug)]
pub struct Relayed {
    /// On the host.
    pub address: SocketAddr,
    pub expires: u64,
    pub permissions: BTreeMap<IpAddr, u64>,
}

pub type Token = [u8; 8];

/// A port held in reserve.
#[derive(Clone, Copy, Debug)]
pub struct Reservation {
    pub address: SocketAddr,
    username: &'static str,
    pub expires: u64,
}

/// Seconds that the server holds a port: by RFC 8656 section 7.2 at least 30.
const HELD: u64 = 60;

pub struct Model {
    pub rules: Rules,
    pub granted: BTreeMap<FiveTuple, Granted>,
    pub reservations: BTreeMap<Token, Reservation>,
}

impl Model {
    pub fn new(rules: Rules) -> Self {
        Self { rules, granted: BTreeMap::new(), reservations: BTreeMap::new() }
    }

    /// A request was granted, by this response.
    pub fn grant(&mut self, now: u64, sent: &Sent, response: &Message) -> &'static str {
        let until = |seconds: u64| now + seconds * SECOND;
        match &sent.ask {
            Ask::Binding => {
                assert_eq!(response.address(0x0020), sent.by.five_tuple.client.0, "STUN-035");
                "binding"
            }
            Ask::Allocate(ask) => self.allocated(now, sent, ask, response),
            Ask::Refresh { lifetime: Some(0), family } => {
                assert_eq!(response.lifetime(), 0, "TURN-087");
                self.deleted(sent, *family)
            }
            Ask::Refresh { lifetime, family } => {
                let seconds = lifetime.unwrap_or(0).clamp(600, 3600);
                assert_eq!(response.lifetime(), seconds, "TURN-088 to TURN-090");
                let granted = self.granted.get_mut(&sent.by.five_tuple).expect("TURN-009");
                for (&of, relayed) in &mut granted.relayed {
                    if family.is_none_or(|family| family == of as u8) {
                        relayed.expires = until(seconds.into());
                    }
                }
                "refresh: prolonged"
            }
            Ask::CreatePermission { peers } => {
                let mut is_new = false;
                for peer in peers {
                    let ip = self.local(peer.ip());
                    let granted = self.granted.get_mut(&sent.by.five_tuple).expect("TURN-009");
                    is_new |= granted.permit(ip, until(300));
                }
                if is_new { "permission: installed" } else { "permission: refreshed" }
            }
            Ask::ChannelBind { number, peer } => {
                let (number, peer) = number.zip(*peer).expect("TURN-149");
                let (peer, hairpin) = match self.peer(peer) {
                    Peer::Hairpin(local) => (local, true),
                    Peer::Outside | Peer::Forbidden => (peer, false),
                };
                let granted = self.granted.get_mut(&sent.by.five_tuple).expect("TURN-009");
                let old = granted.channels.insert(number, (peer, until(600)));
                // "Where the texts disagree": unless strict, a bound peer's permission lives as long.
                granted.permit(peer.ip(), until(if self.rules.strict_permissions { 300 } else { 600 }));
                match (old, granted.expired.remove(&number), hairpin) {
                    (Some(_), ..) => "channel: refreshed",
                    (None, true, _) => "channel: bound again after its end",
                    (None, false, false) => "channel: bound",
                    (None, false, true) => "channel: bound to a relayed address",
                }
            }
        }
    }

    fn allocated(&mut self, now: u64, sent: &Sent, ask: &Allocate, response: &Message) -> &'static str {
        assert_eq!(response.address(0x0020), sent.by.five_tuple.client.0, "TURN-080");
        let token = response.attribute(0x0022).map(|token| token.try_into().expect("TURN-068"));
        let missing = response
            .attribute(0x8001)
            .map(|value| (value[0], u16::from(value[2]) * 100 + u16::from(value[3])));
        let addresses: Vec<_> =
            response.addresses(0x0016).into_iter().map(|address| self.local_form(address)).collect();

        if let Some(granted) = self.granted.get(&sent.by.five_tuple) {
            let same = granted.relayed.values().map(|relayed| relayed.address);
            assert!(same.eq(addresses), "TURN-083");
            assert_eq!((token, missing), (granted.token, granted.missing), "TURN-083");
            let expires = granted.relayed.values().map(|relayed| relayed.expires).min();
            assert_eq!(Some(response.lifetime()), expires.map(|at| ((at - now) / SECOND) as u32), "TURN-084");
            return "allocate: repeated";
        }
        let seconds = ask.lifetime.unwrap_or(0).clamp(600, 3600);
        assert_eq!(response.lifetime(), seconds, "TURN-075, TURN-076, TURN-079");
        let expires = now + u64::from(seconds) * SECOND;
        let what = match ask.token {
            Some(token) => {
                let reservation = self.reservations.remove(&token).expect("TURN-046");
                assert_eq!(addresses, [reservation.address], "TURN-064");
                "allocate: created from a reservation"
            }
            None => {
                assert!(
                    addresses.iter().all(|&address| self.is_free(address)),
                    "TURN-026, TURN-071: {addresses:?}"
                );
                match (ask.even, ask.additional, addresses.len()) {
                    (Some(true), ..) => "allocate: created, with the next port reserved",
                    (_, Some(_), 1) => "allocate: created, one family of two",
                    (_, Some(_), 2) => "allocate: created, both families",
                    (_, _, 1) if addresses[0].is_ipv6() => "allocate: created, IPv6",
                    (_, None, 1) => "allocate: created, IPv4",
                    _ => panic!("TURN-056: {addresses:?}"),
                }
            }
        };
        assert!(ask.even.is_none() || addresses.iter().all(|a| a.port().is_multiple_of(2)), "TURN-067");
        assert_eq!(token.is_some(), ask.even == Some(true), "TURN-068, TURN-081");
        if let Some(token) = token {
            let address = SocketAddr::new(addresses[0].ip(), addresses[0].port() + 1);
            assert!(self.is_free(address), "TURN-071: {address}");
            let reservation =
                Reservation { address, username: sent.by.user.name, expires: now + HELD * SECOND };
            self.reservations.insert(token, reservation);
        }
        let relayed = |address| Relayed { address, expires, permissions: BTreeMap::new() };
        let metered = self.granted.values().filter(|granted| granted.has_flows).count();
        let has_flows = self.rules.meters.is_none_or(|meters| metered < meters);
        self.granted.insert(
            sent.by.five_tuple,
            Granted {
                username: sent.by.user.name,
                transaction: sent.transaction(),
                relayed: addresses
                    .into_iter()
                    .map(|a: SocketAddr| (Family::of(a.ip()), relayed(a)))
                    .collect(),
                channels: BTreeMap::new(),
                token,
                missing,
                deleted_by: None,
                expired: BTreeSet::new(),
                has_flows,
            },
        );
        what
    }

    /// What a success response must say of the families that were asked for: those that can be had, and why
    /// another one cannot.
    pub fn expected_families(&self, ask: &Allocate) -> (Vec<Family>, Option<(u8, u16)>) {
        if let Some(reservation) = ask.token.and_then(|token| self.reservations.get(&token)) {
            return (vec![Family::of(reservation.address.ip())], None);
        }
        let (had, not_had): (Vec<_>, Vec<_>) =
            self.families(ask).into_iter().partition(|&family| self.has_free_port(family, ask.even));
        let unsupported = ask.additional.filter(|_| self.families(ask).len() < 2).map(|family| (family, 440));
        (had, unsupported.or(not_had.first().map(|&family| (family as u8, 508))))
    }

    /// A port that was held for a request was in another program's hands, and is free again.
    pub fn lose_reservation(&mut self, ask: &Allocate) {
        if let Some(token) = ask.token {
            self.reservations.remove(&token);
        }
    }

    fn deleted(&mut self, sent: &Sent, family: Option<u8>) -> &'static str {
        let granted = self.granted.get_mut(&sent.by.five_tuple).expect("TURN-009");
        let before = granted.relayed.len();
        let goes = |of: Family| family.is_none_or(|family| family == of as u8);
        granted.relayed.retain(|&of, _| !goes(of));
        granted.channels.retain(|_, (peer, _)| !goes(Family::of(peer.ip())));
        granted.deleted_by = Some(sent.transaction());
        match (before, granted.relayed.len()) {
            (_, 0) => {
                self.granted.remove(&sent.by.five_tuple);
                "refresh: deleted"
            }
            (2, 1) => "refresh: deleted one family of two",
            _ => "refresh: deletion repeated",
        }
    }

    /// Forgets what has ended by now, and says what that was.
    pub fn expire(&mut self, now: u64, mut ended: impl FnMut(&'static str)) {
        self.reservations.retain(|_, reservation| {
            let lives = reservation.expires > now;
            if !lives {
                ended("reservation: expired");
            }
            lives
        });
        self.granted.retain(|_, granted| {
            let Granted { relayed, channels, expired, .. } = granted;
            relayed.retain(|_, relayed| {
                relayed.permissions.retain(|_, &mut expires| {
                    let lives = expires > now;
                    if !lives {
                        ended("permission: expired");
                    }
                    lives
                });
                relayed.expires > now
            });
            channels.retain(|&number, (peer, expires)| {
                let lives = *expires > now;
                if !lives {
                    expired.insert(number);
                    ended("channel: expired");
                }
                lives && relayed.contains_key(&Family::of(peer.ip()))
            });
            if relayed.is_empty() {
                ended("allocation: expired");
            }
            !relayed.is_empty()
        });
    }
}

impl Granted {
    /// When the permission for this address ends, if there is one.
    pub fn permission(&self, ip: IpAddr) -> Option<u64> {
        self.relayed.get(&Family::of(ip)).and_then(|relayed| relayed.permissions.get(&ip)).copied()
    }

    fn permission_count(&self) -> usize {
        self.relayed.values().map(|relayed| relayed.permissions.len()).sum()
    }

    /// Whether the permission is new.
    fn permit(&mut self, ip: IpAddr, until: u64) -> bool {
        let relayed = self.relayed.get_mut(&Family::of(ip)).expect("TURN-114, TURN-154");
        let expires = relayed.permissions.entry(ip).or_default();
        let is_new = *expires == 0;
        *expires = until.max(*expires);
        is_new
    }
}

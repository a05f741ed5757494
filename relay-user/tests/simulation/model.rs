//! What RFC 8656 lets each client have, from the requests that reached the server alone. It knows nothing of the
//! core but what responses say that the server is free to choose: relayed addresses and tokens.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use relay_user::turn::{Family, FiveTuple};

use crate::{
    ask::{Allocate, Ask, Flaw, Sent},
    pair::SECOND,
    wire::Message,
};

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
    /// The operator limits bandwidth, so no flow may pass by the core.
    pub no_flows: bool,
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
/// Seconds that a nonce is good for.
const NONCE: u64 = 3600;

/// How the server must answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Success,
    /// With one of these codes.
    Refused(Vec<u16>),
}

impl Verdict {
    /// Whether the response goes out before anybody is authenticated.
    pub fn is_for_strangers(&self, sent: &Sent) -> bool {
        match self {
            Self::Success => matches!(sent.ask, Ask::Binding),
            Self::Refused(codes) => {
                let is_early = matches!(sent.flaw, Flaw::Torn | Flaw::NoNonce | Flaw::BidDown);
                matches!(sent.ask, Ask::Binding) || is_early || codes == &[401] || codes == &[438]
            }
        }
    }
}

/// Where data must go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Nowhere,
    /// From a relayed address to a peer outside.
    ToPeer {
        relayed: SocketAddr,
        peer: SocketAddr,
    },
    /// Over a channel, or in a Data indication that shows the peer.
    ToClient {
        five_tuple: FiveTuple,
        channel: Option<u16>,
        shown: SocketAddr,
    },
}

/// What a transport address is to this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Outside,
    /// A relayed transport address, in its form on the host.
    Hairpin(SocketAddr),
    Forbidden,
}

pub struct Model {
    pub rules: Rules,
    pub granted: BTreeMap<FiveTuple, Granted>,
    pub reservations: BTreeMap<Token, Reservation>,
}

impl Model {
    pub fn new(rules: Rules) -> Self {
        Self { rules, granted: BTreeMap::new(), reservations: BTreeMap::new() }
    }

    // Control.

    /// How a request that arrives now must be answered.
    pub fn verdict(&self, now: u64, sent: &Sent) -> Verdict {
        match self.refusal(now, sent) {
            Some(codes) => Verdict::Refused(codes),
            None => Verdict::Success,
        }
    }

    /// In the order of RFC 8489 sections 6.3 and 9.2.4 and of each method's section in RFC 8656.
    fn refusal(&self, now: u64, sent: &Sent) -> Option<Vec<u16>> {
        let one = |code| Some(vec![code]);
        if sent.flaw == Flaw::Torn {
            return one(400);
        }
        if matches!(sent.ask, Ask::Binding) {
            return (sent.flaw == Flaw::UnknownAttribute).then(|| vec![420]);
        }
        match sent.flaw {
            Flaw::Unprotected | Flaw::UnknownUser | Flaw::WrongPassword | Flaw::WrongRealm => {
                return one(401);
            }
            Flaw::NoNonce => return one(400),
            Flaw::BidDown if sent.by.auth.algorithm.is_some() => return one(400),
            Flaw::ForgedNonce => return one(438),
            Flaw::None | Flaw::Torn | Flaw::BidDown | Flaw::UnknownAttribute | Flaw::Malformed => {}
        }
        let age = now / SECOND - sent.by.nonce.issued / SECOND;
        if sent.by.nonce.client != sent.by.five_tuple.client.0 || age >= NONCE {
            return one(438);
        }
        if sent.flaw == Flaw::UnknownAttribute {
            return one(420);
        }
        let granted = self.granted.get(&sent.by.five_tuple);
        if let Ask::Allocate(allocate) = &sent.ask {
            return match granted {
                Some(granted)
                    if granted.transaction == sent.transaction() && granted.username == sent.by.user.name =>
                {
                    None
                }
                Some(_) => one(437),
                None if sent.flaw == Flaw::Malformed => one(400),
                None => self.allocate_refusal(sent, allocate),
            };
        }
        let Some(granted) = granted else { return one(437) };
        if granted.username != sent.by.user.name {
            return one(441);
        }
        if sent.flaw == Flaw::Malformed {
            return one(400);
        }
        match &sent.ask {
            Ask::Refresh { family, lifetime } => {
                let has = |family: &u8| granted.relayed.keys().any(|&has| has as u8 == *family);
                let is_repeated = *lifetime == Some(0) && granted.deleted_by == Some(sent.transaction());
                (!family.as_ref().is_none_or(has) && !is_repeated).then(|| vec![443])
            }
            Ask::CreatePermission { peers } => self.create_permission_refusal(granted, peers),
            Ask::ChannelBind { number, peer } => self.channel_bind_refusal(granted, *number, *peer),
            Ask::Binding | Ask::Allocate(_) => None,
        }
    }

    fn allocate_refusal(&self, sent: &Sent, ask: &Allocate) -> Option<Vec<u16>> {
        let one = |code| Some(vec![code]);
        match ask.transport {
            None => return one(400),
            Some(17) => {}
            Some(_) => return one(442),
        }
        if let Some(token) = ask.token {
            if ask.even.is_some() || ask.family.is_some() || ask.additional.is_some() {
                return one(400);
            }
            let Some(reservation) = self.reservations.get(&token) else { return one(508) };
            let mut refusals = Vec::new();
            let changes_hands = reservation.username != sent.by.user.name;
            if changes_hands && self.held_by(sent.by.user.name) >= self.rules.allocations_per_user {
                refusals.push(486);
            }
            if self.is_redirected(sent) {
                refusals.push(300);
            }
            return (!refusals.is_empty()).then_some(refusals);
        }
        let serves = |family: u8| self.rules.relays.iter().any(|relay| Family::of(relay.ip) as u8 == family);
        if ask.family.is_some() && ask.additional.is_some() {
            return one(400);
        }
        if !serves(ask.family.unwrap_or(1)) {
            return one(440);
        }
        if ask.additional.is_some_and(|family| family != 2)
            || ask.additional.is_some() && ask.even == Some(true)
        {
            return one(400);
        }
        let wanted = if ask.even == Some(true) { 2 } else { 1 };
        // Without quota and without a port either refusal will do, and with another server too.
        let mut refusals = Vec::new();
        if self.held_by(sent.by.user.name) + wanted > self.rules.allocations_per_user {
            refusals.push(486);
        }
        let is_full = self.held() + wanted > self.rules.allocations;
        if is_full || self.families(ask).iter().all(|&family| !self.has_free_port(family, ask.even)) {
            refusals.push(508);
        }
        if self.is_redirected(sent) {
            refusals.push(300);
        }
        (!refusals.is_empty()).then_some(refusals)
    }

    /// The families that an Allocate asks for and that are relayed.
    fn families(&self, ask: &Allocate) -> Vec<Family> {
        let asked = |family: Family| match (ask.family, ask.additional) {
            (Some(asked), _) => asked == family as u8,
            (None, None) => family == Family::V4,
            (None, Some(_)) => true,
        };
        self.rules.relays.iter().map(|relay| Family::of(relay.ip)).filter(|&family| asked(family)).collect()
    }

    fn is_redirected(&self, sent: &Sent) -> bool {
        self.rules.redirected.contains(&Family::of(sent.by.five_tuple.client.0.ip()))
    }

    /// Allocations and reservations of a user, and of all.
    fn held_by(&self, username: &str) -> usize {
        self.granted.values().filter(|granted| granted.username == username).count()
            + self.reservations.values().filter(|held| held.username == username).count()
    }

    fn held(&self) -> usize {
        self.granted.len() + self.reservations.len()
    }

    fn create_permission_refusal(&self, granted: &Granted, peers: &[SocketAddr]) -> Option<Vec<u16>> {
        let one = |code| Some(vec![code]);
        if peers.is_empty() {
            return one(400);
        }
        if peers.iter().any(|peer| !granted.relayed.contains_key(&Family::of(peer.ip()))) {
            return one(443);
        }
        if peers.iter().any(|peer| !self.permits(peer.ip())) {
            return one(403);
        }
        let mut new: Vec<_> = peers.iter().map(|peer| self.local(peer.ip())).collect();
        new.sort();
        new.dedup();
        new.retain(|ip| granted.permission(*ip).is_none());
        (granted.permission_count() + new.len() > self.rules.permissions).then(|| vec![508])
    }

    fn channel_bind_refusal(
        &self,
        granted: &Granted,
        number: Option<u16>,
        peer: Option<SocketAddr>,
    ) -> Option<Vec<u16>> {
        let one = |code| Some(vec![code]);
        let (Some(number), Some(peer)) = (number, peer) else { return one(400) };
        if !(0x4000..=0x4fff).contains(&number) || peer.port() == 0 {
            return one(400);
        }
        let kind = self.peer(peer);
        let local = match kind {
            Peer::Hairpin(local) => local,
            Peer::Outside | Peer::Forbidden => peer,
        };
        // Where more than one of these holds, which of them the client hears of is nobody's concern.
        let conflicts = |(&bound, &(to, _)): (&u16, &(SocketAddr, u64))| (bound == number) != (to == local);
        let refusals: Vec<_> = [
            (granted.channels.iter().any(conflicts), 400),
            (!granted.relayed.contains_key(&Family::of(peer.ip())), 443),
            (kind == Peer::Forbidden, 403),
        ]
        .into_iter()
        .filter_map(|(holds, code)| holds.then_some(code))
        .collect();
        if !refusals.is_empty() {
            return Some(refusals);
        }
        let is_full = granted.permission(local.ip()).is_none()
            && granted.permission_count() >= self.rules.permissions
            || !granted.channels.contains_key(&number) && granted.channels.len() >= self.rules.channels;
        is_full.then(|| vec![508])
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

    // Data.

    /// ChannelData from a client.
    pub fn route_channel(&self, from: FiveTuple, number: u16) -> Route {
        let channel = self.granted.get(&from).and_then(|granted| granted.channels.get(&number));
        channel.map_or(Route::Nowhere, |&(peer, _)| self.route_to_peer(from, peer))
    }

    /// A Send indication from a client.
    pub fn route_send(&self, from: FiveTuple, peer: SocketAddr) -> Route {
        if peer.port() == 0 { Route::Nowhere } else { self.route_to_peer(from, peer) }
    }

    fn route_to_peer(&self, from: FiveTuple, peer: SocketAddr) -> Route {
        let Some(granted) = self.granted.get(&from) else { return Route::Nowhere };
        let Some(relayed) = granted.relayed.get(&Family::of(peer.ip())) else { return Route::Nowhere };
        if granted.permission(self.local(peer.ip())).is_none() {
            return Route::Nowhere;
        }
        match self.peer(peer) {
            Peer::Outside => Route::ToPeer { relayed: relayed.address, peer },
            Peer::Hairpin(to) => self.deliver(to, relayed.address, self.advertised(relayed.address)),
            Peer::Forbidden => Route::Nowhere,
        }
    }

    /// A datagram from outside to a relayed address.
    pub fn route_from_peer(&self, relayed: SocketAddr, peer: SocketAddr) -> Route {
        let own = self.rules.relays.iter().any(|relay| [relay.ip, relay.external].contains(&peer.ip()));
        if own || self.rules.own.contains(&peer.ip()) {
            Route::Nowhere
        } else {
            self.deliver(relayed, peer, peer)
        }
    }

    /// An ICMP error for a datagram from a relayed address to a peer: whose client hears of it.
    pub fn route_icmp(&self, relayed: SocketAddr, peer: SocketAddr, kind: u8) -> Option<FiveTuple> {
        let is_told = if relayed.is_ipv4() { matches!(kind, 3 | 11) } else { matches!(kind, 1..=3) };
        let (&five_tuple, granted) = self.owner(relayed)?;
        (is_told && granted.permission(peer.ip()).is_some()).then_some(five_tuple)
    }

    fn owner(&self, relayed: SocketAddr) -> Option<(&FiveTuple, &Granted)> {
        let has = |granted: &Granted| granted.relayed.values().any(|own| own.address == relayed);
        self.granted.iter().find(|(_, granted)| has(granted))
    }

    fn deliver(&self, relayed: SocketAddr, peer: SocketAddr, shown: SocketAddr) -> Route {
        let Some((&five_tuple, granted)) = self.owner(relayed) else { return Route::Nowhere };
        if granted.permission(peer.ip()).is_none() {
            return Route::Nowhere;
        }
        let channel =
            granted.channels.iter().find(|(_, (bound, _))| *bound == peer).map(|(&number, _)| number);
        Route::ToClient { five_tuple, channel, shown }
    }

    // Addresses.

    fn peer(&self, address: SocketAddr) -> Peer {
        let local = self.local_form(address);
        if self.rules.relays.iter().any(|relay| relay.ip == local.ip()) {
            if self.rules.ports.contains(&local.port()) { Peer::Hairpin(local) } else { Peer::Forbidden }
        } else if self.permits(address.ip()) {
            Peer::Outside
        } else {
            Peer::Forbidden
        }
    }

    /// In these worlds, hosts outside are at addresses that begin with 8 or 2600.
    fn permits(&self, ip: IpAddr) -> bool {
        let is_outside = match ip {
            IpAddr::V4(ip) => ip.octets()[0] == 8,
            IpAddr::V6(ip) => ip.segments()[0] == 0x2600,
        };
        is_outside || self.rules.relays.iter().any(|relay| [relay.ip, relay.external].contains(&ip))
    }

    fn local_form(&self, address: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.local(address.ip()), address.port())
    }

    /// A relay address for its external form, else the address itself.
    fn local(&self, ip: IpAddr) -> IpAddr {
        let relay = self.rules.relays.iter().find(|relay| relay.external == ip);
        relay.map_or(ip, |relay| relay.ip)
    }

    /// A relayed address as clients and peers are told.
    pub fn advertised(&self, relayed: SocketAddr) -> SocketAddr {
        let relay = self.rules.relays.iter().find(|relay| relay.ip == relayed.ip());
        relay.map_or(relayed, |relay| SocketAddr::new(relay.external, relayed.port()))
    }

    fn has_free_port(&self, family: Family, even: Option<bool>) -> bool {
        let mut relays = self.rules.relays.iter().filter(|relay| Family::of(relay.ip) == family);
        relays.any(|relay| {
            let is_free = |port| self.is_free(SocketAddr::new(relay.ip, port));
            let mut ports = self.rules.ports.clone();
            ports.any(|port| match even {
                None => is_free(port),
                Some(false) => port.is_multiple_of(2) && is_free(port),
                Some(true) => port.is_multiple_of(2) && is_free(port) && is_free(port + 1),
            })
        })
    }

    fn is_free(&self, address: SocketAddr) -> bool {
        let taken = self.granted.values().flat_map(|granted| granted.relayed.values());
        self.rules.ports.contains(&address.port())
            && !taken.map(|relayed| relayed.address).any(|taken| taken == address)
            && !self.reservations.values().any(|held| held.address == address)
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

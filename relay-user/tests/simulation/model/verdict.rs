//! How each request must be answered: the checks in the order of RFC 8489 sections 6.3 and 9.2.4 and of each
//! method's section in RFC 8656.

use std::net::SocketAddr;

use relay_user::turn::Family;

use super::{Granted, Model, addresses::Peer};
use crate::{
    ask::{Allocate, Ask, Flaw, Sent},
    pair::SECOND,
};

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
impl Model {
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
    pub(super) fn families(&self, ask: &Allocate) -> Vec<Family> {
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
}

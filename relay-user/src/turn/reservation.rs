//! Relayed transport addresses held in reserve (RFC 8656 section 7.2): the port after the one an EVEN-PORT
//! request with R=1 got, for whoever brings the token.

use std::{collections::HashMap, sync::Arc, time::Duration};

use rand::CryptoRng;
use relay_common::clock::BootNanos;

use super::{
    address::RelayedAddr,
    server::after,
    timers::{Timer, Timers},
};

/// How long a port is held: the RFC's 30 seconds, counted by a client whose answer was lost and sent again for
/// another 30.
pub(super) const HELD: Duration = Duration::from_secs(60);

/// RESERVATION-TOKEN. Who knows it may have the port, so it is never shown.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Token(pub(super) [u8; 8]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A port that is held.
#[derive(Debug)]
pub(super) struct Reservation {
    pub(super) relayed: RelayedAddr,
    /// Whose quota it counts towards.
    pub(super) quota_user: Arc<str>,
    expires: BootNanos,
}

/// Live reservations. A hash with a random key leads to them, so how long a guess takes tells nothing of how
/// near it was.
#[derive(Debug, Default)]
pub(super) struct Reservations(HashMap<Token, Reservation>);

impl Reservations {
    /// Holds a port, which is nobody else's, under a new token.
    pub(super) fn hold(
        &mut self,
        now: BootNanos,
        relayed: RelayedAddr,
        quota_user: Arc<str>,
        rng: &mut (impl CryptoRng + ?Sized),
        timers: &mut Timers,
    ) -> Token {
        let mut token = Token([0; 8]);
        rng.fill_bytes(&mut token.0);
        while self.0.contains_key(&token) {
            rng.fill_bytes(&mut token.0);
        }
        let expires = after(now, HELD);
        timers.set(Timer::Reservation(token), None, Some(expires));
        self.0.insert(token, Reservation { relayed, quota_user, expires });
        token
    }

    /// Ends a reservation before its time. The port is the caller's then.
    pub(super) fn take(&mut self, token: Token, timers: &mut Timers) -> Option<Reservation> {
        let reservation = self.0.remove(&token)?;
        timers.set(Timer::Reservation(token), Some(reservation.expires), None);
        Some(reservation)
    }

    /// The reservation's deadline has come. The port is the caller's then.
    pub(super) fn expired(&mut self, token: Token) -> Option<Reservation> {
        self.0.remove(&token)
    }

    pub(super) fn get(&self, token: Token) -> Option<&Reservation> {
        self.0.get(&token)
    }

    /// The token of any of them.
    pub(super) fn first(&self) -> Option<Token> {
        self.0.keys().next().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

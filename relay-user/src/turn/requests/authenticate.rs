//! Long-term credentials (RFC 8489 section 9.2.4): the checks in the order of the RFC, the first failure
//! decides.

use std::{hint::black_box, sync::Arc};

use relay_common::clock::BootNanos;

use super::reply::{Protection, Refusal};
use crate::turn::{
    address::{ClientAddr, FiveTuple},
    credentials::{Candidate, Identity},
    long_term_key::{LongTermKey, UserHash},
    nonce::SecurityFeatures,
    output::{AuthenticationFailure, Event, Output},
    server::Server,
    stun::{AttributeType, ErrorCode, Integrity, Malformed, Message, Method, PasswordAlgorithm},
};

/// The longest USERNAME, REALM or NONCE that is read (RFC 8489 section 14).
const MAX_TEXT_LEN: usize = 763;

/// Who has sent a request.
pub(super) struct User {
    pub(super) name: Arc<str>,
    /// Whom quotas count.
    pub(super) quota_user: Arc<str>,
    pub(super) protection: Protection,
}

/// Who a client says it is, and what it says that with.
struct Claim<'a> {
    identity: Identity<'a>,
    realm: &'a [u8],
    nonce: &'a [u8],
    algorithm: PasswordAlgorithm,
    /// The request names password algorithms, as those of RFC 5389's clients do not.
    names_algorithms: bool,
}

impl Server {
    pub(super) fn authenticate(
        &mut self,
        now: BootNanos,
        five_tuple: FiveTuple,
        message: &Message<'_>,
    ) -> Result<User, Refusal> {
        if !message.is_protected() {
            return Err(Refusal::Challenge(ErrorCode::Unauthenticated));
        }
        let claim = Claim::parse(message)?;
        self.prove(now, five_tuple.client, &claim, message).map_err(|cause| {
            let username = self.credentials.name(claim.identity).map(str::to_owned);
            let event = Event::AuthenticationFailed { five_tuple, username, cause };
            self.effects.outputs.push_back(Output::Event(event));
            Refusal::Challenge(match cause {
                AuthenticationFailure::UnknownUser
                | AuthenticationFailure::WrongPassword
                | AuthenticationFailure::ExpiredCredential => ErrorCode::Unauthenticated,
                AuthenticationFailure::StaleNonce => ErrorCode::StaleNonce,
            })
        })
    }

    fn prove(
        &self,
        now: BootNanos,
        client: ClientAddr,
        claim: &Claim<'_>,
        message: &Message<'_>,
    ) -> Result<User, AuthenticationFailure> {
        let realm = self.config.realm.as_str();
        let is_ours = claim.realm == realm.as_bytes();
        let candidate = self.credentials.find(claim.identity, realm, claim.algorithm);
        let Some(Candidate { name, quota_user, keys, expires }) = candidate.filter(|_| is_ours) else {
            // Verified with nobody's key, or the time taken would tell which users there are.
            black_box(message.verify(LongTermKey::nobody(claim.algorithm).as_bytes()));
            return Err(AuthenticationFailure::UnknownUser);
        };
        let key = keys.into_iter().find(|key| message.verify(key.as_bytes()) == Integrity::Valid);
        let key = key.ok_or(AuthenticationFailure::WrongPassword)?;
        let is_judged = message.header().method == Method::ALLOCATE || self.config.strict_expiry;
        if is_judged && expires.is_some_and(|expires| expires <= self.unix_time(now)) {
            return Err(AuthenticationFailure::ExpiredCredential);
        }
        if !self.nonces.is_valid(now, client, claim.nonce) {
            return Err(AuthenticationFailure::StaleNonce);
        }
        Ok(User { name, quota_user, protection: Protection { key, sha256: claim.names_algorithms } })
    }
}

impl<'a> Claim<'a> {
    /// The attributes that must be there, and what the password algorithms must be.
    fn parse(message: &Message<'a>) -> Result<Self, Refusal> {
        let text = |kind| {
            let value = message.attribute(kind);
            if value.is_some_and(|value| value.len() > MAX_TEXT_LEN) { Err(Malformed) } else { Ok(value) }
        };
        let username = text(AttributeType::USERNAME)?.map(Identity::Name);
        let userhash = message.fixed(AttributeType::USERHASH)?.map(|hash| Identity::Hash(UserHash(hash)));
        let realm = text(AttributeType::REALM)?;
        let nonce = text(AttributeType::NONCE)?;
        let (Some(identity), Some(realm), Some(nonce)) = (username.or(userhash), realm, nonce) else {
            return Err(ErrorCode::BadRequest.into());
        };
        let offer = message.attribute(AttributeType::PASSWORD_ALGORITHMS);
        let chosen = message.attribute(AttributeType::PASSWORD_ALGORITHM);
        let algorithm = chosen.and_then(PasswordAlgorithm::chosen);
        let names_algorithms = offer.is_some() || chosen.is_some();
        // A nonce that does not tell of password algorithms is none of ours, and will be found stale.
        let is_told = SecurityFeatures::of_nonce(nonce).contains(SecurityFeatures::PASSWORD_ALGORITHMS);
        let is_answered = offer == Some(&PasswordAlgorithm::OFFER) && algorithm.is_some();
        if is_told && names_algorithms && !is_answered {
            return Err(ErrorCode::BadRequest.into());
        }
        let algorithm = algorithm.unwrap_or(PasswordAlgorithm::Md5);
        Ok(Self { identity, realm, nonce, algorithm, names_algorithms })
    }
}

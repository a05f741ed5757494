//! Long-term credentials (RFC 8489 section 9.2.4): the checks in the order of the RFC, the first failure
//! decides.

use std::sync::Arc;

use relay_common::clock::BootNanos;

use super::reply::Refusal;
use crate::turn::{
    address::FiveTuple,
    credentials::LongTermKey,
    output::{AuthenticationFailure, Event, Output},
    server::Server,
    stun::{AttributeType, ErrorCode, Integrity, Message},
};

/// The longest USERNAME, REALM or NONCE that is read (RFC 8489 section 14).
const MAX_TEXT_LEN: usize = 763;

/// Who has sent a request.
pub(super) struct User {
    pub(super) name: Arc<str>,
    pub(super) key: LongTermKey,
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
        let text = |kind| {
            let value = message.attribute(kind).filter(|value| value.len() <= MAX_TEXT_LEN);
            value.ok_or(ErrorCode::BadRequest)
        };
        let username = text(AttributeType::USERNAME)?;
        let realm = text(AttributeType::REALM)?;
        let nonce = text(AttributeType::NONCE)?;

        let user = if realm == self.config.realm.as_bytes() { self.credentials.find(username) } else { None };
        let Some((name, key)) = user else {
            self.report_failure(five_tuple, username, AuthenticationFailure::UnknownUser);
            return Err(Refusal::Challenge(ErrorCode::Unauthenticated));
        };
        if message.verify(key.as_bytes()) != Integrity::Valid {
            self.report_failure(five_tuple, username, AuthenticationFailure::WrongPassword);
            return Err(Refusal::Challenge(ErrorCode::Unauthenticated));
        }
        if !self.nonces.is_valid(now, five_tuple.client, nonce) {
            self.report_failure(five_tuple, username, AuthenticationFailure::StaleNonce);
            return Err(Refusal::Challenge(ErrorCode::StaleNonce));
        }
        Ok(User { name, key })
    }

    fn report_failure(&mut self, five_tuple: FiveTuple, username: &[u8], cause: AuthenticationFailure) {
        let username = str::from_utf8(username).ok().map(str::to_owned);
        let event = Event::AuthenticationFailed { five_tuple, username, cause };
        self.effects.outputs.push_back(Output::Event(event));
    }
}

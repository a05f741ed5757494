//! Responses: what each ends in, and what each refusal brings.

use std::net::SocketAddr;

use relay_common::clock::BootNanos;

use crate::turn::{
    address::FiveTuple,
    drops::DropReason,
    ip::IpHeader,
    long_term_key::LongTermKey,
    nonce::SecurityFeatures,
    output::Output,
    server::Server,
    strangers::Proof,
    stun::{
        AttributeType, Class, ErrorCode, Header, Malformed, MessageWriter, PasswordAlgorithm,
        UnknownAttributes,
    },
};

/// Where a response goes and how it is protected.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) five_tuple: FiveTuple,
    /// When the request came.
    pub(super) received: BootNanos,
    /// The request's.
    pub(super) header: Header,
    /// The request had FINGERPRINT, so the response has.
    pub(super) fingerprint: bool,
    /// Once the request is authenticated.
    pub(super) protection: Option<Protection>,
}

/// How responses to an authenticated request are protected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Protection {
    /// The key that the request was made with.
    pub(super) key: LongTermKey,
    /// By MESSAGE-INTEGRITY-SHA256; else by MESSAGE-INTEGRITY.
    pub(super) sha256: bool,
}

/// Why a request is refused, with what the client needs to do better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The code says it all.
    Error(ErrorCode),
    /// 401 or 438: with realm, a new nonce, and the password algorithms that the nonce tells of.
    Challenge(ErrorCode),
    /// 300: with another server of the client's address family, and perhaps one of the other.
    TryAlternate { server: SocketAddr, other_family: Option<SocketAddr> },
    /// 420.
    UnknownAttributes(UnknownAttributes),
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::Error(code)
    }
}

impl From<Malformed> for Refusal {
    fn from(Malformed: Malformed) -> Self {
        Self::Error(ErrorCode::BadRequest)
    }
}

impl Reply {
    /// A success response without attributes.
    pub(super) fn success(&self) -> MessageWriter {
        MessageWriter::new(Header { class: Class::Success, ..self.header })
    }
}

impl Server {
    pub(super) fn refuse(&mut self, reply: &Reply, refusal: &Refusal) {
        let code = refusal.code();
        // Before a nonce is made: what is not sent is to cost little.
        if !self.admits(reply, Some(code)) {
            return;
        }
        let mut response = MessageWriter::new(Header { class: Class::Error, ..reply.header });
        response.error_code(code);
        match refusal {
            Refusal::Error(_) => {}
            Refusal::Challenge(_) => {
                let nonce =
                    self.nonces.issue(reply.received, reply.five_tuple.client, self.security_features());
                response
                    .attribute(AttributeType::REALM, self.config.realm.as_bytes())
                    .attribute(AttributeType::NONCE, nonce.as_bytes())
                    .attribute(AttributeType::PASSWORD_ALGORITHMS, &PasswordAlgorithm::OFFER);
            }
            Refusal::TryAlternate { server, other_family } => {
                for &server in std::iter::once(server).chain(other_family) {
                    response.address(AttributeType::ALTERNATE_SERVER, server);
                }
            }
            Refusal::UnknownAttributes(unknown) => {
                response.unknown_attributes(unknown);
            }
        }
        self.send(reply, response, Some(code));
    }

    /// Sends a success response.
    pub(super) fn respond(&mut self, reply: &Reply, response: MessageWriter) {
        if self.admits(reply, None) {
            self.send(reply, response, None);
        }
    }

    /// Whether the request is authenticated, or its source gets another response all the same.
    fn admits(&mut self, reply: &Reply, error: Option<ErrorCode>) -> bool {
        if reply.protection.is_some() {
            return true;
        }
        // The nonce is judged last.
        let proof = if error == Some(ErrorCode::StaleNonce) { Proof::Password } else { Proof::Nothing };
        let is_admitted = self.strangers.admits(reply.received, reply.five_tuple.client.0.ip(), proof);
        if !is_admitted {
            self.drops.count(DropReason::UnauthenticatedRate);
        }
        is_admitted
    }

    /// Sends a response. If the request was authenticated, with SOFTWARE, which is not for strangers, and
    /// protected (RFC 8489 section 9.2.4).
    fn send(&mut self, reply: &Reply, mut response: MessageWriter, error: Option<ErrorCode>) {
        if let Some(Protection { key, sha256 }) = &reply.protection {
            if let Some(software) = &self.config.software {
                response.attribute(AttributeType::SOFTWARE, software.as_bytes());
            }
            if *sha256 {
                response.integrity_sha256(key.as_bytes());
            } else {
                response.integrity(key.as_bytes());
            }
        }
        if reply.fingerprint {
            response.fingerprint();
        }
        self.responses.count(reply.header.method, error);
        self.effects.outputs.push_back(Output::ToClient {
            five_tuple: reply.five_tuple,
            ip: IpHeader::default(),
            datagram: response.finish(),
        });
    }

    fn security_features(&self) -> SecurityFeatures {
        let features = SecurityFeatures::PASSWORD_ALGORITHMS;
        if self.credentials.all_have_a_hash() {
            features.and(SecurityFeatures::USERNAME_ANONYMITY)
        } else {
            features
        }
    }
}

impl Refusal {
    const fn code(&self) -> ErrorCode {
        match self {
            Self::Error(code) | Self::Challenge(code) => *code,
            Self::TryAlternate { .. } => ErrorCode::TryAlternate,
            Self::UnknownAttributes(_) => ErrorCode::UnknownAttribute,
        }
    }
}

//! Responses: what each ends in, and what each refusal brings.

use relay_common::clock::BootNanos;

use crate::turn::{
    address::FiveTuple,
    credentials::LongTermKey,
    ip::IpHeader,
    output::Output,
    server::Server,
    stun::{AttributeType, Class, ErrorCode, Header, Malformed, MessageWriter, UnknownAttributes},
};

/// Where a response goes and how it is protected.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) five_tuple: FiveTuple,
    /// The request's.
    pub(super) header: Header,
    /// The request had FINGERPRINT, so the response has.
    pub(super) fingerprint: bool,
    /// The key that the request was authenticated with, once it is.
    pub(super) key: Option<LongTermKey>,
}

/// Why a request is refused, with what the client needs to do better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The code says it all.
    Error(ErrorCode),
    /// 401 or 438: with realm and a new nonce.
    Challenge(ErrorCode),
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
    pub(super) fn refuse(&mut self, now: BootNanos, reply: &Reply, refusal: &Refusal) {
        let mut response = MessageWriter::new(Header { class: Class::Error, ..reply.header });
        match refusal {
            Refusal::Error(code) => {
                response.error_code(*code);
            }
            Refusal::Challenge(code) => {
                let nonce = self.nonces.issue(now, reply.five_tuple.client);
                response
                    .error_code(*code)
                    .attribute(AttributeType::REALM, self.config.realm.as_bytes())
                    .attribute(AttributeType::NONCE, nonce.as_bytes());
            }
            Refusal::UnknownAttributes(unknown) => {
                response.error_code(ErrorCode::UnknownAttribute).unknown_attributes(unknown);
            }
        }
        self.respond(reply, response);
    }

    /// Sends a response. If the request was authenticated, with SOFTWARE, which is not for strangers, and
    /// MESSAGE-INTEGRITY (RFC 8489 section 9.2.4: by MD5 key, since no password algorithms are offered).
    pub(super) fn respond(&mut self, reply: &Reply, mut response: MessageWriter) {
        if let Some(key) = &reply.key {
            if let Some(software) = &self.config.software {
                response.attribute(AttributeType::SOFTWARE, software.as_bytes());
            }
            response.integrity(key.as_bytes());
        }
        if reply.fingerprint {
            response.fingerprint();
        }
        let five_tuple = reply.five_tuple;
        self.effects.outputs.push_back(Output::ToClient {
            five_tuple,
            ip: IpHeader::default(),
            datagram: response.finish(),
        });
    }
}

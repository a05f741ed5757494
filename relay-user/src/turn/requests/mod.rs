//! Requests: basic checks, then authentication, then unknown attributes, then what the method asks for
//! (RFC 8489 section 6.3). Each method has a file; none changes anything before its last check has passed.

mod allocate;
mod alternate;
mod authenticate;
mod channel_bind;
mod create_permission;
mod refresh;
mod reply;

use std::sync::Arc;

use relay_common::clock::BootNanos;

pub(super) use allocate::PendingAllocate;
use authenticate::User;
use reply::{Refusal, Reply};

use super::{
    address::FiveTuple,
    allocation::Allocation,
    drops::DropReason,
    ip::IpMeta,
    server::Server,
    stun::{
        AttributeType, Class, ErrorCode, Header, Malformed, Message, MessageError, MessageWriter, Method,
    },
};

/// An authenticated request.
struct Request<'a> {
    now: BootNanos,
    message: &'a Message<'a>,
    username: Arc<str>,
    /// Whom quotas count: the user name without the time of a time-limited credential.
    quota_user: Arc<str>,
    reply: Reply,
}

/// A success response without what every response ends in; or none yet.
type Granted = Option<MessageWriter>;

impl Server {
    /// A datagram whose first byte is STUN's.
    pub(super) fn handle_stun(
        &mut self,
        now: BootNanos,
        five_tuple: FiveTuple,
        meta: IpMeta,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let (header, bytes) = Header::parse(datagram).map_err(|_| DropReason::NotStun)?;
        match (header.class, header.method) {
            (
                Class::Request,
                Method::BINDING
                | Method::ALLOCATE
                | Method::REFRESH
                | Method::CREATE_PERMISSION
                | Method::CHANNEL_BIND,
            ) => self.handle_request(now, five_tuple, header, bytes),
            (Class::Indication, Method::SEND) => {
                self.relay_send_indication(now, five_tuple, meta, header, bytes)
            }
            // Keeps a NAT binding alive, and is done with that (RFC 8489 section 6.3.2).
            (Class::Indication, Method::BINDING) => Ok(()),
            _ => Err(DropReason::UnsupportedMethod),
        }
    }

    fn handle_request(
        &mut self,
        now: BootNanos,
        five_tuple: FiveTuple,
        header: Header,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let mut reply = Reply { five_tuple, received: now, header, fingerprint: false, protection: None };
        let granted = match Message::parse(header, bytes) {
            Ok(message) => {
                reply.fingerprint = message.has_fingerprint();
                self.grant(now, &message, &mut reply)
            }
            Err(MessageError::Fingerprint) => return Err(DropReason::Fingerprint),
            Err(MessageError::Malformed(Malformed)) => Err(ErrorCode::BadRequest.into()),
        };
        match granted {
            Ok(Some(response)) => self.respond(&reply, response),
            Ok(None) => {}
            Err(refusal) => self.refuse(&reply, &refusal),
        }
        Ok(())
    }

    fn grant(
        &mut self,
        now: BootNanos,
        message: &Message<'_>,
        reply: &mut Reply,
    ) -> Result<Granted, Refusal> {
        let method = message.header().method;
        if method == Method::BINDING {
            known_attributes_only(message)?;
            return Ok(Some(binding(reply)));
        }
        let User { name, quota_user, protection } = self.authenticate(now, reply.five_tuple, message)?;
        reply.protection = Some(protection);
        known_attributes_only(message)?;
        let request = Request { now, message, username: name, quota_user, reply: reply.clone() };
        match method {
            Method::ALLOCATE => self.allocate(&request),
            Method::REFRESH => self.refresh(&request),
            Method::CREATE_PERMISSION => self.create_permission(&request),
            _ => self.channel_bind(&request),
        }
    }

    /// The allocation that a request other than Allocate is about: that of its 5-tuple, if the same user
    /// made it (RFC 8656 section 5).
    fn allocation_of(&mut self, request: &Request<'_>) -> Result<&mut Allocation, Refusal> {
        let allocation =
            self.allocations.of_client(&request.reply.five_tuple).ok_or(ErrorCode::AllocationMismatch)?;
        if allocation.origin.username == request.username {
            Ok(allocation)
        } else {
            Err(ErrorCode::WrongCredentials.into())
        }
    }
}

fn known_attributes_only(message: &Message<'_>) -> Result<(), Refusal> {
    if message.unknown_attributes().is_empty() {
        Ok(())
    } else {
        Err(Refusal::UnknownAttributes(*message.unknown_attributes()))
    }
}

/// Binding needs no credentials and keeps nothing (RFC 8489 section 12).
fn binding(reply: &Reply) -> MessageWriter {
    let mut response = reply.success();
    response.xor_address(AttributeType::XOR_MAPPED_ADDRESS, reply.five_tuple.client.0);
    response
}

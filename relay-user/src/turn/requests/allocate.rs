//! Allocate (RFC 8656 section 7.2). The checks are numbered as there.

use std::{sync::Arc, time::Duration};

use relay_common::clock::BootNanos;

use super::{Granted, Request, reply::Refusal, reply::Reply};
use crate::turn::{
    address::{Family, RelayedAddr},
    allocation::{Allocation, Origin},
    flow::AllocationId,
    output::Output,
    own_addresses::OwnAddresses,
    ports::Parity,
    server::{OpenError, Server, after},
    stun::{AttributeType, ErrorCode, Message, MessageWriter, UnknownAttributes},
};

/// IANA's protocol number of UDP, the only one that is relayed.
const UDP: u8 = 17;

/// Address families as attributes number them.
const IPV4: u8 = 1;
const IPV6: u8 = 2;

/// Ports that are tried when other programs have them, before a client is refused.
const MAX_OPEN_ATTEMPTS: u32 = 16;

/// An Allocate request that passed every check and waits for its relayed address to be opened.
#[derive(Debug)]
pub(in crate::turn) struct PendingAllocate {
    allocation: AllocationId,
    username: Arc<str>,
    wanted: Wanted,
    reply: Reply,
    attempts: u32,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    parity: Parity,
    lifetime: Option<u32>,
    ipv6_too: bool,
}

impl Server {
    pub(super) fn allocate(&mut self, request: &Request<'_>) -> Result<Granted, Refusal> {
        // 2. The 5-tuple may have one allocation; the request that made it may come again.
        if let Some(allocation) = self.allocations.of_client(&request.reply.five_tuple) {
            let is_retransmission = allocation.origin.transaction_id == request.reply.header.transaction_id
                && allocation.origin.username == request.username;
            return if is_retransmission {
                Ok(Some(success(&request.reply, allocation, &self.own, request.now)))
            } else {
                Err(ErrorCode::AllocationMismatch.into())
            };
        }
        let wanted = Wanted::parse(request.message)?;
        if self.pending.values().any(|pending| pending.reply.five_tuple == request.reply.five_tuple) {
            return Ok(None);
        }
        // 11.
        self.redirect(&request.reply.five_tuple)?;
        self.last_allocation.0 += 1;
        let pending = PendingAllocate {
            allocation: self.last_allocation,
            username: request.username.clone(),
            wanted,
            reply: request.reply.clone(),
            attempts: 0,
        };
        self.open_relayed(request.now, pending);
        Ok(None)
    }

    /// Asks the driver for a free port, or refuses the request when there is none.
    fn open_relayed(&mut self, now: BootNanos, mut pending: PendingAllocate) {
        let free = if pending.attempts < MAX_OPEN_ATTEMPTS {
            self.ports.take(pending.wanted.parity, &mut *self.rng)
        } else {
            None
        };
        let Some(relayed) = free else {
            return self.refuse(now, &pending.reply, &ErrorCode::InsufficientCapacity.into());
        };
        pending.attempts += 1;
        let allocation = pending.allocation;
        self.pending.insert(relayed, pending);
        self.effects.outputs.push_back(Output::OpenRelayed { allocation, relayed });
    }

    /// The driver has opened the relayed address, or could not.
    pub(in crate::turn) fn continue_allocate(
        &mut self,
        now: BootNanos,
        relayed: RelayedAddr,
        pending: PendingAllocate,
        result: Result<(), OpenError>,
    ) {
        match result {
            Ok(()) => self.create_allocation(now, relayed, pending),
            Err(OpenError::Unavailable) => {
                // Released after the next one is chosen, so that it is another.
                self.open_relayed(now, pending);
                self.ports.release(relayed);
            }
            Err(OpenError::Other) => {
                self.ports.release(relayed);
                self.refuse(now, &pending.reply, &ErrorCode::InsufficientCapacity.into());
            }
        }
    }

    fn create_allocation(&mut self, now: BootNanos, relayed: RelayedAddr, pending: PendingAllocate) {
        let PendingAllocate { allocation: id, username, wanted, reply, .. } = pending;
        let origin = Origin {
            id,
            five_tuple: reply.five_tuple,
            username,
            transaction_id: reply.header.transaction_id,
            missing: wanted.ipv6_too.then_some((Family::V6, ErrorCode::AddressFamilyNotSupported)),
        };
        let expires = after(now, self.lifetime(wanted.lifetime));
        let allocation = Allocation::new(origin, &[relayed], now, expires, &mut self.effects);
        let response = success(&reply, &allocation, &self.own, now);
        self.allocations.insert(allocation);
        self.respond(&reply, response);
    }

    /// The lifetime a client gets: what it asks for, within the server's default and maximum (RFC 8656
    /// sections 7.2 and 8.2).
    pub(super) fn lifetime(&self, requested: Option<u32>) -> Duration {
        let lifetimes = self.config.lifetimes;
        let requested = requested.map_or(Duration::ZERO, |seconds| Duration::from_secs(seconds.into()));
        requested.min(lifetimes.max).max(lifetimes.default)
    }
}

impl Wanted {
    /// Checks 3 to 9.
    fn parse(message: &Message<'_>) -> Result<Self, Refusal> {
        let has = |kind| message.attribute(kind).is_some();
        let requested_transport = message.fixed::<4>(AttributeType::REQUESTED_TRANSPORT)?;
        let even_port = message.fixed::<1>(AttributeType::EVEN_PORT)?;
        let reservation_token = message.fixed::<8>(AttributeType::RESERVATION_TOKEN)?;
        let requested_family = message.fixed::<4>(AttributeType::REQUESTED_ADDRESS_FAMILY)?;
        let additional_family = message.fixed::<4>(AttributeType::ADDITIONAL_ADDRESS_FAMILY)?;
        let lifetime = message.fixed(AttributeType::LIFETIME)?.map(u32::from_be_bytes);

        // 3.
        let [protocol, ..] = requested_transport.ok_or(ErrorCode::BadRequest)?;
        if protocol != UDP {
            return Err(ErrorCode::UnsupportedTransport.into());
        }
        // 4. DF cannot be set here yet.
        if has(AttributeType::DONT_FRAGMENT) {
            return Err(Refusal::UnknownAttributes(UnknownAttributes::one(AttributeType::DONT_FRAGMENT)));
        }
        // 5. No ports are reserved here yet, so no token is good.
        if reservation_token.is_some() {
            let excluded = even_port.is_some() || requested_family.is_some() || additional_family.is_some();
            let code = if excluded { ErrorCode::BadRequest } else { ErrorCode::InsufficientCapacity };
            return Err(code.into());
        }
        // 6.
        if requested_family.is_some() && additional_family.is_some() {
            return Err(ErrorCode::BadRequest.into());
        }
        // 7.
        if requested_family.is_some_and(|[family, ..]| family != IPV4) {
            return Err(ErrorCode::AddressFamilyNotSupported.into());
        }
        // 8. The top bit asks for the next port to be reserved.
        let parity = match even_port {
            None => Parity::Any,
            Some([bits]) if bits & 0x80 == 0 => Parity::Even,
            Some(_) if additional_family.is_some() => return Err(ErrorCode::BadRequest.into()),
            Some(_) => return Err(ErrorCode::InsufficientCapacity.into()),
        };
        // 9. IPv6 is not to be had, which the response says.
        if additional_family.is_some_and(|[family, ..]| family != IPV6) {
            return Err(ErrorCode::BadRequest.into());
        }
        Ok(Self { parity, lifetime, ipv6_too: additional_family.is_some() })
    }
}

fn success(reply: &Reply, allocation: &Allocation, own: &OwnAddresses, now: BootNanos) -> MessageWriter {
    let mut response = reply.success();
    let mut expires = BootNanos::MAX;
    for (relayed, until) in allocation.relayed_addresses() {
        response.xor_address(AttributeType::XOR_RELAYED_ADDRESS, own.advertised(relayed));
        expires = expires.min(until);
    }
    let remaining = expires.saturating_sub(now) / 1_000_000_000;
    response
        .number(AttributeType::LIFETIME, remaining as u32)
        .xor_address(AttributeType::XOR_MAPPED_ADDRESS, allocation.origin.five_tuple.client.0);
    if let Some((family, code)) = allocation.origin.missing {
        response.address_error_code(family as u8, code);
    }
    response
}

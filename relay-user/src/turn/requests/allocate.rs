//! Allocate (RFC 8656 section 7.2). The checks are numbered as there.

use std::{net::SocketAddr, time::Duration};

use relay_common::clock::BootNanos;

use super::{Granted, Request, reply::Refusal, reply::Reply};
use crate::turn::{
    address::{Family, RelayedAddr},
    allocation::{Allocation, Origin},
    ipv4_in_ipv6::is_tunneled,
    output::Output,
    own_addresses::OwnAddresses,
    ports::Parity,
    reservation::Token,
    server::{OpenError, Server, after},
    stun::{AttributeType, ErrorCode, Message, MessageWriter},
};

/// IANA's protocol number of UDP, the only one that is relayed.
const UDP: u8 = 17;

/// Ports that are tried when other programs have them, before a client is refused.
const MAX_OPEN_ATTEMPTS: u32 = 16;

/// An Allocate request that passed every check and waits for its relayed addresses to be opened.
#[derive(Debug)]
pub(in crate::turn) struct PendingAllocate {
    origin: Origin,
    reply: Reply,
    lifetime: Option<u32>,
    source: Source,
    /// Those not yet had; the address of the first is being opened.
    families: &'static [Family],
    opened: Vec<RelayedAddr>,
    /// Addresses of the first of `families` that were tried.
    attempts: u32,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    families: &'static [Family],
    /// The client would have this family too, which is not relayed here.
    unsupported: Option<Family>,
    port: Port,
    lifetime: Option<u32>,
}

/// Which ports will do.
#[derive(Clone, Copy, Debug)]
enum Port {
    Free(Parity),
    Reserved(Token),
}

/// Where relayed addresses come from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Free(Parity),
    /// There is but this one, until it is tried.
    Reserved(Option<RelayedAddr>),
}

impl Server {
    pub(super) fn allocate(&mut self, request: &Request<'_>) -> Result<Granted, Refusal> {
        let five_tuple = request.reply.five_tuple;
        if is_tunneled(five_tuple.client.0.ip()) {
            return Err(ErrorCode::Forbidden.into());
        }
        // 2. The 5-tuple may have one allocation; the request that made it may come again.
        if let Some(allocation) = self.allocations.of_client(&five_tuple) {
            let is_retransmission = allocation.origin.transaction_id == request.reply.header.transaction_id
                && allocation.origin.username == request.username;
            return if is_retransmission {
                Ok(Some(success(&request.reply, allocation, &self.own, request.now)))
            } else {
                Err(ErrorCode::AllocationMismatch.into())
            };
        }
        let wanted = self.wanted(request.message)?;
        if self.pending.values().any(|pending| pending.reply.five_tuple == five_tuple) {
            return Ok(None);
        }
        // 11. Before anything is counted.
        self.redirect(&request.reply.five_tuple)?;
        // 10.
        let quota_user = request.quota_user.clone();
        let source = match wanted.port {
            Port::Free(parity) => {
                let source = Source::Free(parity);
                self.quotas.take(&quota_user, source.quota())?;
                source
            }
            Port::Reserved(token) => {
                let holder = self.reservations.get(token).map(|reservation| &reservation.quota_user);
                self.quotas.transfer(holder.ok_or(ErrorCode::InsufficientCapacity)?, &quota_user)?;
                let reservation = self.reservations.take(token, &mut self.effects.timers);
                Source::Reserved(reservation.map(|reservation| reservation.relayed))
            }
        };
        self.last_allocation.0 += 1;
        let origin = Origin {
            id: self.last_allocation,
            five_tuple,
            username: request.username.clone(),
            quota_user,
            transaction_id: request.reply.header.transaction_id,
            missing: wanted.unsupported.map(|family| (family, ErrorCode::AddressFamilyNotSupported)),
            token: None,
        };
        let pending = PendingAllocate {
            origin,
            reply: request.reply.clone(),
            lifetime: wanted.lifetime,
            source,
            families: wanted.families,
            opened: Vec::new(),
            attempts: 0,
        };
        self.open_next(request.now, pending);
        Ok(None)
    }

    /// Checks 3 to 9, as far as they need no port.
    fn wanted(&self, message: &Message<'_>) -> Result<Wanted, Refusal> {
        let requested_transport = message.fixed::<4>(AttributeType::REQUESTED_TRANSPORT)?;
        let even_port = message.fixed::<1>(AttributeType::EVEN_PORT)?;
        let token = message.fixed::<8>(AttributeType::RESERVATION_TOKEN)?.map(Token);
        let requested_family = message.fixed::<4>(AttributeType::REQUESTED_ADDRESS_FAMILY)?;
        let additional_family = message.fixed::<4>(AttributeType::ADDITIONAL_ADDRESS_FAMILY)?;
        let coturns = message.fixed::<4>(AttributeType::COTURN_ADDITIONAL_ADDRESS_FAMILY)?;
        let additional_family = additional_family.or(coturns);
        let lifetime = message.fixed(AttributeType::LIFETIME)?.map(u32::from_be_bytes);

        // 3.
        let [protocol, ..] = requested_transport.ok_or(ErrorCode::BadRequest)?;
        if protocol != UDP {
            return Err(ErrorCode::UnsupportedTransport.into());
        }
        // 4. DF can be set.
        message.fixed::<0>(AttributeType::DONT_FRAGMENT)?;
        // 5.
        if let Some(token) = token {
            if even_port.is_some() || requested_family.is_some() || additional_family.is_some() {
                return Err(ErrorCode::BadRequest.into());
            }
            let reservation = self.reservations.get(token).ok_or(ErrorCode::InsufficientCapacity)?;
            let families = single(reservation.relayed.family());
            return Ok(Wanted { families, unsupported: None, port: Port::Reserved(token), lifetime });
        }
        // 6.
        if requested_family.is_some() && additional_family.is_some() {
            return Err(ErrorCode::BadRequest.into());
        }
        // 7.
        let family = requested_family.map_or(Some(Family::V4), |[family, ..]| Family::from_number(family));
        let family = family.filter(|&family| self.ports.serves(family));
        let family = family.ok_or(ErrorCode::AddressFamilyNotSupported)?;
        // 8. The top bit is R.
        let parity = match even_port {
            None => Parity::Any,
            Some([bits]) if bits & 0x80 == 0 => Parity::Even,
            Some(_) if additional_family.is_some() => return Err(ErrorCode::BadRequest.into()),
            Some(_) => Parity::EvenWithNext,
        };
        // 9.
        let (families, unsupported) = match additional_family {
            None => (single(family), None),
            Some([number, ..]) if Family::from_number(number) != Some(Family::V6) => {
                return Err(ErrorCode::BadRequest.into());
            }
            Some(_) if self.ports.serves(Family::V6) => (&Family::ALL[..], None),
            Some(_) => (single(family), Some(Family::V6)),
        };
        Ok(Wanted { families, unsupported, port: Port::Free(parity), lifetime })
    }

    /// Asks the driver for an address of the next family, and for those after it if there is none to be had.
    fn open_next(&mut self, now: BootNanos, mut pending: PendingAllocate) {
        while let Some(&family) = pending.families.first() {
            if let Some(relayed) = self.choose_relayed(family, &mut pending) {
                let allocation = pending.origin.id;
                self.pending.insert(relayed, pending);
                self.effects.outputs.push_back(Output::OpenRelayed { allocation, relayed });
                return;
            }
            pending.give_up(family);
        }
        self.conclude_allocate(now, pending);
    }

    fn choose_relayed(&mut self, family: Family, pending: &mut PendingAllocate) -> Option<RelayedAddr> {
        if pending.attempts == MAX_OPEN_ATTEMPTS {
            return None;
        }
        pending.attempts += 1;
        match &mut pending.source {
            Source::Free(parity) => self.ports.take(family, *parity, &mut *self.rng),
            Source::Reserved(relayed) => relayed.take(),
        }
    }

    /// The driver has opened the relayed address, or could not.
    pub(in crate::turn) fn continue_allocate(
        &mut self,
        now: BootNanos,
        relayed: RelayedAddr,
        mut pending: PendingAllocate,
        result: Result<(), OpenError>,
    ) {
        let source = pending.source;
        match result {
            Ok(()) => {
                pending.opened.push(relayed);
                pending.next_family();
            }
            Err(OpenError::Unavailable) => {}
            Err(OpenError::Other) => pending.give_up(relayed.family()),
        }
        self.open_next(now, pending);
        if result.is_err() {
            // After the next one was chosen, so that it is another.
            self.ports.release(relayed);
            if let Some(next) = source.taken_with(relayed) {
                self.ports.release(next);
            }
        }
    }

    /// Answers, when there is no more address to wait for.
    fn conclude_allocate(&mut self, now: BootNanos, pending: PendingAllocate) {
        let PendingAllocate { mut origin, reply, lifetime, source, opened, .. } = pending;
        let Some(&first) = opened.first() else {
            self.quotas.release(&origin.quota_user, source.quota());
            return self.refuse(&reply, &ErrorCode::InsufficientCapacity.into());
        };
        if let Some(next) = source.taken_with(first) {
            let (user, timers) = (origin.quota_user.clone(), &mut self.effects.timers);
            origin.token = Some(self.reservations.hold(now, next, user, &mut *self.rng, timers));
        }
        let expires = after(now, self.lifetime(lifetime));
        let limits = (self.config.limits.permissions as usize, self.meters.take());
        let allocation =
            Allocation::new(origin, &opened, limits, (now, expires), &self.own, &mut self.effects);
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

impl PendingAllocate {
    /// No address of the family, which is the first of those not yet had, is to be had.
    fn give_up(&mut self, family: Family) {
        self.origin.missing = Some((family, ErrorCode::InsufficientCapacity));
        self.next_family();
    }

    fn next_family(&mut self) {
        self.families = &self.families[1..];
        self.attempts = 0;
    }
}

impl Source {
    /// What it counts for in the quota: an allocation, and the port reserved with it.
    fn quota(self) -> u32 {
        match self {
            Self::Free(Parity::EvenWithNext) => 2,
            Self::Free(Parity::Any | Parity::Even) | Self::Reserved(_) => 1,
        }
    }

    /// The address that was taken along with this one.
    fn taken_with(self, RelayedAddr(relayed): RelayedAddr) -> Option<RelayedAddr> {
        match self {
            Self::Free(Parity::EvenWithNext) => {
                Some(RelayedAddr(SocketAddr::new(relayed.ip(), relayed.port() + 1)))
            }
            Self::Free(Parity::Any | Parity::Even) | Self::Reserved(_) => None,
        }
    }
}

/// The list of just this family.
fn single(family: Family) -> &'static [Family] {
    match family {
        Family::V4 => &[Family::V4],
        Family::V6 => &[Family::V6],
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
    if let Some(Token(token)) = allocation.origin.token {
        response.attribute(AttributeType::RESERVATION_TOKEN, &token);
    }
    if let Some((family, code)) = allocation.origin.missing {
        response.address_error_code(family as u8, code);
    }
    response
}

//! ChannelBind (RFC 8656 section 12.2).

use super::{Granted, Request, reply::Refusal};
use crate::turn::{
    address::{ChannelNumber, Family},
    ipv4_in_ipv6::is_tunneled,
    own_addresses::Destination,
    server::{Server, after},
    stun::{AttributeType, ErrorCode},
};

impl Server {
    pub(super) fn channel_bind(&mut self, request: &Request<'_>) -> Result<Granted, Refusal> {
        if is_tunneled(request.reply.five_tuple.client.0.ip()) {
            return Err(ErrorCode::Forbidden.into());
        }
        let id = self.allocation_of(request)?.origin.id;
        let number = request.message.fixed::<4>(AttributeType::CHANNEL_NUMBER)?;
        let peer = request.message.xor_address(AttributeType::XOR_PEER_ADDRESS)?;
        let ([high, low, ..], peer) = number.zip(peer).ok_or(ErrorCode::BadRequest)?;
        let number = u16::from_be_bytes([high, low]);
        let number = if self.config.rfc5766_channels {
            ChannelNumber::rfc5766(number)
        } else {
            ChannelNumber::new(number)
        };
        let number = number.ok_or(ErrorCode::BadRequest)?;
        if peer.port() == 0 {
            return Err(ErrorCode::BadRequest.into());
        }
        let destination = self.own.resolve(peer);
        let allocation = self.allocations.get_mut(id).ok_or(ErrorCode::AllocationMismatch)?;
        if let Some((peer, _)) = destination.peer() {
            allocation.channels().check(number, peer).map_err(|_| ErrorCode::BadRequest)?;
        }
        if allocation.relayed(Family::of(peer.ip())).is_none() {
            return Err(ErrorCode::PeerAddressFamilyMismatch.into());
        }
        let (peer, hairpin) = match destination {
            Destination::Peer(peer) if self.config.policy.permits(peer.0.ip()) => (peer, false),
            Destination::Relayed(relayed) => (relayed.into(), true),
            Destination::Peer(_) | Destination::Own => return Err(ErrorCode::Forbidden.into()),
        };
        let limits = self.config.limits;
        let needs_permission = !allocation.permits(peer.0.ip());
        let needs_channel = allocation.channels().get(number).is_none();
        if needs_permission && allocation.permission_count() >= limits.permissions as usize
            || needs_channel && allocation.channels().len() >= limits.channels as usize
        {
            return Err(ErrorCode::InsufficientCapacity.into());
        }

        let channel_until = after(request.now, self.config.lifetimes.channel);
        let permission_until = after(request.now, self.config.lifetimes.permission);
        // Clients in the field refresh channels alone and expect the permission to last as long
        // (conformance.md, "Where the texts disagree").
        let permission_until = if self.config.strict_permissions {
            permission_until
        } else {
            permission_until.max(channel_until)
        };
        let until = (channel_until, permission_until);
        allocation.bind(number, (peer, hairpin), until, &self.own, &mut self.effects);
        Ok(Some(request.reply.success()))
    }
}

//! CreatePermission (RFC 8656 section 10.2).

use super::{Granted, Request, reply::Refusal};
use crate::turn::{
    address::Family,
    server::{Server, after},
    stun::{AttributeType, ErrorCode},
};

impl Server {
    pub(super) fn create_permission(&mut self, request: &Request<'_>) -> Result<Granted, Refusal> {
        let allocation = self.allocation_of(request)?;
        let id = allocation.origin.id;
        let peers: Vec<_> =
            request.message.xor_addresses(AttributeType::XOR_PEER_ADDRESS).collect::<Result<_, _>>()?;
        if peers.is_empty() {
            return Err(ErrorCode::BadRequest.into());
        }
        if !peers.iter().all(|peer| allocation.relayed(Family::of(peer.ip())).is_some()) {
            return Err(ErrorCode::PeerAddressFamilyMismatch.into());
        }
        let mut ips: Vec<_> = peers.iter().map(|peer| self.own.local_form(peer.ip())).collect();
        ips.sort_unstable();
        ips.dedup();
        if !ips.iter().all(|&ip| self.own.permits_peer(ip, &self.config.policy)) {
            return Err(ErrorCode::Forbidden.into());
        }
        let until = after(request.now, self.config.lifetimes.permission);
        let allocation = self.allocations.get_mut(id).ok_or(ErrorCode::AllocationMismatch)?;
        let new = ips.iter().filter(|&&ip| !allocation.permits(ip)).count();
        if new > 0 && allocation.permission_count() + new > self.config.limits.permissions as usize {
            return Err(ErrorCode::InsufficientCapacity.into());
        }
        for ip in ips {
            allocation.permit(ip, until, &self.own, &mut self.effects);
        }
        Ok(Some(request.reply.success()))
    }
}

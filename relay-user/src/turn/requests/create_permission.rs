//! CreatePermission (RFC 8656 section 10.2): all addresses of a request, or none.

use std::net::IpAddr;

use super::{Granted, Request, reply::Refusal};
use crate::turn::{
    server::{Server, after},
    stun::{AttributeType, ErrorCode},
};

impl Server {
    pub(super) fn create_permission(&mut self, request: &Request<'_>) -> Result<Granted, Refusal> {
        let id = self.allocation_of(request)?.origin.id;
        let peers: Vec<_> =
            request.message.xor_addresses(AttributeType::XOR_PEER_ADDRESS).collect::<Result<_, _>>()?;
        if peers.is_empty() {
            return Err(ErrorCode::BadRequest.into());
        }
        if !peers.iter().all(|peer| peer.is_ipv4()) {
            return Err(ErrorCode::PeerAddressFamilyMismatch.into());
        }
        let mut ips: Vec<_> = peers.iter().map(|peer| self.own.local_form(peer.ip())).collect();
        ips.sort_unstable();
        ips.dedup();
        if !ips.iter().all(|&ip| self.permits_peer(ip)) {
            return Err(ErrorCode::Forbidden.into());
        }
        let until = after(request.now, self.config.lifetimes.permission);
        let allocation = self.allocations.get_mut(id).ok_or(ErrorCode::AllocationMismatch)?;
        let new = ips.iter().filter(|&&ip| !allocation.permits(ip)).count();
        if allocation.permission_count() + new > self.config.limits.permissions as usize {
            return Err(ErrorCode::InsufficientCapacity.into());
        }
        for ip in ips {
            allocation.permit(ip, until, &mut self.effects);
        }
        Ok(Some(request.reply.success()))
    }

    /// Whether a client may have this address (in its local form) for a peer. Relay addresses always may be
    /// one: that is the hairpin.
    pub(super) fn permits_peer(&self, ip: IpAddr) -> bool {
        self.own.is_relay(ip) || (!self.own.is_host(ip) && self.config.policy.permits(ip))
    }
}

//! Refresh (RFC 8656 section 8.2).

use super::{Granted, Request, reply::Refusal};
use crate::turn::{
    address::Family,
    output::EndReason,
    server::{Server, after},
    stun::{AttributeType, ErrorCode},
};

impl Server {
    pub(super) fn refresh(&mut self, request: &Request<'_>) -> Result<Granted, Refusal> {
        let id = self.allocation_of(request)?.origin.id;
        let family = request.message.fixed::<4>(AttributeType::REQUESTED_ADDRESS_FAMILY)?;
        let requested = request.message.fixed(AttributeType::LIFETIME)?.map(u32::from_be_bytes);
        // IPv4 is the family of every allocation.
        if family.is_some_and(|[family, ..]| family != 1) {
            return Err(ErrorCode::PeerAddressFamilyMismatch.into());
        }
        let granted = if requested == Some(0) {
            self.end_allocation(request.now, id, EndReason::Deleted);
            0
        } else {
            let lifetime = self.lifetime(requested);
            if let Some(allocation) = self.allocations.get_mut(id) {
                for family in Family::ALL {
                    allocation.refresh(family, after(request.now, lifetime), &mut self.effects);
                }
            }
            lifetime.as_secs() as u32
        };
        let mut response = request.reply.success();
        response.number(AttributeType::LIFETIME, granted);
        Ok(Some(response))
    }
}

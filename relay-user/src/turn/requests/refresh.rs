//! Refresh (RFC 8656 section 8.2).

use super::{Granted, Request, reply::Refusal};
use crate::turn::{
    output::EndReason,
    server::{Server, after},
    stun::{AttributeType, ErrorCode},
};

impl Server {
    pub(super) fn refresh(&mut self, request: &Request<'_>) -> Result<Granted, Refusal> {
        let allocation = self.allocation_of(request)?;
        let id = allocation.origin.id;
        let requested_family = request.message.fixed::<4>(AttributeType::REQUESTED_ADDRESS_FAMILY)?;
        let requested = request.message.fixed(AttributeType::LIFETIME)?.map(u32::from_be_bytes);

        // Without a family it is about all there are (section 8.1).
        let families = allocation.relayed_addresses().map(|(relayed, _)| relayed.family());
        let families: Vec<_> = families
            .filter(|&family| requested_family.is_none_or(|[number, ..]| number == family as u8))
            .collect();
        // A deleting Refresh that is sent again gets the same answer, though its family is gone by now. (Or 437,
        // when nothing is left of the allocation: section 8.2, NOTE.)
        let transaction_id = request.reply.header.transaction_id;
        let is_retransmission = requested == Some(0) && allocation.was_deleted_by(transaction_id);
        if families.is_empty() && !is_retransmission {
            return Err(ErrorCode::PeerAddressFamilyMismatch.into());
        }

        let granted = if requested == Some(0) {
            allocation.note_deletion(transaction_id);
            for family in families {
                self.end_relayed(request.now, id, family, EndReason::Deleted);
            }
            0
        } else {
            let lifetime = self.lifetime(requested);
            if let Some(allocation) = self.allocations.get_mut(id) {
                for family in families {
                    allocation.refresh(family, after(request.now, lifetime), &self.own, &mut self.effects);
                }
            }
            lifetime.as_secs() as u32
        };
        let mut response = request.reply.success();
        response.number(AttributeType::LIFETIME, granted);
        Ok(Some(response))
    }
}

//! Who has how many allocations. Those being made and ports held in reserve count too, so the limits are exact.

use std::{collections::HashMap, sync::Arc};

use super::{config::Limits, stun::ErrorCode};

/// Allocations of each user and of all, and the limits of both. Users of time-limited credentials go by what follows
/// the time in their user names, for these are new with each credential.
#[derive(Debug)]
pub(super) struct Quotas {
    total: u32,
    by_user: HashMap<Arc<str>, u32>,
    max_total: u32,
    max_per_user: u32,
}

impl Quotas {
    /// Nobody has anything.
    pub(super) fn new(limits: &Limits) -> Self {
        let or_none = |limit| if limit == 0 { u32::MAX } else { limit };
        Self {
            total: 0,
            by_user: HashMap::new(),
            max_total: or_none(limits.allocations),
            max_per_user: or_none(limits.allocations_per_user),
        }
    }

    /// Counts `n` more for the user, or tells why not: 486 or 508.
    pub(super) fn take(&mut self, user: &Arc<str>, n: u32) -> Result<(), ErrorCode> {
        let of_user = self.of(user).saturating_add(n);
        let total = self.total.saturating_add(n);
        if of_user > self.max_per_user {
            return Err(ErrorCode::AllocationQuotaReached);
        }
        if total > self.max_total {
            return Err(ErrorCode::InsufficientCapacity);
        }
        self.total = total;
        self.by_user.insert(Arc::clone(user), of_user);
        Ok(())
    }

    /// Counts one of `from`'s for `to` from now on, or 486.
    pub(super) fn transfer(&mut self, from: &Arc<str>, to: &Arc<str>) -> Result<(), ErrorCode> {
        if from == to {
            return Ok(());
        }
        if self.of(to) >= self.max_per_user {
            return Err(ErrorCode::AllocationQuotaReached);
        }
        self.release(from, 1);
        self.take(to, 1)
    }

    /// Takes back `n` of what was counted for the user.
    pub(super) fn release(&mut self, user: &Arc<str>, n: u32) {
        let Some(of_user) = self.by_user.get_mut(user) else { return };
        debug_assert!(*of_user >= n, "{user} has but {of_user}");
        *of_user -= n;
        self.total -= n;
        if *of_user == 0 {
            self.by_user.remove(user);
        }
    }

    fn of(&self, user: &Arc<str>) -> u32 {
        self.by_user.get(user).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(allocations: u32, allocations_per_user: u32) -> Quotas {
        Quotas::new(&Limits { allocations, allocations_per_user, ..Limits::default() })
    }

    #[test]
    fn turn_023_057_limits_are_exact_and_what_is_released_can_be_had_again() {
        let (alice, bob): (Arc<str>, Arc<str>) = ("alice".into(), "bob".into());
        let mut quotas = quotas(5, 3);
        assert_eq!(quotas.take(&alice, 2), Ok(()));
        assert_eq!(quotas.take(&alice, 2), Err(ErrorCode::AllocationQuotaReached), "all or nothing");
        assert_eq!(quotas.take(&alice, 1), Ok(()));
        assert_eq!(quotas.take(&alice, 1), Err(ErrorCode::AllocationQuotaReached));
        assert_eq!(quotas.take(&bob, 2), Ok(()));
        assert_eq!(quotas.take(&bob, 1), Err(ErrorCode::InsufficientCapacity));
        quotas.release(&alice, 1);
        assert_eq!(quotas.take(&bob, 1), Ok(()));
        assert_eq!(quotas.take(&bob, 1), Err(ErrorCode::AllocationQuotaReached), "486 before 508");
    }

    #[test]
    fn turn_058_a_transfer_is_held_against_who_gets_it() {
        let (alice, bob): (Arc<str>, Arc<str>) = ("alice".into(), "bob".into());
        let mut quotas = quotas(2, 1);
        quotas.take(&alice, 1).unwrap();
        assert_eq!(quotas.transfer(&alice, &alice), Ok(()), "even with a full quota");
        assert_eq!(quotas.transfer(&alice, &bob), Ok(()));
        quotas.take(&alice, 1).unwrap();
        assert_eq!(quotas.transfer(&alice, &bob), Err(ErrorCode::AllocationQuotaReached));
        quotas.release(&alice, 1);
        quotas.release(&bob, 1);
        assert!(quotas.by_user.is_empty() && quotas.total == 0, "users without anything take no memory");
    }
}

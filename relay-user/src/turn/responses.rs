//! How many responses of each kind were sent: what clients ask for, and what they are refused.

use super::stun::{ErrorCode, Method};

/// The methods that are answered, with the names they have for people.
const METHODS: [(Method, &str); 5] = [
    (Method::BINDING, "binding"),
    (Method::ALLOCATE, "allocate"),
    (Method::REFRESH, "refresh"),
    (Method::CREATE_PERMISSION, "create_permission"),
    (Method::CHANNEL_BIND, "channel_bind"),
];

/// Counts by method: of successes, then of each error code.
#[derive(Debug)]
pub(super) struct Responses([[u64; 1 + ErrorCode::ALL.len()]; METHODS.len()]);

impl Responses {
    pub(super) const fn new() -> Self {
        Self([[0; 1 + ErrorCode::ALL.len()]; METHODS.len()])
    }

    /// Counts a response to this method: a success, or an error.
    pub(super) fn count(&mut self, method: Method, error: Option<ErrorCode>) {
        if let Some(row) = METHODS.iter().position(|&(answered, _)| answered == method) {
            self.0[row][error.map_or(0, |code| 1 + code as usize)] += 1;
        }
    }

    /// What was sent at least once: method, error code if it was an error, count.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, Option<ErrorCode>, u64)> + '_ {
        let codes = || std::iter::once(None).chain(ErrorCode::ALL.iter().copied().map(Some));
        METHODS
            .iter()
            .zip(&self.0)
            .flat_map(move |(&(_, name), row)| {
                codes().zip(row).map(move |(code, &count)| (name, code, count))
            })
            .filter(|&(_, _, count)| count > 0)
    }
}

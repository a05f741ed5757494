//! Other servers for this one's clients (RFC 8489 section 10).

use super::reply::Refusal;
use crate::turn::{
    address::{Family, FiveTuple},
    server::Server,
};

impl Server {
    /// Sends the client to another server, where one is configured that it can reach: the first one named must
    /// be of the client's own address family. For authenticated requests only (RFC 8489 section 14.8).
    pub(super) fn redirect(&self, five_tuple: &FiveTuple) -> Result<(), Refusal> {
        let family = Family::of(five_tuple.client.0.ip());
        let servers = &self.config.alternate_servers;
        let find = |same| servers.iter().copied().find(|s| (Family::of(s.ip()) == family) == same);
        match find(true) {
            Some(server) => Err(Refusal::TryAlternate { server, other_family: find(false) }),
            None => Ok(()),
        }
    }
}

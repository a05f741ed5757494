//! Lifetimes, limits, and what is told to clients.

use std::net::SocketAddr;

use super::{
    super::{
        AlternateServer, Given, LifetimeSeconds, LimitSettings, Listen, MIN_IPV6_MTU, NONCE_LIFETIME_MAX,
    },
    Resolver,
};
use crate::turn::{Family, Limits};

impl Resolver<'_> {
    pub(super) fn lifetimes(&mut self, lifetimes: Option<Given<LifetimeSeconds>>) -> LifetimeSeconds {
        let Some(Given { value, origin }) = lifetimes else { return LifetimeSeconds::default() };
        if value.default > value.max {
            let text = format!("default = {}, max = {}", value.default, value.max);
            let problem = "default is above max: raise max or lower default";
            self.refuse(origin.clone(), "lifetimes", Some(text), problem);
        }
        if value.nonce.get() > NONCE_LIFETIME_MAX {
            let problem = format!("a nonce is valid for an hour at most: write {NONCE_LIFETIME_MAX} or less");
            self.refuse(origin, "lifetimes", Some(format!("nonce = {}", value.nonce)), problem);
        }
        value
    }

    pub(super) fn limits(&mut self, limits: Option<Given<LimitSettings>>) -> Limits {
        let standard = Limits::default();
        let Some(Given { value: given, origin }) = limits else { return standard };
        let bytes_per_second = given.bytes_per_second.unwrap_or(standard.bytes_per_second);
        if let Some(burst) = given.burst.filter(|_| bytes_per_second == 0) {
            let problem = "there is no rate that it could exceed: set bytes_per_second too";
            self.refuse(origin.clone(), "limits", Some(format!("burst = {burst}")), problem);
        }
        for (key, value) in [("max_permissions", given.max_permissions), ("max_channels", given.max_channels)]
        {
            if value == Some(0) {
                let problem = "nobody could relay anything: write 1 or more";
                self.refuse(origin.clone(), "limits", Some(format!("{key} = 0")), problem);
            }
        }
        Limits {
            allocations: given.max_allocations.unwrap_or(standard.allocations),
            allocations_per_user: given.max_allocations_per_user.unwrap_or(standard.allocations_per_user),
            permissions: given.max_permissions.unwrap_or(standard.permissions),
            channels: given.max_channels.unwrap_or(standard.channels),
            bytes_per_second,
            burst: given.burst.unwrap_or(standard.burst),
            unauthenticated_per_second: given
                .unauthenticated_per_second
                .unwrap_or(standard.unauthenticated_per_second),
            icmp_per_second: given.icmp_per_second.unwrap_or(standard.icmp_per_second),
        }
    }

    pub(super) fn min_ipv6_mtu(&mut self, mtu: Option<Given<u16>>) -> u16 {
        let Some(Given { value, origin }) = mtu else { return MIN_IPV6_MTU };
        if value < MIN_IPV6_MTU {
            let problem = format!("every IPv6 link has {MIN_IPV6_MTU}: write that or more");
            self.refuse(origin, "min_ipv6_mtu", Some(value.to_string()), problem);
        }
        value
    }

    pub(super) fn alternate_servers(
        &mut self,
        servers: &[Given<AlternateServer>],
        listeners: &[Given<SocketAddr>],
    ) -> Vec<SocketAddr> {
        let mut taken = Vec::<SocketAddr>::new();
        for Given { value: AlternateServer(server), origin } in servers {
            let family = Family::of(server.ip());
            let problem = if taken.iter().any(|other| Family::of(other.ip()) == family) {
                "there is another of its family: keep one for IPv4 and one for IPv6".to_owned()
            } else if listeners.iter().any(|listener| listener.value == *server) {
                format!("clients would be sent back here: {} is a listener of this server", Listen(*server))
            } else {
                taken.push(*server);
                continue;
            };
            self.refuse(origin.clone(), "alternate_server", Some(server.to_string()), problem);
        }
        if !taken.is_empty() {
            let servers = taken.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            self.warn(format!(
                "alternate_server: clients are not served here but sent to {servers}; remove the key to serve them"
            ));
        }
        taken
    }
}

//! What the resolver knows: a mirror of links and neighbours, and the tracked next hops. No netlink here.
//!
//! Events go in, values are published, and [`Resolver::next_work`] says what to ask of the kernel next.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::IpAddr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{NextHop, Publish};
use crate::datapath::encode::Way;

/// A network interface, as far as next hops depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    /// `None`: not Ethernet.
    pub(super) mac: Option<[u8; 6]>,
    pub(super) mtu: u32,
    /// Administratively up and with a carrier.
    pub(super) up: bool,
}

/// Names a neighbour: interface index and address.
pub(super) type NeighbourKey = (u32, IpAddr);

/// An entry of the kernel's neighbour table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// Its MAC address while the entry is valid.
    pub(super) mac: Option<[u8; 6]>,
    pub(super) upkeep: Upkeep,
    /// Nothing is under way that would resolve or confirm it.
    pub(super) idle: bool,
}

/// Who keeps a neighbour entry resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Upkeep {
    /// Nobody: it goes stale without traffic of the stack's own.
    #[default]
    None,
    /// The kernel, because we asked (`NTF_EXT_MANAGED`).
    Ours,
    /// It needs none (permanent, no ARP), or the kernel does it because somebody else asked.
    Others,
}

/// How the kernel would send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) ifindex: u32,
    pub(super) gateway: Option<IpAddr>,
    /// The route's MTU, configured or learned.
    pub(super) mtu: Option<u32>,
}

/// What to ask of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Look a route up and tell [`Resolver::route_found`].
    Route { index: u32, source: IpAddr, destination: IpAddr },
    /// Have this neighbour resolved and kept so.
    Keep(NeighbourKey),
    /// End what `Keep` began.
    Release(NeighbourKey),
}

pub(super) struct Resolver {
    publish: Box<dyn Publish>,
    /// Interfaces the program is attached to, and the MAC addresses published for them.
    attached: BTreeMap<u32, Option<[u8; 6]>>,
    links: HashMap<u32, Link>,
    neighbours: HashMap<NeighbourKey, Neighbour>,
    hops: HashMap<u32, Hop>,
    /// Destination and index of each tracked next hop: a prefix is a range.
    by_destination: BTreeSet<(IpAddr, u32)>,
    /// The next hops that go through a neighbour.
    users: HashMap<NeighbourKey, BTreeSet<u32>>,
    routes_due: VecDeque<u32>,
    neighbours_due: BTreeSet<NeighbourKey>,
}

/// One tracked next hop.
struct Hop {
    source: IpAddr,
    destination: IpAddr,
    route: Option<Route>,
    published: Option<NextHop>,
    /// In `routes_due`.
    due: bool,
}

impl Hop {
    fn neighbour(&self) -> Option<NeighbourKey> {
        self.route.map(|route| (route.ifindex, route.gateway.unwrap_or(self.destination)))
    }
}

impl Resolver {
    pub(super) fn new(publish: Box<dyn Publish>, attached: BTreeSet<u32>) -> Self {
        Self {
            publish,
            attached: attached.into_iter().map(|ifindex| (ifindex, None)).collect(),
            links: HashMap::new(),
            neighbours: HashMap::new(),
            hops: HashMap::new(),
            by_destination: BTreeSet::new(),
            users: HashMap::new(),
            routes_due: VecDeque::new(),
            neighbours_due: BTreeSet::new(),
        }
    }

    pub(super) fn track(&mut self, index: u32, way: Way) {
        self.publish.path(index, way, None);
        let Way::Out(source, destination) = way else { return };
        let hop = Hop { source, destination, route: None, published: None, due: true };
        self.hops.insert(index, hop);
        self.by_destination.insert((destination, index));
        // A new flow waits for it; whatever else is due had a next hop so far.
        self.routes_due.push_front(index);
    }

    pub(super) fn release(&mut self, index: u32) {
        self.set_route(index, None);
        if let Some(hop) = self.hops.remove(&index) {
            self.by_destination.remove(&(hop.destination, index));
        }
    }

    /// The kernel's answer to [`Work::Route`]; `None`: it would not send by any interface of interest.
    pub(super) fn route_found(&mut self, index: u32, route: Option<Route>) {
        self.set_route(index, route);
    }

    pub(super) fn link(&mut self, ifindex: u32, link: Link) {
        self.publish_interface(ifindex, link.mac);
        let up = link.up;
        let was_down = self.links.insert(ifindex, link).is_some_and(|before| !before.up);
        // The kernel drops IPv4 routes by a link that goes down, and revives next hops of multipath routes by one
        // that comes up, without a word (net/ipv4/fib_semantics.c).
        if !up {
            self.look_up_routes_by(ifindex);
        } else if was_down && self.attached.contains_key(&ifindex) {
            self.all_routes_changed();
        }
        self.republish_link(ifindex);
    }

    pub(super) fn link_gone(&mut self, ifindex: u32) {
        if let Some(link) = self.links.remove(&ifindex)
            && self.attached.contains_key(&ifindex)
        {
            tracing::warn!(
                "interface {} is gone: its media takes the slow path until turnpike is restarted",
                link.name
            );
        }
        self.publish_interface(ifindex, None);
        self.look_up_routes_by(ifindex);
        self.republish_link(ifindex);
    }

    pub(super) fn neighbour(&mut self, key: NeighbourKey, neighbour: Neighbour) {
        self.neighbours.insert(key, neighbour);
        if neighbour.idle {
            self.neighbours_due.insert(key);
        }
        self.republish_neighbour(key);
    }

    pub(super) fn neighbour_gone(&mut self, key: NeighbourKey) {
        self.neighbours.remove(&key);
        self.neighbours_due.insert(key);
        self.republish_neighbour(key);
    }

    /// Routes to somewhere in `prefix` may have changed.
    pub(super) fn routes_changed(&mut self, prefix: IpNet) {
        let range = (prefix.network(), 0)..=(prefix.broadcast(), u32::MAX);
        let indices: Vec<u32> = self.by_destination.range(range).map(|&(_, index)| index).collect();
        self.look_up(indices);
    }

    /// Replaces the mirror by a fresh dump and asks again for everything.
    pub(super) fn resync(&mut self, links: HashMap<u32, Link>, neighbours: HashMap<NeighbourKey, Neighbour>) {
        let gone: Vec<u32> =
            self.links.keys().filter(|ifindex| !links.contains_key(ifindex)).copied().collect();
        self.neighbours_due.extend(self.neighbours.keys());
        self.neighbours_due.extend(neighbours.keys());
        self.neighbours = neighbours;
        for ifindex in gone {
            self.link_gone(ifindex);
        }
        for (ifindex, link) in links {
            self.link(ifindex, link);
        }
        self.all_routes_changed();
    }

    /// To be called every few seconds: a kernel before 5.16 does not keep neighbours by itself, and a request
    /// may have failed.
    pub(super) fn remind(&mut self) {
        self.neighbours_due.extend(self.users.keys());
    }

    /// What to ask of the kernel next.
    pub(super) fn next_work(&mut self) -> Option<Work> {
        while let Some(key) = self.neighbours_due.pop_first() {
            let upkeep = self.neighbours.get(&key).map_or(Upkeep::None, |neighbour| neighbour.upkeep);
            let up = self.links.get(&key.0).is_some_and(|link| link.up);
            match (self.users.contains_key(&key), upkeep) {
                (true, Upkeep::None) if up => return Some(Work::Keep(key)),
                (false, Upkeep::Ours) => return Some(Work::Release(key)),
                _ => {}
            }
        }
        while let Some(index) = self.routes_due.pop_front() {
            if let Some(hop) = self.hops.get_mut(&index)
                && std::mem::take(&mut hop.due)
            {
                return Some(Work::Route { index, source: hop.source, destination: hop.destination });
            }
        }
        None
    }

    /// Releases everything; [`Resolver::next_work`] then says which neighbours to release.
    pub(super) fn release_all(&mut self) {
        let indices: Vec<u32> = self.hops.keys().copied().collect();
        indices.into_iter().for_each(|index| self.release(index));
    }

    fn all_routes_changed(&mut self) {
        self.routes_changed(Ipv4Net::default().into());
        self.routes_changed(Ipv6Net::default().into());
    }

    fn look_up_routes_by(&mut self, ifindex: u32) {
        let by = |hop: &Hop| hop.route.is_some_and(|route| route.ifindex == ifindex);
        let indices = self.hops.iter().filter(|(_, hop)| by(hop)).map(|(index, _)| *index).collect();
        self.look_up(indices);
    }

    fn look_up(&mut self, indices: Vec<u32>) {
        for index in indices {
            if let Some(hop) = self.hops.get_mut(&index)
                && !std::mem::replace(&mut hop.due, true)
            {
                self.routes_due.push_back(index);
            }
        }
    }

    fn set_route(&mut self, index: u32, route: Option<Route>) {
        let Some(hop) = self.hops.get_mut(&index) else { return };
        let old = hop.neighbour();
        hop.route = route;
        let new = hop.neighbour().filter(|(ifindex, _)| self.attached.contains_key(ifindex));
        if let Some(key) = old.filter(|_| old != new)
            && let Some(users) = self.users.get_mut(&key)
        {
            users.remove(&index);
            if users.is_empty() {
                self.users.remove(&key);
                self.neighbours_due.insert(key);
            }
        }
        if let Some(key) = new {
            let users = self.users.entry(key).or_default();
            if users.is_empty() {
                self.neighbours_due.insert(key);
            }
            users.insert(index);
        }
        self.republish(index);
    }

    fn publish_interface(&mut self, ifindex: u32, mac: Option<[u8; 6]>) {
        let Some(published) = self.attached.get_mut(&ifindex) else { return };
        if *published != mac {
            *published = mac;
            self.publish.interface(ifindex, mac);
        }
    }

    fn republish_link(&mut self, ifindex: u32) {
        let keys: Vec<NeighbourKey> = self.users.keys().filter(|key| key.0 == ifindex).copied().collect();
        for key in keys {
            self.neighbours_due.insert(key);
            self.republish_neighbour(key);
        }
    }

    fn republish_neighbour(&mut self, key: NeighbourKey) {
        for index in self.users.get(&key).cloned().unwrap_or_default() {
            self.republish(index);
        }
    }

    fn republish(&mut self, index: u32) {
        let Some(hop) = self.hops.get(&index) else { return };
        let next_hop = self.next_hop(hop);
        if hop.published != next_hop {
            self.publish.path(index, Way::Out(hop.source, hop.destination), next_hop);
            self.hops.get_mut(&index).expect("just found").published = next_hop;
        }
    }

    fn next_hop(&self, hop: &Hop) -> Option<NextHop> {
        let route = hop.route.filter(|route| self.attached.contains_key(&route.ifindex))?;
        let link = self.links.get(&route.ifindex).filter(|link| link.up)?;
        let destination_mac = self.neighbours.get(&hop.neighbour()?)?.mac?;
        let mtu = route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
        Some(NextHop {
            ifindex: route.ifindex,
            mtu,
            destination_mac,
            source_mac: link.mac?,
            tags: [None; 2],
            scatter_gather: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const CLIENT_SIDE: u32 = 3;
    const UNATTACHED: u32 = 9;
    const SOURCE: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
    const DESTINATION: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 2);
    const KEY: NeighbourKey = (CLIENT_SIDE, IpAddr::V4(DESTINATION));
    const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const MANAGED: Neighbour = Neighbour { mac: Some(THEIRS), upkeep: Upkeep::Ours, idle: false };

    #[derive(Default)]
    struct Published {
        hops: HashMap<u32, Option<NextHop>>,
        interfaces: HashMap<u32, Option<[u8; 6]>>,
    }

    struct Recorder(Arc<Mutex<Published>>);

    impl Publish for Recorder {
        fn next_hop(&mut self, index: u32, next_hop: Option<NextHop>) {
            self.0.lock().unwrap().hops.insert(index, next_hop);
        }

        fn interface(&mut self, ifindex: u32, mac: Option<[u8; 6]>) {
            self.0.lock().unwrap().interfaces.insert(ifindex, mac);
        }
    }

    struct Bench {
        resolver: Resolver,
        published: Arc<Mutex<Published>>,
    }

    impl Bench {
        fn new() -> Self {
            let published = Arc::new(Mutex::new(Published::default()));
            let mut resolver =
                Resolver::new(Box::new(Recorder(published.clone())), BTreeSet::from([CLIENT_SIDE]));
            resolver.link(CLIENT_SIDE, link());
            resolver.link(UNATTACHED, link());
            Self { resolver, published }
        }

        /// With next hop 1 tracked, routed straight to its destination and its neighbour resolved.
        fn resolved() -> Self {
            let mut bench = Self::new();
            bench.resolver.track(1, SOURCE, DESTINATION);
            assert_eq!(
                bench.resolver.next_work(),
                Some(Work::Route { index: 1, source: SOURCE, destination: DESTINATION })
            );
            bench.resolver.route_found(1, Some(direct()));
            assert_eq!(bench.resolver.next_work(), Some(Work::Keep(KEY)));
            bench.resolver.neighbour(KEY, MANAGED);
            assert!(bench.hop(1).is_some());
            bench
        }

        fn hop(&self, index: u32) -> Option<NextHop> {
            self.published.lock().unwrap().hops[&index]
        }

        fn work(&mut self) -> Vec<Work> {
            std::iter::from_fn(|| self.resolver.next_work()).collect()
        }
    }

    fn link() -> Link {
        Link { name: "relc0".to_owned(), mac: Some(OURS), mtu: 1500, up: true }
    }

    fn direct() -> Route {
        Route { ifindex: CLIENT_SIDE, gateway: None, mtu: None }
    }

    #[test]
    fn a_next_hop_has_both_macs_and_the_smaller_mtu() {
        let mut bench = Bench::resolved();
        let expected = NextHop { ifindex: CLIENT_SIDE, mtu: 1500, destination_mac: THEIRS, source_mac: OURS };
        assert_eq!(bench.hop(1), Some(expected));
        bench.resolver.route_found(1, Some(Route { mtu: Some(1400), ..direct() }));
        assert_eq!(bench.hop(1).unwrap().mtu, 1400);
        bench.resolver.route_found(1, Some(Route { mtu: Some(9000), ..direct() }));
        assert_eq!(bench.hop(1).unwrap().mtu, 1500);
    }

    #[test]
    fn a_gateway_is_the_neighbour_where_there_is_one() {
        let mut bench = Bench::resolved();
        let gateway: IpAddr = [198, 18, 1, 254].into();
        bench.resolver.route_found(1, Some(Route { gateway: Some(gateway), ..direct() }));
        assert_eq!(bench.hop(1), None, "the gateway is not resolved yet");
        assert_eq!(bench.work(), [Work::Release(KEY), Work::Keep((CLIENT_SIDE, gateway))]);
        bench.resolver.neighbour((CLIENT_SIDE, gateway), MANAGED);
        assert!(bench.hop(1).is_some());
    }

    #[test]
    fn unroutable_or_elsewhere_is_unresolved() {
        let mut bench = Bench::resolved();
        bench.resolver.route_found(1, Some(Route { ifindex: UNATTACHED, ..direct() }));
        bench.resolver.neighbour((UNATTACHED, DESTINATION.into()), MANAGED);
        assert_eq!(bench.hop(1), None);
        bench.resolver.route_found(1, None);
        assert_eq!(bench.hop(1), None);
    }

    #[test]
    fn a_neighbour_that_fails_or_moves_is_followed() {
        let mut bench = Bench::resolved();
        bench.resolver.neighbour(KEY, Neighbour { mac: None, ..MANAGED });
        assert_eq!(bench.hop(1), None);
        bench.resolver.neighbour(KEY, Neighbour { mac: Some([7; 6]), ..MANAGED });
        assert_eq!(bench.hop(1).unwrap().destination_mac, [7; 6]);
    }

    #[test]
    fn a_link_that_goes_down_takes_its_next_hops_along_and_brings_them_back() {
        let mut bench = Bench::resolved();
        bench.resolver.link(CLIENT_SIDE, Link { up: false, ..link() });
        assert_eq!(bench.hop(1), None);
        bench.resolver.neighbour_gone(KEY);
        assert!(!bench.work().contains(&Work::Keep(KEY)), "nothing resolves on a link that is down");
        bench.resolver.link(CLIENT_SIDE, link());
        assert!(bench.work().contains(&Work::Keep(KEY)), "a flap deleted the managed entry");
        bench.resolver.neighbour(KEY, MANAGED);
        assert!(bench.hop(1).is_some());
    }

    #[test]
    fn a_new_mac_of_an_attached_interface_is_published_in_both_places() {
        let mut bench = Bench::resolved();
        bench.resolver.link(CLIENT_SIDE, Link { mac: Some([8; 6]), ..link() });
        assert_eq!(bench.hop(1).unwrap().source_mac, [8; 6]);
        let published = bench.published.lock().unwrap();
        assert_eq!(published.interfaces[&CLIENT_SIDE], Some([8; 6]));
        assert_eq!(published.interfaces.len(), 1, "only attached interfaces");
    }

    #[test]
    fn a_neighbour_is_released_when_its_last_user_is_gone() {
        let mut bench = Bench::resolved();
        bench.resolver.track(2, [198, 18, 1, 9].into(), DESTINATION);
        bench.resolver.route_found(2, Some(direct()));
        bench.work();
        bench.resolver.release(1);
        assert_eq!(bench.hop(1), None);
        assert_eq!(bench.work(), []);
        bench.resolver.release(2);
        assert_eq!(bench.work(), [Work::Release(KEY)]);
    }

    #[test]
    fn neighbours_that_others_look_after_are_left_alone() {
        let mut bench = Bench::new();
        bench.resolver.neighbour(KEY, Neighbour { upkeep: Upkeep::Others, ..MANAGED });
        bench.resolver.track(1, SOURCE, DESTINATION);
        bench.resolver.route_found(1, Some(direct()));
        bench.work();
        bench.resolver.release_all();
        assert_eq!(bench.work(), []);
    }

    #[test]
    fn what_a_crashed_daemon_kept_is_released() {
        let mut bench = Bench::new();
        bench.resolver.resync(HashMap::from([(CLIENT_SIDE, link())]), HashMap::from([(KEY, MANAGED)]));
        assert_eq!(bench.work(), [Work::Release(KEY)]);
    }

    #[test]
    fn only_destinations_in_a_changed_prefix_are_looked_up_again() {
        let mut bench = Bench::resolved();
        bench.resolver.track(2, SOURCE, [203, 0, 113, 7].into());
        bench.work();
        bench.resolver.routes_changed("203.0.113.0/24".parse().unwrap());
        assert!(matches!(bench.work()[..], [Work::Route { index: 2, .. }]));
        bench.resolver.routes_changed(Ipv4Net::default());
        assert_eq!(bench.work().len(), 2);
    }

    #[test]
    fn links_of_no_concern_cause_no_lookups() {
        let mut bench = Bench::resolved();
        bench.resolver.link(77, link());
        bench.resolver.link(77, Link { up: false, ..link() });
        bench.resolver.link(77, link());
        bench.resolver.link_gone(77);
        bench.resolver.link(CLIENT_SIDE, link());
        assert_eq!(bench.work(), []);
    }

    #[test]
    fn a_resync_forgets_what_is_no_longer_there() {
        let mut bench = Bench::resolved();
        bench.resolver.resync(HashMap::from([(CLIENT_SIDE, link())]), HashMap::new());
        assert_eq!(bench.hop(1), None);
        assert!(bench.work().contains(&Work::Keep(KEY)));
        bench.resolver.resync(HashMap::new(), HashMap::new());
        assert_eq!(bench.published.lock().unwrap().interfaces[&CLIENT_SIDE], None);
    }
}

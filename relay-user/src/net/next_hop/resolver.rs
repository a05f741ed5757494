//! What the resolver knows: a mirror of links and neighbours, and the tracked paths. No netlink here.
//!
//! Events go in, values are published, and [`Resolver::next_work`] says what to ask of the kernel next.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::IpAddr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    NextHop, Publish,
    links::{Egress, Link, Links, Port},
};
use crate::datapath::encode::Way;

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
    links: Links,
    /// Interfaces and VLANs, and the MAC addresses published for them.
    ports: HashMap<Port, [u8; 6]>,
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
            links: Links::new(attached),
            ports: HashMap::new(),
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
        self.publish.no_path(index);
    }

    /// The kernel's answer to [`Work::Route`]; `None`: it would not send by any interface of interest.
    pub(super) fn route_found(&mut self, index: u32, route: Option<Route>) {
        self.set_route(index, route);
    }

    pub(super) fn link(&mut self, ifindex: u32, link: Link) {
        self.set_link(ifindex, link);
        self.publish_ports();
    }

    pub(super) fn link_gone(&mut self, ifindex: u32) {
        if let Some(link) = self.links.remove(ifindex)
            && self.links.is_attached(ifindex)
        {
            tracing::warn!(
                "interface {} is gone: its media takes the slow path until turnpike is restarted",
                link.name
            );
        }
        self.publish_ports();
        self.look_up_routes_by(ifindex);
        self.republish_link(ifindex);
    }

    /// Whether an interface sends frames in several pieces that were redirected to it.
    pub(super) fn scatter_gather(&mut self, ifindex: u32, scatter_gather: bool) {
        if self.links.set_scatter_gather(ifindex, scatter_gather) {
            self.republish_link(ifindex);
        }
    }

    /// The MTU that IPv6 keeps to on a link.
    pub(super) fn ipv6_mtu(&mut self, ifindex: u32, mtu: u32) {
        if self.links.set_ipv6_mtu(ifindex, mtu) {
            self.republish_link(ifindex);
        }
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

    /// An address of ours may have come or gone.
    pub(super) fn source_changed(&mut self, source: IpAddr) {
        let from = |hop: &Hop| hop.source == source;
        let indices = self.hops.iter().filter(|(_, hop)| from(hop)).map(|(index, _)| *index).collect();
        self.look_up(indices);
    }

    /// Replaces the mirror by a fresh dump and asks again for everything.
    pub(super) fn resync(&mut self, links: HashMap<u32, Link>, neighbours: HashMap<NeighbourKey, Neighbour>) {
        let gone: Vec<u32> = self.links.indices().filter(|ifindex| !links.contains_key(ifindex)).collect();
        self.neighbours_due.extend(self.neighbours.keys());
        self.neighbours_due.extend(neighbours.keys());
        self.neighbours = neighbours;
        for ifindex in gone {
            self.link_gone(ifindex);
        }
        for (ifindex, link) in links {
            self.set_link(ifindex, link);
        }
        self.publish_ports();
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
            let up = self.links.is_up(key.0);
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
        let new = hop.neighbour().filter(|(ifindex, _)| self.links.port(*ifindex).is_some());
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

    fn set_link(&mut self, ifindex: u32, link: Link) {
        let up = link.up;
        let was_down = self.links.insert(ifindex, link).is_some_and(|before| !before.up);
        // The kernel drops IPv4 routes by a link that goes down, and revives next hops of multipath routes by one
        // that comes up, without a word (net/ipv4/fib_semantics.c).
        if !up {
            self.look_up_routes_by(ifindex);
        } else if was_down && self.links.port(ifindex).is_some() {
            self.all_routes_changed();
        }
        self.republish_link(ifindex);
    }

    fn publish_ports(&mut self) {
        let ports = self.links.ports();
        let mut publish = |(ifindex, tags): Port, mac| match tags {
            [None, _] => self.publish.interface(ifindex, mac),
            tags => self.publish.vlan(ifindex, tags, mac),
        };
        for port in self.ports.keys().filter(|port| !ports.contains_key(port)) {
            publish(*port, None);
        }
        for (port, mac) in &ports {
            if self.ports.get(port) != Some(mac) {
                publish(*port, Some(*mac));
            }
        }
        self.ports = ports;
    }

    fn republish_link(&mut self, ifindex: u32) {
        let keys: Vec<NeighbourKey> =
            self.users.keys().filter(|key| self.links.leads_through(key.0, ifindex)).copied().collect();
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
        let route = hop.route?;
        let Egress { port: (ifindex, tags), mac, mtu, scatter_gather } =
            self.links.egress(route.ifindex, hop.destination.is_ipv6())?;
        Some(NextHop {
            ifindex,
            mtu: route.mtu.map_or(mtu, |route| route.min(mtu)),
            destination_mac: self.neighbours.get(&hop.neighbour()?)?.mac?,
            source_mac: mac,
            tags,
            scatter_gather,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, Ipv6Addr},
        sync::{Arc, Mutex},
    };

    use super::{
        super::{Tag, links::Vlan},
        *,
    };

    const CLIENT_SIDE: u32 = 3;
    const UNATTACHED: u32 = 9;
    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 1, 1));
    const DESTINATION: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 1, 2));
    const WAY: Way = Way::Out(SOURCE, DESTINATION);
    const KEY: NeighbourKey = (CLIENT_SIDE, DESTINATION);
    const OURS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1));
    const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const NEXT_HOP: NextHop = NextHop {
        ifindex: CLIENT_SIDE,
        mtu: 1500,
        destination_mac: THEIRS,
        source_mac: OURS,
        tags: [None; 2],
        scatter_gather: false,
    };
    const MANAGED: Neighbour = Neighbour { mac: Some(THEIRS), upkeep: Upkeep::Ours, idle: false };

    #[derive(Default)]
    struct Published {
        paths: HashMap<u32, (Way, Option<NextHop>)>,
        interfaces: HashMap<u32, Option<[u8; 6]>>,
        vlans: HashMap<Port, Option<[u8; 6]>>,
    }

    struct Recorder(Arc<Mutex<Published>>);

    impl Publish for Recorder {
        fn path(&mut self, index: u32, way: Way, next_hop: Option<NextHop>) {
            self.0.lock().unwrap().paths.insert(index, (way, next_hop));
        }

        fn no_path(&mut self, index: u32) {
            self.0.lock().unwrap().paths.remove(&index);
        }

        fn interface(&mut self, ifindex: u32, mac: Option<[u8; 6]>) {
            self.0.lock().unwrap().interfaces.insert(ifindex, mac);
        }

        fn vlan(&mut self, ifindex: u32, tags: [Option<Tag>; 2], mac: Option<[u8; 6]>) {
            self.0.lock().unwrap().vlans.insert((ifindex, tags), mac);
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
            bench.resolver.track(1, WAY);
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
            self.published.lock().unwrap().paths.get(&index)?.1
        }

        fn work(&mut self) -> Vec<Work> {
            std::iter::from_fn(|| self.resolver.next_work()).collect()
        }
    }

    fn link() -> Link {
        Link {
            name: "relc0".to_owned(),
            mac: Some(OURS),
            mtu: 1500,
            ipv6_mtu: Some(1500),
            up: true,
            vlan: None,
        }
    }

    fn direct() -> Route {
        Route { ifindex: CLIENT_SIDE, gateway: None, mtu: None }
    }

    #[test]
    fn a_next_hop_has_both_macs_and_the_smaller_mtu() {
        let mut bench = Bench::resolved();
        assert_eq!(bench.hop(1), Some(NEXT_HOP));
        assert_eq!(bench.published.lock().unwrap().paths[&1].0, WAY);
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
        bench.resolver.neighbour((UNATTACHED, DESTINATION), MANAGED);
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
        bench.resolver.track(2, Way::Out([198, 18, 1, 9].into(), DESTINATION));
        bench.resolver.route_found(2, Some(direct()));
        bench.work();
        bench.resolver.release(1);
        assert!(!bench.published.lock().unwrap().paths.contains_key(&1));
        assert_eq!(bench.work(), []);
        bench.resolver.release(2);
        assert_eq!(bench.work(), [Work::Release(KEY)]);
    }

    #[test]
    fn neighbours_that_others_look_after_are_left_alone() {
        let mut bench = Bench::new();
        bench.resolver.neighbour(KEY, Neighbour { upkeep: Upkeep::Others, ..MANAGED });
        bench.resolver.track(1, WAY);
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
        bench.resolver.track(2, Way::Out(SOURCE, [203, 0, 113, 7].into()));
        bench.resolver.track(3, Way::Out(OURS_V6, "2001:db8::cb00:7107".parse().unwrap()));
        bench.work();
        bench.resolver.routes_changed("203.0.113.0/24".parse().unwrap());
        assert!(matches!(bench.work()[..], [Work::Route { index: 2, .. }]));
        bench.resolver.routes_changed(Ipv4Net::default().into());
        assert_eq!(bench.work().len(), 2);
        bench.resolver.routes_changed(Ipv6Net::default().into());
        assert!(matches!(bench.work()[..], [Work::Route { index: 3, .. }]));
    }

    #[test]
    fn only_what_an_address_sends_is_looked_up_again_when_it_comes_or_goes() {
        let mut bench = Bench::resolved();
        bench.resolver.track(2, Way::Out(OURS_V6, "2001:db8::7".parse().unwrap()));
        bench.work();
        bench.resolver.source_changed(OURS_V6);
        assert!(matches!(bench.work()[..], [Work::Route { index: 2, .. }]));
        bench.resolver.source_changed("2001:db8::9".parse().unwrap());
        assert_eq!(bench.work(), []);
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
    fn an_internal_path_is_published_and_asks_for_nothing() {
        let mut bench = Bench::new();
        let way = Way::Internal { source: SOURCE, destination: DESTINATION, advertised: SOURCE };
        bench.resolver.track(1, way);
        assert_eq!(bench.published.lock().unwrap().paths[&1], (way, None));
        bench.resolver.routes_changed(Ipv4Net::default().into());
        bench.resolver.release(1);
        assert!(bench.published.lock().unwrap().paths.is_empty(), "the next flow here must not follow it");
        assert_eq!(bench.work(), []);
    }

    #[test]
    fn a_link_local_gateway_is_a_neighbour_on_its_own_link() {
        let mut bench = Bench::new();
        let gateway: IpAddr = "fe80::1".parse().unwrap();
        bench.resolver.track(1, Way::Out(OURS_V6, "2001:db8::cb00:7107".parse().unwrap()));
        bench.work();
        bench.resolver.route_found(1, Some(Route { gateway: Some(gateway), ..direct() }));
        assert_eq!(bench.work(), [Work::Keep((CLIENT_SIDE, gateway))]);
        bench.resolver.neighbour((UNATTACHED, gateway), Neighbour { mac: Some([7; 6]), ..MANAGED });
        assert_eq!(bench.hop(1), None);
        bench.resolver.neighbour((CLIENT_SIDE, gateway), MANAGED);
        assert_eq!(bench.hop(1), Some(NEXT_HOP));
        bench.resolver.ipv6_mtu(CLIENT_SIDE, 1400);
        assert_eq!(bench.hop(1).unwrap().mtu, 1400);
    }

    const VLAN: u32 = 20;
    const TAGS: [Option<Tag>; 2] = [Some(Tag { id: 100, service: false }), None];

    fn vlan() -> Link {
        let vlan = Some(Vlan { below: CLIENT_SIDE, tag: Tag { id: 100, service: false } });
        Link { name: "relc0.100".to_owned(), mac: Some([8; 6]), mtu: 1496, vlan, ..link() }
    }

    #[test]
    fn dp_052_a_route_by_a_vlan_device_leaves_by_the_interface_below() {
        let mut bench = Bench::new();
        let key = (VLAN, DESTINATION);
        bench.resolver.link(VLAN, vlan());
        bench.resolver.track(1, WAY);
        bench.work();
        bench.resolver.route_found(1, Some(Route { ifindex: VLAN, ..direct() }));
        assert_eq!(bench.work(), [Work::Keep(key)]);
        bench.resolver.neighbour(key, MANAGED);
        let expected = NextHop { mtu: 1496, source_mac: [8; 6], tags: TAGS, ..NEXT_HOP };
        assert_eq!(bench.hop(1), Some(expected));

        bench.resolver.link(CLIENT_SIDE, Link { mtu: 1400, ..link() });
        assert_eq!(
            bench.hop(1),
            Some(NextHop { mtu: 1400, ..expected }),
            "the interface below has a new MTU"
        );
        bench.resolver.scatter_gather(CLIENT_SIDE, true);
        assert!(bench.hop(1).unwrap().scatter_gather);
        bench.resolver.link(CLIENT_SIDE, Link { up: false, ..link() });
        assert_eq!(bench.hop(1), None);
        bench.resolver.link(CLIENT_SIDE, link());
        assert!(bench.hop(1).is_some());
        bench.resolver.link_gone(VLAN);
        assert_eq!(bench.hop(1), None);
        let work = bench.work();
        assert!(matches!(work[..], [Work::Route { index: 1, .. }, ..]), "{work:?}");
    }

    #[test]
    fn vlans_on_attached_interfaces_are_published_as_they_come_and_go() {
        let mut bench = Bench::new();
        let port = (CLIENT_SIDE, TAGS);
        let published = |bench: &Bench| bench.published.lock().unwrap().vlans.get(&port).copied();
        bench.resolver.link(VLAN, Link { up: false, ..vlan() });
        assert_eq!(published(&bench), None, "the host takes nothing from it yet");
        bench.resolver.link(VLAN, vlan());
        assert_eq!(published(&bench), Some(Some([8; 6])));
        bench.resolver.link(VLAN, Link { mac: Some([9; 6]), ..vlan() });
        assert_eq!(published(&bench), Some(Some([9; 6])));
        bench.resolver.link_gone(VLAN);
        assert_eq!(published(&bench), Some(None));
        bench.resolver.resync(HashMap::from([(CLIENT_SIDE, link()), (VLAN, vlan())]), HashMap::new());
        assert_eq!(published(&bench), Some(Some([8; 6])));
        let published = bench.published.lock().unwrap();
        assert_eq!(published.vlans.len(), 1);
        assert_eq!(published.interfaces, HashMap::from([(CLIENT_SIDE, Some(OURS))]));
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

//! Next hops as the kernel would choose them, followed through every change.

use std::{
    collections::{BTreeSet, HashMap},
    net::{Ipv4Addr, UdpSocket},
    sync::{Arc, Mutex},
};

use relay_user::net::next_hop::{NextHop, NextHops, Publish};

use crate::network::{Host, INTERFACES, Network, eventually};

const OURS: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
const OURS_BY_THE_PEER: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 2);
const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const INDEX: u32 = 1;

#[derive(Clone, Default)]
struct Published(Arc<Mutex<Tables>>);

#[derive(Default)]
struct Tables {
    next_hops: HashMap<u32, Option<NextHop>>,
    interfaces: HashMap<u32, Option<[u8; 6]>>,
}

impl Publish for Published {
    fn next_hop(&mut self, index: u32, next_hop: Option<NextHop>) {
        self.0.lock().unwrap().next_hops.insert(index, next_hop);
    }

    fn interface(&mut self, ifindex: u32, mac: Option<[u8; 6]>) {
        self.0.lock().unwrap().interfaces.insert(ifindex, mac);
    }
}

/// A network with a resolver in the relay's namespace, for both of its interfaces.
struct Bench {
    network: Network,
    published: Published,
    next_hops: NextHops,
}

impl Bench {
    fn new() -> Self {
        Self::attached_to(&INTERFACES)
    }

    fn attached_to(interfaces: &[&str]) -> Self {
        let network = Network::new();
        let attached: BTreeSet<u32> =
            interfaces.iter().map(|interface| network.link(Host::Relay, interface).0).collect();
        let published = Published::default();
        let publish = Box::new(published.clone());
        let next_hops =
            network.block_on(Host::Relay, async || NextHops::start(publish, attached).await).unwrap();
        Self { network, published, next_hops }
    }

    /// Tracked at [`INDEX`] and resolved, by `interface` to the host at its other end.
    fn resolved(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        let bench = Self::new();
        bench.next_hops.track(INDEX, source, destination);
        bench.expect_client(1500);
        bench
    }

    fn next_hop(&self) -> Option<NextHop> {
        self.published.0.lock().unwrap().next_hops.get(&INDEX).copied().flatten()
    }

    /// Waits until the next hop is the client.
    #[track_caller]
    fn expect_client(&self, mtu: u32) {
        self.expect("relc0", Host::Client, "cli0", mtu);
    }

    #[track_caller]
    fn expect(&self, interface: &str, host: Host, theirs: &str, mtu: u32) {
        let (ifindex, source_mac) = self.network.link(Host::Relay, interface);
        let (_, destination_mac) = self.network.link(host, theirs);
        let expected = NextHop { ifindex, mtu, destination_mac, source_mac };
        eventually(&format!("{expected:?}"), || self.next_hop() == Some(expected));
    }

    #[track_caller]
    fn expect_none(&self) {
        eventually("no next hop", || self.next_hop().is_none());
    }

    /// The client's entry in the relay's neighbour table.
    fn neighbour(&self) -> serde_json::Value {
        self.network.ip_json(Host::Relay, &format!("neighbour show {CLIENT} dev relc0"))
    }

    fn is_managed(&self) -> bool {
        // Listed by its name among the entry's keys.
        self.neighbour().get("managed").is_some()
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_neighbour_nobody_has_talked_to_is_resolved_and_kept_until_it_is_released() {
    let mut bench = Bench::new();
    assert!(bench.neighbour().is_null());
    bench.next_hops.track(INDEX, OURS, CLIENT);
    bench.expect_client(1500);
    eventually("the kernel manages the neighbour", || bench.is_managed());

    bench.next_hops.track(2, OURS, CLIENT);
    bench.next_hops.release(INDEX);
    bench.expect_none();
    assert!(bench.is_managed(), "index 2 still needs it");
    bench.next_hops.release(2);
    eventually("the neighbour is released", || !bench.is_managed());

    bench.next_hops.track(INDEX, OURS, CLIENT);
    eventually("the kernel manages the neighbour again", || bench.is_managed());
    bench.next_hops.stop();
    assert!(!bench.is_managed(), "a stop leaves nothing behind");
    assert_eq!(bench.next_hop(), None);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_link_that_flaps_ends_its_next_hops_and_brings_them_back() {
    let bench = Bench::resolved(OURS, CLIENT);
    bench.network.ip(Host::Relay, "link set relc0 down");
    bench.expect_none();
    bench.network.ip(Host::Relay, "link set relc0 up");
    bench.expect_client(1500);
    eventually("the flap deleted the managed entry, it is managed again", || bench.is_managed());

    bench.network.ip(Host::Client, "link set cli0 down");
    bench.expect_none();
    bench.network.ip(Host::Client, "link set cli0 up");
    bench.expect_client(1500);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_neighbour_with_a_new_mac_address_is_followed() {
    let bench = Bench::resolved(OURS, CLIENT);
    bench.network.ip(Host::Client, "link set cli0 address 02:00:00:00:00:77");
    // Its next ARP request tells.
    bench.network.ip(Host::Client, "neighbour flush dev cli0");
    bench.network.enter(Host::Client, || {
        UdpSocket::bind((CLIENT, 0)).unwrap().send_to(b"", (OURS, 9)).unwrap();
    });
    bench.expect_client(1500);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn our_own_new_mac_address_is_published() {
    let bench = Bench::resolved(OURS, CLIENT);
    let (ifindex, mac) = bench.network.link(Host::Relay, "relc0");
    assert_eq!(bench.published.0.lock().unwrap().interfaces[&ifindex], Some(mac));
    bench.network.ip(Host::Relay, "link set relc0 address 02:00:00:00:00:88");
    bench.expect_client(1500);
    assert_eq!(bench.published.0.lock().unwrap().interfaces[&ifindex], Some([2, 0, 0, 0, 0, 0x88]));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_route_that_comes_changes_and_goes_is_followed() {
    let bench = Bench::new();
    bench.next_hops.track(INDEX, OURS, FAR);
    bench.network.ip(Host::Relay, "route add 203.0.113.0/24 via 198.18.1.2");
    bench.expect_client(1500);
    bench.network.ip(Host::Relay, "route replace 203.0.113.0/24 via 198.18.2.2 mtu 1400");
    bench.expect("relp0", Host::Peer, "per0", 1400);
    bench.network.ip(Host::Relay, "route add blackhole 203.0.113.7/32");
    bench.expect_none();
    bench.network.ip(Host::Relay, "route delete blackhole 203.0.113.7/32");
    bench.expect("relp0", Host::Peer, "per0", 1400);
    bench.network.ip(Host::Relay, "route delete 203.0.113.0/24");
    bench.expect_none();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn rules_by_source_address_count() {
    let bench = Bench::new();
    bench.network.ip(Host::Relay, "route add 203.0.113.0/24 via 198.18.1.2");
    bench.network.ip(Host::Relay, "route add 203.0.113.0/24 via 198.18.2.2 table 100");
    bench.next_hops.track(INDEX, OURS_BY_THE_PEER, FAR);
    bench.expect_client(1500);
    bench.network.ip(Host::Relay, &format!("rule add from {OURS_BY_THE_PEER} lookup 100"));
    bench.expect("relp0", Host::Peer, "per0", 1500);
    bench.network.ip(Host::Relay, &format!("rule delete from {OURS_BY_THE_PEER} lookup 100"));
    bench.expect_client(1500);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_address_that_is_not_ours_has_no_next_hop_until_it_is() {
    let bench = Bench::new();
    bench.next_hops.track(INDEX, [198, 18, 1, 9].into(), CLIENT);
    bench.next_hops.track(2, OURS, CLIENT);
    eventually("what was asked later is resolved", || {
        bench.published.0.lock().unwrap().next_hops.get(&2).copied().flatten().is_some()
    });
    assert_eq!(bench.next_hop(), None);
    bench.network.ip(Host::Relay, "address add 198.18.1.9/24 dev relc0");
    bench.expect_client(1500);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn neither_ourselves_nor_interfaces_without_the_program_are_next_hops() {
    let bench = Bench::attached_to(&["relc0"]);
    let elsewhere = [(10, OURS_BY_THE_PEER), (11, Ipv4Addr::LOCALHOST), (12, [198, 18, 2, 2].into())];
    for (index, destination) in elsewhere {
        bench.next_hops.track(index, OURS, destination);
    }
    bench.next_hops.track(INDEX, OURS, CLIENT);
    bench.expect_client(1500);
    let tables = bench.published.0.lock().unwrap();
    for (index, destination) in elsewhere {
        assert_eq!(tables.next_hops[&index], None, "{destination}");
    }
    assert_eq!(tables.interfaces.len(), 1);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_an_administrator_fixed_stays_fixed() {
    let mut bench = Bench::new();
    bench.network.ip(Host::Relay, &format!("neighbour add {CLIENT} lladdr 02:00:00:00:00:99 dev relc0"));
    bench.next_hops.track(INDEX, OURS, CLIENT);
    eventually("the administrator's MAC address", || {
        bench.next_hop().is_some_and(|next_hop| next_hop.destination_mac == [2, 0, 0, 0, 0, 0x99])
    });
    bench.next_hops.stop();
    assert_eq!(bench.neighbour()["state"][0], "PERMANENT");
    assert!(!bench.is_managed());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_interface_that_goes_away_is_forgotten() {
    let bench = Bench::resolved(OURS, CLIENT);
    let (ifindex, _) = bench.network.link(Host::Relay, "relc0");
    bench.network.ip(Host::Relay, "link delete relc0");
    bench.expect_none();
    eventually("the interface is published as gone", || {
        bench.published.0.lock().unwrap().interfaces[&ifindex].is_none()
    });
}

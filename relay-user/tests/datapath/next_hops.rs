//! Next hops as the kernel would choose them, followed through every change.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    sync::{Arc, Mutex},
};

use relay_user::{
    datapath::encode::Way,
    net::next_hop::{NextHop, NextHops, Publish, Tag},
};

use crate::network::{Host, INTERFACES, Network, eventually};

const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 1, 1));
const OURS_BY_THE_PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 2, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 1, 2));
const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
const OURS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1));
const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 2));
const FAR_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));
const INDEX: u32 = 1;

#[derive(Clone, Default)]
struct Published(Arc<Mutex<Tables>>);

#[derive(Default)]
struct Tables {
    paths: HashMap<u32, (Way, Option<NextHop>)>,
    interfaces: HashMap<u32, Option<[u8; 6]>>,
}

impl Publish for Published {
    fn path(&mut self, index: u32, way: Way, next_hop: Option<NextHop>) {
        self.0.lock().unwrap().paths.insert(index, (way, next_hop));
    }

    fn no_path(&mut self, index: u32) {
        self.0.lock().unwrap().paths.remove(&index);
    }

    fn interface(&mut self, ifindex: u32, mac: Option<[u8; 6]>) {
        self.0.lock().unwrap().interfaces.insert(ifindex, mac);
    }

    fn vlan(&mut self, ifindex: u32, tags: [Option<Tag>; 2], _: Option<[u8; 6]>) {
        panic!("there is no VLAN {tags:?} on {ifindex}");
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
    fn resolved(source: IpAddr, destination: IpAddr) -> Self {
        let bench = Self::new();
        bench.next_hops.track(INDEX, Way::Out(source, destination));
        bench.expect_client(1500);
        bench
    }

    fn next_hop(&self) -> Option<NextHop> {
        self.path(INDEX)?.1
    }

    fn path(&self, index: u32) -> Option<(Way, Option<NextHop>)> {
        self.published.0.lock().unwrap().paths.get(&index).copied()
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
        let (tags, scatter_gather) = ([None; 2], true);
        let expected = NextHop { ifindex, mtu, destination_mac, source_mac, tags, scatter_gather };
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
    bench.next_hops.track(INDEX, Way::Out(OURS, CLIENT));
    bench.expect_client(1500);
    eventually("the kernel manages the neighbour", || bench.is_managed());

    bench.next_hops.track(2, Way::Out(OURS, CLIENT));
    bench.next_hops.release(INDEX);
    bench.expect_none();
    assert!(bench.is_managed(), "index 2 still needs it");
    bench.next_hops.release(2);
    eventually("the neighbour is released", || !bench.is_managed());

    bench.next_hops.track(INDEX, Way::Out(OURS, CLIENT));
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
fn dp_052_a_route_that_comes_changes_and_goes_is_followed() {
    let bench = Bench::new();
    bench.next_hops.track(INDEX, Way::Out(OURS, FAR));
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
fn dp_052_rules_by_source_address_count() {
    let bench = Bench::new();
    bench.network.ip(Host::Relay, "route add 203.0.113.0/24 via 198.18.1.2");
    bench.network.ip(Host::Relay, "route add 203.0.113.0/24 via 198.18.2.2 table 100");
    bench.next_hops.track(INDEX, Way::Out(OURS_BY_THE_PEER, FAR));
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
    bench.next_hops.track(INDEX, Way::Out([198, 18, 1, 9].into(), CLIENT));
    bench.next_hops.track(2, Way::Out(OURS, CLIENT));
    eventually("what was asked later is resolved", || {
        bench.path(2).is_some_and(|(_, next_hop)| next_hop.is_some())
    });
    assert_eq!(bench.next_hop(), None);
    bench.network.ip(Host::Relay, "address add 198.18.1.9/24 dev relc0");
    bench.expect_client(1500);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_ipv6_neighbour_is_resolved_and_kept_until_it_is_released() {
    let bench = Bench::new();
    let managed = || {
        let neighbour = bench.network.ip_json(Host::Relay, &format!("neighbour show {CLIENT_V6} dev relc0"));
        neighbour.get("managed").is_some()
    };
    bench.next_hops.track(INDEX, Way::Out(OURS_V6, CLIENT_V6));
    bench.expect_client(1500);
    assert_eq!(bench.path(INDEX).unwrap().0, Way::Out(OURS_V6, CLIENT_V6));
    eventually("the kernel manages the neighbour", managed);
    bench.next_hops.release(INDEX);
    eventually("the neighbour is released", || !managed());

    bench.next_hops.track(2, Way::Out(OURS_V6, CLIENT_V6));
    eventually("resolved again", || bench.path(2).is_some_and(|(_, next_hop)| next_hop.is_some()));
    bench.network.ip(Host::Relay, "link set relc0 down");
    eventually("gone with the link", || bench.path(2).is_some_and(|(_, next_hop)| next_hop.is_none()));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn dp_052_an_ipv6_route_by_a_link_local_gateway_is_followed() {
    let bench = Bench::new();
    bench.network.ip(Host::Client, "address add fe80::2/64 dev cli0");
    bench.next_hops.track(INDEX, Way::Out(OURS_V6, FAR_V6));
    bench.network.ip(Host::Relay, "-6 route add 2001:db8::/32 via fe80::2 dev relc0 mtu 1400");
    bench.expect_client(1400);
    bench.network.ip(Host::Relay, "-6 route replace 2001:db8::/32 via fd00:2::2");
    bench.expect("relp0", Host::Peer, "per0", 1500);
    bench.network.ip(Host::Relay, "-6 route add blackhole 2001:db8::7/128");
    bench.expect_none();
    bench.network.ip(Host::Relay, "-6 route delete blackhole 2001:db8::7/128");
    bench.expect("relp0", Host::Peer, "per0", 1500);
    bench.network.ip(Host::Relay, "-6 route delete 2001:db8::/32");
    bench.expect_none();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn dp_052_ipv6_rules_by_source_address_count() {
    let bench = Bench::new();
    bench.network.ip(Host::Relay, "-6 route add 2001:db8::/32 via fd00:1::2");
    bench.network.ip(Host::Relay, "-6 route add 2001:db8::/32 via fd00:2::2 table 100");
    bench.next_hops.track(INDEX, Way::Out("fd00:2::1".parse().unwrap(), FAR_V6));
    bench.expect_client(1500);
    bench.network.ip(Host::Relay, "-6 rule add from fd00:2::1 lookup 100");
    bench.expect("relp0", Host::Peer, "per0", 1500);
    bench.network.ip(Host::Relay, "-6 rule delete from fd00:2::1 lookup 100");
    bench.expect_client(1500);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_ipv6_address_that_is_not_ours_has_no_next_hop_while_it_is_not() {
    let bench = Bench::new();
    bench.next_hops.track(INDEX, Way::Out("fd00:1::9".parse().unwrap(), CLIENT_V6));
    bench.next_hops.track(2, Way::Out(OURS_V6, CLIENT_V6));
    eventually("what was asked later is resolved", || {
        bench.path(2).is_some_and(|(_, next_hop)| next_hop.is_some())
    });
    assert_eq!(bench.next_hop(), None);
    bench.network.ip(Host::Relay, "address add fd00:1::9/64 dev relc0");
    bench.expect_client(1500);
    bench.network.ip(Host::Relay, "address delete fd00:1::9/64 dev relc0");
    bench.expect_none();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_a_link_takes_counts_for_ipv6_too() {
    let bench = Bench::new();
    bench.next_hops.track(INDEX, Way::Out(OURS_V6, CLIENT_V6));
    bench.next_hops.track(2, Way::Out(OURS, CLIENT));
    let mtus = || [INDEX, 2].map(|index| bench.path(index).and_then(|(_, next_hop)| Some(next_hop?.mtu)));
    bench.expect_client(1500);
    bench.network.ip(Host::Relay, "link set relc0 mtu 1400");
    eventually("both keep to the link's MTU", || mtus() == [Some(1400); 2]);

    // As a router advertisement does; the kernel tells of this one with the next change only.
    bench.network.enter(Host::Relay, || fs::write("/proc/sys/net/ipv6/conf/relc0/mtu", "1300").unwrap());
    bench.network.ip(Host::Relay, "link set relc0 alias clients");
    eventually("IPv6 keeps to less", || mtus() == [Some(1300), Some(1400)]);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn whether_a_driver_sends_frames_in_several_pieces_is_followed() {
    let bench = Bench::resolved(OURS, CLIENT);
    let scatter_gather = || bench.next_hop().is_some_and(|next_hop| next_hop.scatter_gather);
    // A veth takes redirected frames only while its other end receives by NAPI.
    for (gro, expected) in [("off", false), ("on", true)] {
        bench.network.ethtool(Host::Client, &["-K", "cli0", "gro", gro]);
        eventually(&format!("GRO {gro}"), || scatter_gather() == expected);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn neither_ourselves_nor_interfaces_without_the_program_are_next_hops() {
    let bench = Bench::attached_to(&["relc0"]);
    let elsewhere = [(10, OURS_BY_THE_PEER), (11, Ipv4Addr::LOCALHOST.into()), (12, [198, 18, 2, 2].into())];
    for (index, destination) in elsewhere {
        bench.next_hops.track(index, Way::Out(OURS, destination));
    }
    bench.next_hops.track(INDEX, Way::Out(OURS, CLIENT));
    bench.expect_client(1500);
    let tables = bench.published.0.lock().unwrap();
    for (index, destination) in elsewhere {
        assert_eq!(tables.paths[&index].1, None, "{destination}");
    }
    assert_eq!(tables.interfaces.len(), 1);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_an_administrator_fixed_stays_fixed() {
    let mut bench = Bench::new();
    bench.network.ip(Host::Relay, &format!("neighbour add {CLIENT} lladdr 02:00:00:00:00:99 dev relc0"));
    bench.next_hops.track(INDEX, Way::Out(OURS, CLIENT));
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

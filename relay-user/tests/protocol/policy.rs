//! Whom nobody may reach, and from where nobody is served (RFC 8656 section 21): the holes that servers of this
//! kind are known for, each at every entrance.

use std::net::IpAddr;

use crate::{
    dual_stack::{CLIENT_IPV6, LISTENER_IPV6, PEER_IPV6, RELAY_IPV6, dual_stack},
    pair::{CHANNEL, HOST_IP, LISTENER, PEER, Pair, RELAY_IP},
    wire,
};

const HOST_IPV6: &str = "2a0a:7::7";
/// Local as a whole, as a prefix on the loopback interface is.
const HOST_NETWORK: &str = "77.8.0.0/24";
const EXTERNAL: &str = "203.0.113.99";
const ADMIN_PORT: u16 = 9643;

/// A server that permits whatever may be permitted, with a dual allocation.
fn open_server() -> Pair {
    let mut pair = Pair::with(|config| {
        dual_stack(config);
        config.host_addresses.push(HOST_IPV6.parse::<IpAddr>().unwrap().into());
        config.host_addresses.push(HOST_NETWORK.parse().unwrap());
        config.external_addresses.insert(RELAY_IP.parse().unwrap(), EXTERNAL.parse().unwrap());
    });
    pair.allocate_dual(0);
    pair
}

/// No request installs anything for the peer, and nothing is sent to it.
fn assert_unreachable(peers: &[&str]) {
    let mut pair = open_server();
    for ip in peers {
        let peer =
            if ip.contains(':') { format!("[{ip}]:{ADMIN_PORT}") } else { format!("{ip}:{ADMIN_PORT}") };
        assert_eq!(pair.permit(0, &peer).error(), 403, "{ip}");
        let hidden = [wire::peer(PEER), wire::peer(&peer), wire::peer(PEER_IPV6)];
        assert_eq!(pair.request(0, wire::CREATE_PERMISSION, &hidden).error(), 403, "{ip}");
        assert_eq!(pair.bind(0, CHANNEL, &peer).error(), 403, "{ip}");
        assert!(pair.send(0, &peer, b"x").outputs.is_empty(), "{ip}");
        let totals = pair.server.totals();
        assert_eq!((totals.permissions, totals.channels), (0, 0), "{ip}");
        assert_eq!(pair.flow_counts(), [2, 0, 0], "{ip}");
    }
}

#[test]
fn turn_241_242_unspecified_addresses_are_no_peers() {
    assert_unreachable(&["0.0.0.0", "0.255.255.255", "::"]);
}

#[test]
fn turn_242_loopback_link_local_multicast_and_broadcast_are_no_peers() {
    assert_unreachable(&[
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "::1",
        "fe80::1",
        "febf::1",
        "ff02::1",
        "ff0e::1",
    ]);
}

#[test]
fn turn_242_ipv4_mapped_and_compatible_addresses_are_no_peers() {
    assert_unreachable(&[
        "::ffff:127.0.0.1",
        "::ffff:0.0.0.0",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:0:127.0.0.1",
        &format!("::ffff:{RELAY_IP}"),
        &format!("::ffff:{HOST_IP}"),
    ]);
}

#[test]
fn turn_248_250_dp_076_6to4_teredo_and_isatap_addresses_are_no_peers() {
    assert_unreachable(&[
        "2002:7f00:1::1",
        "2002:808:808::1",
        "2001:0:7f00:1::1",
        "2001:0:808:808:0:0:8000:1",
        "2a00::5efe:127.0.0.1",
        "2a00::200:5efe:8.8.8.8",
    ]);
}

#[test]
fn turn_242_nat64_does_not_lead_to_forbidden_addresses_or_to_ourselves() {
    assert_unreachable(&[
        "64:ff9b::127.0.0.1",
        "64:ff9b::0.0.0.0",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b::255.255.255.255",
        &format!("64:ff9b::{RELAY_IP}"),
        &format!("64:ff9b::{EXTERNAL}"),
        &format!("64:ff9b::{HOST_IP}"),
        "64:ff9b::198.51.100.1",
    ]);
    let mut pair = open_server();
    assert!(pair.permit(0, "[64:ff9b::8.8.8.8]:1").is_success(), "what may be reached may be reached so");
}

#[test]
fn turn_242_private_and_special_addresses_are_no_peers_until_allowed() {
    assert_unreachable(&["10.0.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fd00::1", "fc00::1"]);
}

#[test]
fn turn_242_own_listener_and_admin_port_are_no_peers() {
    assert_unreachable(&[HOST_IP, HOST_IPV6, "198.51.100.1", "2a0a:2::1"]);
    assert_unreachable(&["77.8.0.0", "77.8.0.255", "64:ff9b::77.8.0.9"]);
    assert!(open_server().permit(0, "77.8.1.0:1").is_success(), "the next network is somebody else's");
    let mut pair = open_server();
    for own in [
        LISTENER,
        LISTENER_IPV6,
        &format!("{RELAY_IP}:{ADMIN_PORT}"),
        &format!("{RELAY_IP}:22"),
        &format!("{EXTERNAL}:3478"),
        &format!("[{RELAY_IPV6}]:3478"),
        &format!("[{RELAY_IPV6}]:{ADMIN_PORT}"),
    ] {
        assert_eq!(pair.bind(0, CHANNEL, own).error(), 403, "{own}");
    }
    // A permission is for every port of the address, hairpins included: what is sent decides.
    for relay in [format!("{RELAY_IP}:0"), format!("[{RELAY_IPV6}]:0")] {
        assert!(pair.permit(0, &relay).is_success());
    }
    for own in [format!("{RELAY_IP}:{ADMIN_PORT}"), format!("[{RELAY_IPV6}]:3478")] {
        assert!(pair.send(0, &own, b"x").outputs.is_empty(), "{own}");
    }
}

#[test]
fn turn_244_nobody_outside_passes_for_an_own_address() {
    let mut pair = open_server();
    let [relayed_v4, relayed_v6] =
        [0, 1].map(|n| pair.server.sessions().next().unwrap().relayed[n].address.0);
    pair.permit(0, &format!("{RELAY_IP}:0"));
    pair.permit(0, &format!("[{RELAY_IPV6}]:0"));
    for (relayed, claimed) in [
        (relayed_v4, format!("{RELAY_IP}:50000")),
        (relayed_v4, format!("{EXTERNAL}:50000")),
        (relayed_v6, format!("[{RELAY_IPV6}]:50000")),
        (relayed_v6, format!("[64:ff9b::{HOST_IP}]:50000")),
    ] {
        assert!(pair.peer_sends(relayed, &claimed, b"x").outputs.is_empty(), "{claimed}");
    }
    assert_eq!(pair.drops("own_address"), 4);
}

#[test]
fn turn_061_247_248_249_nothing_is_allocated_or_bound_from_a_tunnel() {
    for source in [
        "[2001:0:808:808::1]:4000",
        "[2002:808:808::1]:4000",
        "[::8.8.8.8]:4000",
        "[2a00::5efe:8.8.8.8]:4000",
    ] {
        let mut pair = open_server();
        let client = pair.add_client_of(source);
        assert_eq!(pair.ask_allocate(client, &[]).error(), 403, "{source}");
        assert_eq!(pair.bind(client, CHANNEL, PEER).error(), 403, "{source}");
        assert_eq!(pair.server.totals().allocations, 1);
        let binding = wire::Builder::new(wire::REQUEST, wire::BINDING, [3; 12]).build();
        assert!(pair.exchange(client, &binding).is_success(), "Binding is not relaying");
    }
    let mut pair = open_server();
    let client = pair.add_client_of(CLIENT_IPV6);
    assert!(pair.ask_allocate(client, &[]).is_success());
}

#[test]
fn turn_240_requests_without_valid_credentials_change_nothing() {
    let mut pair = open_server();
    pair.bind(0, CHANNEL, PEER);
    let before: Vec<_> = pair.server.sessions().collect();
    pair.clients[0].password = "wrong";
    for (method, attributes) in [
        (wire::REFRESH, vec![wire::lifetime(0)]),
        (wire::CREATE_PERMISSION, vec![wire::peer("9.9.9.9:9")]),
        (wire::CHANNEL_BIND, vec![wire::channel_number(CHANNEL + 1), wire::peer("9.9.9.9:9")]),
    ] {
        assert_eq!(pair.request(0, method, &attributes).error(), 401);
        let stranger = wire::Builder::new(wire::REQUEST, method, [1; 12]).attributes(&attributes).build();
        assert_eq!(pair.exchange(0, &stranger).error(), 401);
    }
    assert_eq!(pair.server.sessions().collect::<Vec<_>>(), before);
}

//! A call between two browsers: the client's media is relayed, or both ends' is.

use std::net::SocketAddr;

use xtask::browser::{self, Browser, Call, Report, Side};
use xtask::lab::Family::{self, V4, V6};
use xtask::lab::{RELAY_ADDRESS, Relayed};
use xtask::process;

use crate::capture::{Captured, Captures, Packets};
use crate::scene::{Datapath, PASSWORD, SERVER, Scene, USER};

#[test]
#[ignore = "needs root: cargo xtask test"]
fn one_minute_xdp_native() {
    chromium_call(Datapath::XdpNative, V4, 60);
}

/// From IPv6 to IPv4: a browser asks for an IPv4 relayed address wherever the listener is.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn short_ipv6_xdp_generic() {
    chromium_call(Datapath::XdpGeneric, V6, 10);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn short_userspace() {
    chromium_call(Datapath::Userspace, V4, 10);
}

/// Firefox relays all of its media in Send indications, and binds no channel.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn firefox_xdp_native() {
    let call = call("firefox", Datapath::XdpNative, browser::firefox(), V4, Peer::Direct, 15);
    assert_fast(&call);
    assert_lossless(&call.report);
    let client = &call.captured.client;
    let channel_data = client.relayed(true, |from, to| from == SERVER || to == SERVER);
    assert_eq!(channel_data.packets, 0, "packets in ChannelData");
    for to_server in [true, false] {
        let indications = client.relayed(false, |from, to| if to_server { to } else { from } == SERVER);
        assert!(indications.packets > 100, "{indications:?}");
    }
}

/// Both ends are relayed: no media reaches the other end but from the listener.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn relay_to_relay_xdp_native() {
    assert_fast(&call("browser-hairpin", Datapath::XdpNative, browser::chromium(), V4, Peer::Relayed, 10));
}

/// From indications to a channel and back.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn firefox_relay_to_relay_xdp_native() {
    let call = call("firefox-hairpin", Datapath::XdpNative, browser::firefox(), V4, Peer::Relayed, 15);
    assert_fast(&call);
    assert_lossless(&call.report);
}

fn chromium_call(datapath: Datapath, family: Family, seconds: u64) {
    let call = call("browser", datapath, browser::chromium(), family, Peer::Direct, seconds);
    let (client, server) = (&call.captured.client, family.listener());
    let [channel_data, indications] = [true, false]
        .map(|channel| client.relayed(channel, |from, to| from == server || to == server).packets);
    let all = channel_data + indications;
    assert!(channel_data * 100 >= all * 95, "{channel_data} of {all} relayed packets were ChannelData");
    if datapath.is_xdp() {
        assert_fast(&call);
    } else {
        assert_eq!(call.fast.all().packets, 0, "there is no fast path");
    }
}

/// Where the peer's browser gets its media from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// From the client's relayed transport address.
    Direct,
    /// From the relay's listener: it has an allocation, too.
    Relayed,
}

/// A call that is over.
struct Finished {
    _scene: Scene,
    report: Report,
    captured: Captured,
    fast: Relayed,
    slow: Relayed,
}

/// At least 99 of 100 relayed packets took the fast path.
fn assert_fast(call: &Finished) {
    let (fast, all) = (call.fast.all().packets, (call.fast.all() + call.slow.all()).packets);
    assert!(fast * 100 >= all * 99, "{fast} of {all} took the fast path");
}

fn assert_lossless(report: &Report) {
    for side in [&report.client, &report.peer] {
        for end in &side.inbound {
            let start = side.inbound_at_start.iter().find(|start| start.kind == end.kind);
            assert_eq!(
                end.packets_lost,
                start.map_or(0, |start| start.packets_lost),
                "lost in the call: {end:?}"
            );
        }
    }
}

/// A call of this browser, which is relayed over the listener of this family, with a Chromium: media flows, and the counters are exact.
fn call(
    name: &str,
    datapath: Datapath,
    client_browser: Option<Browser>,
    family: Family,
    peer: Peer,
    seconds: u64,
) -> Finished {
    let client_browser = client_browser.expect("the client's browser is installed");
    let scene = Scene::start(name, datapath);
    let captures = Captures::start(&scene.lab, &scene.artifacts);
    let server = family.listener();
    let report = run_browsers(&scene, &client_browser, server, peer, seconds);
    let captured = captures.finish(&scene.lab);
    let status = scene.relay.status().expect("the relay answers");
    println!("{}: {report:?}\n{}", datapath.name(), scene.relay.status_json().expect("the relay answers"));

    assert_eq!(report.client.local_candidate_type, "relay");
    assert_eq!(report.client.relay_protocol.as_deref(), Some("udp"));
    // The peer may hear from the relayed address before it is told of it, and calls it peer-reflexive then.
    let remote = report.peer.remote_candidate_type.as_str();
    assert!(["relay", "prflx"].contains(&remote), "{remote}");
    assert_media(&report.client, seconds);
    assert_media(&report.peer, seconds);

    let (fast, slow) = (status.fast_path, status.slow_path);
    let is_at_peer = |address: SocketAddr| [V4, V6].map(|family| family.peer(0)).contains(&address.ip());
    let from_server = |packets: &Packets| {
        [true, false].map(|channel| packets.relayed(channel, |from, _| from == server).packets).iter().sum()
    };
    let to_client: u64 = from_server(&captured.client);
    match peer {
        Peer::Direct => {
            let to_peer = captured.peer.datagrams(|from, to| from.ip() == RELAY_ADDRESS && is_at_peer(to));
            let others = captured.peer.datagrams(|from, to| from.ip() != RELAY_ADDRESS && is_at_peer(to));
            assert_eq!(others.packets, 0, "what reached the peer from elsewhere");
            assert_eq!((fast.to_peer + slow.to_peer).packets, to_peer.packets, "packets to the peer");
            assert_eq!((fast.to_client + slow.to_client).packets, to_client, "packets to the client");
        }
        Peer::Relayed => {
            let others = captured.peer.datagrams(|from, to| from != server && is_at_peer(to));
            assert_eq!(others.packets, 0, "what reached the peer from elsewhere");
            let received = to_client + from_server(&captured.peer);
            assert_eq!((fast.hairpin + slow.hairpin).packets, received, "packets to both");
            assert_eq!((fast.all() + slow.all()).packets, received, "nothing goes to peers outside");
        }
    }
    captured.client.assert_clean();
    captured.peer.assert_clean();
    Finished { _scene: scene, report, captured, fast, slow }
}

/// Video was seen, audio heard, and at most one packet in a thousand lost.
fn assert_media(side: &Side, seconds: u64) {
    for kind in ["audio", "video"] {
        let inbound = side.inbound.iter().find(|inbound| inbound.kind == kind);
        let inbound = inbound.unwrap_or_else(|| panic!("no {kind} came in: {side:?}"));
        let expected = inbound.packets_received + inbound.packets_lost;
        assert!(inbound.packets_received > 0, "{inbound:?}");
        assert!(inbound.packets_lost * 1000 <= expected, "{inbound:?}");
        // A busy machine may not keep up with the camera; one frame a second it does.
        assert!(kind == "audio" || inbound.frames_decoded >= Some(seconds), "{inbound:?}");
    }
}

fn run_browsers(scene: &Scene, client: &Browser, server: SocketAddr, peer: Peer, seconds: u64) -> Report {
    let chromium = browser::chromium().expect("Chromium is installed");
    let call = Call {
        lab: &scene.lab,
        server,
        credentials: (USER, PASSWORD),
        client,
        peer: &chromium,
        peer_is_relayed: peer == Peer::Relayed,
        seconds,
        artifacts: &scene.artifacts,
    };
    let mut driver = call.command().expect("artifacts can be written");
    let report = process::output(&mut driver).expect("the browsers can call each other");
    Report::parse(&report).expect("the driver prints a report")
}

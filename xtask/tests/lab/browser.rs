//! A call between two browsers, the client's media relayed.

use xtask::browser::{self, Browser, Call, Report, Side};
use xtask::lab::{PEERS, RELAY_ADDRESS};
use xtask::process;

use crate::capture::{Captured, Captures};
use crate::scene::{Datapath, PASSWORD, SERVER, Scene, USER};

#[test]
#[ignore = "needs root: cargo xtask test"]
fn one_minute_xdp_native() {
    chromium_call(Datapath::XdpNative, 60);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn short_xdp_generic() {
    chromium_call(Datapath::XdpGeneric, 10);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn short_userspace() {
    chromium_call(Datapath::Userspace, 10);
}

/// Firefox relays all of its media in Send indications, and binds no channel.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn firefox_xdp_native() {
    let (_scene, report, captured) = call("firefox", Datapath::XdpNative, browser::firefox(), 10);
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
    let client = &captured.client;
    let channel_data = client.relayed(true, |from, to| from == SERVER || to == SERVER);
    assert_eq!(channel_data.packets, 0, "packets in ChannelData");
    for to_server in [true, false] {
        let indications = client.relayed(false, |from, to| if to_server { to } else { from } == SERVER);
        assert!(indications.packets > 100, "{indications:?}");
    }
}

fn chromium_call(datapath: Datapath, seconds: u64) {
    let (scene, _, captured) = call("browser", datapath, browser::chromium(), seconds);
    let status = scene.relay.status().expect("the relay answers");
    let fast = status.fast_path;
    let [channel_data, indications] = [true, false]
        .map(|channel| captured.client.relayed(channel, |from, to| from == SERVER || to == SERVER).packets);
    let all = channel_data + indications;
    assert!(channel_data * 100 >= all * 95, "{channel_data} of {all} relayed packets were ChannelData");
    let fast_packets = fast.to_peer.packets + fast.to_client.packets;
    if datapath.is_xdp() {
        assert!(
            fast_packets * 100 >= channel_data * 99,
            "{fast_packets} of {channel_data} took the fast path"
        );
    } else {
        assert_eq!(fast_packets, 0, "there is no fast path");
    }
}

/// A call of this browser, which is relayed, with a Chromium: media flows, and the counters are exact.
fn call(
    name: &str,
    datapath: Datapath,
    client_browser: Option<Browser>,
    seconds: u64,
) -> (Scene, Report, Captured) {
    let client_browser = client_browser.expect("the client's browser is installed");
    let scene = Scene::start(name, datapath);
    let captures = Captures::start(&scene.lab, &scene.artifacts);
    let report = run_browsers(&scene, &client_browser, seconds);
    let captured = captures.finish(&scene.lab);
    let status = scene.relay.status().expect("the relay answers");
    println!("{}: {report:?}\n{}", datapath.name(), scene.relay.status_json().expect("the relay answers"));

    assert_eq!(report.client.local_candidate_type, "relay");
    assert_eq!(report.client.relay_protocol.as_deref(), Some("udp"));
    // The peer may hear from the relayed address before it is told of it, and calls it peer-reflexive then.
    let remote = report.peer.remote_candidate_type.as_str();
    assert!(["relay", "prflx"].contains(&remote), "{remote}");
    let others = captured.peer.datagrams(|from, to| from.ip() != RELAY_ADDRESS && to.ip() == PEERS[0]);
    assert_eq!(others.packets, 0, "what reached the peer from elsewhere");
    assert_media(&report.client, seconds);
    assert_media(&report.peer, seconds);

    let (fast, slow) = (status.fast_path, status.slow_path);
    let down =
        [true, false].map(|channel| captured.client.relayed(channel, |from, _| from == SERVER).packets);
    let to_peer = captured.peer.datagrams(|from, to| from.ip() == RELAY_ADDRESS && to.ip() == PEERS[0]);
    assert_eq!((fast.to_peer + slow.to_peer).packets, to_peer.packets, "packets that reached the peer");
    assert_eq!((fast.to_client + slow.to_client).packets, down.iter().sum::<u64>(), "packets to the client");
    captured.client.assert_clean();
    captured.peer.assert_clean();
    (scene, report, captured)
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

fn run_browsers(scene: &Scene, client: &Browser, seconds: u64) -> Report {
    let peer = browser::chromium().expect("Chromium is installed");
    let call = Call {
        lab: &scene.lab,
        server: SERVER,
        credentials: (USER, PASSWORD),
        client,
        peer: &peer,
        seconds,
        artifacts: &scene.artifacts,
    };
    let mut driver = call.command().expect("artifacts can be written");
    let report = process::output(&mut driver).expect("the browsers can call each other");
    Report::parse(&report).expect("the driver prints a report")
}

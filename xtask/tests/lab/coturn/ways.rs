//! Each way that the client can send, and each of its flags that make it ask or send differently, from clients on IPv4
//! and IPv6 to peers on both: nothing is lost, it goes the way that was asked for, the kernel forwards it, and the
//! counters are exact.

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Stdio};

use xtask::lab::{CLIENT_NIC, Family};

use super::{CONFIG, EchoPeer, total, uclient};
use crate::capture::{Captures, Total};
use crate::scene::{Datapath, Scene, on_each_datapath};

/// So many that one in a hundred shows, and few enough that all runs go side by side.
const MESSAGES: u64 = 150;
const CLIENTS: u64 = 2;
/// Not a multiple of 4, so that padding shows.
const LENGTH: u64 = 201;

/// Of the client that refreshes at random: it does either within so many.
const ROUNDS: usize = 2;

/// One run of the client, from an address of its own.
struct Run {
    client: Family,
    /// Of the peer, and so of the relayed transport address.
    peer: Family,
    way: Way,
    flags: &'static [&'static str],
}

/// How data goes between the client and the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As ChannelData, to a peer.
    Channel,
    /// As Send and Data indications, to a peer.
    Indication,
    /// As ChannelData, to another client of the relay.
    HairpinChannel,
    /// As indications, to another client of the relay.
    HairpinIndication,
}

use Family::{V4, V6};
use Way::{Channel, HairpinChannel, HairpinIndication, Indication};

const fn run(client: Family, peer: Family, way: Way, flags: &'static [&'static str]) -> Run {
    Run { client, peer, way, flags }
}

/// `-x` and `-X` ask for an IPv6 or an IPv4 relayed address, `-c` does without RTCP (and so without
/// EVEN-PORT and RESERVATION-TOKEN), `-s` sends indications, `-y` sends to the next client, `-D` pads ChannelData, `-g`
/// asks for DONT-FRAGMENT.
const RUNS: [Run; 24] = [
    run(V4, V4, Channel, &["-X"]),
    run(V4, V6, Channel, &["-x"]),
    run(V6, V4, Channel, &["-X"]),
    run(V6, V6, Channel, &["-x"]),
    run(V4, V4, Indication, &["-X", "-c", "-s"]),
    run(V4, V6, Indication, &["-x", "-c", "-s"]),
    run(V6, V4, Indication, &["-X", "-c", "-s"]),
    run(V6, V6, Indication, &["-x", "-s"]),
    run(V4, V4, HairpinChannel, &["-X", "-c", "-y"]),
    run(V4, V6, HairpinChannel, &["-x", "-c", "-y"]),
    run(V6, V4, HairpinChannel, &["-X", "-c", "-y"]),
    run(V6, V6, HairpinChannel, &["-x", "-c", "-y"]),
    run(V4, V4, HairpinIndication, &["-X", "-c", "-y", "-s"]),
    run(V4, V6, HairpinIndication, &["-x", "-c", "-y", "-s"]),
    run(V6, V4, HairpinIndication, &["-X", "-c", "-y", "-s"]),
    run(V6, V6, HairpinIndication, &["-x", "-c", "-y", "-s"]),
    run(V4, V4, Channel, &["-c"]),
    run(V4, V4, Channel, &["-X", "-c", "-D"]),
    run(V6, V6, Channel, &["-x", "-c", "-D"]),
    run(V4, V6, HairpinChannel, &["-x", "-c", "-y", "-D"]),
    run(V4, V4, Channel, &["-X", "-c", "-g"]),
    run(V6, V6, Channel, &["-x", "-c", "-g"]),
    run(V4, V4, Indication, &["-X", "-c", "-g", "-s"]),
    run(V6, V6, Indication, &["-x", "-c", "-g", "-s"]),
];

on_each_datapath!(turn_021_all_ways_flags_and_families);

/// DP-025, DP-034, DP-035, DP-041, DP-051, DP-054, DP-074, DP-077
fn turn_021_all_ways_flags_and_families(datapath: Datapath) {
    let scene = Scene::with_config("coturn-flags", datapath, CONFIG);
    for run in 0..RUNS.len() {
        for (address, length) in [(address(V4, run), 24), (address(V6, run), 64)] {
            let words = format!("address add {address}/{length} dev {CLIENT_NIC} nodad");
            scene.lab.client().ip(&words).expect("the address is free");
        }
    }
    let captures = Captures::start(&scene.lab, &scene.artifacts);
    let _peer = EchoPeer::start(&scene, &[V4.peer(0), V6.peer(0)]);
    let clients: Vec<_> = RUNS.iter().enumerate().map(|(number, run)| start(&scene, number, run)).collect();
    let outputs: Vec<_> =
        clients.into_iter().map(|client| client.wait_with_output().expect("it ends")).collect();
    let captured = captures.finish(&scene.lab);
    let status = scene.relay.status().expect("the relay answers");
    println!("{}: {}", datapath.name(), scene.relay.status_json().expect("the relay answers"));

    let mut expected = Expected::default();
    for (number, (run, output)) in RUNS.iter().zip(outputs).enumerate() {
        let what = format!("{:?} client, {:?} peer, {:?}", run.client, run.peer, run.flags);
        let text = String::from_utf8_lossy(&output.stdout);
        let log = scene.artifacts.join(format!("uclient-{number}.log"));
        std::fs::write(log, text.as_bytes()).expect("artifacts can be written");
        assert!(output.status.success(), "{what}: {}\n{text}", output.status);
        assert!(text.contains("Total lost packets 0 "), "{what}: {text}");

        let address = address(run.client, number);
        let [up, down] = [true, false].map(|is_up| {
            let select = |channel| {
                captured
                    .client
                    .relayed(channel, |from, to| if is_up { from.ip() } else { to.ip() } == address)
            };
            [select(true), select(false)]
        });
        let wanted = usize::from(matches!(run.way, Indication | HairpinIndication));
        assert!(up[wanted].packets >= CLIENTS * MESSAGES, "{what}: {up:?}");
        assert!(down[wanted].packets >= CLIENTS * MESSAGES, "{what}: {down:?}");
        assert_eq!(up[1 - wanted].packets, 0, "{what}: went another way than the client was told to");
        expected.add(run.way, up[wanted], down[0].plus(down[1]));
        // The kernel leaves a Send indication with DONT-FRAGMENT to the daemon.
        if run.way == Indication && run.flags.contains(&"-g") {
            expected.slow += up[wanted].packets;
        }
    }

    // RTCP goes to the next port.
    let is_echo = |address: SocketAddr| [V4, V6].map(|family| family.peer(0)).contains(&address.ip());
    let to_echo = captured.peer.datagrams(|_, to| is_echo(to));
    let echoed = captured.peer.datagrams(|from, _| is_echo(from));
    let (fast, slow) = (status.fast_path, status.slow_path);
    assert_eq!(to_echo, expected.to_peer, "what the clients sent and what reached the peer");
    assert_eq!(echoed, expected.to_client, "what reached the clients and what the peer sent");
    assert_eq!(total(fast.to_peer + slow.to_peer), expected.to_peer, "to peers, as counted");
    assert_eq!(total(fast.to_client + slow.to_client), expected.to_client, "to clients, as counted");
    assert_eq!(total(fast.hairpin + slow.hairpin), expected.hairpin, "between clients, as counted");
    let others = captured.peer.datagrams(|from, to| !is_echo(from) && !is_echo(to));
    assert_eq!(others.packets, 0, "what goes between clients stays inside");
    if datapath.is_xdp() {
        let all = (fast.all() + slow.all()).packets;
        let unexpected = slow.all().packets - expected.slow;
        assert!(unexpected * 100 <= all, "{unexpected} of {all} packets took the slow path: {slow:?}");
    } else {
        assert_eq!(fast.all().packets, 0, "there is no fast path");
    }
    captured.client.assert_clean();
    captured.peer.assert_clean();
}

/// `-Z` asks for a relayed address of each family, and at random refreshes both or one.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn turn_092_093_dual_allocations_are_refreshed_together_and_apart() {
    let mut scene = Scene::with_config("coturn-dual", Datapath::XdpNative, CONFIG);
    let _peer = EchoPeer::start(&scene, &[V4.peer(0)]);
    let mut clients = Vec::new();
    for family in [V4, V6] {
        for flags in [&[][..], &["-c"]].repeat(ROUNDS) {
            let mut client = uclient(&scene, V4.peer(0));
            client.args(flags).args(["-Z", "-n", "20", "-m", "1", &family.listener().ip().to_string()]);
            clients.push(client.stdout(Stdio::piped()).spawn().expect("coturn's client is installed"));
        }
    }
    for client in clients {
        let output = client.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("Total lost packets 0 "), "{text}");
    }
    assert!(scene.relay.is_running(), "{}", scene.relay.log_tail());
}

/// What the relay should have counted.
#[derive(Debug, Default)]
struct Expected {
    to_peer: Total,
    to_client: Total,
    hairpin: Total,
    /// Packets that only the daemon relays.
    slow: u64,
}

impl Expected {
    fn add(&mut self, way: Way, up: Total, down: Total) {
        if matches!(way, HairpinChannel | HairpinIndication) {
            assert_eq!(up, down, "what the clients sent and what they got");
            self.hairpin = self.hairpin.plus(up);
        } else {
            self.to_peer = self.to_peer.plus(up);
            self.to_client = self.to_client.plus(down);
        }
    }
}

fn start(scene: &Scene, number: usize, run: &Run) -> Child {
    let mut client = uclient(scene, run.peer.peer(0));
    client
        .args(["-n", &MESSAGES.to_string(), "-m", &CLIENTS.to_string(), "-l", &LENGTH.to_string()])
        .args(["-L", &address(run.client, number).to_string()])
        .args(run.flags)
        .arg(run.client.listener().ip().to_string())
        .stdout(Stdio::piped());
    client.spawn().expect("coturn's client is installed")
}

/// The address of one run's clients, which tells it from the others in the captures.
fn address(family: Family, run: usize) -> IpAddr {
    let host = 20 + run as u16;
    match family.client(0) {
        IpAddr::V4(first) => {
            let [a, b, c, _] = first.octets();
            [a, b, c, host as u8].into()
        }
        IpAddr::V6(first) => {
            let mut segments = first.segments();
            segments[7] = host;
            segments.into()
        }
    }
}

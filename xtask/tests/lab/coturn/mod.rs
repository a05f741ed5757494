//! coturn's test client and peer, with captures on both sides: everything is echoed, the kernel forwards all
//! but the first packets of channels, and the counters are exact.

mod flags;
mod hostile;

use std::net::IpAddr;
use std::process::{Child, Command, Stdio};

use xtask::lab::{LISTENER, PEERS, RELAY_ADDRESS, Relayed, Traffic};
use xtask::{process, wait};

use crate::capture::{Captured, Captures, Total};
use crate::scene::{Datapath, PASSWORD, PATIENCE, SERVER, Scene, USER, on_each_datapath};

/// Where coturn's peer echoes.
const ECHO_PORT: u16 = 3480;
/// It chooses its channels from all of RFC 5766's range.
const CONFIG: &str = "rfc5766_channels = true\n";
/// Enough for one packet in a hundred to show.
const MESSAGES: u64 = 1000;
const CLIENTS: u64 = 2;
const LENGTH: u64 = 200;

on_each_datapath!(channels, indications, between_clients);

/// ChannelData to a peer and back.
fn channels(datapath: Datapath) {
    let (counts, captured) = exchange("coturn-channels", datapath, &[]);
    let up = captured.client.relayed(true, |_, to| to == SERVER);
    let down = captured.client.relayed(true, |from, _| from == SERVER);
    assert!(up.packets >= CLIENTS * MESSAGES, "{up:?}");
    assert_exact(&counts, &captured, up, down);
    let fast = counts.fast.to_peer.packets + counts.fast.to_client.packets;
    assert_share(datapath, fast, up.packets + down.packets);
    captured.client.assert_clean();
    captured.peer.assert_clean();
}

/// Send and Data indications, which the slow path relays.
fn indications(datapath: Datapath) {
    let (counts, captured) = exchange("coturn-indications", datapath, &["-s"]);
    let both = |channel: bool, up: bool| {
        captured.client.relayed(channel, |from, to| if up { to == SERVER } else { from == SERVER })
    };
    let (up, down) = (both(true, true).plus(both(false, true)), both(true, false).plus(both(false, false)));
    assert!(both(false, true).packets >= CLIENTS * MESSAGES, "{:?}", both(false, true));
    assert_exact(&counts, &captured, up, down);
    captured.client.assert_clean();
    captured.peer.assert_clean();
}

/// Channels between two clients of this relay: no packet leaves it on the peer side.
fn between_clients(datapath: Datapath) {
    let (counts, captured) = exchange("coturn-between-clients", datapath, &["-y"]);
    let up = captured.client.relayed(true, |_, to| to == SERVER);
    let down = captured.client.relayed(true, |from, _| from == SERVER);
    assert!(up.packets >= CLIENTS * MESSAGES, "{up:?}");
    assert_eq!(up, down, "what the clients sent and what they got");
    assert_eq!(total(counts.fast.hairpin + counts.slow.hairpin), up, "hairpin packets counted");
    let outside = [counts.fast, counts.slow].map(|relayed| relayed.to_peer + relayed.to_client);
    assert_eq!(outside, [Traffic::default(); 2], "nothing goes to peers outside");
    assert_eq!(captured.peer.udp().count(), 0, "nothing leaves the relay on the peer side");
    assert_share(datapath, counts.fast.hairpin.packets, up.packets);
    captured.client.assert_clean();
}

/// What the relay counted during one run of coturn's client.
struct Counts {
    fast: Relayed,
    slow: Relayed,
}

/// Runs coturn's client, which must lose nothing.
fn exchange(name: &str, datapath: Datapath, flags: &[&str]) -> (Counts, Captured) {
    let scene = Scene::with_config(name, datapath, CONFIG);
    let captures = Captures::start(&scene.lab, &scene.artifacts);
    let _peer = EchoPeer::start(&scene, &[PEERS[0].into()]);
    let mut client = uclient(&scene, PEERS[0].into());
    client
        .args(["-n", &MESSAGES.to_string(), "-m", &CLIENTS.to_string(), "-l", &LENGTH.to_string()])
        .args(["-z", "4", "-c", "-X"])
        .args(flags)
        .arg(LISTENER.to_string());
    let output = process::output(&mut client).expect("coturn's client succeeds");
    std::fs::write(scene.artifacts.join("uclient.log"), &output).expect("artifacts can be written");
    assert!(output.contains("Total lost packets 0 "), "{output}");
    let captured = captures.finish(&scene.lab);
    let status = scene.relay.status().expect("the relay answers");
    println!("{name} {}: {}", datapath.name(), scene.relay.status_json().expect("the relay answers"));
    (Counts { fast: status.fast_path, slow: status.slow_path }, captured)
}

/// coturn's client in the client's namespace, for a peer that echoes; the server's address is its last argument.
fn uclient(scene: &Scene, peer: IpAddr) -> Command {
    let mut client = scene.lab.client().command("turnutils_uclient");
    client
        .args(["-u", USER, "-w", PASSWORD, "-e", &peer.to_string(), "-r", &ECHO_PORT.to_string()])
        .stdin(Stdio::null());
    client
}

/// What crossed the client's NIC, what crossed the peer's, and what the relay counted are the same.
fn assert_exact(counts: &Counts, captured: &Captured, up: Total, down: Total) {
    let to_echo = captured.peer.datagrams(|from, to| from.ip() == RELAY_ADDRESS && to.ip() == PEERS[0]);
    let from_echo = captured.peer.datagrams(|from, to| from.ip() == PEERS[0] && to.ip() == RELAY_ADDRESS);
    assert_eq!(up, to_echo, "what the clients sent and what reached the peer");
    assert_eq!(down, from_echo, "what reached the clients and what the peer sent");
    assert_eq!(total(counts.fast.to_peer + counts.slow.to_peer), up, "packets to peers counted");
    assert_eq!(total(counts.fast.to_client + counts.slow.to_client), down, "packets to clients counted");
}

/// At least 99 of 100 packets that crossed the client's NIC took the fast path, if there is one.
fn assert_share(datapath: Datapath, fast: u64, all: u64) {
    if datapath.is_xdp() {
        assert!(fast * 100 >= all * 99, "only {fast} of {all} packets took the fast path");
    } else {
        assert_eq!(fast, 0, "there is no fast path");
    }
}

fn total(traffic: Traffic) -> Total {
    Total { packets: traffic.packets, bytes: traffic.bytes }
}

/// coturn's echo server in the peer's namespace.
struct EchoPeer(Child);

impl EchoPeer {
    fn start(scene: &Scene, addresses: &[IpAddr]) -> Self {
        let mut command = scene.lab.peer().command("turnutils_peer");
        for address in addresses {
            command.args(["-L", &address.to_string()]);
        }
        command
            .args(["-p", &ECHO_PORT.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let peer = Self(command.spawn().expect("coturn is installed"));
        let port = format!(":{ECHO_PORT:04X} ");
        let is_bound = || {
            let sockets = scene.lab.peer().run(|| {
                let tables = ["udp", "udp6"].map(|table| format!("/proc/thread-self/net/{table}"));
                tables.map(|table| std::fs::read_to_string(table).unwrap_or_default()).concat()
            });
            (sockets.matches(&port).count() >= addresses.len()).then_some(())
        };
        wait::until(PATIENCE, is_bound).expect("coturn's peer binds its port");
        peer
    }
}

impl Drop for EchoPeer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

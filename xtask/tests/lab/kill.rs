//! The daemon killed with SIGKILL under traffic: what was established goes on until it expires, nothing else is
//! let in, nobody is told "port unreachable", and the next start serves.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use xtask::lab::{CLIENTS, PEERS, RELAY_ADDRESS};
use xtask::turn_client::TurnClient;
use xtask::turn_client::message::{Class, MessageBuilder, Method, attribute};

use crate::capture::{Captured, Captures};
use crate::scene::{Datapath, PATIENCE, SERVER, Scene, bind, on_each_datapath};

/// Of permissions and channels, and so of flows: long enough for a slow machine to do what comes before it ends.
const LIFETIME: Duration = Duration::from_secs(20);
const CONFIG: &str = "[lifetimes]\npermission = 20\nchannel = 20\n";
/// What the kernel's coarse clock and the time between our look at a clock and a packet's sending may differ.
const TOLERANCE: Duration = Duration::from_secs(1);
const CHANNEL: u16 = 0x4001;
const INTRUDER: &[u8] = b"let me in";

#[test]
#[ignore = "needs root: cargo xtask test"]
fn established_flows_outlive_the_daemon_xdp_native() {
    established_flows_outlive_the_daemon(Datapath::XdpNative);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn established_flows_outlive_the_daemon_xdp_generic() {
    established_flows_outlive_the_daemon(Datapath::XdpGeneric);
}

on_each_datapath!(next_start_serves);

fn established_flows_outlive_the_daemon(datapath: Datapath) {
    let mut scene = Scene::with_config("kill", datapath, CONFIG);
    let captures = Captures::start(&scene.lab, &scene.artifacts);
    let (peer, peer_address) = scene.peer(PEERS[0]);
    let (stranger, _) = scene.peer(PEERS[1]);
    let mut client = scene.client(CLIENTS[0]);
    let (relayed, _) = client.allocate(None).expect("Allocate succeeds");
    let earliest_expiry = Instant::now() + LIFETIME;
    client.channel_bind(CHANNEL, peer_address).expect("ChannelBind succeeds");
    let latest_expiry = Instant::now() + LIFETIME;

    let ended = AtomicBool::new(false);
    let mut call = Call { client: &mut client, sent: Vec::new(), echoed: HashMap::new() };
    let captured = thread::scope(|scope| {
        scope.spawn(|| echo(&peer, &ended));
        let _end = EndOnDrop(&ended);
        call.exchange_until(|call| call.echoed.len() >= 10);
        scene.relay.kill().expect("the daemon can be killed");
        let killed = Instant::now();
        let newcomer = bind(scene.lab.client(), (CLIENTS[1], 0));
        call.exchange_until(|_| {
            knock(&newcomer, &stranger, relayed);
            Instant::now() > latest_expiry + 2 * TOLERANCE
        });
        assert!(call.echoed.values().any(|sent| *sent > killed), "nothing came back after the daemon's end");
        let mut buffer = [0; 100];
        newcomer.set_nonblocking(true).expect("a socket");
        let answer = newcomer.recv(&mut buffer);
        assert!(answer.is_err(), "a dead daemon's listener answered: {answer:?}");
        captures.finish(&scene.lab)
    });

    for (number, sent) in call.sent.iter().enumerate() {
        let echoed = call.echoed.contains_key(&(number as u64));
        if *sent + TOLERANCE < earliest_expiry {
            assert!(echoed, "packet {number}, sent before the expiry, was lost");
        }
        if *sent > latest_expiry + TOLERANCE {
            assert!(!echoed, "packet {number}, sent after the expiry, came back");
        }
    }
    assert!(call.sent.last().is_some_and(|sent| *sent > latest_expiry + TOLERANCE));
    assert_nothing_was_let_in(&captured, peer_address);

    drop(client);
    scene.restart_relay();
    let status = scene.relay.status().expect("the relay answers");
    assert_eq!(status.datapath.mode, datapath.name(), "{status:?}");
    assert_eq!(status.allocations, 0, "a start after a crash is a clean one");
    scene.assert_serves();
}

/// A daemon that was killed leaves nothing that keeps the next one from serving.
fn next_start_serves(datapath: Datapath) {
    let mut scene = Scene::start("kill-restart", datapath);
    let mut client = scene.client(CLIENTS[0]);
    client.allocate(None).expect("Allocate succeeds");
    client.create_permission((PEERS[0], 1)).expect("CreatePermission succeeds");
    for _ in 0..20 {
        scene.relay.kill().expect("the daemon can be killed");
        scene.restart_relay();
        let status = scene.relay.status().expect("the relay answers");
        assert_eq!((status.datapath.mode.as_str(), status.allocations), (datapath.name(), 0));
        scene.assert_serves();
    }
}

/// Numbered packets from the client over the channel, echoed by the peer.
struct Call<'a> {
    client: &'a mut TurnClient,
    /// When each was sent.
    sent: Vec<Instant>,
    /// Those that came back, with the time of their sending.
    echoed: HashMap<u64, Instant>,
}

impl Call<'_> {
    /// Sends and receives until `done`, then receives what is still under way.
    fn exchange_until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "{} of {} came back", self.echoed.len(), self.sent.len());
            let number = self.sent.len() as u64;
            self.sent.push(Instant::now());
            self.client.send_channel_data(CHANNEL, &number.to_be_bytes()).expect("nobody refuses");
            self.receive(Duration::from_millis(20));
        }
    }

    fn receive(&mut self, bound: Duration) {
        let deadline = Instant::now() + bound;
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            let Some(received) = self.client.receive(remaining).expect("nobody refuses") else { break };
            let xtask::turn_client::Received::Channel { number: CHANNEL, data } = received else {
                panic!("only the bound channel carries data: {received:?}");
            };
            let number = u64::from_be_bytes(data.try_into().expect("the peer echoes what was sent"));
            self.echoed.insert(number, self.sent[number as usize]);
        }
    }
}

/// Ends the echo also when an assertion fails: the scope waits for it.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn echo(peer: &UdpSocket, ended: &AtomicBool) {
    let mut buffer = [0; 100];
    peer.set_read_timeout(Some(Duration::from_millis(100))).expect("the timeout is not zero");
    while !ended.load(Ordering::Relaxed) {
        match peer.recv_from(&mut buffer) {
            Ok((length, from)) => drop(peer.send_to(&buffer[..length], from).expect("the peer can send")),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "the peer is refused: {error}");
            }
        }
    }
}

/// What the dead daemon's relay must not let in: a new client's request, and data of a peer without permission.
fn knock(newcomer: &UdpSocket, stranger: &UdpSocket, relayed: SocketAddr) {
    let request = MessageBuilder::new(Class::Request, Method::Allocate, *b"a newcomer's")
        .attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        .build();
    newcomer.send_to(&request, SERVER).expect("the client can send");
    stranger.send_to(INTRUDER, relayed).expect("the peer can send");
}

fn assert_nothing_was_let_in(captured: &Captured, peer: SocketAddr) {
    let unreachables = [captured.client.port_unreachables(), captured.peer.port_unreachables()];
    assert_eq!(unreachables, [0, 0], "ICMP port unreachable, to clients and to peers");
    for (_, _, payload) in captured.client.udp() {
        let intruder = payload.windows(INTRUDER.len()).any(|window| window == INTRUDER);
        assert!(!intruder, "data of a peer without permission reached the client");
    }
    for (source, destination, _) in captured.peer.udp() {
        let relayed = source.ip() == RELAY_ADDRESS;
        assert!(!relayed || destination == peer, "the relay sent to {destination}");
    }
}

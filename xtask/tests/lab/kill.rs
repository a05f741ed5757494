//! The daemon killed with SIGKILL under traffic: what was established goes on until it expires, nothing else is
//! let in, nobody is told "port unreachable", and the next start serves.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use xtask::lab::Family::{self, V4, V6};
use xtask::lab::{CLIENTS, PEERS};
use xtask::turn_client::Received;
use xtask::turn_client::message::{Class, MessageBuilder, Method, attribute};

use crate::capture::{Captured, Captures};
use crate::scene::{Datapath, Scene, bind, on_each_datapath};
use crate::session::{Form, PAIRS, Session};

/// Of permissions and channels, and so of flows: long enough for a slow machine to do what comes before it ends.
const LIFETIME: Duration = Duration::from_secs(20);
const CONFIG: &str = "[lifetimes]\npermission = 20\nchannel = 20\n";
/// What the kernel's coarse clock and the time between our look at a clock and a packet's sending may differ.
const TOLERANCE: Duration = Duration::from_secs(1);
const INTRUDER: &[u8] = b"let me in";

/// DP-017, DP-021, DP-029, DP-031, DP-071
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

/// Of all families and forms.
fn established_flows_outlive_the_daemon(datapath: Datapath) {
    let mut scene = Scene::with_config("kill", datapath, CONFIG);
    let captures = Captures::start(&scene.lab, &scene.artifacts);
    let earliest_expiry = Instant::now() + LIFETIME;
    let mut calls = Calls {
        sessions: PAIRS.map(|families| Session::open(&scene, families)),
        sent: Vec::new(),
        earliest_expiry,
    };
    let latest_expiry = Instant::now() + LIFETIME;
    for session in &mut calls.sessions {
        for form in Form::ALL {
            scene.settle(|| session.exchange(form, b"known by now"));
            session.peer(form).0.set_nonblocking(true).expect("a socket");
        }
    }
    calls.exchange();
    scene.relay.kill().expect("the daemon can be killed");
    let killed = Instant::now();
    assert!(killed < earliest_expiry, "the flows have ended before the daemon: this machine is too slow");
    let intruders = [V4, V6].map(|family| Intruder::new(&scene, family));
    while Instant::now() < latest_expiry + 2 * TOLERANCE {
        calls.exchange();
        for session in &calls.sessions {
            intruders[session.relayed.is_ipv6() as usize].knock(session.relayed);
        }
    }
    let captured = captures.finish(&scene.lab);

    for intruder in &intruders {
        let answer = intruder.newcomer.recv(&mut [0; 100]);
        assert!(answer.is_err(), "a dead daemon's listener answered: {answer:?}");
    }
    let (mut outlived, mut lost, mut in_time) = (BTreeSet::new(), Vec::new(), 0);
    for Sent { at, session, form, echoed } in &calls.sent {
        let what = format!(
            "{:?}, {form:?}, {:?} after the daemon's end",
            PAIRS[*session],
            at.checked_duration_since(killed)
        );
        if *at + TOLERANCE < earliest_expiry {
            in_time += 1;
            outlived.extend((*at > killed && *echoed).then_some((*session, *form)));
            lost.extend((!echoed).then_some(what));
        } else {
            let ended = *at > latest_expiry + TOLERANCE;
            assert!(!(ended && *echoed), "sent after the expiry, and came back: {what}");
        }
    }
    // One checksum in 65,536 looks unfinished: the daemon would have sent that packet.
    assert!(lost.len() * 1000 <= in_time, "{} of {in_time} lost: {lost:?}", lost.len());
    assert_eq!(outlived.len(), PAIRS.len() * Form::ALL.len(), "{outlived:?}");
    assert!(calls.sent.last().is_some_and(|sent| sent.at > latest_expiry + TOLERANCE));
    assert_nothing_was_let_in(&captured, &calls.sessions);

    drop(calls);
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

/// A call between each pair of families, in both forms: numbered data to the peers, who echo it.
struct Calls {
    sessions: [Session; PAIRS.len()],
    sent: Vec<Sent>,
    /// No flow ends before.
    earliest_expiry: Instant,
}

/// Data to a peer. Its place among all is its number.
struct Sent {
    at: Instant,
    session: usize,
    form: Form,
    echoed: bool,
}

impl Calls {
    /// Sends one in each form in each session, and waits a little for what comes back.
    fn exchange(&mut self) {
        let first = self.sent.len();
        for (number, session) in self.sessions.iter_mut().enumerate() {
            for form in Form::ALL {
                let data = (self.sent.len() as u64).to_be_bytes();
                self.sent.push(Sent { at: Instant::now(), session: number, form, echoed: false });
                session.send_to_peer(form, &data);
            }
        }
        let deadline = Instant::now() + Duration::from_millis(200);
        while Instant::now() < deadline && self.sent[first..].iter().any(|sent| !sent.echoed) {
            for session in &mut self.sessions {
                Form::ALL.into_iter().for_each(|form| echo(session, form));
                while let Some(received) =
                    session.client.receive(Duration::from_millis(1)).expect("nobody refuses")
                {
                    note(&mut self.sent, self.earliest_expiry, session, received);
                }
            }
        }
    }
}

fn echo(session: &Session, form: Form) {
    let mut buffer = [0; 100];
    let (peer, _) = session.peer(form);
    loop {
        match peer.recv_from(&mut buffer) {
            Ok((length, from)) => drop(peer.send_to(&buffer[..length], from).expect("the peer can send")),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Err(error) => panic!("the peer is refused: {error}"),
        }
    }
}

fn note(sent: &mut [Sent], earliest_expiry: Instant, session: &Session, received: Received) {
    let (Received::Channel { data, .. } | Received::Indication { data, .. }) = &received;
    let number = u64::from_be_bytes(data.as_slice().try_into().expect("the peer echoes what was sent"));
    let sent = &mut sent[number as usize];
    let from = session.peer(sent.form).1;
    let expected = |form: Form| form.received(from, &number.to_be_bytes());
    // A permission may outlive a channel: then the channel's peer is heard in indications.
    let is_over = Instant::now() > earliest_expiry;
    let is_expected = received == expected(sent.form) || is_over && received == expected(Form::Indication);
    assert!(is_expected, "from {from}, {:?}: {received:?}", sent.form);
    sent.echoed = true;
}

/// What the dead daemon's relay must not let in: a new client's request, and data of a peer without permission.
struct Intruder {
    newcomer: UdpSocket,
    stranger: UdpSocket,
    listener: SocketAddr,
}

impl Intruder {
    fn new(scene: &Scene, family: Family) -> Self {
        let newcomer = bind(scene.lab.client(), (family.client(1), 0));
        newcomer.set_nonblocking(true).expect("a socket");
        Self { newcomer, stranger: scene.peer(family.peer(1)).0, listener: family.listener() }
    }

    fn knock(&self, relayed: SocketAddr) {
        let request = MessageBuilder::new(Class::Request, Method::Allocate, *b"a newcomer's")
            .attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
            .build();
        self.newcomer.send_to(&request, self.listener).expect("the client can send");
        self.stranger.send_to(INTRUDER, relayed).expect("the peer can send");
    }
}

fn assert_nothing_was_let_in(captured: &Captured, sessions: &[Session]) {
    let unreachables = [captured.client.port_unreachables(), captured.peer.port_unreachables()];
    assert_eq!(unreachables, [0, 0], "ICMP port unreachable, to clients and to peers");
    let mut knocked = 0;
    for (_, destination, payload) in captured.peer.udp() {
        knocked +=
            u64::from(payload == INTRUDER && sessions.iter().any(|session| session.relayed == destination));
    }
    assert!(knocked >= sessions.len() as u64, "the stranger has tried: {knocked}");
    for (_, _, payload) in captured.client.udp() {
        let intruder = payload.windows(INTRUDER.len()).any(|window| window == INTRUDER);
        assert!(!intruder, "data of a peer without permission reached the client");
    }
    let is_peer = |address| sessions.iter().any(|session| session.peers.iter().any(|peer| peer.1 == address));
    for (source, destination, _) in captured.peer.udp() {
        let relayed = [V4, V6].map(|family| family.relay_address()).contains(&source.ip());
        assert!(!relayed || is_peer(destination), "the relay sent to {destination}");
    }
}

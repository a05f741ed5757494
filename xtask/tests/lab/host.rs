//! The relay's host stays a host: what is not the relay's reaches the kernel as it would without it, even on the relay's
//! addresses and among its ports, while the daemon runs and when it is gone.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use xtask::lab::Family::{V4, V6};
use xtask::lab::{Namespace, Relayed};

use crate::scene::{Datapath, PATIENCE, Scene, bind, on_each_datapath};
use crate::session::{Form, Session};

const DNS: u16 = 53;
const DHCP: u16 = 68;
/// Among the ports to relay from.
const EPHEMERAL: u16 = 50_053;

on_each_datapath!(host_keeps_what_is_its_own);

/// DP-001, DP-013, DP-077
fn host_keeps_what_is_its_own(datapath: Datapath) {
    let mut scene = Scene::start("host", datapath);
    let sessions = [V4, V6].map(|family| {
        let mut session = Session::open(&scene, (family, family));
        scene.settle(|| session.exchange(Form::Channel, b"settled"));
        session
    });
    let before = scene.relay.status().expect("the relay answers");
    let carried = scene.carried(|| assert_is_host(&scene, &sessions));
    assert_eq!([carried.fast, carried.slow], [Relayed::default(); 2], "the host's own packets were relayed");
    let after = scene.relay.status().expect("the relay answers");
    assert_eq!(after.drops, before.drops, "the host's own packets were dropped");
    scene.relay.kill().expect("the daemon can be killed");
    assert_is_host(&scene, &sessions);
}

fn assert_is_host(scene: &Scene, sessions: &[Session; 2]) {
    let (relay, client, peer) = (scene.lab.relay(), scene.lab.client(), scene.lab.peer());
    for (family, session) in [V4, V6].into_iter().zip(sessions) {
        // On the listener's own port, and on that of a relayed transport address.
        assert_tcp(relay, family.listener(), client);
        assert_tcp(relay, session.relayed, peer);
        // The host asks a server, from a port that it might have relayed from; and has one of its own.
        assert_udp(relay, (family.relay_address(), EPHEMERAL), peer, (family.peer(0), DNS));
        assert_udp(relay, (family.listener().ip(), EPHEMERAL), client, (family.client(0), DNS));
        assert_udp(peer, (family.peer(0), EPHEMERAL), relay, (family.relay_address(), DHCP));
    }
}

/// A program in one namespace is served by another in the other one.
fn assert_tcp(server: &Namespace, address: SocketAddr, client: &Namespace) {
    let listener = server.run(|| TcpListener::bind(address)).expect("no other program has the port");
    let mut near = client.run(|| TcpStream::connect_timeout(&address, PATIENCE)).expect("TCP gets through");
    let (mut far, _) = listener.accept().expect("the client has connected");
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
    }
    // What would be ChannelData, were it UDP.
    let sent = [0x40, 0, 0, 4, 1, 2, 3, 4];
    let mut received = [0; 8];
    near.write_all(&sent).expect("the client can send");
    far.read_exact(&mut received).expect("the server gets it");
    assert_eq!(received, sent);
    far.write_all(&sent).expect("the server can send");
    near.read_exact(&mut received).expect("the client gets it");
    assert_eq!(received, sent);
}

/// One asks, the other one answers.
fn assert_udp(asker: &Namespace, from: (IpAddr, u16), server: &Namespace, to: (IpAddr, u16)) {
    let [asker, server]: [UdpSocket; 2] = [bind(asker, from), bind(server, to)];
    let mut buffer = [0; 100];
    asker.send_to(b"question", to).expect("the host can send");
    let (length, asking) = server.recv_from(&mut buffer).expect("the question arrives");
    assert_eq!((&buffer[..length], asking), (&b"question"[..], SocketAddr::from(from)));
    server.send_to(b"answer", asking).expect("the host can send");
    let (length, answering) = asker.recv_from(&mut buffer).expect("the answer arrives");
    assert_eq!((&buffer[..length], answering), (&b"answer"[..], SocketAddr::from(to)));
}

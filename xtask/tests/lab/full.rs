//! A full flow table: what finds no room there is relayed by the daemon, and room that comes free is used.

use std::net::{SocketAddrV4, UdpSocket};
use std::time::Instant;

use xtask::lab::{CLIENTS, PEERS};
use xtask::turn_client::{Received, TurnClient};

use crate::scene::{Datapath, PATIENCE, Scene};

const CHANNEL: u16 = 0x4000;
const MESSAGES: u64 = 50;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn one_channel_fits_xdp_native() {
    one_channel_fits(Datapath::XdpNative);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn one_channel_fits_xdp_generic() {
    one_channel_fits(Datapath::XdpGeneric);
}

/// Two flows: one channel, both ways.
fn one_channel_fits(datapath: Datapath) {
    let scene = Scene::with_config("full", datapath, "max_flows = 2\n");
    let (peer, address) = scene.peer(PEERS[0]);
    let mut first = bound(&scene, 0, address);
    exchange_until_fast(&scene, &mut first, &peer, 0);
    let mut second = bound(&scene, 1, address);

    let before = scene.relay.status().expect("the relay answers");
    for _ in 0..MESSAGES {
        echo(&mut second, &peer);
    }
    let after = scene.relay.status().expect("the relay answers");
    assert_eq!(after.fast_path, before.fast_path, "no room: the second channel is not in the kernel");
    let slow = |direction: fn(&xtask::lab::Relayed) -> xtask::lab::Traffic| {
        direction(&after.slow_path).packets - direction(&before.slow_path).packets
    };
    assert_eq!(after.datapath.not_installed, 2, "both ways of the second channel wait for room");
    assert_eq!((slow(|path| path.to_peer), slow(|path| path.to_client)), (MESSAGES, MESSAGES));
    for _ in 0..MESSAGES {
        echo(&mut first, &peer);
    }
    let in_kernel = scene.relay.status().expect("the relay answers").fast_path.to_peer.packets;
    assert_eq!(in_kernel, after.fast_path.to_peer.packets + MESSAGES, "the first channel stays there");

    first.refresh(0).expect("the first allocation can be deleted");
    exchange_until_fast(&scene, &mut second, &peer, in_kernel);
    let status = scene.relay.status().expect("the relay answers");
    assert_eq!(status.datapath.not_installed, 0, "no flow waits any more");
}

/// A client with a channel to the peer.
fn bound(scene: &Scene, number: usize, peer: SocketAddrV4) -> TurnClient {
    let mut client = scene.client(CLIENTS[number]);
    client.allocate(None).expect("Allocate succeeds");
    client.channel_bind(CHANNEL, peer).expect("ChannelBind succeeds");
    client
}

/// Exchanges messages until more than `before` went to the peer in the kernel: first the next hops are found.
fn exchange_until_fast(scene: &Scene, client: &mut TurnClient, peer: &UdpSocket, before: u64) {
    let deadline = Instant::now() + PATIENCE;
    while scene.relay.status().expect("the relay answers").fast_path.to_client.packets <= before {
        assert!(Instant::now() < deadline, "the channel never got into the kernel");
        echo(client, peer);
    }
}

fn echo(client: &mut TurnClient, peer: &UdpSocket) {
    let mut buffer = [0; 100];
    client.send_channel_data(CHANNEL, b"echo").expect("the client can send");
    let (length, from) = peer.recv_from(&mut buffer).expect("the peer gets the client's data");
    peer.send_to(&buffer[..length], from).expect("the peer can send");
    let received = client.receive(PATIENCE).expect("the client can receive");
    assert_eq!(received, Some(Received::Channel { number: CHANNEL, data: b"echo".to_vec() }));
}

//! The host reaches the relay through its link into the lab.

use std::net::UdpSocket;

use xtask::lab::{HOST, Lab, PEERS};
use xtask::turn_client::{Received, TurnClient};

use crate::scene::{Datapath, PASSWORD, PATIENCE, SERVER, Scene, USER, on_each_datapath};

on_each_datapath!(host_is_a_client);

fn host_is_a_client(datapath: Datapath) {
    let scene = Scene::start("host-link", datapath);
    scene.lab.link_host().expect("no other lab is linked to this host");
    let socket = UdpSocket::bind((HOST, 0)).expect("the address is the host's");
    let local = socket.local_addr().expect("the socket is bound");
    let mut client = TurnClient::new(socket, SERVER, USER, PASSWORD).expect("the host has a route");
    let mapped = client.binding().expect("Binding succeeds");
    assert_eq!(mapped, local, "nothing translates addresses in the lab");

    let (peer, peer_address) = scene.peer(PEERS[0]);
    let (relayed, _) = client.allocate(None).expect("Allocate succeeds");
    client.channel_bind(0x4000, peer_address).expect("ChannelBind succeeds");
    let mut buffer = [0; 100];
    for _ in 0..100 {
        client.send_channel_data(0x4000, b"from the host").expect("the host can send");
        let (length, from) = peer.recv_from(&mut buffer).expect("the peer gets it");
        assert_eq!((&buffer[..length], from), (&b"from the host"[..], relayed));
        peer.send_to(b"to the host", from).expect("the peer can send");
        let received = client.receive(PATIENCE).expect("the host can receive");
        assert_eq!(received, Some(Received::Channel { number: 0x4000, data: b"to the host".to_vec() }));
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn second_link_is_refused_by_name_of_the_first() {
    let first = Lab::create().expect("a lab can be built");
    first.link_host().expect("no other lab is linked to this host");
    let second = Lab::create().expect("labs do not get in each other's way");
    let error = second.link_host().expect_err("the first link has the route").to_string();
    assert!(error.contains(&format!("tpk-{}", first.id())), "{error}");
    drop(first);
    second.link_host().expect("the first link is gone");
    let probe = UdpSocket::bind((HOST, 0));
    assert!(probe.is_ok(), "the link's address is the host's");
}

//! A full flow table: what finds no room there is relayed by the daemon, and room that comes free is used. Sessions
//! that end leave nothing in it.

use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use xtask::lab::Family::{self, V4, V6};
use xtask::lab::PEERS;
use xtask::turn_client::TurnClient;
use xtask::wait;

use crate::scene::{Datapath, PATIENCE, Scene, echo};

const CHANNEL: u16 = 0x4000;
const MESSAGES: u64 = 50;
/// The allocation's own, and two each, one a direction, of the permission and the channel.
const FLOWS: u64 = 5;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn one_channel_fits_xdp_native() {
    one_channel_fits(Datapath::XdpNative, V4);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn one_channel_fits_xdp_generic() {
    one_channel_fits(Datapath::XdpGeneric, V6);
}

/// There is room for one allocation with its channel.
fn one_channel_fits(datapath: Datapath, family: Family) {
    let scene = Scene::with_config("full", datapath, &format!("max_flows = {FLOWS}\n"));
    let (peer, address) = scene.peer(family.peer(0));
    let mut first = bound(&scene, 0, address);
    exchange_until_fast(&scene, &mut first, &peer, 0);
    let mut second = bound(&scene, 1, address);

    let before = scene.relay.status().expect("the relay answers");
    for _ in 0..MESSAGES {
        echo(&mut second, CHANNEL, &peer);
    }
    let after = scene.relay.status().expect("the relay answers");
    assert_eq!(after.fast_path, before.fast_path, "no room: the second channel is not in the kernel");
    let slow = |direction: fn(&xtask::lab::Relayed) -> xtask::lab::Traffic| {
        direction(&after.slow_path).packets - direction(&before.slow_path).packets
    };
    assert_eq!(after.datapath.not_installed, FLOWS, "those of the second channel wait for room");
    assert_eq!((slow(|path| path.to_peer), slow(|path| path.to_client)), (MESSAGES, MESSAGES));
    for _ in 0..MESSAGES {
        echo(&mut first, CHANNEL, &peer);
    }
    let in_kernel = scene.relay.status().expect("the relay answers").fast_path.to_peer.packets;
    assert_eq!(in_kernel, after.fast_path.to_peer.packets + MESSAGES, "the first channel stays there");

    first.refresh(0).expect("the first allocation can be deleted");
    exchange_until_fast(&scene, &mut second, &peer, in_kernel);
    let status = scene.relay.status().expect("the relay answers");
    assert_eq!(status.datapath.not_installed, 0, "no flow waits any more");
}

const MANY: u64 = 200;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn room_comes_back_xdp_native() {
    room_comes_back(Datapath::XdpNative);
}

/// The table is just large enough for every wave of sessions if the one before left nothing in it.
fn room_comes_back(datapath: Datapath) {
    let scene = Scene::with_config("waves", datapath, &format!("max_flows = {}\n", FLOWS * MANY));
    let (_peer, address) = scene.peer(PEERS[0]);
    let open_files = || scene.relay.open_files().expect("the relay runs");
    let files = open_files();
    for wave in 0..5 {
        let mut clients: Vec<_> = (0..MANY).map(|_| bound(&scene, 0, address)).collect();
        // Counters are used again only after a second, so the flows of a quick wave may have to wait.
        let installed = || {
            let status = scene.relay.status().expect("the relay answers");
            assert_eq!((status.allocations, status.channels), (MANY, MANY), "wave {wave}");
            (status.datapath.not_installed == 0).then_some(())
        };
        wait::until(PATIENCE, installed).unwrap_or_else(|| panic!("no room for all flows in wave {wave}"));
        for client in &mut clients {
            client.refresh(0).expect("the allocation can be deleted");
        }
    }
    let status = scene.relay.status().expect("the relay answers");
    assert_eq!((status.allocations, status.permissions, status.channels), (0, 0, 0));
    // The connection that asked for the status may not be closed yet.
    wait::until(PATIENCE, || (open_files() <= files).then_some(()))
        .unwrap_or_else(|| panic!("{} open files, {files} at the start", open_files()));
}

/// A client with a channel to the peer.
fn bound(scene: &Scene, number: usize, peer: SocketAddr) -> TurnClient {
    let family = Family::of(peer.ip());
    let mut client = scene.client(family.client(number));
    client.allocate_family(family).expect("Allocate succeeds");
    client.channel_bind(CHANNEL, peer).expect("ChannelBind succeeds");
    client
}

/// Exchanges messages until more than `before` went to the peer in the kernel: first the next hops are found.
fn exchange_until_fast(scene: &Scene, client: &mut TurnClient, peer: &UdpSocket, before: u64) {
    let deadline = Instant::now() + PATIENCE;
    while scene.relay.status().expect("the relay answers").fast_path.to_client.packets <= before {
        assert!(Instant::now() < deadline, "the channel never got into the kernel");
        echo(client, CHANNEL, peer);
    }
}

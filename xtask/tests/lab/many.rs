//! Ten thousand allocations at once, of all pairs of families: each is answered, counted and live, and when they are
//! deleted nothing is left.

use std::collections::HashSet;
use std::net::SocketAddr;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use xtask::lab::Family::{self, V4, V6};
use xtask::turn_client::TurnClient;
use xtask::wait;

use crate::scene::{Datapath, PASSWORD, PATIENCE, Scene, USER, bind};

/// Of each pair of the client's family and that of its relayed transport address.
const OF_EACH: usize = 2500;
const PAIRS: [(Family, Family); 4] = [(V4, V4), (V4, V6), (V6, V4), (V6, V6)];
const ALL: u64 = (OF_EACH * PAIRS.len()) as u64;
/// One allocation in so many is tried out.
const SAMPLE: usize = 100;
/// All clients of an address ask at once, which one source of strangers may not.
const CONFIG: &str = "[limits]\nunauthenticated_per_second = 0\n";

#[test]
#[ignore = "needs root: cargo xtask test"]
fn ten_thousand_allocations_xdp_native() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the soft limit may be raised");
    let mut scene = Scene::with_config("many", Datapath::XdpNative, CONFIG);
    let files = scene.relay.open_files().expect("the relay runs");
    let resident = scene.relay.resident_bytes().expect("the relay runs");

    let mut relayed_addresses = HashSet::new();
    let mut allocations = Vec::new();
    for (family, relayed_family) in PAIRS {
        for mut client in clients(&scene, family) {
            let (relayed, _) = client.allocate_family(relayed_family).expect("Allocate succeeds");
            assert_eq!(relayed.ip(), relayed_family.relay_address());
            assert!(relayed_addresses.insert(relayed), "{relayed} was given twice");
            allocations.push((client, relayed));
        }
    }
    let status = scene.relay.status().expect("the relay answers");
    assert_eq!(status.allocations, ALL, "{status:?}");
    let grown = scene.relay.resident_bytes().expect("the relay runs").saturating_sub(resident);
    println!("{ALL} allocations: {} bytes of the daemon's resident memory for each", grown / ALL);
    for (client, relayed) in allocations.iter_mut().step_by(SAMPLE) {
        assert_relays(&scene, client, *relayed);
    }

    for (client, _) in &mut allocations {
        assert_eq!(client.refresh(0).expect("the allocation can be deleted"), 0);
    }
    let status = scene.relay.status().expect("the relay answers");
    assert_eq!((status.allocations, status.permissions, status.channels), (0, 0, 0), "{status:?}");
    // The connection that asked for the status may not be closed yet.
    let is_closed = || (scene.relay.open_files().expect("the relay runs") <= files).then_some(());
    wait::until(PATIENCE, is_closed).expect("every relayed transport address is closed");
    assert!(scene.relay.is_running(), "{}", scene.relay.log_tail());
    scene.assert_serves();
}

/// One half on each of two addresses of the client's side.
fn clients(scene: &Scene, family: Family) -> Vec<TurnClient> {
    let sockets = (0..OF_EACH).map(|number| bind(scene.lab.client(), (family.client(number % 2), 0)));
    let clients = sockets.map(|socket| TurnClient::new(socket, family.listener(), USER, PASSWORD));
    clients.map(|client| client.expect("the listener is on the client's link")).collect()
}

/// Data goes both ways.
fn assert_relays(scene: &Scene, client: &mut TurnClient, relayed: SocketAddr) {
    let (peer, address) = scene.peer(Family::of(relayed.ip()).peer(0));
    client.create_permission(address).expect("CreatePermission succeeds");
    client.send_indication(address, b"there").expect("the client can send");
    let mut buffer = [0; 100];
    let (length, from) = peer.recv_from(&mut buffer).expect("the peer gets the client's data");
    assert_eq!((&buffer[..length], from), (&b"there"[..], relayed));
    peer.send_to(b"and back", relayed).expect("the peer can send");
    let received = client.receive(PATIENCE).expect("the client can receive");
    let expected = xtask::turn_client::Received::Indication { peer: address, data: b"and back".to_vec() };
    assert_eq!(received, Some(expected));
}

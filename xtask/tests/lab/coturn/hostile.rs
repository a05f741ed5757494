//! coturn's client as an adversary, on IPv4 and IPv6: what it does wrong is refused or dropped and counted, and others are
//! served.

use std::process::{Child, Stdio};

use xtask::lab::{Family, PEERS};
use xtask::{process, wait};

use super::{CONFIG, EchoPeer, uclient};
use crate::scene::{Datapath, PATIENCE, Scene};

/// `-N` binds the peer's channel once more under another number. The answer is 400 (RFC 8656 section 12.2), at which
/// the client gives up: it takes its own negative test for a failure.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn turn_152_negative_test_is_refused_with_400() {
    for family in [Family::V4, Family::V6] {
        let scene = Scene::with_config("coturn-negative", Datapath::XdpNative, CONFIG);
        let mut client = uclient(&scene, PEERS[0].into());
        client.args(["-N", "-X", "-c", &family.listener().ip().to_string()]);
        let output = client.output().expect("coturn's client is installed");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("channel bind: error 400"), "{text}");
        assert_eq!(text.matches("error ").count(), text.matches("error 400").count(), "{text}");
        let status = scene.relay.status().expect("the relay answers");
        assert_eq!(status.channels, 1, "the first binding is as it was: {status:?}");
        assert_loss_free(&scene, family);
    }
}

/// `-R` changes bytes of one message in ten, and waits for ever for the answer to a request that it spoilt.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn negative_protocol_test_is_dropped_and_counted() {
    const CLIENTS: usize = 8;
    const SPOILT: u64 = 40;
    let mut scene = Scene::with_config("coturn-protocol", Datapath::XdpNative, CONFIG);
    let mut families = [Family::V4, Family::V6].into_iter().cycle();
    let mut clients: Vec<Spoiler> = Vec::new();
    let dropped = wait::until(PATIENCE, || {
        // One that hangs has done its work; one that ended makes room for the next.
        clients.retain_mut(|client| matches!(client.0.try_wait(), Ok(None)));
        if clients.len() == CLIENTS {
            clients.remove(0);
        }
        clients.push(Spoiler::start(&scene, families.next().expect("a cycle has no end")));
        let drops = scene.relay.status().expect("the relay answers").drops;
        let spoilt = ["fingerprint", "not_stun", "not_turn", "no_channel", "channel_data_length"];
        let spoilt: u64 = spoilt.iter().filter_map(|reason| drops.get(*reason)).sum();
        (spoilt >= SPOILT).then_some(drops)
    });
    let dropped = dropped.expect("spoilt messages are dropped and counted");
    drop(clients);
    println!("dropped: {dropped:?}");
    assert!(scene.relay.is_running(), "{}", scene.relay.log_tail());
    assert_loss_free(&scene, Family::V4);
    assert_loss_free(&scene, Family::V6);
}

/// `-O` connects, asks, and is gone before the answers come, leaving its allocations behind: they end by themselves.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn denial_of_service_leaves_nothing_behind() {
    const CLIENTS: u64 = 100;
    let config = format!("{CONFIG}[lifetimes]\ndefault = 10\nmax = 10\n");
    let scene = Scene::with_config("coturn-denial", Datapath::XdpNative, &config);
    for family in [Family::V4, Family::V6] {
        let mut client = uclient(&scene, PEERS[0].into());
        client.args(["-O", "-X", "-c", "-m", &CLIENTS.to_string(), &family.listener().ip().to_string()]);
        process::output(&mut client).expect("coturn's client succeeds");
    }
    let requests = scene.relay.status().expect("the relay answers").punts["control"];
    assert!(requests >= CLIENTS, "each client asked for something: {requests}");
    let is_empty = || {
        let status = scene.relay.status().expect("the relay answers");
        ((status.allocations, status.permissions, status.channels) == (0, 0, 0)).then_some(())
    };
    wait::until(PATIENCE, is_empty).expect("what is left behind ends with its lifetime");
    let log = std::fs::read_to_string(scene.relay.log()).expect("the daemon has a log");
    assert!(!log.contains("ERROR"), "{log}");
    scene.assert_serves();
}

/// An ordinary run of the client loses nothing.
fn assert_loss_free(scene: &Scene, family: Family) {
    let _peer = EchoPeer::start(scene, &[PEERS[0].into()]);
    let mut client = uclient(scene, PEERS[0].into());
    client.args(["-n", "20", "-m", "2", "-c", "-X", &family.listener().ip().to_string()]);
    let output = process::output(&mut client).expect("coturn's client succeeds");
    assert!(output.contains("Total lost packets 0 "), "{output}");
}

/// A client that spoils its messages, and may never end by itself.
struct Spoiler(Child);

impl Spoiler {
    fn start(scene: &Scene, family: Family) -> Self {
        let mut client = uclient(scene, PEERS[0].into());
        client
            .args(["-R", "-n", "20", "-m", "2", "-c", "-X", &family.listener().ip().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(client.spawn().expect("coturn's client is installed"))
    }
}

impl Drop for Spoiler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

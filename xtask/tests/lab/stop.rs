//! A graceful stop leaves nothing behind.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use xtask::lab::{RELAY_CLIENT_NIC, RELAY_PEER_NIC};
use xtask::wait;

use crate::bpf::{self, Object};
use crate::scene::{Datapath, PATIENCE, Scene, on_each_datapath};
use crate::session::{PAIRS, Session};

on_each_datapath!(nothing_is_left);

/// With allocations, permissions and channels of all families live until the end.
fn nothing_is_left(datapath: Datapath) {
    let mut scene = Scene::start("stop", datapath);
    let _sessions = PAIRS.map(|families| Session::open(&scene, families));
    let objects = bpf::objects_of(scene.relay.pid());
    let has = |wanted: fn(&Object) -> bool| objects.iter().any(wanted);
    assert_eq!(has(|object| matches!(object, Object::Program(_))), datapath.is_xdp(), "{objects:?}");
    assert_eq!(has(|object| matches!(object, Object::Map(_))), datapath.is_xdp(), "{objects:?}");
    assert_eq!(!pins(&scene.lab.bpffs()).is_empty(), datapath.is_xdp(), "pins");
    assert!(udp_sockets(&scene) >= 2 + PAIRS.len(), "the listeners and relayed addresses");

    let status = scene.relay.stop().expect("the daemon stops");
    assert!(status.success(), "{status}");

    for nic in [RELAY_CLIENT_NIC, RELAY_PEER_NIC] {
        assert_eq!(bpf::attached(scene.lab.relay(), nic), None, "program on {nic}");
    }
    assert_eq!(pins(&scene.lab.bpffs()), BTreeSet::new());
    assert_eq!(udp_sockets(&scene), 0, "sockets in the relay's namespace");
    assert!(!scene.lab.admin_socket().exists(), "the administration socket's file");
    // The kernel frees programs and maps a little later than their last reference goes.
    let left = || objects.iter().filter(|object| object.exists()).collect::<Vec<_>>();
    wait::until(PATIENCE, || left().is_empty().then_some(()))
        .unwrap_or_else(|| panic!("{:?} are still in the kernel", left()));
}

/// Everything below a bpffs, but for what the kernel itself puts there (kernel/bpf/preload: `maps.debug`).
fn pins(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let entries = std::fs::read_dir(directory).expect("the lab has a bpffs");
    for entry in entries.collect::<io::Result<Vec<_>>>().expect("the bpffs can be read") {
        if entry.file_type().expect("it has a type").is_dir() {
            found.extend(pins(&entry.path()));
        }
        if entry.path().extension().is_none_or(|extension| extension != "debug") {
            found.insert(entry.path());
        }
    }
    found
}

fn udp_sockets(scene: &Scene) -> usize {
    let count = |table: &str| {
        let table = std::fs::read_to_string(format!("/proc/thread-self/net/{table}"));
        table.expect("procfs is mounted").lines().count() - 1
    };
    scene.lab.relay().run(|| count("udp") + count("udp6"))
}

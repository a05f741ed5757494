//! Network namespaces for one test: peers on loopback are refused always, so relaying needs other addresses.

use std::{
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    process::Command,
    sync::mpsc,
    thread,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    unistd::gettid,
};

use tempfile::TempDir;

use crate::daemon::udp_socket;

/// Moves this thread, and the processes it starts from now on, into a namespace of its own that has
/// 198.18.0.1 and 198.18.0.9, and where clients and peers can have all of 198.18.0.0/15. It ends with the last of
/// them. False, and said so, without the privilege.
pub(crate) fn enter() -> bool {
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => {}
        Err(Errno::EPERM) => {
            eprintln!("SKIPPED: a network namespace needs root");
            return false;
        }
        Err(error) => panic!("unshare: {error}"),
    }
    run("ip", "link set lo up");
    run("ip", "address add 198.18.0.1/32 dev lo");
    // Not a prefix of an address on `lo`, which the daemon takes for its own as a whole.
    run("ip", "route add local 198.18.0.0/15 dev lo");
    run("ip", "address add 198.18.0.9/32 dev lo");
    true
}

/// Makes the veth device `near` with `gateway`/24 in this namespace, its other end with `address`/24 and a default
/// route back in a new one, and opens a socket there. The other namespace lives as long as the socket.
pub(crate) fn behind_veth(near: &str, gateway: Ipv4Addr, address: Ipv4Addr) -> UdpSocket {
    let (thread_is, thread_of) = mpsc::channel();
    let (linked, is_linked) = mpsc::channel();
    let far_end = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        thread_is.send(gettid()).unwrap();
        is_linked.recv().unwrap();
        run("ip", &format!("address add {address}/24 dev far"));
        run("ip", "link set far up");
        // Whole checksums from this side. GRO, and only once the device is up, so that it takes what XDP sends.
        run("ethtool", "-K far tx off gro on");
        run("ip", &format!("route add default via {gateway}"));
        udp_socket(address)
    });
    run("ip", &format!("link add {near} type veth peer name far netns {}", thread_of.recv().unwrap()));
    run("ip", &format!("address add {gateway}/24 dev {near}"));
    run("ip", &format!("link set {near} up"));
    linked.send(()).unwrap();
    far_end.join().unwrap()
}

/// A bpffs of the caller's own, unmounted when dropped.
pub(crate) struct Bpffs(TempDir);

impl Bpffs {
    pub(crate) fn mount() -> Self {
        let directory = tempfile::tempdir().unwrap();
        run("mount", &format!("-t bpf bpf {}", directory.path().display()));
        Self(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // What a test that failed has pinned goes with it.
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

/// What `ip -details link show` says of a device.
pub(crate) fn link(device: &str) -> String {
    let output = Command::new("ip").args(["-details", "link", "show", device]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn run(command: &str, arguments: &str) {
    let output = Command::new(command).args(arguments.split(' ')).output().expect(command);
    assert!(output.status.success(), "{command} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

//! Throwaway networks: a client, a relay and a peer, each in a namespace of its own, joined by veth pairs.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};
use relay_user::datapath::{DatapathMode, XdpOptions};

/// A namespace of the network.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Host {
    /// `cli0`, 198.18.1.2/24 and fd00:1::2/64.
    Client,
    /// `relc0`, 198.18.1.1/24 and fd00:1::1/64, towards the client and `relp0`, 198.18.2.1/24 and fd00:2::1/64, towards
    /// the peer.
    Relay,
    /// `per0`, 198.18.2.2/24 and fd00:2::2/64.
    Peer,
}

/// The relay's interfaces.
pub(crate) const INTERFACES: [&str; 2] = ["relc0", "relp0"];

/// Three namespaces and a bpffs; all gone when it is dropped.
pub(crate) struct Network {
    name: String,
    bpffs: tempfile::TempDir,
}

impl Network {
    /// Interfaces are up and have their addresses when it returns. Offloads are as forwarding on veth needs:
    /// complete checksums, GRO where redirected frames arrive.
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("tpk{}-{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let bpffs = tempfile::tempdir().unwrap();
        let network = Self { name, bpffs };
        run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(network.bpffs()));
        for host in [Host::Client, Host::Relay, Host::Peer] {
            run(Command::new("ip").args(["netns", "add", &network.namespace(host)]));
            network.ip(host, "link set lo up");
            // Nobody else has the addresses, and who looks for one waits seconds.
            network.enter(host, || fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap());
        }
        for (ours, host, theirs, net) in
            [("relc0", Host::Client, "cli0", 1), ("relp0", Host::Peer, "per0", 2)]
        {
            let namespace = network.namespace(host);
            network
                .ip(Host::Relay, &format!("link add {ours} type veth peer name {theirs} netns {namespace}"));
            for (host, interface, number) in [(Host::Relay, ours, 1), (host, theirs, 2)] {
                network.ip(host, &format!("address add 198.18.{net}.{number}/24 dev {interface}"));
                network.ip(host, &format!("address add fd00:{net}::{number}/64 dev {interface}"));
                network.ip(host, &format!("link set {interface} up"));
                network.ethtool(host, &["-K", interface, "tx", "off", "gro", "on"]);
            }
        }
        network
    }

    /// Runs `f` on a thread in the namespace of `host`.
    pub(crate) fn enter<T: Send>(&self, host: Host, f: impl FnOnce() -> T + Send) -> T {
        let namespace = self.namespace_path(host);
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter_namespace(&namespace);
                f()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The same with a runtime of one thread.
    pub(crate) fn block_on<T: Send>(&self, host: Host, f: impl AsyncFnOnce() -> T + Send) -> T {
        self.enter(host, || runtime().block_on(f()))
    }

    /// `ip ARGUMENTS` in the namespace of `host`.
    pub(crate) fn ip(&self, host: Host, arguments: &str) -> String {
        let namespace = self.namespace(host);
        run(Command::new("ip").args(["-n", &namespace]).args(arguments.split_whitespace()))
    }

    /// `ethtool ARGUMENTS` in the namespace of `host`.
    pub(crate) fn ethtool(&self, host: Host, arguments: &[&str]) {
        let namespace = self.namespace(host);
        run(Command::new("ip").args(["netns", "exec", &namespace, "ethtool"]).args(arguments));
    }

    /// The only answer of `ip -json ARGUMENTS`.
    pub(crate) fn ip_json(&self, host: Host, arguments: &str) -> serde_json::Value {
        let text = self.ip(host, &format!("-json -details {arguments}"));
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        answer.get(0).cloned().unwrap_or_default()
    }

    /// Mode (1 native, 2 generic) and id of the XDP program on one of the relay's interfaces.
    pub(crate) fn xdp(&self, interface: &str) -> Option<(u64, u64)> {
        let link = self.ip_json(Host::Relay, &format!("link show dev {interface}"));
        let xdp = link.get("xdp")?;
        Some((xdp["mode"].as_u64()?, xdp["prog"]["id"].as_u64()?))
    }

    /// An interface's index and MAC address.
    pub(crate) fn link(&self, host: Host, interface: &str) -> (u32, [u8; 6]) {
        let link = self.ip_json(host, &format!("link show dev {interface}"));
        let mut mac = [0; 6];
        let text = link["address"].as_str().unwrap();
        for (byte, digits) in mac.iter_mut().zip(text.split(':')) {
            *byte = u8::from_str_radix(digits, 16).unwrap();
        }
        (link["ifindex"].as_u64().unwrap() as u32, mac)
    }

    /// Where this network's bpffs is mounted.
    pub(crate) fn bpffs(&self) -> &Path {
        self.bpffs.path()
    }

    /// Options for a datapath on both of the relay's interfaces.
    pub(crate) fn options(&self, mode: DatapathMode) -> XdpOptions {
        XdpOptions {
            interfaces: INTERFACES.map(str::to_owned).to_vec(),
            mode,
            bpffs: self.bpffs().to_owned(),
            max_flows: 1024,
        }
    }

    /// The namespace of `host` as a file.
    pub(crate) fn namespace_path(&self, host: Host) -> PathBuf {
        Path::new("/run/netns").join(self.namespace(host))
    }

    fn namespace(&self, host: Host) -> String {
        format!("{}-{host:?}", self.name).to_lowercase()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in [Host::Client, Host::Relay, Host::Peer] {
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(host)]).status();
        }
        let _ = Command::new("umount").arg(self.bpffs()).status();
    }
}

/// Moves the calling thread into a network namespace.
pub(crate) fn enter_namespace(path: &Path) {
    setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
}

/// A runtime on the calling thread, so that it stays in the thread's namespace.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Waits until `condition` holds. The bound is for a machine that is far slower than any.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(120), "not within two minutes: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

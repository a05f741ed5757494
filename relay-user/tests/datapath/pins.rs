//! What outlives the process, and what does not.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use aya::programs::loaded_programs;
use relay_common::ABI_VERSION;
use relay_user::datapath::{DatapathMode, OpenError, XdpOptions, detach, open};

use crate::network::{Host, INTERFACES, Network, enter_namespace, eventually, runtime};

/// Where [`daemon`] is to run, and its bpffs.
const NAMESPACE: &str = "TURNPIKE_TEST_NAMESPACE";
const BPFFS: &str = "TURNPIKE_TEST_BPFFS";

/// Not a test by itself: a process that has a datapath open until it is killed, for the tests below.
#[test]
#[ignore = "a helper of other tests"]
fn daemon() {
    let (Some(namespace), Some(bpffs)) = (env::var_os(NAMESPACE), env::var_os(BPFFS)) else { return };
    enter_namespace(Path::new(&namespace));
    runtime().block_on(async {
        let opened = open(XdpOptions {
            interfaces: INTERFACES.map(str::to_owned).to_vec(),
            mode: DatapathMode::XdpNative,
            bpffs: PathBuf::from(bpffs),
            max_flows: 16,
        });
        let opened = opened.await.unwrap();
        println!("open {:?}", opened.warnings);
        loop {
            thread::park();
        }
    });
}

/// Kills its process with SIGKILL when dropped, so that nothing of it is cleaned up.
struct Daemon(Child);

impl Daemon {
    fn start(network: &Network) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "pins::daemon"])
            .env(NAMESPACE, network.namespace_path(Host::Relay))
            .env(BPFFS, network.bpffs())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let daemon = Self(child);
        let opened = lines.find(|line| line.as_ref().is_ok_and(|line| line.ends_with("open []")));
        assert!(opened.is_some(), "the daemon did not start, or with warnings");
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn pins(network: &Network) -> Vec<String> {
    let directory = network.bpffs().join(format!("turnpike/v{ABI_VERSION}"));
    let mut names: Vec<String> = fs::read_dir(directory)
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

/// The pins of a daemon on both interfaces.
fn all_pins(network: &Network) -> Vec<String> {
    let mut names: Vec<String> = INTERFACES
        .map(|interface| format!("link-{}-{interface}", network.link(Host::Relay, interface).0))
        .to_vec();
    names.push("program".to_owned());
    names.sort();
    names
}

/// Nothing of ours is below `bpffs` (some kernels put iterators there).
fn is_clean(bpffs: &Path) -> bool {
    !bpffs.join("turnpike").exists()
}

fn is_loaded(id: u64) -> bool {
    loaded_programs().any(|program| program.is_ok_and(|program| u64::from(program.id()) == id))
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_graceful_stop_leaves_no_pin_program_or_directory() {
    let network = Network::new();
    let id = network.block_on(Host::Relay, async || {
        let opened = open(network.options(DatapathMode::Auto)).await.unwrap();
        assert_eq!(pins(&network), all_pins(&network));
        let id = network.xdp("relc0").unwrap().1;
        assert!(is_loaded(id));
        drop(opened);
        id
    });
    assert!(is_clean(network.bpffs()));
    eventually("the program is unloaded", || !is_loaded(id));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_killed_daemon_leaves_the_program_attached_and_the_next_one_starts_clean() {
    let network = Network::new();
    drop(Daemon::start(&network));
    let left = INTERFACES.map(|interface| network.xdp(interface).expect("still attached").1);
    assert_eq!(pins(&network), all_pins(&network));

    network.block_on(Host::Relay, async || {
        let opened = open(network.options(DatapathMode::Auto)).await.unwrap();
        assert_eq!((opened.mode, &opened.warnings[..]), (DatapathMode::XdpNative, &[][..]));
        assert_eq!(opened.removed.len(), 3, "{:?}", opened.removed);
        assert_eq!(opened.removed.iter().filter(|line| line.ends_with("(detached)")).count(), 2);
        let now = INTERFACES.map(|interface| network.xdp(interface).expect("attached").1);
        assert!(now.iter().all(|id| !left.contains(id)));
        eventually("the old program is unloaded", || !is_loaded(left[0]));
    });
    assert!(is_clean(network.bpffs()));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn detach_removes_what_a_killed_daemon_left() {
    let network = Network::new();
    drop(Daemon::start(&network));
    let left = network.xdp("relc0").expect("still attached").1;
    let removed = network.enter(Host::Relay, || detach(network.bpffs())).unwrap();
    assert_eq!(removed.len(), 3, "{removed:?}");
    assert_eq!(INTERFACES.map(|interface| network.xdp(interface)), [None; 2]);
    assert!(is_clean(network.bpffs()));
    eventually("the program is unloaded", || !is_loaded(left));
    assert!(detach(network.bpffs()).unwrap().is_empty(), "nothing is left to remove");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_daemon_without_xdp_ends_the_flows_of_a_killed_one_too() {
    let network = Network::new();
    drop(Daemon::start(&network));
    network.block_on(Host::Relay, async || {
        let opened = open(network.options(DatapathMode::Userspace)).await.unwrap();
        assert_eq!(opened.removed.len(), 3);
    });
    assert_eq!(network.xdp("relc0"), None);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_running_daemon_keeps_its_pins() {
    let network = Network::new();
    let daemon = Daemon::start(&network);
    let before = INTERFACES.map(|interface| network.xdp(interface).expect("attached"));
    network.block_on(Host::Relay, async || {
        let error = open(network.options(DatapathMode::Auto)).await.unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }), "{error}");
        assert!(error.to_string().contains("--bpffs"), "{error}");
        let error = detach(network.bpffs()).unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }), "{error}");
        let opened = open(network.options(DatapathMode::Userspace)).await.expect("it needs no pins");
        assert!(opened.removed.is_empty());
    });
    assert_eq!(INTERFACES.map(|interface| network.xdp(interface).expect("attached")), before);
    assert_eq!(pins(&network), all_pins(&network));
    drop(daemon);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn without_a_bpffs_the_program_runs_unpinned_and_a_warning_says_so() {
    let network = Network::new();
    let elsewhere = tempfile::tempdir().unwrap();
    network.block_on(Host::Relay, async || {
        let mut options = network.options(DatapathMode::Auto);
        options.bpffs = elsewhere.path().to_owned();
        let opened = open(options).await.unwrap();
        assert_eq!(opened.mode, DatapathMode::XdpNative);
        let [warning] = &opened.warnings[..] else { panic!("{:?}", opened.warnings) };
        assert!(warning.starts_with("not pinned, so established flows end with this process"), "{warning}");
        assert!(warning.contains("mount -t bpf"), "{warning}");
    });
    assert!(is_clean(elsewhere.path()));
    let error = detach(elsewhere.path()).unwrap_err().to_string();
    assert!(error.contains("is not a mounted bpffs"), "{error}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_cannot_be_attached_leaves_no_pins() {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut options = network.options(DatapathMode::XdpNative);
        options.interfaces.push("lo".to_owned());
        open(options).await.unwrap_err();
    });
    assert!(is_clean(network.bpffs()));
}

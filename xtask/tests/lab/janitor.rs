//! A lab is removed however its owner ends.

use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xtask::lab::Lab;
use xtask::wait;

use crate::scene::PATIENCE;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn lab_is_removed_when_its_owner_is_killed() {
    let mut owner = Owner::start();
    let mut inhabitant = owner.inhabit();
    owner.kill(Signal::SIGKILL);
    owner.assert_gone();
    inhabitant.wait().expect("the janitor ends what runs in the lab");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn lab_is_removed_on_sigint_and_sigterm() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut owner = Owner::start();
        owner.kill(signal);
        owner.assert_gone();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn lab_is_removed_after_a_panic() {
    let mut id = String::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let lab = Lab::create().expect("a lab can be built");
        id = lab.id().to_owned();
        assert!(exists(&id));
        panic!("as a test's assertion would");
    }));
    assert!(panicked.is_err());
    assert!(!exists(&id), "the lab is gone when the panic has unwound");
}

/// Owner and janitor killed at once: the next lab sweeps up.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn next_lab_sweeps_up_what_no_janitor_removed() {
    let mut owner = Owner::start();
    kill(owner.janitor(), Signal::SIGKILL).expect("the janitor is ours");
    owner.kill(Signal::SIGKILL);
    assert!(exists(&owner.id), "nobody is left to remove the lab");
    let next = Lab::create().expect("a lab can be built");
    assert!(exists(next.id()));
    assert!(!exists(&owner.id), "the next lab removes it");
}

/// `cargo xtask lab`, linked to the host.
struct Owner {
    process: Child,
    id: String,
}

impl Owner {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(["lab", "--host-link"]).stdout(Stdio::piped());
        let mut process = command.spawn().expect("cargo built xtask");
        let lines = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
        let id = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.strip_prefix("lab ")?.split_once(" is up")?.0.to_owned()));
        let owner = Self { process, id: id.expect("the lab comes up") };
        assert!(exists(&owner.id));
        assert!(Path::new("/sys/class/net").join(format!("tpk-{}", owner.id)).exists());
        owner
    }

    /// Starts a process in the relay's namespace that would never end by itself.
    fn inhabit(&self) -> Child {
        let namespace = format!("--net=/run/netns/turnpike-{}-relay", self.id);
        let mut command = Command::new("nsenter");
        command.args([&namespace, "sleep", "infinity"]);
        command.spawn().expect("nsenter is part of util-linux")
    }

    /// The process that waits for the owner's end.
    fn janitor(&self) -> Pid {
        let processes = std::fs::read_dir("/proc").expect("procfs is mounted").flatten();
        let mut pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<i32>().ok());
        let ours = |pid: &i32| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = command.split(|byte| *byte == 0).collect();
            words.contains(&&b"turnpike-lab-janitor"[..]) && words.contains(&self.id.as_bytes())
        };
        Pid::from_raw(pids.find(ours).expect("the lab has a janitor"))
    }

    fn kill(&mut self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).expect("the owner runs");
        self.process.wait().expect("the owner ends");
    }

    fn assert_gone(&self) {
        let link = PathBuf::from(format!("/sys/class/net/tpk-{}", self.id));
        let gone = || (!exists(&self.id) && !link.exists()).then_some(());
        wait::until(PATIENCE, gone).expect("the janitor removes the lab");
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Ended already, unless the test failed before.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether anything of a lab is there.
fn exists(id: &str) -> bool {
    let namespace = |side| PathBuf::from(format!("/run/netns/turnpike-{id}-{side}"));
    ["client", "relay", "peer"].map(namespace).iter().any(|path| path.exists())
        || Path::new("/run/turnpike-lab").join(id).exists()
}

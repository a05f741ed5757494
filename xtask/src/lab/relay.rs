//! The daemon in the lab: started, asked, stopped and killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use super::{
    LISTENER, LISTENER_V6, Lab, PORT, RELAY_ADDRESS, RELAY_ADDRESS_V6, RELAY_CLIENT_NIC, RELAY_PEER_NIC,
    has_ipv6,
};
use crate::{process, wait};

/// How the daemon is started in the lab.
#[derive(Clone, Debug)]
pub struct RelayOptions {
    /// The binary.
    pub binary: PathBuf,
    /// `--datapath`.
    pub datapath: String,
    /// `--user`: the name.
    pub user: String,
    /// `--user`: the password.
    pub password: String,
    /// A configuration file, if any: it is given with `-c`.
    pub config: Option<PathBuf>,
    /// More options of `turnpike run`.
    pub arguments: Vec<String>,
    /// Where the log goes; appended to.
    pub log: PathBuf,
}

/// A daemon that runs in the relay's namespace. Killed when dropped.
#[derive(Debug)]
pub struct Relay {
    child: Child,
    binary: PathBuf,
    admin_socket: PathBuf,
    log: PathBuf,
}

impl Relay {
    /// Starts the daemon and waits until it serves.
    pub fn start(lab: &Lab, options: &RelayOptions) -> anyhow::Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&options.log)
            .with_context(|| format!("could not open {}", options.log.display()))?;
        let lines_before = std::fs::read_to_string(&options.log)?.lines().count();
        let mut command = lab.relay().command(&options.binary);
        command.arg("run");
        if let Some(config) = &options.config {
            command.arg("-c").arg(config);
        }
        command
            .args(["-i", RELAY_CLIENT_NIC, "-i", RELAY_PEER_NIC])
            .args(["--listen", &format!("udp://{LISTENER}:{PORT}")])
            .args(["--relay-address", &RELAY_ADDRESS.to_string()])
            .args(["--realm", "lab.turnpike.test"])
            .args(["--user", &format!("{}:{}", options.user, options.password)])
            .args(["--allow-peer", "198.18.0.0/15"])
            .args(["--datapath", &options.datapath])
            .args(&options.arguments)
            .arg("--admin-socket")
            .arg(lab.admin_socket())
            .arg("--bpffs")
            .arg(lab.bpffs())
            // Ctrl-C is for us: we then stop the daemon in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if has_ipv6() {
            command
                .args(["--listen", &format!("udp://[{LISTENER_V6}]:{PORT}")])
                .args(["--relay-address", &RELAY_ADDRESS_V6.to_string()])
                .args(["--allow-peer", "fd00:1::/64", "--allow-peer", "fd00:2::/64"]);
        }
        let child = command
            .spawn()
            .with_context(|| format!("could not start {}: build it first", options.binary.display()))?;
        let mut relay = Self {
            child,
            binary: options.binary.clone(),
            admin_socket: lab.admin_socket(),
            log: options.log.clone(),
        };
        relay.wait_until_ready(lines_before)?;
        Ok(relay)
    }

    /// What `turnpike status --json` says.
    pub fn status(&self) -> anyhow::Result<Status> {
        let text = self.status_json()?;
        serde_json::from_str(&text).with_context(|| format!("unexpected status: {text}"))
    }

    /// What `turnpike status --json` says, as text.
    pub fn status_json(&self) -> anyhow::Result<String> {
        self.ask("status")
    }

    /// What `turnpike sessions --json` says, as text.
    pub fn sessions_json(&self) -> anyhow::Result<String> {
        self.ask("sessions")
    }

    /// Stops the daemon as an operator would (SIGTERM) and waits for its end.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        kill(self.pid(), Signal::SIGTERM)?;
        let ended = wait::until(Duration::from_secs(60), || self.child.try_wait().ok().flatten());
        ended.with_context(|| format!("the daemon did not stop on SIGTERM\n{}", self.log_tail()))
    }

    /// Kills the daemon with SIGKILL and waits for its end.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Whether the daemon has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// How many files it has open.
    pub fn open_files(&self) -> anyhow::Result<usize> {
        let directory = format!("/proc/{}/fd", self.pid());
        Ok(std::fs::read_dir(&directory).with_context(|| format!("could not read {directory}"))?.count())
    }

    /// Its resident memory.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?.parse()?;
        Ok(kib * 1024)
    }

    /// The log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(30)..];
        format!("last log lines of {}:\n{}", self.log.display(), tail.join("\n"))
    }

    fn wait_until_ready(&mut self, lines_before: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let log = std::fs::read_to_string(&self.log)?;
            if log.lines().skip(lines_before).any(|line| line.contains("ready")) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the daemon ended with {status} before it served\n{}", self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("the daemon is not ready after two minutes\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn ask(&self, question: &str) -> anyhow::Result<String> {
        let mut command = Command::new(&self.binary);
        command.args([question, "--json", "--admin-socket"]).arg(&self.admin_socket);
        process::output(&mut command).with_context(|| self.log_tail())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if self.is_running() {
            // It may just have ended by itself, which is as good.
            let _ = self.kill();
        }
    }
}

/// `turnpike status --json`, as far as xtask uses it.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// What forwards.
    pub datapath: DatapathStatus,
    /// Listeners, as URIs.
    pub listeners: Vec<String>,
    /// Live allocations.
    pub allocations: u64,
    /// Live permissions.
    pub permissions: u64,
    /// Live channels.
    pub channels: u64,
    /// Forwarded by the datapath.
    pub fast_path: Relayed,
    /// Relayed by the daemon itself.
    pub slow_path: Relayed,
    /// Packets handed to the slow path, by reason.
    pub punts: BTreeMap<String, u64>,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// The datapath part of [`Status`].
#[derive(Clone, Debug, Deserialize)]
pub struct DatapathStatus {
    /// `xdp-native`, `xdp-generic` or `userspace`.
    pub mode: String,
    /// Each interface.
    pub interfaces: Vec<InterfaceStatus>,
    /// Why it is not the best mode that was allowed.
    pub reason: Option<String>,
    /// Flows that it has no room for now.
    pub not_installed: u64,
}

/// One interface of [`DatapathStatus`].
#[derive(Clone, Debug, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// How the program is attached to it.
    pub mode: String,
}

/// Traffic by direction.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Relayed {
    /// From clients to peers.
    pub to_peer: Traffic,
    /// From peers to clients.
    pub to_client: Traffic,
    /// From one allocation of this relay to another.
    pub hairpin: Traffic,
}

/// Packets and bytes of application data.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Relayed {
    /// In whatever direction.
    pub fn all(self) -> Traffic {
        self.to_peer + self.to_client + self.hairpin
    }
}

impl std::ops::Add for Relayed {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            to_peer: self.to_peer + other.to_peer,
            to_client: self.to_client + other.to_client,
            hairpin: self.hairpin + other.hairpin,
        }
    }
}

impl std::ops::Sub for Relayed {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            to_peer: self.to_peer - before.to_peer,
            to_client: self.to_client - before.to_client,
            hairpin: self.hairpin - before.hairpin,
        }
    }
}

impl std::ops::Sub for Traffic {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { packets: self.packets - before.packets, bytes: self.bytes - before.bytes }
    }
}

impl std::ops::Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

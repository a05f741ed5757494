//! What `turnpike check` finds out about the host before the daemon runs on it, changing nothing.

use std::{fmt, fs, io, net::SocketAddr, path::Path};

use nix::sys::{
    statfs::{BPF_FS_MAGIC, statfs},
    utsname::uname,
};

use super::{
    admin::{self, AdminSocketError},
    config::Configuration,
    nic::{NATIVE_MTU_MAX, Nic, veth_remedy},
};
use crate::{
    datapath::{self, DatapathMode, OpenError, Pinned, program::PROGRAM},
    net::Endpoint,
};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub verdict: Verdict,
    /// What was found, and the remedy if it is not well.
    pub text: String,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Well,
    /// The daemon will run, but not as well as it could.
    Warning,
    /// The daemon would not start.
    Failure,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Well => "ok",
            Self::Warning => "warning",
            Self::Failure => "FAILED",
        })
    }
}

/// Looks at everything that the configuration needs of the host. Needs a tokio runtime.
pub async fn preflight(configuration: &Configuration) -> Vec<Finding> {
    let mut preflight = Preflight { mode: configuration.datapath, pinned: Vec::new(), findings: Vec::new() };
    let running = preflight.admin_socket(&configuration.admin_socket);
    if !running {
        preflight.listeners(&configuration.listeners);
    }
    preflight.raw_sockets();
    preflight.pins(&configuration.bpffs, running);
    if configuration.datapath != DatapathMode::Userspace {
        preflight.kernel(&configuration.bpffs);
        for name in &configuration.interfaces {
            match Nic::read(name).await {
                Ok(nic) => preflight.nic(name, &nic),
                Err(error) => preflight.fail(format!("{name}: cannot be looked at: {error}")),
            }
        }
        if configuration.datapath != DatapathMode::XdpGeneric
            && let Some(remedy) = veth_remedy(configuration.interfaces.iter().map(String::as_str))
        {
            preflight.warn(remedy);
        }
        if configuration.interfaces.is_empty() {
            preflight.step_down("no interface to attach to: name one with --interface".to_owned());
        }
    }
    preflight.findings
}

struct Preflight {
    mode: DatapathMode,
    pinned: Vec<Pinned>,
    findings: Vec<Finding>,
}

impl Preflight {
    /// Whether a daemon runs with this socket. That is as it should be, and it holds the ports.
    fn admin_socket(&mut self, path: &Path) -> bool {
        let checked = admin::check(path);
        let running = matches!(checked, Err(AdminSocketError::AlreadyRunning { .. }));
        match checked {
            Ok(()) => self.well(format!("the admin socket {} can be made", path.display())),
            Err(AdminSocketError::AlreadyRunning { pid, path }) => self.well(format!(
                "a turnpike is running (pid {pid}) with the admin socket {}; its ports are not tried",
                path.display()
            )),
            Err(error) => self.fail(error.to_string()),
        }
        running
    }

    /// What turnpikes have pinned. `running` tells that the one to be looked at runs.
    fn pins(&mut self, bpffs: &Path, running: bool) {
        if !is_bpffs(bpffs).unwrap_or(false) {
            return;
        }
        match datapath::pinned(bpffs) {
            Ok(pinned) => self.pinned = pinned,
            Err(error) => self.warn(format!("what turnpikes have pinned cannot be told: {error}")),
        }
        for Pinned { directory, running: in_use, .. } in self.pinned.clone() {
            if !in_use {
                self.well(format!(
                    "{} was left by a crashed turnpike; the next start removes it",
                    directory.display()
                ));
            } else if !running && self.mode != DatapathMode::Userspace {
                self.fail(OpenError::InUse { directory }.to_string());
            }
        }
    }

    fn listeners(&mut self, listeners: &[SocketAddr]) {
        for &address in listeners {
            match Endpoint::listener(address) {
                Ok(_) => self.well(format!("udp://{address} is free")),
                Err(error) => self.fail(error.to_string()),
            }
        }
    }

    /// The daemon runs without, but makes no ICMP errors then.
    fn raw_sockets(&mut self) {
        const NET_RAW: (&str, u32) = ("CAP_NET_RAW", 13);
        if missing_capabilities(&[NET_RAW]).is_ok_and(|missing| !missing.is_empty()) {
            self.warn(
                "CAP_NET_RAW missing here: senders would not hear of a TTL that is used up or of a packet that is too \
                 big; run as root, or by deploy/turnpike.service"
                    .to_owned(),
            );
        }
    }

    fn kernel(&mut self, bpffs: &Path) {
        if PROGRAM.is_none() {
            self.step_down("this build has no kernel program: build it with `cargo xtask build`".to_owned());
        }
        match uname() {
            Ok(system) => self.release(&system.release().to_string_lossy()),
            Err(error) => self.step_down(format!("the kernel's version cannot be read: {error}")),
        }
        match missing_capabilities(&XDP_CAPABILITIES) {
            Ok(missing) if missing.is_empty() => self.well("all capabilities for XDP are there".to_owned()),
            Ok(missing) => self.step_down(format!(
                "{} missing here: run as root, or by deploy/turnpike.service",
                missing.join(", ")
            )),
            Err(error) => self.step_down(format!("the capabilities cannot be read: {error}")),
        }
        match is_bpffs(bpffs) {
            Ok(true) => self.well(format!("{} is a bpffs", bpffs.display())),
            Ok(false) => self.unpinned(bpffs, "it is no bpffs"),
            Err(error) => self.unpinned(bpffs, &error.to_string()),
        }
    }

    fn release(&mut self, release: &str) {
        let (major, minor) = KERNEL_MIN;
        match version(release) {
            Some(version) if version >= KERNEL_MIN => {
                self.well(format!("Linux {release} is new enough for XDP"))
            }
            _ => self.step_down(format!(
                "Linux {release} relays in userspace only: XDP needs Linux {major}.{minor} or newer"
            )),
        }
    }

    /// The daemon runs without, but then nothing outlives it.
    fn unpinned(&mut self, bpffs: &Path, why: &str) {
        self.warn(format!(
            "bpffs {0}: {why}, so flows would end with the daemon, also if it crashes: `mount -t bpf bpf {0}`",
            bpffs.display()
        ));
    }

    fn nic(&mut self, name: &str, nic: &Nic) {
        let driver = nic.driver.as_deref().unwrap_or("unknown");
        if !nic.up {
            self.warn(format!("{name} is down: `ip link set {name} up`"));
        }
        if let Some(id) = nic.xdp_program {
            match self.pinned.iter().find(|pinned| pinned.programs.contains(&id)) {
                Some(Pinned { running: true, .. }) => {
                    self.well(format!("{name} has the XDP program of a turnpike that is running"));
                }
                Some(_) => self.well(format!(
                    "{name} has an XDP program left by a crashed turnpike; the next start removes it"
                )),
                None => self.step_down(format!(
                    "{name} has an XDP program already (`bpftool prog show id {id}`), which is never replaced: \
                     detach it, or leave {name} to it"
                )),
            }
        }
        let generic = self.mode == DatapathMode::XdpGeneric;
        if generic {
            self.well(format!("{name} (driver {driver}): generic mode needs nothing of the driver"));
        } else if !nic.has_native_driver() {
            self.warn(format!(
                "{name} (driver {driver}): the driver is not known to have native XDP; generic mode is slower"
            ));
        } else if nic.mtu > NATIVE_MTU_MAX {
            self.warn(format!(
                "{name} (driver {driver}): an MTU of {} is more than most drivers take for native XDP: \
                 `ip link set {name} mtu {NATIVE_MTU_MAX}` or less",
                nic.mtu
            ));
        } else {
            self.well(format!("{name} (driver {driver}, MTU {}): ready for native XDP", nic.mtu));
        }
    }

    /// A missing requirement of XDP: fatal where XDP was asked for by name.
    fn step_down(&mut self, text: String) {
        if self.mode == DatapathMode::Auto { self.warn(text) } else { self.fail(text) }
    }

    fn well(&mut self, text: String) {
        self.findings.push(Finding { verdict: Verdict::Well, text });
    }

    fn warn(&mut self, text: String) {
        self.findings.push(Finding { verdict: Verdict::Warning, text });
    }

    fn fail(&mut self, text: String) {
        self.findings.push(Finding { verdict: Verdict::Failure, text });
    }
}

/// The oldest kernel whose verifier was seen to accept the XDP program.
const KERNEL_MIN: (u32, u32) = (6, 1);

/// Major and minor number of a kernel's release such as `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn is_bpffs(path: &Path) -> nix::Result<bool> {
    statfs(path).map(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// What XDP needs, with the numbers of linux/capability.h.
const XDP_CAPABILITIES: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

/// Those of `needed` that this process lacks.
fn missing_capabilities(needed: &[(&'static str, u32)]) -> io::Result<Vec<&'static str>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .ok_or_else(|| io::Error::other("no CapEff in /proc/self/status"))?;
    Ok(needed.iter().filter(|(_, bit)| effective >> bit & 1 == 0).map(|(name, _)| *name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(mode: DatapathMode, nic: Nic) -> Vec<Finding> {
        let mut preflight = Preflight { mode, pinned: Vec::new(), findings: Vec::new() };
        preflight.nic("eth0", &nic);
        preflight.findings
    }

    #[test]
    fn a_nic_is_ready_or_says_what_keeps_it_from_it() {
        let ready = Nic { driver: Some("mlx5_core".to_owned()), up: true, mtu: 1500, xdp_program: None };
        let verdict = |mode, nic| findings(mode, nic).iter().map(|finding| finding.verdict).max().unwrap();

        assert_eq!(verdict(DatapathMode::Auto, ready.clone()), Verdict::Well);
        let unknown = Nic { driver: Some("e1000".to_owned()), ..ready.clone() };
        assert_eq!(verdict(DatapathMode::Auto, unknown.clone()), Verdict::Warning);
        assert_eq!(verdict(DatapathMode::XdpGeneric, unknown), Verdict::Well);

        let jumbo = findings(DatapathMode::Auto, Nic { mtu: 9000, ..ready.clone() });
        assert!(jumbo[0].text.contains("ip link set eth0 mtu 3498"), "{jumbo:?}");

        let taken = Nic { xdp_program: Some(42), ..ready };
        assert_eq!(verdict(DatapathMode::Auto, taken.clone()), Verdict::Warning);
        let refused = findings(DatapathMode::XdpNative, taken);
        assert_eq!(refused[0].verdict, Verdict::Failure);
        assert!(refused[0].text.contains("bpftool prog show id 42"), "{refused:?}");
    }

    #[test]
    fn an_old_kernel_is_an_error_where_xdp_was_asked_for_by_name() {
        let verdict = |mode, release: &str| {
            let mut preflight = Preflight { mode, pinned: Vec::new(), findings: Vec::new() };
            preflight.release(release);
            preflight.findings[0].verdict
        };
        for release in ["6.1.0-18-amd64", "6.12.0", "6.18.5", "10.0-rc1"] {
            assert_eq!(verdict(DatapathMode::XdpNative, release), Verdict::Well, "{release}");
        }
        for release in ["6.0.19", "5.10.0-28-amd64", "4.19.0", "what"] {
            assert_eq!(verdict(DatapathMode::Auto, release), Verdict::Warning, "{release}");
            assert_eq!(verdict(DatapathMode::XdpNative, release), Verdict::Failure, "{release}");
            assert_eq!(verdict(DatapathMode::XdpGeneric, release), Verdict::Failure, "{release}");
        }
    }
}

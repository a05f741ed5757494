//! A network namespace that the lab made.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use nix::sched::{CloneFlags, setns};

use crate::process;

/// Whether this kernel speaks IPv6.
pub(super) fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").exists()
}

/// A named network namespace (`ip netns`). The janitor removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: File,
}

impl Namespace {
    /// Makes the namespace `name` with its loopback up.
    ///
    /// Settings that Linux copies from the host's namespace are put back to a plain host's. IPv6 addresses are good
    /// at once, without duplicate address detection, and nobody asks for routers.
    pub(super) fn create(name: String) -> anyhow::Result<Self> {
        process::output(Command::new("ip").args(["netns", "add", &name]))?;
        let path = format!("/run/netns/{name}");
        let handle = File::open(&path).with_context(|| format!("could not open {path}"))?;
        let namespace = Self { name, handle };
        namespace.ip("link set lo up")?;
        namespace.set_sysctl("net/ipv4/ip_forward", "0")?;
        namespace.set_sysctl("net/ipv4/conf/all/rp_filter", "0")?;
        namespace.set_sysctl("net/ipv4/conf/default/rp_filter", "0")?;
        if has_ipv6() {
            for interfaces in ["all", "default"] {
                let settings =
                    [("disable_ipv6", "0"), ("forwarding", "0"), ("accept_dad", "0"), ("accept_ra", "0")];
                for (setting, value) in settings.into_iter().chain([("router_solicitations", "0")]) {
                    namespace.set_sysctl(&format!("net/ipv6/conf/{interfaces}/{setting}"), value)?;
                }
            }
        }
        Ok(namespace)
    }

    /// Its name, as `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run `program` in this namespace.
    ///
    /// Only the network namespace changes: unlike with `ip netns exec`, mounts stay as they are.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let handle = self.handle.as_raw_fd();
        // SAFETY: between fork and exec only setns(2) runs, which is async-signal-safe, on a descriptor that
        // the child inherited and that stays open until exec.
        unsafe {
            command.pre_exec(move || {
                let handle = std::os::fd::BorrowedFd::borrow_raw(handle);
                setns(handle, CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)
            });
        }
        command
    }

    /// Runs `work` in a thread of this process that is in this namespace. Sockets that it opens stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                setns(self.handle.as_fd(), CloneFlags::CLONE_NEWNET)
                    .expect("root may enter a namespace that it made");
                work()
            });
            match worker.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs `ip` with these words.
    pub fn ip(&self, words: &str) -> anyhow::Result<String> {
        process::output(self.command("ip").args(words.split_whitespace()))
            .with_context(|| format!("in namespace {}", self.name))
    }

    /// Runs `ethtool` with these words.
    pub fn ethtool(&self, words: &str) -> anyhow::Result<String> {
        process::output(self.command("ethtool").args(words.split_whitespace()))
            .with_context(|| format!("in namespace {}", self.name))
    }

    /// Sets a network sysctl, named by its path below `/proc/sys`.
    pub fn set_sysctl(&self, name: &str, value: &str) -> anyhow::Result<()> {
        let path = format!("/proc/sys/{name}");
        self.run(|| std::fs::write(&path, value))
            .with_context(|| format!("could not write {value} to {path} in namespace {}", self.name))
    }
}

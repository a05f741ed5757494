//! Debian packages: what the lab is built with, and the clients and tools of the tests.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::{Need, announce};
use crate::privilege::Privilege;
use crate::process;

/// A package, the programs that show that it is there (any one of them), and what it is for.
struct Package {
    name: &'static str,
    programs: &'static [&'static str],
    need: Need,
    why: &'static str,
}

const PACKAGES: &[Package] = &[
    Package { name: "iproute2", programs: &["ip"], need: Need::Lab, why: "the lab's namespaces and links" },
    Package {
        name: "ethtool",
        programs: &["ethtool"],
        need: Need::Lab,
        why: "the lab's offloads, NIC report",
    },
    Package {
        name: "coturn",
        programs: &["turnutils_uclient"],
        need: Need::Test,
        why: "its test client and peer, turnutils_uclient and turnutils_peer",
    },
    Package { name: "nftables", programs: &["nft"], need: Need::Test, why: "the lab's firewall" },
    Package { name: "tcpdump", programs: &["tcpdump"], need: Need::Test, why: "captures" },
    Package { name: "tshark", programs: &["tshark"], need: Need::Test, why: "dissects the captures" },
    Package {
        name: "chromium",
        programs: crate::browser::CHROMIUM,
        need: Need::Test,
        why: "the browser calls",
    },
    Package {
        name: "firefox-esr",
        programs: crate::browser::FIREFOX,
        need: Need::Test,
        why: "the calls of a browser that binds no channel",
    },
    Package { name: "nodejs", programs: &["node"], need: Need::Test, why: "drives the browsers" },
    Package { name: "npm", programs: &["npm"], need: Need::Test, why: "installs the browsers' drivers" },
];

/// Installs the packages that are missing, with apt-get.
pub(super) fn ensure(need: Need) -> anyhow::Result<()> {
    let is_missing = |package: &&Package| {
        package.need <= need && !package.programs.iter().any(|program| process::find(program).is_some())
    };
    let missing: Vec<_> = PACKAGES.iter().filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        announce(&format!("{} (Debian package)", package.name), package.why);
    }
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    let by_hand = format!("apt-get install --no-install-recommends {}", names.join(" "));
    if process::find("apt-get").is_none() {
        bail!("there is no apt-get here: install what Debian calls {}", names.join(", "));
    }
    let privilege = Privilege::detect();
    let Some(mut update) = privilege.command("apt-get") else {
        bail!("installing packages needs root. Run this, then the same command again:\n  sudo {by_hand}");
    };
    process::run(update.args(["-q", "update"]))?;
    let names: Vec<_> = names.into_iter().filter(|name| is_offered(name)).collect();
    if !names.is_empty() {
        install(privilege, &names).with_context(|| format!("by hand: {by_hand}"))?;
    }
    if names.contains(&"coturn") {
        stop_coturn_service(privilege)?;
    }
    Ok(())
}

fn install(privilege: Privilege, names: &[&str]) -> anyhow::Result<()> {
    // `env`, since sudo may not pass variables on.
    let mut command = privilege.command("env").context("root is needed")?;
    command
        .args([
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "-q",
            "install",
            "--yes",
            "--no-install-recommends",
        ])
        .args(names);
    process::run(&mut command)
}

/// Whether apt can install it. Ubuntu, for one, has Chromium only as a snap, which cannot enter the lab.
fn is_offered(package: &str) -> bool {
    let policy = process::output(Command::new("apt-cache").args(["policy", package])).unwrap_or_default();
    let offered = has_candidate(&policy);
    if !offered {
        println!("{package} is not among this system's packages: the tests that need it will be skipped");
    }
    offered
}

fn has_candidate(policy: &str) -> bool {
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate:"));
    candidate.is_some_and(|version| version.trim() != "(none)")
}

/// The package enables a TURN server on this host, which nobody asked for.
fn stop_coturn_service(privilege: Privilege) -> anyhow::Result<()> {
    if !Path::new("/run/systemd/system").exists() {
        println!("coturn: systemd, which would have started its service, does not run here");
        return Ok(());
    }
    println!("coturn: only its test programs are wanted; stopping and disabling its service");
    let mut command = privilege.command("systemctl").context("root is needed")?;
    process::run(command.args(["disable", "--now", "coturn.service"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_without_a_candidate_is_not_offered() {
        assert!(has_candidate("coturn:\n  Installed: (none)\n  Candidate: 4.6.1-1\n"));
        assert!(!has_candidate("chromium:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!has_candidate(""));
    }
}

//! `cargo xtask test`: every tier of tests, and a table of what passed, failed and was
//! skipped.

mod harness;
mod summary;

use std::process::{Command, ExitCode};

use anyhow::bail;

use crate::bootstrap::{Need, bootstrap};
use crate::privilege::Privilege;
use crate::workspace::Profile;
use crate::{browser, build, process, workspace};
use harness::{Binary, Selection};
use summary::{Outcome, Summary};

/// Arguments of `cargo xtask test`.
#[derive(Debug, Default, clap::Args)]
pub struct Arguments {
    /// Only tests whose name contains this; a tier may stand in front: `lab::coturn`.
    filter: Option<String>,
    /// Only this tier; may be given again.
    #[arg(long = "tier", value_enum)]
    tiers: Vec<Tier>,
    /// Do without the BPF toolchain: what needs the kernel program is skipped.
    #[arg(long)]
    userspace: bool,
}

/// A kind of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tier {
    /// Beside the code.
    Unit,
    /// The core under a simulated clock and network, and other integration tests without privileges.
    Protocol,
    /// The kernel program under BPF_PROG_TEST_RUN.
    Program,
    /// The kernel program against the userspace path, packet by packet.
    Differential,
    /// The kernel datapath: maps, attachment, next hops.
    Datapath,
    /// Namespaces, real clients, captures.
    Lab,
}

impl Tier {
    const ALL: [Self; 6] =
        [Self::Unit, Self::Protocol, Self::Program, Self::Differential, Self::Datapath, Self::Lab];

    /// As it is typed, and shown in the summary.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Protocol => "protocol",
            Self::Program => "program",
            Self::Differential => "differential",
            Self::Datapath => "datapath",
            Self::Lab => "lab",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.name() == name)
    }

    /// Whether its ignored tests need the kernel program.
    fn needs_bpf(self) -> bool {
        matches!(self, Self::Program | Self::Differential | Self::Datapath)
    }
}

/// Runs the tests and prints the summary.
pub fn command(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (tiers, filter) = wanted(arguments);
    let privileged_wanted = tiers.iter().any(|tier| !matches!(tier, Tier::Unit | Tier::Protocol));
    let need = match (tiers.contains(&Tier::Lab), privileged_wanted) {
        (true, _) => Need::Test,
        (false, true) => Need::Build,
        (false, false) => Need::Userspace,
    };
    // The daemon's build script wants the toolchain for the protocol tests' daemon, too.
    bootstrap(need.max(Need::Build), arguments.userspace)?;
    // The lab runs the daemon; cargo builds it for tests of its own package only.
    build::build(Profile::Debug, arguments.userspace)?;
    let binaries = harness::build(arguments.userspace)?;
    let privilege = Privilege::detect();
    let mut summary = Summary::default();
    for tier in tiers {
        if tier == Tier::Unit {
            summary.add(tier, harness::documentation_tests(filter.as_deref())?);
        }
        for binary in binaries.iter().filter(|binary| binary.tier == tier) {
            run(binary, filter.as_deref(), privilege, arguments.userspace, &mut summary)?;
        }
    }
    if summary.is_empty() {
        bail!("no test matches {}", arguments.filter.as_deref().unwrap_or("the tiers asked for"));
    }
    print!("{summary}");
    let strict = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    if strict && summary.skipped() > 0 {
        println!("CI is set: a skipped test is a failure");
    }
    let success = summary.failed() == 0 && !(strict && summary.skipped() > 0);
    Ok(if success { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The tiers, and the filter within them, that the arguments ask for.
fn wanted(arguments: &Arguments) -> (Vec<Tier>, Option<String>) {
    let mut tiers = arguments.tiers.clone();
    let mut filter = arguments.filter.clone();
    if let Some(text) = &arguments.filter {
        let (first, rest) = text.split_once("::").map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
        if let Some(tier) = Tier::from_name(first) {
            tiers.push(tier);
            filter = rest.map(str::to_owned);
        }
    }
    if tiers.is_empty() {
        tiers.extend(Tier::ALL);
    }
    (tiers, filter)
}

/// Runs one test binary: what needs no privilege, then what does.
fn run(
    binary: &Binary,
    filter: Option<&str>,
    privilege: Privilege,
    userspace: bool,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    summary.add(binary.tier, binary.run(Command::new(&binary.path), &Selection::unprivileged(filter))?);
    let mut selection = Selection::privileged(filter);
    let mut skip = |selection: &mut Selection, prefix: &str, reason: String| -> anyhow::Result<()> {
        let count = binary.count(&selection.only(prefix))?;
        selection.skip.push(prefix.to_owned());
        if count > 0 {
            summary.add(binary.tier, Outcome::skipped(count, reason));
        }
        Ok(())
    };
    if userspace {
        let reason = "needs the kernel program; --userspace was given";
        // Elsewhere, names say which datapath a test is for.
        let prefix = if binary.tier.needs_bpf() { "" } else { "xdp_" };
        skip(&mut selection, prefix, reason.to_owned())?;
    }
    if let Some(missing) = missing_for_browser() {
        skip(&mut selection, "browser::", format!("the browser tests lack {missing}"))?;
    }
    for (prefix, tool) in TOOLS.iter().filter(|(_, tool)| process::find(tool).is_none()) {
        skip(&mut selection, prefix, format!("`{tool}` is missing"))?;
    }
    if binary.count(&selection)? == 0 {
        return Ok(());
    }
    let Some(command) = privilege.command(&binary.path) else {
        let reason = "needs root: run this as root, or `sudo -v` first, so that sudo needs no password";
        return skip(&mut selection, "", reason.to_owned());
    };
    summary.add(binary.tier, binary.run(command, &selection)?);
    Ok(())
}

/// Programs that lab tests use, with the names of those tests.
const TOOLS: &[(&str, &str)] = &[
    ("coturn::", "turnutils_uclient"),
    ("coturn::", "tshark"),
    ("coturn::", "tcpdump"),
    ("firewall::", "nft"),
    ("firewall::", "tcpdump"),
    ("firewall::", "tshark"),
    ("kill::", "tcpdump"),
    ("kill::", "tshark"),
    ("lengths::", "tcpdump"),
    ("lengths::", "tshark"),
    ("mtu::jumbo", "tcpdump"),
    ("mtu::jumbo", "tshark"),
    ("browser::", "tcpdump"),
    ("browser::", "tshark"),
    ("browser::firefox", "firefox-esr"),
];

fn missing_for_browser() -> Option<&'static str> {
    if browser::chromium().is_none() {
        Some("Chromium")
    } else if process::find("node").is_none() {
        Some("node")
    } else if !browser::has_drivers() {
        Some("playwright-core and puppeteer-core")
    } else {
        None
    }
}

/// Where test binaries expect to run: in their package.
fn package_directory(manifest: &std::path::Path) -> &std::path::Path {
    manifest.parent().unwrap_or_else(|| workspace::root())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tier_in_front_of_a_filter_is_understood() {
        let arguments = |filter: &str| Arguments { filter: Some(filter.to_owned()), ..Arguments::default() };
        assert_eq!(wanted(&arguments("lab::coturn")), (vec![Tier::Lab], Some("coturn".to_owned())));
        assert_eq!(wanted(&arguments("program")), (vec![Tier::Program], None));
        assert_eq!(wanted(&arguments("nonce::stale")), (Tier::ALL.to_vec(), Some("nonce::stale".to_owned())));
        assert_eq!(wanted(&Arguments::default()), (Tier::ALL.to_vec(), None));
    }
}

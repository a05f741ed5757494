//! `cargo xtask soak`: a browser call through the lab's relay that is longer than the lifetimes of permissions (300 s)
//! and channels (600 s), with nonces that expire in between. Media has to flow on across all of these.

mod judge;
mod tap;

use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::bootstrap::{Need, bootstrap};
use crate::browser::{self, Call, Report};
use crate::lab::{self, CLIENT_NIC, Family, Lab, PEER_NIC, Relay, RelayOptions};
use crate::privilege::Privilege;
use crate::workspace::{self, Profile};
use crate::{build, interrupt, process};
use judge::{Direction, Verdict};
use tap::{Seen, Tap};

const USER: &str = "soak";
const PASSWORD: &str = "turnpike";
/// Seconds that a nonce is good for: each of the client's refreshes, some minutes apart, meets a stale one.
const NONCE_LIFE: u64 = 200;
/// Between lines of progress.
const INTERVAL: Duration = Duration::from_secs(30);

/// Arguments of `cargo xtask soak`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How long the call lasts.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// The lab relay's datapath.
    #[arg(long, default_value = "auto", value_parser = ["auto", "xdp-native", "xdp-generic", "userspace"])]
    datapath: String,
    /// Install and build nothing: run what an earlier build left.
    #[arg(long)]
    no_build: bool,
}

/// Makes the call and judges it: the exit status says whether it passed.
pub fn command(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let binary = if arguments.no_build {
        workspace::turnpike(Profile::Release)
    } else {
        bootstrap(Need::Test, false)?;
        build::build(Profile::Release, false)?
    };
    if Privilege::detect() != Privilege::Root {
        bail!(
            "the lab makes network namespaces: run this as root, for example with\n  sudo -E $(which cargo) xtask soak"
        );
    }
    let chromium = browser::chromium().context("Chromium is not installed")?;
    if process::find("node").is_none() || !browser::has_drivers() {
        bail!("node or the browsers' drivers are not installed: see what was said about npm above");
    }
    interrupt::watch()?;
    let lab = Lab::create()?;
    let artifacts = lab::artifacts("soak")?;
    let config = artifacts.join("turnpike.toml");
    std::fs::write(&config, format!("[lifetimes]\nnonce = {NONCE_LIFE}\n"))?;
    let relay = Relay::start(
        &lab,
        &RelayOptions {
            binary,
            datapath: arguments.datapath.clone(),
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
            config: Some(config),
            arguments: Vec::new(),
            log: artifacts.join("turnpike.log"),
        },
    )?;
    let taps = Taps {
        client: Tap::start(lab.client(), CLIENT_NIC, tap::at_client)?,
        peer: Tap::start(lab.peer(), PEER_NIC, tap::at_peer)?,
    };
    let call = Call {
        lab: &lab,
        server: Family::V4.listener(),
        credentials: (USER, PASSWORD),
        client: &chromium,
        peer: &chromium,
        peer_is_relayed: false,
        seconds: arguments.minutes * 60,
        artifacts: &artifacts,
    };
    let driver = call.command()?.stdout(Stdio::piped()).spawn().context("could not start node")?;
    println!("a call of {} minutes; every {} s a line:", arguments.minutes, INTERVAL.as_secs());
    let report = watch(driver, &relay, &taps)?;
    let verdict = Verdict::new(&report, &taps.client.finish()?, &taps.peer.finish()?, arguments.minutes);
    let status = relay.status()?;
    println!("\ndatapath: {}\n{verdict}", status.datapath.mode);
    println!("drops: {:?}", status.drops.iter().filter(|(_, count)| **count > 0).collect::<Vec<_>>());
    Ok(if verdict.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A tap at each far end of the relay's links.
struct Taps {
    client: Tap,
    peer: Tap,
}

/// Shows how it goes until the call has ended.
fn watch(mut driver: Child, relay: &Relay, taps: &Taps) -> anyhow::Result<Report> {
    let mut stdout = driver.stdout.take().expect("stdout is piped");
    // A thread reads: what the driver prints may be longer than a pipe holds.
    let output = std::thread::spawn(move || std::io::read_to_string(&mut stdout));
    let mut due = Instant::now() + INTERVAL;
    let status = loop {
        if let Some(status) = driver.try_wait()? {
            break status;
        }
        if interrupt::requested() {
            driver.kill()?;
            driver.wait()?;
            bail!("interrupted");
        }
        if Instant::now() >= due {
            due += INTERVAL;
            println!("{}", progress(&taps.client.seen(), &taps.peer.seen(), relay)?);
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let output = output.join().expect("the reader does not panic")?;
    if !status.success() {
        bail!("the browsers' driver ended with {status}\n{}", relay.log_tail());
    }
    Report::parse(&output)
}

fn progress(client: &Seen, peer: &Seen, relay: &Relay) -> anyhow::Result<String> {
    let status = relay.status()?;
    let [to_peer, to_client] = Direction::both(client, peer);
    let since_start =
        to_peer.received.last().zip(to_peer.received.first()).map_or(0, |(last, first)| last - first);
    Ok(format!(
        "{}  to the peer {} packets, largest gap {} ms | to the client {}, {} ms | stale nonces {} | {} in kernel",
        judge::clock(Duration::from_nanos(since_start)),
        to_peer.received.len(),
        to_peer.largest_gap().length.as_millis(),
        to_client.received.len(),
        to_client.largest_gap().length.as_millis(),
        client.stale_nonces,
        (status.fast_path.to_peer + status.fast_path.to_client).packets,
    ))
}

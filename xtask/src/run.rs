//! `cargo xtask run`.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::bootstrap::{Need, bootstrap};
use crate::demo_call::{DemoCall, Progress};
use crate::lab::{self, LISTENER, LISTENER_V6, Lab, Relay, RelayOptions, Status, Traffic};
use crate::privilege::Privilege;
use crate::workspace::{self, Profile};
use crate::{build, host_report, interrupt, process};

const USER: &str = "demo";
const PASSWORD: &str = "turnpike";
/// So that coturn's client can be tried, which chooses its channels from all of RFC 5766's range.
const CONFIG: &str = "rfc5766_channels = true\n";

/// Arguments of `cargo xtask run`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// End by itself after so many seconds.
    #[arg(long, value_name = "N", conflicts_with = "daemon")]
    seconds: Option<u64>,
    /// The lab relay's datapath.
    #[arg(long, default_value = "auto", conflicts_with = "daemon",
        value_parser = ["auto", "xdp-native", "xdp-generic", "userspace"])]
    datapath: String,
    /// Do without the BPF toolchain: the relay runs in userspace only.
    #[arg(long)]
    userspace: bool,
    /// Install and build nothing: run what an earlier build left.
    #[arg(long)]
    no_build: bool,
    /// Options of `turnpike run`: serve this host's interfaces instead of the lab.
    #[arg(last = true)]
    daemon: Vec<String>,
}

/// Runs the relay in the lab, or on this host.
pub fn command(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if !arguments.daemon.is_empty() {
        return serve_host(arguments);
    }
    let binary = built(arguments, Need::Lab)?;
    match Privilege::detect() {
        Privilege::Root => {}
        Privilege::Sudo => return again_as_root(),
        Privilege::Missing => bail!(
            "everything is built; the lab makes network namespaces, which needs root. Run\n  {}",
            process::display(Command::new("sudo").args(own_command_line()?))
        ),
    }
    interrupt::watch()?;
    host_report::print()?;
    let lab = Lab::create()?;
    let host_link = lab.link_host();
    let artifacts = lab::artifacts("run")?;
    let config = artifacts.join("turnpike.toml");
    std::fs::write(&config, CONFIG).with_context(|| format!("could not write {}", config.display()))?;
    let options = RelayOptions {
        binary,
        datapath: arguments.datapath.clone(),
        user: USER.to_owned(),
        password: PASSWORD.to_owned(),
        config: Some(config),
        arguments: Vec::new(),
        log: artifacts.join("turnpike.log"),
    };
    let mut relay = Relay::start(&lab, &options)?;
    let mut call = DemoCall::start(&lab, USER, PASSWORD).with_context(|| relay.log_tail())?;
    introduce(&lab, &relay, &options.binary, host_link)?;
    show_rates(&relay, &mut call, arguments.seconds)?;
    drop(call);
    let status = relay.stop()?;
    println!("the relay has stopped ({status}); the lab is removed");
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Replaces this process by the daemon.
fn serve_host(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let binary = built(arguments, Need::Build)?;
    let mut command = if Privilege::detect() == Privilege::Root {
        Command::new(binary)
    } else {
        let mut command = Command::new("sudo");
        command.arg("--").arg(binary);
        command
    };
    command.arg("run").args(&arguments.daemon);
    // The arguments may hold passwords: they are not shown.
    let program = command.get_program().to_owned();
    Err(command.exec()).with_context(|| format!("could not run {}", program.display()))
}

/// The daemon, built unless that is done already.
fn built(arguments: &Arguments, need: Need) -> anyhow::Result<PathBuf> {
    if arguments.no_build {
        return Ok(workspace::turnpike(Profile::Release));
    }
    bootstrap(need, arguments.userspace)?;
    build::build(Profile::Release, arguments.userspace)
}

/// Runs this very command under sudo, which asks for no password here.
fn again_as_root() -> anyhow::Result<ExitCode> {
    let mut command = Command::new("sudo");
    command.arg("-n").args(own_command_line()?);
    Err(command.exec()).context("could not run sudo")
}

/// This command, to be run as root, who may have no Rust toolchain: nothing is left to build.
fn own_command_line() -> anyhow::Result<Vec<OsString>> {
    let mut words = Vec::new();
    if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
        words.extend(["env".into(), [OsString::from("CARGO_TARGET_DIR="), target].into_iter().collect()]);
    }
    words.push(std::env::current_exe()?.into());
    words.extend(std::env::args_os().skip(1).filter(|argument| argument != "--no-build"));
    words.push("--no-build".into());
    Ok(words)
}

fn introduce(lab: &Lab, relay: &Relay, binary: &Path, host_link: anyhow::Result<()>) -> anyhow::Result<()> {
    let datapath = relay.status()?.datapath;
    println!(
        "\nThe lab is up: a relay with two NICs, a client and a peer, in namespaces turnpike-{}-*.",
        lab.id()
    );
    match datapath.reason {
        None => println!("  datapath   {}", datapath.mode),
        Some(reason) => println!("  datapath   {} ({reason})", datapath.mode),
    }
    println!("  TURN URI   turn:{LISTENER}:3478?transport=udp");
    println!("             turn:[{LISTENER_V6}]:3478?transport=udp, from the client's namespace");
    println!("  user       {USER}");
    println!("  password   {PASSWORD}");
    println!("  log        {}", workspace::relative(relay.log()).display());
    println!(
        "  sessions   {} sessions --admin-socket {}",
        workspace::relative(binary).display(),
        lab.admin_socket().display()
    );
    match host_link {
        Ok(()) => println!(
            "A browser on this machine can use it too:\n  \
             new RTCPeerConnection({{iceTransportPolicy: \"relay\", iceServers: [{{urls: \
             \"turn:{LISTENER}:3478\", username: \"{USER}\", credential: \"{PASSWORD}\"}}]}})"
        ),
        Err(error) => println!("This machine cannot reach it: {error:#}"),
    }
    println!(
        "A demonstration call flows: 50 packets a second of 160 bytes, each way. Ctrl-C ends it.\n\
         (rates: to the peer + to the client; echoes and their round trip)\n"
    );
    Ok(())
}

/// Prints the rates: each second in place on a terminal, else a line every five seconds.
fn show_rates(relay: &Relay, call: &mut DemoCall, seconds: Option<u64>) -> anyhow::Result<()> {
    let in_place = std::io::stdout().is_terminal();
    let interval = Duration::from_secs(if in_place { 1 } else { 5 });
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut before = (Instant::now(), relay.status()?);
    while !interrupt::requested() {
        let due = before.0 + interval;
        let next = end.map_or(due, |end| end.min(due));
        while Instant::now() < next && !interrupt::requested() {
            std::thread::sleep(Duration::from_millis(50));
        }
        // Ctrl-C reaches the daemon too: then there is nobody to ask.
        if interrupt::requested() {
            break;
        }
        let now = (Instant::now(), relay.status()?);
        let line = rate_line(&before, &now, &call.progress()?);
        if in_place {
            print!("\r\x1b[K{line}");
            std::io::stdout().flush()?;
        } else {
            println!("{line}");
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        before = now;
    }
    if in_place {
        println!();
    }
    Ok(())
}

fn rate_line(before: &(Instant, Status), after: &(Instant, Status), call: &Progress) -> String {
    let seconds = (after.0 - before.0).as_secs_f64();
    let rate = |after: Traffic, before: Traffic| (after.packets - before.packets) as f64 / seconds;
    let (fast, fast_before) = (after.1.fast_path, before.1.fast_path);
    let (slow, slow_before) = (after.1.slow_path, before.1.slow_path);
    let slow_rate = rate(slow.to_peer, slow_before.to_peer)
        + rate(slow.to_client, slow_before.to_client)
        + rate(slow.hairpin, slow_before.hairpin);
    let hairpin = match rate(fast.hairpin, fast_before.hairpin) {
        0.0 => String::new(),
        rate => format!(", {rate:.0} hairpin"),
    };
    // Fits a terminal of 80 columns, or it could not be redrawn in place.
    format!(
        "fast path {:.0}+{:.0} pps{hairpin} | slow path {slow_rate:.0} pps | {} of {} echoed, {:.0} us",
        rate(fast.to_peer, fast_before.to_peer),
        rate(fast.to_client, fast_before.to_client),
        call.echoed,
        call.sent,
        call.round_trip.as_secs_f64() * 1e6,
    )
}

//! `turnpike run`: the daemon.

use std::process::ExitCode;

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::{SigHandler, Signal, signal},
};
use tokio::{
    signal::unix::{SignalKind, signal as signal_stream},
    sync::mpsc,
    task::LocalSet,
};

use super::{log, options::ServerOptions, privileges, server};
use crate::{
    control::{
        admin::{self, AdminSocket},
        config::{Configuration, Note},
        nic::veth_remedy,
    },
    datapath::{self, XdpOptions},
    net::{Driver, DriverOptions, Endpoint},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  turnpike run -i eth0 --user alice:SECRET
  turnpike run -c /etc/turnpike/turnpike.toml --datapath xdp-generic
  turnpike run -i eth0 -i eth1 --relay-address 10.0.0.5 --external-ip 203.0.113.7/10.0.0.5 --user alice:SECRET";

/// Questions of the admin API that may wait for the driver.
const QUERIES: usize = 16;

pub(super) fn run(options: ServerOptions, log_level: Option<&str>) -> anyhow::Result<ExitCode> {
    let configuration = options.configuration()?;
    log::start(log_level, configuration.log_format);
    for note in &configuration.notes {
        match note {
            Note::Default(text) => tracing::info!("{text}"),
            Note::Warning(text) => tracing::warn!("{text}"),
        }
    }
    raise_open_files();
    abort_on_panic();
    super::runtime()?.block_on(LocalSet::new().run_until(serve(configuration)))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(configuration: Configuration) -> anyhow::Result<()> {
    let mut terminate = signal_stream(SignalKind::terminate())?;
    let mut interrupt = signal_stream(SignalKind::interrupt())?;
    // A terminal that is closed must not leave the program on the NICs.
    let mut hangup = signal_stream(SignalKind::hangup())?;

    // First what fails when another daemon runs, so that its pins are left alone.
    let (_admin_socket, admin_listener) = AdminSocket::bind(&configuration.admin_socket)?;
    let listeners = configuration
        .listeners
        .iter()
        .map(|&address| Endpoint::listener(address))
        .collect::<Result<_, _>>()?;
    let server = server::build(&configuration)?;
    // The socket's directory may be anybody's; from here on nothing takes more, and the datapath starts a thread.
    if let Err(error) = privileges::drop_capabilities() {
        tracing::warn!("privileges that serving does not take are kept: {error}");
    }
    let opened = datapath::open(XdpOptions {
        interfaces: configuration.interfaces.clone(),
        mode: configuration.datapath,
        bpffs: configuration.bpffs.clone(),
        max_flows: configuration.max_flows,
    })
    .await?;
    for removed in &opened.removed {
        tracing::warn!("a crashed daemon had left this in the kernel; removed: {removed}");
    }
    for warning in &opened.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(remedy) = veth_remedy(opened.native_interfaces()) {
        tracing::warn!("{remedy}");
    }
    let datapath_info = (&opened).into();
    let ready = ready_line(&configuration, &opened);
    let driver = Driver::start(DriverOptions {
        server,
        datapath: opened.datapath,
        datapath_info,
        listeners,
        log_addresses: configuration.log_addresses,
    })?;
    let (queries, mut asked) = mpsc::channel(QUERIES);
    let admin = tokio::spawn(admin::serve(admin_listener, queries));

    tracing::info!("{ready}");
    let received = loop {
        tokio::select! {
            Some(query) = asked.recv() => driver.answer(query),
            _ = terminate.recv() => break Signal::SIGTERM,
            _ = interrupt.recv() => break Signal::SIGINT,
            _ = hangup.recv() => break Signal::SIGHUP,
        }
    };
    tracing::info!("stopping on {received}; a second signal ends at once");
    restore_signals()?;
    admin.abort();
    driver.shutdown();
    Ok(())
}

/// What tells operators and scripts that clients are served.
fn ready_line(configuration: &Configuration, opened: &datapath::Opened) -> String {
    let listeners = configuration.listeners.iter().map(|address| format!("udp://{address}"));
    let interfaces = opened.interfaces.iter().map(|interface| interface.name.as_str()).collect::<Vec<_>>();
    let attached =
        if interfaces.is_empty() { String::new() } else { format!(" on {}", interfaces.join(", ")) };
    format!(
        "ready: serving {} in realm {}, media in {}{attached}",
        listeners.collect::<Vec<_>>().join(", "),
        configuration.realm,
        opened.mode,
    )
}

/// Each relayed address is a socket or two, so the soft limit of open files goes up to the hard one.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(limit) => tracing::debug!("at most {limit} open files, up to two for each relayed address"),
        Err(error) => tracing::warn!("the limit of open files stays as it is: {error}"),
    }
}

/// A panic in the task of one socket would leave a daemon that is deaf there and looks healthy. As a crash it
/// is seen, the service manager starts the daemon anew, and established flows go on meanwhile.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// From here on a signal ends the process without more ado.
fn restore_signals() -> nix::Result<()> {
    for number in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // SAFETY: the default action runs no code of ours.
        unsafe { signal(number, SigHandler::SigDfl)? };
    }
    Ok(())
}

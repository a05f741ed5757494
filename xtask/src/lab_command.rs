//! `cargo xtask lab`.

use anyhow::bail;

use crate::bootstrap::{Need, bootstrap};
use crate::interrupt;
use crate::lab::Lab;
use crate::privilege::Privilege;

/// Arguments of `cargo xtask lab`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Make the relay's namespace reachable from the host.
    #[arg(long)]
    host_link: bool,
}

/// Keeps a lab until it is interrupted.
pub fn command(arguments: &Arguments) -> anyhow::Result<()> {
    if Privilege::detect() != Privilege::Root {
        bail!(
            "the lab makes network namespaces: run this as root, for example with\n  sudo -E $(which cargo) xtask lab"
        );
    }
    bootstrap(Need::Lab, true)?;
    interrupt::watch()?;
    let lab = Lab::create()?;
    if arguments.host_link {
        lab.link_host()?;
    }
    println!("lab {} is up until Ctrl-C. Enter it with", lab.id());
    for namespace in [lab.client(), lab.relay(), lab.peer()] {
        println!("  nsenter --net=/run/netns/{}", namespace.name());
    }
    interrupt::wait();
    Ok(())
}

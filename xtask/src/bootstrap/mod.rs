//! Installs what this machine lacks and the command at hand needs; names each thing, and why, before it does.
//!
//! Nothing that is there already is installed again, and only Debian packages need root.

mod apt;
mod bpf_linker;
mod browser_driver;
mod packages;
mod rust_src;

/// What the command at hand needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The userspace datapath: nothing but Rust.
    Userspace,
    /// The BPF toolchain.
    Build,
    /// That, and what the lab is built with.
    Lab,
    /// That, and the clients, captures and browsers of the tests.
    Test,
}

/// Installs what is missing. Packages that cannot be had are reported by the tests that need them.
pub fn bootstrap(need: Need, userspace: bool) -> anyhow::Result<()> {
    if need >= Need::Build && !userspace {
        rust_src::ensure()?;
        bpf_linker::ensure()?;
    }
    if need >= Need::Lab {
        packages::ensure(need)?;
    }
    if need >= Need::Test {
        browser_driver::ensure()?;
    }
    Ok(())
}

/// Tells the user what is installed, and why, before it happens.
fn announce(what: &str, why: &str) {
    println!("installing {what}: {why}");
}

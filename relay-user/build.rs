//! Builds the kernel program with aya-build, where the machine has what that takes.
//!
//! Without rust-src or bpf-linker the daemon is built with the userspace datapath alone, and a cargo warning
//! says so. `TURNPIKE_REQUIRE_BPF=1` makes an error of it. (The variable needs no watching: while something
//! is missing this script runs at every build, and otherwise the variable decides nothing.)

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};

fn main() -> Result<()> {
    println!("cargo::rustc-check-cfg=cfg(bpf_program)");
    // aya-build watches relay-ebpf alone; a changed layout must not leave a stale program.
    for path in ["build.rs", "../relay-common", "../Cargo.lock", "../rust-toolchain.toml"] {
        println!("cargo::rerun-if-changed={path}");
    }

    let missing = missing_tools()?;
    if missing.is_empty() {
        return build_program();
    }
    for Missing { path, remedy, .. } in &missing {
        println!("cargo::rerun-if-changed={}", path.display());
        println!("cargo::warning=no kernel program in this build, userspace datapath only: {remedy}");
    }
    if env::var_os("TURNPIKE_REQUIRE_BPF").is_some_and(|value| value == "1") {
        let names: Vec<_> = missing.iter().map(|missing| missing.name).collect();
        bail!(
            "TURNPIKE_REQUIRE_BPF=1, but {} missing (`cargo xtask build` installs it)",
            names.join(" and ")
        );
    }
    Ok(())
}

fn build_program() -> Result<()> {
    let path = env::join_paths(program_path()?).context("PATH")?;
    // All are inherited by the cargo that aya-build runs.
    // SAFETY: this is the only thread.
    unsafe {
        // Makes aya-build ask for `-Z build-std=core` and a stable toolchain accept it.
        env::set_var("RUSTC_BOOTSTRAP", "1");
        // aya-build makes a warning of every line on stderr, progress included.
        env::set_var("CARGO_TERM_QUIET", "true");
        env::set_var("PATH", path);
    }

    let object = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR")?).join("turnpike");
    if object.exists() {
        fs::remove_file(&object)?;
    }
    aya_build::build_ebpf(
        [Package { name: "relay-ebpf", root_dir: "../relay-ebpf", ..Package::default() }],
        Toolchain::Custom(&toolchain()?),
    )
    .context("building relay-ebpf")?;
    // AYA_BUILD_SKIP leaves none.
    if object.exists() {
        println!("cargo::rustc-cfg=bpf_program");
    }
    Ok(())
}

/// The toolchain of the cargo that runs this script, so that no other one is ever installed or used: rustup
/// says which; else the one that the workspace pins.
fn toolchain() -> Result<String> {
    if let Ok(name) = env::var("RUSTUP_TOOLCHAIN") {
        return Ok(name);
    }
    let pinned = fs::read_to_string("../rust-toolchain.toml").context("reading rust-toolchain.toml")?;
    let channel = pinned
        .lines()
        .find_map(|line| line.strip_prefix("channel = "))
        .context("rust-toolchain.toml names no channel")?;
    Ok(channel.trim_matches('"').to_owned())
}

struct Missing {
    name: &'static str,
    /// Where it will be once installed.
    path: PathBuf,
    remedy: &'static str,
}

fn missing_tools() -> Result<Vec<Missing>> {
    let mut missing = Vec::new();

    let rustc = env::var_os("RUSTC").context("RUSTC")?;
    let sysroot =
        Command::new(rustc).args(["--print", "sysroot"]).output().context("rustc --print sysroot")?;
    let sysroot = String::from_utf8(sysroot.stdout).context("rustc --print sysroot")?;
    let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml");
    if !core.exists() {
        missing.push(Missing {
            name: "rust-src",
            path: core,
            remedy: "rust-src is missing (`cargo xtask build` or `rustup component add rust-src`)",
        });
    }

    if !program_path()?.iter().any(|directory| directory.join("bpf-linker").exists()) {
        missing.push(Missing {
            name: "bpf-linker",
            path: cargo_bin()?.join("bpf-linker"),
            remedy: "bpf-linker is missing (`cargo xtask build` or `cargo install --locked bpf-linker@0.10.4`)",
        });
    }
    Ok(missing)
}

/// Where programs are looked for: PATH, and where cargo installs them in case PATH lacks it.
fn program_path() -> Result<Vec<PathBuf>> {
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::split_paths(&path).chain([cargo_bin()?]).collect())
}

fn cargo_bin() -> Result<PathBuf> {
    let home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => {
            PathBuf::from(env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?).join(".cargo")
        }
    };
    Ok(home.join("bin"))
}

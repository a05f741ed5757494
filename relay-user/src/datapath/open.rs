//! Chooses and opens a datapath: native XDP, else generic XDP, else userspace, and says why.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use nix::net::if_::if_nametoindex;

use super::{
    Datapath, Userspace,
    xdp::{self, PinError, Pinned, Pins, Xdp},
};

/// What to attach, where, and how much room to make.
#[derive(Clone, Debug)]
pub struct XdpOptions {
    /// Interfaces to attach to, by name: every one that clients or peers are reached through.
    pub interfaces: Vec<String>,
    /// Which datapath to use.
    pub mode: DatapathMode,
    /// Where a bpffs is mounted; pins go to `turnpike/v<ABI>/` below it.
    pub bpffs: PathBuf,
    /// Flows that fit: two for each channel, two for each permission, one for each relayed address.
    pub max_flows: u32,
}

/// Flows that fit by default: 52,428 allocations, each with a channel to its only peer.
pub const DEFAULT_MAX_FLOWS: u32 = 262_144;

/// Which datapath to use, as `--datapath` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DatapathMode {
    /// The first of the others that works on all interfaces.
    #[default]
    Auto,
    /// XDP in the driver (`XDP_FLAGS_DRV_MODE`).
    XdpNative,
    /// XDP in the network stack (`XDP_FLAGS_SKB_MODE`): any driver, slower.
    XdpGeneric,
    /// No program: sockets relay everything.
    Userspace,
}

impl DatapathMode {
    const ALL: [Self; 4] = [Self::Auto, Self::XdpNative, Self::XdpGeneric, Self::Userspace];

    /// The name that `--datapath` takes and `status` shows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::XdpNative => "xdp-native",
            Self::XdpGeneric => "xdp-generic",
            Self::Userspace => "userspace",
        }
    }
}

impl fmt::Display for DatapathMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No such datapath.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown datapath {0:?}: use auto, xdp-native, xdp-generic or userspace")]
pub struct ParseDatapathModeError(String);

impl FromStr for DatapathMode {
    type Err = ParseDatapathModeError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|mode| mode.name() == name);
        found.ok_or_else(|| ParseDatapathModeError(name.to_owned()))
    }
}

/// A datapath in use.
pub struct Opened {
    /// The datapath itself. Dropping it detaches.
    pub datapath: Box<dyn Datapath>,
    /// What it is; never [`DatapathMode::Auto`].
    pub mode: DatapathMode,
    /// Where the program is attached. Empty in userspace mode.
    pub interfaces: Vec<AttachedInterface>,
    /// Why each better mode was not used and what else is less than asked for, in the order met; for the
    /// log and for `status`. Empty when all is as it should be.
    pub warnings: Vec<String>,
    /// What a crashed daemon had left and was removed; for the log.
    pub removed: Vec<String>,
}

impl Opened {
    /// The names of the interfaces that have the program in the driver.
    pub fn native_interfaces(&self) -> impl Iterator<Item = &str> {
        let native = |interface: &&AttachedInterface| interface.mode == DatapathMode::XdpNative;
        self.interfaces.iter().filter(native).map(|interface| interface.name.as_str())
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("mode", &self.mode)
            .field("interfaces", &self.interfaces)
            .field("warnings", &self.warnings)
            .field("removed", &self.removed)
            .finish_non_exhaustive()
    }
}

/// An interface to attach to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) ifindex: u32,
}

/// An interface that the program is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedInterface {
    /// Its name when the program was attached.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// [`DatapathMode::XdpNative`] or [`DatapathMode::XdpGeneric`].
    pub mode: DatapathMode,
}

/// Why no datapath could be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A configured interface is missing.
    #[error("there is no interface {name:?}: `ip link` lists those there are")]
    NoInterface {
        /// The configured name.
        name: String,
    },
    /// The mode was asked for by name and cannot be had.
    #[error("--datapath {mode} is not possible: {reason}")]
    Impossible {
        /// What was asked for.
        mode: DatapathMode,
        /// Why not, with the interface's name.
        reason: String,
    },
    /// Another daemon's pins are in this directory.
    #[error("{} belongs to a turnpike that is running: stop it, or give this one a bpffs of its own (--bpffs)",
        directory.display())]
    InUse {
        /// The other's directory.
        directory: PathBuf,
    },
    /// The pins cannot be read or removed.
    #[error("{0}")]
    Pins(String),
}

/// Opens the datapath that `options` ask for. Needs CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON unless the mode
/// is [`DatapathMode::Userspace`]. The calling thread's network namespace counts. What a crashed daemon left is
/// removed first, in every mode: its flows must not go on beside ours.
pub async fn open(options: XdpOptions) -> Result<Opened, OpenError> {
    let mut warnings = Vec::new();
    let (removed, pins) = take_over(&options, &mut warnings)?;
    let userspace = |warnings, removed| Opened {
        datapath: Box::new(Userspace),
        mode: DatapathMode::Userspace,
        interfaces: Vec::new(),
        warnings,
        removed,
    };
    if options.mode == DatapathMode::Userspace {
        return Ok(userspace(warnings, removed));
    }
    let targets = targets(&options.interfaces)?;
    match Xdp::open(&options, &targets, pins, &mut warnings).await {
        Ok((xdp, mode)) => {
            let interfaces = xdp.interfaces();
            Ok(Opened { datapath: Box::new(xdp), mode, interfaces, warnings, removed })
        }
        Err(reason) if options.mode == DatapathMode::Auto => {
            warnings.push(reason);
            Ok(userspace(warnings, removed))
        }
        Err(reason) => Err(OpenError::Impossible { mode: options.mode, reason }),
    }
}

/// Removes what a crashed daemon left pinned below `bpffs`, so that its flows end, and says what was removed.
/// A running daemon's pins are left alone and reported as [`OpenError::InUse`].
pub fn detach(bpffs: &Path) -> Result<Vec<String>, OpenError> {
    xdp::remove_leftovers(bpffs).map_err(|error| match error {
        PinError::InUse(directory) => OpenError::InUse { directory },
        PinError::NotBpffs(_) | PinError::Io(..) => OpenError::Pins(error.to_string()),
    })
}

/// What turnpikes, running or crashed, have pinned below `bpffs`. Changes nothing.
pub fn pinned(bpffs: &Path) -> Result<Vec<Pinned>, OpenError> {
    xdp::pinned(bpffs).map_err(|error| OpenError::Pins(error.to_string()))
}

/// Removes leftovers and claims the directory of pins. Without pins, `warnings` says why.
fn take_over(
    options: &XdpOptions,
    warnings: &mut Vec<String>,
) -> Result<(Vec<String>, Option<Pins>), OpenError> {
    let mut removed = Vec::new();
    let claimed = xdp::remove_leftovers(&options.bpffs).and_then(|leftovers| {
        removed = leftovers;
        (options.mode != DatapathMode::Userspace).then(|| Pins::claim(&options.bpffs)).transpose()
    });
    match claimed {
        Ok(pins) => Ok((removed, pins)),
        // Nothing to pin; whoever is there does not disturb.
        Err(_) if options.mode == DatapathMode::Userspace => Ok((removed, None)),
        Err(PinError::InUse(directory)) => Err(OpenError::InUse { directory }),
        Err(error) => {
            warnings.push(not_pinned(&error));
            Ok((removed, None))
        }
    }
}

/// The warning when flows will not outlive the process.
pub(super) fn not_pinned(error: &PinError) -> String {
    format!("not pinned, so established flows end with this process: {error}")
}

fn targets(names: &[String]) -> Result<Vec<Target>, OpenError> {
    let mut targets: Vec<Target> = Vec::new();
    for name in names {
        let ifindex =
            if_nametoindex(name.as_str()).map_err(|_| OpenError::NoInterface { name: name.clone() })?;
        if targets.iter().all(|target| target.ifindex != ifindex) {
            targets.push(Target { name: name.clone(), ifindex });
        }
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_they_are_shown() {
        for mode in DatapathMode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        let error = "xdp".parse::<DatapathMode>().unwrap_err().to_string();
        assert!(error.contains("\"xdp\"") && error.contains("xdp-native"), "{error}");
    }
}

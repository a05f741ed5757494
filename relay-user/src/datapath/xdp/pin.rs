//! What keeps flows alive when the daemon dies: program and links pinned in `<bpffs>/turnpike/v<ABI>/`.
//!
//! The directory is locked (flock(2)) by the daemon it belongs to, so pins in a directory that nobody locks are
//! what a crashed daemon left.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::AsFd,
        unix::ffi::OsStrExt as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::statfs::{FsType, statfs},
};
use relay_common::ABI_VERSION;

use super::sys;

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: libc::__fsword_t = 0xcafe_4a11u32 as libc::__fsword_t;

/// How the names of pinned links begin.
pub(super) const LINK: &str = "link-";

/// This daemon's directory of pins. Dropping it removes pins and directory, and detaches nothing: a daemon that
/// could not pin everything runs on without pins.
pub(crate) struct Pins {
    directory: PathBuf,
    _lock: Flock<File>,
}

/// Why there are no pins.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PinError {
    /// Not mounted, or somewhere else.
    #[error("{path} is not a mounted bpffs (mount -t bpf bpf {path})", path = .0.display())]
    NotBpffs(PathBuf),
    /// Another daemon runs.
    #[error("{} belongs to a turnpike that is running", .0.display())]
    InUse(PathBuf),
    /// Anything else.
    #[error("{}: {}", .0.display(), .1)]
    Io(PathBuf, #[source] io::Error),
}

impl Pins {
    /// Takes the directory for this daemon. Leftovers must have been removed.
    pub(crate) fn claim(bpffs: &Path) -> Result<Self, PinError> {
        check_bpffs(bpffs)?;
        let directory = root(bpffs).join(format!("v{ABI_VERSION}"));
        // Between making and locking it, another daemon that stops may remove it.
        loop {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(|error| PinError::Io(directory.clone(), error))?;
            if let Some(lock) = lock(&directory)? {
                return Ok(Self { directory, _lock: lock });
            }
        }
    }

    /// Pins a program or a link. Dots, which a bpffs forbids, become `+`.
    pub(super) fn pin(&self, name: &str, object: impl AsFd) -> Result<(), PinError> {
        let path = self.directory.join(name.replace('.', "+"));
        sys::obj_pin(object, &path).map_err(|error| PinError::Io(path, error))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = clear(&self.directory, |_| false) {
            tracing::error!("pins are left behind (`turnpike detach` removes them): {error}");
        }
        remove_root(&self.directory);
    }
}

/// Removes what crashed daemons left below `bpffs`, of any ABI version; links are detached first. Returns what
/// was removed, one line for each.
pub(crate) fn remove_leftovers(bpffs: &Path) -> Result<Vec<String>, PinError> {
    check_bpffs(bpffs)?;
    let root = root(bpffs);
    let mut removed = Vec::new();
    for directory in list(&root)? {
        if let Some(_lock) = lock(&directory)? {
            // Fails for what is no link: nothing to detach then.
            removed.extend(clear(&directory, |path| {
                sys::obj_get(path).is_ok_and(|object| sys::link_detach(object).is_ok())
            })?);
            remove_root(&directory);
        }
    }
    Ok(removed)
}

/// What one turnpike has pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Where.
    pub directory: PathBuf,
    /// Whether it runs. If not, it has crashed, and the next start removes the pins.
    pub running: bool,
    /// The ids of the programs that the pinned links attach.
    pub programs: BTreeSet<u32>,
}

/// Looks at what is pinned below `bpffs`, of any ABI version, and changes nothing.
pub(crate) fn pinned(bpffs: &Path) -> Result<Vec<Pinned>, PinError> {
    check_bpffs(bpffs)?;
    let mut found = Vec::new();
    for directory in list(&root(bpffs))? {
        let running = match lock(&directory) {
            Ok(Some(_unlocked_at_once)) => false,
            Ok(None) => continue,
            Err(PinError::InUse(_)) => true,
            Err(error) => return Err(error),
        };
        let mut programs = BTreeSet::new();
        for path in list(&directory)? {
            let is_link = path.file_name().is_some_and(|name| name.as_bytes().starts_with(LINK.as_bytes()));
            if is_link {
                let program = sys::obj_get(&path).and_then(sys::link_program);
                programs.insert(program.map_err(|error| PinError::Io(path, error))?);
            }
        }
        found.push(Pinned { directory, running, programs });
    }
    Ok(found)
}

fn root(bpffs: &Path) -> PathBuf {
    bpffs.join("turnpike")
}

fn check_bpffs(path: &Path) -> Result<(), PinError> {
    match statfs(path) {
        Ok(found) if found.filesystem_type() == FsType(BPF_FS_MAGIC) => Ok(()),
        _ => Err(PinError::NotBpffs(path.to_owned())),
    }
}

/// Locks a directory. `None`: it is gone.
fn lock(directory: &Path) -> Result<Option<Flock<File>>, PinError> {
    let failed = |error| PinError::Io(directory.to_owned(), error);
    let file = match File::open(directory) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, nix::Error::EWOULDBLOCK)) => return Err(PinError::InUse(directory.to_owned())),
        Err((_, error)) => return Err(failed(error.into())),
    };
    // A lock on a directory that was removed in the meantime is worth nothing.
    let locked = lock.metadata().map_err(failed)?;
    match fs::metadata(directory) {
        Ok(found) if (found.dev(), found.ino()) == (locked.dev(), locked.ino()) => Ok(Some(lock)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Removes all pins in a directory, `detach`ed first, and the directory itself.
fn clear(directory: &Path, detach: impl Fn(&Path) -> bool) -> Result<Vec<String>, PinError> {
    let mut removed = Vec::new();
    for path in list(directory)? {
        let detached = detach(&path);
        fs::remove_file(&path).map_err(|error| PinError::Io(path.clone(), error))?;
        removed.push(format!("{}{}", path.display(), if detached { " (detached)" } else { "" }));
    }
    fs::remove_dir(directory).map_err(|error| PinError::Io(directory.to_owned(), error))?;
    Ok(removed)
}

/// Removes the directory above all versions, unless another version is in it.
fn remove_root(directory: &Path) {
    if let Some(root) = directory.parent() {
        let _ = fs::remove_dir(root);
    }
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, PinError> {
    let failed = |error| PinError::Io(directory.to_owned(), error);
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

//! Root is used only for what needs it: this says whether we have it, can get it, or must ask for it.

use std::process::{Command, Stdio};

/// How this process can do what only root may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// We are root.
    Root,
    /// `sudo` works without asking for a password.
    Sudo,
    /// Neither: the user must start the command as root.
    Missing,
}

impl Privilege {
    /// Finds out, without asking anything.
    pub fn detect() -> Self {
        if nix::unistd::geteuid().is_root() {
            return Self::Root;
        }
        let sudo = Command::new("sudo")
            .args(["-n", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match sudo {
            Ok(status) if status.success() => Self::Sudo,
            _ => Self::Missing,
        }
    }

    /// A command that runs `program` as root; `None` when that is out of reach.
    pub fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Option<Command> {
        match self {
            Self::Root => Some(Command::new(program)),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.args(["-n", "-E", "--"]).arg(program);
                Some(command)
            }
            Self::Missing => None,
        }
    }
}

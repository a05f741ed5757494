//! Removes a lab when its owner is done with it, or is gone: also after a panic, Ctrl-C, SIGTERM or SIGKILL.
//!
//! The janitor is a small shell in a session of its own, which waits for the end of a pipe that only the owner
//! holds open. If it is killed too (a whole control group, say), the next lab sweeps up: every lab has a
//! directory below [`LABS`] that names its owner.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};

/// One directory for each lab: its owner, the relay's bpffs and admin socket.
pub(super) const LABS: &str = "/run/turnpike-lab";

/// Waits for the end of its standard input, then removes the lab $1, its directory $2 and all that runs in it.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM PIPE TSTP
read -r _
exec </dev/null
dir=$2
for side in client relay peer outside; do
    ns=turnpike-$1-$side
    [ -e "/run/netns/$ns" ] || continue
    tries=0
    while pids=$(ip netns pids "$ns" 2>/dev/null); [ -n "$pids" ] && [ $tries -lt 100 ]; do
        kill -9 $pids 2>/dev/null
        sleep 0.05
        tries=$((tries + 1))
    done
done
[ -e "/sys/class/net/tpk-$1" ] && ip link delete "tpk-$1"
for side in client relay peer outside; do
    ns=turnpike-$1-$side
    [ -e "/run/netns/$ns" ] && ip netns delete "$ns"
done
mountpoint -q "$dir/bpffs" && umount -l "$dir/bpffs"
rm -rf --one-file-system "$dir"
[ ! -e "$dir" ] || exit 1
for side in client relay peer outside; do
    [ ! -e "/run/netns/turnpike-$1-$side" ] || exit 1
done
"#;

/// The process that will remove one lab; at the latest when this value is dropped.
#[derive(Debug)]
pub(super) struct Janitor {
    child: Child,
}

impl Janitor {
    /// Claims the lab `id` for this process and starts its janitor, before anything else of the lab exists.
    pub(super) fn start(id: &str) -> anyhow::Result<Self> {
        claim(id)?;
        let child = script(id)
            .stdin(Stdio::piped())
            // Out of the reach of the terminal's signals and of `kill` to our process group.
            .process_group(0)
            .spawn()
            .context("could not start the lab's janitor")?;
        Ok(Self { child })
    }
}

impl Drop for Janitor {
    /// Removes the lab and waits until it is gone.
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        match self.child.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => eprintln!("the lab's janitor left something behind: it ended with {status}"),
            Err(error) => eprintln!("could not wait for the lab's janitor: {error}"),
        }
    }
}

/// Removes the labs whose owners are gone, and returns their ids.
pub(super) fn sweep() -> anyhow::Result<Vec<String>> {
    let Ok(labs) = std::fs::read_dir(LABS) else { return Ok(Vec::new()) };
    let mut swept = Vec::new();
    for lab in labs {
        let lab = lab?;
        let Ok(id) = lab.file_name().into_string() else { continue };
        // Without an owner file it is a lab that is just being made or removed.
        let Ok(owner) = std::fs::read_to_string(lab.path().join("owner")) else { continue };
        if owner_is_alive(&owner) {
            continue;
        }
        let status = script(&id).stdin(Stdio::null()).status().context("could not start a lab's janitor")?;
        if !status.success() {
            bail!("lab {id}, left by a process that is gone, could not be removed: {status}");
        }
        swept.push(id);
    }
    Ok(swept)
}

fn script(id: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "turnpike-lab-janitor", id]).arg(directory(id)).stdout(Stdio::null());
    command
}

/// Makes the lab's directory with the owner in it.
fn claim(id: &str) -> anyhow::Result<()> {
    let directory = directory(id);
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("could not create {}", directory.display()))?;
    let pid = std::process::id();
    let started = start_time(pid).context("could not read /proc/self/stat")?;
    let mut file = std::fs::File::create(directory.join("owner"))?;
    writeln!(file, "{pid} {started}")?;
    Ok(())
}

/// The directory of the lab `id`.
pub(super) fn directory(id: &str) -> PathBuf {
    Path::new(LABS).join(id)
}

fn owner_is_alive(owner: &str) -> bool {
    let mut words = owner.split_whitespace();
    let (Some(pid), Some(started)) = (words.next(), words.next()) else { return false };
    // A number may be in use again by another process, which then started at another time.
    pid.parse().ok().and_then(start_time).as_deref() == Some(started)
}

/// When a process started, in clock ticks since boot (proc_pid_stat(5), field 22).
fn start_time(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 2 is the name in parentheses, which may hold spaces and parentheses.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?;
    (state != "Z").then(|| fields.nth(18).map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_its_number_alone_is_not_enough() {
        let pid = std::process::id();
        let started = start_time(pid).unwrap();
        assert!(owner_is_alive(&format!("{pid} {started}\n")));
        assert!(!owner_is_alive(&format!("{pid} 1\n")));
        assert!(!owner_is_alive(""));
    }

    #[test]
    fn process_that_ended_is_not_alive() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let owner = format!("{} {}", child.id(), start_time(child.id()).unwrap());
        assert!(owner_is_alive(&owner));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!owner_is_alive(&owner));
    }
}

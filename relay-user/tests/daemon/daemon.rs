//! Starts the real binary and stops it again, whatever happens to the test.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for anything; a slow machine must pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Daemon {
    child: Child,
    log: Receiver<String>,
    seen: Vec<String>,
    pub(crate) listener: SocketAddrV4,
    directory: TempDir,
}

impl Daemon {
    /// Starts a daemon on `address`, port 3478, that relays from there in userspace, and waits until it serves.
    pub(crate) fn start(address: Ipv4Addr, options: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), address, options)
    }

    /// The same with a directory that may hold what an earlier daemon left.
    pub(crate) fn start_in(directory: TempDir, address: Ipv4Addr, options: &[&str]) -> Self {
        let relay = address.to_string();
        let options = [&["--datapath", "userspace", "--relay-address", &relay], options].concat();
        Self::start_with(directory, address, &options)
    }

    /// Starts a daemon on `address`, port 3478, and waits until it serves.
    pub(crate) fn start_with(directory: TempDir, address: Ipv4Addr, options: &[&str]) -> Self {
        let mut daemon = Self::spawn(directory, address, options);
        daemon.wait_for_line("ready: ");
        daemon
    }

    /// Starts a daemon as [`start`](Self::start) does, whose log cannot be written anywhere.
    pub(crate) fn start_without_log(address: Ipv4Addr, options: &[&str]) -> Self {
        let relay = address.to_string();
        let options = [&["--datapath", "userspace", "--relay-address", &relay], options].concat();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let daemon = Self::spawn_with_log(tempfile::tempdir().unwrap(), address, &options, full.into());
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(daemon.admin_socket()).is_err() {
            assert!(Instant::now() < deadline, "the daemon does not serve");
            thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    /// Starts a daemon on `address`, port 3478, without a wait.
    pub(crate) fn spawn(directory: TempDir, address: Ipv4Addr, options: &[&str]) -> Self {
        Self::spawn_with_log(directory, address, options, Stdio::piped())
    }

    fn spawn_with_log(directory: TempDir, address: Ipv4Addr, options: &[&str], stderr: Stdio) -> Self {
        let listener = SocketAddrV4::new(address, 3478);
        // Not the machine's own, unless a test has one mounted.
        let elsewhere = ["--bpffs".as_ref(), directory.path().as_os_str()];
        let bpffs = if options.contains(&"--bpffs") { &[] } else { &elsewhere[..] };
        let mut child = Command::new(env!("CARGO_BIN_EXE_turnpike"))
            .args(["run", "--realm", "example.org", "--user", "alice:secret"])
            .args(["--listen", &format!("udp://{listener}")])
            .arg("--admin-socket")
            .arg(directory.path().join("admin.sock"))
            .args(bpffs)
            .args(options)
            .env_remove("RUST_LOG")
            .stderr(stderr)
            .spawn()
            .unwrap();
        let (lines, log) = mpsc::channel();
        if let Some(stderr) = child.stderr.take() {
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    if lines.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Self { child, log, seen: Vec::new(), listener, directory }
    }

    pub(crate) fn wait_for_line(&mut self, wanted: &str) -> String {
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(wanted) {
                        return line;
                    }
                }
                Err(error) => panic!("no line with {wanted:?} ({error}):\n{}", self.seen.join("\n")),
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The capabilities that any thread of the daemon has in a set, as `/proc/PID/status` names it.
    pub(crate) fn capabilities(&self, set: &str) -> u64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let masks = threads.map(|thread| {
            let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(':'));
            u64::from_str_radix(mask.expect(set).trim(), 16).unwrap()
        });
        masks.fold(0, |all, mask| all | mask)
    }

    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.directory.path().join("admin.sock")
    }

    /// What `turnpike COMMAND --json` prints.
    pub(crate) fn json(&self, command: &str) -> Value {
        serde_json::from_str(&self.command(&[command, "--json"])).unwrap()
    }

    /// What `turnpike ARGUMENTS` prints.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_turnpike"))
            .args(arguments)
            .arg("--admin-socket")
            .arg(self.admin_socket())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The answer to a plain HTTP request on the admin socket.
    pub(crate) fn http(&self, target: &str) -> String {
        let mut stream = UnixStream::connect(self.admin_socket()).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: turnpike\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Waits until `status --json` fulfils a condition.
    pub(crate) fn wait_for_status(&self, mut condition: impl FnMut(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.json("status");
            if condition(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{status:#}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends a signal, waits for the end, and returns the exit status and the directory of the admin socket.
    pub(crate) fn stop(mut self, signal: Signal) -> (ExitStatus, TempDir, String) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the daemon does not end:\n{}", self.seen.join("\n"));
            thread::sleep(Duration::from_millis(20));
        };
        self.seen.extend(self.log.iter());
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap());
        (status, directory, self.seen.join("\n"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already gone after `stop`, which is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback address of its own for each test, and for each test run on the machine.
pub(crate) fn loopback(test: u8) -> Ipv4Addr {
    let [_, _, a, b] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, a | 1, b, test)
}

pub(crate) fn udp_socket(address: Ipv4Addr) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

//! coturn's test client and peer.

mod hostile;
mod ways;

use std::net::IpAddr;
use std::process::{Child, Command, Stdio};

use xtask::lab::Traffic;
use xtask::wait;

use crate::capture::Total;
use crate::scene::{PASSWORD, PATIENCE, Scene, USER};

/// Where coturn's peer echoes.
const ECHO_PORT: u16 = 3480;
/// It chooses its channels from all of RFC 5766's range.
const CONFIG: &str = "rfc5766_channels = true\n";
/// coturn's client in the client's namespace, for a peer that echoes; the server's address is its last argument.
fn uclient(scene: &Scene, peer: IpAddr) -> Command {
    let mut client = scene.lab.client().command("turnutils_uclient");
    client
        .args(["-u", USER, "-w", PASSWORD, "-e", &peer.to_string(), "-r", &ECHO_PORT.to_string()])
        .stdin(Stdio::null());
    client
}

fn total(traffic: Traffic) -> Total {
    Total { packets: traffic.packets, bytes: traffic.bytes }
}

/// coturn's echo server in the peer's namespace.
struct EchoPeer(Child);

impl EchoPeer {
    fn start(scene: &Scene, addresses: &[IpAddr]) -> Self {
        let mut command = scene.lab.peer().command("turnutils_peer");
        for address in addresses {
            command.args(["-L", &address.to_string()]);
        }
        command
            .args(["-p", &ECHO_PORT.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let peer = Self(command.spawn().expect("coturn is installed"));
        let port = format!(":{ECHO_PORT:04X} ");
        let is_bound = || {
            let sockets = scene.lab.peer().run(|| {
                let tables = ["udp", "udp6"].map(|table| format!("/proc/thread-self/net/{table}"));
                tables.map(|table| std::fs::read_to_string(table).unwrap_or_default()).concat()
            });
            (sockets.matches(&port).count() >= addresses.len()).then_some(())
        };
        wait::until(PATIENCE, is_bound).expect("coturn's peer binds its port");
        peer
    }
}

impl Drop for EchoPeer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

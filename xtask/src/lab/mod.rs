//! The lab: three network namespaces around a relay with two NICs, for tests and demonstrations.
//!
//! ```text
//!   host  tpk-ID ---- host0 [client] cli0 ---- relc0 [relay] relp0 ---- peer0 [peer]
//!         198.18.3.1    .3.2        198.18.1.2   .1.1       198.18.2.1    .2.2
//!                                    fd00:1::2   ::1         fd00:2::1    ::2
//! ```
//!
//! It never touches an interface that it did not make, and its janitor removes it however its owner ends. The
//! link to the host is made on request only, and so is a network behind the peer's host, which is a firewall then
//! ([`Outside`]). The relay's namespace is a host, not a router.

mod firewall;
mod host_link;
mod janitor;
mod namespace;
mod relay;
mod xdp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::{process, workspace};
use janitor::Janitor;

use namespace::has_ipv6;

pub use firewall::{OUTSIDE_NETWORK_V6, Outside, PUBLIC};
pub use namespace::Namespace;
pub use relay::{DatapathStatus, InterfaceStatus, Relay, RelayOptions, Relayed, Status, Traffic};
pub use xdp::PassProgram;

/// The relay's address on the client side, where it listens.
pub const LISTENER: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
/// The clients' addresses.
pub const CLIENTS: [Ipv4Addr; 4] = [
    Ipv4Addr::new(198, 18, 1, 2),
    Ipv4Addr::new(198, 18, 1, 3),
    Ipv4Addr::new(198, 18, 1, 4),
    Ipv4Addr::new(198, 18, 1, 5),
];
/// The relay's address on the peer side, where relayed transport addresses are.
pub const RELAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 1);
/// The peers' addresses.
pub const PEERS: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 2, 2), Ipv4Addr::new(198, 18, 2, 3)];
/// [`LISTENER`] in IPv6.
pub const LISTENER_V6: Ipv6Addr = Ipv6Addr::new(0xFD00, 1, 0, 0, 0, 0, 0, 1);
/// [`CLIENTS`] in IPv6.
pub const CLIENTS_V6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0xFD00, 1, 0, 0, 0, 0, 0, 2),
    Ipv6Addr::new(0xFD00, 1, 0, 0, 0, 0, 0, 3),
    Ipv6Addr::new(0xFD00, 1, 0, 0, 0, 0, 0, 4),
    Ipv6Addr::new(0xFD00, 1, 0, 0, 0, 0, 0, 5),
];
/// [`RELAY_ADDRESS`] in IPv6.
pub const RELAY_ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xFD00, 2, 0, 0, 0, 0, 0, 1);
/// [`PEERS`] in IPv6.
pub const PEERS_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xFD00, 2, 0, 0, 0, 0, 0, 2), Ipv6Addr::new(0xFD00, 2, 0, 0, 0, 0, 0, 3)];
/// The port of the relay's listeners.
pub const PORT: u16 = 3478;
/// The host's address on its link into the lab.
pub const HOST: Ipv4Addr = Ipv4Addr::new(198, 18, 3, 1);

/// The relay's NIC on the client side.
pub const RELAY_CLIENT_NIC: &str = "relc0";
/// The relay's NIC on the peer side.
pub const RELAY_PEER_NIC: &str = "relp0";
/// The client's NIC.
pub const CLIENT_NIC: &str = "cli0";
/// The peer's NIC.
pub const PEER_NIC: &str = "peer0";

/// An address family, with the lab's addresses in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The relay's listener.
    pub fn listener(self) -> SocketAddr {
        SocketAddr::new(self.choose(LISTENER, LISTENER_V6), PORT)
    }

    /// Where relayed transport addresses are.
    pub fn relay_address(self) -> IpAddr {
        self.choose(RELAY_ADDRESS, RELAY_ADDRESS_V6)
    }

    /// A client's address.
    pub fn client(self, number: usize) -> IpAddr {
        self.choose(CLIENTS[number], CLIENTS_V6[number])
    }

    /// A peer's address.
    pub fn peer(self, number: usize) -> IpAddr {
        self.choose(PEERS[number], PEERS_V6[number])
    }

    fn choose(self, v4: Ipv4Addr, v6: Ipv6Addr) -> IpAddr {
        match self {
            Self::V4 => v4.into(),
            Self::V6 => v6.into(),
        }
    }
}

/// A lab that is up. Dropping it removes it.
#[derive(Debug)]
pub struct Lab {
    id: String,
    client: Namespace,
    relay: Namespace,
    peer: Namespace,
    far_ends: Vec<PassProgram>,
    // Last: the namespaces' handles are closed before the janitor removes them.
    _janitor: Janitor,
}

impl Lab {
    /// Builds a lab, after removing those whose owners are gone. Needs root.
    pub fn create() -> anyhow::Result<Self> {
        require_tools()?;
        for id in janitor::sweep()? {
            println!("lab {id}: removed, its owner is gone");
        }
        let id = new_id()?;
        let janitor = Janitor::start(&id)?;
        let namespace = |side| Namespace::create(format!("turnpike-{id}-{side}"));
        let mut lab = Self {
            client: namespace("client")?,
            relay: namespace("relay")?,
            peer: namespace("peer")?,
            far_ends: Vec::new(),
            _janitor: janitor,
            id,
        };
        lab.link_clients()?;
        lab.link_peers()?;
        for (namespace, nic) in [(&lab.client, CLIENT_NIC), (&lab.peer, PEER_NIC)] {
            // Where the kernel refuses it, the relay will not get native XDP either, and do without.
            match PassProgram::attach(namespace, nic, "turnpike_lab") {
                Ok(program) => lab.far_ends.push(program),
                Err(error) => eprintln!("the lab does without native XDP: {error:#}"),
            }
        }
        let bpffs = lab.bpffs();
        std::fs::create_dir(&bpffs).with_context(|| format!("could not create {}", bpffs.display()))?;
        process::output(Command::new("mount").args(["-t", "bpf", "turnpike-lab"]).arg(&bpffs))?;
        Ok(lab)
    }

    /// Makes the relay reachable from the host, at [`LISTENER`] and [`RELAY_ADDRESS`]. Refuses when the host
    /// already has a route into the lab's addresses.
    pub fn link_host(&self) -> anyhow::Result<()> {
        host_link::create(self)
    }

    /// What tells this lab from others, in the names of all that belongs to it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where clients run.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// Where the relay runs.
    pub fn relay(&self) -> &Namespace {
        &self.relay
    }

    /// Where peers run.
    pub fn peer(&self) -> &Namespace {
        &self.peer
    }

    /// The relay's own bpffs. It is not below `/sys`, which `ip netns exec` mounts anew.
    pub fn bpffs(&self) -> PathBuf {
        self.directory().join("bpffs")
    }

    /// The relay's administration socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.directory().join("admin.sock")
    }

    /// A directory that is removed with the lab.
    pub fn directory(&self) -> PathBuf {
        janitor::directory(&self.id)
    }

    fn link_clients(&self) -> anyhow::Result<()> {
        link((&self.client, CLIENT_NIC), (&self.relay, RELAY_CLIENT_NIC))?;
        for address in CLIENTS {
            self.client.ip(&format!("address add {address}/24 dev {CLIENT_NIC}"))?;
        }
        self.relay.ip(&format!("address add {LISTENER}/24 dev {RELAY_CLIENT_NIC}"))?;
        self.client.ip(&format!("route add default via {LISTENER}"))?;
        if has_ipv6() {
            for address in CLIENTS_V6 {
                self.client.ip(&format!("address add {address}/64 dev {CLIENT_NIC} nodad"))?;
            }
            self.relay.ip(&format!("address add {LISTENER_V6}/64 dev {RELAY_CLIENT_NIC} nodad"))?;
            self.client.ip(&format!("route add default via {LISTENER_V6}"))?;
        }
        Ok(())
    }

    fn link_peers(&self) -> anyhow::Result<()> {
        link((&self.peer, PEER_NIC), (&self.relay, RELAY_PEER_NIC))?;
        for address in PEERS {
            self.peer.ip(&format!("address add {address}/24 dev {PEER_NIC}"))?;
        }
        self.relay.ip(&format!("address add {RELAY_ADDRESS}/24 dev {RELAY_PEER_NIC}"))?;
        self.peer.ip(&format!("route add default via {RELAY_ADDRESS}"))?;
        self.relay.ip(&format!("route add default via {}", PEERS[0]))?;
        if has_ipv6() {
            for address in PEERS_V6 {
                self.peer.ip(&format!("address add {address}/64 dev {PEER_NIC} nodad"))?;
            }
            self.relay.ip(&format!("address add {RELAY_ADDRESS_V6}/64 dev {RELAY_PEER_NIC} nodad"))?;
            self.peer.ip(&format!("route add default via {RELAY_ADDRESS_V6}"))?;
            self.relay.ip(&format!("route add default via {}", PEERS_V6[0]))?;
        }
        Ok(())
    }
}

/// A directory for what remains of a lab for a person to look at: logs and captures. Emptied first.
pub fn artifacts(name: &str) -> anyhow::Result<PathBuf> {
    let target = workspace::target_dir();
    let labs = target.join("lab");
    let directory = labs.join(name);
    match std::fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("could not empty {}", directory.display()));
        }
        _ => {}
    }
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("could not create {}", directory.display()))?;
    // Tests may run as root in the user's workspace: `cargo clean` must not fail for it.
    for made in [&labs, &directory] {
        give_to_owner_of(&target, made)?;
    }
    Ok(directory)
}

/// Gives `path` to the user who owns `like`.
fn give_to_owner_of(like: &Path, path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::{MetadataExt, chown};
    let owner = std::fs::metadata(like)?;
    chown(path, Some(owner.uid()), Some(owner.gid()))
        .with_context(|| format!("could not change the owner of {}", path.display()))
}

/// Joins two namespaces with a veth pair that is up, with the offloads that tests need.
///
/// Checksums are finished by the sender: XDP and captures see what a wire would carry.
fn link(far: (&Namespace, &str), relay: (&Namespace, &str)) -> anyhow::Result<()> {
    let ((far_namespace, far_nic), (relay_namespace, relay_nic)) = (far, relay);
    far_namespace.ip(&format!(
        "link add {far_nic} type veth peer name {relay_nic} netns {}",
        relay_namespace.name()
    ))?;
    far_namespace.ethtool(&format!("-K {far_nic} tx off"))?;
    relay_namespace.ethtool(&format!("-K {relay_nic} tx off"))?;
    far_namespace.ip(&format!("link set {far_nic} up"))?;
    relay_namespace.ip(&format!("link set {relay_nic} up"))?;
    Ok(())
}

fn require_tools() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the lab makes network namespaces, which needs root");
    }
    for tool in ["ip", "ethtool", "mount", "mountpoint"] {
        if process::find(tool).is_none() {
            bail!("the lab needs `{tool}`: `cargo xtask run` and `cargo xtask test` install it");
        }
    }
    Ok(())
}

/// Six random hexadecimal digits: `tpk-ID` has to fit an interface's name.
fn new_id() -> anyhow::Result<String> {
    use std::io::Read;
    let mut bytes = [0; 3];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

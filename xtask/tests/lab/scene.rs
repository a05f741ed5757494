//! A lab with a relay in it, and what a failing test prints.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use xtask::lab::{
    self, CLIENTS, Family, LISTENER, Lab, Namespace, PEERS, PORT, Relay, RelayOptions, Relayed, Status,
};
use xtask::turn_client::{Received, TurnClient};
use xtask::wait;
use xtask::workspace::{self, Profile};

pub(crate) const USER: &str = "alice";
pub(crate) const PASSWORD: &str = "wonderland";

/// A bound that only a hang reaches.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The relay's IPv4 listener.
pub(crate) const SERVER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(LISTENER, PORT));

/// What is to forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Datapath {
    XdpNative,
    XdpGeneric,
    Userspace,
}

impl Datapath {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::XdpNative => "xdp-native",
            Self::XdpGeneric => "xdp-generic",
            Self::Userspace => "userspace",
        }
    }

    pub(crate) fn is_xdp(self) -> bool {
        self != Self::Userspace
    }
}

/// Makes three tests of one scenario: `scenario::xdp_native` and so on.
macro_rules! on_each_datapath {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            use crate::scene::Datapath;

            #[test]
            #[ignore = "needs root: cargo xtask test"]
            fn xdp_native() {
                super::$scenario(Datapath::XdpNative);
            }

            #[test]
            #[ignore = "needs root: cargo xtask test"]
            fn xdp_generic() {
                super::$scenario(Datapath::XdpGeneric);
            }

            #[test]
            #[ignore = "needs root: cargo xtask test"]
            fn userspace() {
                super::$scenario(Datapath::Userspace);
            }
        }
    )+};
}
pub(crate) use on_each_datapath;

/// A lab, the relay in it, and a directory for its log and captures.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) relay: Relay,
    pub(crate) artifacts: PathBuf,
    options: RelayOptions,
    // Last: everything that runs in the lab ends first.
    pub(crate) lab: Lab,
}

impl Scene {
    /// A relay with this datapath, which has to be the one it uses.
    pub(crate) fn start(name: &str, datapath: Datapath) -> Self {
        Self::with_config(name, datapath, "")
    }

    /// The same with a configuration file.
    pub(crate) fn with_config(name: &str, datapath: Datapath, toml: &str) -> Self {
        Self::prepared(name, datapath, toml, &[], |_| {})
    }

    /// The same with more options of `turnpike run`, in a lab that `prepare` has changed before.
    pub(crate) fn prepared(
        name: &str,
        datapath: Datapath,
        toml: &str,
        arguments: &[&str],
        prepare: impl FnOnce(&Lab),
    ) -> Self {
        let scene = Self::build(name, datapath.name(), toml, arguments, prepare);
        let status = scene.relay.status().expect("the relay is up").datapath;
        assert_eq!(status.mode, datapath.name(), "datapath in use: {status:?}");
        for interface in &status.interfaces {
            assert_eq!(interface.mode, datapath.name(), "{interface:?}");
        }
        scene
    }

    /// The same with any `--datapath`, whatever the relay makes of it.
    pub(crate) fn build(
        name: &str,
        datapath: &str,
        toml: &str,
        arguments: &[&str],
        prepare: impl FnOnce(&Lab),
    ) -> Self {
        let artifacts = lab::artifacts(&format!("{name}-{datapath}")).expect("a directory for artifacts");
        let config = (!toml.is_empty()).then(|| {
            let path = artifacts.join("turnpike.toml");
            std::fs::write(&path, toml).expect("the artifacts directory is writable");
            path
        });
        let options = RelayOptions {
            binary: workspace::turnpike(Profile::Debug),
            datapath: datapath.to_owned(),
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
            config,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            log: artifacts.join("turnpike.log"),
        };
        let lab = Lab::create().expect("the lab can be built");
        prepare(&lab);
        let relay = Relay::start(&lab, &options).unwrap_or_else(|error| panic!("{error:?}"));
        Self { relay, artifacts, options, lab }
    }

    /// Starts the relay again with the same options, after it was stopped or killed.
    pub(crate) fn restart_relay(&mut self) {
        self.relay = Relay::start(&self.lab, &self.options).unwrap_or_else(|error| panic!("{error:?}"));
    }

    /// A TURN client in the client's namespace, of the listener of its address's family.
    pub(crate) fn client(&self, address: impl Into<IpAddr>) -> TurnClient {
        let address = address.into();
        let socket = bind(self.lab.client(), (address, 0));
        let server = Family::of(address).listener();
        TurnClient::new(socket, server, USER, PASSWORD).expect("the listener is on the client's link")
    }

    /// A socket of a peer, and its address.
    pub(crate) fn peer(&self, address: impl Into<IpAddr>) -> (UdpSocket, SocketAddr) {
        let socket = bind(self.lab.peer(), (address.into(), 0));
        let address = socket.local_addr().expect("it is bound");
        (socket, address)
    }

    /// Repeats an exchange until the kernel carries all of it, if it is to: first the next hops are found.
    pub(crate) fn settle(&self, mut exchange: impl FnMut()) {
        if self.options.datapath != Datapath::Userspace.name() {
            let in_kernel = || {
                let carried = self.carried(&mut exchange);
                (carried.slow.all().packets <= carried.unfinished).then_some(())
            };
            wait::until(PATIENCE, in_kernel).expect("the kernel carries what is established");
        }
    }

    /// What is carried while `exchange` runs.
    pub(crate) fn carried(&self, exchange: impl FnOnce()) -> Carried {
        let before = self.relay.status().expect("the relay answers");
        exchange();
        let after = self.relay.status().expect("the relay answers");
        let unfinished = |status: &Status| status.punts.get("partial_checksum").copied().unwrap_or(0);
        Carried {
            fast: after.fast_path - before.fast_path,
            slow: after.slow_path - before.slow_path,
            unfinished: unfinished(&after) - unfinished(&before),
        }
    }

    /// Panics unless a new client can exchange data with a new peer, over a channel, through the relay.
    pub(crate) fn assert_serves(&self) {
        let (peer, peer_address) = self.peer(PEERS[0]);
        let mut client = self.client(CLIENTS[3]);
        let (relayed, _) = client.allocate(None).expect("Allocate succeeds");
        client.channel_bind(0x4ABC, peer_address).expect("ChannelBind succeeds");
        client.send_channel_data(0x4ABC, b"there").expect("ChannelData can be sent");
        let mut buffer = [0; 100];
        let (length, from) = peer.recv_from(&mut buffer).expect("the peer gets the client's data");
        assert_eq!((&buffer[..length], from), (&b"there"[..], relayed));
        peer.send_to(b"and back", relayed).expect("the peer can send");
        let received = client.receive(PATIENCE).expect("the client can receive");
        let expected = Received::Channel { number: 0x4ABC, data: b"and back".to_vec() };
        assert_eq!(received, Some(expected));
        client.refresh(0).expect("the allocation can be deleted");
    }
}

impl Drop for Scene {
    /// Prints what a person would look at first.
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("artifacts: {}", self.artifacts.display());
            match self.relay.status_json() {
                Ok(status) => println!("status: {status}\n{}", self.relay.log_tail()),
                Err(error) => println!("no status: {error:#}"),
            }
        }
    }
}

/// What was carried, by what carried it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) fast: Relayed,
    pub(crate) slow: Relayed,
    /// Packets whose checksum looks unfinished, as one in 65,536 does: left to the daemon.
    pub(crate) unfinished: u64,
}

impl Carried {
    /// All of it, which has to have taken the path that this datapath is for.
    pub(crate) fn by(self, datapath: Datapath) -> Relayed {
        if datapath.is_xdp() {
            assert!(self.slow.all().packets <= self.unfinished, "carried by the daemon: {self:?}");
        } else {
            assert_eq!(self.fast, Relayed::default(), "carried in the kernel");
        }
        self.fast + self.slow
    }
}

/// A socket in a namespace, whose reads end in an error instead of never.
pub(crate) fn bind(namespace: &Namespace, address: impl Into<SocketAddr>) -> UdpSocket {
    let address = address.into();
    let socket = namespace.run(|| UdpSocket::bind(address)).expect("the address is the namespace's");
    socket.set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
    socket
}

/// One message to the peer over the channel, and back.
pub(crate) fn echo(client: &mut TurnClient, channel: u16, peer: &UdpSocket) {
    let mut buffer = [0; 100];
    client.send_channel_data(channel, b"echo").expect("the client can send");
    let (length, from) = peer.recv_from(&mut buffer).expect("the peer gets the client's data");
    peer.send_to(&buffer[..length], from).expect("the peer can send");
    let received = client.receive(PATIENCE).expect("the client can receive");
    assert_eq!(received, Some(Received::Channel { number: channel, data: b"echo".to_vec() }));
}

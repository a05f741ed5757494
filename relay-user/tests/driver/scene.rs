//! A network namespace with a relay, and sockets of clients and peers.

use std::{
    ffi::c_int,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    process::Command,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
};
use rand::{SeedableRng, rngs::StdRng};
use relay_user::{
    datapath::{self, DatapathMode, XdpOptions},
    net::{Driver, DriverOptions, Endpoint},
    turn::{Config, Credentials, Family, Lifetimes, Limits, PeerPolicy, Server},
};
use tokio::{sync::oneshot, task::LocalSet};

use crate::packets::{Packet, Packets};

pub const REALM: &str = "example.org";
pub const USER: &str = "alice";
pub const PASSWORD: &str = "wonderland";

/// Longest wait for anything; a slow machine must pass.
pub const PATIENCE: Duration = Duration::from_secs(20);

const RELAY: [&str; 2] = ["198.18.0.1", "fd00::1"];

pub fn family(address: SocketAddr) -> Family {
    Family::of(address.ip())
}

fn of_family(family: Family, [v4, v6]: [&str; 2]) -> IpAddr {
    match family {
        Family::V4 => v4.parse().unwrap(),
        Family::V6 => v6.parse().unwrap(),
    }
}

pub fn client(family: Family) -> IpAddr {
    of_family(family, ["198.18.1.1", "fd00::c"])
}

pub fn peer(family: Family) -> IpAddr {
    of_family(family, ["198.18.2.1", "fd00::b"])
}

/// A host that nobody has a permission for, and that is not there.
pub fn stranger(family: Family) -> IpAddr {
    of_family(family, ["198.19.0.9", "fd00::9"])
}

pub fn listener(family: Family) -> SocketAddr {
    SocketAddr::new(of_family(family, RELAY), 3478)
}

/// A relay in a namespace of its own, and all packets there. The thread that entered is in it too, and the sockets it
/// opens from then on.
pub struct Scene {
    pub packets: Packets,
    stop: Option<oneshot::Sender<()>>,
    relay: Option<JoinHandle<()>>,
}

impl Scene {
    /// `None`, and said so, without the privilege.
    pub fn enter() -> Option<Self> {
        match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => {}
            Err(Errno::EPERM) => {
                eprintln!("SKIPPED: a network namespace needs root");
                return None;
            }
            Err(error) => panic!("unshare: {error}"),
        }
        // Every address of a prefix on loopback is local; of IPv6 each by itself.
        ip("link set lo mtu 1500 up");
        ip("address add 198.18.0.1/15 dev lo");
        for address in [RELAY[1], "fd00::c", "fd00::b"] {
            ip(&format!("address add {address}/128 dev lo nodad"));
        }
        for family in Family::ALL {
            [listener(family).ip(), client(family), peer(family)].into_iter().for_each(wait_for_route);
        }
        let packets = Packets::open();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let relay = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(LocalSet::new().run_until(async {
                let driver = start().await;
                ready.send(()).unwrap();
                // The test's end, whether it failed or not.
                let _ = stopped.await;
                driver.shutdown();
            }));
        });
        is_ready.recv().expect("the relay starts");
        Some(Self { packets, stop: Some(stop), relay: Some(relay) })
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.relay.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.expect("it was started").expect("the relay ends in order");
        }
    }
}

async fn start() -> Driver {
    let listeners = Family::ALL.map(listener);
    let config = Config {
        realm: REALM.to_owned(),
        software: None,
        relay_addresses: RELAY.map(|ip| ip.parse().unwrap()).to_vec(),
        relay_ports: 50_000..=50_999,
        external_addresses: [].into(),
        listeners: listeners.to_vec(),
        host_addresses: Vec::new(),
        lifetimes: Lifetimes::default(),
        limits: Limits::default(),
        alternate_servers: Vec::new(),
        min_ipv6_mtu: 1280,
        strict_permissions: false,
        strict_expiry: false,
        hairpin: true,
        rfc5766_channels: false,
        policy: PeerPolicy::new(
            vec!["198.18.0.0/15".parse().unwrap(), "fd00::/16".parse().unwrap()],
            Vec::new(),
        ),
    };
    let mut credentials = Credentials::default();
    credentials.insert(USER, REALM, PASSWORD).unwrap();
    let opened = datapath::open(XdpOptions {
        interfaces: Vec::new(),
        mode: DatapathMode::Userspace,
        bpffs: "/nowhere".into(),
        max_flows: datapath::DEFAULT_MAX_FLOWS,
    })
    .await
    .unwrap();
    Driver::start(DriverOptions {
        server: Server::new(config, credentials, [7; 32], StdRng::seed_from_u64(1)).unwrap(),
        datapath_info: (&opened).into(),
        datapath: opened.datapath,
        listeners: listeners.map(|address| Endpoint::listener(address).unwrap()).into(),
        log_addresses: true,
    })
    .unwrap()
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The kernel makes the route to an IPv6 address of its own some time after the address.
fn wait_for_route(ip: IpAddr) {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let arrived = socket.send_to(b"", socket.local_addr().unwrap()).and_then(|_| socket.recv(&mut []));
        if arrived.is_ok() {
            return;
        }
        assert!(Instant::now() < deadline, "no route to {ip}: {arrived:?}");
    }
}

/// A socket of a client or peer.
pub struct Sender(UdpSocket);

pub fn bind(ip: IpAddr) -> Sender {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let sender = Sender(socket);
    sender.set_dont_fragment(false);
    sender
}

impl Sender {
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub fn send_to(&self, datagram: &[u8], to: SocketAddr) {
        self.0.send_to(datagram, to).unwrap();
    }

    pub fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 1 << 16];
        let (length, _) = self.0.recv_from(&mut buffer).unwrap();
        buffer.truncate(length);
        buffer
    }

    /// The flow label of what it has sent last.
    pub fn flow_label(&self, scene: &Scene) -> Option<u32> {
        let port = self.address().port();
        let mut label = None;
        scene.packets.seen(|packet: &Packet| {
            if packet.ports.is_some_and(|(source, _)| source == port) {
                label = packet.flow_label;
            }
            false
        });
        label
    }

    pub fn set_ttl(&self, ttl: u8) -> &Self {
        self.set((libc::IPPROTO_IP, libc::IP_TTL), (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS), ttl.into())
    }

    pub fn set_class(&self, class: u8) -> &Self {
        self.set((libc::IPPROTO_IP, libc::IP_TOS), (libc::IPPROTO_IPV6, libc::IPV6_TCLASS), class.into())
    }

    /// IPv4's DF bit; over IPv6 whether it sends fragments. What ICMP says of the path is not heard.
    pub fn set_dont_fragment(&self, dont_fragment: bool) -> &Self {
        let value = if dont_fragment { libc::IP_PMTUDISC_PROBE } else { libc::IP_PMTUDISC_OMIT };
        self.set(
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
            value,
        )
    }

    fn set(&self, v4: (c_int, c_int), v6: (c_int, c_int), value: c_int) -> &Self {
        let (level, name) = if self.address().is_ipv4() { v4 } else { v6 };
        // SAFETY: the descriptor is open for the call, and `value` lives and is as long as is said.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                size_of_val(&value) as libc::socklen_t,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        self
    }
}

//! What is carried of the IP header, and the ICMP errors that come back: the same whether the kernel program or the
//! daemon carries the data.

use std::ffi::c_int;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Instant;

use etherparse::{Ipv4HeaderSlice, UdpHeaderSlice};
use nix::sys::socket::sockopt::{Ipv4Tos, Ipv4Ttl, ReceiveTimeout};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};
use xtask::lab::{CLIENTS, Namespace, PEERS};
use xtask::turn_client::TurnClient;
use xtask::turn_client::message::{Class, Message, Method, attribute};

use crate::scene::{Datapath, PATIENCE, SERVER, Scene, echo, on_each_datapath};

const CHANNEL: u16 = 0x4000;
const ICMP: u16 = 0x8004;

on_each_datapath!(fields_are_carried, icmp_errors_come_back);

/// DP-042, DP-043, DP-044, DP-045, DP-077, TURN-206, TURN-208, TURN-212, TURN-217: in both directions.
fn fields_are_carried(datapath: Datapath) {
    let scene = Scene::start("ip-header", datapath);
    let (peer, peer_address) = scene.peer(PEERS[0]);
    let (mut client, relayed) = bound(&scene, peer_address);
    settle(&scene, datapath, &mut client, &peer);

    let client_address = client.socket().local_addr().expect("it is bound");
    let at_client = RawReceiver::open(scene.lab.client());
    let at_peer = RawReceiver::open(scene.lab.peer());
    let slow = scene.relay.status().expect("the relay answers").slow_path;
    // EF with ECT(1) and CE, AF41 with ECT(0), Best Effort.
    for (ttl, tos, dont_fragment) in [(60, 0xb9, true), (2, 0x8a, false), (255, 0xbb, false), (64, 0, true)] {
        let expected = (ttl - 1, tos, dont_fragment);
        set(client.socket(), ttl, tos, dont_fragment);
        client.send_channel_data(CHANNEL, b"to the peer").expect("the client can send");
        assert_eq!(at_peer.next(relayed, peer_address), expected, "to the peer");
        set(&peer, ttl, tos, dont_fragment);
        peer.send_to(b"to the client", relayed).expect("the peer can send");
        assert_eq!(at_client.next(SERVER, client_address), expected, "to the client");
    }
    let status = scene.relay.status().expect("the relay answers");
    if datapath.is_xdp() {
        assert_eq!(status.slow_path, slow, "the kernel carried all of it");
    } else {
        assert_eq!(status.slow_path.to_peer.packets, slow.to_peer.packets + 4);
    }

    // DP-042: where the TTL would reach 0, nothing leaves, and the sender hears of it.
    set(client.socket(), 1, 0, false);
    client.send_channel_data(CHANNEL, b"too far").expect("the client can send");
    wait_for_drop(&scene, "ttl");
    assert_eq!(time_exceeded(client.socket()), libc::EHOSTUNREACH);
}

/// DP-011, DP-012, TURN-136, TURN-139, TURN-141: also for datagrams that the kernel program sent.
fn icmp_errors_come_back(datapath: Datapath) {
    let scene = Scene::start("icmp", datapath);
    let (peer, peer_address) = scene.peer(PEERS[0]);
    let (mut client, _) = bound(&scene, peer_address);
    settle(&scene, datapath, &mut client, &peer);
    drop(peer);
    let before = scene.relay.status().expect("the relay answers");
    client.send_channel_data(CHANNEL, b"nobody is there").expect("the client can send");

    let mut buffer = [0; 1500];
    let length = client.socket().recv(&mut buffer).expect("the client hears of it");
    let message = Message::parse(&buffer[..length]).expect("a STUN message");
    assert!(message.is(Class::Indication, Method::Data));
    assert_eq!(message.xor_address(attribute::XOR_PEER_ADDRESS), Some(peer_address));
    assert_eq!(message.attribute(ICMP), Some(&[0, 0, 3, 3, 0, 0, 0, 0][..]), "port unreachable");
    assert_eq!(message.attribute(attribute::DATA), None);

    let after = scene.relay.status().expect("the relay answers");
    let path = |status: &xtask::lab::Status| {
        if datapath.is_xdp() { status.fast_path.to_peer.packets } else { status.slow_path.to_peer.packets }
    };
    assert_eq!(path(&after), path(&before) + 1);
}

fn bound(scene: &Scene, peer: SocketAddr) -> (TurnClient, SocketAddr) {
    let mut client = scene.client(CLIENTS[0]);
    let (relayed, _) = client.allocate(None).expect("Allocate succeeds");
    client.channel_bind(CHANNEL, peer).expect("ChannelBind succeeds");
    (client, relayed)
}

/// Exchanges messages until the kernel carries them, if it is to.
fn settle(scene: &Scene, datapath: Datapath, client: &mut TurnClient, peer: &UdpSocket) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = scene.relay.status().expect("the relay answers").fast_path;
        echo(client, CHANNEL, peer);
        let after = scene.relay.status().expect("the relay answers").fast_path;
        let both = after.to_peer.packets > before.to_peer.packets
            && after.to_client.packets > before.to_client.packets;
        if both || !datapath.is_xdp() {
            return;
        }
        assert!(Instant::now() < deadline, "the channel never got into the kernel");
    }
}

fn wait_for_drop(scene: &Scene, reason: &str) {
    let dropped = || {
        let status = scene.relay.status().expect("the relay answers");
        (status.drops.get(reason).copied() == Some(1)).then_some(())
    };
    xtask::wait::until(PATIENCE, dropped).unwrap_or_else(|| panic!("nothing was dropped for its {reason}"));
}

/// The error that a connected socket got by ICMP.
fn time_exceeded(socket: &UdpSocket) -> i32 {
    // Such an error is reported only to who asks for it; connected, for a send or receive.
    let error = socket.recv(&mut [0; 10]).expect_err("an ICMP error");
    error.raw_os_error().expect("an error of the kernel's")
}

fn set(socket: &UdpSocket, ttl: u8, tos: u8, dont_fragment: bool) {
    setsockopt(socket, Ipv4Ttl, &ttl.into()).expect("any TTL from 1");
    setsockopt(socket, Ipv4Tos, &tos.into()).expect("any octet");
    set_int(socket, libc::IP_RECVERR, 1);
    let discover = if dont_fragment { libc::IP_PMTUDISC_PROBE } else { libc::IP_PMTUDISC_DONT };
    set_int(socket, libc::IP_MTU_DISCOVER, discover);
}

fn set_int(socket: &UdpSocket, name: c_int, value: c_int) {
    // SAFETY: the descriptor is open for the call, and `value` lives and is as long as is said.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Gets a copy of every UDP datagram of a namespace, with its IP header.
struct RawReceiver(std::os::fd::OwnedFd);

impl RawReceiver {
    fn open(namespace: &Namespace) -> Self {
        let open = || {
            let protocol = SockProtocol::Udp;
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), protocol)
                .map_err(std::io::Error::from)
        };
        let socket = namespace.run(open).expect("root may");
        let patience = TimeVal::seconds(PATIENCE.as_secs().cast_signed());
        setsockopt(&socket, ReceiveTimeout, &patience).expect("any timeout");
        Self(socket)
    }

    /// TTL, TOS octet and DF of the next datagram between these two.
    fn next(&self, source: SocketAddr, destination: SocketAddr) -> (u8, u8, bool) {
        let mut buffer = [0; 2048];
        loop {
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("a datagram");
            let ip = Ipv4HeaderSlice::from_slice(&buffer[..length]).expect("an IPv4 header");
            let udp = UdpHeaderSlice::from_slice(&buffer[ip.slice().len()..length]).expect("a UDP header");
            let from = SocketAddrV4::new(ip.source_addr(), udp.source_port());
            let to = SocketAddrV4::new(ip.destination_addr(), udp.destination_port());
            if (SocketAddr::V4(from), SocketAddr::V4(to)) == (source, destination) {
                return (ip.ttl(), ip.slice()[1], ip.dont_fragment());
            }
        }
    }
}

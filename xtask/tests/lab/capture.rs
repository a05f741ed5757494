//! Captures on the far ends of the lab's links, where packets that XDP forwarded are seen, and what is in them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pcap_file::pcap::PcapReader;
use xtask::lab::{CLIENT_NIC, CLIENTS, Lab, Namespace, PEER_NIC, PEERS};
use xtask::turn_client::{channel_data, indication_data};
use xtask::{process, wait};

use crate::scene::{PATIENCE, bind};

/// Sent after everything else: once the capture has it, the capture has all.
const MARKER: &[u8] = b"the capture is complete";
/// Discard (RFC 863); to a broadcast address, so that nobody answers.
const MARKER_PORT: u16 = 9;

/// `tcpdump` on both far ends.
pub(crate) struct Captures {
    client: Capture,
    peer: Capture,
}

/// What both captures hold.
pub(crate) struct Captured {
    /// What crossed the client's NIC.
    pub(crate) client: Packets,
    /// What crossed the peer's NIC.
    pub(crate) peer: Packets,
}

impl Captures {
    pub(crate) fn start(lab: &Lab, directory: &Path) -> Self {
        Self {
            client: Capture::start(lab.client(), CLIENT_NIC, directory.join("client.pcap")),
            peer: Capture::start(lab.peer(), PEER_NIC, directory.join("peer.pcap")),
        }
    }

    /// Ends the captures, once everything that was sent before is in them.
    pub(crate) fn finish(self, lab: &Lab) -> Captured {
        Captured {
            client: self.client.finish(lab.client(), CLIENTS[0]),
            peer: self.peer.finish(lab.peer(), PEERS[0]),
        }
    }
}

struct Capture {
    tcpdump: Child,
    path: PathBuf,
}

impl Capture {
    fn start(namespace: &Namespace, nic: &str, path: PathBuf) -> Self {
        let mut command = namespace.command("tcpdump");
        command
            .args(["-i", nic, "-U", "--immediate-mode", "-s", "9216", "-B", "131072", "-Z", "root", "-w"])
            .arg(&path)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut tcpdump = command.spawn().expect("tcpdump is installed");
        let mut stderr = BufReader::new(tcpdump.stderr.take().expect("stderr is piped"));
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            let length = stderr.read_line(&mut line).expect("tcpdump writes text");
            assert_ne!(length, 0, "tcpdump did not start");
        }
        tcpdump.stderr = Some(stderr.into_inner());
        Self { tcpdump, path }
    }

    fn finish(mut self, namespace: &Namespace, address: Ipv4Addr) -> Packets {
        let [a, b, c, _] = address.octets();
        let socket = bind(namespace, (address, 0));
        socket.set_broadcast(true).expect("any socket may broadcast");
        let broadcast = (Ipv4Addr::new(a, b, c, 255), MARKER_PORT);
        socket.send_to(MARKER, broadcast).expect("the marker can be sent");
        let is_complete = || {
            let bytes = std::fs::read(&self.path).ok()?;
            bytes.windows(MARKER.len()).any(|window| window == MARKER).then_some(())
        };
        wait::until(PATIENCE, is_complete).expect("tcpdump sees the marker");

        let pid = Pid::from_raw(self.tcpdump.id().cast_signed());
        kill(pid, Signal::SIGINT).expect("tcpdump runs");
        let stderr = std::io::read_to_string(self.tcpdump.stderr.take().expect("stderr is piped"));
        self.tcpdump.wait().expect("tcpdump ends");
        let summary = stderr.expect("tcpdump writes text");
        assert!(summary.contains("\n0 packets dropped by kernel"), "tcpdump lost packets: {summary}");
        Packets::read(&self.path)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Ended already, unless the test failed before.
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

/// What crossed a NIC.
pub(crate) struct Packets {
    path: PathBuf,
    packets: Vec<Packet>,
}

/// A packet, as far as the tests look into it.
pub(crate) enum Packet {
    Udp { source: SocketAddr, destination: SocketAddr, payload: Vec<u8> },
    IcmpPortUnreachable,
    Other,
}

/// Number of packets, and bytes of application data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Total {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

impl Packets {
    fn read(path: &Path) -> Self {
        let file = File::open(path).expect("tcpdump wrote it");
        let mut reader = PcapReader::new(BufReader::new(file)).expect("it is a pcap file");
        let mut packets = Vec::new();
        while let Some(packet) = reader.next_packet() {
            packets.push(parse(&packet.expect("the file is whole").data));
        }
        Self { path: path.to_owned(), packets }
    }

    /// UDP datagrams, but for the capture's own marker.
    pub(crate) fn udp(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr, &[u8])> {
        self.packets.iter().filter_map(|packet| match packet {
            Packet::Udp { destination, .. } if destination.port() == MARKER_PORT => None,
            Packet::Udp { source, destination, payload } => Some((*source, *destination, payload.as_slice())),
            Packet::IcmpPortUnreachable | Packet::Other => None,
        })
    }

    /// Data of peers in messages that `select`s them by source and destination: in ChannelData if `channel`,
    /// else in Send and Data indications.
    pub(crate) fn relayed(&self, channel: bool, select: impl Fn(SocketAddr, SocketAddr) -> bool) -> Total {
        let selected = self.udp().filter(|(source, destination, _)| select(*source, *destination));
        let data = |payload| if channel { channel_data(payload) } else { indication_data(payload) };
        total(selected.filter_map(|(_, _, payload)| data(payload)))
    }

    /// UDP datagrams selected by source and destination.
    pub(crate) fn datagrams(&self, select: impl Fn(SocketAddr, SocketAddr) -> bool) -> Total {
        let selected = self.udp().filter(|(source, destination, _)| select(*source, *destination));
        total(selected.map(|(_, _, payload)| payload))
    }

    /// ICMP port unreachable messages.
    pub(crate) fn port_unreachables(&self) -> usize {
        self.packets.iter().filter(|packet| matches!(packet, Packet::IcmpPortUnreachable)).count()
    }

    /// Panics if tshark finds anything malformed, a wrong checksum, or something on the TURN port that is no
    /// STUN, or if it decodes another number of ChannelData messages than we do.
    pub(crate) fn assert_clean(&self) {
        let bad = self.tshark(&["-Y", BAD]);
        assert_eq!(bad, "", "bad packets in {}:\n{bad}", self.path.display());
        let decoded = self.tshark(&["-Y", "stun.channel && !icmp && !icmpv6"]).lines().count() as u64;
        let ours = self.relayed(true, |from, to| [from.port(), to.port()].contains(&3478)).packets;
        assert_eq!(decoded, ours, "ChannelData messages that tshark decoded in {}", self.path.display());
    }

    fn tshark(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tshark");
        command.arg("-r").arg(&self.path);
        for preference in ["ip.check_checksum:TRUE", "udp.check_checksum:TRUE", "tcp.check_checksum:TRUE"] {
            command.args(["-o", preference]);
        }
        // What clients and peers say to each other is theirs: tshark would take some of it for a protocol that
        // it is not, and then for a malformed one.
        let protocols = process::output(Command::new("tshark").args(["-G", "protocols"]));
        for line in protocols.expect("tshark is installed").lines() {
            let name = line.split('\t').nth(2).expect("the filter name is in the third column");
            if !PROTOCOLS.contains(&name) && !name.starts_with("_ws.") {
                command.args(["--disable-protocol", name]);
            }
        }
        process::output(command.args(arguments)).expect("tshark reads the capture")
    }
}

/// The protocols that the relay is answerable for.
const PROTOCOLS: [&str; 12] =
    ["frame", "eth", "ethertype", "arp", "ip", "icmp", "ipv6", "icmpv6", "udp", "tcp", "stun", "data"];

/// What must not be in a capture. A wrong ChannelData length shows only by the last term. A browser that has hung up
/// answers late media with ICMP, which quotes the beginning of it: what is quoted is not looked at.
const BAD: &str = "icmp.checksum.status==\"Bad\" || icmpv6.checksum.status==\"Bad\" || \
     (!icmp && !icmpv6 && (_ws.malformed || ip.checksum.status==\"Bad\" || udp.checksum.status==\"Bad\" || \
     tcp.checksum.status==\"Bad\" || stun.att.crc32.status==\"Bad\" || stun.wrong_msglen || stun.short_packet || \
     udp.length.bad || _ws.expert.severity>=0x00800000 || (udp.port==3478 && !stun)))";

fn total<'a>(data: impl Iterator<Item = &'a [u8]>) -> Total {
    data.fold(Total::default(), |total, data| Total {
        packets: total.packets + 1,
        bytes: total.bytes + data.len() as u64,
    })
}

fn parse(frame: &[u8]) -> Packet {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return Packet::Other };
    let (source, destination) = match packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            (IpAddr::V4(ip.header().source_addr()), IpAddr::V4(ip.header().destination_addr()))
        }
        Some(NetSlice::Ipv6(ip)) => {
            (IpAddr::V6(ip.header().source_addr()), IpAddr::V6(ip.header().destination_addr()))
        }
        _ => return Packet::Other,
    };
    match packet.transport {
        Some(TransportSlice::Udp(udp)) => Packet::Udp {
            source: SocketAddr::new(source, udp.source_port()),
            destination: SocketAddr::new(destination, udp.destination_port()),
            payload: udp.payload().to_vec(),
        },
        Some(TransportSlice::Icmpv4(icmp)) if (icmp.type_u8(), icmp.code_u8()) == (3, 3) => {
            Packet::IcmpPortUnreachable
        }
        Some(TransportSlice::Icmpv6(icmp)) if (icmp.type_u8(), icmp.code_u8()) == (1, 4) => {
            Packet::IcmpPortUnreachable
        }
        _ => Packet::Other,
    }
}

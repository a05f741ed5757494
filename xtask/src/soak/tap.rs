//! Sees, with the kernel's timestamps, the media that crosses a NIC at a far end of the relay's links: a packet socket,
//! as tcpdump has.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike};

use crate::lab::{Family, Namespace};
use crate::turn_client::message::Message;
use crate::turn_client::{channel_data, indication_data};

/// Enough for what comes while the thread does not get to run.
const RECEIVE_BUFFER: usize = 16 << 20;
/// How long the thread goes without looking whether it is to end.
const PATIENCE: i64 = 200;

/// What a tap saw. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// When media packets were sent to the relay.
    pub(super) to_relay: Vec<u64>,
    /// When media packets came from the relay.
    pub(super) from_relay: Vec<u64>,
    /// Error responses 438.
    pub(super) stale_nonces: u64,
    /// Packets that the socket had no room for.
    pub(super) missed: u64,
}

/// A UDP datagram.
pub(super) struct Datagram<'a> {
    source: SocketAddr,
    destination: SocketAddr,
    payload: &'a [u8],
}

/// A tap on one NIC.
#[derive(Debug)]
pub(super) struct Tap {
    seen: Arc<Mutex<Seen>>,
    ended: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Tap {
    /// Begins to look at a NIC of a namespace; `note` files each datagram.
    pub(super) fn start(
        namespace: &Namespace,
        nic: &str,
        note: fn(&mut Seen, u64, &Datagram<'_>),
    ) -> anyhow::Result<Self> {
        let socket = namespace.run(|| open(nic)).with_context(|| format!("could not listen on {nic}"))?;
        let (seen, ended) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (seen, ended) = (seen.clone(), ended.clone());
            move || look(&socket, &seen, &ended, note)
        });
        Ok(Self { seen, ended, thread })
    }

    /// What it has seen so far.
    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().expect("no holder of the lock panics").clone()
    }

    /// Ends it.
    pub(super) fn finish(self) -> anyhow::Result<Seen> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("the tap's thread does not panic")?;
        Ok(self.seen.lock().expect("no holder of the lock panics").clone())
    }
}

/// At the client, media goes in ChannelData and indications.
pub(super) fn at_client(seen: &mut Seen, time: u64, datagram: &Datagram<'_>) {
    let server = Family::of(datagram.source.ip()).listener();
    let data = channel_data(datagram.payload).or_else(|| indication_data(datagram.payload));
    if datagram.source == server {
        seen.from_relay.extend(data.is_some_and(is_media).then_some(time));
        let error = Message::parse(datagram.payload).and_then(|message| message.error_code());
        seen.stale_nonces += u64::from(error == Some(438));
    } else if datagram.destination == server {
        seen.to_relay.extend(data.is_some_and(is_media).then_some(time));
    }
}

/// At the peer, it goes as it is.
pub(super) fn at_peer(seen: &mut Seen, time: u64, datagram: &Datagram<'_>) {
    let relay = Family::of(datagram.source.ip()).relay_address();
    if is_media(datagram.payload) && datagram.source.ip() == relay {
        seen.from_relay.push(time);
    } else if is_media(datagram.payload) && datagram.destination.ip() == relay {
        seen.to_relay.push(time);
    }
}

/// RTP or RTCP (RFC 7983 section 7).
fn is_media(payload: &[u8]) -> bool {
    matches!(payload.first(), Some(128..=191))
}

/// A packet socket that gets all that comes and goes at a NIC of this thread's namespace.
fn open(nic: &str) -> anyhow::Result<OwnedFd> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(PATIENCE))?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: i32::try_from(if_nametoindex(nic)?)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is a whole `sockaddr_ll` of the length given.
    let result = unsafe {
        let length = size_of_val(&address) as libc::socklen_t;
        libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), length)
    };
    Errno::result(result)?;
    Ok(socket)
}

fn look(
    socket: &OwnedFd,
    seen: &Mutex<Seen>,
    ended: &AtomicBool,
    note: fn(&mut Seen, u64, &Datagram<'_>),
) -> anyhow::Result<()> {
    let mut buffer = [0; 2048];
    let mut control = cmsg_space!(TimeSpec);
    while !ended.load(Ordering::Relaxed) {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
        let (length, time) = match received {
            Ok(message) => (message.bytes, message.cmsgs()?.find_map(timestamp)),
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(error) => return Err(error).context("could not read from a tap"),
        };
        if let (Some(datagram), Some(time)) = (parse(&buffer[..length]), time) {
            note(&mut seen.lock().expect("no holder of the lock panics"), time, &datagram);
        }
    }
    seen.lock().expect("no holder of the lock panics").missed = missed(socket)?;
    Ok(())
}

fn timestamp(message: ControlMessageOwned) -> Option<u64> {
    match message {
        ControlMessageOwned::ScmTimestampns(time) => u64::try_from(Duration::from(time).as_nanos()).ok(),
        _ => None,
    }
}

fn parse(frame: &[u8]) -> Option<Datagram<'_>> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination): (IpAddr, IpAddr) = match packet.net? {
        NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        _ => return None,
    };
    let TransportSlice::Udp(udp) = packet.transport? else { return None };
    Some(Datagram {
        source: SocketAddr::new(source, udp.source_port()),
        destination: SocketAddr::new(destination, udp.destination_port()),
        payload: udp.payload(),
    })
}

/// Packets that the socket had no room for (packet(7), PACKET_STATISTICS).
fn missed(socket: &OwnedFd) -> io::Result<u64> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is what there is room for.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            std::ptr::from_mut(&mut statistics).cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(statistics.tp_drops.into())
}

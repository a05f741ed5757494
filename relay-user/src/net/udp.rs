//! UDP sockets: listeners and relayed transport addresses, and the IP header fields of what they receive and send.

use std::{
    ffi::c_int,
    io::{self, IoSlice, IoSliceMut},
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, RawFd},
};

use nix::sys::{
    resource::{Resource, getrlimit},
    socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg,
        sendmsg, setsockopt,
        sockopt::{
            AttachReusePortCbpf, IpRecvTos, Ipv4RecvErr, Ipv4RecvTtl, Ipv6DontFrag, Ipv6RecvErr,
            Ipv6RecvHopLimit, Ipv6RecvTClass, Ipv6V6Only, RcvBuf, RcvBufForce, ReusePort, SndBuf,
            SndBufForce,
        },
    },
};
use socket2::{Domain, Protocol, SockRef, Socket as NewSocket, Type};
use tokio::{io::Interest, net::UdpSocket};

use crate::turn::{Fragmentation, IcmpError, IpHeader, IpMeta, PeerAddr};

/// Largest UDP payload, and then some.
pub(super) const DATAGRAM_MAX: usize = 1 << 16;

/// Queue of a listener in bytes, which all clients share: some 50 ms of 1 Gbit/s.
const LISTENER_BUFFER: usize = 8 << 20;

/// Queue of one relayed address in bytes. The kernel takes it only while packets are in it.
const RELAYED_BUFFER: usize = 1 << 20;

/// What every IPv6 link carries, less IPv6 and UDP headers: never fragmented, and never too big.
const FITS_ANY_IPV6_LINK: usize = 1280 - 40 - 8;

/// Why a listener was not opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another socket has the port.
    #[error(
        "listen udp://{address}: the port is in use: find its owner with `ss -lunp 'sport = :{port}'` and stop it, \
         or choose another port", port = address.port()
    )]
    InUse {
        /// The listener.
        address: SocketAddr,
    },
    /// A port below 1024 without the privilege.
    #[error(
        "listen udp://{address}: ports below 1024 need CAP_NET_BIND_SERVICE: run as root, or choose another port"
    )]
    Forbidden {
        /// The listener.
        address: SocketAddr,
    },
    /// It is gone since the configuration was read, or an IPv6 address that is not checked for duplicates yet.
    #[error(
        "listen udp://{address}: the address cannot be used now: `ip address show to {ip}` tells whether it is \
         tentative (start again when it no longer is), a duplicate of another host's, or gone", ip = address.ip()
    )]
    NotAvailable {
        /// The listener.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("listen udp://{address}: {cause}")]
    Other {
        /// The listener.
        address: SocketAddr,
        /// The kernel's answer.
        cause: io::Error,
    },
}

/// A UDP address of ours: a listener or a relayed transport address.
///
/// No system call tells the DF bit of a received IPv4 datagram. So there are two sockets for one IPv4 address, in one
/// `SO_REUSEPORT` group, and a classic BPF program that looks at the bit gives the second one what has DF set. Each
/// sends as it receives. IPv6 has no such bit.
pub struct Endpoint {
    address: SocketAddr,
    sockets: Vec<Socket>,
}

/// One of the sockets of an [`Endpoint`].
pub(super) struct Socket {
    io: UdpSocket,
    /// What it receives has DF set, or has not; `None`: there is no telling.
    dont_fragment: Option<bool>,
}

/// What was received: its UDP payload is in the buffer.
pub(super) struct Datagram {
    pub(super) length: usize,
    pub(super) from: SocketAddr,
    pub(super) meta: IpMeta,
}

impl Endpoint {
    /// Opens a listener. Needs a tokio runtime.
    pub fn listener(address: SocketAddr) -> Result<Self, BindError> {
        Self::bind(address, LISTENER_BUFFER, false).map_err(|cause| match cause.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address },
            io::ErrorKind::PermissionDenied => BindError::Forbidden { address },
            io::ErrorKind::AddrNotAvailable => BindError::NotAvailable { address },
            _ => BindError::Other { address, cause },
        })
    }

    /// Opens a relayed transport address, which hears ICMP errors. Where open files run short it has one socket, and
    /// knows no DF bit: fields of the IP header are worth less than allocations.
    pub(super) fn relayed(address: SocketAddr) -> io::Result<Self> {
        Self::bind(address, RELAYED_BUFFER, true)
    }

    fn bind(address: SocketAddr, buffer: usize, relayed: bool) -> io::Result<Self> {
        let first = new_socket(address, buffer, relayed)?;
        // Not yet as one of a group: whoever else has the port, with or without a group, is in the way.
        first.bind(&address.into())?;
        let address = first.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        let one_is_enough = address.is_ipv6() || (relayed && files_run_short(first.as_raw_fd())?);
        let mut sockets = vec![Socket::new(first, (!one_is_enough).then_some(false))?];
        if !one_is_enough {
            let second = new_socket(address, buffer, relayed)?;
            set_int(&second, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
            for socket in [&sockets[0].io as &dyn AsFd, &second] {
                setsockopt(&socket.as_fd(), ReusePort, &true)?;
            }
            second.bind(&address.into())?;
            choose_by_dont_fragment(&second)?;
            sockets.push(Socket::new(second, Some(true))?);
        }
        Ok(Self { address, sockets })
    }

    /// Where it is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn sockets(&self) -> &[Socket] {
        &self.sockets
    }

    /// The highest of its file descriptors.
    pub(super) fn last_file(&self) -> RawFd {
        self.sockets.iter().map(|socket| socket.io.as_raw_fd()).max().unwrap_or_default()
    }

    /// Waits until there may be something to receive.
    pub(super) async fn ready(&self) -> io::Result<()> {
        const ANYTHING: Interest = Interest::READABLE.add(Interest::ERROR);
        match &self.sockets[..] {
            [one] => one.io.ready(ANYTHING).await.map(drop),
            [first, second, ..] => tokio::select! {
                ready = first.io.ready(ANYTHING) => ready.map(drop),
                ready = second.io.ready(ANYTHING) => ready.map(drop),
            },
            [] => std::future::pending().await,
        }
    }

    /// Sends without waiting. Not through tokio, which calls a socket unready until it has polled it once.
    ///
    /// # Errors
    /// `EMSGSIZE`: it does not fit the link and must not be fragmented. Any error may be that of an earlier datagram
    /// which came back as an ICMP error; then this one was not tried.
    pub(super) fn send(&self, ip: IpHeader, data: &[u8], to: SocketAddr) -> io::Result<()> {
        let never = ip.fragmentation == Fragmentation::Never;
        if self.address.is_ipv4() {
            match self.sockets.iter().find(|socket| socket.dont_fragment == Some(never)) {
                Some(socket) => socket.send(ip, data, to),
                None if never => self.sockets[0].with_dont_fragment(|socket| socket.send(ip, data, to)),
                None => self.sockets[0].send(ip, data, to),
            }
        } else if never || data.len() <= FITS_ANY_IPV6_LINK {
            self.sockets[0].send(ip, data, to)
        } else {
            self.sockets[0].with_fragmentation(|socket| socket.send(ip, data, to))
        }
    }

    /// The next ICMP error for a datagram that left from here, if there is one.
    pub(super) fn icmp_error(&self) -> Option<IcmpError> {
        self.sockets.iter().find_map(Socket::icmp_error)
    }

    /// Takes back what errors left for the next call to report.
    pub(super) fn clear_errors(&self) {
        for socket in &self.sockets {
            // There is nobody left to tell.
            let _ = SockRef::from(&socket.io).take_error();
        }
    }

    /// Datagrams that were dropped since it was opened: a queue was full, or their checksum was wrong.
    pub(super) fn receive_drops(&self) -> u64 {
        self.sockets.iter().map(|socket| receive_drops(&socket.io).map_or(0, u64::from)).sum()
    }

    /// The largest IP packet that the way to a destination takes.
    pub(super) fn mtu(&self, to: SocketAddr) -> io::Result<u32> {
        let asker = NewSocket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
        asker.bind(&SocketAddr::new(self.address.ip(), 0).into())?;
        asker.connect(&to.into())?;
        let (level, name) = match to {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
        };
        let mut mtu = [0 as c_int];
        get(&asker, level, name, &mut mtu)?;
        u32::try_from(mtu[0]).map_err(io::Error::other)
    }
}

impl Socket {
    fn new(socket: NewSocket, dont_fragment: Option<bool>) -> io::Result<Self> {
        Ok(Self { io: UdpSocket::from_std(socket.into())?, dont_fragment })
    }

    /// The next datagram, if tokio has seen that there may be one.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Datagram> {
        self.io.try_io(Interest::READABLE, || self.receive_now(buffer))
    }

    fn receive_now(&self, buffer: &mut [u8]) -> io::Result<Datagram> {
        let mut control = Control::default();
        let mut parts = [IoSliceMut::new(buffer)];
        let fd = self.io.as_raw_fd();
        let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control.0), MsgFlags::empty())?;
        let mut meta = IpMeta { dont_fragment: self.dont_fragment, ..IpMeta::default() };
        for field in message.cmsgs()? {
            match field {
                ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => {
                    meta.ttl = u8::try_from(ttl).ok();
                }
                ControlMessageOwned::Ipv4Tos(tos) => meta.traffic_class = Some(tos),
                ControlMessageOwned::Ipv6TClass(class) => meta.traffic_class = u8::try_from(class).ok(),
                ControlMessageOwned::Unknown(field)
                    if (field.cmsg_header.cmsg_level, field.cmsg_header.cmsg_type)
                        == (libc::IPPROTO_IPV6, libc::IPV6_RECVFRAGSIZE) =>
                {
                    meta.fragmented = true;
                }
                _ => {}
            }
        }
        let from = message.address.as_ref().and_then(socket_addr).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Datagram { length: message.bytes, from, meta })
    }

    /// The next ICMP error, if tokio has seen that there may be one.
    pub(super) fn receive_error(&self) -> Option<IcmpError> {
        // Only an empty queue makes tokio wait for the next one.
        let next = || self.icmp_error().ok_or_else(|| io::ErrorKind::WouldBlock.into());
        self.io.try_io(Interest::ERROR, next).ok()
    }

    fn icmp_error(&self) -> Option<IcmpError> {
        loop {
            let mut control = Control::default();
            let message = recvmsg::<SockaddrStorage>(
                self.io.as_raw_fd(),
                &mut [],
                Some(&mut control.0),
                MsgFlags::MSG_ERRQUEUE,
            )
            .ok()?;
            let peer = message.address.as_ref().and_then(socket_addr);
            let error = message.cmsgs().ok().into_iter().flatten().find_map(|field| match field {
                ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
                    Some(error)
                }
                _ => None,
            });
            if let (Some(peer), Some(error)) = (peer, error)
                && matches!(error.ee_origin, libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6)
            {
                let (kind, code, mtu) = (error.ee_type, error.ee_code, error.ee_info);
                return Some(IcmpError { peer: PeerAddr(peer), kind, code, mtu });
            }
        }
    }

    fn send(&self, ip: IpHeader, data: &[u8], to: SocketAddr) -> io::Result<()> {
        let fd = self.io.as_raw_fd();
        let parts = [IoSlice::new(data)];
        let flags = MsgFlags::empty();
        let class = c_int::from(ip.traffic_class);
        let ttl = ip.ttl.map(c_int::from);
        // Only what differs from the socket's own: control messages cost.
        match to {
            SocketAddr::V4(to) => {
                let ttl = ttl.as_ref().map(ControlMessage::Ipv4Ttl);
                let class = (class != 0).then_some(ControlMessage::Ipv4Tos(&ip.traffic_class));
                let fields = ttl.into_iter().chain(class).collect::<Vec<_>>();
                sendmsg(fd, &parts, &fields, flags, Some(&SockaddrIn::from(to)))?;
            }
            SocketAddr::V6(to) => {
                let ttl = ttl.as_ref().map(ControlMessage::Ipv6HopLimit);
                let class = (class != 0).then_some(ControlMessage::Ipv6TClass(&class));
                let fields = ttl.into_iter().chain(class).collect::<Vec<_>>();
                sendmsg(fd, &parts, &fields, flags, Some(&SockaddrIn6::from(to)))?;
            }
        }
        Ok(())
    }

    /// Sends one datagram with DF=1 from a socket that has no other beside it.
    fn with_dont_fragment(&self, send: impl FnOnce(&Self) -> io::Result<()>) -> io::Result<()> {
        let set = |value| set_int(&self.io, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value);
        set(libc::IP_PMTUDISC_PROBE)?;
        let sent = send(self);
        set(libc::IP_PMTUDISC_OMIT)?;
        sent
    }

    /// Sends one IPv6 datagram in fragments, if it needs them.
    fn with_fragmentation(&self, send: impl FnOnce(&Self) -> io::Result<()>) -> io::Result<()> {
        setsockopt(&self.io, Ipv6DontFrag, &false)?;
        let sent = send(self);
        setsockopt(&self.io, Ipv6DontFrag, &true)?;
        sent
    }
}

/// Room for all control messages of one datagram.
#[repr(align(8))]
struct Control([u8; 256]);

impl Default for Control {
    fn default() -> Self {
        Self([0; 256])
    }
}

fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|&v4| SocketAddrV4::from(v4).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|&v6| SocketAddrV6::from(v6).into()))
}

/// A socket that tells the fields of the IP header, sends with DF=0 (IPv6: never fragments), and believes no ICMP
/// about the MTU of a path, which anybody could forge: `PMTUDISC_OMIT` and `PMTUDISC_PROBE` know only the link's.
fn new_socket(address: SocketAddr, buffer: usize, errors: bool) -> io::Result<NewSocket> {
    let socket = NewSocket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Beyond net.core.rmem_max and wmem_max where CAP_NET_ADMIN allows, else up to them.
    setsockopt(&socket, RcvBufForce, &buffer).or_else(|_| setsockopt(&socket, RcvBuf, &buffer))?;
    setsockopt(&socket, SndBufForce, &buffer).or_else(|_| setsockopt(&socket, SndBuf, &buffer))?;
    if address.is_ipv4() {
        setsockopt(&socket, IpRecvTos, &true)?;
        setsockopt(&socket, Ipv4RecvTtl, &true)?;
        setsockopt(&socket, Ipv4RecvErr, &errors)?;
        set_int(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)?;
    } else {
        setsockopt(&socket, Ipv6V6Only, &true)?;
        setsockopt(&socket, Ipv6RecvTClass, &true)?;
        setsockopt(&socket, Ipv6RecvHopLimit, &true)?;
        setsockopt(&socket, Ipv6RecvErr, &errors)?;
        setsockopt(&socket, Ipv6DontFrag, &true)?;
        set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVFRAGSIZE, 1)?;
        set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_OMIT)?;
    }
    Ok(socket)
}

/// Of the group of two that the socket is in, the first gets datagrams with DF=0, the second those with DF=1.
fn choose_by_dont_fragment(socket: &impl AsFd) -> nix::Result<()> {
    const DONT_FRAGMENT: u32 = 0x4000;
    /// Flags and fragment offset, from the beginning of the IP header.
    const FRAGMENT: u32 = libc::SKF_NET_OFF.cast_unsigned() + 6;
    let instruction = |code: u32, k| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, FRAGMENT),
        instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, DONT_FRAGMENT),
        // 0x4000 becomes 1.
        instruction(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, DONT_FRAGMENT.ilog2()),
        instruction(libc::BPF_RET | BPF_A, 0),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    setsockopt(socket, AttachReusePortCbpf, &program)
}

/// What a classic BPF program returns: the accumulator (include/uapi/linux/filter.h).
const BPF_A: u32 = 0x10;

/// Whether three quarters of the open files that the process may have are in use.
fn files_run_short(newest: RawFd) -> io::Result<bool> {
    // The kernel gives the lowest number that is free.
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(newest as u64 >= limit / 4 * 3)
}

fn set_int(socket: &impl AsFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for the call, and `value` lives and is as long as is said.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads a socket option that is an array of numbers.
fn get<T: Number, const N: usize>(
    socket: &impl AsFd,
    level: c_int,
    name: c_int,
    values: &mut [T; N],
) -> io::Result<()> {
    let mut length = size_of_val(values) as libc::socklen_t;
    // SAFETY: the descriptor is open for the call, and `values` lives, has as many bytes as `length` says, and may
    // have any content.
    let result = unsafe {
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, values.as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Types of which every pattern of bits is a value.
trait Number {}
impl Number for c_int {}
impl Number for u32 {}

/// Datagrams for this socket that were dropped since it was opened: its queue was full, or their checksum was
/// wrong. The number wraps.
fn receive_drops(socket: &UdpSocket) -> io::Result<u32> {
    // SK_MEMINFO_VARS and SK_MEMINFO_DROPS (include/uapi/linux/sock_diag.h).
    const VARS: usize = 9;
    const DROPS: usize = 8;
    let mut values = [0u32; VARS];
    get(socket, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut values)?;
    Ok(values[DROPS])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
    const LOOPBACK_V6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), 0);

    /// The next datagram, and which socket it came to.
    async fn receive(endpoint: &Endpoint, buffer: &mut [u8]) -> (Datagram, usize) {
        loop {
            endpoint.ready().await.unwrap();
            for (number, socket) in endpoint.sockets().iter().enumerate() {
                match socket.receive(buffer) {
                    Ok(datagram) => return (datagram, number),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
        }
    }

    #[tokio::test]
    async fn the_largest_datagram_passes_from_a_fresh_socket() {
        for (address, largest) in [(LOOPBACK, 65507), (LOOPBACK_V6, 65527)] {
            let receiver = Endpoint::relayed(address).unwrap();
            let sender = Endpoint::relayed(address).unwrap();
            let data = vec![0x5a; largest];
            sender.send(IpHeader::default(), &data, receiver.address()).unwrap();
            let mut buffer = vec![0; DATAGRAM_MAX];
            let (datagram, _) = receive(&receiver, &mut buffer).await;
            assert_eq!((&buffer[..datagram.length], datagram.from), (&data[..], sender.address()));
        }
    }

    #[tokio::test]
    async fn header_fields_arrive_as_they_were_sent() {
        for address in [LOOPBACK, LOOPBACK_V6] {
            let (sender, receiver) =
                (Endpoint::relayed(address).unwrap(), Endpoint::listener(address).unwrap());
            let is_v4 = address.is_ipv4();
            for (ttl, traffic_class) in [(1, 0), (59, 0xb8), (255, 0xff)] {
                for fragmentation in [Fragmentation::Allowed, Fragmentation::Never] {
                    let ip = IpHeader { ttl: Some(ttl), traffic_class, fragmentation };
                    sender.send(ip, b"x", receiver.address()).unwrap();
                    let (datagram, _) = receive(&receiver, &mut [0; 10]).await;
                    let meta = IpMeta {
                        ttl: Some(ttl),
                        traffic_class: Some(traffic_class),
                        dont_fragment: is_v4.then_some(fragmentation == Fragmentation::Never),
                        fragmented: false,
                    };
                    assert_eq!(datagram.meta, meta);
                }
            }
        }
    }

    #[tokio::test]
    async fn turn_213_one_socket_sends_df_and_does_not_know_what_it_receives() {
        let [mut one, mut other] = [(); 2].map(|()| Endpoint::relayed(LOOPBACK).unwrap());
        for endpoint in [&mut one, &mut other] {
            // As where open files run short.
            let socket = new_socket(LOOPBACK, RELAYED_BUFFER, true).unwrap();
            socket.bind(&LOOPBACK.into()).unwrap();
            endpoint.address = socket.local_addr().unwrap().as_socket().unwrap();
            endpoint.sockets = vec![Socket::new(socket, None).unwrap()];
        }
        let pair = Endpoint::relayed(LOOPBACK).unwrap();
        for fragmentation in [Fragmentation::Never, Fragmentation::Allowed] {
            let ip = IpHeader { fragmentation, ..IpHeader::default() };
            one.send(ip, b"x", pair.address()).unwrap();
            let (datagram, _) = receive(&pair, &mut [0; 10]).await;
            assert_eq!(datagram.meta.dont_fragment, Some(fragmentation == Fragmentation::Never));
            one.send(ip, b"x", other.address()).unwrap();
            let (datagram, _) = receive(&other, &mut [0; 10]).await;
            assert_eq!(datagram.meta.dont_fragment, None);
        }
    }

    #[tokio::test]
    async fn an_icmp_error_names_the_destination_and_costs_no_later_datagram() {
        for (address, port_unreachable) in [(LOOPBACK, (3, 3)), (LOOPBACK_V6, (1, 4))] {
            let sender = Endpoint::relayed(address).unwrap();
            let receiver = Endpoint::relayed(address).unwrap();
            let nobody = Endpoint::relayed(address).unwrap().address();
            sender.send(IpHeader::default(), b"x", nobody).unwrap();
            // Loopback delivers at once, so the answer is there.
            sender.ready().await.unwrap();
            let error = sender.sockets().iter().find_map(Socket::receive_error).expect("port unreachable");
            assert_eq!((error.kind, error.code), port_unreachable);
            assert_eq!(error.peer, PeerAddr(nobody));
            assert_eq!(sender.icmp_error(), None);
            sender.send(IpHeader::default(), b"y", receiver.address()).unwrap();
            receive(&receiver, &mut [0; 10]).await;

            sender.send(IpHeader::default(), b"x", nobody).unwrap();
            sender.clear_errors();
            sender.send(IpHeader::default(), b"y", receiver.address()).unwrap();
        }
    }

    #[tokio::test]
    async fn no_icmp_error_is_left_waiting_and_no_datagram_behind_them() {
        const ERRORS: usize = 100;
        for address in [LOOPBACK, LOOPBACK_V6] {
            let endpoint = Endpoint::relayed(address).unwrap();
            let peer = Endpoint::relayed(address).unwrap();
            let nobody = Endpoint::relayed(address).unwrap().address();
            for _ in 0..ERRORS {
                endpoint.send(IpHeader::default(), b"x", nobody).unwrap();
                endpoint.clear_errors();
            }
            peer.send(IpHeader::default(), b"y", endpoint.address()).unwrap();
            receive(&endpoint, &mut [0; 10]).await;

            // A few at a time, as a flood is read.
            let mut errors = 0;
            while errors < ERRORS {
                endpoint.ready().await.unwrap();
                let next = || endpoint.sockets().iter().find_map(Socket::receive_error);
                errors += std::iter::from_fn(next).take(7).count();
            }
            assert!(endpoint.sockets().iter().all(|socket| socket.receive_error().is_none()));
        }
    }

    #[tokio::test]
    async fn datagrams_that_a_full_queue_dropped_are_known() {
        let receiver = Endpoint::relayed(LOOPBACK).unwrap();
        for socket in receiver.sockets() {
            setsockopt(&socket.io, RcvBuf, &0).unwrap();
        }
        let sender = Endpoint::relayed(LOOPBACK).unwrap();
        assert_eq!(receiver.receive_drops(), 0);
        for _ in 0..100 {
            sender.send(IpHeader::default(), &[0; 1000], receiver.address()).unwrap();
        }
        receiver.ready().await.unwrap();
        let mut received = 0;
        while receiver.sockets()[0].receive(&mut [0; 1000]).is_ok() {
            received += 1;
        }
        let dropped = receiver.receive_drops();
        assert!(dropped > 0 && received + dropped == 100, "{received} received, {dropped} dropped");
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_the_way_to_its_owner() {
        for loopback in [LOOPBACK, LOOPBACK_V6] {
            let first = Endpoint::listener(loopback).unwrap();
            let address = first.address();
            let message = Endpoint::listener(address).err().expect("it is in use").to_string();
            assert!(message.starts_with(&format!("listen udp://{address}: the port is in use")), "{message}");
            assert!(message.contains(&format!("ss -lunp 'sport = :{}'", address.port())), "{message}");
        }
    }

    #[tokio::test]
    async fn a_group_of_another_program_is_in_the_way_too() {
        let other = NewSocket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        setsockopt(&other, ReusePort, &true).unwrap();
        other.bind(&LOOPBACK.into()).unwrap();
        let address = other.local_addr().unwrap().as_socket().unwrap();
        let error = Endpoint::relayed(address).err().expect("it is in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
    #[tokio::test]
    async fn who_joins_the_group_takes_nothing() {
        let endpoint = Endpoint::listener(LOOPBACK).unwrap();
        // The kernel lets any program of the same user in.
        let other = NewSocket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        setsockopt(&other, ReusePort, &true).unwrap();
        other.bind(&endpoint.address().into()).unwrap();
        for _ in 0..50 {
            // Another port each time, by which the kernel would choose.
            let sender = Endpoint::relayed(LOOPBACK).unwrap();
            for fragmentation in [Fragmentation::Allowed, Fragmentation::Never] {
                let ip = IpHeader { fragmentation, ..IpHeader::default() };
                sender.send(ip, b"x", endpoint.address()).unwrap();
                let (datagram, _) = receive(&endpoint, &mut [0; 10]).await;
                assert_eq!(datagram.meta.dont_fragment, Some(fragmentation == Fragmentation::Never));
            }
        }
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_used_is_told_with_the_way_to_see_why() {
        for address in ["192.0.2.77:3478", "[2001:db8::77]:3478"] {
            let address = address.parse::<SocketAddr>().unwrap();
            let message = Endpoint::listener(address).err().expect("it is not here").to_string();
            assert!(message.contains(&format!("ip address show to {}", address.ip())), "{message}");
        }
    }
}

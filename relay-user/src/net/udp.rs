//! UDP sockets: listeners and relayed transport addresses.

use std::{
    ffi::c_int,
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
};

use nix::sys::socket::{
    setsockopt,
    sockopt::{RcvBuf, RcvBufForce, SndBuf, SndBufForce},
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

/// Largest UDP payload over IPv4, and then some.
pub(super) const DATAGRAM_MAX: usize = 1 << 16;

/// Queue of a listener in bytes, which all clients share: some 50 ms of 1 Gbit/s.
const LISTENER_BUFFER: usize = 8 << 20;

/// Queue of one relayed address in bytes. The kernel takes it only while packets are in it.
const RELAYED_BUFFER: usize = 1 << 20;

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
    /// Anything else.
    #[error("listen udp://{address}: {cause}")]
    Other {
        /// The listener.
        address: SocketAddr,
        /// The kernel's answer.
        cause: io::Error,
    },
}

/// Opens a listener. Needs a tokio runtime.
pub fn bind_listener(address: SocketAddr) -> Result<UdpSocket, BindError> {
    bind(address, LISTENER_BUFFER).map_err(|cause| match cause.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        io::ErrorKind::PermissionDenied => BindError::Forbidden { address },
        _ => BindError::Other { address, cause },
    })
}

/// Opens a relayed transport address.
pub(super) fn bind_relayed(address: SocketAddr) -> io::Result<UdpSocket> {
    bind(address, RELAYED_BUFFER)
}

fn bind(address: SocketAddr, buffer: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Beyond net.core.rmem_max and wmem_max where CAP_NET_ADMIN allows, else up to them.
    setsockopt(&socket, RcvBufForce, &buffer).or_else(|_| setsockopt(&socket, RcvBuf, &buffer))?;
    setsockopt(&socket, SndBufForce, &buffer).or_else(|_| setsockopt(&socket, SndBuf, &buffer))?;
    never_dont_fragment(&socket)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Datagrams leave with DF=0, fragmented where they do not fit: the DF bit they came with is not known here,
/// and counts as 0 then (RFC 8656 section 14). `IP_PMTUDISC_OMIT` does not believe forged ICMP either.
fn never_dont_fragment(socket: &impl AsFd) -> io::Result<()> {
    let value: c_int = libc::IP_PMTUDISC_OMIT;
    // SAFETY: the descriptor is open for the call, and `value` lives and is as long as is said.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Datagrams for this socket that were dropped since it was opened: its queue was full, or their checksum was
/// wrong. The number wraps.
pub(super) fn receive_drops(socket: &UdpSocket) -> io::Result<u32> {
    // SK_MEMINFO_VARS and SK_MEMINFO_DROPS (include/uapi/linux/sock_diag.h).
    const VARS: usize = 9;
    const DROPS: usize = 8;
    let mut values = [0u32; VARS];
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the descriptor is open for the call, and `values` lives and has as many bytes as `length` says.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            (&raw mut values).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(values[DROPS]) } else { Err(io::Error::last_os_error()) }
}

/// Sends without waiting. Not through tokio, which calls a socket unready until it has polled it once.
pub(super) fn send(socket: &UdpSocket, data: &[u8], to: SocketAddr) -> io::Result<()> {
    SockRef::from(socket).send_to(data, &to.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[tokio::test]
    async fn the_largest_datagram_passes_from_a_fresh_socket() {
        let receiver = bind_relayed(LOOPBACK).unwrap();
        let sender = bind_relayed(LOOPBACK).unwrap();
        let data = vec![0x5a; 65507];
        send(&sender, &data, receiver.local_addr().unwrap()).unwrap();
        let mut buffer = vec![0; DATAGRAM_MAX];
        let (length, from) = receiver.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], from), (&data[..], sender.local_addr().unwrap()));
    }

    #[tokio::test]
    async fn datagrams_that_a_full_queue_dropped_are_known() {
        let receiver = bind_relayed(LOOPBACK).unwrap();
        setsockopt(&receiver, RcvBuf, &0).unwrap();
        let sender = bind_relayed(LOOPBACK).unwrap();
        assert_eq!(receive_drops(&receiver).unwrap(), 0);
        for _ in 0..100 {
            send(&sender, &[0; 1000], receiver.local_addr().unwrap()).unwrap();
        }
        receiver.readable().await.unwrap();
        let mut received = 0;
        while receiver.try_recv_from(&mut [0; 1000]).is_ok() {
            received += 1;
        }
        let dropped = receive_drops(&receiver).unwrap();
        assert!(dropped > 0 && received + dropped == 100, "{received} received, {dropped} dropped");
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_the_way_to_its_owner() {
        let first = bind_listener(LOOPBACK).unwrap();
        let address = first.local_addr().unwrap();
        let message = bind_listener(address).unwrap_err().to_string();
        assert!(message.starts_with(&format!("listen udp://{address}: the port is in use")), "{message}");
        assert!(message.contains(&format!("ss -lunp 'sport = :{}'", address.port())), "{message}");
    }
}

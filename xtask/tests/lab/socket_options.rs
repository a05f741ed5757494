//! What a UDP socket sends its datagrams with, beyond what the standard library can set.

use std::ffi::c_int;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// Fields of the IP header of what is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    /// Or the hop limit.
    pub(crate) ttl: u8,
    /// DSCP and ECN.
    pub(crate) traffic_class: u8,
    /// IPv4's. IPv6 packets are not fragmented on the way.
    pub(crate) dont_fragment: bool,
}

/// Sets them for what is sent from now on, whatever the kernel has learned of the path's MTU. A datagram that does not fit
/// the sender's own link is refused where it may not be fragmented.
pub(crate) fn set(socket: &UdpSocket, header: Header) {
    let Header { ttl, traffic_class, dont_fragment } = header;
    if socket.local_addr().expect("it is bound").is_ipv4() {
        let discover = if dont_fragment { libc::IP_PMTUDISC_PROBE } else { libc::IP_PMTUDISC_OMIT };
        set_int(socket, libc::IPPROTO_IP, libc::IP_TTL, ttl.into());
        set_int(socket, libc::IPPROTO_IP, libc::IP_TOS, traffic_class.into());
        set_int(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, discover);
    } else {
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, ttl.into());
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, traffic_class.into());
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE);
    }
}

pub(crate) fn set_int(socket: &UdpSocket, level: c_int, name: c_int, value: c_int) {
    // SAFETY: the descriptor is open for the call, and `value` lives and is as long as is said.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

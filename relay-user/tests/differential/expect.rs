//! The frame that the server's output is to leave as.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use relay_user::{
    net::next_hop::NextHop,
    turn::{Fragmentation, IpHeader, Output},
};

use crate::{
    judge::hex,
    packet::{CUSTOMER_TAG, IPV4, IPV6, SERVICE_TAG, UDP, ones_sum, udp_checksum},
    receive::Came,
};

/// A datagram that the server sends.
#[derive(Clone, Copy)]
pub struct Sent<'a> {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub ip: IpHeader,
    pub payload: &'a [u8],
}

impl fmt::Debug for Sent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, ip, payload } = self;
        write!(f, "{source} to {destination}, {ip:?}, {} bytes: {}", payload.len(), hex(payload))
    }
}

impl Sent<'_> {
    /// How many bytes of the payload are data, which has so many bytes, or padding behind it.
    pub fn behind(&self, data_len: usize) -> usize {
        let is_data_indication = self.payload.starts_with(&[0, 0x17]) && self.payload.len() > data_len + 4;
        if is_data_indication { data_len.next_multiple_of(4) } else { data_len }
    }
}

/// The one datagram among the outputs.
pub fn sent(outputs: &[Output]) -> Result<Sent<'_>, String> {
    match outputs {
        [Output::ToClient { five_tuple, ip, datagram }] => Ok(Sent {
            source: five_tuple.server.0,
            destination: five_tuple.client.0,
            ip: *ip,
            payload: datagram,
        }),
        [Output::ToPeer { relayed, peer, ip, data }] => {
            Ok(Sent { source: relayed.0, destination: peer.0, ip: *ip, payload: data })
        }
        other => Err(format!("one datagram, not {other:?}")),
    }
}

/// Writes the frame into `expected`. What the relay is free to choose is taken from `result`, the program's frame: the
/// Identification, and the transaction ID of a Data indication, which is returned. The UDP checksum is judged here:
/// right, wrong or absent as it came.
pub fn frame(
    expected: &mut Vec<u8>,
    result: &mut [u8],
    sent: &Sent<'_>,
    is_data_indication: bool,
    (next_hop, came): (&NextHop, Came),
) -> Result<Option<[u8; 12]>, String> {
    expected.clear();
    expected.extend(next_hop.destination_mac);
    expected.extend(next_hop.source_mac);
    for tag in next_hop.tags.iter().flatten() {
        let kind = if tag.service { SERVICE_TAG } else { CUSTOMER_TAG };
        expected.extend(kind.to_be_bytes());
        expected.extend(tag.id.to_be_bytes());
    }
    let IpHeader { ttl, traffic_class, fragmentation } = sent.ip;
    let ttl = ttl.ok_or("a relayed packet has a TTL")?;
    let udp_len = (8 + sent.payload.len()) as u16;
    let addresses = (sent.source.ip(), sent.destination.ip());
    match addresses {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            expected.extend(IPV4.to_be_bytes());
            let at = expected.len();
            expected.extend([0x45, traffic_class]);
            expected.extend((20 + udp_len).to_be_bytes());
            expected.extend(result.get(at + 4..at + 6).ok_or("it is too short")?);
            expected.extend(if fragmentation == Fragmentation::Never { [0x40, 0] } else { [0, 0] });
            expected.extend([ttl, UDP, 0, 0]);
            expected.extend(source.octets());
            expected.extend(destination.octets());
            let checksum = !ones_sum(&expected[at..], 0);
            expected[at + 10..at + 12].copy_from_slice(&checksum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            expected.extend(IPV6.to_be_bytes());
            expected.extend((6 << 28 | u32::from(traffic_class) << 20).to_be_bytes());
            expected.extend(udp_len.to_be_bytes());
            expected.extend([UDP, ttl]);
            expected.extend(source.octets());
            expected.extend(destination.octets());
        }
        _ => unreachable!("a datagram has addresses of one family"),
    }
    let udp_at = expected.len();
    expected.extend(sent.source.port().to_be_bytes());
    expected.extend(sent.destination.port().to_be_bytes());
    expected.extend(udp_len.to_be_bytes());
    expected.extend([0, 0]);
    let payload_at = expected.len();
    expected.extend_from_slice(sent.payload);
    let transaction = if is_data_indication {
        let theirs = result.get(payload_at + 8..payload_at + 20).ok_or("it is too short")?;
        let theirs = <[u8; 12]>::try_from(theirs).expect("12 bytes");
        change_transaction(&mut expected[payload_at..], theirs);
        Some(theirs)
    } else {
        None
    };

    let right = udp_checksum(addresses, &expected[udp_at..]);
    let field = result.get(udp_at + 6..udp_at + 8).ok_or("it is too short")?;
    let checksum = u16::from_be_bytes([field[0], field[1]]);
    let is_as_it_came = match came {
        Came::Right => checksum == right,
        Came::None => checksum == 0,
        Came::Wrong => checksum != 0 && checksum != right,
    };
    if !is_as_it_came {
        return Err(format!("UDP checksum {checksum:04x} where {right:04x} is right, and it came {came:?}"));
    }
    expected[udp_at + 6..udp_at + 8].copy_from_slice(&checksum.to_be_bytes());
    Ok(transaction)
}

/// Gives a Data indication another transaction ID, which an IPv6 address in it is XORed with.
fn change_transaction(message: &mut [u8], transaction: [u8; 12]) {
    let ours = <[u8; 12]>::try_from(&message[8..20]).expect("12 bytes");
    message[8..20].copy_from_slice(&transaction);
    // XOR-PEER-ADDRESS comes first; behind type, length, family and port is the address.
    if message[20..24] == [0, 0x12, 0, 20] {
        for (byte, (ours, theirs)) in message[32..44].iter_mut().zip(ours.into_iter().zip(transaction)) {
            *byte ^= ours ^ theirs;
        }
    }
}

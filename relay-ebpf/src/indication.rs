//! Send and Data indications (RFC 8656 sections 11.1 and 11.5) as far as the program reads and makes them.

use core::ptr::write_volatile;

use relay_common::{
    address::{Address, Family},
    outcome::Outcome,
};

use crate::{
    headers::{ATTRIBUTE_LEN, Attribute, DataIndication, STUN_LEN, Stun, Words, XorAddress},
    lookup,
    packet::Packet,
};

/// Message types, as they lie in a header.
pub(crate) const SEND_INDICATION: u16 = u16::to_be(0x0016);
const DATA_INDICATION: u16 = u16::to_be(0x0017);
const MAGIC_COOKIE: u32 = u32::to_be(0x2112_a442);
/// The half of the magic cookie that ports are XORed with.
const MAGIC_COOKIE_PORT: u16 = u16::to_be(0x2112);

/// Attribute types, as they lie in a header.
const XOR_PEER_ADDRESS: u16 = u16::to_be(0x0012);
const DATA: u16 = u16::to_be(0x0013);
const SOFTWARE: u16 = u16::to_be(0x8022);
const FINGERPRINT: u16 = u16::to_be(0x8028);

/// Families as STUN numbers them, behind a byte that says nothing, as they lie in a header.
const STUN_IPV4: u16 = u16::to_be(1);
const STUN_IPV6: u16 = u16::to_be(2);
const STUN_FAMILY: u16 = u16::to_be(0xff);

/// As many attributes as an indication in order has.
const MAX_ATTRIBUTES: u32 = 4;
/// Bytes of the longest SOFTWARE that is read here (RFC 8489 allows 763).
const MAX_SOFTWARE: usize = 64;
/// The verifier follows no larger offset; more is the slow path's.
pub(crate) const MAX_OFFSET: usize = 0x3fff;

/// A Send indication in order.
pub(crate) struct Send {
    pub(crate) family: Family,
    pub(crate) peer: Address,
    pub(crate) port: u16,
    pub(crate) data_at: usize,
    pub(crate) data_len: usize,
    /// Sum of everything but the data and its padding.
    pub(crate) sum: u64,
    /// Bytes of padding behind the data.
    pub(crate) padding_len: usize,
}

/// Reads the Send indication at `at`, which is all of a datagram of `len` bytes. One XOR-PEER-ADDRESS and one DATA in
/// either order, SOFTWARE beside them, FINGERPRINT at the end: anything else is the slow path's. The FINGERPRINT's value is
/// not looked at, here and there: what is STUN is told by the first byte (RFC 8656 section 12).
#[inline(always)]
pub(crate) fn send(packet: &Packet, at: usize, len: usize) -> Result<Send, Outcome> {
    const REFUSED: Outcome = Outcome::Indication;
    let stun = *packet.at_any::<Stun>(at).ok_or(REFUSED)?;
    if stun.cookie != MAGIC_COOKIE || len != STUN_LEN + u16::from_be(stun.len) as usize {
        return Err(REFUSED);
    }
    let mut sum = packet.at_any::<Words<5>>(at).ok_or(REFUSED)?.sum();
    let mut peer = None;
    let mut data = None;
    let mut cursor = STUN_LEN;
    let mut read = 0;
    while read < MAX_ATTRIBUTES && cursor < len {
        read += 1;
        if cursor > MAX_OFFSET {
            return Err(REFUSED);
        }
        let attribute = *packet.at_any::<Attribute>(at + cursor).ok_or(REFUSED)?;
        let value_len = u16::from_be(attribute.len) as usize;
        let value_at = at + cursor + ATTRIBUTE_LEN;
        sum += attribute.kind as u64 + attribute.len as u64;
        cursor += ATTRIBUTE_LEN + ((value_len + 3) & !3);
        if cursor > len {
            return Err(REFUSED);
        }
        match attribute.kind {
            XOR_PEER_ADDRESS if peer.is_none() => {
                let found = xor_peer_address(packet, value_at, value_len, &stun)?;
                sum += found.3;
                peer = Some(found);
            }
            DATA if data.is_none() => data = Some((value_at, value_len)),
            SOFTWARE => sum += software(packet, value_at, value_len)?,
            FINGERPRINT if value_len == 4 && cursor == len => {
                sum += packet.at_any::<Words<1>>(value_at).ok_or(REFUSED)?.sum();
            }
            _ => return Err(REFUSED),
        }
    }
    let (Some((family, peer, port, _)), Some((data_at, data_len)), true) = (peer, data, cursor == len) else {
        return Err(REFUSED);
    };
    if port == 0 {
        return Err(REFUSED);
    }
    Ok(Send { family, peer, port, data_at, data_len, sum, padding_len: data_len.wrapping_neg() & 3 })
}

/// Family, address, port, and the sum of the value.
#[inline(always)]
fn xor_peer_address(
    packet: &Packet,
    at: usize,
    len: usize,
    stun: &Stun,
) -> Result<(Family, Address, u16, u64), Outcome> {
    let [a, b, c] = stun.transaction_id;
    if len == size_of::<XorAddress<[u32; 1]>>() {
        let value = *packet.at_any::<XorAddress<[u32; 1]>>(at).ok_or(Outcome::Indication)?;
        let [address] = value.address;
        if value.family & STUN_FAMILY != STUN_IPV4 {
            return Err(Outcome::Indication);
        }
        let sum = value.family as u64 + value.port as u64 + address as u64;
        Ok((Family::V4, Address::v4(address ^ MAGIC_COOKIE), value.port ^ MAGIC_COOKIE_PORT, sum))
    } else if len == size_of::<XorAddress<[u32; 4]>>() {
        let value = *packet.at_any::<XorAddress<[u32; 4]>>(at).ok_or(Outcome::Indication)?;
        let [d, e, f, g] = value.address;
        if value.family & STUN_FAMILY != STUN_IPV6 {
            return Err(Outcome::Indication);
        }
        let sum = value.family as u64 + value.port as u64 + d as u64 + e as u64 + f as u64 + g as u64;
        let address = join([d ^ MAGIC_COOKIE, e ^ a, f ^ b, g ^ c]);
        Ok((Family::V6, address, value.port ^ MAGIC_COOKIE_PORT, sum))
    } else {
        Err(Outcome::Indication)
    }
}

/// The sum of SOFTWARE's value with its padding.
#[inline(always)]
fn software(packet: &Packet, at: usize, len: usize) -> Result<u64, Outcome> {
    if len > MAX_SOFTWARE {
        return Err(Outcome::Indication);
    }
    // Not on the stack, of which there is little; and no call of memset, which would take some, too.
    let value = lookup::scratch().ok_or(Outcome::Indication)?;
    let mut i = 0;
    while i < MAX_SOFTWARE / 8 {
        // SAFETY: a place of our own.
        unsafe { write_volatile(&raw mut value[i], 0) };
        i += 1;
    }
    if !packet.read(at, value, (len + 3) & !3) {
        return Err(Outcome::Indication);
    }
    let mut sum = 0;
    let mut i = 0;
    while i < MAX_SOFTWARE / 8 {
        sum += (value[i] & 0xffff_ffff) + (value[i] >> 32);
        i += 1;
    }
    Ok(sum)
}

/// A Data indication up to its data, field by field: a packed header would not do on the stack.
#[derive(Clone, Copy)]
pub(crate) struct Data {
    /// The peer's.
    family: Family,
    /// Bytes behind the STUN header, host byte order.
    len: u16,
    /// Host byte order.
    data_len: u16,
    /// XORed.
    port: u16,
    /// XORed; IPv4: the first word.
    address: [u32; 4],
    transaction_id: [u32; 3],
}

impl Data {
    /// Bytes before the data.
    #[inline(always)]
    pub(crate) const fn header_len(family: Family) -> usize {
        match family {
            Family::V4 => size_of::<DataIndication<[u32; 1]>>(),
            Family::V6 => size_of::<DataIndication<[u32; 4]>>(),
        }
    }

    /// The indication with `data_len` bytes from the peer, whose port is in network byte order.
    #[inline(always)]
    pub(crate) fn new(family: Family, peer: Address, port: u16, data_len: usize) -> Option<Self> {
        let transaction_id = lookup::transaction_id()?;
        let [a, b, c] = transaction_id;
        let Address([d, e]) = peer;
        Some(Self {
            family,
            len: (Self::header_len(family) - STUN_LEN + ((data_len + 3) & !3)) as u16,
            data_len: data_len as u16,
            port: port ^ MAGIC_COOKIE_PORT,
            address: match family {
                Family::V4 => [d as u32 ^ MAGIC_COOKIE, 0, 0, 0],
                Family::V6 => {
                    [d as u32 ^ MAGIC_COOKIE, (d >> 32) as u32 ^ a, e as u32 ^ b, (e >> 32) as u32 ^ c]
                }
            },
            transaction_id,
        })
    }

    /// Sum of its words, for the Internet checksum.
    #[inline(always)]
    pub(crate) const fn sum(&self) -> u64 {
        let (family, address_len) = match self.family {
            Family::V4 => (STUN_IPV4, 8u16.to_be()),
            Family::V6 => (STUN_IPV6, 20u16.to_be()),
        };
        let [a, b, c] = self.transaction_id;
        let [d, e, f, g] = self.address;
        DATA_INDICATION as u64
            + self.len.to_be() as u64
            + MAGIC_COOKIE as u64
            + (a as u64 + b as u64 + c as u64)
            + (XOR_PEER_ADDRESS as u64 + address_len as u64 + family as u64 + self.port as u64)
            + (d as u64 + e as u64 + f as u64 + g as u64)
            + (DATA as u64 + self.data_len.to_be() as u64)
    }

    /// Writes it at `at`.
    #[inline(always)]
    pub(crate) fn write(&self, packet: &mut Packet, at: usize) -> Option<()> {
        let stun = Stun {
            message_type: DATA_INDICATION,
            len: self.len.to_be(),
            cookie: MAGIC_COOKIE,
            transaction_id: self.transaction_id,
        };
        let data = Attribute { kind: DATA, len: self.data_len.to_be() };
        let (port, [d, e, f, g]) = (self.port, self.address);
        match self.family {
            Family::V4 => {
                *packet.at_mut(at)? = DataIndication {
                    stun,
                    peer: Attribute { kind: XOR_PEER_ADDRESS, len: 8u16.to_be() },
                    peer_address: XorAddress { family: STUN_IPV4, port, address: [d] },
                    data,
                }
            }
            Family::V6 => {
                *packet.at_mut(at)? = DataIndication {
                    stun,
                    peer: Attribute { kind: XOR_PEER_ADDRESS, len: 20u16.to_be() },
                    peer_address: XorAddress { family: STUN_IPV6, port, address: [d, e, f, g] },
                    data,
                }
            }
        }
        Some(())
    }
}

#[inline(always)]
const fn join([a, b, c, d]: [u32; 4]) -> Address {
    Address([a as u64 | (b as u64) << 32, c as u64 | (d as u64) << 32])
}

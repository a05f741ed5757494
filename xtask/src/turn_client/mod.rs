//! A small TURN client over UDP: the demonstration call's, and that of tests which need more control
//! than coturn's programs give.

pub mod message;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use md5::{Digest, Md5};

use crate::lab::Family;
use message::{Class, Message, MessageBuilder, Method, TransactionId, attribute};

/// Retransmissions begin after this (RFC 8489 section 6.2.1) and double.
const INITIAL_RTO: Duration = Duration::from_millis(500);
/// Transmissions of one request.
const REQUEST_COUNT: u32 = 7;

/// A client with one 5-tuple, and so with one allocation at most.
#[derive(Debug)]
pub struct TurnClient {
    socket: UdpSocket,
    user: String,
    password: String,
    credentials: Option<Credentials>,
    received: VecDeque<Received>,
    next_transaction: u64,
}

/// What the server gave in its 401, and the key that follows from it.
#[derive(Clone, Debug)]
struct Credentials {
    realm: Vec<u8>,
    nonce: Vec<u8>,
    key: [u8; 16],
}

/// Data from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// As ChannelData.
    Channel {
        /// The channel number.
        number: u16,
        /// The peer's data.
        data: Vec<u8>,
    },
    /// In a Data indication.
    Indication {
        /// The peer's address.
        peer: SocketAddr,
        /// The peer's data.
        data: Vec<u8>,
    },
}

/// The server refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What was asked.
    pub method: Method,
    /// ERROR-CODE.
    pub code: u16,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the relay refused {:?} with error {}", self.method, self.code)
    }
}

impl std::error::Error for Refused {}

impl TurnClient {
    /// A client on `socket`, which it connects to `server`.
    pub fn new(socket: UdpSocket, server: SocketAddr, user: &str, password: &str) -> anyhow::Result<Self> {
        socket.connect(server).with_context(|| format!("could not connect to {server}"))?;
        Ok(Self {
            socket,
            user: user.to_owned(),
            password: password.to_owned(),
            credentials: None,
            received: VecDeque::new(),
            next_transaction: 0,
        })
    }

    /// Binding: returns the server-reflexive address.
    pub fn binding(&mut self) -> anyhow::Result<SocketAddr> {
        let transaction = self.transaction();
        let request = MessageBuilder::new(Class::Request, Method::Binding, transaction).build();
        let response = self.exchange(&request, transaction)?;
        let response = parsed(&response);
        if !response.is(Class::SuccessResponse, Method::Binding) {
            bail!(refused(Method::Binding, &response));
        }
        response.xor_address(attribute::XOR_MAPPED_ADDRESS).context("no XOR-MAPPED-ADDRESS in the response")
    }

    /// Allocate, with a LIFETIME in seconds if one is given: returns the relayed transport address, which is an IPv4
    /// one, and the lifetime that the server granted.
    pub fn allocate(&mut self, lifetime: Option<u32>) -> anyhow::Result<(SocketAddr, u32)> {
        self.allocate_with(|message| match lifetime {
            Some(seconds) => message.attribute(attribute::LIFETIME, &seconds.to_be_bytes()),
            None => message,
        })
    }

    /// Allocate for a relayed transport address of this family (REQUESTED-ADDRESS-FAMILY).
    pub fn allocate_family(&mut self, family: Family) -> anyhow::Result<(SocketAddr, u32)> {
        let number = match family {
            Family::V4 => 1,
            Family::V6 => 2,
        };
        self.allocate_with(|message| {
            message.attribute(attribute::REQUESTED_ADDRESS_FAMILY, &[number, 0, 0, 0])
        })
    }

    /// Allocate for relayed transport addresses of both families (ADDITIONAL-ADDRESS-FAMILY): returns those that the
    /// server gave.
    pub fn allocate_both(&mut self) -> anyhow::Result<Vec<SocketAddr>> {
        let response = self.request_allocation(|message| {
            message.attribute(attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0])
        })?;
        Ok(parsed(&response).xor_addresses(attribute::XOR_RELAYED_ADDRESS).collect())
    }

    fn allocate_with(
        &mut self,
        fill: impl Fn(MessageBuilder) -> MessageBuilder,
    ) -> anyhow::Result<(SocketAddr, u32)> {
        let response = self.request_allocation(fill)?;
        let response = parsed(&response);
        let relayed = response.xor_address(attribute::XOR_RELAYED_ADDRESS);
        Ok((
            relayed.context("no XOR-RELAYED-ADDRESS in the response")?,
            response.lifetime().context("no LIFETIME in the response")?,
        ))
    }

    fn request_allocation(
        &mut self,
        fill: impl Fn(MessageBuilder) -> MessageBuilder,
    ) -> anyhow::Result<Vec<u8>> {
        self.request(Method::Allocate, |message| {
            fill(message.attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]))
        })
    }

    /// Refresh with a LIFETIME in seconds; 0 deletes the allocation. Returns the lifetime granted.
    pub fn refresh(&mut self, lifetime: u32) -> anyhow::Result<u32> {
        let response = self.request(Method::Refresh, |message| {
            message.attribute(attribute::LIFETIME, &lifetime.to_be_bytes())
        })?;
        parsed(&response).lifetime().context("no LIFETIME in the response")
    }

    /// Refresh for the relayed transport address of one family only (REQUESTED-ADDRESS-FAMILY).
    pub fn refresh_family(&mut self, family: Family, lifetime: u32) -> anyhow::Result<u32> {
        let response = self.request(Method::Refresh, |message| {
            requested_family(message.attribute(attribute::LIFETIME, &lifetime.to_be_bytes()), family)
        })?;
        parsed(&response).lifetime().context("no LIFETIME in the response")
    }

    /// CreatePermission for the peer's address.
    pub fn create_permission(&mut self, peer: impl Into<SocketAddr>) -> anyhow::Result<()> {
        let peer = peer.into();
        self.request(Method::CreatePermission, |message| {
            message.xor_address(attribute::XOR_PEER_ADDRESS, peer)
        })?;
        Ok(())
    }

    /// ChannelBind.
    pub fn channel_bind(&mut self, number: u16, peer: impl Into<SocketAddr>) -> anyhow::Result<()> {
        let ([high, low], peer) = (number.to_be_bytes(), peer.into());
        self.request(Method::ChannelBind, |message| {
            message
                .attribute(attribute::CHANNEL_NUMBER, &[high, low, 0, 0])
                .xor_address(attribute::XOR_PEER_ADDRESS, peer)
        })?;
        Ok(())
    }

    /// Sends ChannelData, without padding.
    pub fn send_channel_data(&self, number: u16, data: &[u8]) -> io::Result<()> {
        let length = u16::try_from(data.len()).map_err(|_| ErrorKind::InvalidInput)?;
        let mut datagram = Vec::with_capacity(4 + data.len());
        datagram.extend_from_slice(&number.to_be_bytes());
        datagram.extend_from_slice(&length.to_be_bytes());
        datagram.extend_from_slice(data);
        self.socket.send(&datagram).map(drop)
    }

    /// Sends data in a Send indication.
    pub fn send_indication(&mut self, peer: impl Into<SocketAddr>, data: &[u8]) -> io::Result<()> {
        let indication = MessageBuilder::new(Class::Indication, Method::Send, self.transaction())
            .xor_address(attribute::XOR_PEER_ADDRESS, peer)
            .attribute(attribute::DATA, data)
            .build();
        self.socket.send(&indication).map(drop)
    }

    /// Waits for data from a peer; `None` if none came within `bound`.
    pub fn receive(&mut self, bound: Duration) -> io::Result<Option<Received>> {
        let deadline = Instant::now() + bound;
        while self.received.is_empty() {
            if self.read_datagram(deadline)?.is_none() {
                return Ok(None);
            }
        }
        Ok(self.received.pop_front())
    }

    /// The socket, for tests that send what no client would.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// An authenticated request: answers the 401 or 438 of the server once.
    fn request(
        &mut self,
        method: Method,
        fill: impl Fn(MessageBuilder) -> MessageBuilder,
    ) -> anyhow::Result<Vec<u8>> {
        let mut challenges = 0;
        loop {
            let transaction = self.transaction();
            let mut message = fill(MessageBuilder::new(Class::Request, method, transaction));
            if let Some(Credentials { realm, nonce, key }) = &self.credentials {
                message = message
                    .attribute(attribute::USERNAME, self.user.as_bytes())
                    .attribute(attribute::REALM, realm)
                    .attribute(attribute::NONCE, nonce)
                    .integrity(key);
            }
            let bytes = self.exchange(&message.build(), transaction)?;
            let response = parsed(&bytes);
            if response.is(Class::SuccessResponse, method) {
                if let Some(credentials) = &self.credentials
                    && !response.has_integrity(&credentials.key)
                {
                    bail!("the relay's answer to {method:?} has no right MESSAGE-INTEGRITY");
                }
                return Ok(bytes);
            }
            let refused = refused(method, &response);
            if challenges == 2 || !matches!(refused.code, 401 | 438) {
                bail!(refused);
            }
            challenges += 1;
            self.credentials = Some(self.answer_challenge(&response)?);
        }
    }

    /// RFC 8489 section 9.2.2: the key of a long-term credential.
    fn answer_challenge(&self, response: &Message<'_>) -> anyhow::Result<Credentials> {
        let realm = response.attribute(attribute::REALM).context("no REALM in the challenge")?;
        let nonce = response.attribute(attribute::NONCE).context("no NONCE in the challenge")?;
        let key = Md5::new_with_prefix(&self.user)
            .chain_update(":")
            .chain_update(realm)
            .chain_update(":")
            .chain_update(&self.password)
            .finalize();
        Ok(Credentials { realm: realm.to_vec(), nonce: nonce.to_vec(), key: key.into() })
    }

    /// Sends a request until its response comes (RFC 8489 section 6.2.1). Data from peers that comes meanwhile
    /// is kept for [`receive`](Self::receive).
    fn exchange(&mut self, request: &[u8], transaction: TransactionId) -> anyhow::Result<Vec<u8>> {
        let mut timeout = INITIAL_RTO;
        for _ in 0..REQUEST_COUNT {
            self.socket.send(request).context("could not send to the relay")?;
            let deadline = Instant::now() + timeout;
            while let Some(datagram) = self.read_datagram(deadline).context("could not receive")? {
                if let Some(response) = Message::parse(&datagram)
                    && response.transaction() == transaction
                    && !response.is(Class::Indication, Method::Data)
                {
                    return Ok(datagram);
                }
            }
            timeout *= 2;
        }
        bail!("the relay does not answer")
    }

    /// Reads one datagram before `deadline`, and files it if it holds data from a peer.
    fn read_datagram(&mut self, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; 65536];
        let remaining = deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return Ok(None);
        }
        self.socket.set_read_timeout(Some(remaining))?;
        match self.socket.recv(&mut buffer) {
            Ok(length) => buffer.truncate(length),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        self.received.extend(data(&buffer));
        Ok(Some(buffer))
    }

    fn transaction(&mut self) -> TransactionId {
        self.next_transaction += 1;
        let mut transaction = [0; 12];
        transaction[..4].copy_from_slice(&std::process::id().to_be_bytes());
        transaction[4..].copy_from_slice(&self.next_transaction.to_be_bytes());
        transaction
    }
}

fn requested_family(message: MessageBuilder, family: Family) -> MessageBuilder {
    let number = match family {
        Family::V4 => 1,
        Family::V6 => 2,
    };
    message.attribute(attribute::REQUESTED_ADDRESS_FAMILY, &[number, 0, 0, 0])
}

/// The data of a ChannelData message (RFC 8656 section 12.4; channel numbers as in RFC 5766 section 11).
pub fn channel_data(datagram: &[u8]) -> Option<&[u8]> {
    let (header, rest) = datagram.split_first_chunk::<4>()?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    matches!(header[0], 0x40..=0x7F).then(|| rest.get(..length))?
}

/// The data of a Send or Data indication.
pub fn indication_data(datagram: &[u8]) -> Option<&[u8]> {
    let message = Message::parse(datagram)?;
    let is_data = message.is(Class::Indication, Method::Send) || message.is(Class::Indication, Method::Data);
    is_data.then(|| message.attribute(attribute::DATA))?
}

/// The peer's data in a datagram from the server, if that is what it is.
fn data(datagram: &[u8]) -> Option<Received> {
    if let Some(message) = Message::parse(datagram) {
        if !message.is(Class::Indication, Method::Data) {
            return None;
        }
        return Some(Received::Indication {
            peer: message.xor_address(attribute::XOR_PEER_ADDRESS)?,
            data: message.attribute(attribute::DATA)?.to_vec(),
        });
    }
    let (header, rest) = datagram.split_first_chunk::<4>()?;
    let number = u16::from_be_bytes([header[0], header[1]]);
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    (0x4000..=0x4FFF)
        .contains(&number)
        .then(|| Some(Received::Channel { number, data: rest.get(..length)?.to_vec() }))?
}

fn parsed(bytes: &[u8]) -> Message<'_> {
    Message::parse(bytes).expect("exchange() returns STUN messages only")
}

fn refused(method: Method, response: &Message<'_>) -> Refused {
    // 0 stands for an answer that is neither a success nor a proper error.
    Refused { method, code: response.error_code().unwrap_or(0) }
}

//! Requests: what a client asks for, what is wrong with how it asks, and the datagram that comes of it.

use std::net::SocketAddr;

use relay_user::turn::FiveTuple;

use crate::{
    pair::{Algorithm, Auth, PASSWORD_ALGORITHMS, REALM},
    wire::{self, Attribute, Builder},
};

/// What a request asks for, in the terms of the model.
#[derive(Clone, Debug)]
pub enum Ask {
    Binding,
    Allocate(Allocate),
    Refresh { lifetime: Option<u32>, family: Option<u8> },
    CreatePermission { peers: Vec<SocketAddr> },
    ChannelBind { number: Option<u16>, peer: Option<SocketAddr> },
}

#[derive(Clone, Debug, Default)]
pub struct Allocate {
    pub transport: Option<u8>,
    pub lifetime: Option<u32>,
    pub family: Option<u8>,
    pub additional: Option<u8>,
    /// EVEN-PORT, and whether the next port is to be reserved.
    pub even: Option<bool>,
    /// RESERVATION-TOKEN.
    pub token: Option<[u8; 8]>,
    pub dont_fragment: bool,
}

/// What is wrong with a request whatever it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// An attribute runs past the message's end.
    Torn,
    Unprotected,
    UnknownUser,
    WrongPassword,
    WrongRealm,
    NoNonce,
    ForgedNonce,
    /// The list of password algorithms is not the one that the server sent: someone wants a weaker one.
    BidDown,
    UnknownAttribute,
    /// An attribute that the method reads has a value that it cannot have.
    Malformed,
}

impl Flaw {
    pub const ALL: [Self; 10] = [
        Self::Torn,
        Self::Unprotected,
        Self::UnknownUser,
        Self::WrongPassword,
        Self::WrongRealm,
        Self::NoNonce,
        Self::ForgedNonce,
        Self::BidDown,
        Self::UnknownAttribute,
        Self::Malformed,
    ];
}

/// Someone who may use the server.
#[derive(Debug)]
pub struct User {
    pub name: &'static str,
    md5: [u8; 16],
    sha256: [u8; 32],
}

impl User {
    pub fn new(name: &'static str, password: &str) -> Self {
        let md5 = wire::long_term_key(name, REALM, password);
        Self { name, md5, sha256: wire::long_term_key_sha256(name, REALM, password) }
    }
}

/// A nonce, to whom it was given, and when.
#[derive(Clone, Debug)]
pub struct Nonce {
    pub text: Vec<u8>,
    pub client: SocketAddr,
    pub issued: u64,
}

/// Where a request comes from, and whose it is said to be.
#[derive(Clone, Debug)]
pub struct Sender {
    pub five_tuple: FiveTuple,
    pub user: &'static User,
    pub auth: Auth,
    pub nonce: Nonce,
}

/// A request on its way.
#[derive(Clone, Debug)]
pub struct Sent {
    pub by: Sender,
    pub flaw: Flaw,
    pub ask: Ask,
    pub datagram: Vec<u8>,
}

impl Sent {
    pub fn new(by: Sender, transaction: [u8; 12], ask: Ask, flaw: Flaw) -> Self {
        let datagram = write(transaction, &ask, flaw, &by);
        Self { by, flaw, ask, datagram }
    }

    pub fn transaction(&self) -> [u8; 12] {
        self.datagram[8..20].try_into().expect("a header has 20 bytes")
    }
}

fn write(transaction: [u8; 12], ask: &Ask, flaw: Flaw, by: &Sender) -> Vec<u8> {
    let mut request = Builder::new(wire::REQUEST, ask.method(), transaction);
    // First, for of repeated attributes the first counts.
    request = match (flaw, ask) {
        (Flaw::UnknownAttribute, _) => request.attribute(&(0x7fff, vec![1, 2, 3])),
        (Flaw::Malformed, Ask::Allocate(_) | Ask::Refresh { .. }) => {
            request.attribute(&(0x000d, vec![1, 2, 3]))
        }
        (Flaw::Malformed, Ask::CreatePermission { .. } | Ask::ChannelBind { .. }) => {
            request.attribute(&(0x0012, vec![0, 9, 1, 2, 3, 4, 5, 6]))
        }
        _ => request,
    };
    request = request.attributes(&ask.attributes());
    if matches!(ask, Ask::Binding) {
        return torn(request.build(), flaw);
    }
    request = credentials(request, flaw, by);
    let key: &[u8] = match by.auth.algorithm {
        _ if flaw == Flaw::WrongPassword => b"a guess",
        Some(Algorithm::Sha256) => &by.user.sha256,
        Some(Algorithm::Md5) | None => &by.user.md5,
    };
    let request = match flaw {
        Flaw::Unprotected => request,
        _ if by.auth.sha256 => request.integrity_sha256(key),
        _ => request.integrity(key),
    };
    torn(request.build(), flaw)
}

fn credentials(mut request: Builder, flaw: Flaw, by: &Sender) -> Builder {
    let username = if flaw == Flaw::UnknownUser { "mallory" } else { by.user.name };
    let realm = if flaw == Flaw::WrongRealm { "example.net" } else { REALM };
    request = request.attribute(&(0x0014, realm.into())).attribute(&if by.auth.userhash {
        wire::userhash(username, REALM)
    } else {
        (0x0006, username.into())
    });
    let mut nonce = by.nonce.text.clone();
    if flaw == Flaw::ForgedNonce {
        // Behind the cookie.
        nonce[20] ^= 1;
    }
    if flaw != Flaw::NoNonce {
        request = request.attribute(&(0x0015, nonce));
    }
    let Some(algorithm) = by.auth.algorithm else { return request };
    let offer = if flaw == Flaw::BidDown { vec![0, 1, 0, 0] } else { PASSWORD_ALGORITHMS.to_vec() };
    request.attribute(&(0x8002, offer)).attribute(&(0x001d, vec![0, algorithm as u8, 0, 0]))
}

fn torn(mut datagram: Vec<u8>, flaw: Flaw) -> Vec<u8> {
    if flaw == Flaw::Torn {
        // Four bytes more, of an attribute that claims to have eight.
        datagram.extend([0x80, 0x22, 0, 8]);
        let length = (datagram.len() - 20) as u16;
        datagram[2..4].copy_from_slice(&length.to_be_bytes());
    }
    datagram
}

impl Ask {
    fn method(&self) -> u16 {
        match self {
            Self::Binding => wire::BINDING,
            Self::Allocate(_) => wire::ALLOCATE,
            Self::Refresh { .. } => wire::REFRESH,
            Self::CreatePermission { .. } => wire::CREATE_PERMISSION,
            Self::ChannelBind { .. } => wire::CHANNEL_BIND,
        }
    }

    fn attributes(&self) -> Vec<Attribute> {
        match self {
            Self::Binding => vec![],
            Self::Allocate(ask) => {
                let mut attributes = Vec::new();
                attributes.extend(ask.transport.map(wire::requested_transport));
                attributes.extend(ask.lifetime.map(wire::lifetime));
                attributes.extend(ask.family.map(wire::requested_family));
                attributes.extend(ask.additional.map(wire::additional_family));
                attributes.extend(ask.even.map(|reserve| wire::even_port(if reserve { 0x80 } else { 0 })));
                attributes.extend(ask.token.map(|token| (0x0022, token.to_vec())));
                attributes.extend(ask.dont_fragment.then(wire::dont_fragment));
                attributes
            }
            Self::Refresh { lifetime, family } => {
                lifetime.map(wire::lifetime).into_iter().chain(family.map(wire::requested_family)).collect()
            }
            Self::CreatePermission { peers } => peers.iter().map(|&peer| wire::peer_address(peer)).collect(),
            Self::ChannelBind { number, peer } => {
                let number = number.map(wire::channel_number);
                number.into_iter().chain(peer.map(wire::peer_address)).collect()
            }
        }
    }
}

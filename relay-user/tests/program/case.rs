//! The table that rules are tested over: every way for data through the relay, with what comes in and what leaves.

use std::{fmt, net::SocketAddr};

use relay_user::turn::{Direction, Family, Flow};

use crate::{
    frame::{Frame, UDP_LEN, ip_header_len},
    message::{channel_data, data_indication, send_indication},
    relay::{MIN_IPV6_MTU, PEER_MAC, Side, XDP_REDIRECT, XDP_TX},
    session::{Client, Role, peer, permitted_peer},
};

/// The largest IPv4 packet that leaves with DF=0 for an IPv6 packet (RFC 7915 section 5.1).
const FRAGMENTABLE_IPV4_LEN: usize = 1260;

/// How a client's side carries data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    ChannelData,
    /// Send indications from the client, Data indications to it.
    Indication,
}

/// Where data comes from, or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Peer,
    Client(Client, Form),
}

/// One way for data through the relay.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Case {
    pub from: End,
    /// The family of the relayed addresses and of the peer.
    pub relayed: Family,
    pub to: End,
}

impl Case {
    /// All 48: either family on each side, either form on each client's.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::to_peer().chain(Self::to_client()).chain(Self::hairpins())
    }

    /// From a client to a peer.
    pub fn to_peer() -> impl Iterator<Item = Self> {
        clients(|_| Role::Caller).flat_map(|client| {
            Family::ALL.into_iter().map(move |relayed| Self { from: client, relayed, to: End::Peer })
        })
    }

    /// From a peer to a client.
    pub fn to_client() -> impl Iterator<Item = Self> {
        Self::to_peer().map(|case| Self { from: case.to, to: case.from, ..case })
    }

    /// From one client to another, whose peer it is.
    pub fn hairpins() -> impl Iterator<Item = Self> {
        let receiver = |form| match form {
            Form::ChannelData => Role::Bound,
            Form::Indication => Role::Permitting,
        };
        Self::to_peer().flat_map(move |case| clients(receiver).map(move |to| Self { to, ..case }))
    }

    /// Those where only a client's side is by this form, and both sides by IPv4.
    pub fn ipv4(form: Form) -> [Self; 2] {
        let client = End::Client(Client::caller(Family::V4), form);
        [(client, End::Peer), (End::Peer, client)].map(|(from, to)| Self { from, relayed: Family::V4, to })
    }

    /// What comes in with this data, all in order.
    pub fn input(&self, data: &[u8]) -> Frame {
        let peer = self.peer();
        let frame = match (self.from, self.to) {
            (End::Client(client, form), _) => {
                let payload = match form {
                    Form::ChannelData => channel_data(client.channel(peer), data),
                    Form::Indication => send_indication(peer, data),
                };
                Frame { source_mac: client.mac(), ..Frame::new(client.address(), client.server(), payload) }
            }
            (End::Peer, End::Client(client, _)) => {
                Frame { source_mac: PEER_MAC, ..Frame::new(peer, client.relayed(self.relayed), data) }
            }
            (End::Peer, End::Peer) => unreachable!("between peers nothing is relayed"),
        };
        Frame { destination_mac: self.ingress().mac(), ..frame }
    }

    /// What leaves of [`Self::input`].
    pub fn output(&self, data: &[u8]) -> Frame {
        let frame = match self.to {
            End::Peer => Frame { destination_mac: PEER_MAC, ..Frame::new(self.shown(), self.peer(), data) },
            End::Client(client, form) => {
                let payload = match form {
                    Form::ChannelData => channel_data(client.channel(self.shown()), data),
                    Form::Indication => data_indication(self.shown(), data),
                };
                Frame {
                    destination_mac: client.mac(),
                    ..Frame::new(client.server(), client.address(), payload)
                }
            }
        };
        let input = self.input(data);
        let output = Frame { source_mac: self.egress().mac(), ttl: input.ttl - 1, ..frame };
        Frame { dont_fragment: self.dont_fragment(&input, &output, data).unwrap_or(false), ..output }
    }

    /// The peer as the one on the near side names it: in a hairpin the other client's relayed address.
    pub fn peer(&self) -> SocketAddr {
        match (self.from, self.to) {
            (End::Client(..), End::Client(other, _)) => other.relayed(self.relayed),
            (End::Client(_, form), End::Peer) | (End::Peer, End::Client(_, form)) => match form {
                Form::ChannelData => peer(self.relayed),
                Form::Indication => permitted_peer(self.relayed),
            },
            (End::Peer, End::Peer) => unreachable!("between peers nothing is relayed"),
        }
    }

    /// Whom the receiver sees: the peer, or the relayed address of the client that sent.
    pub fn shown(&self) -> SocketAddr {
        match self.from {
            End::Peer => self.peer(),
            End::Client(client, _) => client.relayed(self.relayed),
        }
    }

    /// The flows that count what is forwarded: the sending client's, the receiving client's.
    pub fn flows(&self) -> Vec<Flow> {
        let flow = |client: Client, form, direction, peer: SocketAddr| match form {
            Form::ChannelData => client.bound(direction, peer),
            Form::Indication => client.permitted(direction, peer.ip()),
        };
        let mut flows = Vec::new();
        if let End::Client(client, form) = self.from {
            flows.push(flow(client, form, Direction::ToPeer, self.peer()));
        }
        if let End::Client(client, form) = self.to {
            flows.push(flow(client, form, Direction::ToClient, self.shown()));
        }
        flows
    }

    /// The families of the packet, one after the other; in a hairpin of the one that would lie in between, too.
    pub fn families(&self) -> Vec<Family> {
        match (self.from, self.to) {
            (End::Client(sender, _), End::Client(receiver, _)) => {
                vec![sender.family, self.relayed, receiver.family]
            }
            (End::Client(client, _), End::Peer) => vec![client.family, self.relayed],
            (End::Peer, End::Client(client, _)) => vec![self.relayed, client.family],
            (End::Peer, End::Peer) => unreachable!("between peers nothing is relayed"),
        }
    }

    pub fn is_hairpin(&self) -> bool {
        self.from != End::Peer && self.to != End::Peer
    }

    pub fn ingress(&self) -> Side {
        side(self.from)
    }

    pub fn egress(&self) -> Side {
        side(self.to)
    }

    pub fn verdict(&self) -> u32 {
        if self.ingress() == self.egress() { XDP_TX } else { XDP_REDIRECT }
    }

    /// Bytes by which the front of the frame grows.
    pub fn growth(&self) -> isize {
        self.output(b"").payload_at() as isize + self.header_len(self.to, self.shown()) as isize
            - self.input(b"").payload_at() as isize
            - self.header_len(self.from, self.peer()) as isize
    }

    /// Bytes that `end` has before the data.
    fn header_len(&self, end: End, peer: SocketAddr) -> usize {
        match end {
            End::Peer => 0,
            End::Client(_, Form::ChannelData) => channel_data(0, b"").len(),
            End::Client(_, Form::Indication) => send_indication(peer, b"").len(),
        }
    }

    /// The DF bit that RFC 8656 sections 13 and 14 prefer for `output`, if it is an IPv4 packet. In a hairpin the
    /// packet that would have gone from the one relayed address to the other lies in between. `None`: an IPv6 packet made of an
    /// IPv4 packet with DF=0 would have to be fragmented.
    pub fn dont_fragment(&self, input: &Frame, output: &Frame, data: &[u8]) -> Option<bool> {
        let between_len = ip_header_len(self.relayed) + UDP_LEN + data.len();
        let lens: &[usize] =
            if self.is_hairpin() { &[between_len, output.packet_len()] } else { &[output.packet_len()] };
        let families = self.families();
        families.windows(2).zip(lens).try_fold(
            input.dont_fragment,
            |dont_fragment, (step, &len)| match step {
                [Family::V6, Family::V4] => Some(len > FRAGMENTABLE_IPV4_LEN),
                [Family::V4, Family::V6] if !dont_fragment && len > MIN_IPV6_MTU as usize => None,
                _ => Some(dont_fragment),
            },
        )
    }
}

/// As "ChannelData by V4 -> V6 -> Data indication by V4".
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relayed = self.relayed;
        match self.from {
            End::Peer => write!(f, "peer {relayed:?}")?,
            End::Client(client, Form::ChannelData) => write!(f, "{:?} ChannelData", client.family)?,
            End::Client(client, Form::Indication) => write!(f, "{:?} Send indication", client.family)?,
        }
        if self.is_hairpin() {
            write!(f, " -> {relayed:?}")?;
        }
        match self.to {
            End::Peer => write!(f, " -> {relayed:?} peer"),
            End::Client(client, Form::ChannelData) => write!(f, " -> {:?} ChannelData", client.family),
            End::Client(client, Form::Indication) => write!(f, " -> {:?} Data indication", client.family),
        }
    }
}

/// Either form by either family, of the client that has the form's role.
fn clients(role: impl Fn(Form) -> Role) -> impl Iterator<Item = End> {
    [Form::ChannelData, Form::Indication].into_iter().flat_map(move |form| {
        let role = role(form);
        Family::ALL.map(|family| End::Client(Client { role, family }, form))
    })
}

const fn side(end: End) -> Side {
    match end {
        End::Peer => Side::Peer,
        End::Client(..) => Side::Client,
    }
}

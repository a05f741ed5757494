//! The clients and peers of the tests, and the flows between them as the core states them.
//!
//! Each client has an allocation with a relayed address of both families. The [`Role::Caller`]s talk to a peer of
//! either family, which they have bound a channel to, to another port of it, which is only permitted, and to all other
//! clients; of those the [`Role::Bound`] have bound channels to the callers, the [`Role::Permitting`] only permit them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use relay_common::clock::BootNanos;
use relay_user::turn::{
    AllocationId, ChannelNumber, ClientAddr, Direction, Family, FiveTuple, Flow, FlowForm, FlowId, Hairpin,
    PeerAddr, RelayedAddr, ServerAddr, Transport,
};

/// No end.
pub const FAR: BootNanos = u64::MAX;

/// Address number `host` on the clients' side of the relay.
pub const fn on_client_side(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(198, 18, 1, host)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0x0102, 0, 0, host as u16)),
    }
}

/// Address number `host` on the peers' side of the relay.
pub const fn on_peer_side(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(198, 18, 2, host)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 2, 0, 0, 0x0304, 0, 0, host as u16)),
    }
}

/// The server's address for clients of this family.
pub const fn listener(family: Family) -> SocketAddr {
    SocketAddr::new(on_client_side(family, 1), 3478)
}

/// The address that all relayed addresses of this family have.
pub const fn relayed_ip(family: Family) -> IpAddr {
    on_peer_side(family, 1)
}

/// The peer that callers have bound a channel to.
pub const fn peer(family: Family) -> SocketAddr {
    SocketAddr::new(on_peer_side(family, 2), 6000)
}

/// The same host by a port that no channel is bound to.
pub const fn permitted_peer(family: Family) -> SocketAddr {
    SocketAddr::new(peer(family).ip(), 6107)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    Caller,
    Bound,
    Permitting,
}

/// A client, and its allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Client {
    pub role: Role,
    pub family: Family,
}

impl Client {
    pub const ALL: [Self; 6] = [
        Self { role: Role::Caller, family: Family::V4 },
        Self { role: Role::Caller, family: Family::V6 },
        Self { role: Role::Bound, family: Family::V4 },
        Self { role: Role::Bound, family: Family::V6 },
        Self { role: Role::Permitting, family: Family::V4 },
        Self { role: Role::Permitting, family: Family::V6 },
    ];

    pub const fn caller(family: Family) -> Self {
        Self { role: Role::Caller, family }
    }

    pub const fn address(self) -> SocketAddr {
        SocketAddr::new(on_client_side(self.family, 2 + self.role as u8), 40000 + self.role as u16)
    }

    pub const fn mac(self) -> [u8; 6] {
        [2, 0, 0, self.family as u8, 1, 2 + self.role as u8]
    }

    pub const fn server(self) -> SocketAddr {
        listener(self.family)
    }

    pub const fn relayed(self, family: Family) -> SocketAddr {
        let number = self.role as u16 * 2 + self.family as u16 - 1;
        SocketAddr::new(relayed_ip(family), 50000 + 2 * number)
    }

    /// The channel it binds to a peer: one for each.
    pub const fn channel(self, peer: SocketAddr) -> u16 {
        0x4000 | (peer.port() & 0x7ff) << 1 | peer.is_ipv6() as u16
    }

    /// Everything that the tests have the core state for this client.
    pub fn flows(self) -> Vec<Flow> {
        let mut flows = Vec::new();
        let others: Vec<Self> = match self.role {
            Role::Caller => Self::ALL.into_iter().filter(|other| other.role != Role::Caller).collect(),
            Role::Bound => Family::ALL.map(Self::caller).to_vec(),
            Role::Permitting => Vec::new(),
        };
        for family in Family::ALL {
            flows.push(self.flow(Direction::ToPeer, family, FlowForm::Allocation));
            flows.extend(self.permission(relayed_ip(family)));
            flows.extend(others.iter().flat_map(|other| self.binding(other.relayed(family))));
            if self.role == Role::Caller {
                flows.extend(self.permission(peer(family).ip()));
                flows.extend(self.binding(peer(family)));
            }
        }
        flows
    }

    /// Both flows of a channel.
    pub fn binding(self, peer: SocketAddr) -> [Flow; 2] {
        [Direction::ToPeer, Direction::ToClient].map(|direction| self.bound(direction, peer))
    }

    /// Both flows of a permission.
    pub fn permission(self, peer: IpAddr) -> [Flow; 2] {
        [Direction::ToPeer, Direction::ToClient].map(|direction| self.permitted(direction, peer))
    }

    /// One flow of a channel.
    pub fn bound(self, direction: Direction, peer: SocketAddr) -> Flow {
        let number = ChannelNumber::new(self.channel(peer)).expect("0x4000 to 0x4fff");
        self.flow(direction, Family::of(peer.ip()), FlowForm::Channel { peer: PeerAddr(peer), number })
    }

    /// One flow of a permission.
    pub fn permitted(self, direction: Direction, peer: IpAddr) -> Flow {
        self.flow(direction, Family::of(peer), FlowForm::Permission { peer })
    }

    /// The flow of its relayed address of this family.
    pub fn allocation(self, family: Family) -> Flow {
        self.flow(Direction::ToPeer, family, FlowForm::Allocation)
    }

    fn flow(self, direction: Direction, family: Family, form: FlowForm) -> Flow {
        let peer = match form {
            FlowForm::Channel { peer, .. } => Some(peer.0.ip()),
            FlowForm::Permission { peer } => Some(peer),
            FlowForm::Allocation => None,
        };
        let relayed = self.relayed(family);
        Flow {
            id: FlowId {
                direction,
                five_tuple: FiveTuple {
                    client: ClientAddr(self.address()),
                    server: ServerAddr(self.server()),
                    transport: Transport::Udp,
                },
                relayed: RelayedAddr(relayed),
                form,
            },
            allocation: AllocationId(u64::from(relayed.port())),
            expires: FAR,
            hairpin: (peer == Some(relayed_ip(family)))
                .then_some(Hairpin { advertised: relayed.ip(), alias: None }),
            meter: None,
        }
    }
}

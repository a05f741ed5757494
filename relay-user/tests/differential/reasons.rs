//! Why a packet is not forwarded: every reason that is true of it.

use relay_common::outcome::{self, Outcome};
use relay_user::{
    net::next_hop::NextHop,
    turn::{FiveTuple, FlowForm, Fragmentation, Output},
};

use crate::{
    expect::Sent,
    judge::five_tuple,
    packet::Packet,
    program::{HEADROOM, LINEAR},
    receive::{Came, Datagram, Endpoint, Reception, To},
    world::World,
};

/// A set of outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reasons(u64);
const _: () = assert!(outcome::COUNT <= 64);

impl Reasons {
    pub const NONE: Self = Self(0);

    pub const fn add(&mut self, outcome: Outcome) {
        self.0 |= 1 << outcome as u32;
    }

    pub const fn add_if(&mut self, condition: bool, outcome: Outcome) {
        if condition {
            self.add(outcome);
        }
    }

    pub const fn contains(self, outcome: Outcome) -> bool {
        self.0 & 1 << outcome as u32 != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn names(self) -> Vec<&'static str> {
        Outcome::ALL.iter().filter(|&&outcome| self.contains(outcome)).map(|outcome| outcome.name()).collect()
    }
}

/// What depends on the flow.
const OF_FLOWS: [Outcome; 12] = [
    Outcome::NoFlow,
    Outcome::HairpinMiss,
    Outcome::Expired,
    Outcome::Bandwidth,
    Outcome::DaemonGone,
    Outcome::ZeroChecksum,
    Outcome::Mtu,
    Outcome::NextHop,
    Outcome::TxPort,
    Outcome::Headroom,
    Outcome::Tailroom,
    Outcome::NonLinear,
];

/// Reasons not to forward what reaches nobody, for the server drops it, or the kernel before: with the server's decision
/// alone, nothing is known of the flow, and any of its reasons may be true.
pub fn of_lost(reception: &Reception) -> Reasons {
    let mut reasons = reception.reasons.union(reception.excuses);
    OF_FLOWS.into_iter().for_each(|outcome| reasons.add(outcome));
    reasons
}

/// Why the program may not send what the server has sent.
pub fn not_to_send(
    world: &World<'_>,
    packet: &Packet,
    frame: &[u8],
    datagram: &Datagram,
    sent: &Sent<'_>,
    next_hop: Option<NextHop>,
) -> Reasons {
    let mut reasons = Reasons::default();
    let is_none = datagram.checksum == Came::None;
    reasons.add_if(is_none && sent.destination.is_ipv6(), Outcome::ZeroChecksum);
    reasons.add_if(matches!(sent.ip.fragmentation, Fragmentation::AtMost(_)), Outcome::Mtu);
    let Some(next_hop) = next_hop else {
        reasons.add(Outcome::NextHop);
        return reasons;
    };
    let ip_len = if sent.destination.is_ipv4() { 20 } else { 40 } + 8 + sent.payload.len();
    // No IPv4 packet is longer, and no jumbogram is sent.
    let mtu = next_hop.mtu.min(65_535);
    reasons.add_if(ip_len > mtu as usize, Outcome::Mtu);
    let ifindexes = &world.driver.program.ifindexes;
    let is_tx = next_hop.ifindex == ifindexes[packet.ingress];
    let place = ifindexes.iter().position(|&ifindex| ifindex == next_hop.ifindex);
    let may_send = place.is_some_and(|place| world.driver.tx_ports[place]);
    reasons.add_if(!is_tx && !may_send, Outcome::TxPort);

    let Some(data) = datagram.data.clone() else { return reasons };
    let frame_len = 14 + 4 * next_hop.tags.iter().flatten().count() + ip_len;
    let front = frame_len - sent.behind(data.len());
    reasons.add_if(front > data.start && front - data.start > HEADROOM - packet.metadata, Outcome::Headroom);
    // Bytes to add behind the data, or to take off.
    let (room, needed) = (frame.len() - data.end, frame_len - front - data.len());
    let first_piece = world.driver.program.first_piece(packet, frame.len());
    if frame.len() > first_piece {
        let is_sent_whole = is_tx || next_hop.scatter_gather;
        let can = (room, needed) == (0, 0) && datagram.headers_end <= first_piece && is_sent_whole;
        reasons.add_if(!can, Outcome::NonLinear);
    } else if needed > room {
        reasons.add_if(needed - room > LINEAR - frame.len(), Outcome::Tailroom);
    }
    reasons
}

/// Why the program may leave to the slow path what it could send.
pub fn not_to_hurry(world: &World<'_>, datagram: &Datagram, is_hairpin: bool) -> Reasons {
    let mut excuses = Reasons::default();
    // From an IPv6 relayed address to another: between the two it would have been fragmented.
    let len = datagram.data.as_ref().map_or(0, ExactSizeIterator::len);
    let may_be_fragmented = datagram.meta.dont_fragment == Some(false);
    let is_long = 48 + len > world.min_ipv6_mtu.into();
    excuses.add_if(is_hairpin && is_by_ipv6(world, datagram) && may_be_fragmented && is_long, Outcome::Mtu);
    excuses
}

/// Whether a client's data leaves its relayed address by IPv6, if it is allowed to.
fn is_by_ipv6(world: &World<'_>, datagram: &Datagram) -> bool {
    let sender = five_tuple(datagram.source, datagram.destination);
    match datagram.to {
        Some(To::Channel(number)) => world.driver.flows.iter().any(|installed| {
            let id = installed.flow.id;
            let bound = match id.form {
                FlowForm::Channel { peer, number } => peer.0.is_ipv6().then_some(number.get()),
                FlowForm::Permission { .. } | FlowForm::Allocation => None,
            };
            id.five_tuple == sender && bound == Some(number)
        }),
        Some(To::Peer { is_ipv6 }) => is_ipv6,
        None => false,
    }
}

/// Whether an allocation that has a part in it has no flows at all, for want of a meter.
pub fn is_without_flows(world: &World<'_>, datagram: &Datagram, sent: &[Output]) -> bool {
    let has_flows = |five_tuple: FiveTuple| {
        world.driver.flows.iter().any(|installed| installed.flow.id.five_tuple == five_tuple)
    };
    let sender = match datagram.endpoint {
        Endpoint::Listener => Some(five_tuple(datagram.source, datagram.destination)),
        Endpoint::Relayed => None,
    };
    let receiver = sent.iter().find_map(|output| match output {
        Output::ToClient { five_tuple, .. } => Some(*five_tuple),
        _ => None,
    });
    sender.is_some_and(|sender| !has_flows(sender)) || receiver.is_some_and(|receiver| !has_flows(receiver))
}

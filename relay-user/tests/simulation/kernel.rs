//! What the kernel program does by the flows that are installed, without a look at anything else. `None`: it leaves
//! the packet to the core.

use std::net::SocketAddr;

use relay_user::turn::{Direction, Family, FiveTuple, Flow, FlowForm, PeerAddr, RelayedAddr};

use crate::{model::Route, world::World};

/// ChannelData from a client: one lookup, in a hairpin a second one.
pub fn channel_data(world: &World, from: FiveTuple, channel: u16) -> Option<Route> {
    let flow = find(world, Direction::ToPeer, |flow| {
        let is_channel = |form| matches!(form, FlowForm::Channel { number, .. } if number.get() == channel);
        flow.id.five_tuple == from && is_channel(flow.id.form)
    })?;
    let FlowForm::Channel { peer, .. } = flow.id.form else { return None };
    to_peer(world, flow, peer.0)
}

/// A Send indication: the allocation, then the permission.
pub fn send(world: &World, from: FiveTuple, peer: SocketAddr) -> Option<Route> {
    let family = Family::of(peer.ip());
    let RelayedAddr(relayed) = find(world, Direction::ToPeer, |flow| {
        let FlowForm::Allocation = flow.id.form else { return false };
        flow.id.five_tuple == from && flow.id.relayed.family() == family
    })?
    .id
    .relayed;
    let mut local = None;
    let flow = find(world, Direction::ToPeer, |flow| {
        let FlowForm::Permission { peer: permitted } = flow.id.form else { return false };
        let alias = flow.hairpin.and_then(|hairpin| hairpin.alias);
        let is_meant = flow.id.relayed.0 == relayed && (permitted == peer.ip() || alias == Some(peer.ip()));
        if is_meant {
            local = Some(permitted);
        }
        is_meant
    })?;
    if peer.port() == 0 {
        return None;
    }
    to_peer(world, flow, SocketAddr::new(local?, peer.port()))
}

/// A datagram that comes in by a wire for a relayed address. What is a hairpin's never does.
pub fn from_peer(world: &World, relayed: SocketAddr, peer: SocketAddr) -> Option<Route> {
    let flow = to_client(world, relayed, peer)?;
    flow.hairpin.is_none().then(|| delivered(flow, peer))
}

fn to_peer(world: &World, flow: &Flow, peer: SocketAddr) -> Option<Route> {
    let relayed = flow.id.relayed.0;
    match flow.hairpin {
        None => Some(Route::ToPeer { relayed, peer }),
        Some(hairpin) => {
            let receiver = to_client(world, peer, relayed)?;
            assert!(receiver.hairpin.is_some(), "{receiver:?}");
            Some(delivered(receiver, SocketAddr::new(hairpin.advertised, relayed.port())))
        }
    }
}

/// The flow by its channel, else by its permission.
fn to_client(world: &World, relayed: SocketAddr, peer: SocketAddr) -> Option<&Flow> {
    let by = |form: fn(FlowForm, SocketAddr) -> bool| {
        find(world, Direction::ToClient, |flow| flow.id.relayed.0 == relayed && form(flow.id.form, peer))
    };
    by(|form, peer| matches!(form, FlowForm::Channel { peer: PeerAddr(bound), .. } if bound == peer))
        .or_else(|| by(|form, peer| form == FlowForm::Permission { peer: peer.ip() }))
}

fn delivered(flow: &Flow, shown: SocketAddr) -> Route {
    let channel = match flow.id.form {
        FlowForm::Channel { number, .. } => Some(number.get()),
        FlowForm::Permission { .. } | FlowForm::Allocation => None,
    };
    Route::ToClient { five_tuple: flow.id.five_tuple, channel, shown }
}

fn find(world: &World, direction: Direction, mut is_it: impl FnMut(&Flow) -> bool) -> Option<&Flow> {
    let lives = |flow: &&Flow| flow.id.direction == direction && flow.expires > world.pair.now;
    world.pair.flows.values().filter(lives).find(|flow| is_it(flow))
}

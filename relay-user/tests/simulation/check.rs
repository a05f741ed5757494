//! What must hold after every step: core, model, flows, deadlines and ports justify each other exactly.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use relay_user::turn::{
    ChannelNumber, Direction, Family, FiveTuple, Flow, FlowForm, FlowId, Hairpin, PeerAddr, RelayedAddr,
    Totals,
};

use crate::{
    model::{Granted, Model, Route},
    world::World,
};

pub fn justified(world: &World) {
    let (pair, model) = (&world.pair, &world.model);
    let sessions: Vec<_> = pair.server.sessions().collect();
    assert_eq!(sessions.len(), model.granted.len(), "allocations");
    let mut deadline = None;
    let mut flows = BTreeMap::new();
    let mut meters = BTreeSet::new();
    let mut relayed = BTreeSet::new();
    for session in &sessions {
        let granted = &model.granted[&session.five_tuple];
        assert_eq!(session.username, granted.username);
        let addresses = session.relayed.iter().map(|relayed| (relayed.address.0, relayed.expires));
        assert!(addresses.eq(granted.relayed.values().map(|relayed| (relayed.address, relayed.expires))));
        let permissions = granted.relayed.values().flat_map(|relayed| &relayed.permissions);
        assert!(session.permissions.iter().copied().eq(permissions.map(|(&ip, &expires)| (ip, expires))));
        let channels = session.channels.iter().map(|c| (c.number.get(), (c.peer.0, c.expires)));
        assert!(channels.eq(granted.channels.iter().map(|(&number, &channel)| (number, channel))));

        for address in &session.relayed {
            relayed.insert(address.address);
            deadline = earliest(deadline, address.expires);
        }
        for &(_, expires) in &session.permissions {
            deadline = earliest(deadline, expires);
        }
        for channel in &session.channels {
            deadline = earliest(deadline, channel.expires);
        }
        if !granted.has_flows {
            continue;
        }
        let of_session = |flow: &&Flow| flow.id.five_tuple == session.five_tuple;
        let meter = pair.flows.values().find(of_session).and_then(|flow| flow.meter);
        assert_eq!(meter.is_some(), model.rules.meters.is_some(), "{session:?}");
        assert!(meter.is_none_or(|index| index > 0 && meters.insert(index)), "two have one meter");
        for (id, expires, hairpin) in justified_by(session.five_tuple, granted, model) {
            flows.insert(id, Flow { id, allocation: session.allocation, expires, hairpin, meter });
        }
    }
    for reservation in model.reservations.values() {
        deadline = earliest(deadline, reservation.expires);
    }
    assert_eq!(pair.server.totals().reservations, model.reservations.len());
    assert_eq!(pair.flows, flows, "every flow is justified, and nothing that would justify one is without");
    assert_eq!(pair.open, relayed, "every open relayed address is somebody's");
    assert_eq!(pair.server.poll_timeout(), deadline);
    assert!(deadline.is_none_or(|next| next > pair.now));
}

/// The flows of a client, each with its end.
fn justified_by(
    five_tuple: FiveTuple,
    granted: &Granted,
    model: &Model,
) -> Vec<(FlowId, u64, Option<Hairpin>)> {
    let mut flows = Vec::new();
    for (family, relayed) in &granted.relayed {
        let mut add = |form, expires: u64, peer: Option<IpAddr>| {
            let directions = if peer.is_none() { &Direction::BOTH[..1] } else { &Direction::BOTH };
            let hairpin = peer.and_then(|peer| {
                let peer = model.rules.relays.iter().find(|relay| relay.ip == peer)?;
                let advertised = model.advertised(relayed.address).ip();
                Some(Hairpin { advertised, alias: (peer.external != peer.ip).then_some(peer.external) })
            });
            for &direction in directions {
                let id = FlowId { direction, five_tuple, relayed: RelayedAddr(relayed.address), form };
                flows.push((id, expires.min(relayed.expires), hairpin));
            }
        };
        add(FlowForm::Allocation, relayed.expires, None);
        for (&peer, &permitted) in &relayed.permissions {
            add(FlowForm::Permission { peer }, permitted, Some(peer));
        }
        for (&number, &(peer, expires)) in &granted.channels {
            if let Some(permitted) = relayed.permissions.get(&peer.ip())
                && Family::of(peer.ip()) == *family
            {
                let number = ChannelNumber::new(number).expect("TURN-150");
                let form = FlowForm::Channel { peer: PeerAddr(peer), number };
                add(form, expires.min(*permitted), Some(peer.ip()));
            }
        }
    }
    flows
}

fn earliest(deadline: Option<u64>, other: u64) -> Option<u64> {
    Some(deadline.map_or(other, |deadline| deadline.min(other)))
}

/// What the slow path carries the kernel carries too, in the same way, and nothing else.
pub fn fast_path_agrees(world: &mut World, fast: Option<Route>, slow: &Route) {
    let how = match fast {
        Some(fast) => {
            assert_eq!(fast, *slow);
            match fast {
                Route::ToPeer { .. } => "to peer",
                Route::ToClient { channel: Some(_), .. } => "to a client's channel",
                Route::ToClient { channel: None, .. } => "to a client in an indication",
                Route::Nowhere => panic!("the program drops nothing for want of a flow"),
            }
        }
        None if *slow == Route::Nowhere => "left to the core, which drops it",
        None if world.model.rules.meters.is_some() => "left to the core, for want of a meter",
        None => panic!("the slow path carries what no flow does: {slow:?}"),
    };
    world.tally.count(&format!("kernel: {how}"));
}

pub fn nothing_is_left(world: &World) {
    justified(world);
    assert_eq!(world.pair.server.totals(), Totals::default());
    assert_eq!(world.pair.server.poll_timeout(), None, "a timer is left");
    assert!(world.pair.open.is_empty() && world.pair.flows.is_empty());
}

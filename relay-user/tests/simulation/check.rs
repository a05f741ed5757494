//! What must hold after every step: core, model, flows, deadlines and ports justify each other exactly.

use std::collections::BTreeSet;

use relay_user::turn::{Direction, Family, FiveTuple, FlowId, PeerAddr, RelayedAddr, Totals};

use crate::{model::Route, world::World};

pub fn justified(world: &World) {
    let (pair, model) = (&world.pair, &world.model);
    let sessions: Vec<_> = pair.server.sessions().collect();
    assert_eq!(sessions.len(), model.granted.len(), "allocations");
    let mut deadline = None;
    let mut flows = 0;
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
            let Some(permitted) = granted.permission(channel.peer.0.ip()) else { continue };
            let family = Family::of(channel.peer.0.ip());
            let own = &granted.relayed[&family];
            let until = channel.expires.min(permitted).min(own.expires);
            if world.model.rules.no_flows {
                continue;
            }
            for direction in [Direction::ToPeer, Direction::ToClient] {
                let id = FlowId {
                    direction,
                    five_tuple: session.five_tuple,
                    relayed: RelayedAddr(own.address),
                    peer: channel.peer,
                    channel: channel.number,
                };
                assert_eq!(pair.flows.get(&id).map(|flow| flow.expires), Some(until), "{id:?}");
                flows += 1;
            }
        }
    }
    for reservation in model.reservations.values() {
        deadline = earliest(deadline, reservation.expires);
    }
    assert_eq!(pair.server.totals().reservations, model.reservations.len());
    assert_eq!(pair.flows.len(), flows, "a flow that nothing justifies");
    assert_eq!(pair.open, relayed, "every open relayed address is somebody's");
    assert_eq!(pair.server.poll_timeout(), deadline);
    assert!(deadline.is_none_or(|next| next > pair.now));
}

fn earliest(deadline: Option<u64>, other: u64) -> Option<u64> {
    Some(deadline.map_or(other, |deadline| deadline.min(other)))
}

/// The kernel would carry ChannelData exactly when the slow path does.
pub fn fast_path_agrees(world: &World, from: FiveTuple, number: u16, route: &Route) {
    let now = world.pair.now;
    let flow = world.pair.flows.values().find(|flow| {
        flow.id.five_tuple == from
            && flow.id.channel.get() == number
            && flow.id.direction == Direction::ToPeer
            && flow.expires > now
    });
    match (flow, route) {
        (Some(flow), Route::ToPeer { relayed, peer }) => {
            assert_eq!((flow.id.relayed, flow.id.peer), (RelayedAddr(*relayed), PeerAddr(*peer)));
        }
        (None, Route::Nowhere) => {}
        (None, _) if world.model.rules.no_flows => {}
        // The receiving allocation has its say, too.
        (Some(flow), Route::Nowhere | Route::ToClient { .. }) => assert!(flow.hairpin, "{flow:?}"),
        (None, _) => panic!("the slow path carries what no flow does: {route:?}"),
    }
}

pub fn nothing_is_left(world: &World) {
    justified(world);
    assert_eq!(world.pair.server.totals(), Totals::default());
    assert_eq!(world.pair.server.poll_timeout(), None, "a timer is left");
    assert!(world.pair.open.is_empty() && world.pair.flows.is_empty());
}

//! Counts of responses, which tell an operator what clients are refused.

use std::collections::BTreeMap;

use crate::{
    pair::{PEER, Pair},
    wire::{self, Builder},
};

fn responses(pair: &Pair) -> BTreeMap<(&'static str, u16), u64> {
    pair.server
        .responses()
        .map(|(method, error, count)| ((method, error.map_or(0, |code| code.code())), count))
        .collect()
}

#[test]
fn responses_are_counted_by_method_and_code() {
    let mut pair = Pair::with(|config| config.limits.unauthenticated_per_second = 3);
    assert_eq!(responses(&pair), BTreeMap::new());
    pair.allocate(0);
    pair.refresh(0, 600);
    pair.refresh(0, 700);
    pair.permit(0, PEER);
    pair.permit(0, "127.0.0.1:1");
    pair.bind(0, 0x4000, PEER);
    pair.bind(0, 0x3fff, PEER);
    pair.request(0, wire::ALLOCATE, &[wire::requested_transport(17)]);
    pair.request(0, wire::REFRESH, &[(0x7ffe, vec![])]);
    for _ in 0..10 {
        pair.deliver(0, &Builder::new(wire::REQUEST, wire::BINDING, [1; 12]).build());
    }
    let expected = [
        (("binding", 0), 2),
        (("allocate", 0), 1),
        (("allocate", 401), 1),
        (("allocate", 437), 1),
        (("refresh", 0), 2),
        (("refresh", 420), 1),
        (("create_permission", 0), 1),
        (("create_permission", 403), 1),
        (("channel_bind", 0), 1),
        (("channel_bind", 400), 1),
    ];
    assert_eq!(responses(&pair), BTreeMap::from(expected), "what was not sent is not counted");
    assert_eq!(pair.drops("unauthenticated_rate"), 8);
}

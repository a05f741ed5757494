//! When flows are installed and removed, and until when they last.

use relay_user::turn::{Direction, Output};

use crate::{
    pair::{CHANNEL, Happened, PEER, Pair, SECOND, seconds},
    wire,
};

/// "install", "remove" and "response" in their order, and when what was installed ends, in seconds from now.
fn order(pair: &Pair, happened: &Happened) -> Vec<(&'static str, u64)> {
    happened
        .outputs
        .iter()
        .map(|output| match output {
            Output::InstallFlow(flow) => ("install", (flow.expires - pair.now) / SECOND),
            Output::RemoveFlow(_) => ("remove", 0),
            Output::ToClient { .. } => ("response", 0),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn bind(pair: &mut Pair) -> Happened {
    let request = pair.build(0, wire::CHANNEL_BIND, &[wire::channel_number(CHANNEL), wire::peer(PEER)]);
    pair.deliver(0, &request)
}

fn refresh(pair: &mut Pair, lifetime: u32) -> Happened {
    let request = pair.build(0, wire::REFRESH, &[wire::lifetime(lifetime)]);
    pair.deliver(0, &request)
}

#[test]
fn dp_064_both_directions_are_installed_before_the_response() {
    let mut pair = Pair::new();
    let relayed = pair.allocate(0);
    let happened = bind(&mut pair);
    assert_eq!(order(&pair, &happened), [("install", 600), ("install", 600), ("response", 0)]);
    let flows: Vec<_> = pair.flows.values().collect();
    assert_eq!(
        flows.iter().map(|flow| flow.id.direction).collect::<Vec<_>>(),
        [Direction::ToPeer, Direction::ToClient]
    );
    for flow in flows {
        assert_eq!(flow.id.five_tuple, pair.clients[0].five_tuple);
        assert_eq!(flow.id.relayed.0, relayed);
        assert_eq!(flow.id.peer.0, PEER.parse().unwrap());
        assert_eq!(flow.id.channel.get(), CHANNEL);
        assert_eq!(flow.allocation, pair.server.sessions().next().unwrap().allocation);
        assert!(!flow.hairpin);
    }
}

#[test]
fn a_permission_alone_makes_no_flow() {
    let mut pair = Pair::new();
    pair.allocate(0);
    pair.permit(0, PEER);
    assert!(pair.flows.is_empty());
}

#[test]
fn dp_066_flows_end_at_the_earliest_of_allocation_channel_and_permission() {
    let mut pair = Pair::with(|config| config.strict_permissions = true);
    pair.allocate(0);
    pair.advance(seconds(400));
    let happened = bind(&mut pair);
    assert_eq!(order(&pair, &happened)[0], ("install", 200), "allocation");

    let happened = refresh(&mut pair, 3600);
    assert_eq!(order(&pair, &happened), [("install", 300), ("install", 300), ("response", 0)], "permission");
    let happened = refresh(&mut pair, 3600);
    assert_eq!(order(&pair, &happened), [("response", 0)], "nothing has moved");

    for _ in 0..2 {
        pair.advance(seconds(200));
        let request = pair.build(0, wire::CREATE_PERMISSION, &[wire::peer("8.8.8.8:1")]);
        let happened = pair.deliver(0, &request);
        let ends = if pair.now == 1_600 * SECOND { 300 } else { 200 };
        assert_eq!(order(&pair, &happened), [("install", ends), ("install", ends), ("response", 0)]);
    }
    let happened = refresh(&mut pair, 3600);
    assert_eq!(order(&pair, &happened), [("response", 0)], "the channel ends first");
    let happened = bind(&mut pair);
    assert_eq!(order(&pair, &happened), [("install", 300), ("install", 300), ("response", 0)]);
}

#[test]
fn dp_066_a_shorter_allocation_shortens_its_flows() {
    let mut pair = Pair::with(|config| config.lifetimes.channel = seconds(3000));
    pair.allocate(0);
    refresh(&mut pair, 3600);
    bind(&mut pair);
    let happened = refresh(&mut pair, 700);
    assert_eq!(order(&pair, &happened), [("install", 700), ("install", 700), ("response", 0)]);
}

#[test]
fn dp_021_031_expiry_removes_the_flows() {
    let mut pair = Pair::new();
    pair.allocate(0);
    refresh(&mut pair, 3600);
    bind(&mut pair);
    let happened = pair.advance(seconds(600));
    assert_eq!(order(&pair, &happened), [("remove", 0), ("remove", 0)]);

    let mut pair = Pair::with(|config| config.strict_permissions = true);
    pair.allocate(0);
    bind(&mut pair);
    let happened = pair.advance(seconds(300));
    assert_eq!(order(&pair, &happened), [("remove", 0), ("remove", 0)]);
    let happened = bind(&mut pair);
    assert_eq!(order(&pair, &happened), [("install", 300), ("install", 300), ("response", 0)]);
}

#[test]
fn turn_103_a_permission_concerns_the_flows_of_every_port_of_its_address() {
    let mut pair = Pair::with(|config| config.strict_permissions = true);
    pair.allocate(0);
    pair.bind(0, 0x4000, "8.8.8.8:1");
    pair.bind(0, 0x4001, "8.8.8.8:2");
    pair.bind(0, 0x4002, "9.9.9.9:1");
    pair.advance(seconds(100));
    pair.permit(0, "8.8.8.8:7");
    pair.advance(seconds(200));
    assert_eq!(pair.flows.len(), 4);
    assert!(pair.flows.keys().all(|flow| flow.peer.0.ip().to_string() == "8.8.8.8"));
}

/// The kernel does not enforce the limit, so what has one is relayed by the slow path alone.
#[test]
fn turn_024_dp_073_a_bandwidth_limit_keeps_flows_out_of_the_datapath() {
    let mut pair = Pair::with(|config| {
        config.limits.bytes_per_second = 1_000_000;
        config.limits.burst = 1_000_000;
    });
    let relayed = pair.allocate(0);
    for _ in 0..2 {
        let happened = bind(&mut pair);
        assert_eq!(order(&pair, &happened), [("response", 0)]);
    }
    assert_eq!(pair.channel_data(0, CHANNEL, b"x").to_peer().0, relayed);
    let happened = pair.advance(seconds(600));
    assert!(!happened.outputs.iter().any(|output| matches!(output, Output::RemoveFlow(_))));
}

//! When flows are installed and removed, and until when they last.

use relay_user::turn::{Direction, Flow, FlowForm, FlowId, Output};

use crate::{
    dual_stack::dual_stack,
    pair::{CHANNEL, Happened, PEER, Pair, SECOND, seconds},
    wire,
};

const PEER_IPV6: &str = "[2606:4700::8]:5000";

/// Outputs in their order: what is made sure to be installed, and for how many seconds from now; what is removed;
/// responses. Where a form has two directions both must be there, one after the other: they are told as one.
fn order(pair: &Pair, happened: &Happened) -> Vec<String> {
    let mut told = Vec::new();
    let mut outputs = happened.outputs.iter();
    while let Some(output) = outputs.next() {
        let (form, direction, what) = match output {
            Output::InstallFlow(Flow { id, expires, .. }) => {
                (id.form, id.direction, format!(" for {}", (expires - pair.now) / SECOND))
            }
            Output::RemoveFlow(FlowId { form, direction, .. }) => (*form, *direction, " removed".to_owned()),
            Output::ToClient { .. } => {
                told.push("response".to_owned());
                continue;
            }
            Output::CloseRelayed { .. } => {
                told.push("closed".to_owned());
                continue;
            }
            Output::OpenRelayed { .. } | Output::Event(_) => continue,
            other => panic!("{other:?}"),
        };
        assert_eq!(direction, Direction::ToPeer);
        let name = match form {
            FlowForm::Allocation => "allocation".to_owned(),
            FlowForm::Permission { peer } => format!("permission {peer}"),
            FlowForm::Channel { number, .. } => format!("channel {number}"),
        };
        if form != FlowForm::Allocation {
            assert!(is_way_back(outputs.next(), output), "{name}");
        }
        told.push(name + &what);
    }
    told
}

/// Whether it says the same of the other direction.
fn is_way_back(back: Option<&Output>, forth: &Output) -> bool {
    let turned = |id: FlowId| FlowId { direction: Direction::ToClient, ..id };
    match (forth, back) {
        (Output::InstallFlow(forth), Some(Output::InstallFlow(back))) => {
            *back == Flow { id: turned(forth.id), ..*forth }
        }
        (Output::RemoveFlow(forth), Some(Output::RemoveFlow(back))) => *back == turned(*forth),
        _ => false,
    }
}

fn told(pair: &mut Pair, method: u16, attributes: &[wire::Attribute]) -> Vec<String> {
    let request = pair.build(0, method, attributes);
    let happened = pair.deliver(0, &request);
    order(pair, &happened)
}

fn allocate(pair: &mut Pair) -> Vec<String> {
    told(pair, wire::ALLOCATE, &[wire::requested_transport(17)])
}

fn bind(pair: &mut Pair) -> Vec<String> {
    told(pair, wire::CHANNEL_BIND, &[wire::channel_number(CHANNEL), wire::peer(PEER)])
}

fn permit(pair: &mut Pair, peers: &[&str]) -> Vec<String> {
    let peers: Vec<_> = peers.iter().map(|peer| wire::peer(peer)).collect();
    told(pair, wire::CREATE_PERMISSION, &peers)
}

fn refresh(pair: &mut Pair, lifetime: u32) -> Vec<String> {
    told(pair, wire::REFRESH, &[wire::lifetime(lifetime)])
}

fn advance(pair: &mut Pair, time: u64) -> Vec<String> {
    let happened = pair.advance(seconds(time));
    order(pair, &happened)
}

#[test]
fn dp_064_flows_are_installed_before_the_response() {
    let mut pair = Pair::new();
    assert_eq!(allocate(&mut pair), ["allocation for 600", "response"]);
    assert_eq!(permit(&mut pair, &["9.9.9.9:9"]), ["permission 9.9.9.9 for 300", "response"]);
    assert_eq!(bind(&mut pair), ["permission 8.8.8.8 for 600", "channel 0x4000 for 600", "response"]);

    let session = pair.server.sessions().next().unwrap();
    let forms: Vec<_> = pair
        .flows
        .values()
        .map(|flow| {
            assert_eq!(flow.id.five_tuple, pair.clients[0].five_tuple);
            assert_eq!(flow.id.relayed, session.relayed[0].address);
            assert_eq!((flow.allocation, flow.hairpin, flow.meter), (session.allocation, None, None));
            (flow.id.direction, flow.id.form)
        })
        .collect();
    let channel = FlowForm::Channel { peer: session.channels[0].peer, number: session.channels[0].number };
    let [peer, other] = ["8.8.8.8", "9.9.9.9"].map(|ip| FlowForm::Permission { peer: ip.parse().unwrap() });
    let both = [channel, peer, other];
    let to_peer = both.into_iter().chain([FlowForm::Allocation]).map(|form| (Direction::ToPeer, form));
    let to_client = both.into_iter().map(|form| (Direction::ToClient, form));
    assert_eq!(forms, to_peer.chain(to_client).collect::<Vec<_>>());
}

#[test]
fn dp_064_one_request_moves_only_what_it_concerns() {
    let mut pair = Pair::with(|config| {
        dual_stack(config);
        config.strict_permissions = true;
    });
    pair.allocate_dual(0);
    assert!(pair.refresh(0, 3600).is_success());
    for (number, peer) in
        [(0x4000, PEER), (0x4001, "8.8.8.8:5001"), (0x4002, "9.9.9.9:9"), (0x4003, PEER_IPV6)]
    {
        assert!(pair.bind(0, number, peer).is_success());
    }
    pair.advance(seconds(100));
    // Both channels to the address, and a peer that is permitted only; each peer is named twice.
    let peers = ["7.7.7.7:7", PEER, "7.7.7.7:8", "8.8.8.8:1"];
    assert_eq!(
        permit(&mut pair, &peers),
        [
            "permission 7.7.7.7 for 300",
            "permission 8.8.8.8 for 300",
            "channel 0x4000 for 300",
            "channel 0x4001 for 300",
            "response"
        ]
    );
    assert_eq!(permit(&mut pair, &peers), ["response"], "nothing has moved");
    assert_eq!(permit(&mut pair, &["10.0.0.1:1", PEER]), ["response"], "403 changes nothing");
    pair.advance(seconds(1));
    assert_eq!(permit(&mut pair, &["10.0.0.1:1", PEER]), ["response"], "403 changes nothing");
}

#[test]
fn dp_066_flows_end_at_the_earliest_of_allocation_channel_and_permission() {
    let mut pair = Pair::with(|config| config.strict_permissions = true);
    pair.allocate(0);
    pair.advance(seconds(400));
    let both =
        |seconds| [format!("permission 8.8.8.8 for {seconds}"), format!("channel 0x4000 for {seconds}")];
    let response = ["response".to_owned()];
    assert_eq!(bind(&mut pair), [&both(200)[..], &response].concat(), "the allocation ends first");

    let allocation = ["allocation for 3600".to_owned()];
    assert_eq!(refresh(&mut pair, 3600), [&allocation[..], &both(300), &response].concat(), "the permission");
    assert_eq!(refresh(&mut pair, 3600), ["response"], "nothing has moved");

    pair.advance(seconds(200));
    assert_eq!(permit(&mut pair, &[PEER]), [&both(300)[..], &response].concat());
    pair.advance(seconds(200));
    assert_eq!(
        permit(&mut pair, &[PEER]),
        ["permission 8.8.8.8 for 300", "channel 0x4000 for 200", "response"],
        "the channel ends first"
    );
    assert_eq!(refresh(&mut pair, 3600), ["allocation for 3600", "response"], "alone");
    assert_eq!(bind(&mut pair), ["channel 0x4000 for 300", "response"]);
}

#[test]
fn dp_066_a_shorter_allocation_shortens_its_flows() {
    let mut pair = Pair::with(|config| config.lifetimes.channel = seconds(3000));
    pair.allocate(0);
    refresh(&mut pair, 3600);
    bind(&mut pair);
    permit(&mut pair, &["9.9.9.9:9"]);
    assert_eq!(
        refresh(&mut pair, 700),
        ["allocation for 700", "permission 8.8.8.8 for 700", "channel 0x4000 for 700", "response"]
    );
}

#[test]
fn dp_018_021_031_expiry_removes_the_flows() {
    let mut pair = Pair::new();
    pair.allocate(0);
    refresh(&mut pair, 3600);
    bind(&mut pair);
    permit(&mut pair, &["9.9.9.9:9"]);
    assert_eq!(advance(&mut pair, 300), ["permission 9.9.9.9 removed"]);
    // The permission lasts as long as the channel, and ends before it in the order of deadlines.
    assert_eq!(advance(&mut pair, 300), ["permission 8.8.8.8 removed", "channel 0x4000 removed"]);
    assert_eq!(advance(&mut pair, 2999), [""; 0]);
    assert_eq!(advance(&mut pair, 1), ["allocation removed", "closed"]);

    let mut pair = Pair::with(|config| config.strict_permissions = true);
    pair.allocate(0);
    bind(&mut pair);
    assert_eq!(advance(&mut pair, 300), ["permission 8.8.8.8 removed", "channel 0x4000 removed"]);
    assert_eq!(bind(&mut pair), ["permission 8.8.8.8 for 300", "channel 0x4000 for 300", "response"]);
    assert_eq!(
        advance(&mut pair, 300),
        ["allocation removed", "permission 8.8.8.8 removed", "channel 0x4000 removed", "closed"]
    );
}

#[test]
fn dp_021_a_permission_outlives_the_channel() {
    let mut pair = Pair::new();
    pair.allocate(0);
    refresh(&mut pair, 3600);
    bind(&mut pair);
    pair.advance(seconds(500));
    assert_eq!(permit(&mut pair, &[PEER]), ["permission 8.8.8.8 for 300", "response"]);
    assert_eq!(advance(&mut pair, 100), ["channel 0x4000 removed"]);
    assert_eq!(pair.flow_counts(), [1, 2, 0]);
    assert_eq!(advance(&mut pair, 200), ["permission 8.8.8.8 removed"]);
}

#[test]
fn dp_065_flows_are_removed_before_the_response_to_a_deleting_refresh() {
    let mut pair = Pair::with(dual_stack);
    pair.allocate_dual(0);
    bind(&mut pair);
    permit(&mut pair, &[PEER_IPV6]);
    let of_ipv4 = ["allocation removed", "permission 8.8.8.8 removed", "channel 0x4000 removed", "closed"];
    let of_ipv6 = ["allocation removed", "permission 2606:4700::8 removed", "closed"];
    assert_eq!(refresh(&mut pair, 0), [&of_ipv4[..], &of_ipv6, &["response"]].concat());
    assert!(pair.flows.is_empty());
}

#[test]
fn dp_070_deleting_one_family_removes_its_flows_alone() {
    for (family, gone) in [(1, "8.8.8.8"), (2, "2606:4700::8")] {
        let mut pair = Pair::with(dual_stack);
        pair.allocate_dual(0);
        permit(&mut pair, &[PEER, PEER_IPV6]);
        let removed = told(&mut pair, wire::REFRESH, &[wire::requested_family(family), wire::lifetime(0)]);
        let permission = format!("permission {gone} removed");
        assert_eq!(removed, ["allocation removed", &permission, "closed", "response"]);
        assert_eq!(pair.flow_counts(), [1, 2, 0]);
        assert!(pair.flows.keys().all(|flow| flow.relayed.0.is_ipv4() == (family == 2)));
        assert_eq!(refresh(&mut pair, 3600), ["allocation for 3600", "response"]);
    }
}

#[test]
fn dp_062_data_moves_no_flow() {
    let mut pair = Pair::new();
    let relayed = pair.allocate(0);
    bind(&mut pair);
    pair.advance(seconds(10));
    let before = pair.flows.clone();
    assert!(!pair.channel_data(0, CHANNEL, b"x").is_silence());
    assert!(!pair.send(0, PEER, b"x").is_silence());
    assert!(!pair.peer_sends(relayed, PEER, b"x").is_silence());
    assert!(!pair.peer_sends(relayed, "8.8.8.8:1", b"x").is_silence());
    assert_eq!(pair.flows, before);
}

// DP-027: the policy is asked for each permission and each channel, and cannot change while the daemon runs.
#[test]
fn what_policy_refuses_has_no_flow() {
    let mut pair = Pair::new();
    pair.allocate(0);
    assert_eq!(permit(&mut pair, &["10.0.0.1:1"]), ["response"]);
    assert_eq!(permit(&mut pair, &[PEER, "10.0.0.1:1"]), ["response"]);
    let attributes = [wire::channel_number(CHANNEL), wire::peer("10.0.0.1:1")];
    assert_eq!(told(&mut pair, wire::CHANNEL_BIND, &attributes), ["response"]);
    assert_eq!(pair.flow_counts(), [1, 0, 0]);
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
    assert_eq!(pair.flow_counts(), [1, 2, 4]);
    let peer = FlowForm::Permission { peer: "8.8.8.8".parse().unwrap() };
    assert!(pair.flows.keys().any(|flow| flow.form == peer));
}

#[test]
fn a_client_on_a_link_local_address_has_no_flows() {
    // Another on the next link may have the same, and no packet says which link it is on.
    let mut pair = Pair::dual_stack();
    let client = pair.add_client_of("[fe80::5%3]:5000");
    let neighbour = pair.add_client_of("[fe80::5%4]:5000");
    for client in [client, neighbour] {
        let relayed = pair.allocate(client);
        pair.bind(client, CHANNEL, PEER);
        assert!(pair.flows.is_empty(), "{:?}", pair.flows);
        let happened = pair.peer_sends(relayed, PEER, b"data");
        let (to, data) = happened.to_client().next().expect("the daemon relays");
        assert_eq!((to, &data[4..]), (pair.clients[client].five_tuple, &b"data"[..]));
    }
}

#[test]
fn a_second_allocate_states_nothing() {
    let mut pair = Pair::new();
    assert_eq!(allocate(&mut pair), ["allocation for 600", "response"]);
    assert_eq!(allocate(&mut pair), ["response"], "437");
    assert_eq!(pair.flow_counts(), [1, 0, 0]);
}

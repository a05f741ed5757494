//! Where packets leave, and whether they may.

use relay_common::{outcome::Outcome, path::Path};
use relay_user::datapath::encode::{self, Indices};

use crate::{case::Case, frame::Frame, relay::*};

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_048_what_would_exceed_the_next_hops_mtu_is_the_slow_paths() {
    let mut relay = Relay::new();
    for case in Case::all() {
        for len in [0, 57, 400] {
            let data = data(len);
            let fits = case.output(&data).packet_len() as u32;
            relay.change_next_hop(&case, |next_hop| next_hop.mtu = fits);
            relay.assert_relays(&case, &data);
            relay.change_next_hop(&case, |next_hop| next_hop.mtu = fits - 1);
            relay.assert_outcome(case.ingress(), &case.input(&data).bytes(), Outcome::Mtu);
        }
        relay.change_next_hop(&case, |next_hop| next_hop.mtu = MTU);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_052_without_a_next_hop_the_slow_path_resolves_it() {
    let mut relay = Relay::new();
    for case in Case::all() {
        let destination = case.output(b"").destination.ip();
        let next_hop = relay.next_hop_to(destination);
        relay.set_next_hop(destination, None);
        relay.assert_outcome(case.ingress(), &case.input(b"data").bytes(), Outcome::NextHop);
        relay.assert_outcome(case.ingress(), &case.input(&data(1400)).bytes(), Outcome::NextHop);
        relay.set_next_hop(destination, Some(next_hop));
        relay.assert_relays(&case, b"data");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_052_a_flow_without_a_path_is_the_slow_paths() {
    let mut relay = Relay::new();
    for case in Case::all() {
        let flows = case.flows();
        let last = &flows[flows.len() - 1];
        let indices = relay.indices(last);
        for path in [Path::NONE, 200, u32::MAX] {
            for key in encode::keys(last) {
                relay.insert(&key, encode::entry(last, &key, Indices { path, ..indices }));
            }
            relay.assert_outcome(case.ingress(), &case.input(b"data").bytes(), Outcome::Torn);
        }
        relay.install(last);
        relay.assert_relays(&case, b"data");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_052_a_packet_leaves_by_the_next_hops_interface_be_it_the_one_it_came_in_by_or_not() {
    let mut relay = Relay::new();
    for case in Case::all() {
        let (other, verdict) = match case.ingress() {
            ingress if ingress != case.egress() => (ingress, XDP_TX),
            _ => (Side::Peer, XDP_REDIRECT),
        };
        let ifindex = relay.ifindex(other);
        relay.change_next_hop(&case, |next_hop| {
            next_hop.ifindex = ifindex;
            next_hop.source_mac = other.mac();
            next_hop.destination_mac = [2, 0, 0, 0, 7, 7];
        });
        let expected =
            Frame { source_mac: other.mac(), destination_mac: [2, 0, 0, 0, 7, 7], ..case.output(b"data") };
        relay.assert_sends(case.ingress(), &case.input(b"data"), verdict, &expected);
        let (ifindex, destination_mac) = (relay.ifindex(case.egress()), case.output(b"").destination_mac);
        relay.change_next_hop(&case, |next_hop| {
            next_hop.ifindex = ifindex;
            next_hop.source_mac = case.egress().mac();
            next_hop.destination_mac = destination_mac;
        });
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_052_an_interface_that_the_program_may_not_send_on_is_the_slow_paths() {
    let mut relay = Relay::new();
    for case in Case::all().filter(|case| case.verdict() == XDP_REDIRECT) {
        relay.remove_tx_port(case.egress());
        relay.assert_outcome(case.ingress(), &case.input(b"data").bytes(), Outcome::TxPort);
        relay.add_tx_port(case.egress());
        relay.assert_relays(&case, b"data");
    }
}

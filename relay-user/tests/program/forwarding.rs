//! Data of an established channel, both ways.

use crate::relay::*;

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_025_channel_data_leaves_for_the_bound_peer_from_the_relayed_address() {
    let mut relay = Relay::new();
    relay.assert_forwards(Side::Client, &from_client(b"hello"), XDP_REDIRECT, &at_peer(b"hello"));
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_035_dp_037_peer_data_reaches_the_client_as_channel_data_from_the_server_address() {
    let mut relay = Relay::new();
    relay.assert_forwards(Side::Peer, &from_peer(b"hello"), XDP_REDIRECT, &at_client(b"hello"));
}

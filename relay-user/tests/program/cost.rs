//! What the verifier and the kernel say of the program's size, and what a packet costs. Only the size is judged:
//! times depend on the machine and are printed for whoever looks (`--nocapture`).

use std::net::{Ipv4Addr, SocketAddrV4};

use aya::{TestRun as _, TestRunOptions};
use relay_user::{
    datapath::encode,
    turn::{ClientAddr, Direction, PeerAddr},
};

use crate::{
    frame::{Frame, channel_data, set_word},
    relay::*,
};

/// The verifier gives up at a million; paths must not multiply.
const MOST_VERIFIED: u32 = 20_000;
/// A TTL of 255 lasts for so many packets: one that would reach 0 is not forwarded.
const REPEAT: u32 = 254;
const ROUNDS: u32 = 25;

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn the_program_is_small_for_the_verifier() {
    let mut relay = Relay::without_session();
    let info = relay.program().info().unwrap();
    let verified = info.verified_instruction_count().unwrap();
    println!(
        "{verified} instructions verified, {} bytes translated, {} bytes of machine code",
        info.size_translated().unwrap(),
        info.size_jitted()
    );
    assert!(verified <= MOST_VERIFIED, "{verified} instructions verified");
}

/// The kernel repeats a run with the packet as the last one left it, so this session's client is its own server
/// and its peer its own relayed address: each outgoing packet is the next incoming one, out and back in turn.
#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_042_a_packet_goes_out_and_back_until_its_ttl_ends() {
    let mut relay = Relay::without_session();
    let ifindex = relay.ifindex(Side::Client);
    let mac = Side::Client.mac();
    let round = SocketAddrV4::new(Ipv4Addr::new(198, 18, 2, 7), 50002);
    relay.add_relayed(round);
    relay.set_next_hop(3, encode::next_hop(3, ifindex, MTU, mac, mac));
    for (direction, counter) in [(Direction::ToPeer, 1), (Direction::ToClient, 2)] {
        let mut flow = flow(direction, u64::MAX);
        flow.id.five_tuple.client = ClientAddr(LISTENER.into());
        flow.id.relayed.0 = round.into();
        flow.id.peer = PeerAddr(round.into());
        relay.install(&flow, counter, 3);
    }
    let len = 160;
    let frame = Frame {
        destination_mac: mac,
        ttl: 255,
        ..Frame::new(LISTENER, LISTENER, channel_data(CHANNEL, &data(len)))
    };
    println!("{} for a packet, the median of both directions", median_cost(&mut relay, &frame.bytes()));
    let packets = u64::from(ROUNDS * REPEAT / 2);
    assert_eq!(relay.counted(1), (packets, packets * len as u64));
    assert_eq!(relay.counted(2), (packets, packets * len as u64));

    let mut not_ours = frame.bytes();
    set_word(&mut not_ours, 12, 0x0806);
    println!("{} for one that is not ours", median_cost(&mut relay, &not_ours));
}

fn median_cost(relay: &mut Relay, frame: &[u8]) -> String {
    let context = relay.context(&[], Side::Client, frame);
    let mut costs: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let options = TestRunOptions {
                data_in: Some(frame),
                ctx_in: Some(&context),
                repeat: REPEAT,
                ..TestRunOptions::default()
            };
            relay.program().test_run(options).unwrap().duration.as_nanos()
        })
        .collect();
    costs.sort_unstable();
    format!("{} ns", costs[costs.len() / 2])
}

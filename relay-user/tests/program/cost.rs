//! What the verifier and the kernel say of the program's size, and what a packet costs. Only the size is judged:
//! times depend on the machine and are printed for whoever looks (`--nocapture`).

use std::net::{Ipv4Addr, SocketAddrV4};

use aya::{TestRun as _, TestRunOptions};
use relay_user::{
    datapath::encode,
    turn::{ClientAddr, Direction, PeerAddr},
};

use crate::{frame::Frame, frame::channel_data, relay::*};

/// Older verifiers give up at a million instructions; paths must not multiply.
const MOST_VERIFIED: u32 = 50_000;

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
fn a_packet_goes_out_and_back_until_its_ttl_ends() {
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
    let frame = Frame {
        destination_mac: mac,
        ttl: 255,
        ..Frame::new(LISTENER, LISTENER, channel_data(CHANNEL, &data(160)))
    };
    let context: Vec<u8> =
        [0, frame.bytes().len() as u32, 0, ifindex, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();

    let mut costs: Vec<_> = (0..200)
        .map(|_| {
            let run = relay.program().test_run(TestRunOptions {
                data_in: Some(&frame.bytes()),
                ctx_in: Some(&context),
                repeat: 254,
                ..TestRunOptions::default()
            });
            run.unwrap().duration.as_nanos()
        })
        .collect();
    costs.sort_unstable();
    println!("{} ns for a packet, the median of both directions", costs[costs.len() / 2]);
    assert_eq!(relay.counted(1), (200 * 127, 200 * 127 * 160));
    assert_eq!(relay.counted(2), (200 * 127, 200 * 127 * 160));
}

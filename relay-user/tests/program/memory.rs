//! How frames lie in memory: the room before and behind them, and frames in several pieces.

use relay_common::outcome::Outcome;

use crate::{
    case::{Case, End, Form},
    frame::Frame,
    relay::*,
};

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn without_headroom_a_frame_that_grows_is_the_slow_paths() {
    let relay = Relay::new();
    let mut seen = 0;
    for case in Case::all().filter(|case| case.growth() > 0) {
        let growth = case.growth() as usize;
        for len in [0, 2, 100] {
            let data = data(len);
            for ethernet_padding in [0, 5] {
                let frame = Frame { ethernet_padding: vec![0xee; ethernet_padding], ..case.input(&data) };
                // Metadata takes the headroom away, all but what is needed, or 4 bytes more.
                let metadata = vec![0x5a; Memory::HEADROOM - growth];
                let memory = Memory { metadata: &metadata, ..Memory::default() };
                let run = relay.run_from(memory, case.ingress(), &frame.bytes());
                assert_run(&run, &frame, case.verdict(), &case.output(&data));

                let metadata = vec![0x5a; Memory::HEADROOM - growth + 4];
                let memory = Memory { metadata: &metadata, ..Memory::default() };
                relay.assert_outcome_from(memory, case.ingress(), &frame.bytes(), Outcome::Headroom);
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn a_frame_that_does_not_grow_needs_no_headroom() {
    let relay = Relay::new();
    let metadata = [0x5a; Memory::HEADROOM];
    for case in Case::all().filter(|case| case.growth() <= 0) {
        let memory = Memory { metadata: &metadata, ..Memory::default() };
        let run = relay.run_from(memory, case.ingress(), &case.input(&data(100)).bytes());
        assert_run(&run, &case.input(&data(100)), case.verdict(), &case.output(&data(100)));
    }
}

// A Data indication's padding is the only thing that is ever added behind a frame.
#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn without_tailroom_a_frame_that_gets_padding_is_the_slow_paths() {
    let mut relay = Relay::new();
    let mut refused = 0;
    for case in Case::all() {
        relay.change_next_hop(&case, |next_hop| next_hop.mtu = 9000);
        let overhead = case.input(b"").bytes().len();
        // With what is cut off behind the data the padding may be made of that.
        let cut = case.input(b"x").bytes().len() - overhead - 1;
        for data_len in Memory::PIECE - overhead - 4..=Memory::PIECE - overhead - cut {
            let data = data(data_len);
            let frame = case.input(&data);
            let bytes = frame.bytes();
            if bytes.len() > Memory::PIECE {
                continue;
            }
            let padding = if matches!(case.to, End::Client(_, Form::Indication)) {
                data_len.next_multiple_of(4) - data_len
            } else {
                0
            };
            let there = bytes.len() - overhead - data_len;
            if bytes.len() - there + padding > Memory::PIECE {
                relay.assert_outcome(case.ingress(), &bytes, Outcome::Tailroom);
                refused += 1;
            } else {
                relay.assert_forwards(&case, &frame, &case.output(&data));
            }
        }
        relay.change_next_hop(&case, |next_hop| next_hop.mtu = MTU);
    }
    assert!(refused > 20, "{refused}");
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn without_headroom_and_with_padding_made_the_frame_is_handed_on_untouched() {
    let relay = Relay::new();
    for case in Case::to_client().filter(|case| case.growth() > 0) {
        for len in [1, 2, 3, 5] {
            let metadata = [0x5a; Memory::HEADROOM];
            let memory = Memory { metadata: &metadata, ..Memory::default() };
            let frame = case.input(&data(len));
            relay.assert_outcome_from(memory, case.ingress(), &frame.bytes(), Outcome::Headroom);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn a_jumbo_frame_in_several_pieces_leaves_by_an_interface_that_takes_it() {
    let mut relay = Relay::new();
    for case in Case::all() {
        for scatter_gather in [true, false] {
            relay.change_next_hop(&case, |next_hop| {
                next_hop.mtu = 9000;
                next_hop.scatter_gather = scatter_gather;
            });
            for len in [4000, 6000, 8800] {
                let data = data(len);
                // The driver that it came in by takes it back as it is.
                if scatter_gather || case.verdict() == XDP_TX {
                    relay.assert_relays(&case, &data);
                } else {
                    relay.assert_outcome(case.ingress(), &case.input(&data).bytes(), Outcome::NonLinear);
                }
            }
            relay.assert_relays(&case, &data(3000));
        }
        relay.change_next_hop(&case, |next_hop| next_hop.mtu = MTU);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn behind_a_frame_in_several_pieces_nothing_is_cut_off_or_added() {
    let mut relay = Relay::new();
    for case in Case::all() {
        relay.change_next_hop(&case, |next_hop| {
            next_hop.mtu = 9000;
            next_hop.scatter_gather = true;
        });
        let padded = Frame { ethernet_padding: vec![0xee; 6000], ..case.input(b"data") };
        relay.assert_outcome(case.ingress(), &padded.bytes(), Outcome::NonLinear);
        let padded = Frame { ethernet_padding: vec![0xee; 1], ..case.input(&data(6000)) };
        relay.assert_outcome(case.ingress(), &padded.bytes(), Outcome::NonLinear);
        let surplus = Frame { surplus: vec![0xee; 3], ..case.input(&data(6000)) };
        relay.assert_outcome(case.ingress(), &surplus.bytes(), Outcome::NonLinear);
        if matches!(case.from, End::Client(_, Form::ChannelData)) {
            let mut frame = case.input(&data(6001));
            frame.payload.extend([0xee; 3]);
            relay.assert_outcome(case.ingress(), &frame.bytes(), Outcome::NonLinear);
        }
        let indication =
            [case.from, case.to].iter().any(|end| matches!(end, End::Client(_, Form::Indication)));
        if indication {
            relay.assert_outcome(case.ingress(), &case.input(&data(6001)).bytes(), Outcome::NonLinear);
        } else {
            relay.assert_relays(&case, &data(6001));
        }
        relay.change_next_hop(&case, |next_hop| next_hop.mtu = MTU);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_002_headers_that_are_not_in_the_first_piece_are_never_read_from_it() {
    let mut relay = Relay::new();
    for case in Case::all() {
        relay.change_next_hop(&case, |next_hop| next_hop.scatter_gather = true);
        let data = data(40);
        let frame = case.input(&data);
        let bytes = frame.bytes();
        let before_data = bytes.len() - data.len();
        for first_piece in crate::frame::ETHERNET_LEN..bytes.len() {
            let memory = Memory { first_piece: Some(first_piece), ..Memory::default() };
            let run = relay.run_from(memory, case.ingress(), &bytes);
            if run.verdict == XDP_PASS {
                assert_eq!(
                    hex(&run.frame),
                    hex(&bytes),
                    "{case:?}: untouched, {first_piece} bytes in the first piece"
                );
                assert!(
                    first_piece < before_data,
                    "{case:?}: {first_piece} bytes in the first piece hold all headers"
                );
            } else {
                assert_run(&run, &frame, case.verdict(), &case.output(&data));
                assert!(first_piece >= frame.payload_at(), "{case:?}: forwarded by {first_piece} bytes");
            }
        }
        relay.change_next_hop(&case, |next_hop| next_hop.scatter_gather = false);
    }
}

//! VLAN tags, in and out (DP-010).

use relay_common::{
    interface::{Interface, VlanKey},
    outcome::Outcome,
};
use relay_user::net::next_hop::Tag;

use crate::{
    case::Case,
    frame::{Frame, wire_tag},
    relay::*,
};

/// The tags of a frame, the outer first.
type Tags = [Option<Tag>; 2];

const NONE: Tags = [None; 2];
const ONE: Tags = [Some(Tag { id: 0x0123, service: false }), None];
const SERVICE: Tags = [Some(Tag { id: 0x0fee, service: true }), None];
const TWO: Tags = [Some(Tag { id: 0x0124, service: false }), Some(Tag { id: 0x0201, service: false })];
const SERVICE_TWO: Tags = [Some(Tag { id: 0x0124, service: true }), Some(Tag { id: 0x0202, service: false })];
const ALL: [Tags; 5] = [NONE, ONE, SERVICE, TWO, SERVICE_TWO];

/// A VLAN device has a MAC address of its own.
const VLAN_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_010_every_tagging_comes_in_and_leaves_every_way() {
    let mut relay = Relay::new();
    for side in [Side::Client, Side::Peer] {
        for tags in ALL.into_iter().filter(|&tags| tags != NONE) {
            relay.add_vlan(side, tags, VLAN_MAC);
        }
    }
    for case in Case::all() {
        for out in ALL {
            relay.change_next_hop(&case, |next_hop| next_hop.tags = out);
            for tags in ALL {
                for len in [0, 5, 700] {
                    let data = data(len);
                    let expected = Frame { tags: wire(out), ..case.output(&data) };
                    relay.assert_forwards(&case, &tagged(&case, tags, &data), &expected);
                }
            }
        }
        relay.change_next_hop(&case, |next_hop| next_hop.tags = NONE);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_010_a_vlan_that_the_host_has_no_device_for_is_left_alone() {
    let mut relay = Relay::new();
    relay.add_vlan(Side::Client, ONE, VLAN_MAC);
    relay.add_vlan(Side::Client, SERVICE_TWO, VLAN_MAC);
    for case in Case::all() {
        let strangers = [
            SERVICE,
            TWO,
            [Some(Tag { id: 0x0122, service: false }), None],
            // The numbers of one that is there, with the other EtherType, or with a tag more or less.
            [Some(Tag { id: 0x0123, service: true }), None],
            [Some(Tag { id: 0x0124, service: true }), None],
            [Some(Tag { id: 0x0124, service: false }), Some(Tag { id: 0x0202, service: false })],
            [Some(Tag { id: 0x0202, service: true }), Some(Tag { id: 0x0124, service: false })],
            [Some(Tag { id: 0x0123, service: false }), Some(Tag { id: 0x0123, service: false })],
        ];
        for tags in strangers {
            relay.assert_not_ours(case.ingress(), &tagged(&case, tags, b"data").bytes());
        }
        if case.ingress() == Side::Peer {
            // On the other interface they are not known.
            relay.assert_not_ours(Side::Peer, &tagged(&case, ONE, b"data").bytes());
        } else {
            relay.assert_forwards(&case, &tagged(&case, ONE, b"data"), &case.output(b"data"));
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_010_three_tags_or_an_unknown_tag_are_left_alone() {
    let mut relay = Relay::new();
    for case in Case::all() {
        for tags in [ONE, TWO, SERVICE_TWO] {
            relay.add_vlan(case.ingress(), tags, VLAN_MAC);
        }
        let [one, two] = [wire(ONE), wire(TWO)];
        for tags in [
            [&two[..], &one].concat(),
            [&two[..], &two].concat(),
            vec![[0x9100, 0x0123]],
            vec![[0x8100, 0x0124], [0x88a8, 0x0201]],
            // Priority tags are of no VLAN.
            vec![[0x8100, 0x0000]],
            vec![[0x8100, 0x6000]],
            vec![[0x8100, 0x0123], [0x8100, 0x0000]],
        ] {
            let frame = Frame { tags, ..tagged(&case, ONE, b"data") };
            relay.assert_not_ours(case.ingress(), &frame.bytes());
            let frame = Frame { destination_mac: case.ingress().mac(), ..frame };
            relay.assert_not_ours(case.ingress(), &frame.bytes());
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn a_tags_priority_is_of_no_matter_and_not_passed_on() {
    let mut relay = Relay::new();
    for side in [Side::Client, Side::Peer] {
        relay.add_vlan(side, ONE, VLAN_MAC);
        relay.add_vlan(side, TWO, VLAN_MAC);
    }
    for case in Case::all() {
        relay.change_next_hop(&case, |next_hop| next_hop.tags = TWO);
        for priority in [0x1000, 0x2000, 0xe000, 0xf000] {
            for tags in [ONE, TWO] {
                let mut frame = tagged(&case, tags, b"data");
                for [_, control] in &mut frame.tags {
                    *control |= priority;
                }
                relay.assert_forwards(&case, &frame, &Frame { tags: wire(TWO), ..case.output(b"data") });
            }
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_053_a_tagged_frame_must_be_for_the_vlans_own_mac_address() {
    let mut relay = Relay::new();
    for case in Case::all() {
        for tags in [ONE, SERVICE_TWO] {
            relay.add_vlan(case.ingress(), tags, VLAN_MAC);
            // The interface below it has another.
            for destination_mac in [case.ingress().mac(), [0; 6], [0xff; 6]] {
                let frame = Frame { destination_mac, ..tagged(&case, tags, b"data") };
                relay.assert_outcome(case.ingress(), &frame.bytes(), Outcome::ForeignMac);
            }
            // An untagged one for the VLAN's is not for the interface.
            let frame = Frame { tags: Vec::new(), ..tagged(&case, tags, b"data") };
            relay.assert_outcome(case.ingress(), &frame.bytes(), Outcome::ForeignMac);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_053_a_vlan_entry_of_zeroes_is_no_vlan_with_a_mac_address_of_zeroes() {
    let mut relay = Relay::new();
    for case in Case::all() {
        let key = VlanKey { ifindex: relay.ifindex(case.ingress()), outer: 0x0123, inner: 0 };
        relay.set_vlan(key, Interface::default());
        for destination_mac in [[0; 6], VLAN_MAC, case.ingress().mac()] {
            let frame = Frame { destination_mac, ..tagged(&case, ONE, b"data") };
            relay.assert_outcome(case.ingress(), &frame.bytes(), Outcome::ForeignMac);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_002_a_tagged_frame_cut_anywhere_is_never_forwarded() {
    let mut relay = Relay::new();
    for case in Case::all() {
        for tags in [ONE, SERVICE_TWO] {
            relay.add_vlan(case.ingress(), tags, VLAN_MAC);
            let frame = tagged(&case, tags, b"hello");
            let whole = frame.bytes();
            for len in crate::frame::ETHERNET_LEN..whole.len() {
                let cut = &whole[..len];
                if len < frame.payload_at() {
                    relay.assert_not_ours(case.ingress(), cut);
                } else {
                    relay.assert_outcome(case.ingress(), cut, Outcome::UdpLength);
                }
            }
        }
    }
}

/// What comes in by this VLAN.
fn tagged(case: &Case, tags: Tags, data: &[u8]) -> Frame {
    let destination_mac = if tags == NONE { case.ingress().mac() } else { VLAN_MAC };
    Frame { tags: wire(tags), destination_mac, ..case.input(data) }
}

fn wire(tags: Tags) -> Vec<[u16; 2]> {
    tags.into_iter().flatten().map(wire_tag).collect()
}

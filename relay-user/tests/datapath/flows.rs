//! Flows in the kernel, with packets of a client and a peer through them.

use std::time::Duration;

use relay_user::{
    datapath::{DatapathMode, InstallError, Traffic},
    turn::{AllocationId, Direction, Flow, Hairpin, RelayedAddr},
};

use crate::{
    network::{Host, Network, eventually},
    session::{
        ALLOCATION, Addresses, CHANNEL, IPV4, IPV4_TO_IPV6, IPV6, IPV6_TO_IPV4, Session, address, bind,
        boot_now, bytes, channel_data, count, receive,
    },
};

fn counts_are_exact(mode: DatapathMode, addresses: Addresses) {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut session = Session::open(&network, addresses, mode, 16).await;
        let before = session.establish().await;
        let first = session.traffic();
        assert_eq!((before.forwarded.to_peer, before.forwarded.to_client), first);

        let sizes: Vec<Vec<u8>> = (0..100).map(|size| vec![size as u8; size * 12]).collect();
        let sizes: Vec<&[u8]> = sizes.iter().map(Vec::as_slice).collect();
        for (index, data) in sizes.iter().enumerate() {
            session.to_peer(data);
            session.to_client(data);
            if index % 10 == 0 {
                // A refresh.
                session.datapath.install_flow(&addresses.channel(Direction::ToPeer, CHANNEL)).unwrap();
                session.datapath.tick(boot_now());
            }
        }
        let expected = |before: Traffic| {
            let mut traffic = bytes(&sizes);
            traffic += before;
            traffic
        };
        assert_eq!(session.traffic(), (expected(first.0), expected(first.1)));

        let after = session.datapath.counts();
        for flow in addresses.channels() {
            session.datapath.remove_flow(&flow.id);
        }
        session.client.send_to(&channel_data(b"late"), address(addresses.server)).unwrap();
        assert_eq!(receive(&session.listener), (channel_data(b"late"), address(addresses.client)));
        session.peer.send_to(b"late", address(addresses.relayed)).unwrap();
        assert_eq!(receive(&session.relayed), (b"late".to_vec(), address(addresses.peer)));

        let last = session.datapath.counts();
        assert_eq!(last.forwarded, after.forwarded);
        assert_eq!(count(&last.punts, "no_flow"), count(&after.punts, "no_flow") + 2);
        session.datapath.forget_allocation(ALLOCATION);
        assert_eq!(session.datapath.counts().forwarded, after.forwarded, "totals remain");
        session.datapath.close();
        assert_eq!(session.datapath.counts().forwarded, after.forwarded, "also after the end");
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn native_counts_are_exact_while_flows_come_change_and_go() {
    counts_are_exact(DatapathMode::XdpNative, IPV4);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn dp_074_counts_are_exact_with_ipv6_and_between_the_families() {
    for addresses in [IPV6, IPV4_TO_IPV6, IPV6_TO_IPV4] {
        counts_are_exact(DatapathMode::XdpNative, addresses);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn generic_counts_are_exact_while_flows_come_change_and_go() {
    counts_are_exact(DatapathMode::XdpGeneric, IPV4);
    counts_are_exact(DatapathMode::XdpGeneric, IPV6);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_hairpin_packet_is_counted_once_and_for_both_allocations() {
    // A second allocation of the same client, each the other's peer.
    const B: Addresses = Addresses { client: "198.18.1.2:40001", relayed: "198.18.2.1:49153", ..IPV4 };
    const ALLOCATION_B: AllocationId = AllocationId(2);
    let hairpin = |mine: Addresses, theirs: Addresses, allocation| {
        let advertised = address(mine.relayed).ip();
        let hairpin = Some(Hairpin { advertised, alias: None });
        let channels = Addresses { peer: theirs.relayed, ..mine }.channels();
        channels.map(|flow| Flow { allocation, hairpin, ..flow })
    };

    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut session = Session::open(&network, IPV4, DatapathMode::XdpNative, 16).await;
        session.datapath.add_relayed(RelayedAddr(address(B.relayed))).unwrap();
        for flow in hairpin(IPV4, B, ALLOCATION).iter().chain(&hairpin(B, IPV4, ALLOCATION_B)) {
            session.datapath.install_flow(flow).unwrap();
        }
        let receiver = bind(&network, Host::Client, B.client);
        let server = address(IPV4.server);
        eventually("hairpins are forwarded", || {
            session.client.send_to(&channel_data(b"?"), server).unwrap();
            session.datapath.counts().forwarded.hairpin.packets > 0
        });

        session.client.send_to(&channel_data(b"end"), server).unwrap();
        while receive(&receiver) != (channel_data(b"end"), server) {}
        let forwarded = session.datapath.counts().forwarded;
        assert_eq!((forwarded.to_peer, forwarded.to_client), Default::default());
        let none = Traffic::default();
        assert_eq!(session.datapath.allocation_traffic(ALLOCATION), (forwarded.hairpin, none));
        assert_eq!(session.datapath.allocation_traffic(ALLOCATION_B), (none, forwarded.hairpin));
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_is_past_its_expiry_is_dropped_and_counted() {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut session = Session::open(&network, IPV4, DatapathMode::XdpNative, 16).await;
        let before = session.establish().await;
        let expired = Flow { expires: boot_now(), ..IPV4.channel(Direction::ToPeer, CHANNEL) };
        session.datapath.install_flow(&expired).unwrap();
        // The program's clock is coarse: it may lag by a tick of the kernel's timer.
        eventually("dropped as expired", || {
            session.client.send_to(&channel_data(b"late"), address(IPV4.server)).unwrap();
            count(&session.datapath.counts().drops, "expired") > count(&before.drops, "expired")
        });
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn dp_068_a_full_table_refuses_new_flows_and_evicts_none() {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut session = Session::open(&network, IPV4, DatapathMode::XdpNative, 2).await;
        session.establish().await;
        for _ in 0..2 {
            let error = session.datapath.install_flow(&IPV4.channel(Direction::ToPeer, 0x4001)).unwrap_err();
            assert!(matches!(error, InstallError::Full { capacity: 2 }), "{error}");
        }
        session.to_peer(b"still there");
        session.to_client(b"still there");
        session.datapath.remove_flow(&IPV4.channel(Direction::ToClient, CHANNEL).id);
        session.datapath.install_flow(&IPV4.channel(Direction::ToPeer, 0x4001)).expect("there is room again");
        session.to_peer(b"still there");
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_table_is_filled_emptied_and_filled_again_in_one_burst() {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let channels = 0x4000..=0x4fff;
        let mut session = Session::open(&network, IPV4, DatapathMode::XdpNative, 4096).await;
        for _ in 0..2 {
            for channel in channels.clone() {
                session.datapath.install_flow(&IPV4.channel(Direction::ToPeer, channel)).unwrap();
            }
            for channel in channels.clone().skip(1) {
                session.datapath.remove_flow(&IPV4.channel(Direction::ToPeer, channel).id);
            }
            // Room for as many at once is there only when the counters of the removed have been settled.
            let later = boot_now() + Duration::from_secs(3600).as_nanos() as u64;
            session.datapath.tick(later);
        }
        assert_eq!(session.datapath.counts().forwarded, Default::default());
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn datagrams_to_a_relayed_address_that_is_gone_are_no_longer_ours() {
    for addresses in [IPV4, IPV6] {
        no_longer_ours(addresses);
    }
}

fn no_longer_ours(addresses: Addresses) {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut session = Session::open(&network, addresses, DatapathMode::XdpNative, 16).await;
        session.peer.send_to(b"ours", address(addresses.relayed)).unwrap();
        assert_eq!(receive(&session.relayed).0, b"ours");
        let ours = count(&session.datapath.counts().punts, "no_flow");
        assert_eq!(ours, 1);
        session.datapath.remove_relayed(RelayedAddr(address(addresses.relayed)));
        session.peer.send_to(b"foreign", address(addresses.relayed)).unwrap();
        assert_eq!(receive(&session.relayed).0, b"foreign", "whoever has the port now gets it");
        assert_eq!(count(&session.datapath.counts().punts, "no_flow"), ours);
    });
}

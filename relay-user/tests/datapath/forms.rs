//! Send and Data indications, and limits, through flows in the kernel.
//!
//! All data is a multiple of four bytes long. Behind a frame a veth has room to the next multiple of 64 bytes and, now and
//! then, none for the padding of a Data indication, which is then the daemon's to send.

use std::{net::UdpSocket, sync::atomic::Ordering};

use relay_common::meter::Rate;
use relay_user::{
    datapath::DatapathMode,
    turn::{AllocationId, Flow, Hairpin, RelayedAddr},
};

use crate::{
    network::{Host, Network, eventually},
    session::{
        Addresses, IPV4, IPV4_TO_IPV6, IPV6, IPV6_TO_IPV4, Session, address, bind, bytes, channel_data,
        count, data_indication, receive, send_indication,
    },
};

/// Has both ways of a permission forwarded, and forgets what that took.
fn establish_permission(session: &mut Session) {
    let Addresses { server, relayed, peer, .. } = session.addresses;
    for flow in session.addresses.permission() {
        session.datapath.install_flow(&flow).unwrap();
    }
    eventually("both directions are forwarded", || {
        session.client.send_to(&send_indication(address(peer), b"test"), address(server)).unwrap();
        session.peer.send_to(b"test", address(relayed)).unwrap();
        let forwarded = session.datapath.counts().forwarded;
        forwarded.to_peer.packets > 0 && forwarded.to_client.packets > 0
    });
    session.client.send_to(&send_indication(address(peer), b"last"), address(server)).unwrap();
    session.peer.send_to(b"last", address(relayed)).unwrap();
    while receive(&session.peer).0 != b"last" {}
    while data_indication(&receive(&session.client).0).1 != b"last" {}
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn dp_074_indications_go_both_ways_and_are_counted_in_all_pairs_of_families() {
    for addresses in [IPV4, IPV6, IPV4_TO_IPV6, IPV6_TO_IPV4] {
        let network = Network::new();
        network.block_on(Host::Relay, async || {
            let mut session = Session::open(&network, addresses, DatapathMode::XdpNative, 16).await;
            establish_permission(&mut session);
            let before = session.traffic();
            let [server, relayed, peer] = [addresses.server, addresses.relayed, addresses.peer].map(address);

            let sizes: Vec<Vec<u8>> = (0..50).map(|size| vec![size as u8; size * 20]).collect();
            for data in &sizes {
                session.client.send_to(&send_indication(peer, data), server).unwrap();
                assert_eq!(receive(&session.peer), (data.clone(), relayed));
                session.peer.send_to(data, relayed).unwrap();
                let (datagram, from) = receive(&session.client);
                assert_eq!((data_indication(&datagram), from), ((peer, data.clone()), server));
            }
            let mut after = before;
            let sizes: Vec<&[u8]> = sizes.iter().map(Vec::as_slice).collect();
            after.0 += bytes(&sizes);
            after.1 += bytes(&sizes);
            assert_eq!(session.traffic(), after, "{addresses:?}");
        });
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn dp_030_a_permission_is_for_all_ports_and_ends_for_all() {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut session = Session::open(&network, IPV6, DatapathMode::XdpNative, 16).await;
        establish_permission(&mut session);
        let (server, relayed) = (address(IPV6.server), address(IPV6.relayed));
        let other = bind(&network, Host::Peer, "[fd00:2::2]:9999");
        let other_address = other.local_addr().unwrap();

        session.client.send_to(&send_indication(other_address, b"to there"), server).unwrap();
        assert_eq!(receive(&other), (b"to there".to_vec(), relayed));
        other.send_to(b"back", relayed).unwrap();
        assert_eq!(data_indication(&receive(&session.client).0), (other_address, b"back".to_vec()));

        let [allocation, to_peer, to_client] = IPV6.permission();
        session.datapath.remove_flow(&to_peer.id);
        session.datapath.remove_flow(&to_client.id);
        let no_flow = count(&session.datapath.counts().punts, "no_flow");
        let late = send_indication(other_address, b"late");
        session.client.send_to(&late, server).unwrap();
        assert!(arrives(&session.listener, &late));
        other.send_to(b"late", relayed).unwrap();
        assert!(arrives(&session.relayed, b"late"));
        session.datapath.remove_flow(&allocation.id);
        session.client.send_to(&late, server).unwrap();
        assert!(arrives(&session.listener, &late));
        assert_eq!(count(&session.datapath.counts().punts, "no_flow"), no_flow + 3);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_peer_is_heard_by_its_channel_while_it_has_one() {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut session = Session::open(&network, IPV4, DatapathMode::XdpNative, 16).await;
        establish_permission(&mut session);
        let peer = address(IPV4.peer);
        let [_, to_client] = IPV4.channels();
        session.datapath.install_flow(&to_client).unwrap();
        session.to_client(b"by the channel");
        session.datapath.remove_flow(&to_client.id);
        session.peer.send_to(b"by a permission!", address(IPV4.relayed)).unwrap();
        let (datagram, _) = receive(&session.client);
        assert_eq!(data_indication(&datagram), (peer, b"by a permission!".to_vec()));
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn another_allocation_is_reached_by_its_external_address_and_appears_under_one() {
    const A: Addresses = IPV4;
    const B: Addresses = Addresses { client: "198.18.1.2:40001", relayed: "198.18.2.1:49153", ..IPV4 };
    const EXTERNAL: &str = "203.0.113.9";
    let permission = |mine: Addresses, theirs: Addresses, allocation| {
        let external = EXTERNAL.parse().unwrap();
        let hairpin = Some(Hairpin { advertised: external, alias: Some(external) });
        let flows = Addresses { peer: theirs.relayed, ..mine }.permission();
        let hairpin_of = |flow: &Flow| hairpin.filter(|_| flow.id != flows[0].id);
        flows.map(|flow| Flow { allocation: AllocationId(allocation), hairpin: hairpin_of(&flow), ..flow })
    };

    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut session = Session::open(&network, A, DatapathMode::XdpNative, 16).await;
        session.datapath.add_relayed(RelayedAddr(address(B.relayed))).unwrap();
        let flows = [permission(A, B, 1), permission(B, A, 2)].concat();
        for flow in &flows {
            session.datapath.install_flow(flow).unwrap();
        }
        let receiver = bind(&network, Host::Client, B.client);
        let server = address(A.server);
        let port = |text: &str| address(text).port();
        let [external_a, external_b] = [A, B].map(|of| address(&format!("{EXTERNAL}:{}", port(of.relayed))));
        let hairpins = |session: &mut Session| session.datapath.counts().forwarded.hairpin.packets;
        eventually("hairpins are forwarded", || {
            session.client.send_to(&send_indication(external_b, b"test"), server).unwrap();
            hairpins(&mut session) > 0
        });
        for named in [external_b, address(B.relayed)] {
            let data = format!("{named:>24}");
            session.client.send_to(&send_indication(named, data.as_bytes()), server).unwrap();
            let expected = (external_a, data.into_bytes());
            while data_indication(&receive(&receiver).0) != expected {}
        }

        let before = hairpins(&mut session);
        for flow in &flows[1..3] {
            session.datapath.remove_flow(&flow.id);
        }
        for named in [external_b, address(B.relayed)] {
            let late = send_indication(named, b"late");
            session.client.send_to(&late, server).unwrap();
            assert!(arrives(&session.listener, &late), "{named}");
        }
        assert_eq!(hairpins(&mut session), before);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn core_and_program_meter_by_the_same_words() {
    const METER: u32 = 5;
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut session = Session::open(&network, IPV4, DatapathMode::XdpNative, 16).await;
        let meters = session.datapath.meters().expect("the program meters");
        let words = (*meters).as_ref();
        assert!(words.len() > 16, "each allocation has a flow at least");
        // A burst that no test uses up.
        session.datapath.set_rate(Rate::new(1_000_000, 1 << 40));
        let before = session.establish().await;
        for flow in IPV4.channels() {
            session.datapath.install_flow(&Flow { meter: Some(METER), ..flow }).unwrap();
        }
        let metered = &words[METER as usize];
        assert_eq!(metered.load(Ordering::Relaxed), 0);
        session.to_peer(b"counted");
        let first = metered.load(Ordering::Relaxed);
        session.to_client(b"likewise");
        assert!(first > 0 && metered.load(Ordering::Relaxed) > first);
        assert!(words.iter().filter(|word| word.load(Ordering::Relaxed) != 0).count() == 1);

        // The core has let through all there is for a long time.
        metered.store(u64::MAX >> 1, Ordering::Relaxed);
        session.client.send_to(&channel_data(b"too much"), address(IPV4.server)).unwrap();
        eventually("dropped as beyond the rate", || {
            count(&session.datapath.counts().drops, "bandwidth") > count(&before.drops, "bandwidth")
        });
        metered.store(0, Ordering::Relaxed);
        session.to_peer(b"again");
    });
}

/// Waits for a datagram that the program punted, past others.
fn arrives(socket: &UdpSocket, datagram: &[u8]) -> bool {
    while receive(socket).0 != datagram {}
    true
}

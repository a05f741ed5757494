//! An allocation with a relayed transport address of each family, for clients on both: each relays to peers of its
//! family, and one can be deleted without the other.

use std::net::{SocketAddr, UdpSocket};

use xtask::lab::Family::{V4, V6};
use xtask::turn_client::{Received, Refused, TurnClient};

use crate::scene::{Datapath, PATIENCE, Scene, on_each_datapath};

on_each_datapath!(turn_056_094_096_dual_allocation);

fn turn_056_094_096_dual_allocation(datapath: Datapath) {
    let scene = Scene::start("dual", datapath);
    for family in [V4, V6] {
        let mut client = scene.client(family.client(0));
        let mut relayed = client.allocate_both().expect("Allocate succeeds");
        relayed.sort_by_key(SocketAddr::is_ipv6);
        assert_eq!(
            relayed.iter().map(SocketAddr::ip).collect::<Vec<_>>(),
            [V4, V6].map(|of| of.relay_address())
        );
        let peers = [V4, V6].map(|of| scene.peer(of.peer(0)));
        for (number, (_, address)) in (0x4000..).zip(&peers) {
            client.channel_bind(number, *address).expect("ChannelBind succeeds");
        }
        for number in [0, 1] {
            echo(&mut client, number, relayed[usize::from(number)], &peers[usize::from(number)].0);
        }
        assert_eq!(scene.relay.status().expect("the relay answers").allocations, 1);

        client.refresh_family(V6, 0).expect("the IPv6 address can be deleted");
        echo(&mut client, 0, relayed[0], &peers[0].0);
        let again = client.refresh_family(V6, 600).expect_err("it is gone");
        assert_eq!(again.downcast_ref::<Refused>().map(|refused| refused.code), Some(443), "{again:#}");
        client.refresh(0).expect("the rest can be deleted");
        assert_eq!(scene.relay.status().expect("the relay answers").allocations, 0);
    }
}

/// Data goes to the peer and back over a channel.
fn echo(client: &mut TurnClient, number: u16, relayed: SocketAddr, peer: &UdpSocket) {
    let number = 0x4000 + number;
    client.send_channel_data(number, b"there").expect("the client can send");
    let mut buffer = [0; 100];
    let (length, from) = peer.recv_from(&mut buffer).expect("the peer gets the client's data");
    assert_eq!((&buffer[..length], from), (&b"there"[..], relayed));
    peer.send_to(b"and back", relayed).expect("the peer can send");
    let received = client.receive(PATIENCE).expect("the client can receive");
    assert_eq!(received, Some(Received::Channel { number, data: b"and back".to_vec() }));
}

//! A client with an allocation, and two peers of it: one over a channel, one by indications.

use std::net::{SocketAddr, UdpSocket};

use xtask::lab::Family::{self, V4, V6};
use xtask::turn_client::{Received, TurnClient};

use crate::scene::{PATIENCE, Scene};

pub(crate) const CHANNEL: u16 = 0x4000;

/// The client's family and that of its relayed transport address, and so of its peers.
pub(crate) const PAIRS: [(Family, Family); 4] = [(V4, V4), (V4, V6), (V6, V4), (V6, V6)];

/// How data goes between a client and the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// As ChannelData.
    Channel,
    /// As Send and Data indications.
    Indication,
}

impl Form {
    pub(crate) const ALL: [Self; 2] = [Self::Channel, Self::Indication];

    /// Sends data to an established peer.
    pub(crate) fn send(self, client: &mut TurnClient, peer: SocketAddr, data: &[u8]) {
        match self {
            Self::Channel => client.send_channel_data(CHANNEL, data),
            Self::Indication => client.send_indication(peer, data),
        }
        .expect("the client can send");
    }

    /// Makes an address a peer that data goes to and comes from in this form.
    pub(crate) fn establish(self, client: &mut TurnClient, peer: SocketAddr) {
        match self {
            Self::Channel => client.channel_bind(CHANNEL, peer),
            Self::Indication => client.create_permission(peer),
        }
        .expect("the relay lets this peer in");
    }

    /// What the client then receives.
    pub(crate) fn received(self, peer: SocketAddr, data: &[u8]) -> Received {
        let data = data.to_vec();
        match self {
            Self::Channel => Received::Channel { number: CHANNEL, data },
            Self::Indication => Received::Indication { peer, data },
        }
    }
}

/// The client and its peers.
pub(crate) struct Session {
    pub(crate) client: TurnClient,
    pub(crate) relayed: SocketAddr,
    /// One for each form.
    pub(crate) peers: [(UdpSocket, SocketAddr); 2],
}

impl Session {
    pub(crate) fn open(scene: &Scene, (of_client, of_peer): (Family, Family)) -> Self {
        let mut client = scene.client(of_client.client(0));
        let (relayed, _) = client.allocate_family(of_peer).expect("Allocate succeeds");
        let peers = Form::ALL.map(|form| {
            let peer = scene.peer(of_peer.peer(0));
            form.establish(&mut client, peer.1);
            peer
        });
        Self { client, relayed, peers }
    }

    /// The peer that this form is for, and its address.
    pub(crate) fn peer(&self, form: Form) -> (&UdpSocket, SocketAddr) {
        let (socket, address) = &self.peers[form as usize];
        (socket, *address)
    }

    /// The client's address, and that of the listener.
    pub(crate) fn five_tuple(&self) -> (SocketAddr, SocketAddr) {
        let client = self.client.socket().local_addr().expect("it is bound");
        (client, Family::of(client.ip()).listener())
    }

    pub(crate) fn send_to_peer(&mut self, form: Form, data: &[u8]) {
        let (_, address) = self.peer(form);
        form.send(&mut self.client, address, data);
    }

    /// Panics unless the peer gets this, from the relayed address.
    pub(crate) fn assert_at_peer(&self, form: Form, data: &[u8]) {
        let mut buffer = vec![0; 65536];
        let (length, from) =
            self.peer(form).0.recv_from(&mut buffer).expect("the peer gets the client's data");
        assert_eq!(from, self.relayed, "{form:?}");
        assert!(&buffer[..length] == data, "{form:?}: {length} bytes, {} were sent", data.len());
    }

    pub(crate) fn send_to_client(&self, form: Form, data: &[u8]) {
        self.peer(form).0.send_to(data, self.relayed).expect("the peer can send");
    }

    /// Panics unless the client gets this, as from the peer.
    pub(crate) fn assert_at_client(&mut self, form: Form, data: &[u8]) {
        let received = self.client.receive(PATIENCE).expect("the client can receive");
        let expected = form.received(self.peer(form).1, data);
        assert!(received == Some(expected), "{form:?}: not the peer's {} bytes", data.len());
    }

    /// Data to the peer, and back.
    pub(crate) fn exchange(&mut self, form: Form, data: &[u8]) {
        self.send_to_peer(form, data);
        self.assert_at_peer(form, data);
        self.send_to_client(form, data);
        self.assert_at_client(form, data);
    }
}

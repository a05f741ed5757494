//! The other implementation, and what a driver does for it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use relay_user::turn::{ClientAddr, Family, FiveTuple, ServerAddr, Transport};
use turn_server_proto::{
    api::{Transmit, TurnServerApi, TurnServerPollRet},
    server::TurnServer,
    types::{AddressFamily, Instant, TransportType},
};

use crate::{
    Out, Server,
    ours::to_client,
    pair::{LISTENER, PASSWORD, REALM, USER},
};

pub struct Theirs {
    server: TurnServer,
    relayed: BTreeMap<(FiveTuple, Family), SocketAddr>,
    next_port: u16,
}

impl Theirs {
    pub fn new() -> Self {
        let mut server = TurnServer::new(TransportType::Udp, LISTENER.parse().unwrap(), REALM.to_owned());
        server.add_user(USER.to_owned(), PASSWORD.to_owned());
        Self { server, relayed: BTreeMap::new(), next_port: 50_000 }
    }

    /// Opens what is asked for, closes what is over, and fetches what there is to send.
    fn drive(&mut self, now: Instant) -> Vec<Out> {
        loop {
            match self.server.poll(now) {
                TurnServerPollRet::AllocateSocket {
                    transport,
                    listen_addr,
                    client_addr,
                    allocation_transport,
                    family,
                } => {
                    self.next_port += 1;
                    let ip: IpAddr = match family {
                        AddressFamily::IPV4 => [192, 0, 2, 1].into(),
                        _ => [0x2a0a, 1, 0, 0, 0, 0, 0, 1].into(),
                    };
                    let relayed = SocketAddr::new(ip, self.next_port);
                    self.relayed.insert((five_tuple(listen_addr, client_addr), Family::of(ip)), relayed);
                    self.server.allocated_socket(
                        transport,
                        listen_addr,
                        client_addr,
                        allocation_transport,
                        family,
                        Ok(relayed),
                        now,
                    );
                }
                TurnServerPollRet::SocketClose { listen_addr, .. } => {
                    self.relayed.retain(|_, relayed| *relayed != listen_addr);
                }
                TurnServerPollRet::WaitUntil(_) => break,
                other => panic!("only UDP is relayed: {other:?}"),
            }
        }
        let mut outs = Vec::new();
        while let Some(transmit) = self.server.poll_transmit(now) {
            outs.push(out(&transmit));
        }
        outs
    }

    fn receive(&mut self, now: u64, from: SocketAddr, to: SocketAddr, data: &[u8]) -> Vec<Out> {
        let now = instant(now);
        let transmit = Transmit::new(data.to_vec(), TransportType::Udp, from, to);
        let at_once = self.server.recv(transmit, now).map(|transmit| out(&transmit.build()));
        at_once.into_iter().chain(self.drive(now)).collect()
    }
}

impl Server for Theirs {
    fn client_sends(&mut self, now: u64, from: FiveTuple, datagram: &[u8]) -> Vec<Out> {
        self.receive(now, from.client.0, from.server.0, datagram)
    }

    fn peer_sends(&mut self, now: u64, to: FiveTuple, peer: SocketAddr, data: &[u8]) -> Vec<Out> {
        let Some(&relayed) = self.relayed.get(&(to, Family::of(peer.ip()))) else { return vec![] };
        self.receive(now, peer, relayed, data)
    }

    fn time(&mut self, now: u64) {
        self.drive(instant(now));
    }
}

fn instant(now: u64) -> Instant {
    Instant::from_nanos(now as i64)
}

fn out(transmit: &Transmit<Vec<u8>>) -> Out {
    if transmit.from == LISTENER.parse().unwrap() {
        to_client(five_tuple(transmit.from, transmit.to), &transmit.data)
    } else {
        Out::ToPeer { peer: transmit.to, data: transmit.data.clone() }
    }
}

fn five_tuple(server: SocketAddr, client: SocketAddr) -> FiveTuple {
    FiveTuple { client: ClientAddr(client), server: ServerAddr(server), transport: Transport::Udp }
}

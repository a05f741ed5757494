//! The server under test.

use std::net::SocketAddr;

use relay_user::turn::{Family, FiveTuple, Output};

use crate::{
    Out, Server,
    pair::{Happened, Pair},
    wire::{self, Message},
};

pub struct Ours(Pair);

impl Ours {
    /// Strict, for the other is.
    pub fn new() -> Self {
        Self(Pair::with(|config| {
            config.strict_permissions = true;
            config.relay_addresses.push("2a0a:1::1".parse().unwrap());
            config.limits.unauthenticated_per_second = 0;
        }))
    }
}

impl Ours {
    pub fn has_allocation(&self, client: FiveTuple) -> bool {
        self.0.server.sessions().any(|session| session.five_tuple == client)
    }
}

impl Server for Ours {
    fn client_sends(&mut self, now: u64, from: FiveTuple, datagram: &[u8]) -> Vec<Out> {
        self.0.now = now;
        self.0.clients[0].five_tuple = from;
        outs(&self.0.deliver(0, datagram))
    }

    fn peer_sends(&mut self, now: u64, to: FiveTuple, peer: SocketAddr, data: &[u8]) -> Vec<Out> {
        self.0.now = now;
        let session = self.0.server.sessions().find(|session| session.five_tuple == to);
        let mut relayed = session.into_iter().flat_map(|session| session.relayed);
        let same_family = relayed.find(|relayed| relayed.address.family() == Family::of(peer.ip()));
        let Some(relayed) = same_family else { return vec![] };
        outs(&self.0.peer_sends(relayed.address.0, &peer.to_string(), data))
    }

    fn time(&mut self, now: u64) {
        self.0.now = now;
        self.0.server.handle_timeout(now);
        self.0.drain();
    }
}

fn outs(happened: &Happened) -> Vec<Out> {
    let out = |output: &Output| match output {
        Output::ToClient { five_tuple, datagram, .. } => Some(to_client(*five_tuple, datagram)),
        Output::ToPeer { peer, data, .. } => Some(Out::ToPeer { peer: peer.0, data: data.clone() }),
        _ => None,
    };
    happened.outputs.iter().filter_map(out).collect()
}

/// What a datagram to a client is, whoever sent it.
pub fn to_client(to: FiveTuple, datagram: &[u8]) -> Out {
    if datagram[0] & 0xc0 == 0x40 {
        // Padding is allowed (RFC 8656 section 12.5), and says nothing.
        let end = 4 + usize::from(u16::from_be_bytes([datagram[2], datagram[3]]));
        return Out::ChannelData { to, datagram: datagram[..end].to_vec() };
    }
    let message = Message::parse(datagram);
    if message.class == wire::INDICATION {
        let data = message.attribute(0x0013).expect("a Data indication has data").to_vec();
        Out::Indication { to, peer: message.address(0x0012), data }
    } else {
        Out::Response(message)
    }
}

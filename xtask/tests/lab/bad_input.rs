//! Truncated, oversized, random and mutated datagrams, from clients and peers, to listener and relayed address:
//! the daemon goes on serving, stays small, and never answers a stranger with more than it may.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use xtask::lab::Family::{self, V4, V6};
use xtask::turn_client::message::{Class, MessageBuilder, Method, TransactionId, attribute};

use crate::scene::{Datapath, Scene, USER, bind, on_each_datapath};
use crate::session::{Form, PAIRS, Session};

/// Rounds of one datagram from each source.
const ROUNDS: u32 = 4000;
/// So many rounds are answered before the next ones are sent, lest the socket buffers hide them from the daemon.
const BATCH: u32 = 32;
/// What the daemon may grow by, for whatever it keeps of its own accord.
const MAX_GROWTH: u64 = 32 << 20;

on_each_datapath!(garbage);

fn garbage(datapath: Datapath) {
    let mut scene = Scene::start("bad-input", datapath);
    let mut random = Random(0x7012_9E5D_31C4_AB6F);
    let mut sessions = PAIRS.map(|families| Session::open(&scene, families));
    let strangers = [V4, V6].map(|family| scene.peer(family.peer(1)).0);
    let mut newcomers = [V4, V6].map(|family| Newcomer::new(&scene, family));
    let resident_before = scene.relay.resident_bytes().expect("the daemon runs");

    for round in 0..ROUNDS {
        let session = &mut sessions[round as usize % PAIRS.len()];
        let newcomer = &mut newcomers[round as usize % 2];
        let stranger = &strangers[usize::from(session.relayed.is_ipv6())];
        newcomer.send(&random.datagram());
        // Those of an allocation's own 5-tuple may get through to its peer.
        send(session.client.socket(), &random.datagram(), None);
        for form in Form::ALL {
            send(session.peer(form).0, &random.datagram(), Some(session.relayed));
        }
        send(stranger, &random.datagram(), Some(session.relayed));
        send(stranger, &random.datagram(), Some(Family::of(session.relayed.ip()).listener()));
        if round % BATCH == 0 {
            for session in &mut sessions {
                // Whatever came before has been dealt with when this is answered.
                session.client.binding().expect("the daemon answers a Binding request");
                while session.client.receive(Duration::from_millis(1)).expect("a socket").is_some() {}
            }
            newcomers.iter_mut().for_each(Newcomer::check_answers);
        }
    }
    for session in &mut sessions {
        session.client.binding().expect("the daemon answers a Binding request");
    }
    newcomers.iter_mut().for_each(Newcomer::check_answers);

    assert!(newcomers.iter().all(|newcomer| newcomer.answers > 0), "requests in order were among them");
    assert!(scene.relay.is_running(), "{}", scene.relay.log_tail());
    let status = scene.relay.status().expect("the relay answers");
    assert_eq!((status.allocations, status.channels), (4, 4), "{status:?}");
    let grown = scene.relay.resident_bytes().expect("the daemon runs").saturating_sub(resident_before);
    assert!(grown <= MAX_GROWTH, "the daemon has grown by {grown} bytes");
    scene.assert_serves();
}

/// A client without credentials, which minds the size of what it gets.
struct Newcomer {
    socket: UdpSocket,
    server: SocketAddr,
    requests: HashMap<TransactionId, usize>,
    answers: usize,
}

impl Newcomer {
    fn new(scene: &Scene, family: Family) -> Self {
        let socket = bind(scene.lab.client(), (family.client(1), 0));
        socket.set_nonblocking(true).expect("a socket");
        Self { socket, server: family.listener(), requests: HashMap::new(), answers: 0 }
    }

    fn send(&mut self, datagram: &[u8]) {
        if let Some(transaction) = transaction(datagram) {
            self.requests.insert(transaction, datagram.len());
        }
        send(&self.socket, datagram, Some(self.server));
    }

    /// Every answer belongs to a request and is at most as long as RFC and design allow.
    fn check_answers(&mut self) {
        let mut buffer = vec![0; 65536];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let answer = &buffer[..length];
            let request = transaction(answer).and_then(|transaction| self.requests.get(&transaction));
            let request = *request.unwrap_or_else(|| panic!("an answer to nothing: {answer:02x?}"));
            assert!(length <= 160.max(3 * request), "{length} bytes in answer to {request}: {answer:02x?}");
            self.answers += 1;
        }
    }
}

fn transaction(datagram: &[u8]) -> Option<TransactionId> {
    datagram.get(8..20)?.try_into().ok()
}

/// Sends a datagram; what the kernel itself refuses to send is none of the relay's business.
fn send(socket: &UdpSocket, datagram: &[u8], to: Option<SocketAddr>) {
    let _ = match to {
        Some(address) => socket.send_to(datagram, address),
        None => socket.send(datagram),
    };
}

/// xorshift64*: the same datagrams in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| (self.next() >> 56) as u8).collect()
    }

    fn datagram(&mut self) -> Vec<u8> {
        if self.below(8) == 0 {
            let length = self.below(1500);
            return self.bytes(length);
        }
        let mut datagram = self.sound_datagram();
        for _ in 0..self.below(4) {
            self.mutate(&mut datagram);
        }
        datagram
    }

    /// Something that a client or an ICE agent could send.
    fn sound_datagram(&mut self) -> Vec<u8> {
        let family = [V4, V6][self.below(2)];
        let peer = SocketAddr::new(family.peer(self.below(2)), self.next() as u16);
        let length = self.below(1200);
        let data = self.bytes(length);
        if self.below(6) == 0 {
            let header = [0x40, self.below(2) as u8, (length >> 8) as u8, length as u8];
            return [&header[..], &data].concat();
        }
        let transaction = self.bytes(12).try_into().expect("12 bytes");
        let request = |method| MessageBuilder::new(Class::Request, method, transaction);
        let message = match self.below(7) {
            0 => request(Method::Binding),
            1 => request(Method::Allocate).attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]),
            2 => request(Method::Refresh).attribute(attribute::LIFETIME, &[0; 4]),
            3 => request(Method::CreatePermission).xor_address(attribute::XOR_PEER_ADDRESS, peer),
            4 => request(Method::ChannelBind)
                .attribute(attribute::CHANNEL_NUMBER, &[0x40, 1, 0, 0])
                .xor_address(attribute::XOR_PEER_ADDRESS, peer),
            5 => MessageBuilder::new(Class::Indication, Method::Send, transaction)
                .xor_address(attribute::XOR_PEER_ADDRESS, peer)
                .attribute(attribute::DATA, &data),
            _ => {
                // A type that requires comprehension, or does not.
                let kind = self.next() as u16;
                let length = self.below(64);
                request(Method::Allocate).attribute(kind, &data[..length.min(data.len())])
            }
        };
        if self.below(2) == 0 {
            return message.build();
        }
        let key = self.bytes(16);
        let nonce_length = self.below(64);
        message
            .attribute(attribute::USERNAME, USER.as_bytes())
            .attribute(attribute::REALM, b"lab.turnpike.test")
            .attribute(attribute::NONCE, &self.bytes(nonce_length))
            .integrity(&key)
            .build()
    }

    fn mutate(&mut self, datagram: &mut Vec<u8>) {
        match self.below(5) {
            0 => datagram.truncate(self.below(datagram.len() + 1)),
            1 => {
                let more = self.below(400);
                datagram.extend(self.bytes(more));
            }
            // Up to the greatest that UDP carries: fragments.
            2 if self.below(16) == 0 => {
                let length = self.below(65508);
                datagram.resize(length, 0x5A);
            }
            3 if datagram.len() >= 4 => {
                let length = self.next() as u16;
                datagram[2..4].copy_from_slice(&length.to_be_bytes());
            }
            _ => {
                for _ in 0..=self.below(4) {
                    if !datagram.is_empty() {
                        let at = self.below(datagram.len());
                        datagram[at] ^= 1 << self.below(8);
                    }
                }
            }
        }
    }
}

//! The core with a hundred thousand allocations at once: what each takes, and that nothing of it is left when its
//! time is over.
#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod allocator;
#[expect(dead_code, reason = "shared with the protocol tests, which use all of it")]
#[path = "../protocol/pair.rs"]
mod pair;
#[expect(dead_code, reason = "shared with the protocol tests, which use all of it")]
#[path = "../protocol/wire.rs"]
mod wire;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use pair::{CHANNEL, LISTENER, PASSWORD, REALM, SECOND, USER};
use rand::{SeedableRng, rngs::StdRng};
use relay_user::turn::{
    ClientAddr, Credentials, FiveTuple, IpMeta, Output, Server, ServerAddr, Totals, Transport,
};
use wire::{Attribute, Builder, Message};

const ALLOCATIONS: u32 = 100_000;
/// Of 16,384 ports each.
const RELAY_ADDRESSES: u8 = 7;
/// With one permission and one channel, room to grow included. It takes some 2,550.
const MOST_BYTES: usize = 4096;

struct World {
    server: Server,
    now: u64,
    key: [u8; 16],
    five_tuple: FiveTuple,
    transactions: u64,
}

#[test]
fn a_hundred_thousand_allocations_at_once_take_little_and_leave_nothing() {
    let mut world = World::new();
    let empty = allocator::live_bytes();
    for n in 0..ALLOCATIONS {
        world.session(n);
    }
    let count = ALLOCATIONS as usize;
    let all = Totals { allocations: count, permissions: count, channels: count, reservations: 0 };
    assert_eq!(world.server.totals(), all);
    let of_each = (allocator::live_bytes() - empty) / count;
    println!("{count} allocations, each with a permission and a channel: {of_each} bytes of heap for each");
    assert!(of_each <= MOST_BYTES, "{of_each} bytes");

    world.now += 600 * SECOND;
    world.server.handle_timeout(world.now);
    world.drain();
    assert_eq!(world.server.totals(), Totals::default());
    assert_eq!(world.server.poll_timeout(), None, "no deadline is left");
    for n in 0..ALLOCATIONS {
        world.session(n);
    }
    assert_eq!(world.server.totals(), all, "every port can be had again");
    drop(world);
    assert!(allocator::live_bytes() <= empty, "the rest was room to grow");
}

impl World {
    fn new() -> Self {
        let mut config = pair::config();
        config.relay_addresses = (1..=RELAY_ADDRESSES).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        config.limits.unauthenticated_per_second = 0;
        let mut credentials = Credentials::default();
        credentials.insert(USER, REALM, PASSWORD).unwrap();
        let server = Server::new(config, credentials, [7; 32], StdRng::seed_from_u64(1)).unwrap();
        Self {
            server,
            now: 1_000 * SECOND,
            key: wire::long_term_key(USER, REALM, PASSWORD),
            five_tuple: five_tuple(0),
            transactions: 0,
        }
    }

    /// A client comes, allocates and binds a channel.
    fn session(&mut self, client: u32) {
        self.five_tuple = five_tuple(client);
        let challenge = self.ask(wire::ALLOCATE, None, &[]);
        let nonce = challenge.attribute(0x0015).unwrap();
        let response = self.ask(wire::ALLOCATE, Some(nonce), &[wire::requested_transport(17)]);
        assert!(response.is_success(), "{response:?}");
        let binding = [wire::channel_number(CHANNEL), wire::peer("8.8.8.8:5000")];
        assert!(self.ask(wire::CHANNEL_BIND, Some(nonce), &binding).is_success());
    }

    fn ask(&mut self, method: u16, nonce: Option<&[u8]>, attributes: &[Attribute]) -> Message {
        self.transactions += 1;
        let mut transaction = [0; 12];
        transaction[4..].copy_from_slice(&self.transactions.to_be_bytes());
        let request = Builder::new(wire::REQUEST, method, transaction).attributes(attributes);
        let request = match nonce {
            Some(nonce) => request.credentials(USER, REALM, nonce).integrity(&self.key),
            None => request,
        };
        self.server.handle_client(self.now, self.five_tuple, IpMeta::default(), &request.build());
        self.drain().expect("a request is answered")
    }

    /// Drains the outputs as a driver does, and returns the last response among them.
    fn drain(&mut self) -> Option<Message> {
        let mut response = None;
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::OpenRelayed { relayed, .. } => {
                    self.server.relayed_address_opened(self.now, relayed, Ok(()));
                }
                Output::ToClient { datagram, .. } => response = Some(Message::parse(&datagram)),
                _ => {}
            }
        }
        response
    }
}

fn five_tuple(client: u32) -> FiveTuple {
    let [_, high, low, last] = (client / 50_000).to_be_bytes();
    let port = 1024 + (client % 50_000) as u16;
    FiveTuple {
        client: ClientAddr(SocketAddr::new(Ipv4Addr::new(77, high, low, last).into(), port)),
        server: ServerAddr(LISTENER.parse().unwrap()),
        transport: Transport::Udp,
    }
}

//! The core without sockets: what a datagram of the slow path costs, and what a session's requests cost.
//!
//! `cargo bench -p relay-bench --bench turn`

use std::{collections::HashMap, hint::black_box, net::SocketAddr};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::{SeedableRng, rngs::StdRng};
use relay_user::turn::{
    ChannelNumber, ClientAddr, Config, Credentials, FiveTuple, IpMeta, Lifetimes, Limits, LongTermKey,
    Output, PeerAddr, PeerPolicy, RelayedAddr, Server, ServerAddr, Transport,
    channel_data::ChannelData,
    stun::{AttributeType, Class, Header, Message, MessageWriter, Method, PasswordAlgorithm, TransactionId},
};

const USER: &str = "alice";
const PASSWORD: &str = "wonderland";
const REALM: &str = "example.org";
const NOW: u64 = 1_000_000_000_000;
/// Bytes of a video packet.
const PAYLOAD: &[u8] = &[7; 1100];
const CHANNEL: u16 = 0x4000;

fn peer() -> SocketAddr {
    SocketAddr::from(([8, 8, 8, 8], 5000))
}

fn server() -> Server {
    let config = Config {
        realm: REALM.to_owned(),
        software: Some("Turnpike".to_owned()),
        relay_addresses: vec![[192, 0, 2, 1].into()],
        relay_ports: 49_152..=65_535,
        external_addresses: HashMap::new(),
        listeners: vec![listener()],
        host_addresses: Vec::new(),
        lifetimes: Lifetimes::default(),
        // Simulated time stands still.
        limits: Limits { unauthenticated_per_second: 0, ..Limits::default() },
        alternate_servers: Vec::new(),
        min_ipv6_mtu: 1280,
        strict_expiry: false,
        strict_permissions: false,
        hairpin: true,
        rfc5766_channels: false,
        policy: PeerPolicy::default(),
    };
    let mut credentials = Credentials::default();
    credentials.insert(USER, REALM, PASSWORD).expect("a good user");
    Server::new(config, credentials, [7; 32], StdRng::seed_from_u64(1)).expect("a good configuration")
}

fn listener() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], 3478))
}

fn five_tuple(port: u16) -> FiveTuple {
    FiveTuple {
        client: ClientAddr(SocketAddr::from(([203, 0, 113, 1], port))),
        server: ServerAddr(listener()),
        transport: Transport::Udp,
    }
}

/// A client that talks to the server directly.
struct Client {
    five_tuple: FiveTuple,
    key: LongTermKey,
    nonce: Vec<u8>,
    transactions: u64,
}

impl Client {
    /// A client with a nonce.
    fn new(server: &mut Server, port: u16) -> Self {
        let key = LongTermKey::new(PasswordAlgorithm::Md5, USER, REALM, PASSWORD);
        let mut client = Self { five_tuple: five_tuple(port), key, nonce: Vec::new(), transactions: 0 };
        let request = client.header(Class::Request, Method::ALLOCATE);
        let challenge = client.exchange(server, &MessageWriter::new(request).finish());
        client.nonce = parse(&challenge).attribute(AttributeType::NONCE).expect("a challenge").to_vec();
        client
    }

    fn header(&mut self, class: Class, method: Method) -> Header {
        self.transactions += 1;
        let mut transaction_id = [0; 12];
        transaction_id[..8].copy_from_slice(&self.transactions.to_be_bytes());
        Header { class, method, transaction_id: TransactionId(transaction_id) }
    }

    fn request(&mut self, method: Method, attributes: impl FnOnce(&mut MessageWriter)) -> Vec<u8> {
        let mut request = MessageWriter::new(self.header(Class::Request, method));
        attributes(&mut request);
        request
            .attribute(AttributeType::USERNAME, USER.as_bytes())
            .attribute(AttributeType::REALM, REALM.as_bytes())
            .attribute(AttributeType::NONCE, &self.nonce)
            .integrity(self.key.as_bytes())
            .fingerprint();
        request.finish()
    }

    /// Gives the server a datagram and returns the answer.
    fn exchange(&self, server: &mut Server, datagram: &[u8]) -> Vec<u8> {
        server.handle_client(NOW, self.five_tuple, IpMeta::default(), datagram);
        drain(server).expect("an answer")
    }

    fn allocate(&mut self, server: &mut Server) -> RelayedAddr {
        let request = self.request(Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        });
        let response = self.exchange(server, &request);
        let relayed = parse(&response).xor_address(AttributeType::XOR_RELAYED_ADDRESS);
        RelayedAddr(relayed.expect("well-formed").expect("a success"))
    }

    fn bind(&mut self, server: &mut Server, peer: SocketAddr) {
        let request = self.request(Method::CHANNEL_BIND, |request| {
            request.number(AttributeType::CHANNEL_NUMBER, u32::from(CHANNEL) << 16);
            request.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        });
        let response = self.exchange(server, &request);
        assert_eq!(parse(&response).header().class, Class::Success);
    }

    fn send_indication(&mut self) -> Vec<u8> {
        let mut message = MessageWriter::new(self.header(Class::Indication, Method::SEND));
        message.xor_address(AttributeType::XOR_PEER_ADDRESS, peer()).attribute(AttributeType::DATA, PAYLOAD);
        message.finish()
    }
}

/// Does what a driver does; returns the last datagram for a client.
fn drain(server: &mut Server) -> Option<Vec<u8>> {
    let mut last = None;
    while let Some(output) = server.poll_output() {
        match output {
            Output::OpenRelayed { relayed, .. } => server.relayed_address_opened(NOW, relayed, Ok(())),
            Output::ToClient { datagram, .. } => last = Some(datagram),
            other => {
                black_box(other);
            }
        }
    }
    last
}

fn parse(datagram: &[u8]) -> Message<'_> {
    let (header, bytes) = Header::parse(datagram).expect("a STUN message");
    Message::parse(header, bytes).expect("a well-formed message")
}

fn codec(c: &mut Criterion) {
    let mut server = server();
    let mut client = Client::new(&mut server, 4000);
    let request = client.request(Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    });
    let indication = client.send_indication();
    let key = LongTermKey::new(PasswordAlgorithm::Md5, USER, REALM, PASSWORD);

    let mut group = c.benchmark_group("codec");
    group.bench_function("decode_allocate", |b| b.iter(|| black_box(parse(black_box(&request)))));
    group.bench_function("verify_allocate", |b| {
        let message = parse(&request);
        b.iter(|| message.verify(black_box(key.as_bytes())));
    });
    group.bench_function("decode_send_indication", |b| {
        b.iter(|| {
            let message = parse(black_box(&indication));
            black_box((
                message.xor_address(AttributeType::XOR_PEER_ADDRESS),
                message.attribute(AttributeType::DATA),
            ))
        });
    });
    group.finish();
}

fn relay(c: &mut Criterion) {
    let mut server = server();
    let mut client = Client::new(&mut server, 4000);
    let relayed = client.allocate(&mut server);
    client.bind(&mut server, peer());
    let mut other = Client::new(&mut server, 4001);
    let other_relayed = other.allocate(&mut server);
    other.bind(&mut server, other_relayed.0);

    let number = ChannelNumber::new(CHANNEL).expect("a channel number");
    let channel_data = ChannelData { number, data: PAYLOAD }.to_datagram();
    let indication = client.send_indication();

    let mut group = c.benchmark_group("relay");
    group.throughput(Throughput::Elements(1));
    group.bench_function("channel_data_to_peer", |b| {
        b.iter(|| {
            server.handle_client(NOW, client.five_tuple, IpMeta::default(), black_box(&channel_data));
            drain(&mut server)
        });
    });
    group.bench_function("send_indication_to_peer", |b| {
        b.iter(|| {
            server.handle_client(NOW, client.five_tuple, IpMeta::default(), black_box(&indication));
            drain(&mut server)
        });
    });
    group.bench_function("peer_to_channel_data", |b| {
        b.iter(|| {
            server.handle_peer(NOW, relayed, PeerAddr(peer()), IpMeta::default(), black_box(PAYLOAD));
            drain(&mut server)
        });
    });
    group.bench_function("peer_to_data_indication", |b| {
        let unbound = PeerAddr(SocketAddr::new(peer().ip(), 5001));
        b.iter(|| {
            server.handle_peer(NOW, relayed, unbound, IpMeta::default(), black_box(PAYLOAD));
            drain(&mut server)
        });
    });
    group.bench_function("hairpin", |b| {
        b.iter(|| {
            server.handle_client(NOW, other.five_tuple, IpMeta::default(), black_box(&channel_data));
            drain(&mut server)
        });
    });
    group.finish();
}

/// Challenge, Allocate, ChannelBind and a deleting Refresh, among a thousand other allocations.
fn session(c: &mut Criterion) {
    let mut server = server();
    for port in 1000..2000 {
        Client::new(&mut server, port).allocate(&mut server);
    }
    c.bench_function("session", |b| {
        b.iter(|| {
            let mut client = Client::new(&mut server, 4000);
            client.allocate(&mut server);
            client.bind(&mut server, peer());
            let delete = client.request(Method::REFRESH, |request| {
                request.number(AttributeType::LIFETIME, 0);
            });
            client.exchange(&mut server, &delete)
        });
    });
}

criterion_group!(benches, codec, relay, session);
criterion_main!(benches);

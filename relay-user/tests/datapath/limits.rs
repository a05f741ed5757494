//! The whole relay on its XDP datapath: a limit holds for what the kernel and the daemon carry together.

use std::{collections::HashMap, net::UdpSocket, sync::mpsc, thread, time::Instant};

use rand::{SeedableRng as _, rngs::StdRng};
use relay_user::{
    control::{admin::Query, status::Status},
    datapath::{DatapathMode, open},
    net::{Driver, DriverOptions, Endpoint},
    turn::{Config, Credentials, Lifetimes, Limits, PeerPolicy, Server},
};
use tokio::{
    sync::{mpsc::UnboundedSender, oneshot},
    task::LocalSet,
};

use crate::{
    network::{Host, Network, eventually},
    session::{CHANNEL, IPV4, address, bind, receive},
    wire::{self, Attribute, Builder, Message},
};

const REALM: &str = "example.org";
const USER: &str = "alice";
const PASSWORD: &str = "wonderland";
/// The least that may come at once: one largest datagram.
const BURST: u64 = 65_535;
const SIZE: usize = 1000;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn dp_073_bytes_per_second_hold_for_kernel_and_daemon_together() {
    let network = Network::new();
    let (queries, ask) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| network.block_on(Host::Relay, async || serve(&network, queries).await));
        // Dropped at the end of the test, whether it failed or not; then the relay stops.
        let ask: UnboundedSender<Query> = ask.recv().expect("the relay starts");
        let start = Instant::now();
        let client = bind(&network, Host::Client, IPV4.client);
        let (peer, server) = (address(IPV4.peer), address(IPV4.server));
        let _sink = bind(&network, Host::Peer, IPV4.peer);
        request_channel(&client);
        let by_channel = |data| client.send_to(&wire::channel_data(CHANNEL, data), server).unwrap();
        // The kernel leaves Send indications with anything uncommon to the daemon.
        let indication = Builder::new(wire::INDICATION, wire::SEND, [9; 12]).attributes(&[
            wire::peer_address(peer),
            wire::dont_fragment(),
            wire::data(&[0; SIZE]),
        ]);
        let by_indication = |indication: &[u8]| client.send_to(indication, server).unwrap();
        let indication = indication.build();

        eventually("the channel is forwarded in the kernel", || {
            by_channel(b"");
            status(&ask).fast_path.to_peer.packets > 0
        });
        let before = status(&ask);
        let count = |status: &Status| {
            let packets = status.fast_path.to_peer.packets + status.slow_path.to_peer.packets;
            packets + status.drops.get("bandwidth").unwrap_or(&0)
        };
        let rounds = 60;
        for round in 1..=rounds {
            by_channel(&[0; SIZE]);
            by_indication(&indication);
            eventually("both are counted", || count(&status(&ask)) >= count(&before) + 2 * round);
        }
        let after = status(&ask);
        let [fast, slow] = [after.fast_path.to_peer.bytes, after.slow_path.to_peer.bytes];
        assert!(fast.min(slow) > BURST / 4, "{fast} in the kernel, {slow} by the daemon");
        let allowed = BURST + start.elapsed().as_secs() + 1;
        assert!(fast + slow <= allowed && fast + slow + SIZE as u64 > BURST, "{fast} + {slow}");
        assert_eq!(after.datapath.not_installed, 0);
    });
}

/// Serves until nobody can ask any more.
async fn serve(network: &Network, queries: mpsc::Sender<UnboundedSender<Query>>) {
    let opened = open(network.options(DatapathMode::XdpNative)).await.unwrap();
    let listener = address(IPV4.server);
    let config = Config {
        realm: REALM.to_owned(),
        software: None,
        relay_addresses: vec![address(IPV4.relayed).ip()],
        relay_ports: 50_000..=50_999,
        external_addresses: HashMap::new(),
        listeners: vec![listener],
        host_addresses: Vec::new(),
        lifetimes: Lifetimes::default(),
        limits: Limits { bytes_per_second: 1, burst: 1, ..Limits::default() },
        alternate_servers: Vec::new(),
        min_ipv6_mtu: 1280,
        strict_permissions: false,
        strict_expiry: false,
        hairpin: true,
        rfc5766_channels: false,
        policy: PeerPolicy::new(vec!["198.18.0.0/15".parse().unwrap()], Vec::new()),
    };
    let mut credentials = Credentials::default();
    credentials.insert(USER, REALM, PASSWORD).unwrap();
    let server = Server::new(config, credentials, [7; 32], StdRng::seed_from_u64(1)).unwrap();
    let options = DriverOptions {
        server,
        datapath_info: (&opened).into(),
        datapath: opened.datapath,
        listeners: vec![Endpoint::listener(listener).unwrap()],
        log_addresses: true,
    };
    LocalSet::new()
        .run_until(async {
            let driver = Driver::start(options).unwrap();
            let (asker, mut asked) = tokio::sync::mpsc::unbounded_channel();
            queries.send(asker).unwrap();
            while let Some(query) = asked.recv().await {
                driver.answer(query);
            }
            driver.shutdown();
        })
        .await;
}

fn status(ask: &UnboundedSender<Query>) -> Status {
    let (answer, answered) = oneshot::channel();
    ask.send(Query::Status(answer)).unwrap();
    answered.blocking_recv().unwrap()
}

/// Makes an allocation and binds [`CHANNEL`] to the peer.
fn request_channel(client: &UdpSocket) {
    let mut nonce = Vec::new();
    let mut request = |method: u16, attributes: &[Attribute]| {
        let mut builder = Builder::new(wire::REQUEST, method, [method as u8; 12]).attributes(attributes);
        if !nonce.is_empty() {
            let key = wire::long_term_key(USER, REALM, PASSWORD);
            builder = builder.credentials(USER, REALM, &nonce).integrity(&key);
        }
        client.send_to(&builder.build(), address(IPV4.server)).unwrap();
        let response = Message::parse(&receive(client).0);
        if let Some(given) = response.attribute(0x0015) {
            nonce = given.to_vec();
        }
        response
    };
    let allocate = [wire::requested_transport(17)];
    assert_eq!(request(wire::ALLOCATE, &allocate).error(), 401);
    assert!(request(wire::ALLOCATE, &allocate).is_success());
    let peer = wire::peer_address(address(IPV4.peer));
    assert!(request(wire::CHANNEL_BIND, &[wire::channel_number(CHANNEL), peer]).is_success());
}

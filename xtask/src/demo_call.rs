//! The demonstration call: a client that sends voice-like ChannelData through the relay to a peer that echoes
//! it, and keeps its allocation, permission and channel alive.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::lab::{CLIENTS, LISTENER, Lab, PEERS};
use crate::turn_client::{Received, TurnClient};

/// Bytes of each packet, and the time between packets: a voice call's.
const PACKET_LEN: usize = 160;
const INTERVAL: Duration = Duration::from_millis(20);
const CHANNEL: u16 = 0x4000;
/// Well within the lifetimes of permissions (300 s) and channels (600 s).
const REFRESH_INTERVAL: Duration = Duration::from_secs(120);
/// How long a thread goes without looking whether the call has ended.
const PATIENCE: Duration = Duration::from_millis(200);

/// A call in progress; it ends when dropped.
#[derive(Debug)]
pub struct DemoCall {
    shared: Arc<Shared>,
    caller: Option<JoinHandle<anyhow::Result<()>>>,
    echo: Option<JoinHandle<()>>,
}

/// What the call's threads count.
#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    sent: AtomicU64,
    echoed: AtomicU64,
    round_trip_ns: AtomicU64,
}

/// How the call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Packets sent by the client.
    pub sent: u64,
    /// Packets that came back.
    pub echoed: u64,
    /// Of the last packet that came back.
    pub round_trip: Duration,
}

impl DemoCall {
    /// Starts a call between the lab's client and peer.
    pub fn start(lab: &Lab, user: &str, password: &str) -> anyhow::Result<Self> {
        let bind = |address| UdpSocket::bind(SocketAddr::from((address, 0)));
        let echo_socket = lab.peer().run(|| bind(PEERS[0])).context("could not bind the peer")?;
        let client_socket = lab.client().run(|| bind(CLIENTS[0])).context("could not bind the client")?;
        let peer = echo_socket.local_addr()?;

        let shared = Arc::new(Shared::default());
        let echo = std::thread::spawn({
            let shared = shared.clone();
            move || echo(&echo_socket, &shared)
        });
        let mut client = TurnClient::new(client_socket, (LISTENER, 3478).into(), user, password)?;
        let (_, lifetime) = client.allocate(None)?;
        client.channel_bind(CHANNEL, peer)?;
        let caller = std::thread::spawn({
            let shared = shared.clone();
            move || call(&mut client, peer, lifetime, &shared)
        });
        Ok(Self { shared, caller: Some(caller), echo: Some(echo) })
    }

    /// How it goes. Fails if the call broke off.
    pub fn progress(&mut self) -> anyhow::Result<Progress> {
        if self.caller.as_ref().is_some_and(JoinHandle::is_finished) {
            self.end()?;
            bail!("the demonstration call ended early");
        }
        Ok(Progress {
            sent: self.shared.sent.load(Ordering::Relaxed),
            echoed: self.shared.echoed.load(Ordering::Relaxed),
            round_trip: Duration::from_nanos(self.shared.round_trip_ns.load(Ordering::Relaxed)),
        })
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(echo) = self.echo.take() {
            echo.join().expect("the echo thread does not panic");
        }
        match self.caller.take() {
            Some(caller) => caller.join().expect("the caller's thread does not panic"),
            None => Ok(()),
        }
    }
}

impl Drop for DemoCall {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("the demonstration call ended with an error: {error:#}");
        }
    }
}

fn call(client: &mut TurnClient, peer: SocketAddr, lifetime: u32, shared: &Shared) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut next_refresh = started + REFRESH_INTERVAL;
    let mut next_packet = started;
    while !shared.ended.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= next_refresh {
            client.refresh(lifetime)?;
            client.channel_bind(CHANNEL, peer)?;
            next_refresh = now + REFRESH_INTERVAL;
        }
        if now >= next_packet {
            let mut packet = [0; PACKET_LEN];
            packet[..8].copy_from_slice(&nanoseconds_since(started).to_be_bytes());
            client.send_channel_data(CHANNEL, &packet).context("could not send to the relay")?;
            shared.sent.fetch_add(1, Ordering::Relaxed);
            next_packet = (next_packet + INTERVAL).max(now);
        }
        let pause = next_packet.saturating_duration_since(Instant::now());
        if let Some(Received::Channel { data, .. }) = client.receive(pause)?
            && let Some(sent_at) = data.first_chunk::<8>()
        {
            let round_trip = nanoseconds_since(started).saturating_sub(u64::from_be_bytes(*sent_at));
            shared.round_trip_ns.store(round_trip, Ordering::Relaxed);
            shared.echoed.fetch_add(1, Ordering::Relaxed);
        }
    }
    client.refresh(0).map(drop).context("could not delete the allocation")
}

fn echo(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = [0; 2048];
    socket.set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
    while !shared.ended.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            // A packet that cannot be sent back shows as one that was not echoed.
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
}

fn nanoseconds_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).expect("no call lasts 500 years")
}

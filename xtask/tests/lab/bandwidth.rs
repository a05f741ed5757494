//! The limit of an allocation's bytes per second, under several times as much: it holds for both directions and both paths
//! together, on two CPUs at once.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;
use xtask::lab::Family::{V4, V6};
use xtask::lab::Traffic;
use xtask::wait;

use crate::scene::{Datapath, PATIENCE, Scene, on_each_datapath};
use crate::session::{CHANNEL, Form, Session};

/// Bytes a second.
const RATE: u64 = 200_000;
/// Bytes: so much that what the limit allows while a sender does not get to run is not lost.
const BURST: u64 = 400_000;
/// Bytes of each datagram.
const LENGTH: usize = 1000;
/// Each sender sends so many, then pauses: five times the rate.
const BATCH: u64 = 10;
const PAUSE: Duration = Duration::from_millis(10);
/// How long the rate is to be held after the burst, in seconds.
const SECONDS: u64 = 2;
/// What tells a daemon's datagram from the kernel's: more behind the ChannelData than padding, which goes to the daemon.
const TRAILER: [u8; 8] = [0; 8];

on_each_datapath!(bytes_per_second_hold);

/// DP-073, DP-074, DP-077
fn bytes_per_second_hold(datapath: Datapath) {
    let config = format!("[limits]\nbytes_per_second = {RATE}\nburst = {BURST}\n");
    let scene = Scene::with_config("bandwidth", datapath, &config);
    let mut sessions = [(V4, V6), (V6, V4)].map(|families| Session::open(&scene, families));
    for session in &mut sessions {
        scene.settle(|| session.exchange(Form::Channel, b"small"));
    }
    let before = scene.relay.status().expect("the relay answers");
    let mut calls = thread::scope(|scope| {
        let calls = sessions.each_ref().map(|session| scope.spawn(|| overload(session)));
        calls.map(|call| call.join().expect("the rate is held"))
    });
    let sent = calls.iter().map(|call| call.sent).sum::<u64>();
    let done = || {
        let after = scene.relay.status().expect("the relay answers");
        let carried = (after.fast_path - before.fast_path, after.slow_path - before.slow_path);
        let dropped = after.drops["bandwidth"] - before.drops["bandwidth"];
        let counted = carried.0.all() + carried.1.all();
        (counted.packets + dropped == sent).then_some((carried, counted))
    };
    let ((fast, slow), counted) =
        wait::until(PATIENCE, done).expect("what is not carried is dropped for the limit");
    let arrived = || {
        for (call, session) in calls.iter_mut().zip(&sessions) {
            call.arrivals.drain(session.client.socket());
            call.arrivals.drain(session.peer(Form::Channel).0);
        }
        let packets = calls.iter().map(|call| call.arrivals.packets).sum::<u64>();
        (counted == Traffic { packets, bytes: packets * LENGTH as u64 }).then_some(packets)
    };
    let arrived = wait::until(PATIENCE, arrived).expect("what was counted is what arrived");
    if datapath.is_xdp() {
        for part in [fast.to_peer, fast.to_client, slow.to_peer] {
            assert!(part.packets * 20 > arrived, "each path has its share: fast {fast:?}, slow {slow:?}");
        }
        assert_eq!(slow.to_client.packets, 0);
    }
}

/// Datagrams of one call, in both directions.
#[derive(Debug)]
struct Call {
    sent: u64,
    arrivals: Arrivals,
}

/// Offers several times the rate in both directions until it was held long enough.
fn overload(session: &Session) -> Call {
    let (peer, _) = session.peer(Form::Channel);
    let client = session.client.socket();
    let relayed = session.relayed;
    for socket in [client, peer] {
        socket.set_nonblocking(true).expect("a socket");
        setsockopt(socket, ReceiveTimestampns, &true).expect("the kernel stamps datagrams");
    }
    let (ended, sent_to_client) = (AtomicBool::new(false), AtomicU64::new(0));
    let deadline = Instant::now() + PATIENCE;
    let mut arrivals = Arrivals::default();
    let mut sent = 0;
    thread::scope(|scope| {
        let _end = EndOnDrop(&ended);
        scope.spawn(|| {
            let data = vec![0xA5; LENGTH];
            while !ended.load(Ordering::Relaxed) {
                for _ in 0..BATCH {
                    peer.send_to(&data, relayed).expect("the peer can send");
                }
                sent_to_client.fetch_add(BATCH, Ordering::Relaxed);
                thread::sleep(PAUSE);
            }
        });
        let plain = [&channel_header()[..], &[0x5A; LENGTH]].concat();
        let trailed = [&plain[..], &TRAILER].concat();
        loop {
            for datagram in [&plain, &trailed] {
                for _ in 0..BATCH {
                    client.send(datagram).expect("the client can send");
                }
                sent += BATCH;
                thread::sleep(PAUSE);
                let before = arrivals.packets;
                arrivals.drain(client);
                arrivals.drain(peer);
                // The allowance is used up where most of a batch did not come through.
                let is_spent = arrivals.packets - before < BATCH / 2;
                if is_spent && arrivals.bytes() > BURST + SECONDS * RATE {
                    return;
                }
            }
            assert!(Instant::now() < deadline, "nearly nothing comes through: {arrivals:?}");
        }
    });
    arrivals.assert_at_rate();
    Call { sent: sent + sent_to_client.into_inner(), arrivals }
}

/// The datagrams that came through.
#[derive(Clone, Copy, Debug, Default)]
struct Arrivals {
    packets: u64,
    /// When the first and the last came, by the kernel's clock.
    first: Option<TimeSpec>,
    last: Option<TimeSpec>,
}

impl Arrivals {
    fn bytes(&self) -> u64 {
        self.packets * LENGTH as u64
    }

    /// Receives what there is.
    fn drain(&mut self, socket: &UdpSocket) {
        let mut buffer = [0; 2 * LENGTH];
        let mut space = cmsg_space!(TimeSpec);
        loop {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let received = recvmsg::<SockaddrStorage>(
                socket.as_raw_fd(),
                &mut parts,
                Some(&mut space),
                MsgFlags::empty(),
            );
            let received = match received {
                Ok(received) => received,
                Err(Errno::EAGAIN) => return,
                Err(error) => panic!("the socket does not work: {error}"),
            };
            let stamp = received.cmsgs().expect("there is room for it").find_map(|message| match message {
                ControlMessageOwned::ScmTimestampns(stamp) => Some(stamp),
                _ => None,
            });
            let stamp = stamp.expect("the kernel stamps datagrams");
            self.packets += 1;
            self.first = Some(self.first.map_or(stamp, |first| first.min(stamp)));
            self.last = Some(self.last.map_or(stamp, |last| last.max(stamp)));
        }
    }

    /// Panics unless this is the burst, and the rate for as long as it took, within 5 in 100.
    fn assert_at_rate(&self) {
        let (Some(first), Some(last)) = (self.first, self.last) else { panic!("nothing came through") };
        let seconds = Duration::from(last - first).as_secs_f64();
        let after_burst = self.bytes() as f64 - BURST as f64;
        let rate = after_burst / seconds;
        println!("{} bytes in {seconds:.3} s: {rate:.0} bytes a second after the burst", self.bytes());
        assert!((rate / RATE as f64 - 1.0).abs() <= 0.05, "{rate:.0} bytes a second in {seconds} s");
    }
}

fn channel_header() -> [u8; 4] {
    let ([a, b], [c, d]) = (CHANNEL.to_be_bytes(), (LENGTH as u16).to_be_bytes());
    [a, b, c, d]
}

/// Ends the other sender also when an assertion fails: the scope waits for it.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

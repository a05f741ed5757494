//! The real daemon in userspace mode, as clients, peers and operators see it.

mod client;
mod daemon;
mod namespace;
mod records;

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::Command,
    thread,
};

use client::{ALLOCATE, BINDING, Client, udp_transport};
use daemon::{Daemon, loopback, udp_socket};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 1);

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => unreachable!("bound to IPv4"),
    }
}

#[test]
fn turn_002_a_client_is_told_its_address_challenged_and_given_an_allocation() {
    let address = loopback(1);
    let daemon = Daemon::start(address, &["--relay-ports", "50000-50009"]);
    let mut client = Client::new(address, daemon.listener);

    let binding = client.request(BINDING, &[], None);
    assert_eq!(binding.mapped_address(), Some(client.address()));

    let challenge = client.request(ALLOCATE, &[udp_transport()], None);
    assert_eq!(challenge.error(), Some(401));
    assert!(challenge.length <= 160, "{} bytes before authentication", challenge.length);
    client.learn(&challenge);
    let wrong = client.request(ALLOCATE, &[udp_transport()], Some("wrong"));
    assert_eq!(wrong.error(), Some(401));

    let relayed = client.allocate();
    assert_eq!(relayed.ip(), &address);
    assert!((50000..=50009).contains(&relayed.port()), "{relayed}");
    assert!(UdpSocket::bind(relayed).is_err(), "the relayed address is open");
}

#[test]
fn an_operator_sees_status_and_sessions_in_json_and_in_words() {
    let address = loopback(2);
    let daemon = Daemon::start(address, &[]);
    let mut client = Client::new(address, daemon.listener);
    let relayed = client.allocate();

    let status = daemon.json("status");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["pid"], daemon.pid());
    assert_eq!(status["datapath"]["mode"], "userspace");
    assert_eq!(status["datapath"]["interfaces"], json!([]));
    assert_eq!(status["datapath"]["reason"], Value::Null);
    assert_eq!(status["listeners"], json!([format!("udp://{}", daemon.listener)]));
    assert_eq!([&status["allocations"], &status["permissions"], &status["channels"]], [1, 0, 0]);
    for path in ["fast_path", "slow_path"] {
        for direction in ["to_peer", "to_client", "hairpin"] {
            assert_eq!(status[path][direction], json!({"packets": 0, "bytes": 0}), "{path} {direction}");
        }
    }
    assert!(status["punts"].is_object() && status["drops"].is_object());
    assert_eq!(status["reservations"], 0);
    assert_eq!(status["responses"], json!({"allocate": {"401": 1, "success": 1}}));

    let sessions = daemon.json("sessions");
    let [session] = sessions["sessions"].as_array().unwrap().as_slice() else { panic!("{sessions:#}") };
    assert_eq!(session["user"], "alice");
    assert_eq!(session["client"], client.address().to_string());
    assert_eq!(session["server"], daemon.listener.to_string());
    assert_eq!(session["transport"], "udp");
    assert_eq!(session["relayed"][0]["address"], relayed.to_string());
    assert_eq!(session["relayed"][0]["external"], Value::Null);
    let remaining = session["relayed"][0]["expires_in_seconds"].as_u64().unwrap();
    assert!((1..=600).contains(&remaining), "{remaining}");

    let text = daemon.command(&["status"]);
    assert!(text.contains("userspace") && text.contains("allocations  1"), "{text}");
    assert!(text.contains("allocate  401 Unauthenticated  1"), "{text}");
    let text = daemon.command(&["sessions"]);
    assert!(text.contains("alice") && text.contains(&relayed.to_string()), "{text}");

    assert!(daemon.http("/healthz").starts_with("HTTP/1.1 200 "));
    assert!(daemon.http("/api/v1/status").contains("\"allocations\":1"));
    assert!(daemon.http("/elsewhere").starts_with("HTTP/1.1 404 "));

    assert_eq!(client.refresh(0).error(), None);
    assert_eq!(daemon.json("status")["allocations"], 0);
    assert_eq!(daemon.json("sessions"), json!({"sessions": []}));
    assert!(UdpSocket::bind(relayed).is_ok(), "the relayed address is closed");
}

#[test]
fn a_graceful_stop_frees_every_port_and_removes_the_socket_file() {
    for (test, signal) in [(3, Signal::SIGTERM), (4, Signal::SIGINT), (11, Signal::SIGHUP)] {
        let address = loopback(test);
        let daemon = Daemon::start(address, &[]);
        let listener = daemon.listener;
        let relayed = Client::new(address, listener).allocate();

        let (status, directory, log) = daemon.stop(signal);
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("reason=\"shutdown\"") && log.contains("stopped"), "{log}");
        assert!(!log.contains("secret"), "{log}");
        assert!(!directory.path().join("admin.sock").exists());
        assert!(UdpSocket::bind(listener).is_ok() && UdpSocket::bind(relayed).is_ok());
    }
}

#[test]
fn a_second_daemon_is_refused_and_a_dead_one_replaced() {
    let address = loopback(5);
    let daemon = Daemon::start(address, &[]);
    let second = Command::new(env!("CARGO_BIN_EXE_turnpike"))
        .args([
            "run",
            "--datapath",
            "userspace",
            "--user",
            "a:b",
            "--listen",
            &format!("udp://{}:3478", loopback(6)),
        ])
        .arg("--admin-socket")
        .arg(daemon.admin_socket())
        .output()
        .unwrap();
    let text = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("already running (pid {})", daemon.pid())), "{text}");
    assert_eq!(daemon.json("status")["pid"], daemon.pid(), "the first one is unharmed");

    let (status, directory, _) = daemon.stop(Signal::SIGKILL);
    assert_eq!(status.signal(), Some(9));
    assert!(directory.path().join("admin.sock").exists(), "left by the crash");
    let daemon = Daemon::start_in(directory, address, &[]);
    assert_eq!(daemon.json("status")["allocations"], 0);
}

#[test]
fn turn_060_clients_cannot_take_the_descriptors_that_the_operator_needs() {
    let address = loopback(10);
    let mut daemon = Daemon::start(address, &[]);
    let limit = ["--nofile=80:80", "--pid", &daemon.pid().to_string()];
    assert!(Command::new("prlimit").args(limit).status().unwrap().success());
    let mut clients = Vec::new();
    let listener = daemon.listener;
    let allocate = || {
        let mut client = Client::new(address, listener);
        let challenge = client.request(ALLOCATE, &[udp_transport()], None);
        client.learn(&challenge);
        match client.request(ALLOCATE, &[udp_transport()], Some("secret")).error() {
            None => Ok(client),
            error => Err(error),
        }
    };
    let refused = loop {
        match allocate() {
            Ok(client) => clients.push(client),
            Err(error) => break error,
        }
        assert!(clients.len() < 80);
    };
    assert_eq!(refused, Some(508));
    daemon.wait_for_line("raise the limit of open files (LimitNOFILE)");
    assert_eq!(daemon.json("status")["allocations"], clients.len());

    assert_eq!(clients[0].refresh(0).error(), None);
    // The socket is closed a turn of the event loop after the answer.
    assert!((0..100).any(|_| allocate().is_ok()), "the descriptor of a deleted allocation comes free");
}

#[test]
fn a_log_on_a_full_disk_stops_nothing() {
    let address = loopback(9);
    let daemon = Daemon::start_without_log(address, &[]);
    let mut client = Client::new(address, daemon.listener);
    let challenge = client.request(ALLOCATE, &[udp_transport()], None);
    client.learn(&challenge);
    assert_eq!(client.request(ALLOCATE, &[udp_transport()], Some("wrong")).error(), Some(401), "logged");
    client.allocate();
    let (status, directory, _) = daemon.stop(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0));
    assert!(!directory.path().join("admin.sock").exists());
}

#[test]
fn a_lifetime_ends_by_itself_and_its_port_is_free_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("turnpike.toml");
    std::fs::write(&file, "[lifetimes]\ndefault = 1\nmax = 1\npermission = 1\nchannel = 1\n").unwrap();
    let address = loopback(7);
    let daemon = Daemon::start(address, &["-c", file.to_str().unwrap()]);
    let relayed = Client::new(address, daemon.listener).allocate();
    daemon.wait_for_status(|status| status["allocations"] == 0);
    assert!(UdpSocket::bind(relayed).is_ok());
}

#[test]
fn no_datagram_ends_the_daemon() {
    let address = loopback(8);
    let daemon = Daemon::start(address, &[]);
    let mut client = Client::new(address, daemon.listener);
    let relayed = client.allocate();

    // xorshift64: reproducible, and every length and first byte occurs.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let outsider = udp_socket(address);
    for round in 0..2000u64 {
        let length = if round % 50 == 0 { random() % 65507 } else { random() % 120 };
        let mut datagram = (0..length).map(|_| random() as u8).collect::<Vec<_>>();
        if round % 2 == 0 && length >= 20 {
            // Past the header checks: a STUN message of a true length.
            datagram[0] &= 1;
            datagram[2..4].copy_from_slice(&(length as u16 - 20).to_be_bytes());
            datagram[4..8].copy_from_slice(&0x2112_a442u32.to_be_bytes());
        }
        // A full queue on the way is fine.
        let _ = outsider.send_to(&datagram, daemon.listener);
        let _ = outsider.send_to(&datagram, relayed);
        let _ = client.socket.send_to(&datagram, daemon.listener);
    }
    assert_eq!(client.request(BINDING, &[], None).mapped_address(), Some(client.address()));
    let status = daemon.wait_for_status(|status| status["drops"]["not_turn"].as_u64() > Some(0));
    assert_eq!(status["allocations"], 1);
}

#[test]
fn turn_160_data_passes_both_ways_byte_for_byte_and_is_counted_exactly() {
    // TURN-130, TURN-161, TURN-162: empty data too, and as ChannelData where there is a channel.
    if !namespace::enter() {
        return;
    }
    let daemon = Daemon::start(SERVER, &["--allow-peer", "198.18.0.0/15"]);
    let mut client = Client::new(CLIENT, daemon.listener);
    let peer = udp_socket(PEER);
    let peer_address = v4(peer.local_addr().unwrap());
    let relayed = client.allocate();
    let mut buffer = vec![0; 1 << 16];
    let mut receive = || {
        let (length, from) = peer.recv_from(&mut buffer).unwrap();
        (buffer[..length].to_vec(), v4(from))
    };

    // The largest ChannelData that fits a datagram is the longest.
    assert_eq!(client.bind_channel(0x4000, peer_address).error(), None);
    let lengths = [0, 1, 2, 3, 4, 160, 1200, 1472, 1473, 9000, 65503];
    for length in lengths {
        let data = (0..length).map(|i| (i * 7 + length) as u8).collect::<Vec<_>>();
        client.send_channel(0x4000, &data);
        assert_eq!(receive(), (data.clone(), relayed), "{length} bytes to the peer");
        peer.send_to(&data, relayed).unwrap();
        assert_eq!(client.channel_data(), (0x4000, data), "{length} bytes to the client");
    }
    // Before there is a channel, indications.
    let other = udp_socket(PEER);
    let other_address = v4(other.local_addr().unwrap());
    client.send_indication(other_address, b"indicated");
    let (length, from) = other.recv_from(&mut [0; 100]).unwrap();
    assert_eq!((length, v4(from)), (9, relayed));
    other.send_to(b"answered!!", relayed).unwrap();
    assert_eq!(client.data_indication(), (other_address, b"answered!!".to_vec()));

    let (packets, bytes) = (lengths.len() as u64 + 1, lengths.iter().sum::<usize>() as u64);
    let status = daemon.json("status");
    assert_eq!([&status["allocations"], &status["permissions"], &status["channels"]], [1, 1, 1]);
    assert_eq!(status["slow_path"]["to_peer"], json!({"packets": packets, "bytes": bytes + 9}));
    assert_eq!(status["slow_path"]["to_client"], json!({"packets": packets, "bytes": bytes + 10}));
    let session = &daemon.json("sessions")["sessions"][0];
    assert_eq!(session["slow_path"]["to_peer"], json!({"packets": packets, "bytes": bytes + 9}));
    assert_eq!(session["channels"][0]["number"], "0x4000");
    assert_eq!(session["channels"][0]["peer"], peer_address.to_string());
    assert_eq!(session["permissions"][0]["peer"], PEER.to_string());
}

#[test]
fn turn_244_no_permission_no_data_and_other_networks_only_when_allowed() {
    if !namespace::enter() {
        return;
    }
    let daemon = Daemon::start(SERVER, &["--allow-peer", "198.18.0.0/16", "--deny-peer", "198.18.3.0/24"]);
    let mut client = Client::new(CLIENT, daemon.listener);
    let relayed = client.allocate();
    // The last one is the host's own.
    for refused in ["198.18.3.1:9", "198.19.0.1:9", "127.0.0.1:9", "198.18.0.9:9"] {
        assert_eq!(client.create_permission(refused.parse().unwrap()).error(), Some(403), "{refused}");
    }

    let peer = udp_socket(PEER);
    peer.send_to(b"uninvited", relayed).unwrap();
    daemon.wait_for_status(|status| status["drops"]["peer_not_permitted"] == 1);
    assert_eq!(client.create_permission(v4(peer.local_addr().unwrap())).error(), None);
    peer.send_to(b"invited", relayed).unwrap();
    assert_eq!(client.data_indication().1, b"invited", "and nothing before it");
}

#[test]
fn clients_of_the_same_server_reach_each_other_inside_it() {
    if !namespace::enter() {
        return;
    }
    let external = format!("203.0.113.7/{SERVER}");
    let daemon = Daemon::start(SERVER, &["--external-ip", &external]);
    let mut alice = Client::new(CLIENT, daemon.listener);
    let mut bob = Client::new(CLIENT, daemon.listener);
    let (alice_at, bob_at) = (alice.allocate(), bob.allocate());
    assert_eq!(alice_at.ip().to_string(), "203.0.113.7");

    assert_eq!(alice.bind_channel(0x4001, bob_at).error(), None);
    assert_eq!(bob.bind_channel(0x4002, alice_at).error(), None);
    alice.send_channel(0x4001, b"hello bob");
    assert_eq!(bob.channel_data(), (0x4002, b"hello bob".to_vec()));
    bob.send_indication(alice_at, b"hello alice");
    assert_eq!(alice.channel_data(), (0x4001, b"hello alice".to_vec()));

    let status = daemon.json("status");
    assert_eq!(status["slow_path"]["hairpin"], json!({"packets": 2, "bytes": 20}));
    assert_eq!(status["slow_path"]["to_peer"]["packets"], 0);
    let session = &daemon.json("sessions")["sessions"][0];
    assert_eq!(session["relayed"][0]["external"], alice_at.to_string());
    assert_eq!(session["relayed"][0]["address"], format!("{SERVER}:{}", alice_at.port()));
}

#[test]
fn established_channels_are_carried_in_the_kernel_and_a_stop_leaves_it_as_it_was() {
    if relay_user::datapath::program::PROGRAM.is_none() {
        eprintln!("SKIPPED: this build has no kernel program");
        return;
    }
    for mode in ["xdp-native", "xdp-generic"] {
        let ended = thread::spawn(move || relays_in_the_kernel(mode)).join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

#[test]
fn check_tells_a_running_or_crashed_turnpike_from_a_foreign_program() {
    if relay_user::datapath::program::PROGRAM.is_none() {
        eprintln!("SKIPPED: this build has no kernel program");
        return;
    }
    const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
    if !namespace::enter() {
        return;
    }
    let bpffs = namespace::Bpffs::mount();
    let other = namespace::Bpffs::mount();
    let _far_end = namespace::behind_veth("relc", INSIDE, Ipv4Addr::new(10, 77, 1, 2));
    let check = |socket: &Path, bpffs: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_turnpike"))
            .args(["check", "-i", "relc", "--listen", &format!("udp://{INSIDE}:3478")])
            .args(["--user", "a:b", "--datapath", "xdp-native", "--admin-socket"])
            .arg(socket)
            .arg("--bpffs")
            .arg(bpffs)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let start = |directory| {
        let bpffs = bpffs.path().to_str().unwrap();
        let options = ["-i", "relc", "--datapath", "xdp-native", "--bpffs", bpffs];
        let mut daemon = Daemon::spawn(directory, INSIDE, &options);
        daemon.wait_for_line("relc: a veth's other end must have GRO on");
        daemon.wait_for_line("ready: ");
        daemon
    };
    let daemon = start(tempfile::tempdir().unwrap());
    let socket = daemon.admin_socket();

    let (code, text) = check(&socket, bpffs.path());
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&format!("a turnpike is running (pid {})", daemon.pid())), "{text}");
    assert!(text.contains("relc has the XDP program of a turnpike that is running"), "{text}");
    assert!(text.contains("ethtool -K DEV gro on"), "{text}");
    // A second daemon would not start.
    let (code, text) = check(&socket.with_extension("2"), bpffs.path());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("belongs to a turnpike that is running"), "{text}");

    let (_, directory, _) = daemon.stop(Signal::SIGKILL);
    let (code, text) = check(&socket, bpffs.path());
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("ok       relc has an XDP program left by a crashed turnpike; the next start"),
        "{text}"
    );
    // Pinned elsewhere, it is anyone's.
    let (code, text) = check(&socket, other.path());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("relc has an XDP program already"), "{text}");

    let daemon = start(directory);
    assert_eq!(daemon.json("status")["datapath"]["mode"], "xdp-native");
    let (ended, _, log) = daemon.stop(Signal::SIGTERM);
    assert!(ended.success(), "{log}");
    let pinned = bpffs.path().join("turnpike");
    let left = pinned.read_dir().into_iter().flatten().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    assert!(left.is_empty(), "{left:?}");
}

/// In a thread of its own, since it changes the thread's namespace.
fn relays_in_the_kernel(mode: &str) {
    const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 1);
    const PACKETS: u64 = 200;
    if !namespace::enter() {
        return;
    }
    let client = namespace::behind_veth("relc", INSIDE, Ipv4Addr::new(10, 77, 1, 2));
    let peer = namespace::behind_veth("relp", OUTSIDE, Ipv4Addr::new(10, 77, 2, 2));
    let options = ["-i", "relc", "-i", "relp", "--datapath", mode, "--allow-peer", "10.77.2.0/24"];
    let daemon = Daemon::start_with(tempfile::tempdir().unwrap(), INSIDE, &options);
    let mut client = Client::with_socket(client, daemon.listener);
    let relayed = client.allocate();
    assert_eq!(relayed.ip(), &OUTSIDE, "by default the last interface's address");
    assert_eq!(client.bind_channel(0x4000, v4(peer.local_addr().unwrap())).error(), None);

    let mut sent = 0;
    let mut echo = |count: u64| {
        for _ in 0..count {
            let data = [sent as u8; 160];
            client.send_channel(0x4000, &data);
            let mut received = [0; 200];
            let (length, from) = peer.recv_from(&mut received).unwrap();
            assert_eq!((&received[..length], v4(from)), (&data[..], relayed));
            peer.send_to(&data, relayed).unwrap();
            assert_eq!(client.channel_data(), (0x4000, data.to_vec()));
            sent += 1;
        }
        sent
    };
    let fast = |status: &Value, direction: &str| status["fast_path"][direction]["packets"].as_u64().unwrap();
    // The daemon carries them until the next hops are known.
    let before = daemon.wait_for_status(|status| {
        echo(1);
        fast(status, "to_peer") > 0 && fast(status, "to_client") > 0
    });
    let sent = echo(PACKETS);

    let status = daemon.json("status");
    assert_eq!(status["datapath"]["mode"], mode);
    let session = &daemon.json("sessions")["sessions"][0];
    for direction in ["to_peer", "to_client"] {
        assert!(fast(&status, direction) >= fast(&before, direction) + PACKETS, "{direction} {status:#}");
        for counted in [&status, session] {
            let count = |path: &str, what: &str| counted[path][direction][what].as_u64().unwrap();
            let sum = |what| count("fast_path", what) + count("slow_path", what);
            assert_eq!((sum("packets"), sum("bytes")), (sent, sent * 160), "{direction} {counted:#}");
        }
    }
    assert!(namespace::link("relc").contains("prog/xdp"), "{}", namespace::link("relc"));
    // NET_BIND_SERVICE, NET_ADMIN, NET_RAW, PERFMON and BPF.
    const NEEDED: u64 = 1 << 10 | 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(daemon.capabilities(set) & !NEEDED, 0, "{set}");
    }
    assert_eq!(daemon.capabilities("CapEff"), NEEDED);

    let (ended, _, log) = daemon.stop(Signal::SIGTERM);
    assert!(ended.success(), "{log}");
    for device in ["relc", "relp"] {
        assert!(!namespace::link(device).contains("prog/xdp"), "{}", namespace::link(device));
    }
}

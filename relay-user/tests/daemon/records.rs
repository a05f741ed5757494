//! The record of each session in the log, compared with what was sent and with what `sessions` told.

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sha1::Sha1;

use crate::{
    CLIENT, PEER, SERVER,
    client::{ALLOCATE, Client, udp_transport},
    daemon::{Daemon, loopback, udp_socket},
    namespace, v4,
};

const COUNTS: [(&str, &str); 4] = [
    ("fast_path", "to_peer"),
    ("fast_path", "to_client"),
    ("slow_path", "to_peer"),
    ("slow_path", "to_client"),
];

/// A configuration file with this text.
fn configuration(directory: &Path, text: &str) -> String {
    let file = directory.join("turnpike.toml");
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// The next record in a JSON log.
fn record(daemon: &mut Daemon) -> Value {
    serde_json::from_str(&daemon.wait_for_line("session ended")).unwrap()
}

/// The record must tell of the session what `sessions` told before its end.
#[track_caller]
fn assert_is_of(record: &Value, session: &Value) {
    for (path, direction) in COUNTS {
        for what in ["packets", "bytes"] {
            let recorded = &record[format!("{path}_{direction}_{what}")];
            assert_eq!(*recorded, session[path][direction][what], "{path} {direction} {what}: {record:#}");
        }
    }
    for key in ["id", "user", "client", "server", "transport"] {
        assert_eq!(record[key], session[key], "{key}");
    }
    assert_eq!(record["relayed"], session["relayed"][0]["address"]);
    assert_eq!(record["target"], "session");
    assert_eq!(record["realm"], "example.org");
    assert!(record["duration_seconds"].as_f64() > Some(0.0), "{record:#}");
}

#[test]
fn turn_245_the_record_of_a_session_equals_what_was_sent() {
    if !namespace::enter() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = configuration(directory.path(), "log_addresses = true\nallow_peer = [\"198.18.0.0/15\"]\n");
    let external = format!("203.0.113.7/{SERVER}");
    let options = ["-c", &file, "--log-format", "json", "--external-ip", &external];
    let mut daemon = Daemon::start(SERVER, &options);
    let mut client = Client::new(CLIENT, daemon.listener);
    let peer = udp_socket(PEER);
    let relayed = client.allocate();
    assert_eq!(client.bind_channel(0x4000, v4(peer.local_addr().unwrap())).error(), None);
    for length in [0, 1, 160, 1200] {
        client.send_channel(0x4000, &vec![7; length]);
        let (_, from) = peer.recv_from(&mut [0; 2000]).unwrap();
        peer.send_to(&vec![8; length + 1], from).unwrap();
        client.channel_data();
    }
    let session = daemon.json("sessions")["sessions"][0].clone();
    assert_eq!(client.refresh(0).error(), None);

    let first = record(&mut daemon);
    assert_is_of(&first, &session);
    assert_eq!(first["slow_path_to_peer_bytes"], 1361);
    assert_eq!(first["slow_path_to_client_bytes"], 1365);
    assert_eq!(first["external"], relayed.to_string());
    assert_eq!([&first["peers"], &first["peer_count"]], [&json!(PEER.to_string()), &json!(1)]);
    assert_eq!(first["reason"], "deleted");

    // One that lives to the end of the daemon.
    client.allocate();
    let session = daemon.json("sessions")["sessions"][0].clone();
    let (status, _, log) = daemon.stop(Signal::SIGTERM);
    assert!(status.success(), "{log}");
    let records = log.lines().filter(|line| line.contains("session ended")).collect::<Vec<_>>();
    let last = serde_json::from_str::<Value>(records.last().unwrap()).unwrap();
    assert_eq!(records.len(), 2, "{log}");
    assert_is_of(&last, &session);
    assert_eq!(last["reason"], "shutdown");
    for line in log.lines() {
        let line = serde_json::from_str::<Value>(line).expect(line);
        assert!(["timestamp", "level", "message"].iter().all(|key| line[key].is_string()), "{line}");
    }
    assert!(!log.contains("\"secret\""), "{log}");
}

#[test]
fn the_record_of_a_session_that_the_kernel_carried_has_its_last_packets() {
    if relay_user::datapath::program::PROGRAM.is_none() {
        eprintln!("SKIPPED: this build has no kernel program");
        return;
    }
    // A thread of its own, since it changes the thread's namespace.
    let ended = thread::spawn(carried_in_the_kernel).join();
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn carried_in_the_kernel() {
    const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 1);
    if !namespace::enter() {
        return;
    }
    let client = namespace::behind_veth("relc", INSIDE, Ipv4Addr::new(10, 77, 1, 2));
    let peer = namespace::behind_veth("relp", OUTSIDE, Ipv4Addr::new(10, 77, 2, 2));
    let directory = tempfile::tempdir().unwrap();
    let file = configuration(directory.path(), "log_addresses = true\nlog_format = \"json\"\n");
    let options =
        ["-c", &file, "-i", "relc", "-i", "relp", "--datapath", "xdp-native", "--allow-peer", "10.77.2.0/24"];
    let mut daemon = Daemon::start_with(tempfile::tempdir().unwrap(), INSIDE, &options);
    let mut client = Client::with_socket(client, daemon.listener);
    let relayed = client.allocate();
    assert_eq!(client.bind_channel(0x4000, v4(peer.local_addr().unwrap())).error(), None);

    let mut sent = 0;
    let mut echo = || {
        client.send_channel(0x4000, &[1; 100]);
        peer.recv_from(&mut [0; 200]).unwrap();
        peer.send_to(&[2; 50], relayed).unwrap();
        client.channel_data();
        sent += 1;
    };
    daemon.wait_for_status(|status| {
        echo();
        let packets = |direction: &str| status["fast_path"][direction]["packets"].as_u64();
        packets("to_peer") > Some(0) && packets("to_client") > Some(0)
    });
    for _ in 0..100 {
        echo();
    }
    let session = daemon.json("sessions")["sessions"][0].clone();
    assert_eq!(client.refresh(0).error(), None);

    let record = record(&mut daemon);
    assert_is_of(&record, &session);
    let sum = |direction: &str, what: &str| {
        let count = |path: &str| record[format!("{path}_{direction}_{what}")].as_u64().unwrap();
        count("fast_path") + count("slow_path")
    };
    assert_eq!([sum("to_peer", "packets"), sum("to_peer", "bytes")], [sent, sent * 100]);
    assert_eq!([sum("to_client", "packets"), sum("to_client", "bytes")], [sent, sent * 50]);
    assert!(record["fast_path_to_peer_packets"].as_u64() >= Some(100), "{record:#}");

    // At a stop nothing waits for the last counts, and nothing is lost.
    let relayed = client.allocate();
    assert_eq!(client.bind_channel(0x4000, v4(peer.local_addr().unwrap())).error(), None);
    let mut sent = 0;
    daemon.wait_for_status(|status| {
        client.send_channel(0x4000, &[1; 100]);
        let (_, from) = peer.recv_from(&mut [0; 200]).unwrap();
        assert_eq!(v4(from), relayed);
        sent += 1;
        status["fast_path"]["to_peer"]["packets"].as_u64() > record["fast_path_to_peer_packets"].as_u64()
    });
    let (status, _, log) = daemon.stop(Signal::SIGTERM);
    assert!(status.success(), "{log}");
    let last = log.lines().rfind(|line| line.contains("session ended")).unwrap();
    let last = serde_json::from_str::<Value>(last).unwrap();
    let count = |path: &str| last[format!("{path}_to_peer_packets")].as_u64().unwrap();
    assert_eq!((last["reason"].as_str(), count("fast_path") + count("slow_path")), (Some("shutdown"), sent));
    assert!(count("fast_path") > 0, "{last:#}");
}

#[test]
fn a_failed_authentication_is_logged_with_its_cause_and_without_addresses_unless_wanted() {
    let address = loopback(20);
    let mut daemon = Daemon::start(address, &[]);
    let mut client = Client::new(address, daemon.listener);
    let challenge = client.request(ALLOCATE, &[udp_transport()], None);
    client.learn(&challenge);
    assert_eq!(client.request(ALLOCATE, &[udp_transport()], Some("wrong")).error(), Some(401));

    let line = daemon.wait_for_line("authentication failed");
    assert!(line.contains("WARN") && line.contains("cause=\"wrong_password\""), "{line}");
    assert!(
        line.contains("client=\"(not logged)\"") && !line.contains(&client.address().to_string()),
        "{line}"
    );
    assert!(!line.contains("\"wrong\""), "{line}");
    client.allocate();
    let (_, _, log) = daemon.stop(Signal::SIGTERM);
    assert!(log.contains("peers=\"(not logged)\"") && !log.contains(&client.address().to_string()), "{log}");
}

#[test]
fn a_time_limited_credential_is_served_until_its_end_and_its_user_stands_in_the_record() {
    let address = loopback(21);
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    fs::write(&secret, "old but still good enough\nnorth of the river\n").unwrap();
    let mut daemon =
        Daemon::start(address, &["--log-format", "json", "--auth-secret-file", secret.to_str().unwrap()]);
    let mut client = Client::new(address, daemon.listener);
    let challenge = client.request(ALLOCATE, &[udp_transport()], None);
    client.learn(&challenge);
    let mut allocate = |user: String, secret: &str| {
        let mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).unwrap().chain_update(&user).finalize();
        client.user = user;
        client.request(ALLOCATE, &[udp_transport()], Some(&BASE64_STANDARD.encode(mac.into_bytes()))).error()
    };

    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (over, good) = (format!("{}:eve", unix - 1), format!("{}:bob", unix + 3600));
    assert_eq!(allocate(over.clone(), "north of the river"), Some(401));
    let line = serde_json::from_str::<Value>(&daemon.wait_for_line("authentication failed")).unwrap();
    assert_eq!([&line["cause"], &line["user"]], ["expired_credential", &over]);
    assert_eq!(allocate(good.clone(), "south of the river"), Some(401));
    let line = serde_json::from_str::<Value>(&daemon.wait_for_line("authentication failed")).unwrap();
    assert_eq!([&line["cause"], &line["user"]], ["wrong_password", &good]);

    assert_eq!(allocate(good.clone(), "north of the river"), None);
    let (_, _, log) = daemon.stop(Signal::SIGTERM);
    let record = log.lines().find(|line| line.contains("session ended")).expect(&log);
    assert_eq!(serde_json::from_str::<Value>(record).unwrap()["user"], good);
    assert!(!log.contains("of the river"), "{log}");
}

//! What the log tells of clients: one line for each allocation that begins and ends, some for those who are
//! refused. Nothing that outsiders write can begin a line or reach a terminal as more than text.

use std::{borrow::Cow, fmt::Display, net::SocketAddr};

use relay_common::clock::BootNanos;

use super::log_limit::LogLimit;
use crate::{
    control::status::SessionTraffic,
    turn::{AuthenticationFailure, EndReason, FiveTuple, RelayedAddr, SessionRecord},
};

/// Stands for an address of a client or peer unless the operator wants them logged.
const NOT_LOGGED: &str = "(not logged)";

/// Lines about clients.
#[derive(Debug)]
pub(super) struct ClientLog {
    log_addresses: bool,
    authentication: LogLimit,
}

impl ClientLog {
    /// `log_addresses`: addresses of clients and peers may be told.
    pub(super) fn new(log_addresses: bool) -> Self {
        Self { log_addresses, authentication: LogLimit::default() }
    }

    /// An allocation was made.
    pub(super) fn allocation_created(
        &self,
        id: u64,
        five_tuple: &FiveTuple,
        relayed: &[RelayedAddr],
        user: &str,
    ) {
        tracing::info!(
            id,
            user = &*visible(user),
            client = self.shown(five_tuple.client.0),
            server = five_tuple.server.to_string(),
            relayed = list(relayed),
            "allocation created"
        );
    }

    /// A request failed authentication. Clients recover from a stale nonce by themselves; of the others only
    /// some are told, with the number left out before.
    pub(super) fn authentication_failed(
        &mut self,
        now: BootNanos,
        five_tuple: &FiveTuple,
        user: Option<&str>,
        cause: AuthenticationFailure,
    ) {
        let client = self.shown(five_tuple.client.0);
        let user = user.map(visible);
        let user = user.as_deref();
        if cause == AuthenticationFailure::StaleNonce {
            tracing::debug!(client, user, cause = failure(cause), "authentication failed");
        } else if let Some(suppressed) = self.authentication.admit(now) {
            tracing::warn!(client, user, cause = failure(cause), suppressed, "authentication failed");
        }
    }

    /// The record of a session, with what the datapath forwarded for it.
    pub(super) fn session_ended(&self, record: &SessionRecord, fast: SessionTraffic) {
        let peers = if self.log_addresses { list(&record.peers) } else { NOT_LOGGED.to_owned() };
        let nanos = record.ended.saturating_sub(record.started);
        tracing::info!(
            target: "session",
            id = record.allocation.0,
            user = &*visible(&record.username),
            realm = &*visible(&record.realm),
            client = self.shown(record.five_tuple.client.0),
            server = record.five_tuple.server.to_string(),
            transport = record.five_tuple.transport.to_string(),
            relayed = list(record.relayed.iter().map(|relayed| relayed.address)),
            external = list(record.relayed.iter().filter_map(|relayed| relayed.external)),
            peers,
            peer_count = record.peer_count,
            duration_seconds = (nanos / 1_000_000) as f64 / 1000.0,
            fast_path_to_peer_packets = fast.to_peer.packets,
            fast_path_to_peer_bytes = fast.to_peer.bytes,
            fast_path_to_client_packets = fast.to_client.packets,
            fast_path_to_client_bytes = fast.to_client.bytes,
            slow_path_to_peer_packets = record.to_peer.packets,
            slow_path_to_peer_bytes = record.to_peer.bytes,
            slow_path_to_client_packets = record.to_client.packets,
            slow_path_to_client_bytes = record.to_client.bytes,
            reason = reason(record.reason),
            "session ended"
        );
    }

    /// An address of a client or peer, as far as the log may have it.
    pub(super) fn shown(&self, address: SocketAddr) -> String {
        if self.log_addresses { address.to_string() } else { NOT_LOGGED.to_owned() }
    }
}

/// Text of outsiders with its control characters written out, which JSON would leave as they are from 0x7F on.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let written = |c: char| if c.is_control() { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(written).collect()
}

fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

const fn failure(cause: AuthenticationFailure) -> &'static str {
    match cause {
        AuthenticationFailure::UnknownUser => "unknown_user",
        AuthenticationFailure::WrongPassword => "wrong_password",
        AuthenticationFailure::ExpiredCredential => "expired_credential",
        AuthenticationFailure::StaleNonce => "stale_nonce",
    }
}

const fn reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Deleted => "deleted",
        EndReason::Expired => "expired",
        EndReason::Shutdown => "shutdown",
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use serde_json::Value;

    use super::*;
    use crate::turn::{AllocationId, ClientAddr, ServerAddr, SessionRelayed, Traffic, Transport};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `log` writes, as text and as JSON.
    fn logged(log: impl Fn()) -> (String, Value) {
        let lines = [Lines::default(), Lines::default()];
        let [text, json] = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || text.clone());
        tracing::subscriber::with_default(subscriber.finish(), &log);
        let subscriber =
            tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || json.clone());
        tracing::subscriber::with_default(subscriber.finish(), &log);
        let [text, json] = lines.map(|lines| String::from_utf8(lines.0.lock().unwrap().clone()).unwrap());
        assert!(!json.contains('\u{9b}'), "{json:?}");
        (text, serde_json::from_str(&json).expect(&json))
    }

    fn five_tuple() -> FiveTuple {
        FiveTuple {
            client: ClientAddr("198.51.100.9:4000".parse().unwrap()),
            server: ServerAddr("192.0.2.1:3478".parse().unwrap()),
            transport: Transport::Udp,
        }
    }

    fn record() -> SessionRecord {
        let traffic = |packets| Traffic { packets, bytes: packets * 100 };
        SessionRecord {
            allocation: AllocationId(7),
            username: "alice".to_owned(),
            realm: "example.org".to_owned(),
            five_tuple: five_tuple(),
            relayed: vec![
                SessionRelayed {
                    address: RelayedAddr("10.0.0.5:50000".parse().unwrap()),
                    external: Some("203.0.113.7:50000".parse().unwrap()),
                    expires: 0,
                },
                SessionRelayed {
                    address: RelayedAddr("[2001:db8::5]:50000".parse().unwrap()),
                    external: None,
                    expires: 0,
                },
            ],
            peers: vec!["198.51.100.20".parse().unwrap(), "2001:db8::20".parse().unwrap()],
            peer_count: 2,
            started: 1_000_000_000,
            ended: 13_345_678_901,
            reason: EndReason::Expired,
            to_peer: traffic(3),
            to_client: traffic(4),
        }
    }

    fn fast() -> SessionTraffic {
        let traffic = |packets| Traffic { packets, bytes: packets * 100 };
        SessionTraffic { to_peer: traffic(1), to_client: traffic(2) }
    }

    #[test]
    fn turn_245_the_record_of_a_session_has_all_that_tracing_abuse_takes() {
        let (text, json) = logged(|| ClientLog::new(true).session_ended(&record(), fast()));
        for (key, value) in [
            ("message", "session ended".into()),
            ("target", "session".into()),
            ("id", 7.into()),
            ("user", "alice".into()),
            ("realm", "example.org".into()),
            ("client", "198.51.100.9:4000".into()),
            ("server", "192.0.2.1:3478".into()),
            ("transport", "udp".into()),
            ("relayed", "10.0.0.5:50000,[2001:db8::5]:50000".into()),
            ("external", "203.0.113.7:50000".into()),
            ("peers", "198.51.100.20,2001:db8::20".into()),
            ("peer_count", 2.into()),
            ("duration_seconds", 12.345.into()),
            ("fast_path_to_peer_packets", 1.into()),
            ("fast_path_to_peer_bytes", 100.into()),
            ("fast_path_to_client_packets", 2.into()),
            ("fast_path_to_client_bytes", 200.into()),
            ("slow_path_to_peer_packets", 3.into()),
            ("slow_path_to_peer_bytes", 300.into()),
            ("slow_path_to_client_packets", 4.into()),
            ("slow_path_to_client_bytes", 400.into()),
            ("reason", "expired".into()),
        ] as [(&str, Value); 22]
        {
            assert_eq!(json[key], value, "{key}");
            if !["message", "target"].contains(&key) {
                assert!(text.contains(&format!(" {key}={value}")), "{key}={value} in {text}");
            }
        }
        let timestamp = json["timestamp"].as_str().unwrap();
        assert!(timestamp.as_bytes()[10] == b'T' && timestamp.ends_with('Z'), "{timestamp}");
    }

    #[test]
    fn addresses_of_clients_and_peers_are_logged_only_if_wanted() {
        let told = |log_addresses| {
            let (text, json) = logged(|| ClientLog::new(log_addresses).session_ended(&record(), fast()));
            format!("{text}{json}")
        };
        let refused = |log_addresses| {
            let (text, json) = logged(|| {
                ClientLog::new(log_addresses).authentication_failed(
                    0,
                    &five_tuple(),
                    Some("alice"),
                    AuthenticationFailure::WrongPassword,
                );
            });
            format!("{text}{json}")
        };
        let created = |log_addresses| {
            let relayed = [record().relayed[0].address];
            let (text, json) = logged(|| {
                ClientLog::new(log_addresses).allocation_created(7, &five_tuple(), &relayed, "alice")
            });
            format!("{text}{json}")
        };
        for lines in [told, refused, created] as [fn(bool) -> String; 3] {
            let (wanted, not) = (lines(true), lines(false));
            assert_eq!(wanted.matches("198.51.100.9:4000").count(), 2, "{wanted}");
            for address in ["198.51.100.", "2001:db8::20"] {
                assert!(!not.contains(address), "{not}");
            }
            assert!(not.contains("alice") && not.contains("(not logged)"), "{not}");
        }
        assert!(told(false).contains("10.0.0.5:50000"), "the server's own addresses lead to the user");
    }

    #[test]
    fn a_failed_authentication_is_told_with_its_cause() {
        for (cause, said) in [
            (AuthenticationFailure::UnknownUser, "unknown_user"),
            (AuthenticationFailure::WrongPassword, "wrong_password"),
            (AuthenticationFailure::ExpiredCredential, "expired_credential"),
        ] {
            let (text, json) =
                logged(|| ClientLog::new(true).authentication_failed(0, &five_tuple(), Some("alice"), cause));
            assert!(text.contains("WARN") && text.contains(&format!("cause=\"{said}\"")), "{text}");
            let fields =
                ["level", "message", "client", "user", "cause"].map(|key| json[key].as_str().unwrap());
            assert_eq!(fields, ["WARN", "authentication failed", "198.51.100.9:4000", "alice", said]);
            assert_eq!(json["suppressed"], 0);
        }
        let (_, json) = logged(|| {
            let mut log = ClientLog::new(true);
            log.authentication_failed(0, &five_tuple(), None, AuthenticationFailure::UnknownUser);
        });
        assert_eq!(json.get("user"), None);
    }

    #[test]
    fn no_user_name_begins_a_line_ends_a_field_or_reaches_the_terminal() {
        let name =
            "eve\" reason=\"deleted\"\n2026-01-01T00:00:00Z  INFO session ended\u{1b}[2J\u{9b}2J\u{7f}\r";
        let (text, json) = logged(|| {
            let cause = AuthenticationFailure::UnknownUser;
            ClientLog::new(true).authentication_failed(0, &five_tuple(), Some(name), cause);
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.trim_end().contains(char::is_control), "{text:?}");
        assert!(text.contains(r#"user="eve\" reason=\"deleted\"\\u{a}2026"#), "{text}");
        assert!(!json.to_string().contains(char::is_control));
        assert!(json["user"].as_str().unwrap().starts_with(r#"eve" reason="deleted"\u{a}2026"#), "{json}");
        assert_eq!(visible("Zoë 日本"), "Zoë 日本");
    }
}

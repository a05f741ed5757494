//! `turnpike sessions`.

use std::process::ExitCode;

use super::{
    QueryOptions,
    status::share,
    table::{duration, table},
};
use crate::{
    control::status::{Session, Sessions},
    datapath::Traffic,
    net::visible,
};

pub(super) fn sessions(options: &QueryOptions) -> anyhow::Result<ExitCode> {
    super::query(options, "/api/v1/sessions", describe)
}

fn describe(sessions: &Sessions) -> String {
    if sessions.sessions.is_empty() {
        return "no allocations\n".to_owned();
    }
    let head = [
        "id",
        "user",
        "client",
        "relayed",
        "ends in",
        "permissions",
        "channels",
        "packets to peer",
        "to client",
        "in kernel",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(sessions.sessions.iter().map(row));
    table(&rows, &[0, 5, 6, 7, 8, 9])
}

fn row(session: &Session) -> Vec<String> {
    let (fast, slow) = (session.fast_path, session.slow_path);
    let sum = |mut a: Traffic, b| {
        a += b;
        a
    };
    let relayed = session.relayed.iter().map(|one| one.external.unwrap_or(one.address).to_string());
    let last = session.relayed.iter().map(|one| one.expires_in_seconds).max().unwrap_or(0);
    vec![
        session.id.to_string(),
        // The application may let its users choose the name.
        visible(&session.user).into_owned(),
        session.client.to_string(),
        relayed.collect::<Vec<_>>().join(" "),
        duration(last),
        session.permissions.len().to_string(),
        session.channels.len().to_string(),
        (fast.to_peer.packets + slow.to_peer.packets).to_string(),
        (fast.to_client.packets + slow.to_client.packets).to_string(),
        share(sum(fast.to_peer, fast.to_client), sum(slow.to_peer, slow.to_client)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_one_line_with_the_address_that_peers_see() {
        let json = r#"{"sessions":[{"id":3,"user":"alice","client":"198.18.1.2:4000","server":"198.18.1.1:3478",
            "transport":"udp","relayed":[{"address":"10.0.0.5:50000","external":"203.0.113.7:50000","expires_in_seconds":599}],
            "permissions":[{"peer":"198.18.2.2","expires_in_seconds":299}],
            "channels":[{"number":"0x4000","peer":"198.18.2.2:3480","expires_in_seconds":599}],
            "fast_path":{"to_peer":{"packets":9,"bytes":900},"to_client":{"packets":9,"bytes":900}},
            "slow_path":{"to_peer":{"packets":1,"bytes":100},"to_client":{"packets":1,"bytes":100}}}]}"#;
        let text = describe(&serde_json::from_str(json).unwrap());
        let line = text.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(line, "3 alice 198.18.1.2:4000 203.0.113.7:50000 9 min 59 s 1 1 10 10 90.0 %");
        assert_eq!(describe(&Sessions::default()), "no allocations\n");

        let forged = describe(&serde_json::from_str(&json.replace("alice", r"a\u001b[2J\nb")).unwrap());
        assert_eq!(forged.lines().count(), 2, "{forged}");
        assert!(forged.contains(r"a\u{1b}[2J\u{a}b "), "{forged}");
    }
}

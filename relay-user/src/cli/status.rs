//! `turnpike status`.

use std::{collections::BTreeMap, fmt::Write, process::ExitCode};

use super::{
    QueryOptions,
    table::{duration, table},
};
use crate::{control::status::Status, datapath::Traffic, turn::stun::ErrorCode};

pub(super) fn status(options: &QueryOptions) -> anyhow::Result<ExitCode> {
    super::query(options, "/api/v1/status", describe)
}

fn describe(status: &Status) -> String {
    let mut text = format!(
        "turnpike {}, pid {}, up {}\n\n",
        status.version,
        status.pid,
        duration(status.uptime_seconds)
    );
    let interfaces = status.datapath.interfaces.iter().map(|i| format!(" {} ({})", i.name, i.mode));
    let mut facts = vec![
        fact("datapath", format!("{}{}", status.datapath.mode, interfaces.collect::<String>())),
        fact("listeners", status.listeners.join(" ")),
        fact("allocations", status.allocations),
        fact("permissions", status.permissions),
        fact("channels", status.channels),
    ];
    if let Some(reason) = &status.datapath.reason {
        facts.insert(1, fact("warning", reason));
    }
    if status.reservations > 0 {
        facts.push(fact(
            "reservations",
            format!("{} (ports held for a second allocation)", status.reservations),
        ));
    }
    if status.datapath.not_installed > 0 {
        facts.push(fact(
            "not in kernel",
            format!("{} flows (the daemon carries them)", status.datapath.not_installed),
        ));
    }
    text.push_str(&table(&facts, &[]));

    let head = ["", "packets in kernel", "bytes", "packets by daemon", "bytes", "in kernel"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (name, fast, slow) in [
        ("to peer", status.fast_path.to_peer, status.slow_path.to_peer),
        ("to client", status.fast_path.to_client, status.slow_path.to_client),
        ("hairpin", status.fast_path.hairpin, status.slow_path.hairpin),
    ] {
        rows.push(vec![
            name.to_owned(),
            fast.packets.to_string(),
            fast.bytes.to_string(),
            slow.packets.to_string(),
            slow.bytes.to_string(),
            share(fast, slow),
        ]);
    }
    write!(text, "\n{}", table(&rows, &[1, 2, 3, 4, 5])).expect("a String takes everything");

    for (title, counts) in
        [("packets handed to the daemon", &status.punts), ("packets dropped", &status.drops)]
    {
        write!(text, "\n{title}:{}\n", reasons(counts)).expect("a String takes everything");
    }
    write!(text, "\nresponses:{}\n", responses(&status.responses)).expect("a String takes everything");
    text
}

fn fact(name: &str, value: impl ToString) -> Vec<String> {
    vec![name.to_owned(), value.to_string()]
}

/// The kernel's share of the packets.
pub(super) fn share(fast: Traffic, slow: Traffic) -> String {
    match fast.packets + slow.packets {
        0 => "-".to_owned(),
        all => format!("{:.1} %", 100.0 * fast.packets as f64 / all as f64),
    }
}

/// The reasons that occurred, the most frequent first.
fn reasons(counts: &BTreeMap<String, u64>) -> String {
    let mut counts = counts.iter().filter(|(_, count)| **count > 0).collect::<Vec<_>>();
    if counts.is_empty() {
        return " none".to_owned();
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let rows = counts.iter().map(|(reason, count)| vec![String::new(), (*reason).clone(), count.to_string()]);
    format!("\n{}", table(&rows.collect::<Vec<_>>(), &[2])).trim_end().to_owned()
}

/// Methods with what they were answered, error codes with the RFC's words.
fn responses(methods: &BTreeMap<String, BTreeMap<String, u64>>) -> String {
    let rows = methods.iter().flat_map(|(method, outcomes)| {
        outcomes.iter().map(move |(outcome, count)| {
            let known = ErrorCode::ALL.iter().find(|error| error.code().to_string() == *outcome);
            let said = known.map_or(outcome.clone(), |error| format!("{outcome} {}", error.reason()));
            vec![String::new(), method.clone(), said, count.to_string()]
        })
    });
    let rows = rows.collect::<Vec<_>>();
    if rows.is_empty() {
        "none".to_owned()
    } else {
        format!("\n{}", table(&rows, &[3])).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::{DatapathStatus, InterfaceStatus};

    #[test]
    fn a_person_sees_mode_reason_shares_and_drops() {
        let traffic = |packets| Traffic { packets, bytes: packets * 100 };
        let mut status = Status {
            version: "0.1.0".to_owned(),
            pid: 7,
            uptime_seconds: 65,
            datapath: DatapathStatus {
                mode: "xdp-generic".to_owned(),
                interfaces: vec![InterfaceStatus {
                    name: "eth0".to_owned(),
                    ifindex: 2,
                    mode: "xdp-generic".to_owned(),
                }],
                reason: Some("eth0: the driver has no native mode".to_owned()),
                not_installed: 0,
            },
            listeners: vec!["udp://192.0.2.1:3478".to_owned()],
            allocations: 2,
            permissions: 3,
            channels: 4,
            reservations: 1,
            fast_path: Default::default(),
            slow_path: Default::default(),
            punts: BTreeMap::from([("control".to_owned(), 12), ("ttl".to_owned(), 0)]),
            drops: BTreeMap::new(),
            responses: BTreeMap::from([(
                "allocate".to_owned(),
                BTreeMap::from([("success".to_owned(), 5), ("486".to_owned(), 2)]),
            )]),
        };
        status.fast_path.to_peer = traffic(99);
        status.slow_path.to_peer = traffic(1);
        let text = describe(&status);
        for said in [
            "pid 7, up 1 min 5 s",
            "xdp-generic eth0 (xdp-generic)",
            "warning       eth0: the driver has no native mode",
            "udp://192.0.2.1:3478",
            "99.0 %",
            "reservations  1 (ports held",
            "control  12",
            "packets dropped: none",
            "responses:\n  allocate  486 Allocation Quota Reached  2\n  allocate  success                       5\n",
        ] {
            assert!(text.contains(said), "{said} in\n{text}");
        }
        assert!(!text.contains("ttl") && !text.contains("not in kernel"), "{text}");
    }
}

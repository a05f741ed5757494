//! What was lost, and how long nothing came, in each direction.

use std::fmt;
use std::time::Duration;

use super::tap::Seen;
use crate::browser::{Report, Side};

/// Media may stop for so long.
const LONGEST_GAP: Duration = Duration::from_millis(200);
/// Of a thousand packets, so many may be lost.
const LOST_PER_MILLE: u64 = 1;
/// When browsers hang up, one of them is the first: what the other still sends is not looked at.
const HANGING_UP: u64 = Duration::from_secs(1).as_nanos() as u64;
/// From here on, the call is longer than the lifetime of a channel and of any nonce.
const MINUTES_ACROSS_ALL: u64 = 11;

/// One direction of the call: when media packets were sent to the relay, and when they came from it, in nanoseconds.
#[derive(Debug)]
pub(super) struct Direction<'a> {
    name: &'static str,
    sent: &'a [u64],
    pub(super) received: &'a [u64],
}

/// A time in which nothing was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) length: Duration,
    /// Since the first packet.
    at: Duration,
    /// The longest time within it in which nothing was sent.
    sender_pause: Duration,
}

impl Gap {
    /// Whether it is too long, and not because the sender itself paused.
    fn is_the_relays(&self) -> bool {
        self.length > LONGEST_GAP && self.sender_pause < self.length / 2
    }
}

impl<'a> Direction<'a> {
    /// To the peer, and to the client.
    pub(super) fn both(client: &'a Seen, peer: &'a Seen) -> [Self; 2] {
        let end = [&client.to_relay, &client.from_relay, &peer.to_relay, &peer.from_relay]
            .map(|times| times.last().copied().unwrap_or_default())
            .into_iter()
            .min()
            .map_or(0, |end| end.saturating_sub(HANGING_UP));
        let before_end = |times: &'a [u64]| &times[..times.partition_point(|time| *time < end)];
        [
            Self {
                name: "to the peer",
                sent: before_end(&client.to_relay),
                received: before_end(&peer.from_relay),
            },
            Self {
                name: "to the client",
                sent: before_end(&peer.to_relay),
                received: before_end(&client.from_relay),
            },
        ]
    }

    pub(super) fn largest_gap(&self) -> Gap {
        self.gaps().max_by_key(|gap| gap.length).unwrap_or_default()
    }

    fn gaps(&self) -> impl Iterator<Item = Gap> {
        self.received.windows(2).map(|ends| Gap {
            length: Duration::from_nanos(ends[1] - ends[0]),
            at: Duration::from_nanos(ends[0] - self.received[0]),
            sender_pause: Duration::from_nanos(self.longest_pause(ends[0], ends[1])),
        })
    }

    /// The longest time without sending, of those that reach into the time between `from` and `to`.
    fn longest_pause(&self, from: u64, to: u64) -> u64 {
        let first = self.sent.partition_point(|time| *time <= from);
        let until = self.sent.partition_point(|time| *time < to);
        let before = first.checked_sub(1).map_or(from, |last| self.sent[last]);
        let between = self.sent[first..until.max(first)].iter().copied();
        let times = std::iter::once(before).chain(between).chain([to]);
        times.clone().zip(times.skip(1)).map(|(a, b)| b - a).max().unwrap_or_default()
    }

    fn lost(&self) -> u64 {
        self.sent.len().saturating_sub(self.received.len()) as u64
    }
}

/// The outcome, as it is printed.
#[derive(Debug)]
pub(super) struct Verdict {
    lines: Vec<String>,
    faults: Vec<String>,
}

impl Verdict {
    pub(super) fn new(report: &Report, client: &Seen, peer: &Seen, minutes: u64) -> Self {
        let mut verdict = Self { lines: Vec::new(), faults: Vec::new() };
        for direction in Direction::both(client, peer) {
            verdict.judge_direction(&direction);
        }
        verdict.judge_browser("the client", &report.client);
        verdict.judge_browser("the peer", &report.peer);
        verdict.lines.push(format!("stale nonces, each taken up again: {}", client.stale_nonces));
        if minutes >= MINUTES_ACROSS_ALL && client.stale_nonces == 0 {
            verdict.faults.push("no nonce became stale: that was not tested".to_owned());
        }
        if minutes < MINUTES_ACROSS_ALL {
            verdict.lines.push(format!(
                "{minutes} minutes are shorter than a channel's lifetime and what a client waits for: \
                 {MINUTES_ACROSS_ALL} are needed to see every expiry"
            ));
        }
        let missed = client.missed + peer.missed;
        if missed > 0 {
            verdict.faults.push(format!("the taps missed {missed} packets: the figures are not whole"));
        }
        verdict
    }

    pub(super) fn passed(&self) -> bool {
        self.faults.is_empty()
    }

    fn judge_direction(&mut self, direction: &Direction<'_>) {
        let (sent, lost) = (direction.sent.len() as u64, direction.lost());
        let gap = direction.largest_gap();
        self.lines.push(format!(
            "{:14} {sent} media packets sent, {lost} lost ({:.3} %); largest gap {} ms at {} (the sender's own pause: {} ms)",
            direction.name,
            percent(lost, sent),
            gap.length.as_millis(),
            clock(gap.at),
            gap.sender_pause.as_millis(),
        ));
        if sent == 0 {
            self.faults.push(format!("no media went {}", direction.name));
        }
        if is_too_much(lost, sent) {
            self.faults.push(format!("{lost} of {sent} packets {} were lost", direction.name));
        }
        let long: Vec<_> = direction.gaps().filter(|gap| gap.length > LONGEST_GAP).collect();
        let (ours, senders): (Vec<Gap>, Vec<_>) = long.iter().partition(|gap| gap.is_the_relays());
        if !senders.is_empty() {
            self.lines.push(format!(
                "{:14} {} gaps over {} ms because the sender paused",
                "",
                senders.len(),
                LONGEST_GAP.as_millis()
            ));
        }
        for gap in ours {
            self.faults.push(format!(
                "nothing went {} for {} ms at {}, though it was sent",
                direction.name,
                gap.length.as_millis(),
                clock(gap.at)
            ));
        }
    }

    /// What a browser itself says that it lost.
    fn judge_browser(&mut self, name: &str, side: &Side) {
        for inbound in &side.inbound {
            let lost = u64::try_from(inbound.packets_lost).unwrap_or_default();
            let all = u64::try_from(inbound.packets_received).unwrap_or_default() + lost;
            let line = format!("{name} says of its {}: {lost} of {all} packets lost", inbound.kind);
            if is_too_much(lost, all) {
                self.faults.push(line);
            } else {
                self.lines.push(line);
            }
        }
        if side.inbound.is_empty() {
            self.faults.push(format!("{name} got no media"));
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        for fault in &self.faults {
            writeln!(f, "FAILED: {fault}")?;
        }
        write!(f, "{}", if self.passed() { "passed" } else { "failed" })
    }
}

/// A time as minutes and seconds.
pub(super) fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

fn is_too_much(lost: u64, all: u64) -> bool {
    lost * 1000 > all * LOST_PER_MILLE
}

fn percent(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 * 100.0 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// One packet every 20 ms from 1 s on, but for those in `without`.
    fn times(count: u64, without: std::ops::Range<u64>) -> Vec<u64> {
        (0..count)
            .filter(|number| !without.contains(number))
            .map(|number| (1000 + 20 * number) * MS)
            .collect()
    }

    fn seen(to_relay: Vec<u64>, from_relay: Vec<u64>) -> Seen {
        Seen { to_relay, from_relay, stale_nonces: 1, missed: 0 }
    }

    fn report() -> Report {
        let side = r#"{"localCandidateType": "relay", "relayProtocol": "udp", "remoteCandidateType": "host",
            "inboundAtStart": [], "inbound":
            [{"kind": "audio", "packetsReceived": 1000, "packetsLost": 1, "framesDecoded": null}]}"#;
        Report::parse(&format!(r#"{{"client": {side}, "peer": {side}}}"#)).unwrap()
    }

    fn verdict(client: &Seen, peer: &Seen) -> Verdict {
        Verdict::new(&report(), client, peer, 12)
    }

    #[test]
    fn whole_call_passes() {
        let all = || times(1000, 0..0);
        let verdict = verdict(&seen(all(), all()), &seen(all(), all()));
        assert!(verdict.passed(), "{verdict}");
        assert!(verdict.to_string().contains("largest gap 20 ms"), "{verdict}");
    }

    #[test]
    fn gap_of_the_relay_fails_with_its_place() {
        let all = || times(20_000, 0..0);
        let verdict = verdict(&seen(all(), all()), &seen(all(), times(20_000, 5000..5011)));
        assert!(!verdict.passed());
        assert_eq!(verdict.faults, ["nothing went to the peer for 240 ms at 1:39, though it was sent"]);
    }

    #[test]
    fn pause_of_the_sender_is_only_told() {
        let (all, paused) = (|| times(1000, 0..0), || times(1000, 500..520));
        let verdict = verdict(&seen(paused(), all()), &seen(all(), paused()));
        assert!(verdict.passed(), "{verdict}");
        assert!(verdict.to_string().contains("1 gaps over 200 ms because the sender paused"), "{verdict}");
    }

    #[test]
    fn loss_beyond_one_in_a_thousand_fails() {
        let all = || times(10_050, 0..0);
        let with = |lost: u64| verdict(&seen(all(), times(10_050, 100..100 + lost)), &seen(all(), all()));
        assert!(with(9).passed());
        assert!(!with(11).passed());
    }

    #[test]
    fn what_is_sent_while_hanging_up_does_not_count() {
        let all = || times(1000, 0..0);
        let verdict = verdict(&seen(all(), times(1000, 960..1000)), &seen(all(), all()));
        assert!(verdict.passed(), "{verdict}");
    }

    #[test]
    fn without_media_or_a_stale_nonce_nothing_was_tested() {
        let nothing = Seen::default();
        let verdict = verdict(&nothing, &nothing);
        assert_eq!(verdict.faults.len(), 3, "{verdict}");
    }
}

//! What happened how often.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Write as _},
};

use relay_common::outcome::{self, Outcome, Verdict};

/// What the client's side has, or a datagram of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    ChannelData,
    Indication,
    Datagram,
}

/// How a packet was forwarded: what came by which family, and what left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    pub came: Form,
    pub left: Form,
    pub from_ipv6: bool,
    pub to_ipv6: bool,
}

impl Forwarded {
    /// Every way there is: nothing comes from a peer and goes to a peer.
    pub fn all() -> impl Iterator<Item = Self> {
        const FORMS: [Form; 3] = [Form::ChannelData, Form::Indication, Form::Datagram];
        let forms = FORMS.into_iter().flat_map(|came| FORMS.map(|left| (came, left)));
        forms.filter(|&forms| forms != (Form::Datagram, Form::Datagram)).flat_map(|(came, left)| {
            [(false, false), (false, true), (true, false), (true, true)].map(|(from_ipv6, to_ipv6)| Self {
                came,
                left,
                from_ipv6,
                to_ipv6,
            })
        })
    }

    /// By forms, by families.
    const fn index(self) -> (usize, usize) {
        (self.came as usize * 3 + self.left as usize, self.from_ipv6 as usize * 2 + self.to_ipv6 as usize)
    }
}

impl Display for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |form, is_in| match (form, is_in) {
            (Form::ChannelData, _) => "ChannelData",
            (Form::Indication, true) => "Send indication",
            (Form::Indication, false) => "Data indication",
            (Form::Datagram, true) => "peer's datagram",
            (Form::Datagram, false) => "datagram to peer",
        };
        let family = |ipv6| if ipv6 { 6 } else { 4 };
        let (came, left) = (name(self.came, true), name(self.left, false));
        write!(f, "{came} -> {left}, {} to {}", family(self.from_ipv6), family(self.to_ipv6))
    }
}

/// What the program made of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    Forwarded(Forwarded),
    Stopped(Outcome),
    NotOurs,
}

#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub packets: u64,
    pub worlds: u64,
    forwarded: [[u64; 4]; 9],
    stopped: [u64; outcome::COUNT as usize],
    not_ours: u64,
    kinds: BTreeMap<&'static str, [u64; 2]>,
}

impl Tally {
    pub fn count(&mut self, kind: &'static str, judged: Judged) {
        self.packets += 1;
        let [forwarded, all] = self.kinds.entry(kind).or_default();
        *all += 1;
        match judged {
            Judged::Forwarded(way) => {
                *forwarded += 1;
                let (forms, families) = way.index();
                self.forwarded[forms][families] += 1;
            }
            Judged::Stopped(outcome) => self.stopped[outcome as usize] += 1,
            Judged::NotOurs => self.not_ours += 1,
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.worlds += other.worlds;
        self.not_ours += other.not_ours;
        for (mine, theirs) in self.forwarded.as_flattened_mut().iter_mut().zip(other.forwarded.as_flattened())
        {
            *mine += theirs;
        }
        for (mine, theirs) in self.stopped.iter_mut().zip(other.stopped) {
            *mine += theirs;
        }
        for (kind, theirs) in &other.kinds {
            let mine = self.kinds.entry(kind).or_default();
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
        }
    }

    const fn by_way(&self, way: Forwarded) -> u64 {
        let (forms, families) = way.index();
        self.forwarded[forms][families]
    }

    pub fn forwarded(&self) -> u64 {
        self.forwarded.as_flattened().iter().sum()
    }

    /// Each way to forward, and each reason not to, that a run must see, and how often it did.
    pub fn required(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let forwarded = Forwarded::all().map(|way| (way.to_string(), self.by_way(way)));
        // After the first change to a packet nothing is expected to fail.
        let outcomes = Outcome::ALL.iter().filter(|&&outcome| outcome != Outcome::Rewrite);
        let stopped = outcomes.map(|&outcome| (outcome.name().to_owned(), self.stopped[outcome as usize]));
        forwarded.chain(stopped)
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |count: u64| {
            let mut text = String::new();
            write!(text, "{count:>10} {:6.2} %", count as f64 * 100.0 / self.packets as f64).map(|()| text)
        };
        writeln!(f, "{} packets in {} worlds", self.packets, self.worlds)?;
        writeln!(f, "{}  forwarded", part(self.forwarded())?)?;
        for way in Forwarded::all() {
            writeln!(f, "{}    {way}", part(self.by_way(way))?)?;
        }
        for verdict in [Verdict::Punt, Verdict::Drop] {
            let outcomes = || Outcome::ALL.iter().filter(move |outcome| outcome.verdict() == verdict);
            let sum = outcomes().map(|&outcome| self.stopped[outcome as usize]).sum();
            let name = if verdict == Verdict::Punt { "punted" } else { "dropped" };
            writeln!(f, "{}  {name}", part(sum)?)?;
            for &outcome in outcomes() {
                writeln!(f, "{}    {}", part(self.stopped[outcome as usize])?, outcome.name())?;
            }
        }
        writeln!(f, "{}  left to the kernel uncounted", part(self.not_ours)?)?;
        writeln!(f, "sent as (of these, forwarded):")?;
        for (kind, [forwarded, all]) in &self.kinds {
            writeln!(f, "{}    {kind} ({forwarded})", part(*all)?)?;
        }
        Ok(())
    }
}

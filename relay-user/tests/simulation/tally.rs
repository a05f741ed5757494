//! How often each thing happened. A run in which one of them is rare has not tested it.

use std::collections::BTreeMap;

/// Everything that a run must see, and how often at least: less than half of what is usual.
const EXPECTED: &[(&str, u64)] = &[
    ("allocate: created from a reservation", 400),
    ("allocate: created, IPv4", 20_000),
    ("allocate: created, IPv6", 8000),
    ("allocate: created, both families", 6000),
    ("allocate: created, one family of two", 4000),
    ("allocate: created, with the next port reserved", 2000),
    ("allocate: repeated", 2000),
    ("allocation: expired", 20_000),
    ("binding", 10_000),
    ("channel data: dropped", 60_000),
    ("channel data: to a client in an indication", 500),
    ("channel data: to a client's channel", 1000),
    ("channel data: to peer, IPv4", 9000),
    ("channel data: to peer, IPv6", 3000),
    ("channel: bound", 20_000),
    ("channel: bound again after its end", 3000),
    ("channel: bound to a relayed address", 10_000),
    ("channel: expired", 20_000),
    ("channel: refreshed", 10_000),
    ("error 300", 2000),
    ("error 400", 40_000),
    ("error 401", 50_000),
    ("error 403", 3000),
    ("error 420", 3000),
    ("error 437", 20_000),
    ("error 438", 30_000),
    ("error 440", 6000),
    ("error 441", 6000),
    ("error 442", 700),
    ("error 443", 8000),
    ("error 486", 3000),
    ("error 508", 20_000),
    ("from peer: dropped", 20_000),
    ("from peer: to a client in an indication", 9000),
    ("from peer: to a client's channel", 4000),
    ("hostile: changed on the way", 6000),
    ("hostile: data without allocation", 6000),
    ("hostile: noise", 6000),
    ("hostile: stolen nonce", 6000),
    ("icmp: dropped", 10_000),
    ("icmp: to client", 4000),
    ("kernel: left to the core, for want of a meter", 4000),
    ("kernel: to a client in an indication", 9000),
    ("kernel: to a client's channel", 5000),
    ("kernel: to peer", 20_000),
    ("limit: a stranger is not answered", 900),
    ("network: answer lost", 10_000),
    ("network: late", 10_000),
    ("network: lost", 10_000),
    ("network: twice", 10_000),
    ("permission: expired", 50_000),
    ("permission: installed", 30_000),
    ("permission: refreshed", 10_000),
    ("refresh: deleted", 10_000),
    ("refresh: deleted one family of two", 1000),
    ("refresh: deletion repeated", 90),
    ("refresh: prolonged", 20_000),
    ("reservation: expired", 2000),
    ("send: dropped", 40_000),
    ("send: to a client in an indication", 1000),
    ("send: to a client's channel", 200),
    ("send: to peer, IPv4", 7000),
    ("send: to peer, IPv6", 2000),
    ("session", 100_000),
    ("session: begun again from the same address", 8000),
];

#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<String, u64>);

impl Tally {
    pub fn count(&mut self, what: &str) {
        match self.0.get_mut(what) {
            Some(count) => *count += 1,
            None => {
                self.0.insert(what.to_owned(), 1);
            }
        }
    }

    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: Self) {
        for (what, count) in other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    pub fn print(&self) {
        for (what, count) in &self.0 {
            println!("{count:>12}  {what}");
        }
    }

    /// What happened less often than it must.
    pub fn rare(&self) -> Vec<String> {
        EXPECTED
            .iter()
            .filter(|&&(what, least)| self.of(what) < least)
            .map(|&(what, least)| format!("{what}: {}, not {least}", self.of(what)))
            .collect()
    }
}

//! How often each thing happened. A run in which one of them is rare has not tested it.

use std::collections::BTreeMap;

/// Everything a run must see, and how often at least, for each 100,000 sessions.
const EXPECTED: &[(&str, u64)] = &[
    ("session", 100_000),
    ("allocate: created", 100_000),
    ("allocate: repeated", 1_000),
    ("refresh: prolonged", 1_000),
    ("refresh: deleted", 1_000),
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

    /// What happened less often than a run of so many sessions must see.
    pub fn rare(&self, sessions: u64) -> Vec<String> {
        let least = |expected: u64| (expected * sessions / 100_000).max(1);
        EXPECTED
            .iter()
            .filter(|&&(what, expected)| self.of(what) < least(expected))
            .map(|&(what, expected)| format!("{what}: {}, not {}", self.of(what), least(expected)))
            .collect()
    }
}

//! How often each thing happened. A run in which one of them is rare has not tested it.

use std::collections::BTreeMap;

/// Everything that a run must see, and how often at least: less than half of what is usual.
const EXPECTED: &[(&str, u64)] = &[("session", 100_000)];

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

//! What passed, failed and was skipped, by tier.

use std::fmt;
use std::time::{Duration, Instant};

use super::Tier;

/// Results of some tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) passed: usize,
    pub(super) failed: usize,
    skipped: usize,
    reasons: Vec<String>,
}

impl Outcome {
    /// Tests that could not run, and why.
    pub(super) fn skipped(count: usize, reason: String) -> Self {
        Self { skipped: count, reasons: vec![format!("{count}: {reason}")], ..Self::default() }
    }

    fn total(&self) -> usize {
        self.passed + self.failed + self.skipped
    }
}

/// The table at the end.
#[derive(Debug)]
pub(super) struct Summary {
    rows: Vec<(Tier, Outcome, Duration)>,
    last: Instant,
}

impl Default for Summary {
    fn default() -> Self {
        Self { rows: Vec::new(), last: Instant::now() }
    }
}

impl Summary {
    /// Adds results to a tier's row, and the time since the last ones.
    pub(super) fn add(&mut self, tier: Tier, outcome: Outcome) {
        let spent = self.last.elapsed();
        self.last = Instant::now();
        if !self.rows.iter().any(|(found, ..)| *found == tier) {
            self.rows.push((tier, Outcome::default(), Duration::ZERO));
        }
        let (_, row, time) =
            self.rows.iter_mut().find(|(found, ..)| *found == tier).expect("the row was just added");
        row.passed += outcome.passed;
        row.failed += outcome.failed;
        row.skipped += outcome.skipped;
        row.reasons.extend(outcome.reasons);
        *time += spent;
    }

    pub(super) fn failed(&self) -> usize {
        self.rows.iter().map(|(_, row, _)| row.failed).sum()
    }

    pub(super) fn skipped(&self) -> usize {
        self.rows.iter().map(|(_, row, _)| row.skipped).sum()
    }

    /// Whether no test was found.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.iter().all(|(_, row, _)| row.total() == 0)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:13}{:>8}{:>8}{:>9}{:>8}", "tier", "passed", "failed", "SKIPPED", "seconds")?;
        for (tier, row, time) in &self.rows {
            let Outcome { passed, failed, skipped, .. } = row;
            writeln!(f, "{:13}{passed:>8}{failed:>8}{skipped:>9}{:>8}", tier.name(), time.as_secs())?;
        }
        for (tier, row, _) in &self.rows {
            for reason in &row.reasons {
                writeln!(f, "SKIPPED {} {reason}", tier.name())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_adds_up_by_tier_and_gives_reasons() {
        let mut summary = Summary::default();
        assert!(summary.is_empty());
        summary.add(Tier::Unit, Outcome { passed: 2, ..Outcome::default() });
        summary.add(Tier::Lab, Outcome { passed: 3, failed: 1, ..Outcome::default() });
        summary.add(Tier::Lab, Outcome::skipped(4, "needs root".to_owned()));
        assert_eq!((summary.failed(), summary.skipped()), (1, 4));
        let table = summary.to_string();
        assert!(table.contains("lab                 3       1        4"), "{table}");
        assert!(table.contains("SKIPPED lab 4: needs root"), "{table}");
    }
}

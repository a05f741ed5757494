//! The arguments: why a requirement is done otherwise than the letter, does not apply, or is not done yet.

use anyhow::{Context, bail};
use serde::Deserialize;

use super::row_id::{RowId, leading_list};

/// All arguments, in the file's order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    /// What is done otherwise than the letter.
    #[serde(default, rename = "deviation")]
    pub(super) deviations: Vec<Deviation>,
    #[serde(default)]
    not_applicable: Vec<Reason>,
    #[serde(default)]
    later: Vec<Reason>,
}

/// Something that is done otherwise than the letter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Deviation {
    /// A list of IDs; empty where the deviation is from a text that has no row.
    #[serde(default, deserialize_with = "rows")]
    pub(super) rows: Vec<RowId>,
    /// What it is about.
    pub(super) what: String,
    /// What the letter asks.
    pub(super) letter: String,
    /// What is done instead.
    pub(super) turnpike: String,
    /// Why.
    pub(super) reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    #[serde(deserialize_with = "rows")]
    rows: Vec<RowId>,
    reason: String,
}

impl Arguments {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let arguments: Self = toml::from_str(text).context("cannot be read")?;
        for reason in arguments.not_applicable.iter().chain(&arguments.later) {
            if reason.rows.is_empty() {
                bail!("an argument for no row: {:?}", reason.reason);
            }
        }
        Ok(arguments)
    }

    /// What is said about a row.
    pub(super) fn about(&self, id: &RowId) -> Vec<String> {
        let deviations = self.deviations.iter().filter(|deviation| deviation.rows.contains(id));
        let deviations = deviations.map(|deviation| format!("Deviation: {}", deviation.what));
        let with = |kind: &'static str, reasons: &[Reason]| {
            let about = reasons.iter().filter(|reason| reason.rows.contains(id));
            about.map(|reason| format!("{kind}: {}", reason.reason)).collect::<Vec<_>>()
        };
        deviations
            .chain(with("Not applicable", &self.not_applicable))
            .chain(with("Later", &self.later))
            .collect()
    }

    /// Every ID that an argument names.
    pub(super) fn rows(&self) -> impl Iterator<Item = &RowId> {
        let reasons = self.not_applicable.iter().chain(&self.later);
        let rows = self.deviations.iter().map(|deviation| &deviation.rows);
        rows.chain(reasons.map(|reason| &reason.rows)).flatten()
    }
}

fn rows<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<RowId>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let (rows, rest) = leading_list(&text);
    if !rest.is_empty() || rows.is_empty() {
        return Err(serde::de::Error::custom(format!(
            "{text:?} is not a list of IDs, such as \"STUN-001, TURN-018 to TURN-020\""
        )));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_says_something_about_its_rows() {
        let arguments = Arguments::parse(
            r#"
            [[deviation]]
            rows = "TURN-108"
            what = "Permission of a bound peer"
            letter = "300 s"
            turnpike = "as long as its channel"
            reason = "clients rely on it"

            [[deviation]]
            what = "No row"
            letter = "a"
            turnpike = "b"
            reason = "c"

            [[not_applicable]]
            rows = "TURN-209"
            reason = "no queue"

            [[later]]
            rows = "TURN-018 to TURN-020, STUN-008"
            reason = "streams"
            "#,
        )
        .unwrap();
        let about = |id| arguments.about(&RowId::parse(id).unwrap()).join("|");
        assert_eq!(about("TURN-108"), "Deviation: Permission of a bound peer");
        assert_eq!(about("TURN-209"), "Not applicable: no queue");
        assert_eq!(about("TURN-019"), "Later: streams");
        assert_eq!(about("STUN-008"), "Later: streams");
        assert_eq!(about("TURN-021"), "");
        assert_eq!(arguments.rows().count(), 6);
        assert_eq!(arguments.deviations.len(), 2);
    }

    #[test]
    fn what_is_not_a_list_of_ids_is_refused() {
        for rows in ["", "TURN-18", "TURN-018 and so on", "TURN-018,TURN-019"] {
            let text = format!("[[later]]\nrows = {rows:?}\nreason = \"r\"\n");
            let error = format!("{:#}", Arguments::parse(&text).unwrap_err());
            assert!(error.contains("is not a list of IDs"), "{rows}: {error}");
        }
        let unknown = "[[sometime]]\nrows = \"TURN-018\"\nreason = \"r\"\n";
        assert!(format!("{:#}", Arguments::parse(unknown).unwrap_err()).contains("sometime"));
    }
}

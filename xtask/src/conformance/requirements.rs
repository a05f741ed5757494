//! The requirements: Markdown tables whose first column is `ID`.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, bail, ensure};

use super::row_id::RowId;

/// The tables whose MUST and SHOULD rows have to be tested or argued.
const ENFORCED: [&str; 6] = ["STUN", "MUX", "TURN", "ICMP", "VEC", "DP"];

/// All tables, in the file's order.
#[derive(Debug)]
pub(super) struct Requirements {
    pub(super) tables: Vec<Table>,
}

/// One table.
#[derive(Debug)]
pub(super) struct Table {
    /// What its IDs begin with.
    pub(super) prefix: String,
    /// The heading it stands under.
    pub(super) title: String,
    /// In the file's order.
    pub(super) rows: Vec<Row>,
}

/// One requirement.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: RowId,
    pub(super) level: Level,
    pub(super) text: String,
    /// The RFC's section.
    pub(super) source: String,
    /// The group it begins, if it is the first of one.
    pub(super) group: Option<String>,
}

/// How binding a requirement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Must,
    Should,
    May,
}

impl Requirements {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut tables: Vec<Table> = Vec::new();
        let mut lines_of_ids = BTreeMap::new();
        let mut title = "";
        let mut group = None;
        let mut in_table = false;
        for (line, number) in text.lines().zip(1..) {
            if let Some(heading) = line.strip_prefix("## ") {
                title = heading;
            }
            let Some(cells) = cells(line) else {
                in_table = false;
                continue;
            };
            if cells[0] == "ID" {
                in_table = true;
                group = None;
                continue;
            }
            if !in_table || cells[0].starts_with("--") {
                continue;
            }
            let [id, level, text, source] = cells[..] else {
                bail!("line {number}: {} columns in a table of requirements, which has 4", cells.len())
            };
            if id.is_empty() {
                group = Some(text.trim_matches('*').to_owned());
                continue;
            }
            let id = RowId::parse(id).with_context(|| format!("line {number}: {id:?} is not an ID"))?;
            let level = Level::parse(level)
                .with_context(|| format!("line {number}: {level:?} is not MUST, SHOULD or MAY"))?;
            if let Some(earlier) = lines_of_ids.insert(id.clone(), number) {
                bail!("line {number}: {id} stands in line {earlier} already");
            }
            if tables.last().is_none_or(|table| table.title != title) {
                tables.push(Table { prefix: id.table.clone(), title: title.to_owned(), rows: Vec::new() });
            }
            let table = tables.last_mut().expect("one was pushed");
            ensure!(id.table == table.prefix, "line {number}: {id} stands among rows of {}", table.prefix);
            let (text, source) = (text.to_owned(), source.to_owned());
            table.rows.push(Row { id, level, text, source, group: group.take() });
        }
        for prefix in ENFORCED {
            ensure!(tables.iter().any(|table| table.prefix == prefix), "there is no table {prefix}");
        }
        Ok(Self { tables })
    }

    pub(super) fn contains(&self, id: &RowId) -> bool {
        self.tables.iter().any(|table| table.rows.iter().any(|row| row.id == *id))
    }

    /// The tables whose MUST and SHOULD rows have to be tested or argued.
    pub(super) fn enforced(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(|table| table.is_enforced())
    }
}

impl Table {
    pub(super) fn is_enforced(&self) -> bool {
        ENFORCED.contains(&self.prefix.as_str())
    }
}

impl Level {
    pub(super) const ALL: [Self; 3] = [Self::Must, Self::Should, Self::May];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.to_string() == text)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::May => "MAY",
        })
    }
}

/// The cells of a line of a Markdown table.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The tables, the first of them with a few rows.
    pub(in crate::conformance) fn sample() -> String {
        let others = ["MUX", "TURN", "ICMP", "VEC", "DP"];
        let others = others.map(|prefix| {
            format!(
                "\n## Of {prefix}\n\n| ID | Level | Requirement | Source |\n|---|---|---|---|\n\
                 | {prefix}-001 | MAY | Something | §1 |\n"
            )
        });
        format!(
            "# Requirements\n\n## Constants\n\n| Constant | Value |\n|---|---|\n| TURN-999 | 7 |\n\n\
             ## RFC 8489: STUN\n\n| ID | Level | Requirement | RFC section |\n|---|---|---|---|\n\
             | | | **Header** | |\n| STUN-001 | MUST | Twenty bytes | §5 |\n| STUN-002 | SHOULD | Zero bits | §5 |\n\
             | | | **Sizes** | |\n| STUN-003 | MAY | Fits | §6.1 |\n{}",
            others.concat()
        )
    }

    #[test]
    fn rows_have_level_group_and_source() {
        let requirements = Requirements::parse(&sample()).unwrap();
        assert_eq!(requirements.tables.len(), ENFORCED.len());
        let table = &requirements.tables[0];
        assert_eq!((table.prefix.as_str(), table.title.as_str()), ("STUN", "RFC 8489: STUN"));
        let rows: Vec<_> = table
            .rows
            .iter()
            .map(|row| {
                (row.id.to_string(), row.level, row.text.as_str(), row.source.as_str(), row.group.as_deref())
            })
            .collect();
        assert_eq!(
            rows,
            [
                ("STUN-001".to_owned(), Level::Must, "Twenty bytes", "§5", Some("Header")),
                ("STUN-002".to_owned(), Level::Should, "Zero bits", "§5", None),
                ("STUN-003".to_owned(), Level::May, "Fits", "§6.1", Some("Sizes")),
            ]
        );
        assert!(requirements.contains(&RowId::parse("VEC-001").unwrap()));
        // A table without the column `ID` is another kind of table.
        assert!(!requirements.contains(&RowId::parse("TURN-999").unwrap()));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let complaint = |from: &str, to: &str| {
            let text = sample();
            assert!(text.contains(from));
            Requirements::parse(&text.replacen(from, to, 1)).unwrap_err().to_string()
        };
        assert_eq!(complaint("STUN-002", "STUN-001"), "line 15: STUN-001 stands in line 14 already");
        assert_eq!(complaint("STUN-002", "STUN-2"), "line 15: \"STUN-2\" is not an ID");
        assert_eq!(complaint("STUN-002", "MUX-002"), "line 15: MUX-002 stands among rows of STUN");
        assert_eq!(complaint("SHOULD", "OUGHT"), "line 15: \"OUGHT\" is not MUST, SHOULD or MAY");
        assert_eq!(
            complaint("| Zero bits", "| Zero | bits"),
            "line 15: 5 columns in a table of requirements, which has 4"
        );
        assert_eq!(complaint("| DP-001 | MAY | Something | §1 |", ""), "there is no table DP");
    }
}

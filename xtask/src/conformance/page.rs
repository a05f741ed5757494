//! The page: how much is done, the deviations, then every row with its tests or arguments.

use std::fmt::Write;

use super::Conformance;
use super::requirements::{Level, Row, Table};

const INTRODUCTION: &str = "\
<!-- Written by `cargo xtask conformance`: change tests, docs/conformance/requirements.md or docs/conformance/arguments.toml. -->

# Conformance

What the RFCs ask of a TURN server is numbered, sentence by sentence, in [conformance/requirements.md](conformance/requirements.md):
STUN- (RFC 8489), MUX- (RFC 7983), TURN- (RFC 8656), ICMP- (RFC 792, RFC 4443), VEC- (test vectors), DP- (what the kernel
program must uphold by itself). Tests carry the numbers of the rows that they prove in their names or first comment lines. Where no test
proves a row, [conformance/arguments.toml](conformance/arguments.toml) says why. CI fails when a MUST or SHOULD row has neither.
";

/// The whole page. The same input gives the same page.
pub(super) fn write(conformance: &Conformance) -> String {
    let mut page = INTRODUCTION.to_owned();
    summary(&mut page, conformance);
    deviations(&mut page, conformance);
    for table in &conformance.requirements.tables {
        if is_begun(table, conformance) {
            rows(&mut page, table, conformance);
        }
    }
    not_begun(&mut page, conformance);
    page
}

/// How many rows of each level are tested, argued, or neither.
fn summary(page: &mut String, conformance: &Conformance) {
    page.push_str("\n| level | rows | tested | argued only | neither |\n|---|---|---|---|---|\n");
    for level in Level::ALL {
        let rows = conformance.requirements.enforced().flat_map(|table| &table.rows);
        let rows: Vec<_> = rows.filter(|row| row.level == level).collect();
        let tested = rows.iter().filter(|row| is_tested(row, conformance)).count();
        let argued =
            rows.iter().filter(|row| !is_tested(row, conformance) && is_argued(row, conformance)).count();
        line(page, &[&level, &rows.len(), &tested, &argued, &(rows.len() - tested - argued)]);
    }
}

fn deviations(page: &mut String, conformance: &Conformance) {
    page.push_str("\n## Deviations, with reasons\n\n| what | rows | the letter | Turnpike | why |\n|---|---|---|---|---|\n");
    for deviation in &conformance.arguments.deviations {
        let ids: Vec<_> = deviation.rows.iter().map(ToString::to_string).collect();
        let ids = ids.join(", ");
        line(page, &[&deviation.what, &ids, &deviation.letter, &deviation.turnpike, &deviation.reason]);
    }
}

fn rows(page: &mut String, table: &Table, conformance: &Conformance) {
    write!(
        page,
        "\n## {}\n\n| ID | level | requirement | tests, or why there is none |\n|---|---|---|---|\n",
        table.title
    )
    .expect("a String takes everything");
    for row in &table.rows {
        if let Some(group) = &row.group {
            line(page, &[&"", &"", &format!("**{group}**"), &""]);
        }
        let tests = conformance.tests.of(&row.id).map(|test| format!("`{}`", test.name));
        let mut proofs: Vec<_> = tests.chain(conformance.arguments.about(&row.id)).collect();
        if proofs.is_empty() && row.level == Level::May {
            proofs.push("–".to_owned());
        } else if proofs.is_empty() {
            proofs.push("**neither test nor argument**".to_owned());
        }
        let requirement = format!("{} ({})", row.text, row.source);
        line(page, &[&row.id, &row.level, &requirement, &proofs.join("<br>")]);
    }
}

/// The tables that belong to features that are not there.
fn not_begun(page: &mut String, conformance: &Conformance) {
    let tables = conformance.requirements.tables.iter();
    let tables: Vec<_> = tables.filter(|table| !is_begun(table, conformance)).collect();
    if tables.is_empty() {
        return;
    }
    page.push_str("\n## Not there yet\n\n| table | rows |\n|---|---|\n");
    for table in tables {
        line(page, &[&table.title, &format!("{0}-001 to {0}-{1:03}", table.prefix, table.rows.len())]);
    }
}

/// Whether a test or an argument names one of its rows.
fn is_begun(table: &Table, conformance: &Conformance) -> bool {
    table.is_enforced()
        || table.rows.iter().any(|row| is_tested(row, conformance) || is_argued(row, conformance))
}

fn is_tested(row: &Row, conformance: &Conformance) -> bool {
    conformance.tests.of(&row.id).next().is_some()
}

fn is_argued(row: &Row, conformance: &Conformance) -> bool {
    !conformance.arguments.about(&row.id).is_empty()
}

/// A line of a table.
fn line(page: &mut String, cells: &[&dyn std::fmt::Display]) {
    page.push('|');
    for cell in cells {
        let cell = cell.to_string().replace('\n', " ");
        write!(page, " {} |", cell.trim()).expect("a String takes everything");
    }
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::conformance::arguments::Arguments;
    use crate::conformance::requirements::Requirements;
    use crate::conformance::requirements::tests::sample;
    use crate::conformance::scan::Tests;

    #[test]
    fn page_counts_lists_deviations_first_and_then_every_row() {
        let tests = "#[test] fn stun_001_b() {}\n#[test] fn stun_001_a() {}";
        let arguments = "[[deviation]]\nrows = \"STUN-001\"\nwhat = \"W\"\nletter = \"L\"\nturnpike = \"T\"\n\
                         reason = \"R\"\n[[later]]\nrows = \"STUN-002\"\nreason = \"streams\"\n";
        let later = "\n## RFC 6062\n\n| ID | Level | Requirement | S |\n|---|---|---|---|\n| TCP-001 | MUST | C | §1 |\n";
        let page = write(&Conformance {
            requirements: Requirements::parse(&(sample() + later)).unwrap(),
            tests: Tests::of_source(Path::new("x.rs"), "protocol::x", tests).unwrap(),
            arguments: Arguments::parse(arguments).unwrap(),
        });
        let lines: Vec<_> = page.lines().skip_while(|line| !line.starts_with("| level")).collect();
        let expected = "\
| level | rows | tested | argued only | neither |
|---|---|---|---|---|
| MUST | 1 | 1 | 0 | 0 |
| SHOULD | 1 | 0 | 1 | 0 |
| MAY | 6 | 0 | 0 | 6 |

## Deviations, with reasons

| what | rows | the letter | Turnpike | why |
|---|---|---|---|---|
| W | STUN-001 | L | T | R |

## RFC 8489: STUN

| ID | level | requirement | tests, or why there is none |
|---|---|---|---|
|  |  | **Header** |  |
| STUN-001 | MUST | Twenty bytes (§5) | `protocol::x::stun_001_b`<br>`protocol::x::stun_001_a`<br>Deviation: W |
| STUN-002 | SHOULD | Zero bits (§5) | Later: streams |
|  |  | **Sizes** |  |
| STUN-003 | MAY | Fits (§6.1) | – |
";
        assert_eq!(lines[..expected.lines().count()].join("\n"), expected.trim_end());
        assert!(page.ends_with(
            "\n## Not there yet\n\n| table | rows |\n|---|---|\n| RFC 6062 | TCP-001 to TCP-001 |\n"
        ));
    }
}

//! What the check complains of: each complaint names the row, the place and the remedy.

use super::requirements::Level;
use super::{ARGUMENTS, Conformance, REQUIREMENTS};

/// Everything that is wrong, in a stable order.
pub(super) fn complaints(conformance: &Conformance) -> Vec<String> {
    let Conformance { requirements, tests, arguments } = conformance;
    let mut complaints = Vec::new();
    for (id, test) in tests.unknown(requirements) {
        complaints.push(format!(
            "{id} is no row of {REQUIREMENTS}: correct the ID in the name or comment of {} ({}:{})",
            test.name,
            test.file.display(),
            test.line
        ));
    }
    for id in arguments.rows().filter(|id| !requirements.contains(id)) {
        complaints.push(format!("{id} is no row of {REQUIREMENTS}: correct the argument in {ARGUMENTS}"));
    }
    for row in requirements.enforced().flat_map(|table| &table.rows) {
        let is_open = tests.of(&row.id).next().is_none() && arguments.about(&row.id).is_empty();
        if is_open && row.level != Level::May {
            let in_name = row.id.to_string().to_lowercase().replace('-', "_");
            complaints.push(format!(
                "{} ({}) has no test and no argument: {}\n    \
                 name it in the test that proves it (fn {in_name}_…, or // {} in the test), \
                 or argue in {ARGUMENTS} why there is none",
                row.id, row.level, row.text, row.id
            ));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::conformance::arguments::Arguments;
    use crate::conformance::requirements::Requirements;
    use crate::conformance::requirements::tests::sample;
    use crate::conformance::scan::Tests;
    use crate::conformance::{ARGUMENTS, Conformance, PAGE, REQUIREMENTS, check};

    const TEST: &str = "#[test]\nfn stun_001_header() {}\n";
    const ARGUMENT: &str = "[[later]]\nrows = \"STUN-002\"\nreason = \"streams\"\n";

    fn complaints(tests: &str, arguments: &str) -> Vec<String> {
        let conformance = Conformance {
            requirements: Requirements::parse(&sample()).unwrap(),
            tests: Tests::of_source(Path::new("a/src/lib.rs"), "a", tests).unwrap(),
            arguments: Arguments::parse(arguments).unwrap(),
        };
        conformance.complaints()
    }

    #[test]
    fn tested_and_argued_rows_are_enough() {
        assert_eq!(complaints(TEST, ARGUMENT), [""; 0]);
    }

    #[test]
    fn must_and_should_rows_without_either_are_named() {
        let without_test = complaints("", ARGUMENT);
        assert_eq!(without_test.len(), 1);
        assert!(without_test[0].starts_with("STUN-001 (MUST) has no test and no argument: Twenty bytes"));
        assert!(without_test[0].contains("fn stun_001_…"));
        let without_argument = complaints(TEST, "");
        assert_eq!(without_argument.len(), 1);
        assert!(without_argument[0].starts_with("STUN-002 (SHOULD)"));
    }

    #[test]
    fn rows_that_do_not_exist_are_named_with_their_place() {
        let tests = format!("{TEST}\n#[test]\nfn turn_777_nothing() {{}}\n");
        let arguments = format!("{ARGUMENT}[[not_applicable]]\nrows = \"MUX-099\"\nreason = \"r\"\n");
        let complaints = complaints(&tests, &arguments);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].starts_with("TURN-777 is no row of"), "{}", complaints[0]);
        assert!(complaints[0].ends_with("a::turn_777_nothing (a/src/lib.rs:5)"), "{}", complaints[0]);
        assert!(complaints[1].starts_with("MUX-099 is no row of"), "{}", complaints[1]);
    }

    #[test]
    fn stale_page_fails_the_check() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(REQUIREMENTS, &sample());
        write(ARGUMENTS, ARGUMENT);
        write("relay-user/tests/protocol/main.rs", TEST);
        let page = Conformance::read(root.path()).unwrap().page();
        assert!(check(root.path()).is_err(), "there is no page");
        write(PAGE, &page);
        check(root.path()).unwrap();
        write("relay-user/tests/protocol/more.rs", "#[test]\nfn stun_001_again() {}\n");
        assert!(check(root.path()).is_err(), "the page does not have the new test");
    }
}

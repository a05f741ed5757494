//! The tests, and the requirements that they name: in the function's name (`turn_075_076_…` anywhere in it), or in a
//! comment that begins with IDs, above the function or in it (`// TURN-176, TURN-188: why`).
//!
//! The source is read as tokens, so that what stands in `proptest! { … }` counts too, and what stands in comments
//! or strings does not. Only what runs counts: functions marked `#[test]` or `#[tokio::test]`, unless they are
//! ignored for another reason than a missing privilege, and functions that a macro of [`TEST_MACROS`] calls.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::requirements::Requirements;
use super::row_id::{RowId, leading_list, row_number};

/// The packages that have tests.
const PACKAGES: [&str; 5] = ["relay-common", "relay-ebpf", "relay-user", "xtask", "benches"];

/// Macros that make tests of the functions that they are given.
const TEST_MACROS: [&str; 1] = ["on_each_datapath"];

/// The tables that test names may name, as they appear in them.
const PREFIXES: [&str; 12] =
    ["stun", "mux", "turn", "icmp", "vec", "dp", "tls", "tcp", "mob", "oauth", "nat", "disc"];

/// Error codes of STUN and TURN. They may follow the IDs in a name (`turn_117_508_when_full`); no row has such a number.
const ERROR_CODES: [u16; 16] =
    [300, 400, 401, 403, 405, 420, 437, 438, 440, 441, 442, 443, 446, 447, 486, 508];

/// Every test that names a requirement, in the order of files and lines.
#[derive(Debug)]
pub(super) struct Tests(Vec<Test>);

/// A test that names requirements.
#[derive(Debug)]
pub(super) struct Test {
    /// As in `protocol::allocate::turn_036_…`.
    pub(super) name: String,
    /// Below the workspace's root.
    pub(super) file: PathBuf,
    pub(super) line: usize,
    rows: BTreeSet<RowId>,
}

impl Tests {
    /// Reads the sources of all packages.
    pub(super) fn find(root: &Path) -> anyhow::Result<Self> {
        let mut tests = Vec::new();
        for package in PACKAGES {
            for (directory, prefix) in [("src", Some(package.replace('-', "_"))), ("tests", None)] {
                let mut files = Vec::new();
                collect(&root.join(package).join(directory), &mut files)?;
                files.sort();
                for path in files {
                    let file = path.strip_prefix(root).expect("it was found below the root").to_owned();
                    let source = std::fs::read_to_string(&path)
                        .with_context(|| format!("could not read {}", file.display()))?;
                    let below = path.strip_prefix(root.join(package).join(directory)).expect("as above");
                    let module = module(prefix.as_deref(), below);
                    tests.extend(Self::of_source(&file, &module, &source)?.0);
                }
            }
        }
        Ok(Self(tests))
    }

    /// Those in one file, which is the module `module`.
    pub(super) fn of_source(file: &Path, module: &str, source: &str) -> anyhow::Result<Self> {
        let tokens: TokenStream =
            source.parse().map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
        let mut in_strings = BTreeSet::new();
        lines_in_strings(tokens.clone(), &mut in_strings);
        let mut functions = Vec::new();
        let mut named_by_macros = BTreeSet::new();
        walk(tokens, module, &mut functions, &mut named_by_macros);
        let lines = source.lines().zip(1..);
        let lines: Vec<_> =
            lines.map(|(line, number)| if in_strings.contains(&number) { "" } else { line.trim() }).collect();
        let tests = functions.into_iter().filter(|function| {
            function.is_test || named_by_macros.contains(&(function.module.clone(), function.name.clone()))
        });
        let tests = tests.map(|function| Test {
            rows: rows_in_name(&function.name).chain(rows_in_comments(&lines, &function)).collect(),
            name: format!("{}::{}", function.module, function.name),
            file: file.to_owned(),
            line: function.line,
        });
        Ok(Self(tests.filter(|test| !test.rows.is_empty()).collect()))
    }

    /// The tests that name a row.
    pub(super) fn of(&self, id: &RowId) -> impl Iterator<Item = &Test> {
        self.0.iter().filter(move |test| test.rows.contains(id))
    }

    /// IDs that are no rows, and where they are named.
    pub(super) fn unknown<'a>(
        &'a self,
        requirements: &'a Requirements,
    ) -> impl Iterator<Item = (&'a RowId, &'a Test)> {
        let named = self.0.iter().flat_map(|test| test.rows.iter().map(move |id| (id, test)));
        named.filter(|(id, _)| !requirements.contains(id))
    }
}

/// The Rust files below a directory, which may not exist.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !directory.is_dir() {
        return Ok(());
    }
    for entry in
        std::fs::read_dir(directory).with_context(|| format!("could not read {}", directory.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The module that a file is: of a crate (`relay_user::turn::nonce`), or of a test target (`protocol::allocate`).
fn module(crate_name: Option<&str>, file: &Path) -> String {
    let stem = file.with_extension("");
    let parts = stem.iter().filter_map(|part| part.to_str());
    let parts = parts.filter(|part| !["lib", "main", "mod"].contains(part));
    crate_name.into_iter().chain(parts).collect::<Vec<_>>().join("::")
}

/// A function and where it stands; lines count from 1.
#[derive(Debug)]
struct Function {
    module: String,
    name: String,
    is_test: bool,
    /// Of its first attribute, doc comments being attributes, or of itself.
    first_line: usize,
    /// Of its name.
    line: usize,
    last_line: usize,
}

/// The attributes before an item, and where it begins.
#[derive(Debug, Default)]
struct Before {
    first_line: Option<usize>,
    attributes: Vec<String>,
}

impl Before {
    fn is_test(&self) -> bool {
        let is_test = |attribute: &String| {
            let path = attribute.split(['(', '=']).next().unwrap_or_default().trim();
            path == "test" || path.ends_with(":: test") || path.ends_with("::test")
        };
        // As `cargo xtask test` has it: it runs what is ignored because it "needs" something.
        let does_not_run = |attribute: &String| {
            let reason = attribute.strip_prefix("ignore").map(|rest| rest.trim_start_matches([' ', '=']));
            reason.is_some_and(|reason| !reason.starts_with("\"needs "))
        };
        self.attributes.iter().any(is_test) && !self.attributes.iter().any(does_not_run)
    }
}

/// Finds the functions, also in inline modules and in what macros are given.
fn walk(
    tokens: TokenStream,
    module: &str,
    functions: &mut Vec<Function>,
    named_by_macros: &mut BTreeSet<(String, String)>,
) {
    let mut before = Before::default();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        before.first_line.get_or_insert(token.span().start().line);
        match &token {
            TokenTree::Punct(hash) if hash.as_char() == '#' => {
                if let Some(TokenTree::Group(attribute)) = tokens.peek() {
                    before.attributes.push(attribute.stream().to_string());
                    tokens.next();
                }
            }
            TokenTree::Ident(word) => {
                let next = tokens.peek().cloned();
                match (word.to_string().as_str(), next) {
                    ("fn", Some(TokenTree::Ident(name))) => {
                        let body = tokens.find(is_end_of_function);
                        let last_line = body.map_or(0, |body| body.span().end().line);
                        functions.push(Function {
                            module: module.to_owned(),
                            name: name.to_string(),
                            is_test: before.is_test(),
                            first_line: before.first_line.expect("set above"),
                            line: name.span().start().line,
                            last_line,
                        });
                        before = Before::default();
                    }
                    ("mod", Some(TokenTree::Ident(name))) => {
                        tokens.next();
                        if let Some(TokenTree::Group(body)) = tokens.peek() {
                            walk(body.stream(), &format!("{module}::{name}"), functions, named_by_macros);
                        }
                        tokens.next();
                        before = Before::default();
                    }
                    ("macro_rules", _) => {
                        // `!`, the name, the rules.
                        tokens.nth(2);
                        before = Before::default();
                    }
                    (name, Some(TokenTree::Punct(mark))) if mark.as_char() == '!' => {
                        tokens.next();
                        if let Some(TokenTree::Group(given)) = tokens.next() {
                            if TEST_MACROS.contains(&name) {
                                let names = given.stream().into_iter().filter_map(|token| match token {
                                    TokenTree::Ident(name) => Some((module.to_owned(), name.to_string())),
                                    _ => None,
                                });
                                named_by_macros.extend(names);
                            } else {
                                walk(given.stream(), module, functions, named_by_macros);
                            }
                        }
                        before = Before::default();
                    }
                    ("pub" | "async" | "unsafe" | "extern" | "const", _) => {}
                    _ => before = Before::default(),
                }
            }
            // `(crate)` of `pub(crate)`.
            TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => {}
            // An `impl`, a `trait`, a block: functions in it are no tests.
            TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => before = Before::default(),
        }
    }
}

/// The lines that begin within a string.
fn lines_in_strings(tokens: TokenStream, lines: &mut BTreeSet<usize>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => lines_in_strings(group.stream(), lines),
            TokenTree::Literal(literal) => {
                let span = literal.span();
                lines.extend(span.start().line + 1..=span.end().line);
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

/// Its body, or the semicolon that stands for one.
fn is_end_of_function(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(mark) => mark.as_char() == ';',
        _ => false,
    }
}

/// The rows in a name: a table, then numbers, as often as they come.
fn rows_in_name(name: &str) -> impl Iterator<Item = RowId> {
    let mut table = None;
    let mut previous_was_number = false;
    name.split('_').filter_map(move |word| {
        if PREFIXES.contains(&word) {
            (table, previous_was_number) = (Some(word.to_uppercase()), false);
            return None;
        }
        let number = row_number(word).filter(|number| !(previous_was_number && ERROR_CODES.contains(number)));
        previous_was_number = number.is_some();
        if number.is_none() {
            table = None;
        }
        Some(RowId { table: table.clone()?, number: number? })
    })
}

/// The rows that comment lines above or in a function begin with.
fn rows_in_comments(lines: &[&str], function: &Function) -> Vec<RowId> {
    let index = function.first_line - 1;
    let above = lines[..index].iter().rev().take_while(|line| line.starts_with("//"));
    let in_it = &lines[index..function.last_line.max(index)];
    let comments = above.chain(in_it).filter(|line| line.starts_with("//"));
    comments.flat_map(|line| leading_list(line.trim_start_matches(['/', '!', ' '])).0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `test: rows`, one for each test.
    fn scan(source: &str) -> Vec<String> {
        let tests = Tests::of_source(Path::new("x.rs"), "protocol::x", source).unwrap();
        let show = |test: &Test| {
            let rows: Vec<_> = test.rows.iter().map(ToString::to_string).collect();
            format!("{}:{} {}", test.name.strip_prefix("protocol::x::").unwrap(), test.line, rows.join(" "))
        };
        tests.0.iter().map(show).collect()
    }

    #[test]
    fn names_hold_rows_of_several_tables() {
        assert_eq!(
            scan("#[test]\nfn turn_075_076_and_stun_001_dp_032_hold() {}"),
            ["turn_075_076_and_stun_001_dp_032_hold:2 DP-032 STUN-001 TURN-075 TURN-076"]
        );
        // Words between, other numbers, and error codes are no rows.
        assert_eq!(
            scan("#[test]\nfn turn_117_508_when_full_after_300_s() {}"),
            ["turn_117_508_when_full_after_300_s:2 TURN-117"]
        );
        assert_eq!(scan("#[test]\nfn turns_001_and_4_of_turn_left_002() {}"), [""; 0]);
        // A number that is neither a row nor an error code is kept, to be complained of.
        assert_eq!(scan("#[test]\nfn turn_001_999() {}"), ["turn_001_999:2 TURN-001 TURN-999"]);
    }

    #[test]
    fn only_functions_that_run_as_tests_count() {
        let source = r##"
            fn turn_001_helper() {}
            #[tokio::test(flavor = "current_thread")]
            pub(crate) async fn turn_002_async() {}
            #[test] #[should_panic(expected = "no")] fn turn_003_panics() {}
            // #[test] fn turn_004_comment() {}
            const TEXT: &str = r#"#[test] fn turn_005_string() {}"#;
            #[test]
            #[ignore = "needs root: cargo xtask test"]
            fn turn_006_privileged() {}
            #[test]
            #[ignore = "takes a day"]
            fn turn_007_never() {}
            #[test] #[ignore] fn turn_008_never() {}
            #[cfg(test)]
            fn turn_009_helper() {}
            macro_rules! make { ($name:ident) => { #[test] fn turn_010_made() {} }; }
            impl Thing { fn turn_011_method() {} }
            #[test]
            fn turn_012_after_all_that() { fn turn_013_inner() {} }
        "##;
        let names: Vec<_> =
            scan(source).iter().map(|test| test.split(':').next().unwrap().to_owned()).collect();
        assert_eq!(
            names,
            ["turn_002_async", "turn_003_panics", "turn_006_privileged", "turn_012_after_all_that"]
        );
    }

    #[test]
    fn modules_proptest_and_scenarios_of_the_lab_are_found() {
        let source = "
            mod tests {
                mod deeper { #[test] fn mux_001_a() {} }
                proptest! {
                    #![proptest_config(C { cases: 2 })]
                    #[test]
                    fn mux_002_b(x in any::<bool>()) { let _ = x; }
                }
            }
            on_each_datapath!(mux_003_c, plain);
            fn mux_003_c(datapath: Datapath) {}
            fn plain(datapath: Datapath) {
                // MUX-004, MUX-005: both
            }
            mod elsewhere { fn mux_003_c() {} }";
        assert_eq!(
            scan(source),
            [
                "tests::deeper::mux_001_a:3 MUX-001",
                "tests::mux_002_b:7 MUX-002",
                "mux_003_c:11 MUX-003",
                "plain:12 MUX-004 MUX-005",
            ]
        );
    }

    #[test]
    fn comments_above_and_inside_begin_with_rows() {
        let source = "
            // TURN-001, TURN-002
            /// TURN-003 to TURN-005: said at length
            #[test]
            // TURN-006
            fn a() {
                // TURN-007 and STUN-001: first line,
                // not TURN-008.
                let x = \"
                // TURN-009
                \";
                // Unlike TURN-010, this is text.
                // TURN-011
            }

            // TURN-012

            #[test]
            fn b() {
                // STUN-002
            }";
        assert_eq!(
            scan(source),
            [
                "a:6 STUN-001 TURN-001 TURN-002 TURN-003 TURN-004 TURN-005 TURN-006 TURN-007 TURN-011",
                "b:19 STUN-002",
            ]
        );
    }

    #[test]
    fn files_are_modules() {
        let of = |crate_name, file: &str| module(crate_name, Path::new(file));
        assert_eq!(of(Some("relay_user"), "turn/stun/mod.rs"), "relay_user::turn::stun");
        assert_eq!(of(Some("relay_user"), "lib.rs"), "relay_user");
        assert_eq!(of(None, "protocol/allocate.rs"), "protocol::allocate");
        assert_eq!(of(None, "protocol/main.rs"), "protocol");
        assert_eq!(of(None, "cli.rs"), "cli");
    }

    #[test]
    fn source_that_is_no_rust_is_named() {
        let error = Tests::of_source(Path::new("a/b.rs"), "b", "fn x( {").unwrap_err();
        assert!(error.to_string().starts_with("a/b.rs: "), "{error}");
    }

    #[test]
    fn every_table_can_be_named() {
        let text =
            std::fs::read_to_string(crate::workspace::root().join(super::super::REQUIREMENTS)).unwrap();
        for table in Requirements::parse(&text).unwrap().tables {
            assert!(PREFIXES.contains(&table.prefix.to_lowercase().as_str()), "{}", table.prefix);
            assert!(table.rows.iter().all(|row| !ERROR_CODES.contains(&row.id.number)), "{}", table.prefix);
        }
    }
}

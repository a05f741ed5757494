//! The test binaries: built by cargo, run by us, their results read from libtest's output.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde::Deserialize;

use super::summary::Outcome;
use super::{Tier, package_directory};
use crate::build::REQUIRE_BPF;
use crate::workspace;

/// A compiled test target.
#[derive(Clone, Debug)]
pub(super) struct Binary {
    /// The executable.
    pub(super) path: PathBuf,
    /// The tier that its tests belong to.
    pub(super) tier: Tier,
    name: String,
    manifest: PathBuf,
}

/// Which tests of a binary.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    privileged: bool,
    filter: Option<String>,
    /// Names that contain one of these are left out.
    pub(super) skip: Vec<String>,
    /// Names that do not contain it are left out, if it is given.
    only: Option<String>,
}

impl Selection {
    /// Tests that anyone can run.
    pub(super) fn unprivileged(filter: Option<&str>) -> Self {
        Self { privileged: false, filter: filter.map(str::to_owned), skip: Vec::new(), only: None }
    }

    /// Tests that are ignored because they need privileges.
    pub(super) fn privileged(filter: Option<&str>) -> Self {
        Self { privileged: true, ..Self::unprivileged(filter) }
    }

    /// Those of them whose names contain `part`.
    pub(super) fn only(&self, part: &str) -> Self {
        Self { only: Some(part.to_owned()), ..self.clone() }
    }

    fn contains(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()))
            && self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
            && !self.skip.iter().any(|skip| name.contains(skip.as_str()))
    }
}

/// Builds every test target of the workspace's default members.
pub(super) fn build(userspace: bool) -> anyhow::Result<Vec<Binary>> {
    let mut command = Command::new("cargo");
    command
        .args(["test", "--no-run", "--lib", "--bins", "--tests", "--message-format=json-render-diagnostics"])
        .current_dir(workspace::root())
        .stdout(Stdio::piped());
    if !userspace {
        command.env(REQUIRE_BPF.0, REQUIRE_BPF.1);
    }
    let output = command.spawn().context("could not start cargo")?.wait_with_output()?;
    if !output.status.success() {
        bail!("the tests do not build");
    }
    let mut binaries: Vec<_> = String::from_utf8(output.stdout)?.lines().filter_map(binary).collect();
    binaries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(binaries)
}

/// Runs the examples in the documentation.
pub(super) fn documentation_tests(filter: Option<&str>) -> anyhow::Result<Outcome> {
    let mut command = Command::new("cargo");
    command.args(["test", "--quiet", "--doc"]).current_dir(workspace::root());
    command.arg("--").args(filter);
    watch(&mut command, "documentation")
}

impl Binary {
    /// Runs a selection of its tests; `command` starts the binary, perhaps as root.
    pub(super) fn run(&self, mut command: Command, selection: &Selection) -> anyhow::Result<Outcome> {
        let names: Vec<_> = self.list(selection.privileged)?;
        let names: Vec<_> = names.iter().filter(|name| selection.contains(name)).collect();
        if names.is_empty() {
            return Ok(Outcome::default());
        }
        println!("\n{} tests: {}, {} of them", self.tier.name(), self.name, names.len());
        if selection.privileged {
            command.arg("--ignored");
        }
        if self.tier == Tier::Lab {
            // They would share the machine's few cores, and they count packets.
            command.arg("--test-threads=1");
        }
        if matches!(self.tier, Tier::Program | Tier::Differential) {
            // The program's size and what a packet costs, and what was compared.
            command.arg("--show-output");
        }
        command.arg("--exact").args(names).current_dir(package_directory(&self.manifest));
        watch(&mut command, &self.name)
    }

    /// How many tests a selection has.
    pub(super) fn count(&self, selection: &Selection) -> anyhow::Result<usize> {
        Ok(self.list(selection.privileged)?.iter().filter(|name| selection.contains(name)).count())
    }

    /// The names of its tests: those that need privileges, or the others. Tests that are ignored for another
    /// reason are in neither.
    fn list(&self, privileged: bool) -> anyhow::Result<Vec<String>> {
        let ignored = self.names(&["--list", "--format=terse", "--ignored"], listed)?;
        if !privileged {
            let all = self.names(&["--list", "--format=terse"], listed)?;
            return Ok(all.into_iter().filter(|name| !ignored.contains(name)).collect());
        }
        if ignored.is_empty() {
            return Ok(Vec::new());
        }
        // Not asked for, ignored tests do not run, and libtest says why.
        let mut arguments = vec!["--exact"];
        arguments.extend(ignored.iter().map(String::as_str));
        self.names(&arguments, ignored_for_want_of_privilege)
    }

    fn names(&self, arguments: &[&str], name: fn(&str) -> Option<&str>) -> anyhow::Result<Vec<String>> {
        let mut command = Command::new(&self.path);
        command.args(arguments).current_dir(package_directory(&self.manifest));
        let output = crate::process::output(&mut command)?;
        Ok(output.lines().filter_map(name).map(str::to_owned).collect())
    }
}

/// The test's name in a line of `--list --format=terse`.
fn listed(line: &str) -> Option<&str> {
    line.strip_suffix(": test")
}

/// The test's name in libtest's line about an ignored test, if the reason begins with "needs".
fn ignored_for_want_of_privilege(line: &str) -> Option<&str> {
    let (name, reason) = line.strip_prefix("test ")?.split_once(" ... ignored, ")?;
    reason.starts_with("needs ").then_some(name)
}

/// Runs a test program, shows what it prints, and reads its results from that.
fn watch(command: &mut Command, name: &str) -> anyhow::Result<Outcome> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start the {name} tests"))?;
    let mut outcome = Outcome::default();
    let mut has_result = false;
    for line in BufReader::new(child.stdout.take().expect("stdout is piped")).lines() {
        let line = line?;
        println!("{line}");
        if let Some((passed, failed)) = result(&line) {
            has_result = true;
            outcome.passed += passed;
            outcome.failed += failed;
        }
    }
    let status = child.wait()?;
    if !status.success() && outcome.failed == 0 {
        println!("the {name} tests ended with {status}");
        outcome.failed += 1;
    }
    if !has_result && status.success() {
        bail!("the {name} tests printed no result");
    }
    Ok(outcome)
}

/// Passed and failed in libtest's last line.
fn result(line: &str) -> Option<(usize, usize)> {
    let counts = line.strip_prefix("test result: ")?;
    let count = |what: &str| {
        let before = counts.split(what).next().filter(|before| before.len() < counts.len())?;
        before.trim_end().rsplit(' ').next()?.parse().ok()
    };
    Some((count(" passed")?, count(" failed")?))
}

#[derive(Deserialize)]
struct CargoMessage {
    reason: String,
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    target: Option<CargoTarget>,
    profile: Option<CargoProfile>,
}

#[derive(Deserialize)]
struct CargoTarget {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct CargoProfile {
    test: bool,
}

/// The test binary that a line of cargo's output announces.
fn binary(line: &str) -> Option<Binary> {
    let message: CargoMessage = serde_json::from_str(line).ok()?;
    let is_test = message.reason == "compiler-artifact" && message.profile?.test;
    let target = message.target.filter(|_| is_test)?;
    let tier = if target.kind.iter().any(|kind| kind == "test") { tier(&target.name) } else { Tier::Unit };
    Some(Binary { path: message.executable?, tier, name: target.name, manifest: message.manifest_path? })
}

/// An integration test's target is named for its tier, or begins with it; others need no privilege.
fn tier(target: &str) -> Tier {
    let first = target.split('_').next().unwrap_or(target);
    Tier::from_name(first).unwrap_or(Tier::Protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_result_is_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 4 filtered out; finished in 2.01s";
        assert_eq!(result(line), Some((12, 3)));
        assert_eq!(result("test lab::coturn ... ok"), None);
    }

    #[test]
    fn ignored_tests_need_privileges_or_have_another_reason() {
        let name = ignored_for_want_of_privilege("test kill::xdp ... ignored, needs root: cargo xtask test");
        assert_eq!(name, Some("kill::xdp"));
        assert_eq!(
            ignored_for_want_of_privilege("test pins::daemon ... ignored, a helper of other tests"),
            None
        );
        assert_eq!(ignored_for_want_of_privilege("test pins::other ... ok"), None);
    }

    #[test]
    fn target_names_tell_the_tier() {
        assert_eq!(tier("lab"), Tier::Lab);
        assert_eq!(tier("program_rules"), Tier::Program);
        assert_eq!(tier("permission"), Tier::Protocol);
    }

    #[test]
    fn cargo_message_gives_a_binary() {
        let line = r#"{"reason":"compiler-artifact","package_id":"p","manifest_path":"/w/xtask/Cargo.toml",
            "target":{"kind":["test"],"crate_types":["bin"],"name":"lab","src_path":"/w/xtask/tests/lab/main.rs"},
            "profile":{"opt_level":"0","test":true},"features":[],"filenames":[],
            "executable":"/w/target/debug/deps/lab-1","fresh":true}"#;
        let binary = binary(&line.replace('\n', "")).unwrap();
        assert_eq!((binary.tier, binary.name.as_str()), (Tier::Lab, "lab"));
        let library = line.replace(r#""test":true"#, r#""test":false"#);
        assert!(super::binary(&library).is_none());
    }

    #[test]
    fn selection_filters_by_name() {
        let mut selection = Selection::privileged(Some("coturn"));
        assert!(selection.contains("coturn::ways::xdp_native"));
        assert!(!selection.contains("browser::call::xdp_native"));
        assert!(!selection.only("userspace").contains("coturn::ways::xdp_native"));
        selection.skip.push("xdp_".to_owned());
        assert!(!selection.contains("coturn::ways::xdp_native"));
        assert!(selection.contains("coturn::ways::userspace"));
    }
}

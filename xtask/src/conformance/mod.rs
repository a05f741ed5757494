//! `cargo xtask conformance`: which test proves which requirement.
//!
//! Requirements are rows of `docs/conformance/requirements.md`. Tests name them; what no test names, or is done
//! otherwise than the letter, is argued in `docs/conformance/arguments.toml`. `docs/conformance.md` puts the three
//! together and is written by this command only.

mod arguments;
mod check;
mod page;
mod requirements;
mod row_id;
mod scan;

use std::path::Path;

use anyhow::{Context, bail};

use crate::workspace;
use arguments::Arguments as Argued;
use requirements::Requirements;
use scan::Tests;

const REQUIREMENTS: &str = "docs/conformance/requirements.md";
const ARGUMENTS: &str = "docs/conformance/arguments.toml";
const PAGE: &str = "docs/conformance.md";

/// Arguments of `cargo xtask conformance`.
#[derive(Debug, Default, clap::Args)]
pub struct Arguments {
    /// Write nothing; fail if the page is stale, or a requirement has neither test nor argument.
    #[arg(long)]
    check: bool,
}

/// Writes the page, or checks that it is up to date and that nothing is missing.
pub fn command(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.check {
        return check(workspace::root());
    }
    let conformance = Conformance::read(workspace::root())?;
    let path = workspace::root().join(PAGE);
    let page = conformance.page();
    std::fs::write(&path, page).with_context(|| format!("could not write {}", path.display()))?;
    println!("{}", workspace::relative(&path).display());
    report(&conformance.complaints());
    Ok(())
}

/// Fails if the page is stale, or a requirement has neither test nor argument.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let conformance = Conformance::read(root)?;
    let mut complaints = conformance.complaints();
    let written = std::fs::read_to_string(root.join(PAGE)).unwrap_or_default();
    if written != conformance.page() {
        complaints.push(format!("{PAGE} is stale: run `cargo xtask conformance` and commit what it writes"));
    }
    report(&complaints);
    match complaints.len() {
        0 => Ok(()),
        1 => bail!("conformance: the complaint above"),
        count => bail!("conformance: the {count} complaints above"),
    }
}

fn report(complaints: &[String]) {
    for complaint in complaints {
        println!("{complaint}");
    }
}

/// Requirements, what proves them, and what is said about those that nothing proves.
#[derive(Debug)]
struct Conformance {
    requirements: Requirements,
    tests: Tests,
    arguments: Argued,
}

impl Conformance {
    fn read(root: &Path) -> anyhow::Result<Self> {
        let read = |path: &str| {
            std::fs::read_to_string(root.join(path)).with_context(|| format!("could not read {path}"))
        };
        Ok(Self {
            requirements: Requirements::parse(&read(REQUIREMENTS)?).context(REQUIREMENTS)?,
            tests: Tests::find(root)?,
            arguments: Argued::parse(&read(ARGUMENTS)?).context(ARGUMENTS)?,
        })
    }

    fn page(&self) -> String {
        page::write(self)
    }

    fn complaints(&self) -> Vec<String> {
        check::complaints(self)
    }
}

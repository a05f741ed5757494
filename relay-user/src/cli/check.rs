//! `turnpike check`: configuration, host and NICs, looked at and left as they are.

use std::process::ExitCode;

use super::{options::ServerOptions, print, server};
use crate::control::{
    config::Note,
    preflight::{Finding, Verdict, preflight},
};

pub(super) fn check(options: ServerOptions) -> anyhow::Result<ExitCode> {
    let configuration = options.configuration()?;
    server::build(&configuration)?;
    show(Verdict::Well, "the configuration is valid")?;
    for note in &configuration.notes {
        match note {
            Note::Default(text) => show(Verdict::Well, text)?,
            Note::Warning(text) => show(Verdict::Warning, text)?,
        }
    }
    let findings = super::runtime()?.block_on(preflight(&configuration));
    for Finding { verdict, text } in &findings {
        show(*verdict, text)?;
    }
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Failure);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn show(verdict: Verdict, text: &str) -> anyhow::Result<()> {
    print(&format!("{verdict:<8} {text}\n"))
}

//! `turnpike detach`: ends what a crashed daemon left flowing.

use std::process::ExitCode;

use super::DetachOptions;
use crate::datapath;

pub(super) fn detach(options: &DetachOptions) -> anyhow::Result<ExitCode> {
    let removed = datapath::detach(&options.bpffs)?;
    if removed.is_empty() {
        println!("nothing to remove below {}", options.bpffs.display());
    }
    for thing in removed {
        println!("removed {thing}");
    }
    Ok(ExitCode::SUCCESS)
}

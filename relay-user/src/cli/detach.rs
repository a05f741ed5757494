//! `turnpike detach`: ends what a crashed daemon left flowing.

use std::process::ExitCode;

use super::{DetachOptions, print};
use crate::datapath;

pub(super) fn detach(options: &DetachOptions) -> anyhow::Result<ExitCode> {
    let removed = datapath::detach(&options.bpffs)?;
    if removed.is_empty() {
        print(&format!("nothing to remove below {}\n", options.bpffs.display()))?;
    }
    for thing in removed {
        print(&format!("removed {thing}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

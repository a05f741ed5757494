//! `turnpike`: the daemon and its commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    relay_user::cli::main()
}

//! The `siteward` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    siteward::cli::main()
}

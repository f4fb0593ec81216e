//! The `siteward` binary.

#[cfg(feature = "sabotage")]
compile_error!(
    "the feature `sabotage` breaks rules on purpose: it is for tests of the library, and not for the product"
);

use std::process::ExitCode;

fn main() -> ExitCode {
    siteward::cli::main()
}

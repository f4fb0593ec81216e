//! `siteward man` and `siteward completions`: made when the package is built.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Failure};

/// Writes `siteward.1` and a page for each subcommand.
pub(super) fn pages(directory: &Path) -> Result<(), Failure> {
    clap_mangen::generate_to(Cli::command(), directory)
        .map_err(|error| Failure::new(1, format!("cannot write manual pages into {}: {error}", directory.display())))
}

/// Writes the completions.
pub(super) fn completions(shell: Shell, out: &mut dyn Write) -> Result<(), Failure> {
    // Into memory first: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "siteward", &mut script);
    Ok(out.write_all(&script)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_each_command_and_a_script_for_each_shell() {
        let directory = tempfile::tempdir().unwrap();
        pages(directory.path()).unwrap();
        for page in ["siteward.1", "siteward-run.1", "siteward-explain.1"] {
            assert!(directory.path().join(page).exists(), "{page}");
        }
        let mut script = Vec::new();
        completions(Shell::Bash, &mut script).unwrap();
        assert!(String::from_utf8(script).unwrap().contains("explain"));
    }
}

//! `siteward run`: the daemon.

use std::io::{self, Write as _};
use std::path::Path;

use super::Failure;
use crate::shell::run::{StartError, run as run_daemon};

/// Runs the daemon and returns the exit status: 0 after a clean stop, 78 on a bad configuration, 1 on anything else.
pub(super) fn run(config: &Path) -> u8 {
    let Err(error) = run_daemon(config) else { return 0 };
    // The log has lines of one event each; these are for whoever started it, too.
    let text = error.to_string();
    for line in text.lines() {
        if std::env::var_os("JOURNAL_STREAM").is_some() {
            tracing::error!("{line}");
        } else {
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
    match error {
        StartError::Configuration(_) => Failure::CONFIG,
        StartError::Other(_) => 1,
    }
}

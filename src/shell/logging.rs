//! Where log lines go: the journal if systemd started the daemon, standard error otherwise.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::engine::model::errand::MAX_LOG_LINES;

/// The environment variable with the filter, such as `debug` or `siteward::shell::station=debug,info`.
const VARIABLE: &str = "SITEWARD_LOG";

/// Packages whose debug lines drown ours stay at `warn` unless the filter names them.
const DEFAULT: &str = "info,rumqttc=warn,sled=warn,tokio_modbus=warn,tungstenite=warn";

/// The longest line that is kept for [`last_lines`], in bytes.
const LONGEST: usize = 1_000;

/// The last lines, for `log.get`.
static LAST: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// The last lines of the log since the start, oldest first; no more than [`MAX_LOG_LINES`] are kept.
#[must_use]
pub fn last_lines(most: usize) -> Vec<String> {
    let last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    last.iter().skip(last.len().saturating_sub(most)).cloned().collect()
}

/// Keeps lines for [`last_lines`]. Each event is written with one call.
struct Last;

impl io::Write for Last {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes.get(..LONGEST).unwrap_or(bytes));
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == MAX_LOG_LINES {
            last.pop_front();
        }
        last.push_back(text.trim_end().to_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts logging. A filter that cannot be read is reported and replaced by the default. Calling it twice changes nothing.
pub fn start() {
    let wanted = std::env::var(VARIABLE).ok().filter(|filter| !filter.trim().is_empty());
    let (filter, problem) = filter(wanted.as_deref());
    let kept = tracing_subscriber::fmt::layer().with_writer(|| Last).with_ansi(false).with_target(false);
    let registry = tracing_subscriber::registry().with(filter).with(kept);
    let to_journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    // Failing means that a subscriber is there already.
    let _ = match to_journal {
        Some(layer) => registry.with(layer).try_init(),
        None => {
            let ansi = io::stderr().is_terminal();
            registry
                .with(tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(ansi).with_target(false))
                .try_init()
        }
    };
    if let Some(problem) = problem {
        tracing::warn!("{problem}");
    }
}

fn filter(wanted: Option<&str>) -> (EnvFilter, Option<String>) {
    match wanted.map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => {
            let problem = format!("{VARIABLE} is not a filter ({error}); using {DEFAULT:?}");
            (EnvFilter::new(DEFAULT), Some(problem))
        }
        None => (EnvFilter::new(DEFAULT), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_no_more() {
        for number in 0..=MAX_LOG_LINES {
            let line = format!("{number} {}\n", "x".repeat(2 * LONGEST));
            assert_eq!(io::Write::write(&mut Last, line.as_bytes()).unwrap(), line.len());
        }
        let lines = last_lines(2);
        assert_eq!(lines.len(), 2);
        assert!(lines[1].starts_with(&format!("{MAX_LOG_LINES} x")) && lines[1].len() == LONGEST);
        assert_eq!(last_lines(usize::MAX).len(), MAX_LOG_LINES);
    }

    #[test]
    fn a_bad_filter_is_reported_and_replaced() {
        assert!(filter(None).1.is_none());
        assert!(filter(Some("debug")).1.is_none());
        let (_, problem) = filter(Some("siteward=loud"));
        assert!(problem.is_some_and(|problem| problem.starts_with("SITEWARD_LOG is not a filter")));
    }
}

//! Where log lines go: the journal if systemd started the daemon, standard error otherwise.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The environment variable with the filter, such as `debug` or `siteward::shell::station=debug,info`.
const VARIABLE: &str = "SITEWARD_LOG";

/// Packages whose debug lines drown ours stay at `warn` unless the filter names them.
const DEFAULT: &str = "info,rumqttc=warn,sled=warn,tokio_modbus=warn,tungstenite=warn";

/// Starts logging. A filter that cannot be read is reported and replaced by the default. Calling it twice changes nothing.
pub fn start() {
    let wanted = std::env::var(VARIABLE).ok().filter(|filter| !filter.trim().is_empty());
    let (filter, problem) = filter(wanted.as_deref());
    let registry = tracing_subscriber::registry().with(filter);
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
    fn a_bad_filter_is_reported_and_replaced() {
        assert!(filter(None).1.is_none());
        assert!(filter(Some("debug")).1.is_none());
        let (_, problem) = filter(Some("siteward=loud"));
        assert!(problem.is_some_and(|problem| problem.starts_with("SITEWARD_LOG is not a filter")));
    }
}

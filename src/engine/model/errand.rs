//! What a command wants that only the shell can find out or do: files and the log.

use serde::{Deserialize, Serialize};

use super::ids::{CircuitId, StationId};

/// Names an errand until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ErrandId(pub u64);

/// What is to be found out or done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Errand {
    /// `configuration.get`: the configuration in force, as text.
    Configuration,
    /// `configuration.put`: judge it, keep it, and start again with it on probation.
    PutConfiguration {
        /// The whole of `site.toml`.
        toml: String,
    },
    /// `charger.approve`: add a station that waits to the configuration in force, then as [`Self::PutConfiguration`].
    Approve {
        /// Its identity.
        charger: StationId,
        /// Where it is connected; `None`: where there is no choice.
        circuit: Option<CircuitId>,
        /// Somebody on site asks, who needs no `remote_configuration`.
        on_site: bool,
    },
    /// `log.get`: the last lines of the log.
    Log {
        /// How many at most.
        lines: usize,
    },
}

/// The most lines of the log that are handed out.
pub const MAX_LOG_LINES: usize = 500;

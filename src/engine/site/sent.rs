//! What an EVSE was sent, and what of it waits for its answer.

use crate::engine::time::Mono;
use crate::engine::units::Current;

/// A limit as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentLimit {
    /// The current per phase.
    pub limit: Current,
    /// When it was sent.
    pub sent_at: Mono,
    /// When it steps to the fallback by itself.
    pub steps_at: Mono,
    /// Nobody knows whether it is over already (an earlier run sent it, by a clock that was not right): the least that it may allow until it surely is.
    pub maybe: Option<Current>,
}

impl SentLimit {
    /// A limit that was sent at a time and lasts so long from then on.
    #[must_use]
    pub const fn lasting(limit: Current, sent_at: Mono, lasts_ms: u64) -> Self {
        Self { limit, sent_at, steps_at: sent_at.plus_ms(lasts_ms), maybe: None }
    }
}

/// What a message told the EVSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// A limit that decays.
    Limit,
    /// The fallback for good, below all limits.
    Base,
}

/// A message of which the answer is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The caller's number for it.
    pub call: u64,
    /// What it says.
    pub sent: SentLimit,
    /// What kind of message.
    pub told: Told,
}

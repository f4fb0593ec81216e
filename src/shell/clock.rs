//! The only place that reads a clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::engine::time::{Mono, Now, Utc};

/// No gateway that knows the time is before this (2026-01-01): an earlier clock was never set.
const EARLIEST_TRUSTED: Utc = Utc::from_unix_ms(1_767_225_600_000);

/// The clock of this process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    ahead_ms: Option<&'static AtomicU64>,
}

impl Clock {
    /// Starts the monotonic clock at 0.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn start() -> Self {
        Self { start: Instant::now(), ahead_ms: None }
    }

    /// A clock whose monotonic time is so many ms ahead, which may grow: for a look at a long time that must not take as long.
    #[must_use]
    pub fn ahead_by(ms: &'static AtomicU64) -> Self {
        Self { ahead_ms: Some(ms), ..Self::start() }
    }

    /// The time now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn now(&self) -> Now {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let utc = Utc::from_unix_ms(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX));
        Now { mono: self.mono(), utc, utc_trusted: utc >= EARLIEST_TRUSTED }
    }

    /// The µs since the start, for how long something took.
    #[must_use]
    pub fn us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The monotonic time now.
    #[must_use]
    pub fn mono(&self) -> Mono {
        let ahead_ms = self.ahead_ms.map_or(0, |ms| ms.load(Ordering::SeqCst));
        Mono::from_ms(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)).plus_ms(ahead_ms)
    }
}

//! The only place in this crate that reads a clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use siteward::engine::time::{Mono, Now, Utc};

/// The clock of this process. Its monotonic time starts at 0 when it is made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts the monotonic clock at 0.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place of this crate that reads the clock")]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The time now. The calendar time is taken as trusted.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place of this crate that reads the clock")]
    pub fn now(&self) -> Now {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let utc = Utc::from_unix_ms(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX));
        Now { mono: self.mono(), utc, utc_trusted: true }
    }

    /// The monotonic time now.
    #[must_use]
    pub fn mono(&self) -> Mono {
        Mono::from_ms(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The time that the cores have worked for this process so far, in ms, as Linux counts it. Other work on the machine makes it longer, but
    /// far less than the real time.
    #[must_use]
    pub fn cores_ms() -> u64 {
        cores_ms_of("/proc/self/stat")
    }
}

/// The same for the process of which that is the `stat`; 0 if it is gone.
pub(super) fn cores_ms_of(stat: &str) -> u64 {
    let stat = std::fs::read_to_string(stat).unwrap_or_default();
    // After the name in brackets, which may hold blanks: the 12th and 13th are user and system time, in 1/100 s (proc(5)).
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks * 10
}

//! Limits from outside: commands, schedules, the grid operator's dimming, the start after a power cut.
//!
//! Pure arithmetic on the nouns of [`crate::engine::model::limit`]: what a limit leaves of a circuit or a station, when a window holds, what
//! the German rule leaves while dimmed, how long a station waits when the power is back. The site keeps the state and records it.

pub mod ceiling;
pub mod dimming;
pub mod order;
pub mod power_return;
pub mod schedule;

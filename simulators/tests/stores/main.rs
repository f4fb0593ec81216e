//! Stores that are not as this version has just written them: damaged ones, and those of other versions.
//!
//! A damaged store must never keep a site down, and never be silent about what it has lost. An older one must be read, a newer one be
//! left alone. One program, so that it is linked once.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail the test")]
#![expect(clippy::print_stdout, reason = "a run of the dice says its seed and what came of it")]
#![expect(clippy::print_stderr, reason = "a failed test shows the daemon's log")]

mod daemon;
mod damage;
mod filled;
mod golden;
mod packed;
mod recovery;
mod start;
mod tree;

#[expect(dead_code, reason = "the tests end to end need all of it")]
#[path = "../e2e/rig.rs"]
mod rig;

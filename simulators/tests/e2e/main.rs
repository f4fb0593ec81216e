//! End to end: the real binary with independent peers, in real time. One program, so that it is linked once.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]
#![expect(clippy::print_stderr, reason = "a failed test shows the daemon's log")]

mod approval;
mod bad_input;
mod closed_pipe;
mod cloud;
mod commissioning;
mod configuration;
mod demo;
mod fleet;
mod modbus_peer;
mod ocpp_peer;
mod peer;
mod rig;

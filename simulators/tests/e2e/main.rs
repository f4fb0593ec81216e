//! End to end: the real binary with independent peers, in real time. One program, so that it is linked once.

mod bad_input;
mod demo;
mod modbus_peer;
mod ocpp_peer;
mod peer;
mod rig;

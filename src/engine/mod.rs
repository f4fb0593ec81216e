//! The decisions: no async, no sockets, no disk, no clock, no ambient randomness.

pub mod billing;
pub mod cloud;
pub mod edge;
pub mod modbus;
pub mod model;
pub mod ocpp;
pub mod plan;
pub mod site;
pub mod time;
pub mod units;

//! The decisions: no async, no sockets, no disk, no clock, no ambient randomness.

pub mod billing;
pub mod cloud;
pub mod controller;
pub mod edge;
pub mod guard;
pub mod modbus;
pub mod model;
pub mod ocpp;
pub mod outside;
pub mod plan;
pub mod site;
pub mod time;
pub mod units;

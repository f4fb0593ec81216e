//! The models on real sockets, serial lines and processes. tokio lives here and in the demo; the models know nothing of it.

pub mod broker;
pub mod clock;
pub mod cloud;
pub mod devices;
pub mod fleet;
pub mod modbus;
pub mod mosquitto;
pub mod namespace;
pub mod process;
pub mod pty;
pub mod station;

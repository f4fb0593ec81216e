//! The cloud side without I/O: topics, messages, the cursors over the journal and the telemetry ring, and the intake of commands.

pub mod answers;
pub mod courier;
mod data;
pub mod intake;
pub mod limits;
pub mod messages;
pub mod outbox;
pub mod telemetry;
pub mod topics;

#[cfg(test)]
mod asyncapi_tests;
#[cfg(test)]
mod schema_tests;

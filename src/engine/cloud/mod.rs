//! The cloud side without I/O: topics, messages, the outbox cursor over the journal, and the intake of commands.

pub mod answers;
mod data;
pub mod intake;
pub mod limits;
pub mod messages;
pub mod outbox;
pub mod topics;

#[cfg(test)]
mod asyncapi_tests;
#[cfg(test)]
mod schema_tests;

//! The fleet's side: a reference consumer that takes the events of any number of sites into a database, each exactly once, and a crowd of
//! simulated sites to try it with.
//!
//! Events and what follows from them are committed in one transaction, and only then acknowledged: to the broker by PUBACK, and to the site by
//! `events.acknowledge` where it waits for that. Whatever dies in between comes again, and the primary key knows it.

pub mod consumer;
pub mod crowd;
pub mod event;
pub mod keeper;
pub mod ledger;
mod postgres;
pub mod report;
pub mod sql;
mod sqlite;
mod telemetry;

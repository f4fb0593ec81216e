//! The nouns of the site: what a circuit, a station, a transaction, a reading and a record are.
//!
//! Everything here is data with checked construction. Nothing here decides, and nothing here knows a protocol.

pub mod alarm;
pub mod balance;
pub mod billing;
pub mod cdr;
pub mod command;
pub mod commission;
pub mod display;
pub mod errand;
pub mod exchange;
pub mod ids;
pub mod limit;
pub mod local_list;
pub mod reading;
pub mod record;
pub mod setup;
pub mod signed;
pub mod station_model;
pub mod status;
pub mod tariff;
pub mod token;
pub mod topology;
pub mod wish;

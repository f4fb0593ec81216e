//! Siteward: the site controller for EV charging.

pub mod cli;
pub mod config;
pub mod engine;
pub mod shell;

#![doc = include_str!("README.md")]

pub mod cli;
pub mod config;
pub mod engine;
pub mod shell;

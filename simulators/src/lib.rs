//! Simulated chargers, cars, meters, inverters and clouds for Siteward, in real and in virtual time.

pub mod net;

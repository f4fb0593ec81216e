//! All input and output: tokio lives here and nowhere else.

pub mod bus;
pub mod clock;
pub mod journal;
pub mod mqtt;

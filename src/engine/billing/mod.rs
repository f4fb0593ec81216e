//! What a transaction costs: tariffs in local time, energy split at their borders, prices in exact decimals.
//!
//! Pure arithmetic over what the journal knows. Nothing here decides whether somebody may charge or how much current flows.

pub mod balance;
pub mod bill;
pub mod calendar;
pub mod cdr;
pub mod ocmf;
pub mod ocpi_tariff;
pub mod signature;
pub mod split;

#[cfg(test)]
pub(crate) mod schema_tests;

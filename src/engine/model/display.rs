//! What a station shows of the cost of a transaction.

use rust_decimal::Decimal;

use super::ids::TransactionId;
use super::tariff::Prices;
use crate::engine::time::Utc;
use crate::engine::units::Energy;

/// How an OCPP 1.6 station is told what a transaction costs: by a `DataTransfer` that it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostTransfer {
    /// `vendorId`.
    pub vendor: String,
    /// `messageId` while the transaction runs.
    pub running: String,
    /// `messageId` when it is over.
    pub last: String,
    /// The data, with `{cost}` and the other [`PLACEHOLDERS`] to be filled in; `None`: as the Open Charge Alliance's application note "OCPP &
    /// California Pricing Requirements" has it.
    pub data: Option<String>,
}

/// What may stand in [`CostTransfer::data`].
pub const PLACEHOLDERS: [&str; 6] = ["{cost}", "{currency}", "{transaction}", "{energy_kwh}", "{minutes}", "{state}"];

/// What a transaction has come to, for the station's display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostNote {
    /// The transaction.
    pub transaction: TransactionId,
    /// With tax, in coins of the currency.
    pub amount: Decimal,
    /// ISO 4217 code.
    pub currency: String,
    /// The time that it is for, by the station's clock.
    pub at: Utc,
    /// The register then.
    pub register: Energy,
    /// The energy so far.
    pub energy: Energy,
    /// How long it has lasted, in ms.
    pub lasts_ms: i64,
    /// The car takes energy, or is only kept from it by the site; else it parks.
    pub charging: bool,
    /// Prices with tax that hold then.
    pub prices: Prices,
    /// So long after charging has ended nothing is paid for parking, in s.
    pub parking_grace_s: u32,
    /// When prices change next, and to which.
    pub next: Option<(Utc, Prices)>,
    /// The transaction is over: it will not come to anything else.
    pub is_final: bool,
    /// How an OCPP 1.6 station is told; 2.x has messages of its own.
    pub transfer: Option<CostTransfer>,
}

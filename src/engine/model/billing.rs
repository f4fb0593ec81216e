//! How transactions are billed: `[billing]`, and what belongs to it at each charger.

use std::collections::BTreeMap;

use super::cdr::Operator;
use super::display::CostTransfer;
use super::ids::StationId;
use crate::engine::units::Energy;

/// How transactions are billed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BillingSetup {
    /// Who sends CDRs and from where; `None`: no CDR is made.
    pub operator: Option<Operator>,
    /// What the configuration says of each charger.
    pub chargers: BTreeMap<StationId, ChargerBilling>,
    /// How often a station is told what a running transaction costs, in s; `None`: never.
    pub running_cost_s: Option<u32>,
    /// How an OCPP 1.6 station is told it; `None`: it is not.
    pub running_cost_transfer: Option<CostTransfer>,
    /// How far meters and registers may be apart in a day.
    pub tolerance: Tolerance,
}

/// What the configuration says of a charger's connectors and its meter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChargerBilling {
    /// The eMI3 ids of its EVSEs, from 1 on; empty: made from the operator and the charger's name.
    pub evse_ids: Vec<String>,
    /// OCPI `ConnectorType`; `None`: Type 2, or CCS for DC.
    pub standard: Option<String>,
    /// `SOCKET` or `CABLE`; `None`: a socket, or a cable for DC.
    pub format: Option<String>,
    /// The public keys of its meters, in DER or as bare points: what is signed must fit one of them.
    pub public_keys: Vec<Vec<u8>>,
}

/// How far two measurements of the same energy may be apart: the larger of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// In any case.
    pub energy: Energy,
    /// In thousandths of what was measured.
    pub permille: u16,
}

impl Tolerance {
    /// How far something else may be from that energy.
    #[must_use]
    pub fn of(self, measured: Energy) -> Energy {
        let part = measured.abs().wh().saturating_mul(i64::from(self.permille)) / 1_000;
        self.energy.max(Energy::from_wh(part))
    }
}

impl Default for Tolerance {
    /// 1 kWh or 2 %: two meters of class B (EN 50470) and the wires between them.
    fn default() -> Self {
        Self { energy: Energy::from_wh(1_000), permille: 20 }
    }
}

//! What is known of a model of charging station: its lease, its steps, its pace.

use serde::{Deserialize, Serialize};

use super::exchange::OcppVersion;
use crate::engine::units::Current;

/// The unit in which a station is given its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitUnit {
    /// Amperes per phase.
    #[default]
    Amperes,
    /// Watts on all phases together.
    Watts,
}

/// What a station model can and cannot do, from `configs/chargers/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StationModel {
    /// The model's name.
    pub name: String,
    /// How the station is made to fall back by itself.
    pub lease: LeaseForm,
    /// How long the lease lasts from its last renewal.
    pub lease_ms: u64,
    /// How often it is renewed at least.
    pub renew_ms: u64,
    /// The stack level used for our profile.
    pub stack_level: u32,
    /// How long after an accepted change the car may still draw the old current.
    pub reaction_ms: u64,
    /// The smallest step of a limit.
    pub step: Current,
    /// The only currents that the station can offer, rising, without 0; empty: every multiple of `step`.
    pub levels: Vec<Current>,
    /// The unit in which it takes limits.
    pub limit_unit: LimitUnit,
    /// How many charging profiles it may be sent a day (it keeps them in flash); `None`: no budget.
    pub writes_per_day: Option<u32>,
    /// The station as a whole is told its rating once (`ChargePointMaxProfile`).
    pub station_max_profile: bool,
    /// How long the station may take to notice that its connection is gone, in ms. Only [`LeaseForm::MaxOfflineDuration`] rests on it.
    pub offline_after_ms: u64,
    /// How often the station is asked to send meter values.
    pub meter_interval_ms: u64,
}

impl Default for StationModel {
    fn default() -> Self {
        Self {
            name: "generic".to_owned(),
            lease: LeaseForm::TxDefaultProfile,
            lease_ms: 120_000,
            renew_ms: 30_000,
            stack_level: 0,
            reaction_ms: 5_000,
            step: Current::from_ma(100),
            levels: Vec::new(),
            limit_unit: LimitUnit::Amperes,
            writes_per_day: None,
            station_max_profile: false,
            offline_after_ms: 90_000,
            meter_interval_ms: 10_000,
        }
    }
}

impl StationModel {
    /// How long after the last word of the controller a limit of the station may last, given the length of its lease, in ms.
    #[must_use]
    pub const fn holds_ms(&self, lease_ms: u64) -> u64 {
        if self.lease.may_rest_on_the_connection() { lease_ms.saturating_add(self.offline_after_ms) } else { lease_ms }
    }
}

/// How a station's limit is made to decay when nobody renews it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LeaseForm {
    /// One `TxDefaultProfile` per EVSE, kind Absolute, that starts in the past and steps to the fallback by itself.
    TxDefaultProfile,
    /// A `TxDefaultProfile` with the fallback for good, and one level above it another that ends (`validTo`).
    TwoLevels,
    /// A `TxProfile` that steps to the fallback by itself, and a `TxDefaultProfile` with the fallback between transactions.
    TxProfile,
    /// A `TxDefaultProfile` with the fallback for good, and one level above it another that is not valid any more once the station has been
    /// offline for so long (OCPP 2.1 `maxOfflineDuration`).
    MaxOfflineDuration,
    /// The first of the forms above that the station itself says will fall to the fallback (`GetCompositeSchedule`). Until one has
    /// been found, it counts at its maximum whenever it is silent.
    Auto,
    /// None works: the station counts at its maximum whenever it is silent.
    None,
}

impl LeaseForm {
    /// The forms that [`LeaseForm::Auto`] tries, in order, with a station that speaks so. The last one of OCPP 2.1 is not in any schedule that
    /// a station could tell: only a commissioning test can prove it.
    #[must_use]
    pub const fn tried(version: OcppVersion) -> &'static [Self] {
        match version {
            OcppVersion::V16 | OcppVersion::V201 => &[Self::TxDefaultProfile, Self::TwoLevels, Self::TxProfile],
            OcppVersion::V21 => &[Self::TxDefaultProfile, Self::TwoLevels, Self::TxProfile, Self::MaxOfflineDuration],
        }
    }

    /// Whether a station that speaks so can be told it.
    #[must_use]
    pub const fn is_known_to(self, version: OcppVersion) -> bool {
        match version {
            OcppVersion::V16 | OcppVersion::V201 => !matches!(self, Self::MaxOfflineDuration),
            OcppVersion::V21 => true,
        }
    }

    /// Whether a limit may end when the station has been offline for long, and not at a time of its schedule.
    #[must_use]
    pub const fn may_rest_on_the_connection(self) -> bool {
        matches!(self, Self::MaxOfflineDuration | Self::Auto)
    }

    /// Its name in files and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TxDefaultProfile => "tx-default-profile",
            Self::TwoLevels => "two-levels",
            Self::TxProfile => "tx-profile",
            Self::MaxOfflineDuration => "max-offline-duration",
            Self::Auto => "auto",
            Self::None => "none",
        }
    }

    /// Whether a profile with the fallback for good lies below the limits, and has to be there first.
    #[must_use]
    pub const fn has_base(self) -> bool {
        matches!(self, Self::TwoLevels | Self::TxProfile | Self::MaxOfflineDuration)
    }

    /// Whether a station with it is known to fall back by itself before anybody has looked.
    #[must_use]
    pub const fn is_stated(self) -> bool {
        match self {
            Self::TxDefaultProfile | Self::TwoLevels | Self::TxProfile | Self::MaxOfflineDuration => true,
            Self::Auto | Self::None => false,
        }
    }
}

//! One place for one car, and the transaction that runs there.

use siteward::engine::model::exchange::{ChargingState, ConnectorStatus};
use siteward::engine::time::Mono;
use siteward::engine::units::Current;

use super::profiles::Profiles;
use crate::car::{Car, WH_IN_MWMS};

/// A running transaction.
#[derive(Clone, Debug)]
pub(super) struct Running {
    /// Its place in the list of transactions.
    pub(super) index: usize,
    pub(super) next_seq: i64,
    pub(super) state: ChargingState,
}

/// One place for one car.
#[derive(Clone, Debug)]
pub(super) struct Bay {
    pub(super) number: u32,
    pub(super) car: Option<Car>,
    /// Who wants to charge, until the transaction begins.
    pub(super) token: Option<String>,
    pub(super) remote_start: Option<i64>,
    pub(super) authorized: bool,
    pub(super) asked: bool,
    pub(super) running: Option<Running>,
    pub(super) finishing: bool,
    /// It was taken out of service: no transaction begins there.
    pub(super) inoperative: bool,
    pub(super) energy_mwms: i64,
    /// How many values its meter has signed.
    pub(super) pages: u64,
    pub(super) offered: Current,
    pub(super) told: Option<ConnectorStatus>,
    pub(super) metered_at: Mono,
    /// The profiles as its transaction found them.
    pub(super) profiles_at_start: Profiles,
}

impl Bay {
    pub(super) fn new(number: u32) -> Self {
        Self {
            profiles_at_start: Profiles::default(),
            number,
            car: None,
            token: None,
            remote_start: None,
            authorized: false,
            asked: false,
            running: None,
            finishing: false,
            inoperative: false,
            energy_mwms: 0,
            pages: 0,
            offered: Current::ZERO,
            told: None,
            metered_at: Mono::START,
        }
    }

    pub(super) const fn energy_wh(&self) -> i64 {
        self.energy_mwms / WH_IN_MWMS
    }
}

//! What kind of station it is, and what is odd about it.

use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::model::topology::Wiring;
use siteward::engine::units::{Current, Voltage};

use super::authorization::{ListFault, OwnTokens};

/// What kind of station it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StationOptions {
    /// Its OCPP identity.
    pub identity: String,
    /// The OCPP version it speaks.
    pub version: OcppVersion,
    /// How many EVSEs (OCPP 1.6: connectors) it has, from 1.
    pub evses: u32,
    /// Which grid phase is at each of its terminals.
    pub wiring: Wiring,
    /// The most each EVSE can give per phase.
    pub max: Current,
    /// The only currents that it offers, rising; none: every one from 6 A.
    pub levels: Vec<Current>,
    /// Its rectifier, if its outputs are DC. Then a limit is a power at the output, and every current of an offer, a profile and a car stands for
    /// the power that it would be on three phases at nominal voltage; what is drawn for it from the grid is more.
    pub rectifier: Option<Rectifier>,
    /// The voltage from phase to neutral.
    pub voltage: Voltage,
    /// How often it sends meter values before anybody configures it, in s; 0: never.
    pub meter_interval_s: u64,
    /// Its own delay in following a changed limit, in ms.
    pub reaction_ms: u64,
    /// Whether it starts transactions while it is offline.
    pub offline_start: bool,
    /// Its local list and its memory of tokens; `None`: it has neither, and `offline_start` is for everybody.
    pub own_tokens: Option<OwnTokens>,
    /// Whether it has a display for what a transaction costs.
    pub shows_costs: bool,
    /// How often a transaction message is tried before it is given up (`TransactionMessageAttempts`, OCPP 1.6 §9.1.30).
    pub message_attempts: u32,
    /// The wait before the next try, times the number of tries so far, in s (`TransactionMessageRetryInterval`).
    pub message_interval_s: u64,
    /// For its message ids, transaction ids, and everything random.
    pub seed: u64,
    /// What is odd about it.
    pub quirks: Quirks,
}

impl StationOptions {
    /// A usual three-phase 32 A station with one EVSE.
    #[must_use]
    pub fn new(identity: &str, version: OcppVersion) -> Self {
        Self {
            identity: identity.to_owned(),
            version,
            evses: 1,
            wiring: Wiring::STRAIGHT,
            max: Current::from_a(32),
            levels: Vec::new(),
            rectifier: None,
            voltage: Voltage::from_mv(230_000),
            meter_interval_s: 10,
            reaction_ms: 200,
            offline_start: true,
            own_tokens: None,
            shows_costs: false,
            message_attempts: 3,
            message_interval_s: 60,
            seed: 1,
            quirks: Quirks::default(),
        }
    }
}

/// What becomes of a power on its way to a DC output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rectifier {
    /// Output power for 1000 W that are drawn.
    pub efficiency_permille: u16,
    /// Active power for 1000 VA that are drawn.
    pub power_factor_permille: u16,
}

impl Rectifier {
    /// What is drawn from the grid so that `output` comes out.
    #[must_use]
    pub fn draws(self, output: Current) -> Current {
        let factor = i64::from(self.efficiency_permille.max(1)) * i64::from(self.power_factor_permille.max(1));
        let ma = i64::from(output.ma()) * 1_000_000 / factor;
        Current::from_ma(i32::try_from(ma).unwrap_or(i32::MAX))
    }
}

impl StationOptions {
    /// The least that it offers: what the control pilot can say (IEC 61851-1); nobody says such a thing of a DC output.
    #[must_use]
    pub const fn least_offer(&self) -> Current {
        if self.rectifier.is_some() { Current::from_ma(1) } else { Current::from_a(6) }
    }

    /// The current that it offers where `allowed` is allowed: the next of its levels below, if it has such.
    #[must_use]
    pub fn level_below(&self, allowed: Current) -> Current {
        if self.levels.is_empty() {
            return allowed;
        }
        self.levels.iter().copied().rev().find(|level| *level <= allowed).unwrap_or(Current::ZERO)
    }
}

/// Behaviour that was seen in the field. All off by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, and any of them go together")]
pub struct Quirks {
    /// Accepts every profile and draws what the car wants.
    pub ignores_limit: bool,
    /// Accepts the remote stop of a transaction and goes on with it.
    pub ignores_stop: bool,
    /// Refuses a profile with a limit of 0 A.
    pub refuses_zero: bool,
    /// Refuses every profile.
    pub refuses_profiles: bool,
    /// Follows a changed limit so many ms later still.
    pub extra_reaction_ms: u64,
    /// Forgets its profiles at a reboot.
    pub loses_profiles_on_reboot: bool,
    /// Its clock is wrong by so many ms and does not follow the CSMS.
    pub clock_offset_ms: i64,
    /// Sends each `StopTransaction` (`TransactionEvent` of kind ended) a second time after the answer.
    pub duplicate_stop: bool,
    /// Never answers a request.
    pub never_answers: bool,
    /// At each reconnect sends its last 20 transaction messages again although they were answered.
    pub resend_storm: bool,
    /// A `TxDefaultProfile` does not reach a transaction that runs already: only a `TxProfile` does.
    pub default_comes_late: bool,
    /// The highest stack level that it takes; `None`: 8.
    pub highest_level: Option<i64>,
    /// Takes limits in W only.
    pub watts_only: bool,
    /// The most periods that a schedule may have; `None`: 24.
    pub most_periods: Option<usize>,
    /// Drops the profiles of transactions as soon as it is offline.
    pub drops_when_offline: bool,
    /// Keeps to the first period of a schedule for ever, and to profiles that have ended.
    pub never_falls_back: bool,
    /// Keeps to the first period of a schedule for ever, and to profiles that have ended; those that end offline do end.
    pub never_ends_by_time: bool,
    /// Its registers count so many thousandths too much.
    pub register_off_permille: i64,
    /// Each time a car leaves, its register counts so many Wh that no transaction accounts for.
    pub leaks_wh: i64,
    /// Its meters sign the begin and the end of each transaction.
    pub signs: bool,
    /// Some of what its meters sign is never sent.
    pub loses_pages: bool,
    /// What is signed at the end of a transaction is changed on the way.
    pub forges: bool,
    /// Says nothing of its schedules (`GetCompositeSchedule`).
    pub keeps_its_schedule_secret: bool,
    /// What is odd about its local list.
    pub list: ListFault,
}

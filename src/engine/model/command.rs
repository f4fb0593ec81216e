//! What people, scripts and the cloud ask of the site.

use serde::{Deserialize, Serialize};

use super::errand::Errand;
use super::ids::{IdToken, Sequence, StationId, TransactionId};
use super::limit::{LimitOrder, LimitOrigin, LimitTarget};
use super::tariff::Tariff;
use super::token::TokensOrder;
use super::wish::{BoostLength, Place};
use crate::engine::time::Utc;
use crate::engine::units::Energy;

/// A command, checked for form but not yet for sense.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// `ocpp.call`: one OCPP request to a station.
    OcppCall {
        /// Which station.
        charger: StationId,
        /// The action's name.
        action: String,
        /// The payload as JSON text.
        payload: String,
    },
    /// `transaction.start`.
    TransactionStart {
        /// Which station.
        charger: StationId,
        /// Which EVSE (1.6: connector), from 1.
        connector: u32,
        /// Who charges.
        token: IdToken,
    },
    /// `transaction.stop`.
    TransactionStop {
        /// Which.
        transaction: TransactionId,
    },
    /// `limit.set`: lowers a circuit or a station, never raises it above what is configured.
    LimitSet(LimitOrder),
    /// `limit.clear`: ends the limit of one origin; those of others stay.
    LimitClear {
        /// On what.
        target: LimitTarget,
        /// Whose.
        origin: LimitOrigin,
    },
    /// `site.dim`: the grid operator's dimming begins or ends.
    Dim {
        /// Whether the site is dimmed.
        active: bool,
        /// When it ends by itself.
        until: Option<Utc>,
        /// Through which input: `cloud` or `local`.
        input: String,
    },
    /// `delay.clear`: a station does not wait any longer after a power cut.
    DelayClear {
        /// Which station.
        charger: StationId,
    },
    /// Begins a commissioning test (`siteward commission`). It goes on by itself.
    Commission {
        /// Which station.
        charger: StationId,
    },
    /// Ends a commissioning test before its time; the station gets its usual limit again.
    CommissionStop {
        /// Which station.
        charger: StationId,
    },
    /// `charging.boost`: an EVSE goes first for a while.
    Boost {
        /// Where.
        place: Place,
        /// For how long.
        length: BoostLength,
    },
    /// `charging.boost.clear`.
    BoostClear {
        /// Where.
        place: Place,
    },
    /// `charging.target`: a running transaction must have so much by then.
    Target {
        /// Where.
        place: Place,
        /// The energy from the start of the transaction on.
        energy: Energy,
        /// By when.
        departure: Utc,
    },
    /// `charging.target.clear`.
    TargetClear {
        /// Where.
        place: Place,
    },
    /// `cdr.credit`: takes a CDR back.
    CdrCredit {
        /// Which.
        cdr: String,
        /// Why, for its remark.
        reason: String,
        /// Another one follows, made from what is known now.
        reissue: bool,
        /// How the transaction ended, where that was wrong: when, and the register.
        ended: Option<Utc>,
        /// The register at the end, where that was wrong.
        meter_stop: Option<Energy>,
    },
    /// `tariffs.replace`: the prices of transactions that begin from now on.
    TariffsReplace {
        /// The price list; `None`: that of the configuration again.
        tariffs: Option<Vec<Tariff>>,
    },
    /// What only the shell can carry out: `configuration.get`, `configuration.put`, `charger.approve`, `log.get`.
    Errand(Errand),
    /// `tokens.update`, `tokens.delete`, `tokens.replace`.
    Tokens(TokensOrder),
    /// `events.acknowledge`: the cloud has everything up to this record.
    EventsAcknowledge {
        /// The last record it has.
        sequence: Sequence,
        /// Of the store with that name; `None`: of the one in use.
        store_id: Option<String>,
    },
    /// `events.replay`: send again from this record on.
    EventsReplay {
        /// The first record wanted.
        from: Sequence,
    },
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CommandOutcome {
    /// It was done. `data` is JSON text, or empty.
    Accepted {
        /// What came back, as JSON text.
        data: Option<String>,
    },
    /// It made no sense; nothing was changed.
    Rejected {
        /// Why, and what would be right.
        error: String,
    },
    /// It was tried and did not work.
    Failed {
        /// Why.
        error: String,
        /// What came back, as JSON text.
        data: Option<String>,
    },
    /// The station did not answer in time.
    TimedOut,
    /// The station is not connected.
    NotConnected,
    /// It came after its `expires`.
    Expired,
}

//! The records of the journal. Each is an event of the contract; the site's durable state is the fold over them.

use serde::{Deserialize, Serialize};

use super::alarm::Alarm;
use super::balance::Balance;
use super::cdr::{CdrNote, Sealed};
use super::exchange::{BootInfo, ConnectorStatus, OcppVersion};
use super::ids::{CircuitId, IdToken, Sequence, StationId, TransactionId};
use super::limit::{LimitEnd, LimitOrigin, LimitProof, LimitTarget, StandingLimit};
use super::signed::SignedNote;
use super::tariff::{Cost, Tariff};
use super::token::TokensOrder;
use super::topology::LeaseForm;
use super::wish::{Boost, BoostEnd, Target, TargetEnd};
use crate::engine::time::{Mono, Utc};
use crate::engine::units::{Current, Energy};

/// When a record was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The calendar time, as far as it was known.
    pub utc: Utc,
    /// Whether it came from a synchronised clock.
    pub trusted: bool,
    /// The monotonic time since the start numbered `boot`: maps an untrusted time once the clock is known.
    pub mono: Mono,
    /// Counts the starts of the daemon on this store.
    pub boot: u64,
}

/// One numbered record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number.
    pub sequence: Sequence,
    /// When it was made.
    pub stamp: Stamp,
    /// What it tells.
    #[serde(rename = "body")]
    pub body: RecordBody,
}

/// What is known of a transaction in every record about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionFacts {
    /// Its id as the station knows it.
    pub transaction: TransactionId,
    /// The station.
    pub charger: StationId,
    /// The EVSE, from 1.
    pub evse: u32,
    /// The connector, from 1.
    pub connector: u32,
    /// Who charges.
    pub token: Option<IdToken>,
    /// When it began, by the station's clock.
    pub started: Utc,
    /// The energy register at the start.
    pub meter_start: Option<Energy>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_nothing(digest: &u64) -> bool {
    *digest == 0
}

/// The only form there was before records named it.
const fn first_form() -> LeaseForm {
    LeaseForm::TxDefaultProfile
}

/// What a record tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordBody {
    /// A transaction began.
    TransactionStarted {
        /// The transaction.
        facts: TransactionFacts,
        /// The station's number for the event (2.x).
        seq_no: Option<i64>,
        /// It happened while the station was offline.
        offline: bool,
    },
    /// Something about a transaction changed.
    TransactionUpdated {
        /// The transaction.
        facts: TransactionFacts,
        /// The station's number for the event (2.x).
        seq_no: Option<i64>,
        /// When it happened, by the station's clock.
        at: Utc,
        /// The energy register.
        meter: Option<Energy>,
        /// Why the event was sent.
        trigger: Option<String>,
        /// It happened while the station was offline.
        offline: bool,
        /// Whether the car takes energy from then on, where the record says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        charging: Option<bool>,
    },
    /// A transaction has got its prices: those hold to its end, whatever is configured meanwhile.
    TransactionPriced {
        /// The transaction.
        facts: TransactionFacts,
        /// The prices.
        tariff: Tariff,
        /// What its CDR will say of the token and the place; `None`: it gets no CDR.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sealed: Option<Box<Sealed>>,
    },
    /// A transaction is over.
    TransactionEnded {
        /// The transaction.
        facts: TransactionFacts,
        /// The station's number for the event (2.x).
        seq_no: Option<i64>,
        /// When it ended, by the station's clock.
        ended: Utc,
        /// The energy register at the end.
        meter_stop: Option<Energy>,
        /// Why it ended.
        reason: Option<String>,
        /// The start was never heard of; what is known was put together from the end.
        reconstructed: bool,
        /// What it costs, where it had a tariff.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cost: Option<Cost>,
    },
    /// It is known better how a transaction ended than when it did.
    TransactionCorrected {
        /// The transaction.
        facts: TransactionFacts,
        /// When it ended, by the station's clock.
        ended: Utc,
        /// The energy register at the end.
        meter_stop: Option<Energy>,
        /// Where that comes from.
        reason: String,
        /// What it costs, where it had a tariff.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cost: Option<Cost>,
    },
    /// A CDR was made, or one was taken back by a credit CDR.
    CdrCreated(Box<CdrNote>),
    /// A transaction with prices gets no CDR.
    CdrWithheld {
        /// The transaction.
        facts: TransactionFacts,
        /// The record of its end.
        ended_by: Sequence,
        /// Why.
        reason: String,
    },
    /// A meter has signed a value.
    SignedValue(Box<SignedNote>),
    /// What of the energy of a day is accounted for.
    EnergyBalanced(Box<Balance>),
    /// A station connected.
    ChargerConnected {
        /// Which.
        charger: StationId,
        /// The OCPP version spoken.
        version: OcppVersion,
    },
    /// A station booted and said who it is.
    ChargerBooted {
        /// Which.
        charger: StationId,
        /// Who it is.
        info: BootInfo,
    },
    /// A station disconnected.
    ChargerDisconnected {
        /// Which.
        charger: StationId,
        /// Why, as far as known.
        reason: String,
    },
    /// A connector's state changed.
    ChargerStatus {
        /// Which station.
        charger: StationId,
        /// Which EVSE; 0 is the station itself.
        evse: u32,
        /// Which connector.
        connector: u32,
        /// Its state.
        status: ConnectorStatus,
        /// The error, if it reports one.
        error: Option<String>,
    },
    /// A station accepted a decaying limit for the first time on this store: from now on it falls back by itself.
    ChargerTamed {
        /// Which station.
        charger: StationId,
        /// Which EVSE.
        evse: u32,
        /// The fallback it was given.
        fallback: Current,
        /// How it is made to fall back.
        #[serde(default = "first_form")]
        form: LeaseForm,
    },
    /// A form of lease was found for a station by asking the station, or turned out not to work.
    LeaseChosen {
        /// Which station.
        charger: StationId,
        /// The form in use from now on.
        form: LeaseForm,
        /// The station itself has said that it will fall to its fallback.
        proven: bool,
    },
    /// A condition began.
    AlarmRaised(Alarm),
    /// A condition ended.
    AlarmCleared(Alarm),
    /// A limit from outside began or changed.
    OutsideLimit(StandingLimit),
    /// A limit from outside has ended.
    OutsideLimitEnded {
        /// On what.
        target: LimitTarget,
        /// From whom.
        origin: LimitOrigin,
        /// Why.
        why: LimitEnd,
    },
    /// It is known what became of a limit from outside.
    LimitProven(Box<LimitProof>),
    /// A circuit's limit was changed from outside. Older versions wrote it; it is only read.
    LimitChanged {
        /// Which circuit.
        circuit: CircuitId,
        /// The limit on each phase; `None`: as configured.
        limit: Option<Current>,
        /// When it ends.
        until: Option<Utc>,
    },
    /// An EVSE goes first for a while. It ends with the transaction there, if not before.
    BoostSet {
        /// Which station.
        charger: StationId,
        /// Which EVSE.
        evse: u32,
        /// For how long.
        boost: Boost,
    },
    /// A boost is over before its transaction is.
    BoostEnded {
        /// Which station.
        charger: StationId,
        /// Which EVSE.
        evse: u32,
        /// Why.
        cause: BoostEnd,
    },
    /// A transaction must have some energy by a certain time. It ends with the transaction, if not before.
    TargetSet {
        /// Which station.
        charger: StationId,
        /// Which EVSE.
        evse: u32,
        /// Which transaction.
        transaction: TransactionId,
        /// What it must have by when.
        target: Target,
    },
    /// A target is over before its transaction is.
    TargetEnded {
        /// Which station.
        charger: StationId,
        /// Which EVSE.
        evse: u32,
        /// Which transaction.
        transaction: TransactionId,
        /// Why.
        cause: TargetEnd,
        /// What was missing then.
        missing: Option<Energy>,
    },
    /// The daemon started, with this configuration.
    ConfigurationChanged {
        /// The daemon's version.
        version: String,
        /// What it was: `start`, `reload`, or what became of a configuration that came by command.
        cause: String,
        /// What the tokens file held: [`digest_of`](super::token::digest_of) it; 0 where it held nothing.
        #[serde(default, skip_serializing_if = "is_nothing")]
        tokens_file: u64,
    },
    /// The tokens were changed by command.
    TokensChanged {
        /// How.
        order: Box<TokensOrder>,
        /// A token that could charge cannot any more.
        revokes: bool,
    },
    /// Other prices hold for transactions that get theirs from now on.
    TariffsReplaced {
        /// The price list; `None`: that of the configuration again.
        tariffs: Option<Vec<Tariff>>,
    },
    /// A command was carried out or refused.
    CommandExecuted {
        /// The command's id.
        id: String,
        /// The command's type.
        kind: String,
        /// How it ended.
        status: String,
        /// The error, if there was one.
        error: Option<String>,
    },
    /// A damaged store was set aside and a new one begun.
    StoreRecovered {
        /// What is known to be missing.
        missing: String,
    },
}

/// The trigger of a sample that a transaction's progress is recorded by, as OCPP 2.x names it.
pub const PERIODIC_SAMPLE: &str = "MeterValuePeriodic";

impl RecordBody {
    /// Whether nobody waits for it: no station and no person has its answer only when it is durable, so that it may be written with the next one, to
    /// spare the flash. What is not named here is written at once.
    #[must_use]
    pub fn can_wait(&self) -> bool {
        match self {
            Self::ChargerConnected { .. } | Self::ChargerDisconnected { .. } | Self::ChargerStatus { .. } => true,
            // A sample of a transaction that goes on, from a message that was answered already (OCPP 1.6). The next one makes it good.
            Self::TransactionUpdated { seq_no: None, trigger: Some(trigger), .. } => trigger == PERIODIC_SAMPLE,
            _ => false,
        }
    }
}

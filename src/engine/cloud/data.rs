//! The data of each event: what stands under `data`, field by field. The published schemas are made from these types.

use serde::Serialize;

use super::limits;
use crate::engine::model::alarm::Alarm;
use crate::engine::model::balance::{BalanceVerdict, Comparison};
use crate::engine::model::cdr::Cdr;
use crate::engine::model::exchange::{ConnectorStatus, OcppVersion};
use crate::engine::model::ids::{CircuitId, IdToken, StationId, TransactionId};
use crate::engine::model::signed::{Check, Page, PageFault};
use crate::engine::model::tariff::{Cost, Tariff};
use crate::engine::model::topology::LeaseForm;
use crate::engine::model::wish::{BoostEnd, TargetEnd, TargetSource};
use crate::engine::time::Utc;
use crate::engine::units::Energy;

mod of_record;

/// The data of an event.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Data<'a> {
    TransactionStarted(TransactionStarted<'a>),
    TransactionUpdated(TransactionUpdated<'a>),
    TransactionPriced(TransactionPriced<'a>),
    TransactionEnded(TransactionEnded<'a>),
    TransactionCorrected(TransactionCorrected<'a>),
    /// The CDR itself, so that it can be handed on as it is.
    Cdr(&'a Cdr),
    CdrWithheld(CdrWithheld<'a>),
    SignedValue(SignedValueData<'a>),
    EnergyBalance(EnergyBalance<'a>),
    ChargerConnected(ChargerConnected<'a>),
    ChargerFirmware(ChargerFirmware<'a>),
    ChargerDisconnected(ChargerDisconnected<'a>),
    Connector(ConnectorState<'a>),
    FailSafe(FailSafe<'a>),
    Lease(LeaseChosen<'a>),
    Alarm(&'a Alarm),
    LimitStanding(limits::LimitStanding<'a>),
    LimitEnded(limits::LimitEnded<'a>),
    LimitProven(limits::LimitProven<'a>),
    CircuitLimit(CircuitLimit<'a>),
    BoostSet(BoostSet<'a>),
    BoostEnded(BoostEnded<'a>),
    TargetSet(TargetSet<'a>),
    TargetEnded(TargetEnded<'a>),
    Configuration(ConfigurationChanged<'a>),
    Tariffs(TariffsReplaced<'a>),
    Tokens(TokensChanged<'a>),
    CommandExecuted(CommandExecuted<'a>),
    StoreRecovered(StoreRecovered<'a>),
    /// No record gives it.
    Nothing,
}

/// What every event of a transaction tells.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct AboutTransaction<'a> {
    /// The transaction as the charger knows it.
    transaction_id: &'a TransactionId,
    /// The charger.
    charger: &'a StationId,
    /// The EVSE, from 1.
    evse: u32,
    /// The connector, from 1.
    connector: u32,
    /// Who charges; null: nobody said so.
    token: Option<&'a IdToken>,
    /// When it began, by the charger's clock.
    started: Utc,
    /// The energy register at the start, in Wh; null: not known.
    meter_start_wh: Option<Energy>,
}

/// A transaction began.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TransactionStarted<'a> {
    #[serde(flatten)]
    about: AboutTransaction<'a>,
    /// The charger's number for it (OCPP 2.x); null: it has none.
    seq_no: Option<i64>,
    /// It happened while the charger was offline.
    offline: bool,
}

/// Something about a transaction changed.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TransactionUpdated<'a> {
    #[serde(flatten)]
    about: AboutTransaction<'a>,
    /// The charger's number for it (OCPP 2.x); null: it has none.
    seq_no: Option<i64>,
    /// It happened while the charger was offline.
    offline: bool,
    /// When it happened, by the charger's clock.
    at: Utc,
    /// The energy register, in Wh; null: not told.
    meter_wh: Option<Energy>,
    /// What made the charger send it, in its own words.
    trigger: Option<&'a str>,
    /// The energy so far, in Wh; null unless both registers are known.
    energy_wh: Option<Energy>,
    /// Whether the car takes energy from then on; null: that did not change.
    charging: Option<bool>,
}

/// Which prices hold for a transaction to its end.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TransactionPriced<'a> {
    #[serde(flatten)]
    about: AboutTransaction<'a>,
    /// The prices.
    tariff: &'a Tariff,
}

/// A transaction is over.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TransactionEnded<'a> {
    #[serde(flatten)]
    about: AboutTransaction<'a>,
    /// The charger's number for it (OCPP 2.x); null: it has none.
    seq_no: Option<i64>,
    /// When it ended, by the charger's clock.
    ended: Utc,
    /// The energy register at the end, in Wh; null: not known.
    meter_stop_wh: Option<Energy>,
    /// Why it ended, in the charger's words.
    reason: Option<&'a str>,
    /// The start was never heard of.
    reconstructed: bool,
    /// The energy of the transaction, in Wh; null unless both registers are known.
    energy_wh: Option<Energy>,
    /// What it costs; null without a tariff or without both registers.
    cost: Option<&'a Cost>,
}

/// A transaction ended otherwise than was said.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TransactionCorrected<'a> {
    #[serde(flatten)]
    about: AboutTransaction<'a>,
    /// When it ended.
    ended: Utc,
    /// The energy register at the end, in Wh; null: not known.
    meter_stop_wh: Option<Energy>,
    /// Why it is corrected.
    reason: &'a str,
    /// The energy of the transaction, in Wh; null unless both registers are known.
    energy_wh: Option<Energy>,
    /// What it costs; null without a tariff or without both registers.
    cost: Option<&'a Cost>,
}

/// A transaction with prices gets no CDR.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct CdrWithheld<'a> {
    #[serde(flatten)]
    about: AboutTransaction<'a>,
    /// Why.
    reason: &'a str,
}

/// A meter has signed a value.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "SignedValue"))]
pub(super) struct SignedValueData<'a> {
    /// The transaction; null: it belongs to none.
    transaction_id: Option<&'a TransactionId>,
    /// The charger.
    charger: &'a StationId,
    /// The EVSE; 0 where it is not known.
    evse: u32,
    /// When it was measured, by the charger's clock; null: not told.
    at: Option<Utc>,
    /// `Transaction.Begin`, `Sample.Periodic` … in the charger's words.
    context: Option<&'a str>,
    /// What the charger sent, byte for byte.
    signed_data: &'a str,
    /// `encodingMethod` (OCPP 2.x).
    encoding_method: Option<&'a str>,
    /// `signingMethod` (OCPP 2.x).
    signing_method: Option<&'a str>,
    /// The public key that the charger sent with it (OCPP 2.x).
    public_key: Option<&'a str>,
    /// Where it stands among the values of its meter; null: it is no OCMF.
    page: Option<&'a Page>,
    /// What is wrong with its page; null: nothing.
    page_fault: Option<PageFault>,
    /// Whether the signature is that of the meter.
    verification: Check,
    /// Why it failed or cannot be verified.
    reason: Option<&'a str>,
}

/// What of the energy since the last balance is accounted for.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct EnergyBalance<'a> {
    /// When the last one was made; null: this is the first.
    from: Option<Utc>,
    /// When it was made.
    to: Utc,
    /// The EVSEs at which anything was measured.
    evses: Vec<BalanceOfEvse<'a>>,
    /// The circuits with a meter.
    circuits: Vec<BalanceOfCircuit<'a>>,
}

/// What an EVSE's register counted, and what its transactions account for.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "EvseBalance"))]
struct BalanceOfEvse<'a> {
    /// The charger.
    charger: &'a StationId,
    /// The EVSE.
    evse: u32,
    /// The register at the beginning, in Wh; null: not known.
    register_start_wh: Option<Energy>,
    /// The register at the end, in Wh; null: not known.
    register_end_wh: Option<Energy>,
    /// The energy of its transactions meanwhile, in Wh.
    transactions_wh: Energy,
    /// What the register counted beyond the transactions, in Wh; null: a register is not known.
    difference_wh: Option<Energy>,
    /// What came of it.
    verdict: BalanceVerdict,
    /// Why it was not judged.
    reason: Option<&'a str>,
}

/// What a circuit's meter counted, and what the chargers below took.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "CircuitBalance"))]
struct BalanceOfCircuit<'a> {
    /// The circuit.
    circuit: &'a CircuitId,
    /// How the two can be compared.
    comparison: Comparison,
    /// What flowed into the circuit, less what flowed out, in Wh; null: not known.
    metered_wh: Option<Energy>,
    /// What the chargers below took by their registers, in Wh; null: not known.
    chargers_wh: Option<Energy>,
    /// How far the two may be apart, in Wh.
    tolerance_wh: Energy,
    /// What came of it.
    verdict: BalanceVerdict,
    /// Why it was not judged.
    reason: Option<&'a str>,
}

/// A charger connected.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ChargerConnected<'a> {
    /// The charger.
    charger: &'a StationId,
    /// The OCPP version spoken.
    ocpp_version: OcppVersion,
}

/// A charger booted and said who it is.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ChargerFirmware<'a> {
    /// The charger.
    charger: &'a StationId,
    /// The maker.
    vendor: &'a str,
    /// The model.
    model: &'a str,
    /// The serial number; null: not told.
    serial: Option<&'a str>,
    /// The firmware's version; null: not told.
    firmware: Option<&'a str>,
}

/// A charger disconnected.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ChargerDisconnected<'a> {
    /// The charger.
    charger: &'a StationId,
    /// Why, as far as known.
    reason: &'a str,
}

/// A connector changed its state.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ConnectorState<'a> {
    /// The charger.
    charger: &'a StationId,
    /// The EVSE; 0 is the charger itself.
    evse: u32,
    /// The connector.
    connector: u32,
    /// Its state.
    status: ConnectorStatus,
    /// The error; null: it reports none.
    error: Option<&'a str>,
}

/// A charger accepted a limit that decays by itself for the first time: from now on it is fail-safe.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct FailSafe<'a> {
    /// The charger.
    charger: &'a StationId,
    /// The EVSE.
    evse: u32,
    /// It falls back by itself.
    fail_safe: bool,
    /// What it falls back to, in A per phase.
    fallback_a: f64,
    /// How it is made to fall back.
    lease: LeaseForm,
}

/// A form of lease was found for a charger by asking it, or turned out not to work.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct LeaseChosen<'a> {
    /// The charger.
    charger: &'a StationId,
    /// All of its EVSEs.
    evse: (),
    /// The charger itself has said that it will fall to its fallback.
    fail_safe: bool,
    /// The form in use from now on.
    lease: LeaseForm,
}

/// A circuit's limit was changed from outside. Older versions recorded it so; it is only sent where such a record is sent again.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct CircuitLimit<'a> {
    /// The circuit.
    circuit: &'a CircuitId,
    /// What is left on each phase, in A; null: as configured.
    limit_a: Option<f64>,
    /// When it ends; null: when it is cleared.
    until: Option<Utc>,
}

/// A connector goes first for a while.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct BoostSet<'a> {
    /// The charger.
    charger: &'a StationId,
    /// The EVSE.
    evse: u32,
    /// The transaction that it ends with; null: only its time ends it.
    transaction_id: Option<&'a TransactionId>,
    /// When it ends.
    until: Utc,
    /// It holds.
    #[cfg_attr(test, schemars(extend("const" = "set")))]
    state: &'static str,
}

/// A boost is over before its transaction is.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct BoostEnded<'a> {
    /// The charger.
    charger: &'a StationId,
    /// The EVSE.
    evse: u32,
    /// It holds no longer.
    until: (),
    /// Why.
    state: BoostEnd,
}

/// A transaction must have some energy by a certain time.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TargetSet<'a> {
    /// The charger.
    charger: &'a StationId,
    /// The EVSE.
    evse: u32,
    /// The transaction.
    transaction_id: &'a TransactionId,
    /// The energy from the start of the transaction on, in Wh.
    energy_wh: Energy,
    /// By when.
    departure: Utc,
    /// Who set it.
    source: TargetSource,
    /// It holds.
    #[cfg_attr(test, schemars(extend("const" = "set")))]
    state: &'static str,
}

/// A target is over before its transaction is.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TargetEnded<'a> {
    /// The charger.
    charger: &'a StationId,
    /// The EVSE.
    evse: u32,
    /// The transaction.
    transaction_id: &'a TransactionId,
    /// What was missing then, in Wh; null: not known.
    missing_wh: Option<Energy>,
    /// Why.
    state: TargetEnd,
}

/// The daemon started, or something became of a configuration that was sent.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ConfigurationChanged<'a> {
    /// The daemon's version.
    version: &'a str,
    /// `start`, `reload`, `configuration.put`, `charger.approve`, `confirmed`, `rolled back to …: why`, `site.toml was changed on site`.
    cause: &'a str,
}

/// Other prices hold for transactions that get theirs from now on.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TariffsReplaced<'a> {
    /// The command.
    #[cfg_attr(test, schemars(extend("const" = "tariffs.replace")))]
    cause: &'static str,
    /// The price list; null: that of the configuration again.
    tariffs: Option<&'a [Tariff]>,
}

/// Tokens were changed. How many, not which: that is the sender's business, and a list would be a large event.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TokensChanged<'a> {
    /// What changed.
    #[cfg_attr(test, schemars(extend("const" = "tokens")))]
    cause: &'static str,
    /// How.
    #[cfg_attr(test, schemars(extend("enum" = ["update", "delete", "replace", "replace_part"])))]
    change: &'static str,
    /// How many tokens it names.
    entries: usize,
    /// The sender's name for the list that comes in parts; null: it does not.
    list: Option<&'a str>,
    /// Which part, from 1; null: it does not come in parts.
    part: Option<u32>,
    /// How many parts there are; null: it does not come in parts.
    parts: Option<u32>,
}

/// A command was carried out or refused.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct CommandExecuted<'a> {
    /// The command's id.
    id: &'a str,
    /// The command's type.
    #[serde(rename = "type")]
    kind: &'a str,
    /// How it ended.
    #[cfg_attr(test, schemars(extend("enum" = ["accepted", "rejected", "failed", "expired"])))]
    status: &'a str,
    /// The error; null: there was none.
    error: Option<&'a str>,
}

/// A damaged store was set aside and a new one begun, with a new store id and sequences from 1.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct StoreRecovered<'a> {
    /// What is known to be missing.
    missing: &'a str,
}

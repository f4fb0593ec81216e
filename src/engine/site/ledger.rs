//! The durable state of the site: the fold of its records.
//!
//! Nothing but records changes it, so a restart that folds the same records has the same state.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::accounts::{Accounts, note_untrusted};
use super::counted::Counted;
pub use super::open::{EndedTransaction, EventKey, OpenTransaction};
use super::pages::Signing;
use super::token_store::TokenStore;
use crate::engine::billing::split::{ActivityAt, RegisterAt};
use crate::engine::model::alarm::{Alarm, AlarmKey};
use crate::engine::model::balance::Balance;
use crate::engine::model::exchange::{BootInfo, OcppVersion, TransactionPhase};
use crate::engine::model::ids::{CircuitId, IdToken, Sequence, StationId, TransactionId};
use crate::engine::model::limit::{LimitAmount, LimitOrder, LimitOrigin, LimitProof, LimitTarget, StandingLimit};
use crate::engine::model::record::{Record, RecordBody, Stamp, TransactionFacts};
use crate::engine::model::signed::SignedNote;
use crate::engine::model::tariff::Tariff;
use crate::engine::model::topology::LeaseForm;
use crate::engine::model::wish::{Boost, TargetState};
use crate::engine::time::Utc;
use crate::engine::units::{Current, Energy};

/// How many ended transactions are remembered for each station, to know a resent Start or Stop again. A station sends its queue in
/// order, so it cannot be further behind than its own queue is long.
const REMEMBERED_ENDS: usize = 64;

/// How often a car may start and stop within a transaction; what comes beyond it does not change the bill.
const REMEMBERED_ACTIVITY: usize = 256;

/// How many answered commands are remembered, so that one that comes again is not carried out again.
const REMEMBERED_COMMANDS: usize = 256;

/// How many proofs of limits from outside are kept on site: with two commands a day more than half a year.
const REMEMBERED_PROOFS: usize = 500;

/// What has to be known again after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    last: Sequence,
    next_transaction: i32,
    stations: BTreeMap<StationId, StationFacts>,
    /// What older versions kept of limits from outside; taken over when it is read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    limits: BTreeMap<CircuitId, OldLimit>,
    #[serde(default)]
    standing: Vec<StandingLimit>,
    #[serde(default)]
    proofs: VecDeque<ProofRecord>,
    alarms: Vec<Alarm>,
    commands: VecDeque<CommandRecord>,
    #[serde(default, skip_serializing_if = "Accounts::is_empty")]
    accounts: Accounts,
    /// The prices that came by command; `None`: those of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tariffs: Option<Vec<Tariff>>,
    #[serde(default, skip_serializing_if = "TokenStore::is_untouched")]
    tokens: TokenStore,
    #[serde(default, skip_serializing_if = "Counted::is_empty")]
    counted: Counted,
}

/// What is known of a station.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationFacts {
    /// Who it said it is.
    pub info: Option<BootInfo>,
    /// The OCPP version it last spoke.
    pub version: Option<OcppVersion>,
    /// The EVSEs that have accepted a decaying limit, with the fallback they were given.
    pub tamed: BTreeMap<u32, Current>,
    /// In which form they were given it.
    #[serde(default)]
    pub lease_forms: BTreeMap<u32, LeaseForm>,
    /// The form of lease that was found by asking the station, and whether the station has said that it works.
    #[serde(default)]
    pub chosen_lease: Option<(LeaseForm, bool)>,
    /// Its running transactions.
    pub open: Vec<OpenTransaction>,
    /// The EVSEs that go first for a while.
    #[serde(default)]
    pub boosts: BTreeMap<u32, Boost>,
    /// What running transactions must have by when.
    #[serde(default)]
    pub targets: BTreeMap<TransactionId, TargetState>,
    ended: VecDeque<EndedTransaction>,
    /// What is known of what its meters have signed.
    #[serde(default, skip_serializing_if = "Signing::is_empty")]
    pub signing: Signing,
}

/// A limit from outside as older versions kept it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OldLimit {
    limit: Current,
    until: Option<Utc>,
}

/// A proof with the time of its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofRecord {
    /// When it was made, as far as the calendar time was known.
    pub at: Utc,
    /// Whether that was known.
    pub trusted: bool,
    /// The proof.
    pub proof: LimitProof,
}

/// A command that was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRecord {
    /// Its id.
    pub id: String,
    /// How it ended.
    pub status: String,
    /// The error, if there was one.
    pub error: Option<String>,
}

/// A snapshot that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot cannot be read: {0}")]
pub struct SnapshotError(String);

impl Ledger {
    /// Reads what [`Ledger::snapshot`] wrote.
    ///
    /// # Errors
    /// If the bytes are not a snapshot.
    pub fn restore(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut ledger: Self = serde_json::from_slice(bytes).map_err(|error| SnapshotError(error.to_string()))?;
        for (circuit, old) in std::mem::take(&mut ledger.limits) {
            ledger.set_old_limit(&circuit, old, Utc::default());
        }
        Ok(ledger)
    }

    /// The state as bytes.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The last record folded in.
    #[must_use]
    pub const fn last(&self) -> Sequence {
        self.last
    }

    /// The id for the next OCPP 1.6 transaction: positive, and never given before on this store.
    #[must_use]
    pub fn next_transaction(&self) -> i32 {
        self.next_transaction.max(1)
    }

    /// What is known of a station.
    #[must_use]
    pub fn station(&self, id: &StationId) -> Option<&StationFacts> {
        self.stations.get(id)
    }

    /// All running transactions.
    pub fn open(&self) -> impl Iterator<Item = &OpenTransaction> {
        self.stations.values().flat_map(|station| &station.open)
    }

    /// The limits from outside, in the order in which they were set.
    #[must_use]
    pub fn limits(&self) -> &[StandingLimit] {
        &self.standing
    }

    /// The limit on a target from an origin.
    #[must_use]
    pub fn limit(&self, target: &LimitTarget, origin: &LimitOrigin) -> Option<&StandingLimit> {
        self.standing.iter().find(|standing| standing.order.target == *target && standing.order.origin == *origin)
    }

    /// The last proofs of limits from outside, oldest first.
    pub fn proofs(&self) -> impl Iterator<Item = &ProofRecord> {
        self.proofs.iter()
    }

    /// The standing alarms.
    #[must_use]
    pub fn alarms(&self) -> &[Alarm] {
        &self.alarms
    }

    /// How a command with that id ended, if it was answered before.
    #[must_use]
    pub fn command(&self, id: &str) -> Option<&CommandRecord> {
        self.commands.iter().find(|command| command.id == id)
    }

    /// What bills need after transactions have ended.
    #[must_use]
    pub const fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// The price list that came by command; `None`: that of the configuration holds.
    #[must_use]
    pub fn tariffs(&self) -> Option<&[Tariff]> {
        self.tariffs.as_deref()
    }

    /// The tokens that were used here lately.
    pub fn recent_tokens(&self) -> impl Iterator<Item = &IdToken> {
        self.stations.values().flat_map(|station| {
            let open = station.open.iter().map(|open| &open.facts);
            open.chain(station.ended.iter().map(|end| &end.facts)).filter_map(|facts| facts.token.as_ref())
        })
    }

    /// The tokens that came by command.
    #[must_use]
    pub const fn tokens(&self) -> &TokenStore {
        &self.tokens
    }

    /// What the next energy balance is made of.
    #[must_use]
    pub const fn counted(&self) -> &Counted {
        &self.counted
    }

    /// Folds the next record in.
    pub fn apply(&mut self, record: &Record) {
        self.last = record.sequence;
        self.accounts.note_clock(record.stamp);
        match &record.body {
            RecordBody::TransactionStarted { .. }
            | RecordBody::TransactionUpdated { .. }
            | RecordBody::TransactionPriced { .. }
            | RecordBody::TransactionEnded { .. }
            | RecordBody::TransactionCorrected { .. } => self.apply_transaction(record),
            RecordBody::CdrCreated(note) => self.accounts.issue(note),
            RecordBody::CdrWithheld { ended_by, .. } => self.accounts.withhold(*ended_by),
            RecordBody::SignedValue(note) => self.take_signed(note),
            RecordBody::EnergyBalanced(balance) => self.balanced(balance),
            RecordBody::ChargerConnected { charger, version } => {
                self.facts_mut(charger).version = Some(*version);
            }
            RecordBody::ChargerBooted { charger, info } => {
                self.facts_mut(charger).info = Some(info.clone());
            }
            RecordBody::ChargerTamed { charger, evse, fallback, form } => {
                self.facts_mut(charger).tame(*evse, *fallback, *form);
            }
            RecordBody::LeaseChosen { charger, form, proven } => {
                self.facts_mut(charger).chosen_lease = Some((*form, *proven));
            }
            RecordBody::AlarmRaised(alarm) => {
                self.alarms.retain(|standing| standing.key != alarm.key);
                self.alarms.push(alarm.clone());
            }
            RecordBody::AlarmCleared(alarm) => self.alarms.retain(|standing| standing.key != alarm.key),
            RecordBody::OutsideLimit(standing) => self.set_limit(standing.clone()),
            RecordBody::OutsideLimitEnded { target, origin, .. } => self.end_limit(target, origin),
            RecordBody::LimitProven(proof) => self.remember_proof(record.stamp, proof),
            RecordBody::LimitChanged { circuit, limit: Some(limit), until } => {
                self.set_old_limit(circuit, OldLimit { limit: *limit, until: *until }, record.stamp.utc);
            }
            RecordBody::LimitChanged { circuit, limit: None, .. } => {
                self.end_limit(&LimitTarget::Circuit(circuit.clone()), &LimitOrigin::Cloud);
            }
            RecordBody::BoostSet { charger, evse, boost } => self.boost(charger, *evse, Some(boost)),
            RecordBody::BoostEnded { charger, evse, .. } => self.boost(charger, *evse, None),
            RecordBody::TargetSet { charger, transaction, target, .. } => {
                self.aim(charger, transaction, (*target).into());
            }
            RecordBody::TargetEnded { charger, transaction, cause, .. } => {
                self.aim(charger, transaction, (*cause).into());
            }
            RecordBody::TariffsReplaced { tariffs } => self.tariffs.clone_from(tariffs),
            RecordBody::CommandExecuted { id, status, error, .. } => {
                let command = CommandRecord { id: id.clone(), status: status.clone(), error: error.clone() };
                push_bounded(&mut self.commands, command, REMEMBERED_COMMANDS);
            }
            RecordBody::TokensChanged { order, revokes } => {
                self.tokens.apply(order, revokes.then_some(record.stamp.utc));
            }
            RecordBody::ConfigurationChanged { tokens_file, .. } => self.tokens.file_read(*tokens_file),
            RecordBody::ChargerDisconnected { .. }
            | RecordBody::ChargerStatus { .. }
            | RecordBody::StoreRecovered { .. } => {}
        }
    }

    fn apply_transaction(&mut self, record: &Record) {
        let (sequence, stamp) = (record.sequence, record.stamp);
        match &record.body {
            RecordBody::TransactionStarted { facts, seq_no, .. } => {
                self.start(sequence, facts, *seq_no);
                self.note_time(facts, facts.started, stamp);
            }
            RecordBody::TransactionUpdated { facts, seq_no, at, meter, trigger, charging, .. } => {
                let key = seq_no.map(|seq_no| EventKey {
                    phase: TransactionPhase::Updated,
                    seq_no,
                    at: *at,
                    trigger: trigger.clone(),
                });
                self.update(sequence, facts, (*at, *meter), key);
                self.note_activity(facts, *at, *charging);
                self.note_time(facts, *at, stamp);
            }
            RecordBody::TransactionPriced { facts, tariff, sealed } => {
                if let Some(open) = self.open_mut(facts) {
                    open.tariff = Some(tariff.clone());
                    open.sealed.clone_from(sealed);
                }
            }
            RecordBody::TransactionEnded { facts, ended, meter_stop, reconstructed, .. } => {
                self.note_time(facts, *ended, stamp);
                self.counted.ended(facts, *meter_stop);
                self.end(sequence, facts, (*ended, *meter_stop), *reconstructed);
            }
            RecordBody::TransactionCorrected { facts, ended, meter_stop, reason, .. } => {
                let station = self.facts_mut(&facts.charger);
                if let Some(end) = station.ended.iter_mut().rev().find(|end| end.facts.transaction == facts.transaction)
                {
                    let before = std::mem::replace(&mut end.meter_stop, *meter_stop);
                    end.ended = *ended;
                    end.reconstructed = false;
                    self.counted.corrected(facts, *ended, (before, *meter_stop));
                }
                self.accounts.correct(facts, (*ended, *meter_stop), stamp, reason);
            }
            _ => {}
        }
    }

    fn take_signed(&mut self, note: &SignedNote) {
        let by = self.last;
        let station = self.facts_mut(&note.charger);
        station.signing.take(note, by);
        let Some(transaction) = &note.transaction else { return };
        match station.open.iter_mut().find(|open| open.facts.transaction == *transaction) {
            Some(open) => open.keep_signed(note),
            None => self.accounts.keep_signed(&note.charger, transaction, note),
        }
    }

    fn balanced(&mut self, balance: &Balance) {
        let stations = &self.stations;
        let running = |charger: &StationId, evse: u32| {
            let open = stations.get(charger).and_then(|station| station.transaction_at(evse));
            open.map(|open| open.facts.transaction.clone())
        };
        self.counted.balanced(balance, running);
    }

    fn note_time(&mut self, facts: &TransactionFacts, at: Utc, stamp: Stamp) {
        if let Some(open) = self.open_mut(facts) {
            note_untrusted(&mut open.untrusted, at, stamp);
        }
    }

    fn remember_proof(&mut self, stamp: Stamp, proof: &LimitProof) {
        let proof = ProofRecord { at: stamp.utc, trusted: stamp.trusted, proof: proof.clone() };
        push_bounded(&mut self.proofs, proof, REMEMBERED_PROOFS);
    }

    fn set_limit(&mut self, standing: StandingLimit) {
        self.end_limit(&standing.order.target, &standing.order.origin);
        self.standing.push(standing);
    }

    fn end_limit(&mut self, target: &LimitTarget, origin: &LimitOrigin) {
        self.standing.retain(|standing| standing.order.target != *target || standing.order.origin != *origin);
    }

    fn set_old_limit(&mut self, circuit: &CircuitId, old: OldLimit, received: Utc) {
        let order = LimitOrder {
            target: LimitTarget::Circuit(circuit.clone()),
            origin: LimitOrigin::Cloud,
            amount: LimitAmount::PerPhase(old.limit),
            until: old.until,
            heartbeat: None,
        };
        self.set_limit(StandingLimit { order, lost: false, received });
    }

    fn open_mut(&mut self, facts: &TransactionFacts) -> Option<&mut OpenTransaction> {
        let station = self.stations.get_mut(&facts.charger)?;
        station.open.iter_mut().find(|open| open.facts.transaction == facts.transaction)
    }

    fn note_activity(&mut self, facts: &TransactionFacts, at: Utc, charging: Option<bool>) {
        if let (Some(open), Some(charging)) = (self.open_mut(facts), charging)
            && open.activity.len() < REMEMBERED_ACTIVITY
        {
            open.activity.push(ActivityAt { at, charging });
        }
    }

    fn boost(&mut self, charger: &StationId, evse: u32, boost: Option<&Boost>) {
        let boosts = &mut self.facts_mut(charger).boosts;
        match boost {
            Some(boost) => boosts.insert(evse, boost.clone()),
            None => boosts.remove(&evse),
        };
    }

    fn aim(&mut self, charger: &StationId, transaction: &TransactionId, state: TargetState) {
        self.facts_mut(charger).targets.insert(transaction.clone(), state);
    }

    fn facts_mut(&mut self, id: &StationId) -> &mut StationFacts {
        self.stations.entry(id.clone()).or_default()
    }

    fn start(&mut self, sequence: Sequence, facts: &TransactionFacts, seq_no: Option<i64>) {
        if seq_no.is_none() {
            self.skip_past(&facts.transaction);
        }
        let mut open = OpenTransaction::new(facts, (facts.started, facts.meter_start), sequence);
        let key = |seq_no| EventKey { phase: TransactionPhase::Started, seq_no, at: facts.started, trigger: None };
        open.note(seq_no.map(key));
        self.facts_mut(&facts.charger).open.push(open);
    }

    /// Only ids that we gave ourselves count here: a station's own must not push ours to the end of their range.
    fn skip_past(&mut self, transaction: &TransactionId) {
        if let Ok(number) = transaction.as_str().parse::<i32>() {
            self.next_transaction = self.next_transaction.max(number.saturating_add(1));
        }
    }

    fn update(
        &mut self,
        sequence: Sequence,
        facts: &TransactionFacts,
        (at, meter): (Utc, Option<Energy>),
        key: Option<EventKey>,
    ) {
        let station = self.facts_mut(&facts.charger);
        let open = match station.open.iter_mut().position(|open| open.facts.transaction == facts.transaction) {
            Some(index) => &mut station.open[index],
            None => {
                station.open.push(OpenTransaction::new(facts, (at, meter), sequence));
                let last = station.open.len() - 1;
                &mut station.open[last]
            }
        };
        open.facts = facts.clone();
        open.meter = meter.or(open.meter);
        if let Some(register) = meter {
            open.note_register(RegisterAt { at, register });
        }
        open.recorded_at = at;
        open.note(key);
    }

    fn end(
        &mut self,
        sequence: Sequence,
        facts: &TransactionFacts,
        (ended, meter_stop): (Utc, Option<Energy>),
        reconstructed: bool,
    ) {
        // A stop whose start never came took the next id.
        if facts.transaction.as_str() == self.next_transaction().to_string() {
            self.skip_past(&facts.transaction);
        }
        let station = self.facts_mut(&facts.charger);
        let open = station.open.iter().position(|open| open.facts.transaction == facts.transaction);
        let open = open.map(|index| station.open.remove(index));
        let started_by = open.as_ref().map_or(sequence, |open| open.started_by);
        station.targets.remove(&facts.transaction);
        station.boosts.retain(|_, boost| boost.transaction.as_ref() != Some(&facts.transaction));
        let end =
            EndedTransaction { facts: facts.clone(), ended, meter_stop, started_by, ended_by: sequence, reconstructed };
        push_bounded(&mut station.ended, end, REMEMBERED_ENDS);
        if let Some(closed) = open.and_then(|open| open.closed(facts, (ended, meter_stop), sequence)) {
            self.accounts.close(closed);
        }
    }
}

impl StationFacts {
    fn tame(&mut self, evse: u32, fallback: Current, form: LeaseForm) {
        self.tamed.insert(evse, fallback);
        self.lease_forms.insert(evse, form);
    }

    /// The running transaction with that id.
    #[must_use]
    pub fn transaction(&self, id: &TransactionId) -> Option<&OpenTransaction> {
        self.open.iter().find(|open| open.facts.transaction == *id)
    }

    /// In which form an EVSE was given its fallback.
    #[must_use]
    pub fn lease_form(&self, evse: u32) -> LeaseForm {
        self.lease_forms.get(&evse).copied().unwrap_or(LeaseForm::TxDefaultProfile)
    }

    /// The running transaction at that EVSE.
    #[must_use]
    pub fn transaction_at(&self, evse: u32) -> Option<&OpenTransaction> {
        self.open.iter().find(|open| open.facts.evse == evse)
    }

    /// The ended transaction with that id.
    #[must_use]
    pub fn ended(&self, id: &TransactionId) -> Option<&EndedTransaction> {
        self.ended.iter().rev().find(|end| end.facts.transaction == *id)
    }

    /// A transaction, running or over, that began exactly so: then a Start is a resend (OCPP 1.6 §4.8, errata 3.18). With it the record
    /// of its start.
    #[must_use]
    pub fn same_start(&self, start: &TransactionFacts) -> Option<(&TransactionFacts, Sequence)> {
        let open = self.open.iter().map(|open| (&open.facts, open.started_by));
        let ended = self.ended.iter().map(|end| (&end.facts, end.started_by));
        open.chain(ended).find(|(facts, _)| {
            let same_token = match (&facts.token, &start.token) {
                (Some(a), Some(b)) => IdToken::same_as(a, b),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            facts.evse == start.evse
                && same_token
                && facts.meter_start == start.meter_start
                && facts.started == start.started
        })
    }

    /// The running transaction that a stop without an id ends: a station sends its messages in order, so it is the one that fits, if there
    /// is only one.
    #[must_use]
    pub fn only_fit(&self, token: Option<&IdToken>, at: Utc, meter_stop: Energy) -> Option<&OpenTransaction> {
        let mut fits = self.open.iter().filter(|open| {
            let same_token = token.zip(open.facts.token.as_ref()).is_none_or(|(a, b)| a.same_as(b));
            same_token && open.facts.started <= at && open.meter.is_none_or(|last| last <= meter_stop)
        });
        fits.next().filter(|_| fits.next().is_none())
    }

    /// A reconstructed end that was already recorded: the same time and register.
    #[must_use]
    pub fn same_end(&self, at: Utc, meter_stop: Energy) -> Option<&EndedTransaction> {
        self.ended.iter().rev().find(|end| end.ended == at && end.meter_stop == Some(meter_stop))
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, bound: usize) {
    queue.push_back(item);
    if queue.len() > bound {
        queue.pop_front();
    }
}

/// Whether an alarm of that name stands.
#[must_use]
pub fn stands(alarms: &[Alarm], key: &AlarmKey) -> bool {
    alarms.iter().any(|alarm| alarm.key == *key)
}

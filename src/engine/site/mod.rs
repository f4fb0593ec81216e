//! The site's state machine: `Site::handle(input, now, &mut out)`.
//!
//! Inputs only change state; a tick (every 200 ms) changes limits, like the scan cycle of a PLC. Durable state is the [`ledger`], the fold of the
//! records; everything else is known again within seconds of a start from what devices say.

pub mod accounts;
mod alarms;
mod appetite;
pub mod background;
mod balance;
mod billing;
mod cdrs;
pub mod clock;
mod commands;
mod commission;
mod conduct;
mod control;
pub mod counted;
mod errands;
mod gauge;
pub mod io;
pub mod ledger;
mod list_plan;
mod load;
mod local_lists;
mod memory;
pub mod open;
mod outside;
mod outside_status;
mod pace;
pub mod pages;
mod pending;
mod phases;
mod proof;
mod proofs;
mod queue;
mod readings;
mod recall;
mod revocation;
mod running_cost;
pub mod sabotage;
mod sending;
mod sent;
mod signed;
mod silence;
mod stations;
mod status;
mod telemetry;
pub mod tether;
pub mod token_store;
mod tokens;
mod transactions;
mod wish_intake;
mod wishes;
mod words;
pub mod writes;

use std::collections::BTreeMap;

use crate::engine::billing::split::RegisterAt;
use crate::engine::cloud::answers::Answers;
use crate::engine::cloud::messages::Messages;
use crate::engine::cloud::outbox::Outbox;
use crate::engine::model::errand::ErrandId;
use crate::engine::model::ids::{RequestId, Sequence, StationId, TransactionId};
use crate::engine::model::record::{Record, RecordBody, Stamp};
use crate::engine::model::setup::Setup;
use crate::engine::model::topology::{CircuitIndex, EvseIndex, StationIndex, Topology};
use crate::engine::ocpp::CallKey;
use crate::engine::plan::{Plan, PlanState, Planner};
use crate::engine::time::{Mono, Now, Utc};
use crate::engine::units::{Current, PerPhase};
use background::Background;
use commission::Commissioning;
use control::EvseControl;
use errands::Waiting;
use io::{Input, JournalInput, LogLevel, Output};
use ledger::Ledger;
use local_lists::Lists;
use outside::Outside;
use pace::{Pace, Ramp};
use pending::Pending;
use readings::{InverterState, MeterState};
use running_cost::Displays;
#[cfg(feature = "sabotage")]
use sabotage::Sabotage;
use signed::SignedWaits;
use stations::{HeldAnswer, StationState};
use telemetry::Telemetry;
use tokens::Tokens;
use wishes::EvseWish;

/// How often the things that only time moves are looked at: time-outs, alarms, the cloud.
const SLOW_MS: u64 = 1_000;

/// A snapshot of the folded state is stored after so many records, so that a start never folds more.
const SNAPSHOT_EVERY: u64 = 1_000;

/// What the store knew when the daemon started.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The store's random name: with the sequence it names an event for ever.
    pub store_id: String,
    /// Counts the starts on this store, from 1.
    pub boot: u64,
    /// The fold of all records (snapshot and what came after it). All of them are durable.
    pub ledger: Ledger,
    /// The last record folded into the stored snapshot; 0 if there is none.
    pub snapshot_at: Sequence,
    /// The last record that the cloud has acknowledged.
    pub acknowledged: Sequence,
    /// What is known to be missing, if a damaged store was set aside at this start.
    pub damage: Option<String>,
    /// What the last run remembered by [`Site::take_memory`], if it is there.
    pub remembered: Option<Vec<u8>>,
    /// Why the daemon started, where it was not from outside: what the event of the start says.
    pub cause: Option<String>,
}

/// Whose call to a station it was.
#[derive(Clone, Debug, PartialEq)]
enum Purpose {
    Limit(EvseIndex),
    /// What all EVSEs of a station together may draw.
    Rating,
    /// What does the station itself say of its lease?
    Proof(EvseIndex),
    /// The same, in a commissioning test.
    Commission,
    Configure(String),
    Trigger,
    /// A sample of the current, asked for out of turn.
    Sample(EvseIndex),
    /// What a transaction costs, for the display.
    Cost,
    /// A stop or a change of availability of a station above its limit.
    Enforce(EvseIndex),
    /// A stop of a transaction whose token has no right, or that the master pass ends.
    End(TransactionId),
    ClearCache,
    /// Something about its local list.
    List,
    Request(RequestId),
    Cloud(commands::CloudRequest),
}

/// What has to be said once, at the start.
#[derive(Debug)]
struct StartNotes {
    damage: Option<String>,
    cause: Option<String>,
}

/// The link to the cloud as the site sees it.
#[derive(Debug)]
struct Cloud {
    messages: Messages,
    outbox: Outbox,
    answers: Answers,
    telemetry: Telemetry,
    connected: bool,
    since: Mono,
    error: Option<String>,
    state_due: Mono,
    state_changed: bool,
}

impl Cloud {
    /// `None`: none is configured.
    fn new(setup: &Setup, restored: &Restored, now: Now) -> Option<Self> {
        let (cloud, topology) = (setup.cloud.as_ref()?, &setup.topology);
        Some(Self {
            messages: Messages::new(&cloud.topic_prefix, topology.site(), &restored.store_id),
            outbox: Outbox::new(cloud.acknowledge, restored.acknowledged),
            answers: Answers::default(),
            telemetry: Telemetry::new(topology, now),
            connected: false,
            since: now.mono,
            error: None,
            state_due: now.mono,
            state_changed: true,
        })
    }
}

/// The site.
#[derive(Debug)]
pub struct Site {
    setup: Setup,
    store_id: String,
    boot: u64,
    started: Mono,
    ledger: Ledger,
    durable: Sequence,
    snapshot_at: Sequence,
    stations: Vec<StationState>,
    evses: Vec<EvseControl>,
    meters: Vec<MeterState>,
    inverters: Vec<InverterState>,
    backgrounds: Vec<Background>,
    wishes: Vec<EvseWish>,
    /// A record was made since they were put together.
    wishes_stale: bool,
    paces: Vec<Pace>,
    ramp: Ramp,
    plan_state: PlanState,
    /// What the EVSEs below each circuit may draw by the last plan.
    committed_below: Vec<PerPhase<Current>>,
    /// The same as it counts for powers, in mA on all phases together.
    committed_power_below: Vec<i64>,
    /// Whether a transaction runs at each EVSE.
    charging: Vec<bool>,
    plan: Plan,
    planner: Planner,
    outside: Outside,
    tokens: Tokens,
    lists: Lists,
    calls: BTreeMap<CallKey, (StationIndex, Purpose)>,
    last_call: u64,
    held: Vec<HeldAnswer>,
    held_answers: Vec<(Sequence, Output)>,
    cloud: Option<Cloud>,
    store_error: Option<String>,
    start_notes: Option<StartNotes>,
    pending: Pending,
    /// What the shell was asked to do for a command, and who waits for it.
    errands: BTreeMap<ErrandId, Waiting>,
    above_since: BTreeMap<CircuitIndex, Mono>,
    commissioning: Option<Commissioning>,
    /// The last register seen of each running transaction: what a tariff border needs.
    last_registers: BTreeMap<(StationId, TransactionId), RegisterAt>,
    displays: Displays,
    signed_waits: SignedWaits,
    /// When the next energy balance is made, once that was looked up.
    balance_due: Option<Utc>,
    #[cfg(feature = "sabotage")]
    sabotage: Option<Sabotage>,
    /// Something that the plan rests on has changed.
    dirty: bool,
    /// What the next run has to know has changed since it was asked for.
    memory_due: bool,
    plan_due: Mono,
    planned_at: Mono,
    /// The next run has to know something new, although nothing was sent.
    remember_due: bool,
    slow_due: Mono,
}

impl Site {
    /// Starts the state machine. What must be said at the start (alarms, the start itself) leaves with the first tick.
    #[must_use]
    pub fn new(mut setup: Setup, restored: Restored, now: Now) -> Self {
        let tokens = Tokens::new(std::mem::take(&mut setup.tokens), &setup.topology, &restored.ledger, now);
        let topology = &setup.topology;
        let outside = Outside::new(&setup, &restored, now.mono);
        let cloud = Cloud::new(&setup, &restored, now);
        let ledger = restored.ledger;
        let mut site = Self {
            stations: topology.stations().iter().map(|_| StationState::new(now.mono)).collect(),
            evses: topology.evses().iter().map(|evse| EvseControl::new(topology, *evse, &ledger, now.mono)).collect(),
            meters: topology.meters().iter().map(|_| MeterState::default()).collect(),
            inverters: topology.inverters().iter().map(|_| InverterState::default()).collect(),
            wishes: topology.evses().iter().map(|evse| EvseWish::of(topology.station(evse.station))).collect(),
            wishes_stale: true,
            backgrounds: topology.circuits().iter().map(|_| Background::default()).collect(),
            paces: topology.circuits().iter().map(|_| Pace::default()).collect(),
            ramp: Ramp::default(),
            plan_state: PlanState::default(),
            committed_below: Vec::new(),
            committed_power_below: Vec::new(),
            charging: vec![false; topology.evses().len()],
            plan: Plan::default(),
            planner: Planner::default(),
            outside,
            tokens,
            lists: Lists::new(topology.stations().len()),
            calls: BTreeMap::new(),
            last_call: 0,
            held: Vec::new(),
            held_answers: Vec::new(),
            cloud,
            store_error: None,
            start_notes: None,
            pending: Pending::default(),
            errands: BTreeMap::new(),
            above_since: BTreeMap::new(),
            commissioning: None,
            last_registers: BTreeMap::new(),
            displays: Displays::default(),
            signed_waits: SignedWaits::default(),
            balance_due: None,
            #[cfg(feature = "sabotage")]
            sabotage: None,
            dirty: true,
            memory_due: false,
            plan_due: now.mono,
            planned_at: now.mono,
            remember_due: false,
            slow_due: now.mono,
            store_id: restored.store_id,
            boot: restored.boot,
            started: now.mono,
            durable: ledger.last(),
            snapshot_at: restored.snapshot_at,
            ledger,
            setup,
        };
        (0..site.stations.len()).for_each(|station| site.note_charging(StationIndex(station)));
        site.begin_leases(now);
        if let Some(remembered) = &restored.remembered {
            site.restore_offers(remembered, now);
        }
        site.restore_conduct();
        site.set_durable(site.durable);
        site.begin((restored.damage, restored.cause), now);
        site
    }

    /// Takes in what happened and appends what is to be done to `out`.
    pub fn handle(&mut self, input: Input, now: Now, out: &mut Vec<Output>) {
        match input {
            Input::Tick => self.tick(now, out),
            Input::StationConnected { station, connection, version } => {
                self.station_connected(station, (connection, version), now, out);
            }
            Input::StationFrame { station, connection, text } => {
                self.station_frame(station, connection, &text, (now, out));
            }
            Input::StationDisconnected { station, connection, reason } => {
                self.station_disconnected(station, connection, &reason, (now, out));
            }
            Input::Meter { meter, asked_at, result } => self.meter_polled(meter, asked_at, result, (now, out)),
            Input::Inverter { inverter, asked_at, result } => {
                self.inverter_polled(inverter, asked_at, result, (now, out));
            }
            Input::Dimming { asked_at, result } => self.contact_polled(asked_at, result, (now, out)),
            Input::Journal(journal) => self.journal_said(journal, now, out),
            Input::Cloud(cloud) => self.cloud_said(cloud, now, out),
            Input::Telemetry(said) => self.telemetry_said(said, now, out),
            Input::GuardDisagrees { circuit, message } => self.guard_disagrees(circuit, message, now, out),
            Input::Request { request, command } => self.requested(request, command, now, out),
            Input::ErrandAnswered { id, outcome } => self.errand_answered(id, outcome, now, out),
            Input::Pending { chargers } => self.pending_changed(chargers, now),
            Input::ConfigurationChanged { cause } => self.configuration_changed(cause, now, out),
        }
    }

    /// What is wired to what.
    #[must_use]
    pub const fn topology(&self) -> &Topology {
        &self.setup.topology
    }

    /// The last record made, durable or not.
    #[must_use]
    pub const fn last_sequence(&self) -> Sequence {
        self.ledger.last()
    }

    /// The fold of all records made so far.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The random name of the store, part of every event's id.
    #[must_use]
    pub fn store_id(&self) -> &str {
        &self.store_id
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Output>) {
        if now.mono >= self.slow_due {
            self.slow_due = now.mono.plus_ms(SLOW_MS);
            self.tick_sessions(now, out);
            self.outside_tick(now, out);
            self.watch_wishes(now, out);
            self.end_refused(now, out);
            self.clear_caches(now, out);
            self.tend_lists(now, out);
            self.watch(now, out);
            self.watch_leases(now, out);
            self.commission_tick(now, out);
            self.ask_for_samples(now, out);
            self.cdr_tick(now, out);
            self.show_costs(now, out);
            self.balance_tick(now, out);
            self.telemetry_tick(now, out);
            self.cloud_tick(now, out);
        }
        if self.dirty || now.mono >= self.plan_due {
            self.dirty = false;
            self.control(now, out);
        }
        self.look_at_limits(now, out);
    }

    fn station_id(&self, station: StationIndex) -> &StationId {
        &self.setup.topology.station(station).id
    }

    /// Makes the next record: folds it in and hands it to the journal.
    fn record(&mut self, body: RecordBody, now: Now, out: &mut Vec<Output>) -> Sequence {
        self.judge_end(&body, now, out);
        self.make_room_for_bill(&body, now, out);
        let stamp = Stamp { utc: now.utc, trusted: now.utc_trusted, mono: now.mono, boot: self.boot };
        let record = Record { sequence: self.ledger.last().next(), stamp, body };
        let sequence = record.sequence;
        self.note_last_cost(&record.body, sequence);
        self.ledger.apply(&record);
        if let RecordBody::TransactionStarted { facts, .. }
        | RecordBody::TransactionUpdated { facts, .. }
        | RecordBody::TransactionEnded { facts, .. } = &record.body
            && let Some(station) = self.setup.topology.find_station(&facts.charger)
        {
            self.note_charging(station);
        }
        if let RecordBody::TokensChanged { .. } | RecordBody::ConfigurationChanged { .. } = &record.body {
            self.tokens.revocation.look_at_all_again();
        }
        self.wishes_stale = true;
        out.push(Output::Append(record));
        if sequence.0 >= self.snapshot_at.0 + SNAPSHOT_EVERY {
            self.snapshot_at = sequence;
            out.push(Output::Snapshot { through: sequence, state: self.ledger.snapshot() });
            if self.cloud.is_none() {
                // Nobody will ever fetch them: the site's own history is all that is kept.
                out.push(Output::Acknowledged { through: sequence });
            }
        }
        if let Some(cloud) = &mut self.cloud {
            cloud.state_changed = true;
        }
        sequence
    }

    fn journal_said(&mut self, journal: JournalInput, now: Now, out: &mut Vec<Output>) {
        match journal {
            JournalInput::Durable { through } => {
                self.set_durable(through);
                self.release_held(now, out);
                self.release_answers(out);
                self.cloud_poll(now, out);
            }
            JournalInput::Failed { error } => {
                log(
                    out,
                    LogLevel::Warn,
                    format!(
                        "the store cannot be written: {error}; stations keep their transaction messages until it can"
                    ),
                );
                self.store_error = Some(error);
            }
            JournalInput::Recovered => {
                log(out, LogLevel::Info, "the store can be written again".to_owned());
                self.store_error = None;
            }
            JournalInput::Records { records } => {
                if let Some(cloud) = &mut self.cloud {
                    cloud.outbox.records(records);
                }
                self.cloud_poll(now, out);
            }
        }
    }

    fn set_durable(&mut self, through: Sequence) {
        self.durable = self.durable.max(through);
        if let Some(cloud) = &mut self.cloud {
            cloud.outbox.durable(self.durable);
        }
    }
}

fn log(out: &mut Vec<Output>, level: LogLevel, message: String) {
    out.push(Output::Log { level, message });
}

#[cfg(test)]
mod plant_tests;
#[cfg(test)]
mod tests;

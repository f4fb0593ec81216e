//! A crowd of simulated sites that speak with the daemon's own code: its outbox, its messages, its link to the broker. Only their journals are
//! invented: record after record by number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use siteward::config::Broker;
use siteward::engine::cloud::intake::read_command;
use siteward::engine::cloud::messages::{Messages, response};
use siteward::engine::cloud::outbox::{Outbox, OutboxAction};
use siteward::engine::model::command::{Command, CommandOutcome};
use siteward::engine::model::exchange::ConnectorStatus;
use siteward::engine::model::ids::{IdToken, Sequence, SiteId, StationId, TransactionId};
use siteward::engine::model::record::{Record, RecordBody, Stamp, TransactionFacts};
use siteward::engine::model::setup::Acknowledge;
use siteward::engine::site::io::{CloudInput, Input, Publication};
use siteward::engine::time::{Mono, Utc};
use siteward::engine::units::Energy;
use siteward::shell::clock::Clock;
use siteward::shell::mqtt::{self, CloudLink};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Publications and inputs that wait: more than the outbox ever has in flight.
const QUEUE: usize = 512;
/// The daemon's scan cycle.
const TICK: Duration = Duration::from_millis(200);
/// The time of the first invented record: 2026-03-01.
const FIRST_MS: i64 = 1_772_323_200_000;
/// An invented transaction has so many events: its start, a change, its end, and the connector that is free again.
const EVENTS_EACH: u64 = 4;

/// What kind of crowd.
#[derive(Clone, Debug)]
pub struct CrowdOptions {
    /// The broker.
    pub broker: (String, u16),
    /// The first part of the topics.
    pub prefix: String,
    /// How many sites.
    pub sites: usize,
    /// How many events each of them has.
    pub events: u64,
    /// Over which time they come into being, in ms; 0: all are there at the start.
    pub over_ms: u64,
    /// When an event is done.
    pub acknowledge: Acknowledge,
}

/// How far the crowd is.
#[derive(Debug, Default)]
pub struct CrowdProgress {
    /// Sites that have been connected.
    pub connected: AtomicU64,
    /// Events published, repetitions included.
    pub published: AtomicU64,
    /// Events acknowledged.
    pub acknowledged: AtomicU64,
    /// Replays asked for.
    pub replays: AtomicU64,
}

/// What the crowd's books must say in the end: starts, ends, energy in Wh.
#[must_use]
pub fn expected(options: &CrowdOptions) -> (u64, u64, i64) {
    let sites = u64::try_from(options.sites).unwrap_or(0);
    let (starts, ends) = (options.events.div_ceil(EVENTS_EACH), (options.events + 1) / EVENTS_EACH);
    let energy = |site: u64| (0..ends).map(|number| energy_wh(site, number)).sum::<i64>();
    (sites * starts, sites * ends, (0..sites).map(energy).sum())
}

/// The id of a site of the crowd.
#[must_use]
pub fn site_id(number: u64) -> String {
    format!("site-{number:05}")
}

fn energy_wh(site: u64, transaction: u64) -> i64 {
    i64::try_from(1_000 + (site * 11 + transaction * 37) % 20_000).unwrap_or(1_000)
}

/// The record with that number, from 1, in the journal of a site.
#[must_use]
pub fn record(site: u64, sequence: u64) -> Record {
    let (number, part) = ((sequence - 1) / EVENTS_EACH, (sequence - 1) % EVENTS_EACH);
    let later = |events: u64| FIRST_MS + i64::try_from(events * 600_000).unwrap_or(0);
    let charger = StationId::new(&format!("CP{:03}", number % 20 + 1));
    let start = i64::try_from(number * 25_000).unwrap_or(0);
    let stop = Energy::from_wh(start + energy_wh(site, number));
    let facts = TransactionFacts {
        transaction: TransactionId::new(&(number + 1).to_string()),
        charger: charger.clone(),
        evse: 1,
        connector: 1,
        token: Some(IdToken::new("04A2B3C4")),
        started: Utc::from_unix_ms(later(number * EVENTS_EACH)),
        meter_start: Some(Energy::from_wh(start)),
    };
    let at = Utc::from_unix_ms(later(sequence - 1));
    let body = match part {
        0 => RecordBody::TransactionStarted { facts, seq_no: None, offline: false },
        1 => RecordBody::TransactionUpdated {
            facts,
            seq_no: None,
            at,
            meter: Some(stop),
            trigger: Some("MeterValuePeriodic".to_owned()),
            offline: false,
            charging: None,
        },
        2 => RecordBody::TransactionEnded {
            facts,
            seq_no: None,
            ended: at,
            meter_stop: Some(stop),
            reason: Some("EVDisconnected".to_owned()),
            reconstructed: false,
            cost: None,
        },
        _ => RecordBody::ChargerStatus {
            charger,
            evse: 1,
            connector: 1,
            status: ConnectorStatus::Available,
            error: None,
        },
    };
    let stamp = Stamp { utc: at, trusted: true, mono: Mono::from_ms(sequence * 600_000), boot: 1 };
    Record { sequence: Sequence(sequence), stamp, body }
}

/// Starts the crowd. It goes on, and answers replays, until the set is dropped.
#[must_use]
pub fn start(options: &CrowdOptions, progress: &Arc<CrowdProgress>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let clock = Clock::start();
    for number in 0..u64::try_from(options.sites).unwrap_or(0) {
        let (publications, to_link) = mpsc::channel(QUEUE);
        let (from_link, inbox) = mpsc::channel(QUEUE);
        let site = SiteId::new(&site_id(number));
        let link = CloudLink {
            brokers: vec![Broker { host: options.broker.0.clone(), port: options.broker.1 }],
            look_for_better: mqtt::LOOK_FOR_BETTER,
            tls: None,
            username: None,
            password: None,
            client_id: format!("siteward-{site}"),
            topic_prefix: options.prefix.clone(),
            site: site.clone(),
            version: "0.1.0".to_owned(),
            clock,
        };
        let invented = Invented {
            number,
            options: options.clone(),
            messages: Messages::new(&options.prefix, &site, &format!("{:016x}", number + 1)),
            outbox: Outbox::new(options.acknowledge, Sequence(0)),
            acknowledged: 0,
            was_connected: false,
            publications,
            progress: progress.clone(),
        };
        tasks.spawn(async move {
            // Nobody stops it: it ends with its task.
            let (_running, stop) = watch::channel(false);
            tokio::join!(mqtt::run(link, to_link, from_link, stop), invented.live(inbox, clock));
        });
    }
    tasks
}

struct Invented {
    number: u64,
    options: CrowdOptions,
    messages: Messages,
    outbox: Outbox,
    acknowledged: u64,
    was_connected: bool,
    publications: mpsc::Sender<Publication>,
    progress: Arc<CrowdProgress>,
}

impl Invented {
    async fn live(mut self, mut inbox: mpsc::Receiver<Input>, clock: Clock) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let begun = clock.mono();
        loop {
            tokio::select! {
                input = inbox.recv() => match input {
                    Some(Input::Cloud(input)) => self.hear(input, clock.mono()),
                    Some(_) => {}
                    None => return,
                },
                _ = tick.tick() => {
                    let age = clock.mono().since(begun);
                    let there = (self.options.events * age.min(self.options.over_ms)).checked_div(self.options.over_ms);
                    self.outbox.durable(Sequence(there.unwrap_or(self.options.events)));
                }
            }
            while self.work(clock.mono()) {}
        }
    }

    fn hear(&mut self, input: CloudInput, now: Mono) {
        match input {
            CloudInput::Connected => {
                if !std::mem::replace(&mut self.was_connected, true) {
                    self.progress.connected.fetch_add(1, Ordering::Relaxed);
                }
                self.outbox.connected();
            }
            CloudInput::Disconnected { .. } => self.outbox.disconnected(),
            CloudInput::Acknowledged { sequences } => {
                sequences.into_iter().for_each(|sequence| self.outbox.broker_acknowledged(sequence));
            }
            CloudInput::NotTaken { sequence, .. } => self.outbox.not_taken(sequence, now),
            // An invented site has no meters.
            CloudInput::IntervalTaken { .. } | CloudInput::IntervalNotTaken { .. } => {}
            CloudInput::Message { payload, response_topic, correlation } => {
                let Ok(intake) = read_command(&payload) else { return };
                let result = match intake.command {
                    Command::EventsAcknowledge { sequence, store_id: _ } => {
                        self.outbox.application_acknowledged(sequence)
                    }
                    Command::EventsReplay { from } => {
                        self.progress.replays.fetch_add(1, Ordering::Relaxed);
                        self.outbox.replay(from)
                    }
                    _ => Err("an invented site has nothing but its journal".to_owned()),
                };
                let outcome = match result {
                    Ok(()) => CommandOutcome::Accepted { data: None },
                    Err(error) => CommandOutcome::Rejected { error },
                };
                let text = response(Some(&intake.id), &outcome);
                // Full: the asker asks again.
                let _ = self.publications.try_send(self.messages.response(text, response_topic, correlation));
            }
        }
    }

    /// Does what the outbox wants done. True: it may want more.
    fn work(&mut self, now: Mono) -> bool {
        let mut more = false;
        for action in self.outbox.poll(now) {
            match action {
                OutboxAction::Publish(record) => {
                    self.progress.published.fetch_add(1, Ordering::Relaxed);
                    // There is room for all that the outbox has in flight; without a connection it comes again.
                    let _ = self.publications.try_send(self.messages.event(&record));
                }
                OutboxAction::Read { from, limit } => {
                    let last = self.options.events.min(from.0 + u64::try_from(limit).unwrap_or(0) - 1);
                    self.outbox.records((from.0..=last).map(|sequence| record(self.number, sequence)).collect());
                    more = true;
                }
                OutboxAction::Acknowledged(through) => {
                    self.progress.acknowledged.fetch_add(through.0 - self.acknowledged, Ordering::Relaxed);
                    self.acknowledged = through.0;
                }
            }
        }
        more
    }
}

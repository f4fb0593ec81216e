//! The one owner of the site's state: feeds it what happens, carries out what it answers.
//!
//! Nothing here waits for a disk, a station or the cloud: every output goes into a bounded queue or is dropped where its loss is
//! provided for. What "full" means is written at each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::engine::controller::Controller;
use crate::engine::model::command::{Command, CommandOutcome};
use crate::engine::model::commission::CommissionReport;
use crate::engine::model::errand::{Errand, ErrandId};
use crate::engine::model::ids::{RequestId, Sequence, StationId};
use crate::engine::model::record::Record;
use crate::engine::model::status::{Explanation, SiteStatus};
use crate::engine::site::io::{Input, LogLevel, Output, Publication};
use crate::engine::time::Mono;
use crate::shell::clock::Clock;
use crate::shell::station::Registry;
use crate::shell::stopped;
use crate::shell::systemd::Notifier;
use crate::shell::telemetry::TelemetryHandle;

/// The control cycle.
const TICK: Duration = Duration::from_millis(200);

/// Inputs between tasks and the owner. A burst of all stations at once fits; beyond it the senders wait (and with them, by TCP, the
/// stations), which is what they should do while the owner is behind.
pub const INBOX: usize = 1024;

/// Inputs handled before the next look at the tick. A batch shares one journal commit.
const BATCH: usize = 256;

/// Questions from people; they wait in their own task while it is full.
const QUESTIONS: usize = 64;

/// Commands that wait for a station's answer. Each holds an open HTTP request.
const MAX_PENDING: usize = 256;

/// Where records go. Every method only queues: durability is reported back as an input.
pub trait Store: Send {
    /// Appends records, in order.
    ///
    /// # Errors
    /// If they cannot even be kept in memory any more. A numbered record that is lost would be a gap for ever, so the owner ends.
    fn append(&mut self, records: Vec<Record>) -> Result<(), StoreOverrun>;
    /// Keeps the folded state.
    fn snapshot(&mut self, through: Sequence, state: Vec<u8>);
    /// Asks for durable records; they come back as an input.
    fn read(&mut self, from: Sequence, limit: usize);
    /// The cloud has everything up to this record.
    fn acknowledged(&mut self, through: Sequence);
}

/// Records can no longer be kept: the disk has refused them for too long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreOverrun(pub String);

/// What the owner acts upon.
pub struct Reach {
    /// Where records go.
    pub store: Box<dyn Store>,
    /// The stations' connections.
    pub registry: Registry,
    /// Where telemetry is kept; `None`: no cloud is configured.
    pub telemetry: Option<TelemetryHandle>,
    /// Where messages to the cloud go; `None`: no cloud is configured.
    pub publications: Option<mpsc::Sender<Publication>>,
    /// Where the limits in force are kept for the next run.
    pub memory: watch::Sender<Vec<u8>>,
    /// Who carries out what belongs to neither the site nor the bus: files and the log.
    pub errands: mpsc::Sender<(ErrandId, Errand)>,
    /// Where reports of commissioning tests are signed and written.
    pub reports: mpsc::Sender<Box<CommissionReport>>,
    /// The service manager.
    pub notifier: Notifier,
}

/// The owner has ended: the daemon stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the controller is stopping")]
pub struct Stopping;

enum Question {
    Explain { charger: StationId, answer: oneshot::Sender<Option<Explanation>> },
    Commissioned { charger: StationId, answer: oneshot::Sender<Option<CommissionReport>> },
    LimitLog { answer: oneshot::Sender<String> },
    Tokens { after: String, limit: usize, answer: oneshot::Sender<String> },
    Command { command: Command, answer: oneshot::Sender<CommandOutcome> },
}

/// Asks the owner. Clones ask the same one.
#[derive(Clone)]
pub struct Asker {
    questions: mpsc::Sender<Question>,
    status: watch::Receiver<Arc<SiteStatus>>,
    last_tick: Arc<AtomicU64>,
}

impl Asker {
    /// The site as it was at the last tick.
    #[must_use]
    pub fn status(&self) -> Arc<SiteStatus> {
        Arc::clone(&self.status.borrow())
    }

    /// When the last tick was completed; [`Mono::START`] before the first.
    #[must_use]
    pub fn last_tick(&self) -> Mono {
        Mono::from_ms(self.last_tick.load(Ordering::Relaxed))
    }

    /// Waits until the next tick is completed.
    ///
    /// # Errors
    /// If the owner has ended.
    pub async fn next_tick(&mut self) -> Result<(), Stopping> {
        self.status.changed().await.map_err(|_| Stopping)
    }

    /// Why a station's EVSEs have the limits that they have; `None` if there is no such station.
    ///
    /// # Errors
    /// If the owner has ended.
    pub async fn explain(&self, charger: StationId) -> Result<Option<Explanation>, Stopping> {
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question::Explain { charger, answer }).await.map_err(|_| Stopping)?;
        answered.await.map_err(|_| Stopping)
    }

    /// How the commissioning test of a station goes, or went; `None` if there was none since the start.
    ///
    /// # Errors
    /// If the owner has ended.
    pub async fn commissioned(&self, charger: StationId) -> Result<Option<CommissionReport>, Stopping> {
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question::Commissioned { charger, answer }).await.map_err(|_| Stopping)?;
        answered.await.map_err(|_| Stopping)
    }

    /// What became of the limits from outside, oldest first, as a JSON array.
    ///
    /// # Errors
    /// If the owner has ended.
    pub async fn limit_log(&self) -> Result<String, Stopping> {
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question::LimitLog { answer }).await.map_err(|_| Stopping)?;
        answered.await.map_err(|_| Stopping)
    }

    /// A page of the tokens behind `after`, at most `limit`, as JSON.
    ///
    /// # Errors
    /// If the owner has ended.
    pub async fn tokens(&self, after: String, limit: usize) -> Result<String, Stopping> {
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question::Tokens { after, limit, answer }).await.map_err(|_| Stopping)?;
        answered.await.map_err(|_| Stopping)
    }

    /// Has a command carried out and waits for its outcome.
    ///
    /// # Errors
    /// If the owner has ended.
    pub async fn command(&self, command: Command) -> Result<CommandOutcome, Stopping> {
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question::Command { command, answer }).await.map_err(|_| Stopping)?;
        answered.await.map_err(|_| Stopping)
    }
}

/// The owner.
pub struct Owner {
    controller: Controller,
    clock: Clock,
    reach: Reach,
    questions: mpsc::Receiver<Question>,
    status: watch::Sender<Arc<SiteStatus>>,
    last_tick: Arc<AtomicU64>,
    last_request: u64,
    pending: BTreeMap<RequestId, oneshot::Sender<CommandOutcome>>,
    /// What the shell itself has to tell the site at the next tick.
    returned: Vec<Input>,
    out: Vec<Output>,
    records: Vec<Record>,
    overrun: Option<StoreOverrun>,
}

impl Owner {
    /// Makes the owner and the way to ask it.
    #[must_use]
    pub fn new(controller: Controller, clock: Clock, reach: Reach) -> (Self, Asker) {
        let (questions_in, questions) = mpsc::channel(QUESTIONS);
        let (status, watched) = watch::channel(Arc::new(controller.site().status(clock.now())));
        let last_tick = Arc::new(AtomicU64::new(0));
        let asker = Asker { questions: questions_in, status: watched, last_tick: Arc::clone(&last_tick) };
        let (returned, out, records) = (Vec::new(), Vec::new(), Vec::new());
        let pending = BTreeMap::new();
        let (last_request, overrun) = (0, None);
        let owner = Self {
            controller,
            clock,
            reach,
            questions,
            status,
            last_tick,
            last_request,
            pending,
            returned,
            out,
            records,
            overrun,
        };
        (owner, asker)
    }

    /// Runs until `shutdown`, then handles what is already in the inbox.
    ///
    /// # Errors
    /// If the store could not keep a record. The process must end then; the stations keep their safe limits by their leases.
    pub async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Input>,
        mut shutdown: watch::Receiver<bool>,
    ) -> Result<(), StoreOverrun> {
        let mut ticks = interval(TICK);
        // After a stall one tick on the newest state is worth more than all the missed ones.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                // The tick first: no flood of inputs may keep limits from being renewed.
                biased;
                _ = ticks.tick() => self.tick(),
                () = stopped(&mut shutdown) => break,
                Some(question) = self.questions.recv() => {
                    self.answer(question);
                    // Questions without end must not keep readings and frames waiting either.
                    while batch.len() < BATCH && let Ok(input) = inbox.try_recv() {
                        batch.push(input);
                    }
                    self.handle_all(&mut batch);
                }
                count = inbox.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    self.handle_all(&mut batch);
                }
            }
            if let Some(overrun) = self.overrun {
                return Err(overrun);
            }
        }
        while let Ok(input) = inbox.try_recv() {
            batch.push(input);
        }
        self.handle_all(&mut batch);
        self.overrun.map_or(Ok(()), Err)
    }

    fn tick(&mut self) {
        let mut inputs = std::mem::take(&mut self.returned);
        inputs.push(Input::Tick);
        self.handle_all(&mut inputs);
        self.pending.retain(|_, answer| !answer.is_closed());
        let now = self.clock.now();
        let status = Arc::new(self.controller.site().status(now));
        self.last_tick.store(now.mono.ms().max(1), Ordering::Relaxed);
        self.reach.notifier.control_cycle_done(&status, now.mono);
        self.status.send_replace(status);
    }

    fn answer(&mut self, question: Question) {
        match question {
            Question::Explain { charger, answer } => {
                let site = self.controller.site();
                let station = site.topology().find_station(&charger);
                // Whoever asked may have gone.
                let _ = answer.send(station.map(|station| site.explain(station, self.clock.now())));
            }
            Question::Commissioned { charger, answer } => {
                let _ = answer.send(self.controller.site().commission_report(&charger));
            }
            Question::LimitLog { answer } => {
                let _ = answer.send(self.controller.site().limit_log());
            }
            Question::Tokens { after, limit, answer } => {
                let _ = answer.send(self.controller.site().tokens_page(&after, limit, self.clock.now()));
            }
            Question::Command { answer, .. } if self.pending.len() >= MAX_PENDING => {
                let error = format!("{MAX_PENDING} commands wait for answers already; try again later");
                let _ = answer.send(CommandOutcome::Rejected { error });
            }
            Question::Command { command, answer } => {
                self.last_request += 1;
                let request = RequestId(self.last_request);
                self.pending.insert(request, answer);
                self.handle_all(&mut vec![Input::Request { request, command }]);
            }
        }
    }

    fn handle_all(&mut self, inputs: &mut Vec<Input>) {
        for input in inputs.drain(..) {
            self.controller.handle(input, self.clock.now(), &mut self.out);
            let mut out = std::mem::take(&mut self.out);
            for output in out.drain(..) {
                self.execute(output);
            }
            // Its memory is used again.
            self.out = out;
        }
        if let Some(memory) = self.controller.take_memory(self.clock.now()) {
            self.reach.memory.send_replace(memory);
        }
        self.commit();
    }

    fn execute(&mut self, output: Output) {
        match output {
            Output::Frame { station, connection, text } => self.reach.registry.send(station, connection, text),
            Output::Close { station, connection, reason } => self.reach.registry.close(station, connection, &reason),
            Output::TurnAway { station, for_ms } => {
                self.reach.registry.turn_away(station, Duration::from_millis(for_ms));
            }
            Output::Append(record) => self.records.push(record),
            Output::Snapshot { through, state } => {
                // It may fold in records of this batch: they go first.
                self.commit();
                self.reach.store.snapshot(through, state);
            }
            Output::ReadRecords { from, limit } => self.reach.store.read(from, limit),
            Output::Acknowledged { through } => self.reach.store.acknowledged(through),
            Output::Telemetry { intervals } => self.telemetry(|ring| ring.append(intervals)),
            Output::ReadTelemetry { from, limit } => self.telemetry(|ring| ring.read(from, limit)),
            Output::TelemetryAcknowledged { through } => self.telemetry(|ring| ring.acknowledged(through)),
            Output::Publish(publication) => self.publish(publication),
            Output::Reply { request, outcome } => {
                if let Some(answer) = self.pending.remove(&request) {
                    let _ = answer.send(outcome);
                }
            }
            Output::Errand { id, errand } => {
                if self.reach.errands.try_send((id, errand)).is_err() {
                    let error = "what is asked for already is not done yet; try again later".to_owned();
                    self.returned
                        .push(Input::ErrandAnswered { id, outcome: CommandOutcome::Failed { error, data: None } });
                }
            }
            Output::Commissioned(report) => {
                // One test at a time takes minutes: the queue is never full unless the disk hangs, and then the status still has it.
                if self.reach.reports.try_send(report).is_err() {
                    tracing::warn!(
                        "a commissioning report could not be written; it stays readable over the API until the restart"
                    );
                }
            }
            Output::Log { level, message } => log(level, &message),
        }
    }

    /// Everything appended since the last time goes to the journal in one piece.
    fn commit(&mut self) {
        if self.records.is_empty() {
            return;
        }
        if let Err(overrun) = self.reach.store.append(std::mem::take(&mut self.records)) {
            self.overrun.get_or_insert(overrun);
        }
    }

    fn telemetry(&self, ask: impl FnOnce(&TelemetryHandle)) {
        if let Some(ring) = &self.reach.telemetry {
            ask(ring);
        }
    }

    fn publish(&mut self, publication: Publication) {
        let Some(publications) = &self.reach.publications else { return };
        let dropped = match publications.try_send(publication) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(publication) | mpsc::error::TrySendError::Closed(publication)) => {
                publication
            }
        };
        // State is sent anew each second; an event must not be thought to be on its way.
        let reason = "the queue to the broker is full".to_owned();
        self.returned.extend(dropped.carries.not_taken(reason).map(Input::Cloud));
    }
}

fn log(level: LogLevel, message: &str) {
    match level {
        LogLevel::Debug => tracing::debug!("{message}"),
        LogLevel::Info => tracing::info!("{message}"),
        LogLevel::Warn => tracing::warn!("{message}"),
        LogLevel::Error => tracing::error!("{message}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::engine::model::exchange::OcppVersion;
    use crate::engine::model::ids::{CircuitId, ConnectionId, SiteId};
    use crate::engine::model::limit::{LimitAmount, LimitOrder, LimitOrigin, LimitTarget};
    use crate::engine::model::record::{RecordBody, Stamp};
    use crate::engine::model::topology::StationIndex;
    use crate::engine::site::Restored;
    use crate::engine::site::io::{Carries, CloudInput};
    use crate::engine::time::Utc;
    use crate::engine::units::Current;
    use crate::shell::station::testing;

    /// Notes what was asked of it.
    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<String>>>);

    impl Notes {
        fn note(&self, line: String) {
            self.0.lock().unwrap().push(line);
        }

        fn taken(&self) -> Vec<String> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    impl Store for Notes {
        fn append(&mut self, records: Vec<Record>) -> Result<(), StoreOverrun> {
            let numbers: Vec<u64> = records.iter().map(|record| record.sequence.0).collect();
            self.note(format!("append {numbers:?}"));
            if numbers.contains(&999) { Err(StoreOverrun("full".to_owned())) } else { Ok(()) }
        }
        fn snapshot(&mut self, through: Sequence, _state: Vec<u8>) {
            self.note(format!("snapshot {through}"));
        }
        fn read(&mut self, from: Sequence, limit: usize) {
            self.note(format!("read {from} {limit}"));
        }
        fn acknowledged(&mut self, through: Sequence) {
            self.note(format!("acknowledged {through}"));
        }
    }

    fn owner(publications: Option<mpsc::Sender<Publication>>) -> (Owner, Asker, Notes) {
        let notes = Notes::default();
        let reach = Reach {
            store: Box::new(notes.clone()),
            registry: Registry::default(),
            telemetry: None,
            publications,
            memory: watch::Sender::new(Vec::new()),
            errands: mpsc::channel(1).0,
            reports: mpsc::channel(1).0,
            notifier: Notifier::silent(),
        };
        let clock = Clock::start();
        let controller = Controller::new(testing::setup(), Restored::default(), true, clock.now());
        let (owner, asker) = Owner::new(controller, clock, reach);
        (owner, asker, notes)
    }

    fn record(sequence: u64) -> Record {
        let stamp = Stamp { utc: Utc::default(), trusted: false, mono: Mono::START, boot: 1 };
        let body = RecordBody::StoreRecovered { missing: String::new() };
        Record { sequence: Sequence(sequence), stamp, body }
    }

    fn publication(sequence: Option<u64>) -> Publication {
        Publication {
            topic: "t".to_owned(),
            payload: String::new(),
            content_type: "application/json",
            at_least_once: sequence.is_some(),
            retain: false,
            carries: sequence.map_or(Carries::Nothing, |sequence| Carries::Event(Sequence(sequence))),
            correlation: None,
        }
    }

    #[test]
    fn records_of_a_batch_are_one_append_and_go_before_their_snapshot() {
        let (mut owner, _asker, notes) = owner(None);
        owner.execute(Output::Append(record(1)));
        owner.execute(Output::Append(record(2)));
        owner.execute(Output::Snapshot { through: Sequence(2), state: Vec::new() });
        owner.execute(Output::Append(record(3)));
        owner.commit();
        owner.commit();
        assert_eq!(notes.taken(), ["append [1, 2]", "snapshot 2", "append [3]"]);
    }

    #[test]
    fn a_full_queue_to_the_broker_drops_state_and_hands_events_back() {
        let (publications, mut queue) = mpsc::channel(1);
        let (mut owner, _asker, _notes) = owner(Some(publications));
        owner.execute(Output::Publish(publication(Some(1))));
        owner.execute(Output::Publish(publication(None)));
        owner.execute(Output::Publish(publication(Some(2))));
        assert_eq!(queue.try_recv().unwrap().carries, Carries::Event(Sequence(1)));
        let back = matches!(&owner.returned[..], [Input::Cloud(CloudInput::NotTaken { sequence: Sequence(2), .. })]);
        assert!(back, "{:?}", owner.returned);
    }

    #[test]
    fn a_frame_for_a_connection_that_is_gone_is_dropped() {
        let (mut owner, _asker, _notes) = owner(None);
        let (station, connection) = (StationIndex(0), ConnectionId(7));
        owner.execute(Output::Frame { station, connection, text: "[]".to_owned() });
        owner.execute(Output::Close { station, connection, reason: "x".to_owned() });
    }

    #[tokio::test(start_paused = true)]
    async fn ticks_publish_the_status_and_questions_are_answered() {
        let (owner, mut asker, _notes) = owner(None);
        let (_inbox_in, inbox) = mpsc::channel(INBOX);
        let (stop, shutdown) = watch::channel(false);
        let ended = tokio::spawn(owner.run(inbox, shutdown));
        asker.next_tick().await.unwrap();
        assert!(asker.last_tick() > Mono::START);
        let explanation = asker.explain(StationId::new("CP001")).await.unwrap();
        assert_eq!(explanation.map(|explanation| explanation.charger).as_deref(), Some("CP001"));
        assert_eq!(asker.explain(StationId::new("CP999")).await, Ok(None));
        stop.send_replace(true);
        assert_eq!(ended.await.unwrap(), Ok(()));
        assert_eq!(asker.explain(StationId::new("CP001")).await, Err(Stopping));
        assert_eq!(testing::topology().site(), &SiteId::new("test"));
    }

    /// Keeps what is appended.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<RecordBody>>>);

    impl Store for Kept {
        fn append(&mut self, records: Vec<Record>) -> Result<(), StoreOverrun> {
            self.0.lock().unwrap().extend(records.into_iter().map(|record| record.body));
            Ok(())
        }
        fn snapshot(&mut self, _through: Sequence, _state: Vec<u8>) {}
        fn read(&mut self, _from: Sequence, _limit: usize) {}
        fn acknowledged(&mut self, _through: Sequence) {}
    }

    #[tokio::test(start_paused = true)]
    async fn questions_without_end_do_not_keep_inputs_waiting() {
        let (mut owner, asker, _notes) = owner(None);
        let kept = Kept::default();
        owner.reach.store = Box::new(kept.clone());
        for _ in 0..QUESTIONS {
            let (answer, _) = oneshot::channel();
            let command = Command::LimitSet(LimitOrder {
                target: LimitTarget::Circuit(CircuitId::new("grid")),
                origin: LimitOrigin::Local,
                amount: LimitAmount::PerPhase(Current::from_a(50)),
                until: None,
                heartbeat: None,
            });
            assert!(asker.questions.try_send(Question::Command { command, answer }).is_ok());
        }
        let (inbox_in, inbox) = mpsc::channel(INBOX);
        let (station, connection) = (StationIndex(0), ConnectionId(1));
        inbox_in.try_send(Input::StationConnected { station, connection, version: OcppVersion::V16 }).unwrap();
        drop(inbox_in);
        let (_stop, shutdown) = watch::channel(false);
        assert_eq!(owner.run(inbox, shutdown).await, Ok(()));
        let before = kept
            .0
            .lock()
            .unwrap()
            .iter()
            .take_while(|body| !matches!(body, RecordBody::ChargerConnected { .. }))
            .count();
        assert!(before <= 5, "{before} records before it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_cannot_be_kept_ends_the_owner() {
        let (mut owner, _asker, _notes) = owner(None);
        let (_inbox_in, inbox) = mpsc::channel(INBOX);
        let (_stop, shutdown) = watch::channel(false);
        owner.execute(Output::Append(record(999)));
        assert_eq!(owner.run(inbox, shutdown).await, Err(StoreOverrun("full".to_owned())));
    }

    #[tokio::test]
    async fn an_answer_reaches_the_one_who_asked() {
        let (mut owner, _asker, _notes) = owner(None);
        let (answer, answered) = oneshot::channel();
        owner.pending.insert(RequestId(5), answer);
        owner.execute(Output::Reply { request: RequestId(5), outcome: CommandOutcome::NotConnected });
        owner.execute(Output::Reply { request: RequestId(5), outcome: CommandOutcome::TimedOut });
        assert_eq!(answered.await, Ok(CommandOutcome::NotConnected));
    }
}

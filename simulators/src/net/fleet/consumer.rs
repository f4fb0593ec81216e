//! The reference consumer's connection to the broker.
//!
//! rumqttc keeps things from one connection to the next that must not be kept here: a PUBACK of an old connection would acknowledge another
//! message of the new one. So each connection has a client of its own, and what was not acknowledged comes again by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Packet, Publish, SubAck, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::event::{Message, site_of};
use super::keeper::Keeper;
use super::ledger::{Ask, Taken};
use crate::net::clock::Clock;
use crate::net::cloud::lock;

/// Events that the broker may send without a PUBACK: they are what one commit takes at most.
const RECEIVE_MAXIMUM: u16 = 1_000;
/// Requests of ours that wait for the event loop: as many PUBACKs, and the commands of one round.
const REQUESTS: usize = 4 * RECEIVE_MAXIMUM as usize;
/// Commands in one round at most.
const COMMANDS: usize = 1_000;
/// How often sites are spoken to.
const ROUND: Duration = Duration::from_millis(200);
/// An acknowledgement is sent after so many events ...
const ACKNOWLEDGE_EVENTS: i64 = 500;
/// ... or after so long.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_secs(1);
/// A site that has just come online sends what it has by itself; after so long without news it is asked.
const CHECK_AFTER: Duration = Duration::from_secs(3);
/// A commit of so many events means that the broker has more.
const BUSY: usize = RECEIVE_MAXIMUM as usize / 4;
/// How often holes are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// How long a lost broker is left alone.
const RETRY: Duration = Duration::from_millis(250);
/// The wait after a commit that failed, doubled up to [`COMMIT_RETRY_MAX`].
const COMMIT_RETRY: Duration = Duration::from_secs(1);
/// See [`COMMIT_RETRY`].
const COMMIT_RETRY_MAX: Duration = Duration::from_secs(30);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The event loop of rumqttc hangs on a peer that does not read: it is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// The largest event is far below.
const MAX_PACKET: u32 = 1 << 20;
/// News that wait to be printed; the oldest go first.
const NEWS: usize = 100;

/// What to consume.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// The broker: name or address, and port.
    pub broker: (String, u16),
    /// User name and password.
    pub credentials: Option<(String, String)>,
    /// The MQTT client id.
    pub client_id: String,
    /// The first part of the topics, with or without a site's id at its end.
    pub prefix: String,
    /// The name of a shared subscription.
    pub share: Option<String>,
    /// Whether sites are told what is committed (`events.acknowledge`).
    pub acknowledge: bool,
}

/// What has happened so far in this process.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Whether the broker is connected and has taken the subscription.
    pub connected: bool,
    /// Events that were new.
    pub new: u64,
    /// Intervals of the telemetry that were new.
    pub intervals: u64,
    /// What was there already.
    pub again: u64,
    /// Messages put into quarantine.
    pub unreadable: u64,
    /// Replays asked for.
    pub asked: u64,
    /// Commits.
    pub commits: u64,
    /// Transactions that ended, and their energy in Wh.
    pub ended: u64,
    /// See [`Progress::ended`].
    pub energy_wh: i64,
    /// How often the broker was lost.
    pub losses: u64,
    news: Vec<String>,
}

impl Progress {
    /// What happened since the last call, for people.
    pub fn take_news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    fn tell(&mut self, text: String) {
        if self.news.len() >= NEWS {
            self.news.remove(0);
        }
        self.news.push(text);
    }
}

/// A site, as far as it has to be spoken to.
#[derive(Clone, Debug)]
struct Spoken {
    /// Its store, as far as that is known.
    store: Option<String>,
    contiguous: i64,
    acknowledged: i64,
    since: Instant,
}

/// What says that everything of a site up to its cursor is committed: of that store, not of one that follows it.
fn acknowledgement(site: &Spoken) -> Value {
    let sequence = site.contiguous;
    site.store
        .as_ref()
        .map_or_else(|| json!({ "sequence": sequence }), |store| json!({ "sequence": sequence, "store_id": store }))
}

/// A commit under way.
struct Commit {
    publishes: Vec<Publish>,
    result: oneshot::Receiver<Result<Taken, String>>,
}

/// The consumer.
pub struct Consumer {
    options: ConsumerOptions,
    keeper: Keeper,
    progress: Arc<Mutex<Progress>>,
    clock: Clock,
    sites: BTreeMap<String, Spoken>,
    /// Sites that are to be asked whether there is more, and when.
    checks: BTreeMap<String, Instant>,
    wait: Duration,
    number: u64,
    last_error: String,
    /// The prefix names one site: its topics are right below.
    one_site: bool,
}

/// What belongs to one connection.
struct Wire {
    client: AsyncClient,
    /// Received and not in a commit yet.
    waiting: Vec<Publish>,
    commit: Option<Commit>,
    asks: Option<oneshot::Receiver<Result<Vec<Ask>, String>>>,
    /// No commit before this.
    not_before: Instant,
    look_at: Instant,
    /// Much comes in.
    busy_until: Instant,
    /// A PUBACK found no room: the broker would wait for it for ever.
    stuck: bool,
}

impl Consumer {
    /// A consumer that is not connected.
    #[must_use]
    pub fn new(options: ConsumerOptions, keeper: Keeper, progress: Arc<Mutex<Progress>>, clock: Clock) -> Self {
        Self {
            options,
            keeper,
            progress,
            clock,
            sites: BTreeMap::new(),
            checks: BTreeMap::new(),
            wait: COMMIT_RETRY,
            number: 0,
            last_error: String::new(),
            one_site: false,
        }
    }

    /// Consumes until it is dropped.
    pub async fn run(mut self) {
        loop {
            let error = self.session().await;
            self.lost(error);
            sleep(RETRY).await;
        }
    }

    fn lost(&mut self, error: String) {
        let mut progress = lock(&self.progress);
        if std::mem::replace(&mut progress.connected, false) {
            progress.losses += 1;
            progress.tell(format!("broker lost: {error}"));
        } else if error != self.last_error {
            progress.tell(format!("no broker: {error}"));
        }
        drop(progress);
        self.last_error = error;
    }

    /// One connection, from its first byte to its last; why it ended.
    async fn session(&mut self) -> String {
        let (client, event_loop) = AsyncClient::new(self.mqtt(), REQUESTS);
        // Mono time of the runtime: tests may hold it.
        let now = Instant::now();
        let (waiting, look_at) = (Vec::new(), now + LOOK);
        let (not_before, busy_until) = (now, now);
        let (commit, asks) = (None, None);
        let mut wire = Wire { client, waiting, commit, asks, not_before, look_at, busy_until, stuck: false };
        // What was under way to a site may be lost, and another instance may have seen a new store of it: it is looked up again.
        self.sites.clear();
        let mut round = interval(ROUND);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The poll in progress is never dropped while the connection lives: rumqttc does not promise that this loses nothing.
        let mut polling = Box::pin(poll(event_loop));
        let error = loop {
            tokio::select! {
                (event_loop, event) = &mut polling => {
                    polling = Box::pin(poll(event_loop));
                    match event {
                        Ok(event) => if let Err(error) = self.arrived(&mut wire, event) { break error },
                        Err(error) => break explain(error),
                    }
                }
                result = outcome(&mut wire.commit) => self.committed(&mut wire, result),
                asks = answer(&mut wire.asks) => {
                    wire.asks = None;
                    self.ask(&wire, asks);
                }
                _ = round.tick() => self.speak(&mut wire),
            }
            if wire.stuck {
                break "it takes nothing any more".to_owned();
            }
            self.begin_commit(&mut wire);
        };
        // What is being committed counts, although its PUBACKs come too late.
        if wire.commit.is_some() {
            let result = outcome(&mut wire.commit).await;
            self.committed(&mut wire, result);
        }
        error
    }

    fn mqtt(&self) -> MqttOptions {
        let (host, port) = &self.options.broker;
        let mut mqtt = MqttOptions::new(&self.options.client_id, host, *port);
        mqtt.set_keep_alive(KEEP_ALIVE);
        // A broker that kept a session for us would drop what it has no room for; a site does not.
        mqtt.set_clean_start(true);
        mqtt.set_connection_timeout(5);
        mqtt.set_manual_acks(true);
        mqtt.set_receive_maximum(Some(RECEIVE_MAXIMUM));
        mqtt.set_max_packet_size(Some(MAX_PACKET));
        if let Some((name, password)) = &self.options.credentials {
            mqtt.set_credentials(name, password);
        }
        mqtt
    }

    /// Both for a prefix without and with a site's id at its end: of one of them there are no topics.
    fn topics(&self, last: &str) -> [String; 2] {
        let shared = self.options.share.as_ref().map_or(String::new(), |name| format!("$share/{name}/"));
        let prefix = self.options.prefix.trim_matches('/');
        [format!("{shared}{prefix}/+/{last}"), format!("{shared}{prefix}/{last}")]
    }

    fn arrived(&mut self, wire: &mut Wire, event: Event) -> Result<(), String> {
        match event {
            Event::Incoming(Packet::ConnAck(_)) => {
                for topic in ["connection", "events", "telemetry"].into_iter().flat_map(|last| self.topics(last)) {
                    wire.client.try_subscribe(topic, QoS::AtLeastOnce).map_err(|error| error.to_string())?;
                }
            }
            Event::Incoming(Packet::SubAck(suback)) => self.subscribed(&suback)?,
            Event::Incoming(Packet::Publish(publish)) if publish.topic.ends_with(b"/connection") => {
                self.notice(&publish);
                self.site_says(&publish);
                wire.acknowledge(&publish);
            }
            Event::Incoming(Packet::Publish(publish)) => {
                self.notice(&publish);
                wire.waiting.push(publish);
                if wire.waiting.len() > 4 * usize::from(RECEIVE_MAXIMUM) {
                    return Err("the broker sends more than the receive maximum allows".to_owned());
                }
            }
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
        Ok(())
    }

    fn subscribed(&self, suback: &SubAck) -> Result<(), String> {
        if let Some(code) = suback.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_))) {
            return Err(format!("the broker refuses the subscription ({code:?}): check its access list"));
        }
        let mut progress = lock(&self.progress);
        if !std::mem::replace(&mut progress.connected, true) {
            progress.tell("connected to the broker".to_owned());
        }
        Ok(())
    }

    /// A topic right below the prefix tells that it names one site.
    fn notice(&mut self, publish: &Publish) {
        let prefix = self.options.prefix.trim_matches('/').as_bytes();
        let rest = publish.topic.strip_prefix(prefix);
        self.one_site |=
            rest.is_some_and(|rest| [b"/events".as_slice(), b"/connection", b"/telemetry"].contains(&rest));
    }

    /// A site that is online and says nothing may have nothing more, or we may have missed its end.
    fn site_says(&mut self, publish: &Publish) {
        #[derive(serde::Deserialize)]
        struct Connection {
            online: bool,
        }
        let topic = String::from_utf8_lossy(&publish.topic);
        let (Some(site), Ok(said)) = (site_of(&topic), serde_json::from_slice::<Connection>(&publish.payload)) else {
            return;
        };
        if said.online {
            self.checks.insert(site.to_owned(), Instant::now() + CHECK_AFTER);
        } else {
            self.checks.remove(site);
        }
    }

    fn begin_commit(&self, wire: &mut Wire) {
        if wire.commit.is_some() || wire.waiting.is_empty() || Instant::now() < wire.not_before {
            return;
        }
        let many = wire.waiting.len().min(usize::from(RECEIVE_MAXIMUM));
        if many >= BUSY {
            // What a site has sent may wait at the broker: nobody is asked for it.
            wire.busy_until = Instant::now() + CHECK_AFTER;
        }
        let publishes: Vec<Publish> = wire.waiting.drain(..many).collect();
        let message = |publish: &Publish| Message {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            body: publish.payload.to_vec(),
        };
        let messages: Vec<Message> = publishes.iter().map(message).collect();
        let now_ms = self.clock.now().utc.unix_ms();
        let result = self.keeper.ask(move |ledger| ledger.take(&messages, now_ms));
        wire.commit = Some(Commit { publishes, result });
    }

    /// What is in the database is acknowledged, in the order in which it came.
    fn committed(&mut self, wire: &mut Wire, result: Result<Taken, String>) {
        let Some(commit) = wire.commit.take() else { return };
        let taken = match result {
            Ok(taken) => taken,
            Err(error) => {
                let text = format!(
                    "the database does not take {} events ({error}): none of them is acknowledged; tried again in {} s",
                    commit.publishes.len(),
                    self.wait.as_secs()
                );
                lock(&self.progress).tell(text);
                wire.waiting.splice(0..0, commit.publishes);
                wire.not_before = Instant::now() + self.wait;
                self.wait = (self.wait * 2).min(COMMIT_RETRY_MAX);
                return;
            }
        };
        self.wait = COMMIT_RETRY;
        for publish in &commit.publishes {
            wire.acknowledge(publish);
        }
        let now = Instant::now();
        for position in taken.streams {
            if position.news {
                self.checks.remove(&position.site);
            }
            let new = || Spoken { store: None, contiguous: 0, acknowledged: 0, since: now };
            let site = self.sites.entry(position.site).or_insert_with(new);
            if position.contiguous < site.contiguous {
                // Another store, which counts from 1 again.
                *site = new();
            }
            site.store = Some(position.store);
            if site.contiguous == site.acknowledged {
                site.since = now;
            }
            if !position.news {
                // It sends again what we have: it has not heard that.
                site.acknowledged = site.acknowledged.min(position.contiguous - 1);
            }
            site.contiguous = position.contiguous;
        }
        let mut progress = lock(&self.progress);
        progress.commits += 1;
        progress.new += taken.new;
        progress.again += taken.again;
        progress.intervals += taken.intervals;
        progress.ended += taken.ended;
        progress.energy_wh = progress.energy_wh.saturating_add(taken.energy_wh);
        for reason in taken.unreadable {
            progress.unreadable += 1;
            progress.tell(format!("in quarantine: {reason}"));
        }
    }

    /// Acknowledges what is committed, and looks for what is missing.
    fn speak(&mut self, wire: &mut Wire) {
        if !lock(&self.progress).connected {
            return;
        }
        let now = Instant::now();
        if self.options.acknowledge {
            let due = |site: &Spoken| {
                let open = site.contiguous - site.acknowledged;
                open >= ACKNOWLEDGE_EVENTS || open > 0 && now >= site.since + ACKNOWLEDGE_AFTER
            };
            let sites: Vec<(String, Value)> = self
                .sites
                .iter()
                .filter(|(_, site)| site.contiguous > 0 && due(site))
                .map(|(name, site)| (name.clone(), acknowledgement(site)))
                .take(COMMANDS)
                .collect();
            for (name, data) in sites {
                if !self.command(wire, &name, "events.acknowledge", &data) {
                    break;
                }
                if let Some(site) = self.sites.get_mut(&name) {
                    (site.acknowledged, site.since) = (site.contiguous, now);
                }
            }
        }
        if now >= wire.look_at && wire.asks.is_none() {
            wire.look_at = now + LOOK;
            let idle = now >= wire.busy_until;
            let due = self.checks.iter().filter(|(_, at)| idle && now >= **at).map(|(site, _)| site.clone());
            let check: Vec<String> = due.take(COMMANDS).collect();
            for site in &check {
                self.checks.remove(site);
            }
            let now_ms = self.clock.now().utc.unix_ms();
            wire.asks = Some(self.keeper.ask(move |ledger| ledger.asks(&check, now_ms)));
        }
    }

    /// Asks sites to send again.
    fn ask(&mut self, wire: &Wire, asks: Result<Vec<Ask>, String>) {
        let asks = match asks {
            Ok(asks) => asks,
            Err(error) => return lock(&self.progress).tell(format!("the database cannot be asked for holes: {error}")),
        };
        for ask in asks {
            // A site that nobody has spoken to since we are connected may wait for its acknowledgement.
            let known = Spoken { store: None, contiguous: ask.from - 1, acknowledged: 0, since: Instant::now() };
            self.sites.entry(ask.site.clone()).or_insert(known);
            // One that is not sent comes again with the next look at the holes, or when the site is online again.
            if self.command(wire, &ask.site, "events.replay", &json!({ "from_sequence": ask.from })) && ask.times > 0 {
                let text = format!("{}: event {} is still missing; asked for a replay again", ask.site, ask.from);
                lock(&self.progress).tell(text);
            }
            lock(&self.progress).asked += 1;
        }
    }

    /// Whether the event loop took it.
    fn command(&mut self, wire: &Wire, site: &str, kind: &str, data: &Value) -> bool {
        self.number += 1;
        // Unique over restarts and instances: a site answers a known id from memory.
        let id = format!("{}-{}-{}", self.options.client_id, self.clock.now().utc.unix_ms(), self.number);
        let body = json!({ "id": id, "type": kind, "data": data }).to_string();
        let prefix = self.options.prefix.trim_matches('/');
        let topic = if self.one_site { format!("{prefix}/commands") } else { format!("{prefix}/{site}/commands") };
        wire.client.try_publish(topic, QoS::AtLeastOnce, false, body).is_ok()
    }
}

impl Wire {
    fn acknowledge(&mut self, publish: &Publish) {
        self.stuck |= self.client.try_ack(publish).is_err();
    }
}

type Polled = (EventLoop, Result<Event, Option<ConnectionError>>);

/// One step of the event loop, which is handed back. `Err(None)`: it hangs.
async fn poll(mut event_loop: EventLoop) -> Polled {
    let event = match timeout(PATIENCE, event_loop.poll()).await {
        Ok(Ok(event)) => Ok(event),
        Ok(Err(error)) => Err(Some(error)),
        Err(_) => Err(None),
    };
    (event_loop, event)
}

/// The end of the commit under way; without one it is waited for as long as there is none.
async fn outcome(commit: &mut Option<Commit>) -> Result<Taken, String> {
    match commit {
        Some(commit) => {
            (&mut commit.result).await.unwrap_or_else(|_| Err("the thread of the books has ended".to_owned()))
        }
        None => std::future::pending().await,
    }
}

async fn answer(asks: &mut Option<oneshot::Receiver<Result<Vec<Ask>, String>>>) -> Result<Vec<Ask>, String> {
    match asks {
        Some(asks) => asks.await.unwrap_or_else(|_| Err("too much waits for the books".to_owned())),
        None => std::future::pending().await,
    }
}

fn explain(error: Option<ConnectionError>) -> String {
    match error {
        None => "it does not answer any more".to_owned(),
        Some(
            ConnectionError::ConnectionRefused(code)
            | ConnectionError::MqttState(StateError::ConnFail { reason: code }),
        ) => {
            let check = match code {
                ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                    "check --username, --password-file and the broker's list of users"
                }
                ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion => {
                    "it must speak MQTT 5"
                }
                _ => "ask its operator",
            };
            format!("it refuses the connection ({code:?}): {check}")
        }
        Some(error) => error.to_string(),
    }
}

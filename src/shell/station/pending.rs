//! Stations that are connected but not configured (`unknown_chargers`): they are told to wait, and nobody else hears of what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::interval;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::connection::carry;
use super::registry::{Closing, Outgoing};
use crate::engine::model::exchange::{BootInfo, OcppVersion};
use crate::engine::model::ids::StationId;
use crate::engine::model::status::PendingCharger;
use crate::engine::ocpp::answer_pending;
use crate::engine::site::io::Input;
use crate::engine::time::Utc;
use crate::shell::clock::Clock;
use crate::shell::stopped;

/// Stations that wait at once. Anybody on the network can pretend to be one.
pub const MAX_WAITING: usize = 32;

/// Identities that are remembered as logged; more are not logged at all.
const MAX_LOGGED: usize = 64;

/// Answers that may wait for one station; one that has so many open does not read.
const MAX_ANSWERS: usize = 8;

/// The longest text that is kept of what a station says of itself, in characters; OCPP 2.0.1 allows 50.
const MAX_TEXT: usize = 64;

/// How often the site is told who waits, if that has changed: a flood of connections is no flood of inputs.
const TELL: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Entry {
    ticket: u64,
    charger: PendingCharger,
    close: watch::Sender<Option<Closing>>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    entries: BTreeMap<StationId, Entry>,
    logged: BTreeSet<StationId>,
}

/// The stations that wait; clones are the same. The lock is held for map operations only, never while waiting.
#[derive(Clone, Debug, Default)]
pub struct Waiting {
    state: Arc<Mutex<State>>,
}

/// The place of one connection among those that wait, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    waiting: Waiting,
    ticket: u64,
    close: watch::Receiver<Option<Closing>>,
    /// Whose.
    pub(super) id: StationId,
    /// What it speaks.
    pub(super) version: OcppVersion,
    /// Nobody was told of it yet.
    pub(super) is_new: bool,
}

impl Waiting {
    /// Those that wait, by identity.
    #[must_use]
    pub fn list(&self) -> Vec<PendingCharger> {
        self.lock().entries.values().map(|entry| entry.charger.clone()).collect()
    }

    /// Whether a station waits.
    #[must_use]
    pub fn has(&self, id: &StationId) -> bool {
        self.lock().entries.contains_key(id)
    }

    /// Takes a place for a station. An older connection of the same one is closed. `None`: there is no room.
    pub(super) fn admit(&self, id: StationId, version: OcppVersion, now: Utc) -> Option<Place> {
        let mut state = self.lock();
        if state.entries.len() >= MAX_WAITING && !state.entries.contains_key(&id) {
            return None;
        }
        state.last += 1;
        let ticket = state.last;
        let is_new = state.logged.len() < MAX_LOGGED && state.logged.insert(id.clone());
        let (close_in, close) = watch::channel(None);
        let ocpp_version = version.subprotocol().trim_start_matches("ocpp").to_owned();
        let charger = PendingCharger { id: id.to_string(), since: now, ocpp_version, ..PendingCharger::default() };
        if let Some(older) = state.entries.insert(id.clone(), Entry { ticket, charger, close: close_in }) {
            older.close.send_replace(Some(Closing::new(CloseCode::Policy, "replaced by a new connection")));
        }
        drop(state);
        Some(Place { waiting: self.clone(), ticket, close, id, version, is_new })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; if it ever did, the process is about to end.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// What the station has said of itself.
    fn booted(&self, info: &BootInfo) {
        let kept = |text: &str| Some(text.chars().take(MAX_TEXT).collect::<String>()).filter(|text| !text.is_empty());
        let mut state = self.waiting.lock();
        if let Some(entry) = state.entries.get_mut(&self.id).filter(|entry| entry.ticket == self.ticket) {
            entry.charger.vendor = Some(kept(&info.vendor).unwrap_or_default());
            entry.charger.model = kept(&info.model);
            entry.charger.firmware = info.firmware.as_deref().and_then(kept);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.waiting.lock();
        if state.entries.get(&self.id).is_some_and(|entry| entry.ticket == self.ticket) {
            state.entries.remove(&self.id);
        }
    }
}

/// Tells the site who waits, whenever that has changed.
pub async fn tell(waiting: Waiting, inbox: mpsc::Sender<Input>, mut shutdown: watch::Receiver<bool>) {
    let mut looks = interval(TELL);
    let mut told = Vec::new();
    loop {
        tokio::select! {
            () = stopped(&mut shutdown) => return,
            _ = looks.tick() => {}
        }
        let chargers = waiting.list();
        if chargers != told {
            told.clone_from(&chargers);
            if inbox.send(Input::Pending { chargers }).await.is_err() {
                return;
            }
        }
    }
}

/// Answers a station that waits until its connection ends. Returns why it ended.
pub(super) async fn attend(
    socket: WebSocketStream<TcpStream>,
    place: &Place,
    clock: Clock,
    shutdown: watch::Receiver<bool>,
) -> String {
    let (answers_in, frames) = mpsc::channel(MAX_ANSWERS);
    let (inbox_in, mut inbox) = mpsc::channel::<String>(1);
    let answering = async {
        while let Some(text) = inbox.recv().await {
            let answer = answer_pending(&text, place.version, clock.now().utc);
            if let Some(info) = &answer.boot {
                place.booted(info);
            }
            // Not waited for: then the station would not be read either, and its silence not be noticed.
            if answer.answer.is_some_and(|answer| answers_in.try_send(answer).is_err()) {
                return;
            }
        }
        std::future::pending::<()>().await;
    };
    let outgoing = Outgoing { frames, close: place.close.clone() };
    tokio::select! {
        reason = carry(socket, &place.id, outgoing, (|text| text, inbox_in), shutdown) => reason,
        () = answering => "does not read".to_owned(),
    }
}

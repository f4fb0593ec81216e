//! Who is connected, and the way to each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::engine::model::ids::ConnectionId;
use crate::engine::model::topology::StationIndex;

/// Frames that may wait for one station. The engine has one call open at a time, so that more than a few mean that it does not read.
const MAX_WAITING_FRAMES: usize = 64;

/// Why and how we close a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closing {
    /// The code of the close frame.
    pub(super) code: CloseCode,
    /// The reason in the close frame and in the log.
    pub(super) reason: String,
}

impl Closing {
    pub(super) fn new(code: CloseCode, reason: &str) -> Self {
        Self { code, reason: reason.to_owned() }
    }
}

impl Default for Closing {
    fn default() -> Self {
        Self::new(CloseCode::Normal, "closed")
    }
}

/// The receiving end of a link: what a connection has to send.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Frames in order.
    pub(super) frames: mpsc::Receiver<String>,
    /// Set once, when the connection is to be closed.
    pub(super) close: watch::Receiver<Option<Closing>>,
}

#[derive(Debug)]
struct Link {
    connection: ConnectionId,
    frames: mpsc::Sender<String>,
    close: watch::Sender<Option<Closing>>,
}

#[derive(Debug, Default)]
struct State {
    last_connection: u64,
    links: BTreeMap<StationIndex, Link>,
    /// Who is turned away, and until when.
    turned_away: BTreeMap<StationIndex, Instant>,
}

/// The connections of all stations; clones are the same registry. The lock is held for map operations only, never while waiting.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    state: Arc<Mutex<State>>,
}

impl Registry {
    /// Makes a link for a new connection. An older connection of the station is closed: stations reconnect before they, or we, have
    /// noticed that the old socket is dead.
    /// `announce` is called before any other connection can be attached, so that connections are announced in their order.
    pub(super) fn attach(
        &self,
        station: StationIndex,
        announce: impl FnOnce(ConnectionId),
    ) -> (ConnectionId, Outgoing) {
        let (frames_in, frames) = mpsc::channel(MAX_WAITING_FRAMES);
        let (close_in, close) = watch::channel(None);
        let mut state = self.lock();
        state.last_connection += 1;
        let connection = ConnectionId(state.last_connection);
        let link = Link { connection, frames: frames_in, close: close_in };
        if let Some(older) = state.links.insert(station, link) {
            older.close.send_replace(Some(Closing::new(CloseCode::Policy, "replaced by a new connection")));
        }
        announce(connection);
        (connection, Outgoing { frames, close })
    }

    /// Forgets a connection that has ended.
    pub(super) fn detach(&self, station: StationIndex, connection: ConnectionId) {
        remove(&mut self.lock(), station, connection);
    }

    /// Hands a frame to a connection. If the connection is gone, so is the frame; if too many wait already, the connection is closed.
    pub fn send(&self, station: StationIndex, connection: ConnectionId, text: String) {
        let mut state = self.lock();
        let Some(link) = state.links.get(&station).filter(|link| link.connection == connection) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = link.frames.try_send(text)
            && let Some(link) = remove(&mut state, station, connection)
        {
            link.close.send_replace(Some(Closing::new(CloseCode::Policy, "does not read")));
        }
    }

    /// Closes a connection, if it still exists.
    pub fn close(&self, station: StationIndex, connection: ConnectionId, reason: &str) {
        if let Some(link) = remove(&mut self.lock(), station, connection) {
            link.close.send_replace(Some(Closing::new(CloseCode::Policy, reason)));
        }
    }

    /// Turns a station away from now on, for so long; no time: not any more.
    pub fn turn_away(&self, station: StationIndex, lasts: Duration) {
        // One that cannot be written down is over before anybody could wait for it.
        if let Some(until) = Instant::now().checked_add(lasts) {
            self.lock().turned_away.insert(station, until);
        }
    }

    /// Whether a station is to be turned away now.
    #[must_use]
    pub fn is_turned_away(&self, station: StationIndex) -> bool {
        self.lock().turned_away.get(&station).is_some_and(|until| Instant::now() < *until)
    }

    /// Whether the station has a connection.
    #[must_use]
    pub fn is_connected(&self, station: StationIndex) -> bool {
        self.lock().links.contains_key(&station)
    }

    /// How many stations have a connection.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.lock().links.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; if it ever did, the process is about to end.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(state: &mut State, station: StationIndex, connection: ConnectionId) -> Option<Link> {
    state.links.get(&station).filter(|link| link.connection == connection)?;
    state.links.remove(&station)
}

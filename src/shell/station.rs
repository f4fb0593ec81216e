//! Charging stations: the WebSocket listener.
//!
//! One task accepts, one task serves each connection; none of them decides anything about charging. What a hostile or broken peer can
//! take is bounded: opening handshakes in number and time, messages in size, waiting frames in number; and each waits only for itself.

mod connection;
mod handshake;
mod pending;
mod registry;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use crate::config::{UnknownChargers, is_identity};
use crate::engine::model::exchange::OcppVersion;
use crate::engine::model::ids::StationId;
use crate::engine::model::topology::Topology;
use crate::engine::site::io::Input;
use crate::shell::clock::Clock;
use crate::shell::stopped;
pub use connection::MAX_MESSAGE_BYTES;
use connection::{Session, limits, serve, turn_away};
use handshake::{Admission, Refusal, Subprotocol, judge, negotiate, refuse};
use pending::Place;
pub use pending::{MAX_WAITING, Waiting, tell};
use registry::Closing;
pub use registry::Registry;

/// A thousand stations that all come back after a power cut must not run into SYN retries of a second and more.
const BACKLOG: u32 = 4096;

/// From the TCP connection to the end of the HTTP handshake. Stations on bad mobile links need several round trips.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Connections that have not said yet who they are. Beyond it the oldest one is dropped: an honest handshake takes far less than the
/// time in which so many others arrive, one that hangs does not.
const MAX_OPENING: usize = 256;

/// The same complaint about the same station is logged once in this time, and only so many complaints in all.
const QUIET_TIME: Duration = Duration::from_secs(600);
const MAX_COMPLAINTS: usize = 64;

/// What the listener needs.
#[derive(Clone, Debug)]
pub struct Listening {
    /// The path before the identity, such as `/ocpp`.
    pub path: String,
    /// Who may connect.
    pub topology: Arc<Topology>,
    /// What happens to others.
    pub unknown_chargers: UnknownChargers,
    /// Where those are noted.
    pub waiting: Waiting,
    /// For what they are answered.
    pub clock: Clock,
    /// Where connections are registered for sending.
    pub registry: Registry,
    /// Where connections and frames are reported.
    pub inbox: mpsc::Sender<Input>,
    /// Becomes true when the daemon stops.
    pub shutdown: watch::Receiver<bool>,
}

/// Binds the address.
///
/// # Errors
/// If the address is in use, not one of this machine, or needs a privilege.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for connections of the process before in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts stations until shutdown, then waits until all connections are closed.
pub async fn run(listener: TcpListener, listening: Listening) {
    let mut shutdown = listening.shutdown.clone();
    let shared = Arc::new(Shared { listening, opening: Mutex::default(), complaints: Mutex::default() });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut shutdown) => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let (ticket, given_up) = shared.begin_opening();
                    connections.spawn(Arc::clone(&shared).connect(stream, peer, ticket, given_up));
                }
                Err(error) => {
                    tracing::warn!("cannot accept a charger's connection: {error}");
                    // Out of file descriptors, most likely; without a pause this would be a busy loop.
                    sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    // Whoever has not said yet who it is has nothing to be told.
    shared.opening.lock().unwrap_or_else(PoisonError::into_inner).waiting.clear();
    while connections.join_next().await.is_some() {}
}

/// Who has connected.
enum Admitted {
    /// A station of the site.
    Known(Admission),
    /// One that is not configured, and waits.
    Unknown(Place, Subprotocol),
}

struct Shared {
    listening: Listening,
    opening: Mutex<Opening>,
    complaints: Mutex<BTreeMap<String, Instant>>,
}

/// The connections in their handshake, oldest first. Dropping a sender gives that one up.
#[derive(Default)]
struct Opening {
    last: u64,
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Shared {
    fn begin_opening(&self) -> (u64, oneshot::Receiver<()>) {
        let (keep, given_up) = oneshot::channel();
        let mut opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if opening.waiting.len() >= MAX_OPENING {
            opening.waiting.pop_first();
        }
        opening.last += 1;
        let ticket = opening.last;
        opening.waiting.insert(ticket, keep);
        (ticket, given_up)
    }

    fn end_opening(&self, ticket: u64) {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&ticket);
    }

    async fn connect(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        ticket: u64,
        given_up: oneshot::Receiver<()>,
    ) {
        // Frames are small and each is a whole message: waiting for more only delays a limit.
        let _ = stream.set_nodelay(true);
        let opened = tokio::select! {
            opened = timeout(HANDSHAKE_TIME, self.open(stream, peer)) => opened.ok().flatten(),
            _ = given_up => None,
        };
        self.end_opening(ticket);
        let Some((socket, admitted)) = opened else { return };
        let (id, subprotocol) = match &admitted {
            Admitted::Known(admission) => {
                (self.listening.topology.station(admission.station).id.clone(), admission.subprotocol)
            }
            Admitted::Unknown(place, subprotocol) => (place.id.clone(), *subprotocol),
        };
        let version = match subprotocol {
            Subprotocol::Agreed(version) => version,
            Subprotocol::NoneOffered => {
                self.complain(&format!("charger {id}: offers no WebSocket subprotocol; taken for OCPP 1.6"));
                OcppVersion::V16
            }
            Subprotocol::OnlyUnknown => {
                self.complain(&format!(
                    "charger {id} from {}: offers only OCPP versions that are not spoken here; set it to ocpp1.6, ocpp2.0.1 or ocpp2.1",
                    peer.ip()
                ));
                let reason = "no common subprotocol: ocpp1.6, ocpp2.0.1 and ocpp2.1 are spoken here";
                return turn_away(socket, Closing::new(CloseCode::Protocol, reason)).await;
            }
        };
        match admitted {
            Admitted::Known(admission) => self.attend(socket, &admission, version).await,
            Admitted::Unknown(place, _) => self.let_wait(socket, &place, peer).await,
        }
    }

    /// The HTTP handshake. `None`: turned away.
    async fn open(&self, stream: TcpStream, peer: SocketAddr) -> Option<(WebSocketStream<TcpStream>, Admitted)> {
        let path = &self.listening.path;
        let mut judged = None;
        #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
        let callback = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            match self.admit(request) {
                Ok((admitted, subprotocol)) => {
                    judged = Some(admitted);
                    Ok(with_subprotocol(response, subprotocol))
                }
                Err(refusal) => {
                    self.complain(&self.describe(&refusal, peer));
                    Err(refuse(&refusal, path))
                }
            }
        };
        match accept_hdr_async_with_config(stream, callback, Some(limits())).await {
            Ok(socket) => judged.map(|admitted| (socket, admitted)),
            Err(error) => {
                match misunderstanding(&error, peer, path) {
                    Some(complaint) => self.complain(&complaint),
                    None => tracing::debug!("handshake with {peer} failed: {error}"),
                }
                None
            }
        }
    }

    /// Who may connect.
    fn admit(&self, request: &Request) -> Result<(Admitted, Subprotocol), Refusal> {
        let Listening { path, topology, registry, .. } = &self.listening;
        match judge(request, path, topology) {
            Ok(admission) if registry.is_turned_away(admission.station) => {
                Err(Refusal::Tested { station: admission.station })
            }
            Ok(admission) => {
                let subprotocol = admission.subprotocol;
                Ok((Admitted::Known(admission), subprotocol))
            }
            Err(Refusal::Unknown { identity }) => self.admit_unknown(request, identity),
            Err(refusal) => Err(refusal),
        }
    }

    /// Whether a station that is not configured may wait.
    fn admit_unknown(&self, request: &Request, identity: String) -> Result<(Admitted, Subprotocol), Refusal> {
        let Listening { unknown_chargers, waiting, clock, .. } = &self.listening;
        if *unknown_chargers == UnknownChargers::Reject || !is_identity(&identity) {
            return Err(Refusal::Unknown { identity });
        }
        let subprotocol = negotiate(request.headers());
        let version = match subprotocol {
            Subprotocol::Agreed(version) => version,
            Subprotocol::NoneOffered | Subprotocol::OnlyUnknown => OcppVersion::V16,
        };
        let place = waiting.admit(StationId::new(&identity), version, clock.now().utc);
        let place = place.ok_or(Refusal::Full { identity })?;
        Ok((Admitted::Unknown(place, subprotocol), subprotocol))
    }

    /// A station that is not configured, until it hangs up.
    async fn let_wait(&self, socket: WebSocketStream<TcpStream>, place: &Place, peer: SocketAddr) {
        let (id, peer) = (place.id.as_str(), peer.ip());
        if place.is_new {
            tracing::warn!("charger {id:?} from {peer} is not configured and waits; approve it by charger.approve");
        }
        let Listening { clock, shutdown, .. } = &self.listening;
        let reason = pending::attend(socket, place, *clock, shutdown.clone()).await;
        tracing::debug!("charger {id:?} from {peer} waits no longer: {reason}");
    }

    async fn attend(&self, socket: WebSocketStream<TcpStream>, admission: &Admission, version: OcppVersion) {
        let Listening { topology, registry, inbox, shutdown, .. } = &self.listening;
        let station = admission.station;
        let id = topology.station(station).id.clone();
        if let Some(written) = &admission.other_case {
            self.complain(&format!("charger {id}: calls itself {written:?}; write the id in site.toml the same way"));
        }
        // If the owner is gone, nobody has to know of this connection nor of its end.
        let Ok(place) = inbox.reserve().await else { return };
        let announce = |connection| place.send(Input::StationConnected { station, connection, version });
        let (connection, outgoing) = registry.attach(station, announce);
        let (inbox_in, shutdown) = (inbox.clone(), shutdown.clone());
        let session = Session { station, id, connection, outgoing, inbox: inbox_in, shutdown };
        let reason = serve(socket, session).await;
        registry.detach(station, connection);
        let _ = inbox.send(Input::StationDisconnected { station, connection, reason }).await;
    }

    fn describe(&self, refusal: &Refusal, peer: SocketAddr) -> String {
        let Listening { path, topology, .. } = &self.listening;
        let peer = peer.ip();
        match refusal {
            Refusal::WrongPath { path: asked } => {
                format!("{peer} asked for {asked:?}; chargers connect to {}/<identity>", path.trim_end_matches('/'))
            }
            Refusal::Unknown { identity } => {
                let circuit = topology.circuits().last().map_or("grid", |circuit| circuit.id.as_str());
                format!(
                    "charger {identity:?} from {peer} is not known and was turned away; if it belongs to the site, add to site.toml: \
                     [[chargers]] id = {identity:?}, circuit = \"{circuit}\" (or another), max_a = 32, then restart"
                )
            }
            Refusal::Full { identity } => format!(
                "charger {identity:?} from {peer} is not known and was turned away: {MAX_WAITING} such wait already, which charger.approve \
                 would let in"
            ),
            Refusal::Tested { station } => format!(
                "charger {} is kept out for a while: it is being commissioned, and has to be offline until its lease is over",
                topology.station(*station).id
            ),
            Refusal::NoPassword { station } => format!(
                "charger {} from {peer} sent no password and was turned away; set its AuthorizationKey, or remove password_file in site.toml",
                topology.station(*station).id
            ),
            Refusal::WrongPassword { station } => format!(
                "charger {} from {peer} sent a wrong user name or password and was turned away; the user name is the identity, \
                 the password the content of its password_file",
                topology.station(*station).id
            ),
        }
    }

    /// Logs a complaint unless the same was logged a short time ago. A scan with ever new identities fills the list and is then silent.
    fn complain(&self, complaint: &str) {
        let now = Instant::now();
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        complaints.retain(|_, since| now.duration_since(*since) < QUIET_TIME);
        if complaints.contains_key(complaint) || complaints.len() >= MAX_COMPLAINTS {
            tracing::debug!("{complaint}");
            return;
        }
        tracing::warn!("{complaint}");
        complaints.insert(complaint.to_owned(), now);
    }
}

/// What to say about a peer that sent no WebSocket request: most likely it speaks TLS. `None`: it hung up, or was turned away for a
/// reason that was told.
fn misunderstanding(error: &Error, peer: SocketAddr, path: &str) -> Option<String> {
    if matches!(error, Error::Io(_) | Error::Http(_) | Error::Protocol(ProtocolError::HandshakeIncomplete)) {
        return None;
    }
    let (peer, path) = (peer.ip(), path.trim_end_matches('/'));
    Some(format!(
        "{peer} sent no WebSocket request ({error}); chargers connect by ws:// to {path}/<identity>, not by wss:// or https://"
    ))
}

fn with_subprotocol(mut response: Response, subprotocol: Subprotocol) -> Response {
    if let Subprotocol::Agreed(version) = subprotocol {
        response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(version.subprotocol()));
    }
    response
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

//! One open WebSocket of a station, until it closes.

use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Utf8Bytes};

use super::registry::{Closing, Outgoing};
use crate::engine::model::ids::{ConnectionId, StationId};
use crate::engine::model::topology::StationIndex;
use crate::engine::site::io::Input;
use crate::shell::stopped;

/// The largest message accepted from a station, in bytes. The longest honest ones (a `NotifyReport`, a `StopTransaction` with all its
/// meter values) stay well below it.
pub const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// What one station may say in the long run, in bytes per second. The owner reads the frames of all stations and the readings of the
/// meters in turn: one that sends large frames without end would keep it from the others, and fill the memory with what waits. An honest
/// one sends a few KB and waits for the answer.
const BYTES_PER_S: u32 = 128 * 1024;

/// What it may say at once beyond that.
const BURST: Duration = Duration::from_secs(2);

/// A small frame costs as much as one of this size, in bytes.
const LEAST_FRAME: u32 = 256;

/// tungstenite's default of 128 KiB for each connection would cost 200 stations 25 MB.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Routers forget idle connections after a minute or more; stations are known to live well with this.
const PING_EVERY: Duration = Duration::from_secs(30);

/// Two pings and half an interval without any frame: the peer is gone, although TCP may not know it for hours.
const DEAD_AFTER: Duration = Duration::from_secs(75);

/// How long a peer has to answer our close frame before the socket is dropped.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// A close frame holds at most 125 bytes, two of them the code (RFC 6455 §5.5).
const MAX_REASON_BYTES: usize = 123;

/// What a connection has to know.
#[derive(Debug)]
pub(super) struct Session {
    /// Which station.
    pub(super) station: StationIndex,
    /// Its identity, for the log.
    pub(super) id: StationId,
    /// Which connection.
    pub(super) connection: ConnectionId,
    /// What is to be sent.
    pub(super) outgoing: Outgoing,
    /// Where frames go. While it is full the socket is not read, and TCP makes the station wait.
    pub(super) inbox: mpsc::Sender<Input>,
    /// Becomes true when the daemon stops.
    pub(super) shutdown: watch::Receiver<bool>,
}

/// Why a connection ended.
enum End {
    /// The peer closed it, or it broke.
    Gone(String),
    /// We close it.
    Ours(Closing),
}

/// The limits of every WebSocket.
pub(super) fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(READ_BUFFER_BYTES)
        // Sends are awaited one by one, so that only one message and control frames are ever in it.
        .max_write_buffer_size(4 * MAX_MESSAGE_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}

/// Carries the frames of a station until the connection ends. Returns why it ended.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(socket: WebSocketStream<S>, session: Session) -> String {
    let Session { station, id, connection, outgoing, inbox, shutdown } = session;
    let frame = |text| Input::StationFrame { station, connection, text };
    carry(socket, &id, outgoing, (frame, inbox), shutdown).await
}

/// Carries frames in both directions until the connection ends: those that come in to an inbox, as what is made of them. Returns why it ended.
pub(super) async fn carry<S: AsyncRead + AsyncWrite + Unpin, T>(
    socket: WebSocketStream<S>,
    id: &StationId,
    Outgoing { frames, mut close }: Outgoing,
    (frame, inbox): (impl Fn(String) -> T, mpsc::Sender<T>),
    mut shutdown: watch::Receiver<bool>,
) -> String {
    let (mut sink, mut stream) = socket.split();
    let end = tokio::select! {
        end = read(&mut stream, id, frame, &inbox) => end,
        end = write(&mut sink, frames) => end,
        closing = closing(&mut close) => End::Ours(closing),
        () = stopped(&mut shutdown) => End::Ours(Closing::new(CloseCode::Away, "the controller stops")),
    };
    match end {
        End::Gone(reason) => reason,
        End::Ours(closing) => {
            if let Ok(socket) = sink.reunite(stream) {
                // A peer that does not take part in the closing has lost nothing but the courtesy.
                let _ = timeout(CLOSE_TIME, say_goodbye(socket, &closing)).await;
            }
            closing.reason
        }
    }
}

/// Opens nothing: says why and closes a WebSocket that was never of use.
pub(super) async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(socket: WebSocketStream<S>, closing: Closing) {
    let _ = timeout(CLOSE_TIME, say_goodbye(socket, &closing)).await;
}

async fn read<S: AsyncRead + AsyncWrite + Unpin, T>(
    stream: &mut SplitStream<WebSocketStream<S>>,
    id: &StationId,
    frame: impl Fn(String) -> T,
    inbox: &mpsc::Sender<T>,
) -> End {
    let mut binary_seen = false;
    let mut pace = Pace { paid_until: Instant::now() };
    loop {
        let Ok(message) = timeout(DEAD_AFTER, stream.next()).await else {
            let reason = format!("silent for {} s", DEAD_AFTER.as_secs());
            return End::Ours(Closing::new(CloseCode::Away, &reason));
        };
        match message {
            Some(Ok(Message::Text(text))) => {
                let length = text.len();
                if inbox.send(frame(text.as_str().to_owned())).await.is_err() {
                    return End::Ours(Closing::new(CloseCode::Away, "the controller stops"));
                }
                sleep_until(pace.after(length)).await;
            }
            Some(Ok(Message::Binary(_))) => {
                if !binary_seen {
                    tracing::warn!("charger {id}: sends binary frames, which OCPP does not use; they are ignored");
                }
                binary_seen = true;
            }
            Some(Ok(Message::Close(frame))) => return End::Gone(closed_by_peer(frame.as_ref())),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Err(error)) => return failed(&error),
            None => return End::Gone("closed by the station".to_owned()),
        }
    }
}

/// Spreads what a station sends over time.
struct Pace {
    /// What it has sent would have taken until then at [`BYTES_PER_S`].
    paid_until: Instant,
}

impl Pace {
    /// When to read on after a frame of so many bytes.
    fn after(&mut self, length: usize) -> Instant {
        let bytes = u32::try_from(length).unwrap_or(u32::MAX).max(LEAST_FRAME);
        self.paid_until = self.paid_until.max(Instant::now()) + Duration::from_secs(1) * bytes / BYTES_PER_S;
        self.paid_until - BURST
    }
}

async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    mut frames: mpsc::Receiver<String>,
) -> End {
    let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            frame = frames.recv() => match frame {
                Some(text) => Message::Text(text.into()),
                // The registry dropped the link without a word; its closing says why.
                None => std::future::pending().await,
            },
            _ = pings.tick() => Message::Ping(Vec::new().into()),
        };
        if let Err(error) = sink.send(message).await {
            return failed(&error);
        }
    }
}

async fn closing(close: &mut watch::Receiver<Option<Closing>>) -> Closing {
    match close.wait_for(Option::is_some).await {
        Ok(closing) => closing.clone().unwrap_or_default(),
        Err(_) => Closing::default(),
    }
}

fn closed_by_peer(frame: Option<&CloseFrame>) -> String {
    match frame {
        Some(frame) if frame.reason.is_empty() => format!("closed by the station (code {})", u16::from(frame.code)),
        Some(frame) => format!("closed by the station (code {}, {:?})", u16::from(frame.code), frame.reason.as_str()),
        None => "closed by the station".to_owned(),
    }
}

fn failed(error: &Error) -> End {
    match error {
        Error::Capacity(_) => {
            let reason = format!("a message of more than {MAX_MESSAGE_BYTES} bytes");
            End::Ours(Closing::new(CloseCode::Size, &reason))
        }
        Error::Utf8(_) => End::Ours(Closing::new(CloseCode::Invalid, "a text frame that is not UTF-8")),
        Error::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            End::Gone("connection lost".to_owned())
        }
        Error::Protocol(error) => End::Ours(Closing::new(CloseCode::Protocol, &error.to_string())),
        Error::ConnectionClosed | Error::AlreadyClosed => End::Gone("closed by the station".to_owned()),
        other => End::Gone(format!("connection lost: {other}")),
    }
}

/// Sends the close frame and reads what is still on its way, since closing a socket with unread data destroys what was sent.
async fn say_goodbye<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>, closing: &Closing) {
    let mut end = closing.reason.len().min(MAX_REASON_BYTES);
    while !closing.reason.is_char_boundary(end) {
        end -= 1;
    }
    let frame = CloseFrame { code: closing.code, reason: Utf8Bytes::from(&closing.reason[..end]) };
    if socket.send(Message::Close(Some(frame))).await.is_err() {
        return;
    }
    loop {
        match socket.next().await {
            Some(Ok(_)) => {}
            // The frame reader stays at the oversized frame: go round it.
            Some(Err(Error::Capacity(_))) => break,
            Some(Err(_)) | None => return,
        }
    }
    let mut waste = [0; 4096];
    while socket.get_mut().read(&mut waste).await.is_ok_and(|count| count > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::station::registry::Registry;
    use tokio::io::DuplexStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    struct Peer {
        socket: WebSocketStream<DuplexStream>,
        registry: Registry,
        connection: ConnectionId,
        inbox: mpsc::Receiver<Input>,
        _shutdown: watch::Sender<bool>,
        ended: tokio::task::JoinHandle<String>,
    }

    const STATION: StationIndex = StationIndex(0);

    async fn peer() -> Peer {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let registry = Registry::default();
        let (connection, outgoing) = registry.attach(STATION, |_| ());
        let (inbox_in, inbox) = mpsc::channel(1);
        let (shutdown_in, shutdown) = watch::channel(false);
        let id = StationId::new("CP001");
        let session = Session { station: STATION, id, connection, outgoing, inbox: inbox_in, shutdown };
        let near = WebSocketStream::from_raw_socket(near, Role::Server, Some(limits())).await;
        let socket = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        Peer { socket, registry, connection, inbox, _shutdown: shutdown_in, ended: tokio::spawn(serve(near, session)) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_dead_after_75_s() {
        let start = Instant::now();
        // Nothing answers the pings: the far end is held but never read.
        let peer = peer().await;
        assert_eq!(peer.ended.await.unwrap(), "silent for 75 s");
        assert!(
            start.elapsed() >= DEAD_AFTER && start.elapsed() <= DEAD_AFTER + CLOSE_TIME + Duration::from_millis(10)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answers_pings_stays() {
        let mut peer = peer().await;
        let start = Instant::now();
        for _ in 0..10 {
            // Reading the ping answers it.
            assert!(matches!(peer.socket.next().await, Some(Ok(Message::Ping(_)))));
        }
        assert_eq!(start.elapsed().as_secs(), 300);
        assert!(!peer.ended.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn a_station_that_does_not_read_is_closed_and_never_blocks_the_sender() {
        let peer = peer().await;
        let big = "x".repeat(8 * 1024);
        for _ in 0..100 {
            peer.registry.send(STATION, peer.connection, big.clone());
            tokio::task::yield_now().await;
        }
        assert_eq!(peer.ended.await.unwrap(), "does not read");
        assert!(!peer.registry.is_connected(STATION));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_inbox_makes_the_station_wait_and_loses_nothing() {
        let mut peer = peer().await;
        for number in 0..3 {
            peer.socket.send(Message::text(number.to_string())).await.unwrap();
        }
        for number in 0..3 {
            let Some(Input::StationFrame { text, .. }) = peer.inbox.recv().await else { panic!("no frame") };
            assert_eq!(text, number.to_string());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_large_frames_is_slowed_down_and_an_honest_burst_is_not() {
        let Peer { socket, mut inbox, _shutdown, registry: _registry, .. } = peer().await;
        let (mut sink, _stream) = socket.split();
        let start = Instant::now();
        let flood = tokio::spawn(async move {
            let frame = "x".repeat(200 * 1024);
            for _ in 0..20 {
                sink.send(Message::text(frame.clone())).await.unwrap();
            }
            sink
        });
        inbox.recv().await.expect("the first");
        assert!(start.elapsed() < Duration::from_millis(10), "{:?}", start.elapsed());
        for _ in 1..20 {
            inbox.recv().await.expect("the next");
        }
        let whole = Duration::from_secs(20 * 200 * 1024 / u64::from(BYTES_PER_S));
        assert!(start.elapsed() + Duration::from_secs(4) >= whole, "{:?}", start.elapsed());
        drop(flood.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn binary_frames_are_ignored() {
        let mut peer = peer().await;
        peer.socket.send(Message::binary(vec![1, 2, 3])).await.unwrap();
        peer.socket.send(Message::text("[]")).await.unwrap();
        assert!(matches!(peer.inbox.recv().await, Some(Input::StationFrame { text, .. }) if text == "[]"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_reason_is_cut_to_fit_a_close_frame() {
        let mut peer = peer().await;
        peer.registry.close(STATION, peer.connection, &"ä".repeat(100));
        let Some(Ok(Message::Close(Some(frame)))) = peer.socket.next().await else { panic!("no close frame") };
        assert_eq!(frame.reason.as_str(), "ä".repeat(61));
    }
}

//! A simulated station on a real WebSocket.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::net::clock::Clock;
use crate::net::cloud::lock;
use crate::station::Station;

/// How often the station's model is given time: its currents are never older.
const STEP: Duration = Duration::from_millis(100);
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a frame may take to be handed to the network.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Where a station connects to, and how.
#[derive(Clone, Debug)]
pub struct Link {
    /// The CSMS's URL without the identity, such as `ws://127.0.0.1:8887/ocpp`.
    pub url: String,
    /// How long it waits before it tries to connect again.
    pub retry: Duration,
    /// Whether its network cable is plugged in.
    pub plugged: watch::Receiver<bool>,
}

/// Runs a station until it is dropped: it connects, speaks, and connects again whatever happens. Its cars charge all the while.
/// What it cannot do is handed to `trouble`.
pub async fn run(model: Arc<Mutex<Station>>, clock: Clock, mut link: Link, mut trouble: impl FnMut(String) + Send) {
    loop {
        if *link.plugged.borrow() {
            match timeout(CONNECT_TIMEOUT, connect(&model, &link.url)).await {
                Ok(Ok(socket)) => {
                    let reason = converse(&model, clock, socket, &mut link.plugged).await;
                    lock(&model).disconnected(clock.now());
                    trouble(reason);
                }
                Ok(Err(error)) => trouble(error),
                Err(_) => trouble("no connection in time".to_owned()),
            }
        }
        offline(&model, clock, link.retry, &mut link.plugged).await;
    }
}

async fn connect(model: &Mutex<Station>, url: &str) -> Result<Socket, String> {
    let (identity, protocol) = {
        let station = lock(model);
        (station.options().identity.clone(), station.options().version.subprotocol())
    };
    let mut request = format!("{url}/{identity}").into_client_request().map_err(|error| error.to_string())?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(protocol));
    let (socket, _) = connect_async(request).await.map_err(|error| error.to_string())?;
    Ok(socket)
}

/// Speaks until the connection ends; why it did.
async fn converse(
    model: &Mutex<Station>,
    clock: Clock,
    mut socket: Socket,
    plugged: &mut watch::Receiver<bool>,
) -> String {
    let mut step = interval(STEP);
    step.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut frames = lock(model).connected(clock.now());
    loop {
        for frame in frames.drain(..) {
            match timeout(SEND_TIMEOUT, socket.send(Message::text(frame))).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return "the other side takes nothing".to_owned(),
            }
        }
        if lock(model).take_close() {
            // It reboots; whether the other side hears of it is not its concern any more.
            let _ = timeout(SEND_TIMEOUT, socket.close(None)).await;
            return "reboot".to_owned();
        }
        tokio::select! {
            _ = step.tick() => frames = lock(model).tick(clock.now()),
            received = socket.next() => match received {
                Some(Ok(Message::Text(text))) => frames = lock(model).receive(&text, clock.now()),
                Some(Ok(Message::Close(frame))) => return frame.map_or("closed".to_owned(), |frame| frame.to_string()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return error.to_string(),
                None => return "closed".to_owned(),
            },
            // The cable is out: nothing is said to the other side.
            _ = plugged.wait_for(|plugged| !plugged) => return "the network cable is out".to_owned(),
        }
    }
}

/// Lets the cars charge for `wait`, and as long as the cable is out.
async fn offline(model: &Mutex<Station>, clock: Clock, wait: Duration, plugged: &mut watch::Receiver<bool>) {
    let mut step = interval(STEP);
    step.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let again = async {
        sleep(wait).await;
        // An error means that nobody can plug it in any more: then it stays as it is.
        if plugged.wait_for(|plugged| *plugged).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::pin!(again);
    loop {
        tokio::select! {
            () = &mut again => return,
            _ = step.tick() => {
                // It is offline: there is nothing to send.
                lock(model).tick(clock.now());
            }
        }
    }
}

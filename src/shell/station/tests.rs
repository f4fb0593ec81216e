use super::*;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::{Error, http};

use crate::engine::model::topology::StationIndex;

struct Site {
    address: SocketAddr,
    registry: Registry,
    inbox: mpsc::Receiver<Input>,
    waiting: Waiting,
    shutdown: watch::Sender<bool>,
    ended: JoinHandle<()>,
}

fn site() -> Site {
    site_with(UnknownChargers::Reject)
}

fn site_with(unknown_chargers: UnknownChargers) -> Site {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (inbox_in, inbox) = mpsc::channel(16);
    let (shutdown, stopped) = watch::channel(false);
    let (registry, waiting) = (Registry::default(), Waiting::default());
    let listening = Listening {
        path: "/ocpp".to_owned(),
        topology: Arc::new(testing::topology()),
        unknown_chargers,
        waiting: waiting.clone(),
        clock: Clock::start(),
        registry: registry.clone(),
        inbox: inbox_in,
        shutdown: stopped,
    };
    Site { address, registry, inbox, waiting, shutdown, ended: tokio::spawn(run(listener, listening)) }
}

type Socket = WebSocketStream<TcpStream>;

async fn dial(site: &Site, path: &str, headers: &[(&'static str, &str)]) -> Result<(Socket, http::HeaderMap), Error> {
    let mut request = format!("ws://{}{path}", site.address).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(site.address).await.unwrap();
    client_async(request, stream).await.map(|(socket, response)| (socket, response.headers().clone()))
}

const V16: (&str, &str) = ("sec-websocket-protocol", "ocpp1.6");

async fn rejected(site: &Site, path: &str, headers: &[(&'static str, &str)]) -> (u16, http::HeaderMap) {
    match dial(site, path, headers).await {
        Err(Error::Http(response)) => (response.status().as_u16(), response.headers().clone()),
        other => panic!("expected an HTTP error, got {other:?}"),
    }
}

async fn connected(site: &mut Site) -> (StationIndex, crate::engine::model::ids::ConnectionId, OcppVersion) {
    match site.inbox.recv().await {
        Some(Input::StationConnected { station, connection, version }) => (station, connection, version),
        other => panic!("expected a connection, got {other:?}"),
    }
}

async fn disconnected(site: &mut Site) -> String {
    match site.inbox.recv().await {
        Some(Input::StationDisconnected { reason, .. }) => reason,
        other => panic!("expected a disconnection, got {other:?}"),
    }
}

async fn close_code(socket: &mut Socket) -> (u16, String) {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(Some(frame)))) => return (frame.code.into(), frame.reason.as_str().to_owned()),
            Some(Ok(_)) => {}
            other => panic!("expected a close frame, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_unknown_identity_gets_404_with_words() {
    let mut site = site();
    let (status, headers) = rejected(&site, "/ocpp/NOBODY", &[V16]).await;
    assert_eq!(status, 404);
    assert!(headers.contains_key("content-length"));

    // The body arrives too.
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    let request = "GET /ocpp/NOBODY HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(answer.ends_with("This charging station is not in the site's configuration.\n"), "{answer}");

    // OCPP-J 1.6 §3.1.1; the log says what to add.
    let shared = Shared {
        listening: Listening {
            path: "/ocpp".to_owned(),
            topology: Arc::new(testing::topology()),
            unknown_chargers: UnknownChargers::Reject,
            waiting: Waiting::default(),
            clock: Clock::start(),
            registry: Registry::default(),
            inbox: mpsc::channel(1).0,
            shutdown: watch::channel(false).1,
        },
        opening: Mutex::default(),
        complaints: Mutex::default(),
    };
    let line = shared.describe(&Refusal::Unknown { identity: "NOBODY".to_owned() }, site.address);
    assert!(line.contains("[[chargers]] id = \"NOBODY\""), "{line}");
    assert!(site.inbox.try_recv().is_err());
}

#[tokio::test]
async fn a_station_with_a_password_needs_it() {
    let mut site = site();
    let (status, headers) = rejected(&site, "/ocpp/LOCKED", &[V16]).await;
    assert_eq!((status, headers["www-authenticate"].to_str().unwrap()), (401, "Basic realm=\"ocpp\""));
    let wrong = ("authorization", "Basic TE9DS0VEOndyb25n");
    assert_eq!(rejected(&site, "/ocpp/LOCKED", &[V16, wrong]).await.0, 401);
    // "LOCKED:00112233445566778899aabbccddeeff"
    let right = ("authorization", "Basic TE9DS0VEOjAwMTEyMjMzNDQ1NTY2Nzc4ODk5YWFiYmNjZGRlZWZm");
    let (_socket, _) = dial(&site, "/ocpp/LOCKED", &[V16, right]).await.unwrap();
    assert_eq!(connected(&mut site).await.0, StationIndex(1));
}

#[tokio::test]
async fn the_subprotocol_decides_the_version() {
    let mut site = site();
    let offer = ("sec-websocket-protocol", "ocpp2.0.1, ocpp1.6");
    let (_socket, headers) = dial(&site, "/ocpp/CP001", &[offer]).await.unwrap();
    assert_eq!(headers["sec-websocket-protocol"], "ocpp2.0.1");
    assert_eq!(connected(&mut site).await.2, OcppVersion::V201);
}

#[tokio::test]
async fn a_station_whose_lease_is_tested_is_kept_out_until_its_time_is_over() {
    let mut site = site();
    site.registry.turn_away(StationIndex(0), Duration::from_secs(3_600));
    assert_eq!(rejected(&site, "/ocpp/CP001", &[V16]).await.0, 503);
    assert!(site.inbox.try_recv().is_err());
    site.registry.turn_away(StationIndex(0), Duration::ZERO);
    let (_socket, _) = dial(&site, "/ocpp/CP001", &[V16]).await.unwrap();
    assert_eq!(connected(&mut site).await.0, StationIndex(0));
}

#[tokio::test]
async fn no_subprotocol_is_taken_for_1_6() {
    let mut site = site();
    let (_socket, headers) = dial(&site, "/OCPP/CP001/", &[]).await.unwrap();
    assert!(!headers.contains_key("sec-websocket-protocol"));
    assert_eq!(connected(&mut site).await.2, OcppVersion::V16);
}

// OCPP-J 1.6 §3.1.2: complete the handshake without the header, then close at once.
#[tokio::test]
async fn only_unknown_subprotocols_are_closed_with_1002() {
    let mut site = site();
    // A client that offered a subprotocol and got none fails its own handshake in this library, so that the frame is read raw.
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    let request = "GET /ocpp/CP001 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Protocol: ocpp1.5\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&answer[..end]);
    assert!(head.starts_with("HTTP/1.1 101") && !head.to_ascii_lowercase().contains("protocol:"), "{head}");
    let frame = &answer[end..];
    assert_eq!((frame[0], u16::from_be_bytes([frame[2], frame[3]])), (0x88, 1002));
    assert!(String::from_utf8_lossy(&frame[4..]).contains("ocpp1.6, ocpp2.0.1 and ocpp2.1"));
    assert!(site.inbox.try_recv().is_err());
}

#[tokio::test]
async fn frames_go_both_ways() {
    let mut site = site();
    let (mut socket, _) = dial(&site, "/ocpp/CP001", &[V16]).await.unwrap();
    let (station, connection, _) = connected(&mut site).await;
    socket.send(Message::text("[2,\"1\",\"Heartbeat\",{}]")).await.unwrap();
    let frame = site.inbox.recv().await;
    let text = "[2,\"1\",\"Heartbeat\",{}]".to_owned();
    assert_eq!(frame, Some(Input::StationFrame { station, connection, text }));
    site.registry.send(station, connection, "[3,\"1\",{}]".to_owned());
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("[3,\"1\",{}]"));
    socket.close(None).await.unwrap();
    assert_eq!(disconnected(&mut site).await, "closed by the station");
    assert_eq!(site.registry.connected(), 0);
}

#[tokio::test]
async fn an_oversized_message_is_closed_with_1009_and_others_go_on() {
    let mut site = site();
    let (socket, _) = dial(&site, "/ocpp/CP001", &[V16]).await.unwrap();
    connected(&mut site).await;
    // The sender may be cut off while it is still sending.
    let (mut sink, mut stream) = socket.split();
    let sender = tokio::spawn(async move { sink.send(Message::text("x".repeat(MAX_MESSAGE_BYTES + 1))).await });
    let Some(Ok(Message::Close(Some(frame)))) = stream.next().await else { panic!("no close frame") };
    assert_eq!(u16::from(frame.code), 1009);
    let _ = sender.await.unwrap();
    drop(stream);
    assert!(disconnected(&mut site).await.contains("more than 262144 bytes"));
    let (_socket, _) = dial(&site, "/ocpp/CP001", &[V16]).await.unwrap();
    connected(&mut site).await;
}

#[tokio::test]
async fn a_second_connection_replaces_the_first() {
    let mut site = site();
    let (mut first, _) = dial(&site, "/ocpp/CP001", &[V16]).await.unwrap();
    let (_, old, _) = connected(&mut site).await;
    let (mut second, _) = dial(&site, "/ocpp/CP001", &[V16]).await.unwrap();
    let (station, new, _) = connected(&mut site).await;
    assert!(new > old);
    assert_eq!(close_code(&mut first).await, (1008, "replaced by a new connection".to_owned()));
    // Finish the closing handshake.
    assert!(first.next().await.is_none());
    assert_eq!(disconnected(&mut site).await, "replaced by a new connection");
    // The end of the old one has not touched the new one; a frame for the old one is gone.
    site.registry.send(station, old, "old".to_owned());
    site.registry.send(station, new, "new".to_owned());
    assert_eq!(second.next().await.unwrap().unwrap(), Message::text("new"));
}

#[tokio::test]
async fn connections_that_never_say_who_they_are_do_not_lock_others_out() {
    let mut site = site();
    let mut hanging = Vec::new();
    for _ in 0..=MAX_OPENING {
        hanging.push(TcpStream::connect(site.address).await.unwrap());
    }
    let (_socket, _) = dial(&site, "/ocpp/CP001", &[V16]).await.unwrap();
    connected(&mut site).await;
    // The oldest made room.
    assert_eq!(hanging[0].read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn shutdown_closes_every_connection() {
    let mut site = site();
    let (mut socket, _) = dial(&site, "/ocpp/CP001", &[V16]).await.unwrap();
    connected(&mut site).await;
    site.shutdown.send_replace(true);
    assert_eq!(close_code(&mut socket).await, (1001, "the controller stops".to_owned()));
    assert!(socket.next().await.is_none());
    site.ended.await.unwrap();
}

#[tokio::test]
async fn who_speaks_something_else_is_told_apart_from_who_hangs_up() {
    let peer = "192.0.2.7:50000".parse().unwrap();
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice();
    let browser = b"GET /ocpp/CP001 HTTP/1.1\r\nHost: gateway\r\n\r\n";
    for (bytes, told) in [(tls, true), (browser, true), (b"GET /oc", false), (b"", false)] {
        let (mut near, far) = tokio::io::duplex(4096);
        near.write_all(bytes).await.unwrap();
        drop(near);
        let error = tokio_tungstenite::accept_async(far).await.unwrap_err();
        let complaint = misunderstanding(&error, peer, "/ocpp");
        assert_eq!(complaint.is_some(), told, "{error:?}");
        if let Some(complaint) = complaint {
            assert!(complaint.starts_with("192.0.2.7 sent no WebSocket request ("), "{complaint}");
            assert!(complaint.ends_with("by ws:// to /ocpp/<identity>, not by wss:// or https://"), "{complaint}");
        }
    }
}

const BOOT: &str = r#"[2,"1","BootNotification",{"chargePointVendor":"Acme","chargePointModel":"One"}]"#;

async fn answer(socket: &mut Socket) -> String {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return text.as_str().to_owned(),
            Some(Ok(_)) => {}
            other => panic!("expected an answer, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_station_that_is_not_configured_waits_and_nobody_hears_of_its_frames() {
    let mut site = site_with(UnknownChargers::Pending);
    let (mut socket, _) = dial(&site, "/ocpp/NEW", &[V16]).await.unwrap();
    for (asked, begins) in [
        (BOOT, "[3,\"1\",{\"status\":\"Pending\""),
        ("[2,\"2\",\"Heartbeat\",{}]", "[3,\"2\",{\"currentTime\":"),
        ("[2,\"3\",\"StartTransaction\",{\"connectorId\":1}]", "[4,\"3\",\"GenericError\""),
    ] {
        socket.send(Message::Text(asked.into())).await.unwrap();
        let answer = answer(&mut socket).await;
        assert!(answer.starts_with(begins), "{answer}");
    }
    let [charger] = &site.waiting.list()[..] else { panic!("one waits") };
    assert_eq!((charger.id.as_str(), charger.ocpp_version.as_str()), ("NEW", "1.6"));
    assert_eq!((charger.vendor.as_deref(), charger.model.as_deref()), (Some("Acme"), Some("One")));
    assert!(site.inbox.try_recv().is_err(), "the site was told");
    let (again, _) = dial(&site, "/ocpp/NEW", &[V16]).await.unwrap();
    assert_eq!(close_code(&mut socket).await.1, "replaced by a new connection");
    assert_eq!(site.waiting.list().len(), 1);
    drop(again);
    assert_eq!(rejected(&site, "/ocpp/a%2Fb", &[V16]).await.0, 404);
}

#[tokio::test]
async fn of_forty_at_once_no_more_wait_than_have_room() {
    let site = site_with(UnknownChargers::Pending);
    let paths: Vec<String> = (0..40).map(|number| format!("/ocpp/NEW{number}")).collect();
    let dialled = futures_util::future::join_all(paths.iter().map(|path| dial(&site, path, &[V16]))).await;
    let refused = |result: &Result<_, Error>| matches!(result, Err(Error::Http(answer)) if answer.status() == 503);
    assert_eq!(dialled.iter().filter(|result| result.is_ok()).count(), MAX_WAITING);
    assert_eq!(dialled.iter().filter(|result| refused(result)).count(), 40 - MAX_WAITING);
    assert_eq!(site.waiting.list().len(), MAX_WAITING);
    drop(dialled);
    while !site.waiting.list().is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(dial(&site, "/ocpp/LATE", &[V16]).await.is_ok());
}

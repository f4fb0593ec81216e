use std::sync::Mutex;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use axum::response::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tower::ServiceExt as _;

use super::*;
use crate::engine::controller::Controller;
use crate::engine::model::record::{RecordBody, Stamp};
use crate::engine::site::Restored;
use crate::engine::site::io::{Input, JournalInput};
use crate::engine::time::{Mono, Utc};
use crate::shell::site::{INBOX, Owner, Reach, Store, StoreOverrun};
use crate::shell::station::{Registry, testing};
use crate::shell::systemd::Notifier;

/// Calls everything durable at once and keeps nothing.
struct Nowhere(mpsc::Sender<Input>);

impl Store for Nowhere {
    fn append(&mut self, records: Vec<Record>) -> Result<(), StoreOverrun> {
        if let Some(last) = records.last() {
            let _ = self.0.try_send(Input::Journal(JournalInput::Durable { through: last.sequence }));
        }
        Ok(())
    }
    fn snapshot(&mut self, _through: Sequence, _state: Vec<u8>) {}
    fn read(&mut self, _from: Sequence, _limit: usize) {}
    fn acknowledged(&mut self, _through: Sequence) {}
}

/// Three records, or an error.
#[derive(Default)]
struct Shelf {
    broken: Option<String>,
    asked: Mutex<Vec<(u64, usize)>>,
}

impl Events for Shelf {
    fn read(&self, from: Sequence, limit: usize, answer: oneshot::Sender<Result<Vec<Record>, String>>) {
        self.asked.lock().unwrap().push((from.0, limit));
        let records = (from.0..=3).take(limit).map(record).collect();
        answer.send(self.broken.clone().map_or(Ok(records), Err)).unwrap();
    }
}

fn record(sequence: u64) -> Record {
    let stamp = Stamp { utc: Utc::default(), trusted: false, mono: Mono::START, boot: 1 };
    let body = RecordBody::StoreRecovered { missing: String::new() };
    Record { sequence: Sequence(sequence), stamp, body }
}

struct Served {
    api: Api,
    shelf: Arc<Shelf>,
    _stop: watch::Sender<bool>,
    _inbox: mpsc::Sender<Input>,
}

async fn served() -> Served {
    with_shelf(Shelf::default()).await
}

async fn with_shelf(shelf: Shelf) -> Served {
    let clock = Clock::start();
    let (inbox_in, inbox) = mpsc::channel(INBOX);
    let reach = Reach {
        store: Box::new(Nowhere(inbox_in.clone())),
        registry: Registry::default(),
        telemetry: None,
        publications: None,
        memory: watch::Sender::new(Vec::new()),
        errands: mpsc::channel(1).0,
        reports: mpsc::channel(1).0,
        notifier: Notifier::silent(),
    };
    let controller = Controller::new(testing::setup(), Restored::default(), true, clock.now());
    let (owner, mut asker) = Owner::new(controller, clock, reach);
    let (stop, shutdown) = watch::channel(false);
    tokio::spawn(owner.run(inbox, shutdown));
    asker.next_tick().await.unwrap();
    let shelf = Arc::new(shelf);
    let events: Arc<dyn Events> = Arc::clone(&shelf) as _;
    let messages = Arc::new(Messages::new("siteward/v1", testing::topology().site(), "store"));
    Served {
        api: Api { asker, clock, events, messages, waiting: Waiting::default(), store: "/nowhere/store".into() },
        shelf,
        _stop: stop,
        _inbox: inbox_in,
    }
}

async fn send(served: &Served, request: Request<Body>) -> Response {
    router(served.api.clone()).oneshot(request).await.unwrap()
}

fn request(method: Method, uri: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(uri).header("host", "127.0.0.1:8080")
}

async fn get(served: &Served, uri: &str) -> (StatusCode, String) {
    text(send(served, request(Method::GET, uri).body(Body::empty()).unwrap()).await).await
}

async fn text(response: Response) -> (StatusCode, String) {
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn every_list_answers() {
    let served = served().await;
    for path in [
        "site",
        "circuits",
        "chargers",
        "meters",
        "inverters",
        "transactions",
        "tokens",
        "alarms",
        "events",
        "limits",
        "limits/log",
    ] {
        let (status, body) = get(&served, &format!("/api/v1/{path}")).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        serde_json::from_str::<serde_json::Value>(&body).unwrap();
    }
    assert_eq!(get(&served, "/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
    assert_eq!(get(&served, "/readyz").await, (StatusCode::OK, "ready\n".to_owned()));
}

#[tokio::test]
async fn explain_answers_for_known_chargers_only() {
    let served = served().await;
    let (status, body) = get(&served, "/api/v1/chargers/CP001/explain").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("\"charger\":\"CP001\""), "{body}");
    let (status, body) = get(&served, "/api/v1/chargers/CP999/explain").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body.contains("There is no charger"), "{body}");
}

async fn write(served: &Served, method: Method, uri: &str, body: &str) -> (StatusCode, String) {
    let request = request(method, uri).header("content-type", "application/json");
    text(send(served, request.body(Body::from(body.to_owned())).unwrap()).await).await
}

#[tokio::test]
async fn a_boost_is_set_shown_and_taken_back() {
    let served = served().await;
    let path = "/api/v1/chargers/CP001/boost";
    let (status, body) = write(&served, Method::PUT, path, r#"{"connector": 1, "minutes": 60}"#).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&answer["charger"], &answer["connector"]), (&"CP001".into(), &1.into()), "{body}");
    let (_, body) = get(&served, "/api/v1/chargers/CP001/explain").await;
    let explained: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(explained["evses"][0]["boost_until"], answer["until"], "{body}");
    let (status, body) = write(&served, Method::DELETE, &format!("{path}?connector=1"), "").await;
    assert_eq!((status, body.as_str()), (StatusCode::NO_CONTENT, ""));
    let (_, body) = get(&served, "/api/v1/chargers/CP001/explain").await;
    let explained: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(explained["evses"][0]["boost_until"], serde_json::Value::Null, "{body}");
}

#[tokio::test]
async fn a_token_is_set_listed_and_deleted() {
    let served = served().await;
    let body = r#"{"status": "Blocked", "group": "staff", "expires": "2027-01-31T23:59:59+01:00"}"#;
    for (token, body) in [("04A2", body), ("zo%C3%AB%2F1", "{}"), ("M", "")] {
        let (status, answer) = write(&served, Method::PUT, &format!("/api/v1/tokens/{token}"), body).await;
        assert_eq!((status, answer.as_str()), (StatusCode::NO_CONTENT, ""), "{token}");
    }
    let (_, body) = get(&served, "/api/v1/tokens?limit=2").await;
    let page: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(page["tokens"][0]["group"], "staff", "{body}");
    assert_eq!((&page["tokens"][0]["status"], &page["tokens"][0]["source"]), (&"Blocked".into(), &"command".into()));
    assert_eq!(page["tokens"][0]["expires"], "2027-01-31T22:59:59.000Z");
    assert_eq!((&page["tokens"][1]["token"], &page["next"]), (&"M".into(), &"M".into()), "{body}");
    let (_, body) = get(&served, "/api/v1/tokens?after=m").await;
    let page: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&page["tokens"][0]["token"], &page["next"]), (&"zoë/1".into(), &serde_json::Value::Null), "{body}");
    let (status, _) = write(&served, Method::DELETE, "/api/v1/tokens/04a2", "").await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    for (method, path, body, expected, part) in [
        (Method::DELETE, "tokens/04A2", "", 404, "04A2"),
        (Method::PUT, "tokens/A", r#"{"status": "Bocked"}"#, 400, "did you mean"),
        (Method::PUT, "tokens/A", r#"{"token": "B"}"#, 400, "the address says which token"),
        (Method::PUT, "tokens/A", "[]", 400, "expected {"),
        (Method::GET, "tokens?limit=x", "", 400, "?after=04A2B3C4&limit=1000"),
    ] {
        let (status, answer) = write(&served, method, &format!("/api/v1/{path}"), body).await;
        assert_eq!(status.as_u16(), expected, "{path} {body}: {answer}");
        assert!(answer.contains(part), "{path} {body}: {answer}");
    }
}

#[tokio::test]
async fn wishes_that_cannot_be_meant_say_what_would_be_right() {
    let served = served().await;
    let target = r#"{"energy_wh": 20000, "departure": "2026-03-02T07:00:00+01:00"}"#;
    for (method, path, body, expected, part) in [
        (Method::PUT, "chargers/CP001/boost", "{}", 400, "needs an end"),
        (Method::PUT, "chargers/CP001/boost", r#"{"minutes": 0}"#, 400, "expected 1 to 1440"),
        (Method::PUT, "chargers/CP001/boost", r#"{"minuts": 5}"#, 400, "unknown field"),
        (Method::PUT, "chargers/CP001/boost", r#"{"minutes": 5, "connector": 2}"#, 404, "has no connector 2"),
        (Method::PUT, "chargers/CP999/boost", r#"{"minutes": 5}"#, 404, "There is no charger"),
        (Method::PUT, "chargers/CP001/boost", r#"{"until": "2020-01-01T00:00:00Z"}"#, 400, "until"),
        (Method::DELETE, "chargers/CP001/boost?conector=1", "", 400, "?connector=2"),
        (Method::PUT, "chargers/CP001/target", r#"{"energy_wh": 20000}"#, 400, "missing field `departure`"),
        (
            Method::PUT,
            "chargers/CP001/target",
            r#"{"energy_wh": 0, "departure": "2026-03-02T07:00:00Z"}"#,
            400,
            "expected 1 to",
        ),
        (Method::PUT, "chargers/CP001/target", target, 400, "departure"),
        (Method::PUT, "transactions/17/target", target, 404, "No transaction"),
        (Method::DELETE, "transactions/17/target", "", 404, "No transaction"),
    ] {
        let (status, answer) = write(&served, method, &format!("/api/v1/{path}"), body).await;
        assert_eq!(status.as_u16(), expected, "{path} {body}: {answer}");
        assert!(answer.contains(part), "{path} {body}: {answer}");
    }
}

// RFC 9457 §3: the media type, and the members of the problem.
#[tokio::test]
async fn errors_are_problems() {
    let served = served().await;
    for (method, uri, expected) in [
        (Method::GET, "/nothing", 404),
        (Method::GET, "/api/v1/nothing", 404),
        (Method::DELETE, "/api/v1/site", 405),
        (Method::GET, "/api/v1/events?after=x", 400),
        (Method::GET, "/api/v1/events?afterwards=1", 400),
        (Method::DELETE, "/api/v1/circuits/nowhere/limit", 404),
        (Method::DELETE, "/api/v1/circuits/grid/limit?from=ems", 400),
        (Method::DELETE, "/api/v1/circuits/grid/limit?source=EMS", 400),
        (Method::DELETE, "/api/v1/chargers/CP999/limit", 404),
        (Method::DELETE, "/api/v1/chargers/CP999/delay", 404),
        (Method::DELETE, "/api/v1/dimming", 400),
    ] {
        let response = send(&served, request(method, uri).body(Body::empty()).unwrap()).await;
        assert_eq!(response.status().as_u16(), expected, "{uri}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{uri}");
        let (_, body) = text(response).await;
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["status"], expected);
        assert!(problem["detail"].is_string() && problem["title"].is_string());
    }
}

#[tokio::test]
async fn a_limit_that_makes_no_sense_is_refused_with_what_would_be_right() {
    let served = served().await;
    for (uri, body, says) in [
        ("circuits/grid/limit", "{}", "\"limit_a\" is missing"),
        ("circuits/grid/limit", "[]", "expected {\"limit_a\": 40}"),
        ("circuits/grid/limit", r#"{"limit_a": 40, "untill": "2030-01-01T00:00:00Z"}"#, "unknown field \"untill\""),
        ("circuits/grid/limit", r#"{"limit_a": 101}"#, "from 0 to its configured 100.0 A"),
        ("circuits/grid/limit", r#"{"limit_a": 40, "ttl_s": 1}"#, "from 5 to 86400"),
        ("chargers/CP001/limit", r#"{"limit_a": 1000}"#, "never raised"),
        ("chargers/CP999/limit", r#"{"limit_a": 10}"#, "There is no charger"),
        ("dimming", "", "add [dimming] to site.toml"),
        ("dimming", r#"{"until": "noon"}"#, "2026-03-01T12:00:00Z"),
    ] {
        let put = request(Method::PUT, &format!("/api/v1/{uri}")).header("content-type", "application/json");
        let (status, answer) = text(send(&served, put.body(Body::from(body)).unwrap()).await).await;
        let problem: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert!(
            status.is_client_error() && problem["detail"].as_str().unwrap().contains(says),
            "{uri} {body}: {answer}"
        );
    }
}

#[tokio::test]
async fn web_pages_are_kept_out() {
    let served = served().await;
    let foreign_host = Request::get("/api/v1/site").header("host", "evil.example").body(Body::empty()).unwrap();
    assert_eq!(send(&served, foreign_host).await.status(), StatusCode::FORBIDDEN);
    for (origin, expected) in [("http://evil.example", 403), ("null", 403), ("http://localhost:8080", 200)] {
        let page = request(Method::GET, "/api/v1/site").header("origin", origin).body(Body::empty()).unwrap();
        assert_eq!(send(&served, page).await.status().as_u16(), expected, "{origin}");
    }
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        let mut form = request(Method::POST, "/api/v1/chargers/CP001/ocpp/Reset");
        if let Some(kind) = kind {
            form = form.header("content-type", kind);
        }
        let response = send(&served, form.body(Body::from("{}")).unwrap()).await;
        assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let served = served().await;
    let body = Body::from(" ".repeat(MAX_BODY_BYTES + 1));
    let large = request(Method::POST, "/api/v1/chargers/CP001/ocpp/Reset").header("content-type", "application/json");
    assert_eq!(send(&served, large.body(body).unwrap()).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn events_come_in_pages() {
    let served = served().await;
    let (_, body) = get(&served, "/api/v1/events?after=1&limit=1").await;
    let page: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&page["next"], &page["events"][0]["id"]), (&2.into(), &"store-2".into()), "{body}");
    assert_eq!(page["events"].as_array().map(Vec::len), Some(1));
    let (_, body) = get(&served, "/api/v1/events?after=3").await;
    assert_eq!(body, "{\"events\":[],\"next\":3}");
    get(&served, "/api/v1/events?limit=1000000").await;
    assert_eq!(*served.shelf.asked.lock().unwrap(), [(2, 1), (4, 100), (1, 1000)]);
    let (status, _) = get(&served, &format!("/api/v1/events?after={}", u64::MAX)).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_is_a_503() {
    let served = with_shelf(Shelf { broken: Some("disk".to_owned()), ..Shelf::default() }).await;
    let (status, body) = get(&served, "/api/v1/events").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("The journal cannot be read: disk"), "{body}");
}

async fn ask(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn connections_that_are_left_open_give_way_to_new_ones() {
    let served = served().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(run(listener, served.api.clone(), stopped));
    let mut left = Vec::new();
    for _ in 0..=listener::MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It is served, then it says half a request and nothing more.
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he").await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        left.push(stream);
    }
    let ended = async {
        let mut rest = Vec::new();
        // An orderly end or a reset.
        let _ = left[0].read_to_end(&mut rest).await;
    };
    timeout(Duration::from_secs(10), ended).await.expect("the oldest is closed");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let answer = ask(&mut stream).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

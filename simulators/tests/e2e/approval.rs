//! A station that is not configured: it waits, is listed, is approved, and boots as any other after the restart.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use crate::rig::{PATIENCE, Rig};

const BOOT: &str = r#"[2,"1","BootNotification",{"chargePointVendor":"Acme","chargePointModel":"One"}]"#;

fn dial(rig: &Rig, id: &str) -> Option<WebSocket<TcpStream>> {
    let mut request = format!("{}/{id}", rig.url()).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "ocpp1.6".parse().unwrap());
    let stream = TcpStream::connect(rig.ports.ocpp).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    client(request, stream).ok().map(|(socket, _)| socket)
}

/// Boots; the status in the answer. `None`: the connection ended.
fn boot(socket: &mut WebSocket<TcpStream>) -> Option<String> {
    socket.send(Message::text(BOOT)).ok()?;
    loop {
        if let Message::Text(text) = socket.read().ok()? {
            let answer: Value = serde_json::from_str(&text).unwrap();
            if answer[0] == 3 {
                return answer[2]["status"].as_str().map(str::to_owned);
            }
        }
    }
}

fn get(rig: &Rig, path: &str) -> Value {
    let answer = ureq::get(format!("http://{}/api/v1/{path}", rig.ports.api)).call();
    answer.unwrap().body_mut().read_json().unwrap()
}

fn approve(rig: &Rig, id: &str) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let address = format!("http://{}/api/v1/chargers/{id}/approve", rig.ports.api);
    let mut answer = agent.post(address).send_json(json!({})).unwrap();
    (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
}

#[test]
fn a_station_that_waits_is_approved_and_boots_after_the_restart() {
    let rig = Rig::new("");
    let file = rig.directory.path().join("site.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("[ocpp]\n", "[ocpp]\nunknown_chargers = \"pending\"\n")).unwrap();
    rig.start();
    let mut socket = dial(&rig, "NEW1").unwrap();
    assert_eq!(boot(&mut socket).as_deref(), Some("Pending"));
    rig.until("it is listed", || get(&rig, "pending")[0]["vendor"] == "Acme");
    assert_eq!(get(&rig, "pending")[0]["id"], "NEW1");
    assert_eq!(approve(&rig, "NEW2").0, 404);
    let (status, answer) = approve(&rig, "NEW1");
    assert_eq!((status, &answer["probation_s"]), (200, &json!(300)), "{answer}");

    // The daemon starts itself again; a station connects until it is accepted.
    rig.until("it boots as any other", || {
        std::thread::sleep(Duration::from_millis(200));
        dial(&rig, "NEW1").and_then(|mut socket| boot(&mut socket)).as_deref() == Some("Accepted")
    });
    assert_eq!(get(&rig, "pending"), json!([]));
    let charger = get(&rig, "chargers/NEW1");
    assert_eq!(charger["id"], "NEW1");
    rig.until_logged("has passed its probation");
    assert_eq!(approve(&rig, "NEW1"), (200, json!({ "unchanged": true })));
    rig.assert_no_error_logged();
    assert_eq!(rig.stop(), Some(0));
}

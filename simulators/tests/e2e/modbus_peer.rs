//! Meters that others wrote (pymodbus), over TCP and over a serial line.

use siteward_sim::net::pty::Line;
use tokio::runtime::Runtime;

use crate::peer::Peer;
use crate::rig::Rig;

fn site(connection: &str) -> String {
    format!(
        r#"meter = "main"
unmeasured_load_a = 30
[[meters]]
id = "main"
profile = "eastron-sdm630"
connection = "{connection}"
unit_id = 1
interval_ms = 200
stale_after_ms = 2000
"#
    )
}

/// Lets the meter show what other loads draw. Before the daemon starts: what is added while a station is away might be that station's.
fn before_the_daemon(meter: &mut Peer) {
    meter.tell("current 12.5 3 -4");
    meter.event("current");
}

/// Follows a meter that shows what a charge point and other loads draw together.
fn follows(rig: &Rig, meter: &mut Peer) {
    let shows = |expected: [f64; 3]| {
        move || {
            let seen = rig.meter("main");
            seen.fresh
                && seen
                    .current_a
                    .iter()
                    .zip(expected)
                    .all(|(seen, expected)| seen.is_some_and(|seen| (seen - expected).abs() < 0.05))
        }
    };
    rig.until("it reads the meter, with the sign of the power", shows([12.5, 3.0, -4.0]));
    // The first reading is all background, on the safe side: the station, which never came yet, counts besides.
    rig.until("the circuit takes it over", || {
        let circuit = rig.circuit();
        circuit.background_source == "meter" && (circuit.background_a[0] - 12.5).abs() < 0.5
    });

    let mut station =
        Peer::start("charge_point.py", &["--url", &rig.url(), "--id", "PY1", "--version", "1.6", "--token", "ANNA"]);
    let limit = |event: &serde_json::Value| (event["event"] == "limit").then(|| event["limit"].as_f64()).flatten();
    station.event("started");
    station.expect("a limit of 24 A or more", |event| limit(event).is_some_and(|limit| (24.0..28.0).contains(&limit)));
    // The meter does not see the car (it shows what it is told), so what the car draws is added here, once it draws.
    meter.tell("current 39 27 20");
    rig.until("it reads the meter with the car", shows([39.0, 27.0, 20.0]));
    rig.until("what is added is known to be the car's, which keeps its limit", || {
        let evse = rig.charger().evses.into_iter().next().unwrap_or_default();
        let draws = evse.measured_a.is_some_and(|draw| draw[0] > 24.0);
        draws && evse.offered_a.is_some_and(|offer| offer > 24.0) && rig.circuit().background_a[0] < 14.0
    });
    meter.tell("current 60 27 20");
    station.expect("a lower limit after other loads rise", |event| limit(event).is_some_and(|limit| limit < 20.0));
    rig.assert_no_error_logged();
}

#[test]
fn an_independent_meter_over_tcp_is_followed() {
    let mut meter = Peer::start("modbus_meter.py", &[]);
    let port = meter.event("listening")["port"].as_u64().unwrap();
    before_the_daemon(&mut meter);
    let rig = Rig::started(&site(&format!("tcp://127.0.0.1:{port}")));
    follows(&rig, &mut meter);
}

#[test]
fn an_independent_meter_on_a_serial_line_is_followed() {
    let runtime = Runtime::new().unwrap();
    // Two pairs, joined in the middle: the daemon opens one far end, pymodbus the other.
    let (ours, theirs) = runtime.block_on(async {
        let (ours, mut near) = Line::open().unwrap();
        let (theirs, mut far) = Line::open().unwrap();
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        (ours, theirs)
    });
    let mut meter = Peer::start("modbus_meter.py", &["--serial", theirs.path()]);
    meter.event("listening");
    before_the_daemon(&mut meter);
    let rig = Rig::started(&site(&format!("rtu://{}?baud=19200&parity=none&stop=1", ours.path())));
    follows(&rig, &mut meter);
}

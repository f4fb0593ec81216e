//! A charge point that others wrote (Python `ocpp`), with schema validation on, on every OCPP version, behind mosquitto.

use serde_json::Value;

use crate::peer::Peer;
use crate::rig::{Cloud, Mosquitto, Rig};

fn limit(event: &Value) -> Option<f64> {
    (event["event"] == "limit").then(|| event["limit"].as_f64()).flatten()
}

fn charges_obeys_and_falls_back(version: &str) {
    let mut mosquitto = Mosquitto::started("allow_anonymous true");
    let cloud = Cloud::new(mosquitto.address);
    // 40 A in all, of which 15 are taken to be drawn by others: 25 for the station, which wants 32.
    let rig = Rig::started(&format!("unmeasured_load_a = 15\n{}", mosquitto.section()));
    let mut station = Peer::start(
        "charge_point.py",
        &["--url", &rig.url(), "--id", "PY1", "--version", version, "--token", "ANNA", "--wants", "32"],
    );

    let connected = station.event("connected");
    assert_eq!(connected["subprotocol"], format!("ocpp{version}"));
    assert_eq!(station.event("booted")["status"], "Accepted");
    let begun = station.expect("the transaction", |event| event["event"] == "started");
    let id = begun["transaction"].as_str().unwrap().to_owned();

    // The lease: one absolute schedule that starts in the past and steps to the fallback by itself.
    let profile = station.expect("a lease above the fallback", |event| {
        event["event"] == "profile" && event["periods"][0][1].as_f64().is_some_and(|limit| limit > 8.0)
    });
    assert_eq!((&profile["kind"], &profile["unit"]), (&Value::from("Absolute"), &Value::from("A")), "{profile}");
    assert_eq!(profile["periods"].as_array().map(Vec::len), Some(2), "{profile}");
    assert_eq!(profile["periods"][1][1], 8.0, "{profile}");
    let full = station.expect("25 A", |event| limit(event).is_some_and(|limit| limit > 24.0));
    assert!(limit(&full).unwrap() <= 25.0, "{full}");
    rig.until("the daemon sees what it draws", || {
        rig.charger().evses.first().and_then(|evse| evse.measured_a).is_some_and(|current| current[0] > 20.0)
    });

    // The controller is gone, and so is the broker: the station falls back by itself, and goes on charging.
    rig.kill();
    mosquitto.kill();
    // Whatever limits were on their way, it never takes more than it had, and ends at the fallback.
    station.expect("the fallback", |event| {
        assert!(limit(event).is_none_or(|limit| limit <= 25.0), "{event}");
        limit(event) == Some(8.0)
    });

    rig.start();
    station.expect("a limit above the fallback again", |event| {
        limit(event).is_some_and(|limit| (8.1..=25.0).contains(&limit))
    });
    station.tell("stop");
    let stopped = station.event("stopped");
    assert_eq!(stopped["transaction"], Value::from(id.clone()));
    let energy = stopped["meter_stop"].as_i64().unwrap() - begun["meter_start"].as_i64().unwrap();
    mosquitto.start();
    rig.until("the cloud has the transaction once", || cloud.transaction(&id) == Some((1, 1, Some(energy))));
    rig.until("nothing waits any more", || {
        rig.status().and_then(|status| status.cloud).is_some_and(|cloud| cloud.connected && cloud.backlog == 0)
    });
    assert_eq!(rig.stop(), Some(0));
    rig.assert_no_error_logged();
}

#[test]
fn an_independent_charge_point_with_ocpp_1_6_charges_obeys_and_falls_back() {
    charges_obeys_and_falls_back("1.6");
}

#[test]
fn an_independent_charge_point_with_ocpp_2_0_1_charges_obeys_and_falls_back() {
    charges_obeys_and_falls_back("2.0.1");
}

#[test]
fn an_independent_charge_point_with_ocpp_2_1_charges_obeys_and_falls_back() {
    charges_obeys_and_falls_back("2.1");
}

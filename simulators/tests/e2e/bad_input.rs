//! What comes from outside and is wrong: a clear message, limits kept, nothing stuck.

use std::sync::Arc;

use siteward::engine::units::{Current, PerPhase, Voltage};
use siteward_sim::meter::{Meter, MeterKind};
use siteward_sim::net::clock::Clock;
use siteward_sim::net::cloud::lock;
use siteward_sim::net::devices::MeterBus;
use siteward_sim::net::modbus::{Fault, serve_tcp};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::peer::Peer;
use crate::rig::{Cloud, Mosquitto, Rig};

fn station(rig: &Rig, id: &str) -> Peer {
    Peer::start("charge_point.py", &["--url", &rig.url(), "--id", id, "--version", "1.6", "--token", "ANNA"])
}

#[test]
fn a_station_that_nobody_knows_is_refused_by_name() {
    let rig = Rig::started("");
    let mut stranger = station(&rig, "STRANGER");
    let refused = stranger.event("disconnected");
    assert_eq!(refused["status"], 404, "{refused}");
    rig.until_logged("STRANGER");
    assert!(rig.status().unwrap().chargers.iter().all(|charger| charger.id != "STRANGER"));
    rig.assert_no_error_logged();
}

#[test]
fn frames_that_are_wrong_cost_nobody_anything() {
    let rig = Rig::started("");
    let mut peer = station(&rig, "PY1");
    peer.event("started");
    rig.until("it is offered something", || {
        rig.charger().evses.first().and_then(|evse| evse.offered_a).is_some_and(|offered| offered >= 6.0)
    });
    for (command, logged) in [("garbage", "PY1"), ("unknown", "MakeCoffee"), ("oversized", "PY1")] {
        let before = rig.log().len();
        peer.tell(command);
        peer.expect(command, |event| event["event"] == "sent" && event["what"] == command);
        rig.until(&format!("{command} is told in the log"), || rig.log()[before..].contains(logged));
    }
    // Whether or not it cost the connection, the station is there again, charges under a limit, and its transaction lives.
    peer.expect("a renewed lease", |event| event["event"] == "profile");
    rig.until("it is connected", || rig.charger().connected);
    rig.until("its transaction lives", || rig.status().is_some_and(|status| status.transactions.len() == 1));
    peer.tell("stop");
    peer.event("stopped");
    rig.until("its transaction is over", || rig.status().is_some_and(|status| status.transactions.is_empty()));
    rig.assert_no_error_logged();
}

#[test]
fn a_meter_that_answers_nonsense_is_not_believed() {
    let runtime = Runtime::new().unwrap();
    let clock = Clock::start();
    let meter = Arc::new(std::sync::Mutex::new(Meter::new(MeterKind::Sdm630, Voltage::from_mv(230_000), 1)));
    lock(&meter).set_current(PerPhase::splat(Current::from_a(10)), clock.mono());
    let (fault, faults) = watch::channel(Fault::None);
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(serve_tcp(listener, Arc::new(MeterBus { unit: 1, meter }), faults));

    let rig = Rig::started(&format!(
        "meter = \"main\"\nunmeasured_load_a = 20\n[[meters]]\nid = \"main\"\nprofile = \"eastron-sdm630\"\n\
         connection = \"tcp://{address}\"\nunit_id = 1\ninterval_ms = 200\nstale_after_ms = 1000\n"
    ));
    let well = || rig.meter("main").fresh && rig.circuit().background_source == "meter";
    rig.until("the meter is read", well);
    for (what, says) in [
        (Fault::Exception(4), "exception 4"),
        (Fault::Garbage, "unusable answer"),
        (Fault::Silent, "no answer"),
        (Fault::Away, "cannot connect"),
    ] {
        fault.send_replace(what);
        rig.until(&format!("{what:?} is called by its name"), || {
            rig.meter("main").fault.is_some_and(|fault| fault.contains(says))
        });
        // 20 A are taken to be drawn by others: of 40 A there are 20 left for the station, whatever the meter said before.
        rig.until("the unmeasured load counts", || rig.circuit().background_source == "configured");
        assert!((rig.circuit().background_a[0] - 20.0).abs() < 0.01, "{:?}", rig.circuit());
        rig.until("an alarm stands", || rig.status().is_some_and(|status| !status.alarms.is_empty()));
        fault.send_replace(Fault::None);
        rig.until("the meter is believed again", well);
    }
    rig.assert_no_error_logged();
}

#[test]
fn a_broker_that_refuses_stops_nobody_from_charging() {
    let mut closed = Mosquitto::started("allow_anonymous false");
    let rig = Rig::started(&closed.section());
    rig.until("the refusal is told", || {
        rig.status().and_then(|status| status.cloud).is_some_and(|cloud| !cloud.connected && cloud.error.is_some())
    });
    let mut peer = station(&rig, "PY1");
    peer.event("started");
    rig.until("it is offered something", || {
        rig.charger().evses.first().and_then(|evse| evse.offered_a).is_some_and(|offered| offered >= 6.0)
    });
    peer.tell("stop");
    let id = peer.event("stopped")["transaction"].as_str().unwrap().to_owned();
    let error = rig.status().and_then(|status| status.cloud).and_then(|cloud| cloud.error).unwrap();
    assert!(error.to_lowercase().contains("authori"), "{error}");

    // Another broker at the same place that lets everybody in: everything arrives.
    closed.kill();
    let open = Mosquitto::at(closed.address, "allow_anonymous true");
    let cloud = Cloud::new(open.address);
    rig.until("the cloud has the transaction once", || {
        cloud.transaction(&id).is_some_and(|(started, ended, _)| (started, ended) == (1, 1))
    });
    rig.assert_no_error_logged();
}

#[test]
fn a_store_that_cannot_be_written_ends_the_daemon_with_a_reason() {
    let rig = Rig::new("");
    // A file in the place of the directory: not even root can write below it.
    let store = rig.directory.path().join("store");
    std::fs::write(&store, "in the way").unwrap();
    rig.launch();
    assert_eq!(rig.ended(), Some(1), "{}", rig.log());
    assert!(rig.log().contains(&store.display().to_string()), "{}", rig.log());
    assert!(!rig.log().contains("panicked"), "{}", rig.log());
}

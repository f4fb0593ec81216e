//! `siteward commission` as an electrician runs it: the real command and the real daemon, over real sockets.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use siteward::engine::model::alarm::AlarmKind;
use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::units::Current;
use siteward_sim::car::{Car, CarOptions};
use siteward_sim::net::clock::Clock;
use siteward_sim::net::station::{Link, run};
use siteward_sim::station::{Quirks, Station, StationOptions};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::peer::Peer;
use crate::rig::{PATIENCE, Rig, siteward};

/// More than any test prints.
const LINES: usize = 1_000;

/// A test whose lease is 30 s takes about a minute, half of that in silence.
const WHOLE_TEST: Duration = PATIENCE.saturating_mul(2);

/// `siteward commission` as a process.
struct Guided {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    clock: Clock,
}

impl Guided {
    fn begin(rig: &Rig, charger: &str) -> Self {
        let config = rig.directory.path().join("site.toml");
        let mut child = Command::new(siteward())
            .args(["commission", charger, "--yes", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = sync_channel(LINES);
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let errors = sender.clone();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).all(|line| errors.send(line).is_ok())
        });
        Self { child, lines, seen: Vec::new(), clock: Clock::start() }
    }

    /// The next line; `None` at the end.
    fn next(&mut self, what: &str) -> Option<String> {
        let left = WHOLE_TEST.saturating_sub(Duration::from_millis(self.clock.mono().ms()));
        match self.lines.recv_timeout(left) {
            Ok(line) => {
                self.seen.push(line.clone());
                Some(line)
            }
            Err(RecvTimeoutError::Timeout) => panic!("{what} did not come in time; printed: {:#?}", self.seen),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    fn until(&mut self, text: &str) {
        while let Some(line) = self.next(text) {
            if line.contains(text) {
                return;
            }
        }
        panic!("it ended without {text:?}; printed: {:#?}", self.seen);
    }

    fn interrupt(&self) {
        let status = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// What it printed in all, and its exit status.
    fn end(mut self) -> (String, i32) {
        while self.next("its end").is_some() {}
        let status = self.child.wait().unwrap();
        (self.seen.join("\n"), status.code().unwrap())
    }
}

fn python(rig: &Rig, id: &str, version: &str) -> Peer {
    let arguments = ["--url", &rig.url(), "--id", id, "--version", version, "--token", "ANNA", "--wants", "32"];
    Peer::start("charge_point.py", &arguments)
}

fn limit(event: &Value) -> Option<f64> {
    (event["event"] == "limit").then(|| event["limit"].as_f64()).flatten()
}

fn draws(rig: &Rig, id: &str, least: f64) -> bool {
    let status = rig.status().unwrap_or_default();
    let charger = status.chargers.into_iter().find(|charger| charger.id == id);
    let evse = charger.and_then(|charger| charger.evses.into_iter().next());
    evse.and_then(|evse| evse.measured_a).is_some_and(|current| current[0] >= least)
}

fn verify(file: &Path) -> (String, Option<i32>) {
    let output = Command::new(siteward()).args(["commission", "--verify"]).arg(file).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.code())
}

fn report_of(printed: &str) -> PathBuf {
    let line = printed.lines().find_map(|line| line.strip_prefix("Report: ")).expect("the report's file is named");
    PathBuf::from(line.split(" (").next().unwrap())
}

/// What is in a signed report of a test that has passed.
fn assert_passed(printed: &str, at_maximum: bool) {
    let file = report_of(printed);
    let signed: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let report = &signed["report"];
    assert_eq!(report["verdict"], "passed", "{printed}");
    let fall = &report["fall"];
    assert_eq!(fall["due_s"], 30, "{fall}");
    assert!(fall["after_s"].as_u64().is_some_and(|after| (28..=36).contains(&after)), "{fall}");
    assert!(fall["to_a"].as_f64().is_some_and(|to| (to - 8.0).abs() < 0.1), "{fall}");
    assert!(fall["from_a"].as_f64().is_some_and(|from| from >= 11.0), "{fall}");
    assert_eq!(fall["counted_at_maximum"], at_maximum, "{fall}");
    let text = std::fs::read_to_string(file.with_extension("txt")).unwrap();
    assert!(text.contains("PASSED: the charger keeps its limits, and falls back by itself."), "{text}");
    let (verified, status) = verify(&file);
    assert_eq!(status, Some(0), "{verified}");
    assert!(verified.contains("The signature is right"), "{verified}");
    // Whoever makes 8 A of 32 A is found out.
    let forged = file.with_file_name("forged.json");
    let changed = std::fs::read_to_string(&file).unwrap().replacen("\"max_a\":32.0", "\"max_a\":16.0", 1);
    std::fs::write(&forged, changed).unwrap();
    let (verified, status) = verify(&forged);
    assert_eq!(status, Some(1), "{verified}");
    assert!(verified.contains("the signature is WRONG"), "{verified}");
}

#[test]
fn in_a_full_site_an_independent_station_passes_beside_another_that_goes_on_charging() {
    // 25 A for two stations that want 32 each: the maximum of one would not fit beside the other.
    let other =
        "[[chargers]]\nid = \"PY2\"\ncircuit = \"grid\"\nmodel = \"brisk\"\nmax_a = 32\nfallback_a = 8\nconnectors = 1";
    let rig = Rig::started(&format!("unmeasured_load_a = 15\n{other}"));
    let _stations = [python(&rig, "PY1", "1.6"), python(&rig, "PY2", "2.0.1")];
    rig.until("both charge", || draws(&rig, "PY1", 11.0) && draws(&rig, "PY2", 11.0));
    let mut guided = Guided::begin(&rig, "PY1");
    guided.until("silent on purpose");
    assert!(draws(&rig, "PY2", 6.0), "the other one goes on charging");
    let (printed, status) = guided.end();
    assert_eq!(status, 0, "{printed}");
    assert_passed(&printed, false);
    let kinds: Vec<AlarmKind> = rig.status().unwrap().alarms.iter().map(|alarm| alarm.key.kind).collect();
    assert!(!kinds.contains(&AlarmKind::GuardDisagrees), "{kinds:?}");
    rig.until("it shares again", || draws(&rig, "PY1", 11.0) && draws(&rig, "PY2", 11.0));
    rig.assert_no_error_logged();
}

#[test]
fn with_room_an_independent_station_with_ocpp_2_0_1_counts_at_its_maximum_in_the_silence_and_passes() {
    let rig = Rig::started("");
    let _station = python(&rig, "PY1", "2.0.1");
    rig.until("it charges", || draws(&rig, "PY1", 30.0));
    let (printed, status) = Guided::begin(&rig, "PY1").end();
    assert_eq!(status, 0, "{printed}");
    assert_passed(&printed, true);
    rig.assert_no_error_logged();
}

/// Tests a simulated station that is not as it should be: what is printed.
fn fails(quirks: Quirks) -> String {
    let runtime = Runtime::new().unwrap();
    let rig = Rig::started("");
    let options = StationOptions { quirks, meter_interval_s: 1, ..StationOptions::new("PY1", OcppVersion::V16) };
    let mut station = Station::new(options);
    let car = CarOptions { max: Current::from_a(32), battery_wh: 1_000_000, ..CarOptions::default() };
    assert!(station.plug_in(1, Car::new(car), Some("ANNA")).is_ok());
    let (_cable, plugged) = watch::channel(true);
    let link = Link { url: rig.url(), retry: Duration::from_millis(200), plugged };
    runtime.spawn(run(Arc::new(Mutex::new(station)), Clock::start(), link, |_| {}));
    rig.until("it charges", || draws(&rig, "PY1", 20.0));
    let (printed, status) = Guided::begin(&rig, "PY1").end();
    assert_eq!(status, 1, "{printed}");
    assert!(printed.contains("FAILED: do not rely on this charger's fallback."), "{printed}");
    let (verified, status) = verify(&report_of(&printed));
    assert_eq!(status, Some(0), "{verified}");
    printed
}

#[test]
fn a_station_that_ignores_the_end_of_its_lease_fails_with_what_it_drew() {
    let printed = fails(Quirks { never_falls_back: true, keeps_its_schedule_secret: true, ..Quirks::default() });
    assert!(printed.contains("FAILED        falls back by itself"), "{printed}");
    assert!(printed.contains("it should have been 8.0 A after 30 s"), "{printed}");
}

#[test]
fn a_station_that_ignores_its_limits_fails_and_is_not_left_in_silence() {
    let printed = fails(Quirks { ignores_limit: true, ..Quirks::default() });
    assert!(printed.contains("are drawn where 10.0 A are allowed"), "{printed}");
    assert!(printed.contains("not tried: it does not keep to its limit even while it is told"), "{printed}");
}

#[test]
fn without_a_car_it_says_what_to_do_and_goes_on_when_one_comes_and_ctrl_c_gives_the_usual_limit_back() {
    let rig = Rig::started("");
    let mut station = python(&rig, "PY1", "1.6");
    station.event("started");
    station.tell("stop");
    station.event("stopped");
    let mut guided = Guided::begin(&rig, "PY1");
    guided.until("no car charges here: plug one in that takes at least 11.0 A and start it as a driver would");
    station.tell("start");
    station.event("started");
    guided.until("passed        current follows       10.0 A are drawn under a limit of 10.0 A");
    guided.interrupt();
    let (printed, status) = guided.end();
    assert_eq!(status, 1, "{printed}");
    assert!(printed.contains("… stopping: the charger gets its usual limit again"), "{printed}");
    assert!(printed.contains("INCOMPLETE"), "{printed}");
    station.expect("its usual limit", |event| limit(event).is_some_and(|limit| limit > 30.0));
    rig.assert_no_error_logged();
}

#[test]
fn ctrl_c_in_the_silence_and_a_restart_of_the_controller_leave_the_station_as_it_was() {
    let rig = Rig::started("");
    let mut station = python(&rig, "PY1", "1.6");
    rig.until("it charges", || draws(&rig, "PY1", 30.0));
    let mut guided = Guided::begin(&rig, "PY1");
    guided.until("silent on purpose");
    guided.interrupt();
    let (printed, status) = guided.end();
    assert_eq!(status, 1, "{printed}");
    assert!(printed.contains("passed        limit restored"), "{printed}");
    station.expect("its usual limit", |event| limit(event).is_some_and(|limit| limit > 30.0));

    let mut guided = Guided::begin(&rig, "PY1");
    guided.until("silent on purpose");
    rig.kill();
    rig.start();
    let (printed, status) = guided.end();
    assert_eq!(status, 1, "{printed}");
    assert!(printed.contains("the controller was restarted in the middle of the test"), "{printed}");
    station.expect("its usual limit", |event| limit(event).is_some_and(|limit| limit > 30.0));
    rig.assert_no_error_logged();
}

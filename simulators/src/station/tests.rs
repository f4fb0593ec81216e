//! Short hand-written exchanges with a station, one frame at a time.

use serde_json::{Value, json};
use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::model::topology::Wiring;
use siteward::engine::time::{Mono, Now, Utc};
use siteward::engine::units::{Current, PerPhase, Phase};

use super::*;
use crate::car::{Car, CarOptions};

const NOON: i64 = 1_772_366_400_000;

fn at(ms: u64) -> Now {
    let utc = Utc::from_unix_ms(NOON + i64::try_from(ms).unwrap());
    Now { mono: Mono::from_ms(ms), utc, utc_trusted: true }
}

/// A CSMS that accepts everything, written down as a table.
struct Csms {
    station: Station,
    ms: u64,
    log: Vec<(String, Value)>,
    answers: bool,
}

impl Csms {
    fn new(options: StationOptions) -> Self {
        let mut csms = Self { station: Station::new(options), ms: 0, log: Vec::new(), answers: true };
        let frames = csms.station.connected(at(0));
        csms.serve(frames);
        csms
    }

    fn serve(&mut self, frames: Vec<String>) {
        let mut waiting: Vec<String> = frames;
        while let Some(frame) = waiting.pop() {
            let frame: Value = serde_json::from_str(&frame).unwrap();
            if frame[0] != 2 {
                self.log.push((format!("answer {}", frame[1].as_str().unwrap()), frame[2].clone()));
                continue;
            }
            let action = frame[2].as_str().unwrap().to_owned();
            self.log.push((action.clone(), frame[3].clone()));
            if !self.answers {
                continue;
            }
            let time = at(self.ms).utc.to_string();
            let payload = match action.as_str() {
                "BootNotification" => json!({"status": "Accepted", "currentTime": time, "interval": 300}),
                "Heartbeat" => json!({"currentTime": time}),
                "Authorize" if frame[3].get("idTag").is_some() => json!({"idTagInfo": {"status": "Accepted"}}),
                "Authorize" => json!({"idTokenInfo": {"status": "Accepted"}}),
                "StartTransaction" => json!({"transactionId": 77, "idTagInfo": {"status": "Accepted"}}),
                _ => json!({}),
            };
            waiting.extend(self.station.receive(&json!([3, frame[1], payload]).to_string(), at(self.ms)));
        }
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.ms += 1000;
            let frames = self.station.tick(at(self.ms));
            self.serve(frames);
        }
    }

    fn call(&mut self, action: &str, payload: Value) -> Value {
        let frame = Value::Array(vec![json!(2), json!("q"), json!(action), payload]);
        let frames = self.station.receive(&frame.to_string(), at(self.ms));
        self.serve(frames);
        self.log.iter().rev().find(|(name, _)| name == "answer q").unwrap().1.clone()
    }

    fn sent(&self, action: &str) -> Vec<&Value> {
        self.log.iter().filter(|(name, _)| name == action).map(|(_, payload)| payload).collect()
    }
}

fn car() -> Car {
    Car::new(CarOptions::default())
}

fn lease(limit: f64, fallback: f64, now_ms: u64) -> Value {
    let start = at(now_ms).utc.plus_ms(-60_000).to_string();
    json!({"chargingProfileId": 1, "stackLevel": 0, "chargingProfilePurpose": "TxDefaultProfile",
        "chargingProfileKind": "Absolute", "chargingSchedule": {"startSchedule": start, "chargingRateUnit": "A",
        "chargingSchedulePeriod": [{"startPeriod": 0, "limit": limit}, {"startPeriod": 180, "limit": fallback}]}})
}

#[test]
fn a_16_station_boots_authorizes_starts_and_stops() {
    let mut csms = Csms::new(StationOptions::new("CP1", OcppVersion::V16));
    csms.station.plug_in(1, car(), Some("AA")).unwrap();
    csms.run(60);
    assert_eq!(csms.log[0].0, "BootNotification");
    assert_eq!(csms.sent("Authorize")[0], &json!({"idTag": "AA"}));
    assert_eq!(csms.sent("StartTransaction")[0]["meterStart"], 0);
    let values = csms.sent("MeterValues");
    assert_eq!(values.last().unwrap()["transactionId"], 77);
    let sampled = values.last().unwrap()["meterValue"][0]["sampledValue"].as_array().unwrap();
    assert!(sampled.iter().any(|v| v["measurand"] == "Current.Import" && v["phase"] == "L1" && v["value"] == "16.00"));
    let statuses: Vec<&str> = csms.sent("StatusNotification").iter().map(|s| s["status"].as_str().unwrap()).collect();
    assert_eq!(statuses.last(), Some(&"Charging"));
    let now = at(csms.ms);
    csms.station.unplug(1, now);
    csms.run(2);
    let stop = csms.sent("StopTransaction")[0].clone();
    assert_eq!((&stop["transactionId"], &stop["reason"]), (&json!(77), &json!("EVDisconnected")));
    assert_eq!(stop["meterStop"].as_i64(), csms.station.transactions()[0].meter_stop_wh);
    assert!(csms.station.transactions()[0].stop_answered);
}

#[test]
fn a_201_station_counts_its_events_and_says_why() {
    let mut csms = Csms::new(StationOptions::new("CP1", OcppVersion::V201));
    csms.station.plug_in(1, car(), Some("AA")).unwrap();
    csms.run(30);
    let now = at(csms.ms);
    csms.station.unplug(1, now);
    csms.run(2);
    let events = csms.sent("TransactionEvent");
    let numbers: Vec<i64> = events.iter().map(|event| event["seqNo"].as_i64().unwrap()).collect();
    assert_eq!(numbers, (0..i64::try_from(numbers.len()).unwrap()).collect::<Vec<_>>());
    assert_eq!((&events[0]["eventType"], &events[0]["triggerReason"]), (&json!("Started"), &json!("Authorized")));
    let last = events.last().unwrap();
    assert_eq!(last["transactionInfo"]["stoppedReason"], "EVDisconnected");
    assert_eq!(last["transactionInfo"]["transactionId"], events[0]["transactionInfo"]["transactionId"]);
}

#[test]
fn it_obeys_a_lease_and_falls_back_by_its_own_clock() {
    let mut csms = Csms::new(StationOptions::new("CP1", OcppVersion::V16));
    csms.station.plug_in(1, car(), Some("AA")).unwrap();
    csms.run(10);
    let answer =
        csms.call("SetChargingProfile", json!({"connectorId": 1, "csChargingProfiles": lease(10.0, 6.0, csms.ms)}));
    assert_eq!(answer, json!({"status": "Accepted"}));
    csms.run(10);
    assert_eq!(csms.station.current(1), PerPhase::splat(Current::from_a(10)));
    let schedule = csms.call("GetCompositeSchedule", json!({"connectorId": 1, "duration": 300}));
    assert_eq!(schedule["chargingSchedule"]["chargingSchedulePeriod"][1]["limit"], 6.0);
    let now = at(csms.ms);
    csms.station.disconnected(now);
    csms.run(130);
    assert_eq!(csms.station.current(1), PerPhase::splat(Current::from_a(6)));
}

#[test]
fn a_limit_below_six_amperes_is_a_pause() {
    let mut csms = Csms::new(StationOptions::new("CP1", OcppVersion::V201));
    csms.station.plug_in(1, car(), Some("AA")).unwrap();
    csms.run(10);
    let profile = json!({"id": 1, "stackLevel": 0, "chargingProfilePurpose": "TxDefaultProfile", "chargingProfileKind": "Absolute",
        "chargingSchedule": [{"id": 1, "startSchedule": at(0).utc.to_string(), "chargingRateUnit": "A",
            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 0}]}]});
    csms.call("SetChargingProfile", json!({"evseId": 1, "chargingProfile": profile}));
    csms.run(10);
    assert_eq!(csms.station.current(1), PerPhase::splat(Current::ZERO));
    let last = csms.sent("TransactionEvent").last().unwrap()["transactionInfo"]["chargingState"].clone();
    assert_eq!(last, "SuspendedEVSE");
}

#[test]
fn offline_messages_wait_in_order_and_an_unanswered_one_goes_again() {
    let mut csms = Csms::new(StationOptions::new("CP1", OcppVersion::V16));
    csms.run(2);
    let now = at(csms.ms);
    csms.station.disconnected(now);
    csms.station.plug_in(1, car(), Some("AA")).unwrap();
    csms.run(15);
    let now = at(csms.ms);
    csms.station.unplug(1, now);
    assert!(csms.station.queued() >= 2);
    csms.answers = false;
    let frames = csms.station.connected(now);
    csms.serve(frames);
    csms.run(40);
    assert_eq!(csms.sent("StartTransaction").len(), 1, "sent once, and not answered");
    csms.answers = true;
    csms.run(100);
    let order: Vec<&str> = csms
        .log
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| ["StartTransaction", "StopTransaction", "MeterValues"].contains(name))
        .collect();
    assert_eq!(order, ["StartTransaction", "StartTransaction", "MeterValues", "StopTransaction"]);
    assert_eq!(csms.sent("StopTransaction")[0]["transactionId"], 77);
}

#[test]
fn a_start_that_nobody_answers_is_given_up_after_its_attempts() {
    let options = StationOptions { message_interval_s: 1, ..StationOptions::new("CP1", OcppVersion::V16) };
    let mut csms = Csms::new(options);
    csms.run(5);
    csms.station.plug_in(1, car(), Some("AA")).unwrap();
    csms.run(1);
    let starts = csms.sent("StartTransaction").len();
    assert_eq!(starts, 1);
    csms.answers = false;
    let now = at(csms.ms);
    csms.station.unplug(1, now);
    csms.run(200);
    assert_eq!(csms.sent("StopTransaction").len(), 3);
    assert!(csms.station.transactions()[0].given_up);
}

#[test]
fn phases_are_where_they_are_wired() {
    let wiring = Wiring::new(&[Phase::L3, Phase::L1, Phase::L2]).unwrap();
    let mut csms = Csms::new(StationOptions { wiring, ..StationOptions::new("CP1", OcppVersion::V16) });
    csms.station.plug_in(1, Car::new(CarOptions { phases: 1, ..CarOptions::default() }), Some("AA")).unwrap();
    csms.run(20);
    assert_eq!(csms.station.current(1), PerPhase::new(Current::ZERO, Current::ZERO, Current::from_a(16)));
    assert_eq!(csms.station.total_current(), csms.station.current(1));
}

#[test]
fn configuration_can_be_read_and_changed() {
    let mut csms = Csms::new(StationOptions::new("CP1", OcppVersion::V16));
    let key = json!({"key": "MeterValueSampleInterval", "value": "60"});
    assert_eq!(csms.call("ChangeConfiguration", key), json!({"status": "Accepted"}));
    assert_eq!(
        csms.call("ChangeConfiguration", json!({"key": "Nonsense", "value": "1"})),
        json!({"status": "NotSupported"})
    );
    let read = csms.call("GetConfiguration", json!({"key": ["MeterValueSampleInterval", "Nonsense"]}));
    assert_eq!(read["configurationKey"][0]["value"], "60");
    assert_eq!(read["unknownKey"], json!(["Nonsense"]));
    assert!(csms.call("GetConfiguration", json!({}))["configurationKey"].as_array().unwrap().len() > 20);
}

#[test]
fn a_base_report_comes_in_parts() {
    let mut csms = Csms::new(StationOptions::new("CP1", OcppVersion::V201));
    csms.call("GetBaseReport", json!({"requestId": 5, "reportBase": "FullInventory"}));
    csms.run(5);
    let parts = csms.sent("NotifyReport");
    assert_eq!(parts.iter().map(|part| part["tbc"].as_bool().unwrap()).collect::<Vec<_>>(), [true, true, false]);
    let variable = json!({"component": {"name": "SampledDataCtrlr"}, "variable": {"name": "TxUpdatedInterval"}});
    let got = csms.call("GetVariables", json!({"getVariableData": [variable]}));
    assert_eq!(got["getVariableResult"][0]["attributeValue"], "10");
}

#[test]
fn a_reset_ends_the_transaction_and_boots_again() {
    let mut csms = Csms::new(StationOptions::new("CP1", OcppVersion::V16));
    csms.station.plug_in(1, car(), Some("AA")).unwrap();
    csms.run(10);
    let profile = json!({"connectorId": 1, "csChargingProfiles": lease(10.0, 6.0, csms.ms)});
    csms.call("SetChargingProfile", profile);
    assert_eq!(csms.call("Reset", json!({"type": "Hard"})), json!({"status": "Accepted"}));
    assert!(csms.station.take_close());
    let now = at(csms.ms);
    csms.station.disconnected(now);
    let frames = csms.station.connected(now);
    csms.serve(frames);
    csms.run(10);
    assert_eq!(csms.sent("BootNotification").len(), 2);
    assert_eq!(csms.sent("StopTransaction")[0]["reason"], "HardReset");
    assert_eq!(csms.station.profile_limit(1, at(csms.ms)), Some(Current::from_a(10)), "profiles survive");
    assert_eq!(csms.sent("StartTransaction").len(), 2, "the driver shows the card again");
}

#[test]
fn remote_start_and_stop_work_in_both_versions() {
    let mut csms = Csms::new(StationOptions::new("CP1", OcppVersion::V16));
    assert_eq!(csms.call("RemoteStartTransaction", json!({"idTag": "AA"})), json!({"status": "Rejected"}));
    csms.station.plug_in(1, car(), None).unwrap();
    csms.run(1);
    assert_eq!(
        csms.call("RemoteStartTransaction", json!({"idTag": "AA", "connectorId": 1})),
        json!({"status": "Accepted"})
    );
    csms.run(1);
    assert_eq!(csms.call("RemoteStopTransaction", json!({"transactionId": 77})), json!({"status": "Accepted"}));

    let mut csms = Csms::new(StationOptions::new("CP2", OcppVersion::V201));
    csms.station.plug_in(1, car(), None).unwrap();
    csms.run(1);
    let start = json!({"idToken": {"idToken": "AA", "type": "Central"}, "remoteStartId": 9, "evseId": 1});
    let answer = csms.call("RequestStartTransaction", start);
    csms.run(1);
    assert_eq!(csms.sent("TransactionEvent")[0]["transactionInfo"]["remoteStartId"], 9);
    let stop = json!({"transactionId": answer["transactionId"]});
    assert_eq!(csms.call("RequestStopTransaction", stop), json!({"status": "Accepted"}));
}

#[test]
fn odd_stations_are_odd() {
    let mut options = StationOptions::new("CP1", OcppVersion::V16);
    options.quirks = Quirks { refuses_zero: true, duplicate_stop: true, ..Quirks::default() };
    let mut csms = Csms::new(options);
    let zero = json!({"connectorId": 1, "csChargingProfiles": lease(0.0, 6.0, 0)});
    assert_eq!(csms.call("SetChargingProfile", zero), json!({"status": "Rejected"}));
    csms.station.plug_in(1, car(), Some("AA")).unwrap();
    csms.run(5);
    let now = at(csms.ms);
    csms.station.unplug(1, now);
    csms.run(5);
    assert_eq!(csms.sent("StopTransaction").len(), 2);
    assert_eq!(csms.station.queued(), 0);

    csms.station.quirks_mut().ignores_limit = true;
    csms.call("SetChargingProfile", json!({"connectorId": 1, "csChargingProfiles": lease(8.0, 6.0, csms.ms)}));
    csms.station.plug_in(1, car(), Some("AA")).unwrap();
    csms.run(20);
    assert_eq!(csms.station.current(1), PerPhase::splat(Current::from_a(16)));
}

#[test]
fn unknown_and_broken_requests_are_answered_with_an_error() {
    let mut csms = Csms::new(StationOptions::new("CP1", OcppVersion::V16));
    let frames = csms.station.receive(r#"[2,"x","Fly",{}]"#, at(0));
    assert!(frames[0].starts_with(r#"[4,"x","NotImplemented""#), "{frames:?}");
    let frames = csms.station.receive(r#"[2,"y","SetChargingProfile",{}]"#, at(0));
    assert!(frames[0].starts_with(r#"[4,"y","FormationViolation""#), "{frames:?}");
    assert_eq!(csms.station.receive("nonsense", at(0)), Vec::<String>::new());
}

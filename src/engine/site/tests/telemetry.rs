//! Quarters of an hour of meters and cars.

use super::*;
use crate::engine::site::io::TelemetryInput;
use crate::engine::units::{Energy, Power};

fn world(at: &str) -> World {
    let utc = Utc::parse(at).expect("a time");
    let now = Now { mono: Mono::from_ms(1_000), utc, utc_trusted: true };
    let mut world = World::with(setup(63), Restored { store_id: "s".to_owned(), boot: 1, ..Restored::default() }, now);
    world.meter_a = None;
    world.connect(A, 1);
    world
}

impl World {
    /// The meter shows this now: current and power on each phase, and its register.
    fn meter_shows(&mut self, amperes: i32, watts: Option<i64>, import_wh: Option<i64>) {
        let reading = MeterReading {
            current: PerPhase::new(amperes, amperes - 1, -2).map(|amperes| Some(Current::from_a(amperes))),
            power: PerPhase::splat(watts.map(Power::from_w)),
            import: import_wh.map(Energy::from_wh),
            ..MeterReading::default()
        };
        self.put(Input::Meter { meter: METER, asked_at: self.now.mono, result: Ok(reading) });
    }

    /// What was put into the ring since the last time.
    fn quarters(&mut self) -> Vec<Value> {
        self.intervals.drain(..).map(|interval| serde_json::from_str(&interval).expect("JSON")).collect()
    }

    fn published_intervals(&mut self) -> Vec<u64> {
        let number = |publication: Publication| match publication.carries {
            Carries::Interval(interval) => Some(interval),
            Carries::Event(_) | Carries::Nothing => None,
        };
        self.published.drain(..).filter_map(number).collect()
    }
}

#[test]
fn a_quarter_of_an_hour_has_energy_by_the_register_and_peaks_on_each_phase() {
    let mut world = world("2026-09-21T11:55:00Z");
    world.meter_shows(10, Some(2_000), Some(100_000));
    world.pass(2_000);
    world.meter_shows(14, Some(2_000), Some(100_004));
    world.pass(297_800);
    assert_eq!(world.quarters(), Vec::<Value>::new());
    world.pass(1_400);
    let quarters = world.quarters();
    let [quarter] = &quarters[..] else { panic!("one, of the meter: {quarters:?}") };
    assert_eq!(quarter["meter"], "main");
    assert_eq!(quarter["from"], "2026-09-21T11:55:00.000Z");
    assert_eq!(quarter["until"], "2026-09-21T12:00:00.000Z");
    assert_eq!((&quarter["import_wh"], &quarter["energy_by"]), (&json!(4), &json!("register")));
    assert_eq!((&quarter["export_wh"], &quarter["measured_s"]), (&Value::Null, &json!(2)));
    assert_eq!((&quarter["peak_a"], &quarter["least_a"]), (&json!([14.0, 13.0, -2.0]), &json!([10.0, 9.0, -2.0])));
    assert_eq!((&quarter["peak_w"], &quarter["samples"].as_array().map(Vec::len)), (&json!(6_000), &Some(1)));
    // The next one begins where this one ended, also by its register.
    world.meter_shows(10, Some(2_000), Some(101_000));
    world.pass(900_000);
    let quarters = world.quarters();
    assert_eq!(quarters[0]["from"], "2026-09-21T12:00:00.000Z");
    assert_eq!(quarters[0]["until"], "2026-09-21T12:15:00.000Z");
    assert_eq!(quarters[0]["import_wh"], json!(996));
    world.pass(900_000);
    assert_eq!(world.quarters(), Vec::<Value>::new(), "nothing was measured");
}

#[test]
fn without_registers_the_energy_is_that_of_the_powers_as_long_as_they_were_known() {
    let mut world = world("2026-09-21T11:45:00Z");
    for second in 0..900 {
        // A hole of ten seconds is not measured.
        if !(100..110).contains(&second) {
            world.meter_shows(10, Some(if second < 450 { 1_200 } else { -400 }), None);
        }
        world.pass(1_000);
    }
    world.pass(1_000);
    let quarter = &world.quarters()[0];
    assert_eq!(quarter["energy_by"], "power");
    assert_eq!(quarter["measured_s"], json!(888), "{quarter}");
    // 3.6 kW for 439 s, and 1.2 kW the other way for 449 s.
    assert_eq!((&quarter["import_wh"], &quarter["export_wh"]), (&json!(439), &json!(149)));
    assert_eq!(quarter["samples"].as_array().map(Vec::len), Some(15));
    assert_eq!(quarter["samples"][1]["at"], "2026-09-21T11:46:00.000Z");
    assert_eq!(quarter["samples"][1]["power_w"], json!(3_600));
}

#[test]
fn a_charging_car_has_its_own_and_an_empty_place_none() {
    let mut world = world("2026-09-21T11:50:00Z");
    world.start(A, 1, "GOOD");
    for minute in 0..9 {
        let value = |measurand: &str, value: String| json!({ "measurand": measurand, "value": value });
        let phase = |phase: &str, value: &str| json!({ "measurand": "Current.Import", "phase": phase, "value": value });
        let sampled = json!([
            value("Energy.Active.Import.Register", (1_000 + minute * 120).to_string()),
            value("Power.Active.Import", "7200".to_owned()),
            value("SoC", (40 + minute).to_string()),
            phase("L1", "10.4"),
            phase("L2", "10.4"),
            phase("L3", "10.4"),
        ]);
        let at = world.now.utc;
        let payload = json!({ "connectorId": 1, "transactionId": 1, "meterValue": [{ "timestamp": at, "sampledValue": sampled }] });
        world.call(A, 1, "MeterValues", &payload);
        world.pass(60_000);
    }
    world.pass(61_000);
    let quarters = world.quarters();
    let [quarter] = &quarters[..] else { panic!("of one EVSE: {quarters:?}") };
    assert_eq!((&quarter["charger"], &quarter["evse"]), (&json!("CPA"), &json!(1)));
    assert_eq!(quarter["transaction_id"], "1");
    assert_eq!((&quarter["import_wh"], &quarter["energy_by"]), (&json!(960), &json!("register")));
    assert_eq!((&quarter["peak_a"], &quarter["peak_w"]), (&json!([10.4, 10.4, 10.4]), &json!(7_200)));
    assert!(quarter.get("meter").is_none());
    let samples = quarter["samples"].as_array().expect("samples");
    assert_eq!(samples.len(), 9);
    assert_eq!((&samples[8]["soc_percent"], &samples[8]["import_register_wh"]), (&json!(48), &json!(1_960)));
    assert!(samples[8]["offered_a"].is_number(), "{quarter}");
}

#[test]
fn a_clock_that_is_set_ends_the_quarter_with_times_of_the_new_one() {
    let mut world = world("1970-01-01T00:02:00Z");
    world.now.utc_trusted = false;
    world.meter_shows(10, None, Some(1_000));
    world.pass(30_000);
    world.meter_shows(10, None, Some(1_100));
    world.now.utc = Utc::parse("2026-09-21T11:50:30Z").expect("a time");
    world.now.utc_trusted = true;
    world.pass(1_000);
    let quarter = &world.quarters()[0];
    assert_eq!(quarter["import_wh"], json!(100));
    let (from, until) = (quarter["from"].as_str().expect("a time"), quarter["until"].as_str().expect("a time"));
    assert!(from.starts_with("2026-09-21T11:50:0") && until.starts_with("2026-09-21T11:50:3"), "{from} {until}");
}

#[test]
fn telemetry_leaves_behind_the_events_and_the_ring_hears_what_was_delivered() {
    let mut world = world("2026-09-21T11:59:00Z");
    let kept = |newest| Input::Telemetry(TelemetryInput::Kept { ring: "r".to_owned(), dropped: 3, newest });
    world.put(kept(5));
    world.pass(1_000);
    assert_eq!(world.to_ring, [], "nobody is connected");
    world.durable();
    world.put(Input::Cloud(CloudInput::Connected));
    world.pass(1_000);
    assert_eq!(world.to_ring, [], "the events of the start wait");
    let records = world.records.clone();
    let last = records.last().expect("some").sequence;
    world.put(Input::Journal(JournalInput::Records { records }));
    assert!(matches!(world.to_ring[..], [Output::ReadTelemetry { from: 4, .. }]), "{:?}", world.to_ring);
    let intervals = vec![(4, "{\"a\":4}".to_owned()), (5, "{\"a\":5}".to_owned())];
    world.put(Input::Telemetry(TelemetryInput::Intervals { intervals }));
    let payload: Value = serde_json::from_str(&world.published.last().expect("sent").payload).expect("JSON");
    assert_eq!(payload, json!({ "id": "r-5", "source": "/siteward/test", "sequence": 5, "data": { "a": 5 } }));
    assert_eq!(world.published_intervals(), [4, 5]);
    world.put(Input::Cloud(CloudInput::Acknowledged { sequences: (1..=last.0).map(Sequence).collect() }));
    for interval in [4, 5] {
        world.put(Input::Cloud(CloudInput::IntervalTaken { interval }));
    }
    assert_eq!(world.to_ring.last(), Some(&Output::TelemetryAcknowledged { through: 5 }));
    // What the broker refuses comes again.
    world.put(kept(6));
    let intervals = || Input::Telemetry(TelemetryInput::Intervals { intervals: vec![(6, "{}".to_owned())] });
    world.put(intervals());
    world.put(Input::Cloud(CloudInput::IntervalNotTaken { interval: 6, reason: "no".to_owned() }));
    assert_eq!(world.published_intervals(), [6]);
    world.pass(31_000);
    world.put(intervals());
    assert_eq!(world.published_intervals(), [6]);
}

//! Limits from outside, measured at the cars: from a `site.toml` over the real decision code to simulated stations and back.

use std::collections::VecDeque;

use siteward::config::load;
use siteward::engine::model::command::Command;
use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::model::ids::{CircuitId, ConnectionId, RequestId, Sequence};
use siteward::engine::model::limit::{LimitAmount, LimitOrder, LimitOrigin, LimitTarget, ProofResult};
use siteward::engine::model::reading::{DeviceFault, MeterReading};
use siteward::engine::model::record::RecordBody;
use siteward::engine::model::topology::{MeterIndex, StationIndex};
use siteward::engine::site::io::{Input, JournalInput, Output};
use siteward::engine::site::{Restored, Site};
use siteward::engine::time::{Mono, Now, Utc};
use siteward::engine::units::{Current, PerPhase, Phase, Power};
use siteward_sim::car::{Car, CarOptions};
use siteward_sim::station::{Station, StationOptions};

const STATIONS: usize = 6;

const SITE: &str = r#"
[site]
id = "street"
timezone = "Europe/Berlin"

[[circuits]]
id = "grid"
limit_a = 250
meter = "main"
unmeasured_load_a = 20

[[meters]]
id = "main"
profile = "eastron-sdm630"
connection = "tcp://192.168.1.20:502"

[authorization]
offline_unknown = "accept"
"#;

/// A site whose links take no time, whose disk is always ready, and whose building draws 20 A.
struct Street {
    site: Site,
    now: Now,
    stations: Vec<Station>,
    inputs: VecDeque<Input>,
    records: Vec<RecordBody>,
}

impl Street {
    /// Six cars at 32 A, all charging.
    fn full(more: &str, from: &str) -> Self {
        let chargers: String = (0..STATIONS)
            .map(|index| {
                format!("[[chargers]]\nid = \"CP{index}\"\ncircuit = \"grid\"\nmax_a = 32\nmin_a = 6\nfallback_a = 0\n")
            })
            .collect();
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("site.toml");
        std::fs::write(&path, format!("{SITE}\n{chargers}\n{more}")).expect("written");
        let config = load(&path).unwrap_or_else(|problems| panic!("{problems}")).config;
        let utc = Utc::parse(from).expect("a time");
        let now = Now { mono: Mono::START, utc, utc_trusted: true };
        let restored = Restored { store_id: "street".to_owned(), boot: 1, ..Restored::default() };
        let mut street = Self {
            site: Site::new(config.setup("test", 7), restored, now),
            now,
            stations: (0..STATIONS)
                .map(|index| {
                    let version = if index % 2 == 0 { OcppVersion::V16 } else { OcppVersion::V201 };
                    let options = StationOptions::new(&format!("CP{index}"), version);
                    Station::new(StationOptions { meter_interval_s: 10, ..options })
                })
                .collect(),
            inputs: VecDeque::new(),
            records: Vec::new(),
        };
        for index in 0..STATIONS {
            street.connect(index);
        }
        street.pass(20_000, |_| {});
        for index in 0..STATIONS {
            let car = CarOptions {
                battery_wh: 2_000_000,
                arrives_percent: 10,
                max: Current::from_a(32),
                ..CarOptions::default()
            };
            assert!(street.stations[index].plug_in(1, Car::new(car), Some("TAG")).is_ok());
        }
        street.pass(120_000, |_| {});
        street
    }

    fn connect(&mut self, index: usize) {
        let version = self.stations[index].options().version;
        let station = StationIndex(index);
        self.tell(Input::StationConnected { station, connection: ConnectionId(1), version });
        let frames = self.stations[index].connected(self.now);
        self.from_station(index, frames);
    }

    fn from_station(&mut self, index: usize, frames: Vec<String>) {
        let (station, connection) = (StationIndex(index), ConnectionId(1));
        self.inputs.extend(frames.into_iter().map(|text| Input::StationFrame { station, connection, text }));
        self.settle();
    }

    fn tell(&mut self, input: Input) {
        self.inputs.push_back(input);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            let mut out = Vec::new();
            self.site.handle(input, self.now, &mut out);
            let mut last = Sequence(0);
            for output in out {
                match output {
                    Output::Frame { station, text, .. } => {
                        let frames = self.stations[station.0].receive(&text, self.now);
                        let connection = ConnectionId(1);
                        let input = |text| Input::StationFrame { station, connection, text };
                        self.inputs.extend(frames.into_iter().map(input));
                    }
                    Output::Append(record) => {
                        last = record.sequence;
                        self.records.push(record.body);
                    }
                    _ => {}
                }
            }
            if last > Sequence(0) {
                self.inputs.push_back(Input::Journal(JournalInput::Durable { through: last }));
            }
        }
    }

    /// Lets time pass, and has a look at what all cars draw each second.
    fn pass(&mut self, ms: u64, mut look: impl FnMut(Power)) {
        for _ in 0..ms / 200 {
            self.now.mono = self.now.mono.plus_ms(200);
            self.now.utc = self.now.utc.plus_ms(200);
            if self.now.mono.ms().is_multiple_of(1_000) {
                for index in 0..STATIONS {
                    let frames = self.stations[index].tick(self.now);
                    self.from_station(index, frames);
                }
                let drawn = self.drawn();
                let current = drawn.map(|drawn| Some(drawn + Current::from_a(20)));
                let reading = MeterReading { current, ..MeterReading::default() };
                self.tell(Input::Meter { meter: MeterIndex(0), asked_at: self.now.mono, result: Ok(reading) });
                look(self.power());
            }
            self.tell(Input::Tick);
        }
    }

    fn drawn(&self) -> PerPhase<Current> {
        self.stations.iter().fold(PerPhase::default(), |sum, station| sum + station.total_current())
    }

    fn power(&self) -> Power {
        let drawn = self.drawn();
        Phase::ALL.iter().map(|phase| drawn.of(*phase).power_at(self.site.topology().voltage())).sum()
    }

    fn ask(&mut self, command: Command) {
        self.tell(Input::Request { request: RequestId(1), command });
    }

    fn proofs(&self) -> Vec<(ProofResult, Option<u64>, Option<u64>)> {
        let proof = |body: &RecordBody| match body {
            RecordBody::LimitProven(proof) => Some((proof.result, proof.acknowledged_ms, proof.kept_ms)),
            _ => None,
        };
        self.records.iter().filter_map(proof).collect()
    }
}

/// §14a EnWG for six devices: 4.2 kW + 5 · 0.60 · 4.2 kW.
const MINIMUM: Power = Power::from_w(16_800);

/// How long after the order the last car may be above: a tick, the links, the reaction of station and car (IEC 61851-1: 5 s) and its ramp.
const REACTION_S: usize = 10;

fn watch_dimming(street: &mut Street) {
    let mut seconds = Vec::new();
    street.pass(1_800_000, |power| seconds.push(power));
    let late = seconds.iter().position(|power| *power <= MINIMUM).expect("it is reached");
    assert!(late <= REACTION_S, "reached after {late} s");
    let (worst, least) = (seconds[late..].iter().max(), seconds[60..].iter().min());
    assert!(worst <= Some(&MINIMUM), "{worst:?} while dimmed");
    // Two cars at 11 kW share it as three at 6 A and more: what the rule leaves is used.
    assert!(least >= Some(&Power::from_w(8_280)), "{least:?} is below two cars at their minimum");
}

#[test]
fn dimming_at_full_charging_leaves_the_minimum_power_and_no_less_is_enforced() {
    let mut street = Street::full("[dimming]\nrule = \"14a\"", "2026-03-02T08:00:00Z");
    assert!(street.power() > Power::from_w(100_000), "{}", street.power());
    street.ask(Command::Dim { active: true, until: None, input: "local".to_owned() });
    watch_dimming(&mut street);
    let proofs = street.proofs();
    assert!(
        matches!(proofs[..], [(ProofResult::Kept, Some(acknowledged), Some(kept))] if acknowledged <= 1_000 && kept <= 30_000),
        "{proofs:?}"
    );
    street.ask(Command::Dim { active: false, until: None, input: "local".to_owned() });
    street.pass(300_000, |_| {});
    assert!(street.power() > Power::from_w(100_000), "everything is back: {}", street.power());
}

#[test]
fn a_broken_wire_dims() {
    let dimming = "[dimming]\nconnection = \"tcp://192.168.1.40:502\"\ndiscrete_input = 0\nloss_s = 30";
    let mut street = Street::full(dimming, "2026-03-02T08:00:00Z");
    assert!(street.power() < Power::from_w(20_000), "not read for two minutes: {}", street.power());
    let asked_at = street.now.mono;
    street.tell(Input::Dimming { asked_at, result: Ok(false) });
    for _ in 0..25 {
        street.pass(1_000, |_| {});
        let asked_at = street.now.mono;
        street.tell(Input::Dimming { asked_at, result: Err(DeviceFault::Timeout) });
    }
    assert!(street.power() > Power::from_w(50_000), "the wire has been broken for 25 s: {}", street.power());
    street.pass(5_000, |_| {});
    watch_dimming(&mut street);
}

#[test]
fn a_limit_on_the_grid_is_kept_at_the_cars_with_the_building_inside() {
    let mut street = Street::full("", "2026-03-02T08:00:00Z");
    let order = LimitOrder {
        target: LimitTarget::Circuit(CircuitId::new("grid")),
        origin: LimitOrigin::Local,
        amount: LimitAmount::PerPhase(Current::from_a(80)),
        until: Some(street.now.utc.plus_ms(600_000)),
        heartbeat: None,
    };
    street.ask(Command::LimitSet(order));
    // 60 A are left beside the building.
    let most = Power::from_w(60 * 690);
    let mut seconds = Vec::new();
    street.pass(595_000, |power| seconds.push(power));
    let late = seconds.iter().position(|power| *power <= most).expect("it is reached");
    assert!(late <= REACTION_S && seconds[late..].iter().all(|power| *power <= most), "after {late} s");
    assert!(seconds[120..].iter().all(|power| *power >= Power::from_w(50 * 690)), "what is left is used");
    assert!(matches!(street.proofs()[..], [(ProofResult::Kept, Some(_), Some(_))]), "{:?}", street.proofs());
    street.pass(300_000, |_| {});
    assert!(street.power() > Power::from_w(100_000), "it has ended by itself: {}", street.power());
}

#[test]
fn a_window_in_local_time_holds_at_the_cars() {
    let schedule =
        "[[schedules]]\nid = \"evening\"\ncircuit = \"grid\"\nfrom = \"17:00\"\nto = \"18:00\"\nlimit_a = 56";
    // Berlin is one hour ahead of UTC in winter.
    let mut street = Street::full(schedule, "2026-01-15T15:50:00Z");
    let begin = Utc::parse("2026-01-15T16:00:00Z").expect("a time");
    let most = Power::from_w(36 * 690);
    let mut above = 0;
    while street.now.utc < begin.plus_ms(3_600_000) {
        let at = street.now.utc;
        let mut last = Power::ZERO;
        street.pass(1_000, |power| last = power);
        if at < begin {
            assert!(last > Power::from_w(100_000), "{at}: {last}");
        } else if last > most {
            above += 1;
        }
    }
    assert!(above <= REACTION_S + 1, "above for {above} s");
    street.pass(300_000, |_| {});
    assert!(street.power() > Power::from_w(100_000), "{}", street.power());
}

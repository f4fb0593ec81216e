//! The energy balance of a night.

use super::billing::{cdr_world, end_many};
use super::*;
use crate::engine::model::alarm::AlarmKind;
use crate::engine::model::balance::{Balance, BalanceVerdict, Comparison};
use crate::engine::units::Energy;

/// Nothing but chargers is below the meter.
fn world() -> World {
    let mut setup = setup(63);
    let mut circuit = setup.topology.circuits()[0].clone();
    circuit.unmeasured_load = Some(PerPhase::splat(Current::ZERO));
    let meters = setup.topology.meters().to_vec();
    setup.topology = Topology::new(
        SiteId::new("test"),
        Voltage::from_mv(230_000),
        vec![circuit],
        setup.topology.stations().to_vec(),
        (meters, vec![]),
    )
    .expect("valid");
    setup.timezone = chrono_tz::Europe::Berlin;
    let utc = Utc::parse("2026-09-21T19:00:00Z").expect("a time");
    let now = Now { mono: Mono::from_ms(1_000), utc, utc_trusted: true };
    let mut world = World::with(setup, Restored { store_id: "s".to_owned(), boot: 1, ..Restored::default() }, now);
    world.connect(A, 1);
    world.meter_a = None;
    world.pass(1_000);
    world
}

impl World {
    /// Time goes on to that of day by the clock in UTC, without anything happening, and the meter then shows that register.
    fn until(&mut self, at: &str, import_wh: Option<i64>) {
        let at = Utc::parse(at).expect("a time");
        let ms = u64::try_from(at.since(self.now.utc)).expect("it is later");
        self.now.mono = self.now.mono.plus_ms(ms);
        self.now.utc = at;
        let current = PerPhase::splat(Some(Current::ZERO));
        let reading = MeterReading { current, import: import_wh.map(Energy::from_wh), ..MeterReading::default() };
        self.put(Input::Meter { meter: METER, asked_at: self.now.mono, result: Ok(reading) });
        self.pass(1_000);
    }

    fn charge(&mut self, id: i64, (start, stop): (&str, &str), (from, to): (i64, i64)) {
        let payload = json!({ "connectorId": 1, "idTag": "GOOD", "meterStart": from, "timestamp": start });
        self.call(A, 1, "StartTransaction", &payload);
        let payload = json!({ "transactionId": id, "meterStop": to, "timestamp": stop });
        self.call(A, 1, "StopTransaction", &payload);
    }

    fn balances(&self) -> Vec<Balance> {
        let found = self.records.iter().filter_map(|record| match &record.body {
            RecordBody::EnergyBalanced(balance) => Some((**balance).clone()),
            _ => None,
        });
        found.collect()
    }

    fn unbalanced(&self) -> Vec<String> {
        let alarms = self.site.ledger().alarms().iter().filter(|alarm| alarm.key.kind == AlarmKind::EnergyBalance);
        alarms.map(|alarm| alarm.key.subject.clone()).collect()
    }
}

fn wh(energy: Option<Energy>) -> Option<i64> {
    energy.map(Energy::wh)
}

#[test]
fn it_is_made_once_at_five_past_midnight_and_all_is_accounted_for() {
    let mut world = world();
    world.charge(1, ("2026-09-21T19:00:00Z", "2026-09-21T20:00:00Z"), (1_000, 11_000));
    world.until("2026-09-21T22:04:58Z", Some(500_000));
    assert_eq!(world.balances(), [], "00:05 in Berlin is 22:05 UTC");
    world.until("2026-09-21T22:05:01Z", Some(500_000));
    world.pass(60_000);
    let [first] = world.balances().try_into().expect("one");
    assert_eq!((first.from, first.evses[0].verdict), (None, BalanceVerdict::Good));
    assert_eq!((wh(first.evses[0].counted()), first.evses[0].transactions.wh()), (Some(10_000), 10_000));
    assert_eq!(first.circuits[0].verdict, BalanceVerdict::NotJudged);
    assert!(first.circuits[0].reason.as_ref().is_some_and(|reason| reason.contains("at the beginning is not known")));
    world.charge(2, ("2026-09-22T10:00:00Z", "2026-09-22T12:00:00Z"), (11_000, 41_000));
    world.until("2026-09-22T22:05:01Z", Some(530_200));
    let [_, second] = world.balances().try_into().expect("two");
    assert_eq!(second.from, Some(first.to));
    let circuit = &second.circuits[0];
    assert_eq!((circuit.comparison, circuit.verdict), (Comparison::Same, BalanceVerdict::Good));
    assert_eq!((wh(circuit.metered), wh(circuit.chargers)), (Some(30_200), Some(30_000)));
    assert_eq!(world.unbalanced(), [] as [String; 0]);
    assert_eq!(world.again(), *world.site.ledger());
}

#[test]
fn energy_outside_of_transactions_is_found_until_a_good_day() {
    let mut world = world();
    world.charge(1, ("2026-09-21T19:00:00Z", "2026-09-21T20:00:00Z"), (1_000, 11_000));
    // The next one begins 3 kWh later.
    world.charge(2, ("2026-09-21T21:00:00Z", "2026-09-21T21:30:00Z"), (14_000, 20_000));
    world.until("2026-09-21T22:05:01Z", Some(500_000));
    assert_eq!(world.unbalanced(), ["CPA/1"]);
    let balance = world.balances().remove(0);
    assert_eq!((wh(balance.evses[0].difference()), balance.evses[0].verdict), (Some(3_000), BalanceVerdict::Off));
    assert!(
        world
            .logs
            .iter()
            .any(|line| line.contains("has counted 19000 Wh so far, its transactions account for 16000 Wh"))
    );
    world.until("2026-09-22T22:05:01Z", Some(500_000));
    assert_eq!(world.unbalanced(), [] as [String; 0], "nothing happened, nothing is missing");
    assert_eq!(world.again(), *world.site.ledger());
}

#[test]
fn a_register_that_begins_anew_each_time_is_not_judged_but_its_transactions_count() {
    let mut world = world();
    world.until("2026-09-21T22:05:01Z", Some(500_000));
    for (id, from, to) in [(1, 0, 10_000), (2, 0, 20_000), (3, 0, 12_000)] {
        let hour = |hour: i64| format!("2026-09-22T{:02}:00:00Z", 6 + 2 * id + hour);
        world.charge(id, (&hour(0), &hour(1)), (from, to));
    }
    world.until("2026-09-22T22:05:01Z", Some(542_300));
    let balance = world.balances().remove(1);
    let evse = &balance.evses[0];
    assert_eq!(
        (evse.verdict, evse.reason.as_deref()),
        (BalanceVerdict::NotJudged, Some("its register has stepped back"))
    );
    let circuit = &balance.circuits[0];
    assert_eq!((circuit.verdict, wh(circuit.chargers)), (BalanceVerdict::Good, Some(42_000)));
    assert_eq!(world.unbalanced(), [] as [String; 0]);
}

#[test]
fn a_meter_that_counts_something_else_is_found() {
    let mut world = world();
    world.until("2026-09-21T22:05:01Z", Some(500_000));
    world.charge(1, ("2026-09-22T10:00:00Z", "2026-09-22T12:00:00Z"), (1_000, 101_000));
    world.until("2026-09-22T22:05:01Z", Some(595_000));
    assert_eq!(world.unbalanced(), ["grid"]);
    let circuit = &world.balances()[1].circuits[0];
    assert_eq!(
        (wh(circuit.metered), wh(circuit.chargers), circuit.tolerance.wh()),
        (Some(95_000), Some(100_000), 1_900)
    );
}

#[test]
fn a_transaction_that_runs_through_midnight_is_counted_on_both_days() {
    let mut world = world();
    world.until("2026-09-21T21:59:00Z", Some(500_000));
    let payload =
        json!({ "connectorId": 1, "idTag": "GOOD", "meterStart": 1_000, "timestamp": "2026-09-21T21:59:00Z" });
    world.call(A, 1, "StartTransaction", &payload);
    world.until("2026-09-21T22:04:50Z", Some(500_500));
    world.register_at("2026-09-21T22:04:50Z", 2_100);
    world.until("2026-09-21T22:05:00Z", Some(500_500));
    let first = world.balances().remove(0);
    assert_eq!((wh(first.evses[0].counted()), first.evses[0].transactions.wh()), (Some(1_100), 1_100));
    let mut again = World::with(
        world.site.setup.clone(),
        Restored { boot: 2, ledger: world.again(), ..Restored::default() },
        world.now,
    );
    again.meter_a = None;
    again.connect(A, 1);
    again.stop_at("2026-09-22T02:00:00Z", 21_000);
    again.until("2026-09-22T22:05:01Z", Some(519_500));
    let second = again.balances().remove(0);
    assert_eq!((wh(second.evses[0].counted()), second.evses[0].transactions.wh()), (Some(18_900), 18_900));
    assert_eq!((second.evses[0].verdict, second.circuits[0].verdict), (BalanceVerdict::Good, BalanceVerdict::Good));
}

#[test]
fn what_is_missing_is_said_and_not_judged() {
    let mut world = world();
    world.until("2026-09-21T22:05:01Z", Some(500_000));
    // A stop whose start was never heard of, and a meter that counts nothing.
    let payload =
        json!({ "connectorId": 1, "idTag": "GOOD", "meterStart": 1_000, "timestamp": "2026-09-22T08:00:00Z" });
    world.call(A, 1, "StartTransaction", &payload);
    world.until("2026-09-22T22:05:01Z", None);
    let balance = world.balances().remove(1);
    let circuit = &balance.circuits[0];
    assert_eq!(
        (circuit.verdict, circuit.reason.as_deref()),
        (BalanceVerdict::NotJudged, Some("its meter gives no register"))
    );
    world.until("2026-09-23T22:05:01Z", Some(600_000));
    world.until("2026-09-24T22:05:01Z", Some(600_000));
    let circuit = &world.balances()[3].circuits[0];
    assert_eq!(circuit.reason.as_deref(), Some("what CPA/1 has taken is not known"), "its last register is days old");
    assert_eq!(world.unbalanced(), [] as [String; 0]);
}

#[test]
fn without_a_known_time_there_is_no_balance() {
    let mut world = world();
    world.now.utc_trusted = false;
    world.until("2026-09-21T22:05:01Z", Some(500_000));
    assert_eq!(world.balances(), []);
}

#[test]
fn a_transaction_too_many_that_waits_for_the_time_is_said() {
    let mut world = cdr_world(false);
    end_many(&mut world, 1_002);
    let withheld: Vec<String> = world
        .records
        .iter()
        .filter_map(|record| match &record.body {
            RecordBody::CdrWithheld { facts, reason, .. } => Some(format!("{} {reason}", facts.transaction)),
            _ => None,
        })
        .collect();
    let why = "more than 1000 transactions wait for the time";
    assert_eq!(withheld, [format!("1 {why}"), format!("2 {why}")]);
    let stands =
        |world: &World| world.site.ledger().alarms().iter().any(|alarm| alarm.key.kind == AlarmKind::CdrWithheld);
    assert!(stands(&world));
    assert_eq!(world.site.ledger().accounts().waiting().count(), 1_000);
    world.now.utc_trusted = true;
    world.pass(2_000);
    assert!(!stands(&world));
}

//! Powers and the unbalance.

use super::*;
use crate::engine::units::Power;

const AT: u64 = 20_000;

/// Both stations at so many amperes, below a circuit of 200 A with a limit of its power; its meter has shown so many amperes of other load.
fn with_power(watts: i64, amperes: &str, other_a: i32) -> Guard {
    let circuit = Circuit { max_power: Some(Power::from_w(watts)), ..circuit(200, Some(0)) };
    let mut guard = Guard::at(&site(circuit, vec![station("A", 2), station("B", 1)]), amperes);
    let drawn = 3 * guard.most(0).ma() / 1_000;
    [20_000, 21_000, 22_000].into_iter().for_each(|at| guard.reads(other_a + drawn, at));
    guard
}

fn charging(watts: i64) -> OutsideLimits {
    OutsideLimits { charging: Some(Power::from_w(watts)), ..OutsideLimits::default() }
}

/// The limit that is sent in place of another.
fn replaced(verdict: Verdict) -> String {
    let Verdict::Replace(text) = verdict else { panic!("{verdict:?}") };
    let rest = text.split_once(r#""limit":"#).expect("a limit").1;
    rest.split([',', '}']).next().expect("a number").to_owned()
}

#[test]
fn a_raise_beyond_the_power_of_a_circuit_is_lowered_to_what_is_left() {
    // 20.7 kW are 90 A on all phases together; three EVSEs at 6 A have 54.
    let mut guard = with_power(20_700, "6.0", 0);
    assert_eq!(replaced(guard.sent(A, &lease("2", 1, "32.0", 120, AT), now(AT))), "18.0");
    let message = guard.take_disagreements().remove(0).message.expect("it begins");
    assert!(message.contains("circuit grid has 8280 W of 20700 W left"), "{message}");
    assert_eq!(guard.sent(B, &lease("3", 1, "6.0", 120, AT), now(AT)), Verdict::Pass, "it raises nobody");
    assert_eq!(guard.disagreed(), 1);
}

#[test]
fn what_fits_to_the_watt_leaves() {
    let mut guard = with_power(20_700, "6.0", 0);
    assert_eq!(guard.sent(A, &lease("2", 1, "18.0", 120, AT), now(AT)), Verdict::Pass);
    // What is rounded on the way is no disagreement, on three phases.
    let mut guard = with_power(20_700, "6.0", 0);
    assert_eq!(guard.sent(A, &lease("2", 1, "18.2", 120, AT), now(AT)), Verdict::Pass);
    let mut guard = with_power(20_700, "6.0", 0);
    assert_eq!(replaced(guard.sent(A, &lease("2", 1, "18.3", 120, AT), now(AT))), "18.0");
}

#[test]
fn other_load_counts_by_its_currents_and_what_is_fed_in_pays_for_nothing() {
    let mut guard = with_power(20_700, "6.0", 10);
    assert_eq!(replaced(guard.sent(A, &lease("2", 1, "32.0", 120, 22_000), now(22_000))), "8.0");
    let mut guard = with_power(20_700, "6.0", -50);
    assert_eq!(replaced(guard.sent(A, &lease("2", 1, "32.0", 120, 22_000), now(22_000))), "18.0");
}

#[test]
fn a_charger_counts_for_a_power_on_as_many_phases_as_it_has() {
    let one = Station { wiring: Wiring::new(&[Phase::L2]).unwrap(), ..station("A", 1) };
    let unknown = Station { wiring: Wiring::unknown(1).unwrap(), ..station("B", 1) };
    // 8.28 kW are 36 A.
    let circuit = Circuit { max_power: Some(Power::from_w(8_280)), meter: None, ..circuit(200, None) };
    let mut guard = Guard::at(&site(circuit, vec![one, unknown]), "0.0");
    assert_eq!(guard.sent(A, &lease("2", 1, "18.0", 120, AT), now(AT)), Verdict::Pass);
    assert_eq!(guard.sent(B, &lease("3", 1, "18.0", 120, AT), now(AT)), Verdict::Pass);
    assert_eq!(replaced(guard.sent(A, &lease("4", 1, "32.0", 120, AT), now(AT))), "18.0");
}

#[test]
fn powers_from_outside_count_until_they_are_lifted() {
    let mut guard = Guard::all_at(200, "6.0");
    let total = OutsideLimits { power: Some(Power::from_w(20_700)), ..OutsideLimits::default() };
    guard.limits_changed(GRID, total);
    // 10 A are declared while nobody measures: 90 − 30 − 54.
    assert_eq!(replaced(guard.sent(A, &lease("2", 1, "32.0", 120, AT), now(AT))), "8.0");
    guard.limits_changed(GRID, OutsideLimits::default());
    assert_eq!(guard.sent(A, &lease("3", 1, "32.0", 120, AT), now(AT)), Verdict::Pass);
}

#[test]
fn under_dimming_nobody_is_raised_and_all_else_leaves() {
    let mut guard = Guard::all_at(200, "6.0");
    // 4.2 kW for chargers that have 12.42 already: they come down one by one.
    guard.limits_changed(GRID, charging(4_200));
    assert_eq!(replaced(guard.sent(A, &lease("2", 1, "7.0", 120, AT), now(AT))), "6.0");
    assert_eq!(guard.sent(A, &lease("3", 1, "6.0", 120, AT), now(AT)), Verdict::Pass);
    assert_eq!(guard.sent(A, &lease("4", 2, "0.0", 180, AT), now(AT)), Verdict::Pass);
    assert_eq!(guard.sent(B, &lease("5", 1, "0.0", 180, AT), now(AT)), Verdict::Pass);
    [(A, "4"), (B, "5")].into_iter().for_each(|(station, call)| guard.received(station, &accepted(call), now(AT)));
    let later = AT + 6_000;
    assert_eq!(replaced(guard.sent(B, &lease("6", 1, "6.0", 120, later), now(later))), "0.0");
    guard.limits_changed(GRID, charging(8_400));
    assert_eq!(guard.sent(B, &lease("7", 1, "6.0", 120, later), now(later)), Verdict::Pass);
}

#[test]
fn dimming_counts_also_where_nothing_is_known_of_other_loads() {
    let mut guard = Guard::at(&topology(200, None), "0.0");
    guard.limits_changed(GRID, charging(8_280));
    assert_eq!(guard.sent(A, &lease("2", 1, "6.0", 120, AT), now(AT)), Verdict::Pass);
    assert_eq!(guard.sent(A, &lease("3", 2, "6.0", 120, AT), now(AT)), Verdict::Pass);
    assert_eq!(replaced(guard.sent(B, &lease("4", 1, "6.0", 120, AT), now(AT))), "0.0");
}

#[test]
fn a_power_that_is_not_kept_is_told_before_its_grace_is_over() {
    let mut guard = Guard::all_at(200, "16.0");
    guard.limits_changed(GRID, charging(20_700));
    let tick = |guard: &mut Guard, from: u64, to: u64| {
        (from..to).step_by(1_000).for_each(|at| guard.tick(Mono::from_ms(at)));
        guard.circuits[0].frozen
    };
    assert!(!tick(&mut guard, AT, AT + 15_000));
    assert!(tick(&mut guard, AT + 15_000, AT + 17_000));
    let message = guard.take_disagreements().remove(0).message.expect("it begins");
    assert!(message.contains("12420 W above its limit of 20700 W for all chargers"), "{message}");
    // What was sent is enough, whether it is answered or not.
    let at = AT + 17_000;
    for (station, evse) in [(A, 1), (A, 2), (B, 1)] {
        let frame = lease(&format!("cut-{}-{evse}", station.0), evse, "10.0", 120, at);
        assert_eq!(guard.sent(station, &frame, now(at)), Verdict::Pass);
    }
    assert!(!tick(&mut guard, at, at + 2_000));
}

/// One-phase stations on L1 and one with three phases, below a circuit that allows 20 A of unbalance.
fn unbalanced() -> Guard {
    let on_l1 = |id: &str| Station { wiring: Wiring::new(&[Phase::L1]).unwrap(), ..station(id, 1) };
    let circuit = Circuit { max_unbalance: Some(amps(20)), meter: None, ..circuit(200, None) };
    Guard::at(&site(circuit, vec![on_l1("A"), on_l1("B"), station("C", 1)]), "0.0")
}

const C: StationIndex = StationIndex(2);

fn drawn(l1: u32, l2: u32, l3: u32) -> String {
    let samples = [(1, l1), (2, l2), (3, l3)]
        .map(|(phase, a)| format!(r#"{{"value":"{a}","measurand":"Current.Import","phase":"L{phase}","unit":"A"}}"#));
    format!(
        r#"[2,"m","MeterValues",{{"connectorId":1,"meterValue":[{{"timestamp":"{}","sampledValue":[{}]}}]}}]"#,
        time(20_000),
        samples.join(",")
    )
}

#[test]
fn one_phase_chargers_load_their_phase_no_more_beyond_another_than_they_may() {
    let mut guard = unbalanced();
    assert_eq!(replaced(guard.sent(A, &lease("2", 1, "32.0", 120, AT), now(AT))), "20.0");
    assert_eq!(replaced(guard.sent(B, &lease("3", 1, "32.0", 120, AT), now(AT))), "0.0");
    let message = guard.take_disagreements().remove(0).message.expect("it begins");
    assert!(message.contains("20.0 A left on L1 until its chargers load it too much beyond L2"), "{message}");
    assert_eq!(guard.sent(A, &lease("4", 1, "20.0", 120, AT), now(AT)), Verdict::Pass, "it raises nobody");
}

#[test]
fn what_cars_draw_on_the_other_phases_allows_as_much_more_and_offers_alone_do_not() {
    let mut guard = unbalanced();
    assert_eq!(guard.sent(C, &lease("2", 1, "16.0", 120, AT), now(AT)), Verdict::Pass);
    guard.received(C, &accepted("2"), now(AT));
    // 16 A are offered on L1 already, and nobody is seen on L2.
    assert_eq!(replaced(guard.sent(A, &lease("3", 1, "12.0", 120, AT), now(AT))), "0.0");
    guard.received(C, &drawn(16, 16, 10), now(AT));
    assert_eq!(replaced(guard.sent(A, &lease("4", 1, "32.0", 120, AT), now(AT))), "14.0", "20 + 10 − 16");
    guard.received(C, &drawn(16, 16, 16), now(AT));
    assert_eq!(guard.sent(A, &lease("5", 1, "20.0", 120, AT), now(AT)), Verdict::Pass);
    // A car with one phase balances nothing.
    let mut guard = unbalanced();
    assert_eq!(guard.sent(C, &lease("6", 1, "16.0", 120, AT), now(AT)), Verdict::Pass);
    guard.received(C, &drawn(16, 0, 0), now(AT));
    assert_eq!(replaced(guard.sent(A, &lease("7", 1, "12.0", 120, AT), now(AT))), "0.0");
}

#[test]
fn what_a_station_draws_by_itself_is_no_matter_of_the_unbalance() {
    let on_l1 = Station { wiring: Wiring::new(&[Phase::L1]).unwrap(), ..station("A", 1) };
    let circuit = Circuit { max_unbalance: Some(amps(5)), meter: None, ..circuit(200, None) };
    let mut guard = Guard::at(&site(circuit, vec![on_l1]), "0.0");
    assert_eq!(guard.sent(A, &lease("2", 1, "6.0", 120, AT), now(AT)), Verdict::Pass);
    assert_ne!(guard.sent(A, &lease("3", 1, "12.0", 120, AT), now(AT)), Verdict::Pass);
}

fn wiring() -> impl Strategy<Value = Wiring> {
    let known = prop::sample::subsequence(Phase::ALL.to_vec(), 1..=3).prop_map(|phases| Wiring::new(&phases).unwrap());
    prop_oneof![3 => known, 1 => (1..=3_usize).prop_map(|terminals| Wiring::unknown(terminals).unwrap())]
}

proptest! {
    /// A frame leaves as it is wherever all that chargers may draw fits, counted anew from nothing; and never where it does not.
    #[test]
    fn a_raise_leaves_as_it_is_if_and_only_if_it_fits_all_powers(
        wirings in prop::collection::vec(wiring(), 1..5),
        frames in prop::collection::vec((any::<prop::sample::Index>(), 0..=320_i32), 1..30),
        (total_w, charging_w, other_a) in (5_000..60_000_i64, 2_000..60_000_i64, 0..20_i32),
    ) {
        let stations: Vec<Station> = wirings
            .iter()
            .enumerate()
            .map(|(index, wiring)| Station { wiring: *wiring, fallback: amps(0), ..station(&format!("S{index}"), 1) })
            .collect();
        let circuit = Circuit { max_power: Some(Power::from_w(total_w)), meter: None, ..circuit(1_000, Some(other_a)) };
        let mut guard = Guard::at(&site(circuit, stations), "0.0");
        guard.limits_changed(GRID, charging(charging_w));
        let mut at = AT;
        for (number, (which, tenths)) in frames.iter().enumerate() {
            let station = which.index(wirings.len());
            let before: Vec<Current> = (0..wirings.len()).map(|evse| guard.most(evse)).collect();
            let call = format!("c{number}");
            let frame = lease(&call, 1, &format!("{}.{}", tenths / 10, tenths % 10), 120, at);
            let new = before[station].max(Current::from_ma(tenths * 100));
            let milliwatts: i64 = (0..wirings.len())
                .map(|evse| if evse == station { new } else { before[evse] })
                .zip(&wirings)
                .map(|(most, wiring)| i64::from(most.ma()) * 230 * i64::try_from(wiring.terminals()).unwrap())
                .sum();
            let others = i64::from(other_a) * 3 * 230_000;
            let beyond = (milliwatts + others - total_w * 1_000).max(milliwatts - charging_w * 1_000);
            let verdict = guard.sent(StationIndex(station), &frame, now(at));
            if beyond <= 0 || new == before[station] {
                prop_assert_eq!(&verdict, &Verdict::Pass);
            } else if beyond > 3 * 230 * 200 + 230 {
                prop_assert_ne!(&verdict, &Verdict::Pass);
            }
            guard.received(StationIndex(station), &accepted(&call), now(at));
            at += 6_000;
            guard.tick(Mono::from_ms(at));
        }
    }
}

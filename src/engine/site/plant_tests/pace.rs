//! How fast limits change: ramp, changes per minute, demand that comes back, short-time ratings, learned phases.

use super::*;

#[test]
fn a_ramp_slows_raises_and_never_cuts() {
    let change = |setup: &mut Setup| setup.charging.ramp_per_s = Some(Current::from_a(1));
    let mut plant = Plant::new(Options { change, ..Options::default() });
    for index in 0..3 {
        plant.start(index);
    }
    let mut told = vec![plant.all_told()];
    for _ in 0..120 {
        plant.pass(1_000);
        told.push(plant.all_told());
    }
    // Ten seconds' worth can be saved up.
    for (second, pair) in told.windows(11).enumerate() {
        assert!(pair[10] - pair[0] <= 21.0, "from {} to {} at second {second}", pair[0], pair[10]);
    }
    assert!(told[20] <= 31.0, "{}", told[20]);
    assert!(told[120] >= 49.0, "{}", told[120]);
    plant.background = amps(45);
    plant.pass(2_000);
    assert!(plant.all_told() <= 18.0, "{}", plant.all_told());
}

#[test]
fn a_limit_is_raised_only_so_often_in_a_minute_and_cut_at_any_time() {
    let change = |setup: &mut Setup| setup.charging.raises_per_minute = 2;
    let mut plant = charging(Options { stations: 2, change, ..Options::default() });
    let mut raises: Vec<u64> = Vec::new();
    let mut before = plant.told(0);
    for round in 0..60 {
        plant.background = amps(if round % 2 == 0 { 30 } else { 10 });
        for _ in 0..10 {
            plant.pass(1_000);
            let told = plant.told(0);
            if told > before {
                raises.push(plant.now.mono.ms());
            }
            before = told;
        }
    }
    assert!(raises.len() >= 5, "{raises:?}");
    assert!(raises.windows(3).all(|three| three[2] - three[0] >= 59_000), "{raises:?}");
    assert!(plant.longest_above_ms <= 8_000, "{}", plant.longest_above_ms);
}

#[test]
fn a_car_that_wants_more_again_has_its_share_within_ten_seconds() {
    let mut plant = Plant::new(Options::default());
    plant.cars[0].max = Current::from_a(7);
    for index in 0..3 {
        plant.start(index);
    }
    plant.pass(180_000);
    assert!(plant.told(0) <= 9.5, "{}", plant.told(0));
    assert!(plant.told(1) > 20.0, "what it leaves is reclaimed: {}", plant.told(1));
    for shift in 0..5 {
        plant.cars[0].max = Current::from_a(32);
        let mut waited = 0;
        while plant.told(0) < 17.0 {
            plant.pass(200);
            waited += 200;
            assert!(waited <= 10_000, "try {shift}: {}", plant.told(0));
        }
        plant.cars[0].max = Current::from_a(7);
        plant.pass(120_000 + 2_200 * shift);
        assert!(plant.told(0) <= 9.5, "{}", plant.told(0));
    }
    assert_eq!(plant.longest_above_ms, 0);
}

fn with_short_time(setup: &mut Setup) {
    let old = &setup.topology;
    let mut circuits = old.circuits().to_vec();
    circuits[0].short_time = Some(ShortTime { limit: Current::from_a(80), lasts_ms: 60_000 });
    let devices = (old.meters().to_vec(), vec![]);
    let topology = Topology::new(old.site().clone(), old.voltage(), circuits, old.stations().to_vec(), devices);
    setup.topology = topology.expect("valid");
}

#[test]
fn a_kettle_cuts_nobody_where_the_circuit_bears_it_for_a_short_time() {
    let mut plant = charging(Options { change: with_short_time, ..Options::default() });
    let before = plant.all_told();
    assert!(before <= 53.0, "the short-time rating is never given out: {before}");
    plant.background = amps(20);
    plant.pass(45_000);
    assert!(plant.all_told() >= before - 0.1, "{before} {}", plant.all_told());
    plant.background = amps(10);
    plant.pass(30_000);
    // It has not rested long enough.
    plant.background = amps(20);
    plant.pass(10_000);
    assert!(plant.all_told() <= 43.0, "{}", plant.all_told());
    plant.background = amps(10);
    plant.pass(240_000);
    let before = plant.all_told();
    assert!(before > 51.0, "{before}");
    plant.background = amps(20);
    plant.pass(50_000);
    assert!(plant.all_told() >= before - 0.1, "{before} {}", plant.all_told());
    plant.pass(20_000);
    assert!(plant.all_told() <= 43.0, "{}", plant.all_told());
}

#[test]
fn beyond_the_short_time_rating_cuts_are_as_ever() {
    let mut plant = charging(Options { change: with_short_time, ..Options::default() });
    plant.background = amps(45);
    plant.pass(3_000);
    // 80 − 45.
    assert!(plant.all_told() <= 35.5, "{}", plant.all_told());
}

fn turned(setup: &mut Setup, learn: bool) {
    let old = &setup.topology;
    let mut stations = old.stations().to_vec();
    for (index, station) in stations.iter_mut().enumerate() {
        let phases = [Phase::ALL[index % 3], Phase::ALL[(index + 1) % 3], Phase::ALL[(index + 2) % 3]];
        station.wiring = Wiring::new(&phases).expect("three phases");
    }
    let devices = (old.meters().to_vec(), vec![]);
    let topology = Topology::new(old.site().clone(), old.voltage(), old.circuits().to_vec(), stations, devices);
    setup.topology = topology.expect("valid");
    setup.charging.learn_car_phases = learn;
}

fn three_single_phase_cars(change: fn(&mut Setup)) -> Plant {
    let mut plant = Plant::new(Options { change, ..Options::default() });
    for index in 0..3 {
        plant.cars[index].phases = 1;
        plant.cars[index].first = index;
        plant.start(index);
    }
    plant.pass(240_000);
    plant
}

#[test]
fn single_phase_cars_on_different_phases_do_not_block_each_other_once_that_is_learned() {
    let plant = three_single_phase_cars(|setup| turned(setup, true));
    assert!(plant.all_told() >= 95.0, "{}", plant.all_told());
    assert_eq!(plant.longest_above_ms, 0);
    let plant = three_single_phase_cars(|setup| turned(setup, false));
    assert!(plant.all_told() <= 53.0, "without that the worst phase counts: {}", plant.all_told());
}

#[test]
fn a_car_that_uses_another_phase_after_all_is_counted_there_with_its_next_sample() {
    let mut plant = three_single_phase_cars(|setup| turned(setup, true));
    plant.cars[0].phases = 3;
    plant.pass(30_000);
    assert!(plant.all_told() <= 85.0, "{}", plant.all_told());
    assert!(plant.longest_above_ms <= 18_000, "{}", plant.longest_above_ms);
    plant.pass(60_000);
    assert!(plant.total().max() <= Current::from_ma(63_200), "{:?}", plant.total());
}

#[test]
fn a_sample_above_the_limit_that_no_meter_shows_hides_no_other_load() {
    let mut plant = Plant::new(Options { limit_a: 20, stations: 1, sample_ms: 2_000, ..Options::default() });
    plant.background = amps(8);
    plant.start(0);
    plant.cars[0].max = Current::ZERO;
    plant.pass(30_000);
    // An old message: it draws nothing any more.
    plant.cars[0].says = Some(Current::from_a(16));
    plant.pass(20_000);
    plant.cars[0].says = None;
    let mut most = 0.0_f64;
    for _ in 0..300 {
        plant.pass(200);
        most = most.max(plant.all_told());
    }
    assert!(most <= 12.0, "{most} A beside 8 A of others in 20 A");
}

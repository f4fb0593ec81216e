//! Meters: slow, stuck, the wrong way round, swapped, silent.

use super::*;

/// All cars charge, the building stays as it is: what the cars draw must come to rest, close to what fits.
fn comes_to_rest(options: Options) {
    let what = format!("refresh {} ms {:?}, samples {} ms", options.refresh_ms, options.shows, options.sample_ms);
    let mut plant = Plant::new(options);
    for index in 0..plant.cars.len() {
        plant.start(index);
    }
    plant.pass(300_000);
    let room = plant.options.limit_a - 10;
    let (least, most) = plant.range(900_000);
    assert!(most - least <= Current::from_a(2), "{what}: the cars draw from {least} to {most}");
    assert!(least >= Current::from_a(room - 4), "{what}: {least} of {room} A are used");
    // Two steps of the building, each seen late.
    for step in [25, 12] {
        plant.background = amps(step);
        plant.pass(300_000);
        let (least, most) = plant.range(600_000);
        assert!(most - least <= Current::from_a(2), "{what}: after the step to {step} A from {least} to {most}");
        let room = plant.options.limit_a - step;
        assert!(least >= Current::from_a(room - 4), "{what}: after the step {least} of {room} A are used");
    }
    let seen = 2 * plant.options.refresh_ms + 15_000;
    assert!(plant.longest_above_ms <= seen, "{what}: above the limit for {} ms", plant.longest_above_ms);
}

#[test]
fn a_fast_meter_does_not_oscillate() {
    comes_to_rest(Options::default());
}

#[test]
fn a_fast_meter_with_slow_stations_does_not_oscillate() {
    comes_to_rest(Options { sample_ms: 60_000, ..Options::default() });
}

#[test]
fn a_meter_of_ten_seconds_does_not_oscillate() {
    comes_to_rest(Options { refresh_ms: 10_000, ..Options::default() });
    comes_to_rest(Options { refresh_ms: 10_000, shows: Shows::Mean, ..Options::default() });
}

#[test]
fn a_meter_of_a_minute_does_not_oscillate() {
    comes_to_rest(Options { refresh_ms: 60_000, ..Options::default() });
    comes_to_rest(Options { refresh_ms: 60_000, shows: Shows::Mean, ..Options::default() });
    comes_to_rest(Options { refresh_ms: 60_000, sample_ms: 60_000, ..Options::default() });
}

#[test]
fn a_stuck_meter_is_not_believed_until_it_moves() {
    let mut plant = charging(Options::default());
    plant.frozen = true;
    plant.pass(60_000);
    assert_eq!(plant.source(), "meter", "as long as nothing changes nobody can know");
    plant.cars[0].max = Current::from_a(8);
    plant.pass(45_000);
    assert!(plant.has_alarm("Meter main shows the same values while the chargers change"), "{:?}", plant.logs);
    assert_eq!(plant.source(), "configured");
    // 20 A are assumed where 10 A were seen.
    plant.pass(15_000);
    assert!(plant.all_told() <= 43.0, "{}", plant.all_told());
    plant.frozen = false;
    plant.pass(5_000);
    assert!(!plant.has_alarm("Meter main"));
    assert_eq!(plant.source(), "meter");
}

#[test]
fn a_meter_with_the_wrong_direction_is_found_by_the_steps_of_the_chargers() {
    let mut plant = Plant::new(Options::default());
    plant.wrong = |truth| truth.map(|current| -current);
    plant.start(0);
    plant.step_car(0, 8);
    assert!(plant.has_alarm("its direction is wrong"), "{:?}", plant.logs);
    assert_eq!(plant.source(), "configured");
    plant.wrong = |truth| truth;
    plant.step_car(0, 8);
    assert!(!plant.has_alarm("Meter main"), "{:?}", plant.logs);
}

#[test]
fn swapped_phases_at_the_meter_are_found_by_the_steps_of_single_phase_cars() {
    let mut plant = Plant::new(Options::default());
    plant.wrong = |truth| PerPhase::new(truth.of(Phase::L2), truth.of(Phase::L1), truth.of(Phase::L3));
    plant.cars[0].phases = 1;
    plant.start(0);
    plant.step_car(0, 8);
    assert!(plant.has_alarm("its phases do not follow the chargers"), "{:?}", plant.logs);
}

#[test]
fn a_meter_that_is_right_is_believed_however_the_cars_step() {
    let mut plant = charging(Options::default());
    for round in 0..10 {
        plant.background = amps(10 + 3 * (round % 3));
        plant.step_car(usize::try_from(round).unwrap_or(0) % 3, 2);
    }
    assert!(!plant.logs.iter().any(|line| line.contains("alarm: Meter")), "{:?}", plant.logs);
}

#[test]
fn the_loss_of_a_meter_is_staged_and_each_stage_is_named() {
    let change = |setup: &mut Setup| setup.charging.meter_lost_after_ms = Some(60_000);
    let mut plant = charging(Options { change, ..Options::default() });
    plant.silent = true;
    plant.pass(4_800);
    assert_eq!(plant.source(), "meter", "held for as long as it is not stale");
    plant.pass(2_000);
    assert_eq!(plant.source(), "configured");
    assert!(plant.has_alarm("Stage 2 of 3"), "{:?}", plant.logs);
    plant.pass(20_000);
    assert!((35.0..=43.0).contains(&plant.all_told()), "{}", plant.all_told());
    plant.pass(40_000);
    assert_eq!(plant.source(), "unknown");
    assert!(plant.has_alarm("Stage 3 of 3"), "{:?}", plant.logs);
    assert!(plant.all_told() <= 18.0, "{}", plant.all_told());
    plant.silent = false;
    plant.pass(60_000);
    assert!(!plant.has_alarm("Meter main"));
    assert!(plant.all_told() > 48.0, "{}", plant.all_told());
}

#[test]
fn what_was_seen_last_is_not_forgotten_when_more_was_seen_than_is_configured() {
    let mut plant = charging(Options::default());
    plant.background = amps(33);
    plant.pass(20_000);
    plant.silent = true;
    plant.pass(30_000);
    assert_eq!(plant.source(), "configured");
    assert!(plant.all_told() <= 30.0, "{}", plant.all_told());
}

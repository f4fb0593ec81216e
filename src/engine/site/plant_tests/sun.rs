//! Inverters and batteries inside a circuit.

use super::*;

fn with_inverter(setup: &mut Setup, role: InverterRole, max_a: Option<i32>) {
    let old = &setup.topology;
    let inverter = Inverter {
        id: InverterId::new("roof"),
        role,
        circuit: CircuitIndex(0),
        stale_after_ms: 30_000,
        max: max_a.map(Current::from_a),
    };
    let devices = (old.meters().to_vec(), vec![inverter]);
    let topology =
        Topology::new(old.site().clone(), old.voltage(), old.circuits().to_vec(), old.stations().to_vec(), devices);
    setup.topology = topology.expect("valid");
}

fn sunny(change: fn(&mut Setup)) -> Plant {
    let mut plant = Plant::new(Options { limit_a: 40, change, ..Options::default() });
    plant.inverter = true;
    plant.sun = amps(15);
    plant.pass(30_000);
    for index in 0..3 {
        plant.start(index);
    }
    plant.pass(120_000);
    plant
}

#[test]
fn what_the_sun_feeds_in_is_not_given_out() {
    let mut plant = sunny(|setup| with_inverter(setup, InverterRole::Pv, None));
    assert!((27.0..=30.0).contains(&plant.all_told()), "{}", plant.all_told());
    plant.sun = amps(0);
    plant.pass(60_000);
    assert_eq!(plant.longest_above_ms, 0);
}

#[test]
fn what_the_sun_feeds_in_is_given_out_where_that_is_wanted() {
    let mut plant = sunny(|setup| {
        with_inverter(setup, InverterRole::Pv, None);
        setup.charging.count_feed_in = true;
    });
    assert!(plant.all_told() >= 38.0, "{}", plant.all_told());
    plant.sun = amps(0);
    plant.pass(60_000);
    assert!(plant.longest_above_ms <= 8_000, "{}", plant.longest_above_ms);
}

#[test]
fn a_battery_counts_with_its_rated_current_while_the_meter_is_silent() {
    let change = |setup: &mut Setup| with_inverter(setup, InverterRole::Battery, Some(16));
    let mut plant = charging(Options { change, ..Options::default() });
    plant.silent = true;
    plant.pass(30_000);
    // 63 − 20 − 16.
    assert!(plant.all_told() <= 27.0, "{}", plant.all_told());
}

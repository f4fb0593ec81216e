use super::*;

const DELTA: [Phasor; 3] =
    [Phasor { re: 0.866, im: 0.5 }, Phasor { re: 0.0, im: -1.0 }, Phasor { re: -0.866, im: 0.5 }];

/// Stations in turn between lines AB, BC, CA; a line carries the difference of its two legs.
fn delta(stations: usize, limit_a: f64, levels_a: &[f64]) -> Network {
    let min_a = if levels_a.is_empty() { 0.0 } else { 6.0 };
    let rows: Vec<Row> = (0..3)
        .map(|line| {
            let terms = (0..stations).filter_map(|station| match (station % 3 + 3 - line) % 3 {
                0 => Some((station, DELTA[station % 3])),
                2 => Some((station, DELTA[station % 3].scaled(-1.0))),
                _ => None,
            });
            Row { limit_a, terms: terms.collect() }
        })
        .collect();
    let station = Station { min_a, max_a: 32.0, levels_a: levels_a.to_vec() };
    Network::new(vec![station; stations], &rows).expect("a good network")
}

fn one_fuse(stations: usize, limit_a: f64) -> Network {
    let terms = (0..stations).map(|station| (station, Phasor { re: 1.0, im: 0.0 })).collect();
    let station = Station { min_a: 0.0, max_a: 32.0, levels_a: Vec::new() };
    Network::new(vec![station; stations], &[Row { limit_a, terms }]).expect("a good network")
}

fn car(station: usize, departure: f64, remaining: f64) -> Car {
    Car { session: format!("car {station}"), station, departure, remaining, max_a: 32.0, min_a: 0.0 }
}

/// A small die, the same at each run.
struct Dice(u64);

impl Dice {
    fn up_to(&mut self, most: u32) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(self.0 >> 33).expect("31 bits") % (most + 1))
    }
}

#[test]
fn the_car_that_leaves_first_is_full_in_time_and_the_other_after_it() {
    // Both fit only if the one that can wait waits.
    let mut planner = EdgePlanner::new(one_fuse(2, 32.0));
    let mut cars = [car(0, 20.0, 320.0), car(1, 10.0, 310.0)];
    for now in 0..20 {
        let amps = planner.decide(f64::from(now), &cars);
        assert!(amps.iter().sum::<f64>() <= 32.0);
        for (car, current) in cars.iter_mut().zip(amps) {
            car.remaining -= if f64::from(now) < car.departure { current } else { 0.0 };
        }
    }
    assert!(cars.iter().all(|car| car.remaining < 3.0), "{cars:?}");
}

#[test]
fn a_car_that_can_be_finished_goes_before_two_that_cannot() {
    let mut planner = EdgePlanner::new(one_fuse(3, 32.0));
    let mut cars = [car(0, 10.0, 300.0), car(1, 10.0, 60.0), car(2, 10.0, 300.0)];
    for now in 0..10 {
        let amps = planner.decide(f64::from(now), &cars);
        assert!((amps.iter().sum::<f64>() - 32.0).abs() < 0.01, "{amps:?}");
        for (car, current) in cars.iter_mut().zip(amps) {
            car.remaining -= current;
        }
    }
    assert!(cars[1].remaining < 1.0, "{cars:?}");
}

#[test]
fn no_row_is_exceeded_whatever_comes_and_no_level_is_invented() {
    let mut dice = Dice(7);
    for round in 0..60 {
        let levels: &[f64] = if round % 2 == 0 { &[] } else { &[0.0, 6.0, 8.0, 16.0, 24.0, 32.0] };
        let network = delta(12, 10.0 + dice.up_to(90), levels);
        let mut planner = EdgePlanner::new(network.clone());
        for now in 0..10 {
            let now = f64::from(now);
            let cars: Vec<Car> = (0..12)
                .filter_map(|station| {
                    let here = dice.up_to(3) > 0.0;
                    here.then(|| car(station, now + dice.up_to(40), dice.up_to(900)))
                })
                .collect();
            let amps = planner.decide(now, &cars);
            assert!(network.holds(cars.iter().zip(&amps).map(|(car, current)| (car.station, *current))));
            for (car, current) in cars.iter().zip(&amps) {
                assert!(*current <= car.max_a && *current >= 0.0 && (car.remaining > 0.0 || *current == 0.0));
                assert!(levels.is_empty() || levels.contains(current), "{current}");
            }
        }
    }
}

#[test]
fn the_three_legs_of_a_delta_are_kept_in_balance() {
    // Each line carries √3 times the current of a leg if all are alike: 3 × 48.1 A instead of 83.3 A on one.
    let mut planner = EdgePlanner::new(delta(12, 83.33, &[]));
    let cars: Vec<Car> = (0..12).map(|station| car(station, 100.0, 2000.0)).collect();
    let mut total = 0.0;
    for now in 0..5 {
        total = planner.decide(f64::from(now), &cars).iter().sum();
    }
    assert!(total > 141.0, "{total}");
}

#[test]
fn the_same_states_give_the_same_plan() {
    let run = || {
        let mut planner = EdgePlanner::new(delta(12, 50.0, &[]));
        let cars: Vec<Car> = (0..12_u32)
            .map(|at| car(usize::try_from(at).expect("small"), 20.0 + f64::from(at), 400.0 - f64::from(at)))
            .collect();
        (0..5).map(|now| planner.decide(f64::from(now), &cars)).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_closed_row_lets_nothing_through() {
    let mut planner = EdgePlanner::new(one_fuse(2, 0.0));
    assert_eq!(planner.decide(0.0, &[car(0, 5.0, 50.0), car(1, 0.0, 50.0)]), [0.0, 0.0]);
}

#[test]
fn a_bad_network_is_refused_with_its_place() {
    let station = Station { min_a: 6.0, max_a: 32.0, levels_a: Vec::new() };
    let refused = |stations: Vec<Station>, rows: &[Row]| Network::new(stations, rows).expect_err("bad").to_string();
    let outside = Row { limit_a: 10.0, terms: vec![(0, DELTA[0]), (1, DELTA[1])] };
    assert_eq!(
        refused(vec![station.clone()], &[outside]),
        "constraints[0].terms[1]: must be [station index below 1, re, im]"
    );
    let negative = Row { limit_a: -1.0, terms: Vec::new() };
    assert_eq!(refused(vec![station.clone()], &[negative]), "constraints[0]: limit_a must be a number of at least 0");
    let reversed = Station { min_a: 33.0, ..station };
    assert!(refused(vec![reversed], &[]).starts_with("stations[0]: must be 0 ≤ min_a ≤ max_a"));
}

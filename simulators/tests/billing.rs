//! Bills in whole sites: what displays show, what meters sign, what of the energy is accounted for.

use std::collections::BTreeSet;

use siteward::engine::model::alarm::AlarmKind;
use siteward_sim::faults::FaultFile;
use siteward_sim::world::blueprint::{Blueprint, CircuitPlan, MeterPlan};
use siteward_sim::world::{WorldOptions, WorldReport, run_site};

fn run(site: Blueprint) -> WorldReport {
    let report = run_site(site).expect("a site");
    assert_eq!(report.violated, 0, "{report}");
    assert!(report.transactions > 0, "nothing happened");
    report
}

#[test]
fn displays_show_what_transactions_cost() {
    let mut site =
        WorldOptions { seed: 14, duration_ms: 3 * 3_600_000, cars_per_day: 60, ..WorldOptions::default() }.blueprint();
    site.running_cost_s = Some(60);
    let report = run(site);
    let transactions = u64::try_from(report.transactions).expect("few");
    // Two of eight stations have no display, of those of OCPP 2.x the last word comes in an answer all the same.
    assert!(report.costs_shown > 2 * transactions, "{} at {transactions} transactions", report.costs_shown);
    assert!(report.final_costs * 4 >= report.transactions * 3, "{} of {transactions}", report.final_costs);
}

/// What an alarm of a kind was raised about.
fn about(report: &WorldReport, kind: AlarmKind) -> BTreeSet<&str> {
    report.alarms.keys().filter(|(raised, _)| *raised == kind).map(|(_, subject)| subject.as_str()).collect()
}

/// Eight stations; most of them sign, one loses some of it, one is tampered with.
fn signing(faults: Vec<FaultFile>) -> Blueprint {
    let odd = |station: usize, name: &str| (station, name.to_owned(), 0);
    let quirks = vec![
        odd(0, "signs"),
        odd(1, "signs"),
        odd(2, "signs"),
        odd(3, "loses-pages"),
        odd(4, "forges"),
        odd(5, "loses-pages"),
    ];
    let options = WorldOptions {
        seed: 21,
        duration_ms: 8 * 3_600_000,
        cars_per_day: 60,
        quirks,
        faults,
        ..WorldOptions::default()
    };
    let mut site = options.blueprint();
    site.stay_minutes = [5, 40];
    site.running_cost_s = Some(60);
    site
}

#[test]
fn what_meters_sign_is_kept_verified_and_counted() {
    let report = run(signing(Vec::new()));
    assert_eq!(about(&report, AlarmKind::PaginationBroken), BTreeSet::from(["CP003", "CP005"]));
    assert_eq!(about(&report, AlarmKind::SignatureWrong), BTreeSet::from(["CP004"]));
    assert_eq!(about(&report, AlarmKind::SignedEnergyDiffers), BTreeSet::from(["CP004"]));
}

#[test]
fn faults_of_links_disk_and_controller_lose_no_signed_value() {
    let fault = |kind: &str, at_s, for_s, station| FaultFile {
        kind: kind.to_owned(),
        at_s,
        for_s,
        station,
        ..FaultFile::default()
    };
    let mut faults = vec![fault("disk-full", 9_000, 20, 0), fault("station-reboot", 12_000, 1, 0)];
    for round in 0..6 {
        faults.push(fault("controller-crash", 2_000 + 3_000 * round, 20, 0));
        faults.push(fault("link-down", 1_000 + 3_000 * round, 600, 1));
        faults.push(fault("half-open", 1_500 + 3_000 * round, 90, 2));
    }
    let report = run(signing(faults));
    assert_eq!(about(&report, AlarmKind::PaginationBroken), BTreeSet::from(["CP003", "CP005"]));
    assert_eq!(about(&report, AlarmKind::SignatureWrong), BTreeSet::from(["CP004"]));
}

/// Three circuits with a meter each and nothing but a station in them: one is right, the register of one counts 5 % too much, and at one
/// energy flows outside of transactions.
fn balanced() -> Blueprint {
    let options = WorldOptions {
        seed: 5,
        // 00:05 in Berlin is 23:05 UTC: 17 hours after the world begins, and a day later.
        duration_ms: 2_530 * 60_000,
        stations: 3,
        cars_per_day: 30,
        meter_poll_ms: 2_000,
        quirks: vec![(1, "wrong-register".to_owned(), 50), (2, "leaks".to_owned(), 400)],
        ..WorldOptions::default()
    };
    let mut site = options.blueprint();
    let grid = CircuitPlan { meter: None, unmeasured_a: Some(0), load: None, ..site.circuit[0].clone() };
    let place = |index: usize| CircuitPlan {
        id: format!("place-{index}"),
        parent: Some(0),
        limit_a: 40,
        meter: Some(index),
        unmeasured_a: Some(0),
        ..CircuitPlan::default()
    };
    site.circuit = vec![grid, place(0), place(1), place(2)];
    site.meter = vec![MeterPlan { poll_ms: 2_000, refresh_ms: 0, stale_after_ms: 5_000 }; 3];
    site.pv = None;
    for (index, station) in site.station.iter_mut().enumerate() {
        station.circuit = 1 + index;
    }
    site
}

#[test]
fn the_nightly_balance_finds_a_wrong_register_and_energy_outside_of_transactions() {
    let mut site = balanced();
    // In the second night the controller is away when the balance is due.
    let away = FaultFile { kind: "controller-crash".to_owned(), at_s: 146_400, for_s: 3_600, ..FaultFile::default() };
    site.fault = vec![away];
    let report = run(site);
    let expected = BTreeSet::from(["CP002/1", "place-1", "place-2"]);
    assert_eq!(about(&report, AlarmKind::EnergyBalance), expected);
}

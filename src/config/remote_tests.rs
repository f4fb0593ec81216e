use std::path::Path;

use super::*;
use crate::config::load::load_text;
use crate::config::{Config, Places};
use crate::engine::model::status::{ChargerStatus, CloudStatus, MeterStatus};

const SITE: &str = r#"
[site]
id = "depot"
timezone = "Europe/Berlin"
voltage_v = 230
random_start_max_s = 600

[cloud]
url = "mqtt://127.0.0.1:1883"

[charging]
count_feed_in = true
learn_car_phases = false
meter_lost_after_s = 60

[[schedules]]
id = "evening"
circuit = "garage"
limit_a = 40
from = "17:00"
to = "20:00"

[[inverters]]
id = "roof"
circuit = "grid"
role = "pv"
profile = "sunspec"
connection = "tcp://127.0.0.1:504"

[[circuits]]
id = "grid"
limit_a = 100
max_unbalance_a = 20
unmeasured_load_a = 10
meter = "main"

[[circuits]]
id = "garage"
parent = "grid"
limit_a = 63

[[meters]]
id = "main"
profile = "eastron-sdm630"
connection = "tcp://127.0.0.1:502"
stale_after_ms = 5000

[[chargers]]
id = "CP001"
circuit = "garage"
phases = ["L1", "L2", "L3"]
max_a = 32
min_a = 6
fallback_a = 6
connectors = 1
"#;

fn config(text: &str) -> Config {
    let path = Path::new("/nowhere/site.toml");
    load_text(path, text, &Places::of(path)).unwrap_or_else(|problems| panic!("{problems}")).config
}

#[test]
fn what_the_cloud_may_change_it_may() {
    let sent = SITE.replace("limit_a = 63", "limit_a = 50").replace("max_a = 32", "max_a = 16\npriority = 5")
        + "\n[[circuits]]\nid = \"hall\"\nparent = \"grid\"\nlimit_a = 40\n\n[[chargers]]\nid = \"CP002\"\ncircuit = \"hall\"\n\
           phases = [\"L1\"]\nmax_a = 32\nmin_a = 6\nfallback_a = 6\nconnectors = 1\n\n[[tariffs]]\nid = \"default\"\n\
           currency = \"EUR\"\nelements = [{ energy_per_kwh = \"0.49\" }]\n";
    assert_eq!(only_on_site(&config(SITE), &config(&sent)), Vec::<String>::new());
}

#[test]
fn what_lets_more_current_flow_can_only_be_changed_on_site() {
    let site = config(SITE);
    for (old, new, part) in [
        ("id = \"depot\"", "id = \"other\"", "`id` in [site]"),
        ("voltage_v = 230", "voltage_v = 240", "`voltage_v`"),
        ("limit_a = 100", "limit_a = 101", "circuit grid: `limit_a` can only be raised on site"),
        ("limit_a = 63", "limit_a = 64", "circuit garage: `limit_a`"),
        ("max_unbalance_a = 20", "max_unbalance_a = 21", "`max_unbalance_a`"),
        ("max_unbalance_a = 20", "", "`max_unbalance_a`"),
        ("unmeasured_load_a = 10", "unmeasured_load_a = 9", "`unmeasured_load_a` can only be lowered on site"),
        ("circuit = \"garage\"", "circuit = \"grid\"", "charger CP001: `circuit`"),
        ("phases = [\"L1\", \"L2\", \"L3\"]", "phases = [\"L2\", \"L3\", \"L1\"]", "charger CP001: `phases`"),
        ("max_a = 32", "max_a = 33", "`max_a`"),
        ("fallback_a = 6", "fallback_a = 7", "`fallback_a`"),
        ("id = \"CP001\"", "id = \"CP009\"", "charger CP001 can only be removed on site"),
        ("tcp://127.0.0.1:502", "tcp://127.0.0.1:503", "meter main: `connection`"),
        ("profile = \"eastron-sdm630\"", "profile = \"eastron-sdm72\"", "meter main: `connection`"),
        ("stale_after_ms = 5000", "stale_after_ms = 6000", "meter main: `stale_after_ms` can only be raised"),
        ("tcp://127.0.0.1:504", "tcp://127.0.0.1:505", "inverter roof can only be changed on site"),
        ("circuit = \"grid\"\nrole", "circuit = \"garage\"\nrole", "inverter roof can only be changed on site"),
        ("id = \"roof\"", "id = \"other\"", "inverter roof can only be removed on site"),
        ("id = \"roof\"", "id = \"other\"", "inverter other can only be added on site"),
        ("learn_car_phases = false", "learn_car_phases = true", "`learn_car_phases`"),
        ("meter_lost_after_s = 60", "meter_lost_after_s = 61", "`meter_lost_after_s`"),
        ("meter_lost_after_s = 60", "", "`meter_lost_after_s`"),
        ("limit_a = 40", "limit_a = 41", "schedule evening can only be changed on site"),
        ("random_start_max_s = 600", "random_start_max_s = 599", "`random_start_max_s`"),
        ("limit_a = 63", "limit_a = 63\nfloor_a = 10", "circuit garage: `floor_a`"),
    ] {
        assert!(SITE.contains(old), "{old}");
        let wrong = only_on_site(&site, &config(&SITE.replace(old, new)));
        assert!(wrong.iter().any(|line| line.contains(part)), "{new}: {wrong:?}");
    }
    let refused = SITE.replace("[cloud]", "[cloud]\nremote_configuration = false");
    assert!(only_on_site(&config(&refused), &site)[0].contains("remote_configuration"));
}

#[test]
fn a_circuit_cannot_be_taken_out_from_under_another() {
    let sent = SITE.replace("id = \"garage\"\nparent = \"grid\"", "id = \"garage\"\nparent = \"top\"")
        + "\n[[circuits]]\nid = \"top\"\nparent = \"grid\"\nlimit_a = 80\n";
    assert_eq!(only_on_site(&config(SITE), &config(&sent)), Vec::<String>::new(), "one between is no harm");
    let sent = SITE.replace("id = \"garage\"\nparent = \"grid\"", "id = \"cellar\"\nparent = \"grid\"");
    let sent = sent.replace("circuit = \"garage\"", "circuit = \"cellar\"");
    let wrong = only_on_site(&config(SITE), &config(&sent));
    assert!(wrong.iter().any(|line| line == "circuit garage can only be removed on site"), "{wrong:?}");
}

fn status(cloud: bool, meter: bool, chargers: &[(&str, bool)]) -> SiteStatus {
    SiteStatus {
        cloud: Some(CloudStatus { connected: cloud, ..CloudStatus::default() }),
        meters: vec![MeterStatus { id: "main".to_owned(), fresh: meter, ..MeterStatus::default() }],
        chargers: chargers
            .iter()
            .map(|(id, connected)| ChargerStatus {
                id: (*id).to_owned(),
                connected: *connected,
                ..ChargerStatus::default()
            })
            .collect(),
        ..SiteStatus::default()
    }
}

#[test]
fn what_worked_before_must_work_again() {
    let three = |a, b, c| [("A", a), ("B", b), ("C", c)];
    let before = Working::of(&status(true, true, &three(true, true, true)));
    assert_eq!(before.missing(&status(true, true, &three(true, true, false))), Vec::<String>::new());
    assert_eq!(
        before.missing(&status(false, false, &three(true, false, false))),
        ["the broker is not connected", "meter main gives no fresh reading", "only 1 of 3 chargers have come back"]
    );
    assert_eq!(
        before.missing(&status(true, true, &[("D", false)])),
        Vec::<String>::new(),
        "they are not there any more"
    );
    let nothing = Working::of(&status(false, false, &three(false, false, false)));
    assert_eq!(nothing.missing(&status(false, false, &three(false, false, false))), Vec::<String>::new());
}

#[test]
fn a_configuration_passes_when_all_works_for_a_while_and_fails_with_what_is_missing() {
    let (good, bad) = (status(true, true, &[("A", true)]), status(true, false, &[("A", true)]));
    let second = |s: u64| Mono::from_ms(1_000 * s);
    let begun = || Probation::new(Working::of(&good), second(0), 60);
    let mut probation = begun();
    for (at, status, expected) in [
        (1, &bad, Verdict::Waits),
        (2, &good, Verdict::Waits),
        (11, &good, Verdict::Waits),
        (11, &bad, Verdict::Waits),
        (13, &good, Verdict::Waits),
        (22, &good, Verdict::Waits),
        (23, &good, Verdict::Passed),
    ] {
        assert_eq!(probation.look(status, second(at)), expected, "{at} s");
    }
    let mut probation = begun();
    assert_eq!(probation.look(&bad, second(59)), Verdict::Waits);
    assert_eq!(probation.look(&bad, second(60)), Verdict::Failed("meter main gives no fresh reading".to_owned()));
    let mut probation = begun();
    assert_eq!(probation.look(&good, second(55)), Verdict::Waits);
    assert_eq!(probation.look(&good, second(60)), Verdict::Failed("it did not work for long enough".to_owned()));
}

#[test]
fn probation_ends_with_a_confirmation_or_with_the_way_back() {
    let sent = |base: &str| Sent { toml: "sent".to_owned(), base: base.to_owned() };
    let trial = |base: &str| Some(Trial { sent: sent(base), ..Trial::default() });
    let mut state = RemoteState { confirmed: None, trial: trial("site") };
    assert_eq!(state.begin("site"), (InForce::Trial, None));
    state.confirm();
    assert_eq!(state.begin("site"), (InForce::Confirmed, None));
    state.trial = trial("site");
    for _ in 0..MOST_STARTS {
        assert_eq!(state.begin("site"), (InForce::Trial, None));
    }
    let (in_force, why) = state.begin("site");
    assert_eq!(in_force, InForce::Confirmed);
    assert!(why.is_some_and(|why| why.starts_with("rolled back to the one before: ")));
    assert_eq!(state.begin("site"), (InForce::Confirmed, None));
    let why = state.cannot_use(InForce::Confirmed, "a file is gone");
    assert_eq!(why.as_deref(), Some("rolled back to site.toml: a file is gone"));
    assert_eq!(state.begin("site"), (InForce::Site, None));
}

#[test]
fn who_changes_the_file_on_site_has_the_last_word() {
    let sent = Sent { toml: "sent".to_owned(), base: "old".to_owned() };
    let mut state = RemoteState { confirmed: Some(sent), trial: None };
    let (in_force, why) = state.begin("new");
    assert_eq!((in_force, why.as_deref()), (InForce::Site, Some("site.toml was changed on site")));
    assert_eq!(state, RemoteState::default());
    assert_eq!(state.begin("new"), (InForce::Site, None));
}

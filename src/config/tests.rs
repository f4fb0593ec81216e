//! The configuration from outside: the examples, everything at once, and bytes at random. What broken files are told is held by the
//! golden files, beside `siteward check`.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::reader::recorded;
use super::*;
use crate::engine::model::billing::{BillingSetup, Tolerance};
use crate::engine::model::ids::StationId;
use crate::engine::model::setup::{Acknowledge, ChargingSetup};
use crate::engine::model::token::{AuthorizationSetup, LimitedUse, UnknownToken};
use crate::engine::model::topology::{MINIMUM_OFFER, MeterIndex};
use crate::engine::units::{Current, Energy, Phase, Power};

/// The TOML files directly in a directory, sorted.
fn toml_files(directory: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    files
}

#[test]
fn every_example_is_right_and_fail_safe() {
    let files = toml_files("configs");
    assert!(files.len() >= 3);
    for file in files {
        let loaded = load(&file).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.warnings, [], "{}", file.display());
        assert_eq!(loaded.refuse_unsafe(), None, "{}", file.display());
        assert_eq!(loaded.config.setup("0.1.0", 7).unsafe_fallback, None);
    }
}

/// Everything that a configuration may have, with the files that it names in `directory`.
fn everything(directory: &Path) -> PathBuf {
    let text = include_str!("everything.toml");
    let pem = "-----BEGIN CERTIFICATE-----\n";
    let files = [("mqtt-password", "hunter2hunter2\n"), ("CP001", "0123456789abcdef\n"), ("pem", pem)];
    for (name, content) in files {
        let path = directory.join(name);
        std::fs::write(&path, content).unwrap();
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, permissions).unwrap();
    }
    std::fs::write(directory.join("tokens.toml"), "[[tokens]]\ntoken = \"04A2\"\n").unwrap();
    let path = directory.join("site.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn everything_is_read_and_lowered() {
    let directory = tempfile::tempdir().unwrap();
    let loaded = load(&everything(directory.path())).unwrap_or_else(|problems| panic!("{problems}"));
    let warnings: Vec<String> = loaded.warnings.iter().map(|warning| warning.message.clone()).collect();
    assert_eq!(warnings, ["[ocpp.tls] is not effective in this version: there is no wss:// listener yet"]);
    let config = loaded.config;
    assert_eq!(config.ocpp.listen.to_string(), "0.0.0.0:8887");
    assert_eq!((config.store.max_size_mb, config.store.history_events), (1024, 10_000));
    let cloud = config.cloud.as_ref().unwrap();
    assert_eq!((cloud.tls, cloud.brokers[0].host.as_str(), cloud.brokers[0].port), (true, "broker.example.com", 8883));
    assert_eq!(cloud.password.as_ref().unwrap().expose(), b"hunter2hunter2");
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(config.devices.len(), 2);
    assert_eq!(config.devices[0].target, DeviceTarget::Meter(MeterIndex(0)));
    assert_eq!(config.devices[0].interval_ms, 500);

    let setup = config.setup("1.2.3", 42);
    assert_eq!((setup.version.as_str(), setup.seed, setup.heartbeat_s), ("1.2.3", 42, 300));
    assert_eq!(setup.tokens.len(), 1);
    let authorization = AuthorizationSetup {
        unknown: UnknownToken::AcceptLimited,
        limited: LimitedUse { energy: Energy::from_wh(7_500), minutes: 90, max: Some(Current::from_a(10)) },
        stop_refused: false,
        master_pass_group: Some("keyholders".to_owned()),
        cache_days: Some(14),
        local_lists: false,
    };
    assert_eq!(setup.authorization, authorization);
    assert_eq!(setup.cloud.unwrap().acknowledge, Acknowledge::Application);
    let topology = setup.topology;
    // The file names the child first; the topology has parents first.
    let names: Vec<&str> = topology.circuits().iter().map(|circuit| circuit.id.as_str()).collect();
    assert_eq!(names, ["grid", "garage", "yard"]);
    assert_eq!(topology.circuits()[0].max_power, Some(Power::from_w(150_000)));
    assert_eq!(topology.circuits()[2].max_power, Some(Power::from_w(120_000)));
    let short_time = topology.circuits()[0].short_time.unwrap();
    assert_eq!((short_time.limit, short_time.lasts_ms), (Current::from_a(300), 60_000));
    assert_eq!(topology.inverters()[0].max, Some(Current::from_a(22)));
    let charging = ChargingSetup {
        learn_car_phases: true,
        count_feed_in: false,
        ramp_per_s: Some(Current::from_ma(2_500)),
        raises_per_minute: 4,
        meter_lost_after_ms: Some(300_000),
    };
    assert_eq!(setup.charging, charging);
    let fast = topology.station(topology.find_station(&StationId::new("DC001")).unwrap());
    assert!(!fast.wiring.is_known());
    let dc = fast.dc.unwrap();
    assert_eq!((dc.max, dc.min), (Power::from_w(100_000), Power::from_w(8_000)));
    assert_eq!((dc.efficiency_permille, dc.power_factor_permille), (950, 990));
    // 100 kW / 0.95 / 0.99 / 3 / 230 V; what is offered in A gives no more than that in W.
    assert_eq!((fast.max.ma(), fast.fallback), (154_100, Current::ZERO));
    assert_eq!(topology.circuits()[0].max_unbalance, Some(Current::from_a(20)));
    let station = topology.station(topology.find_station(&StationId::new("CP001")).unwrap());
    assert_eq!(station.wiring.grid_phase(Phase::L1), Some(Phase::L2));
    assert_eq!((station.evse_count, station.priority, station.weight), (2, 5, 200));
    assert_eq!(station.password.as_ref().unwrap().expose(), b"0123456789abcdef");
    let plain = topology.station(topology.find_station(&StationId::new("CP002")).unwrap());
    assert_eq!((plain.min, plain.fallback), (MINIMUM_OFFER, MINIMUM_OFFER));
    assert_eq!((plain.evse_count, plain.priority, plain.weight), (1, 0, 100));
}

#[test]
fn what_belongs_to_bills_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let loaded = load(&everything(directory.path())).unwrap_or_else(|problems| panic!("{problems}"));
    let billing = loaded.config.setup("1.2.3", 42).billing;
    assert_eq!(billing.running_cost_s, Some(60));
    assert_eq!(billing.tolerance, Tolerance { energy: Energy::from_wh(1_500), permille: 25 });
    let transfer = billing.running_cost_transfer.unwrap();
    assert_eq!((transfer.vendor.as_str(), transfer.running.as_str()), ("com.example", "Cost"));
    assert_eq!((transfer.last.as_str(), transfer.data.as_deref()), ("Total", Some("{cost} {currency}")));
    let keys = &billing.chargers[&StationId::new("CP001")].public_keys;
    // A SubjectPublicKeyInfo of secp256r1.
    assert_eq!(keys.iter().map(Vec::len).collect::<Vec<_>>(), [91]);
    let plain = BillingSetup::default();
    assert_eq!(
        (plain.running_cost_s, plain.running_cost_transfer),
        (None, None),
        "nothing is told unless it is asked for"
    );
}

#[test]
fn files_beside_the_configuration_win() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("site.toml", include_str!("../../configs/minimal.toml").replace("max_a = 16", "max_a = 16\nmodel = \"mine\"")),
        ("chargers/mine.toml", "stack_level = 3\nstep_a = 1\n".to_owned()),
        ("system/chargers/mine.toml", "stack_level = 9\n".to_owned()),
    ] {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let places =
        Places { beside: directory.path().to_owned(), system: directory.path().join("system"), credentials: None };
    let path = directory.path().join("site.toml");
    let stack_level = || load_from(&path, &places).unwrap().config.topology.stations()[0].model.stack_level;
    assert_eq!(stack_level(), 3);
    std::fs::remove_file(directory.path().join("chargers/mine.toml")).unwrap();
    assert_eq!(stack_level(), 9);

    std::fs::write(directory.path().join("system/chargers/mine.toml"), "stack_levle = 9\n").unwrap();
    let problems = load_from(&path, &places).unwrap_err();
    assert_eq!(problems.error_count(), 1, "one file, one report, however many chargers use it: {problems}");
    let text = problems.to_string();
    assert!(
        text.ends_with("mine.toml:1:1: unknown key `stack_levle` in the file; did you mean `stack_level`?"),
        "{text}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    assert_eq!(
        load(Path::new("/nonexistent/site.toml")).unwrap_err().to_string(),
        "/nonexistent/site.toml:1:1: cannot be read: no such file or directory; name the configuration with --config FILE"
    );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("site.toml");
    std::fs::write(&path, b"[site]\nname = \"\xff\"\n").unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("line 2 is not UTF-8"));
}

#[test]
fn an_unsafe_site_is_refused_unless_that_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("site.toml");
    let text = include_str!("../../configs/minimal.toml").replace("unmeasured_load_a = 12", "unmeasured_load_a = 30");
    std::fs::write(&path, &text).unwrap();
    let loaded = load(&path).unwrap();
    let refusal = loaded.refuse_unsafe().unwrap();
    assert!(refusal.contains("NOT fail-safe: circuit grid L1 may carry 42.0 A with a limit of 35.0 A"), "{refusal}");
    assert!(refusal.contains("lower fallback_a of left and right to 0"), "{refusal}");

    std::fs::write(&path, text.replace("[site]", "[site]\nallow_unsafe_fallback = true")).unwrap();
    let loaded = load(&path).unwrap();
    assert_eq!(loaded.refuse_unsafe(), None);
    assert!(loaded.config.setup("0", 0).unsafe_fallback.unwrap().starts_with("NOT fail-safe"));
}

#[test]
fn every_key_is_documented() {
    let directory = tempfile::tempdir().unwrap();
    recorded::take();
    load(&everything(directory.path())).unwrap_or_else(|problems| panic!("{problems}"));
    std::fs::write(directory.path().join("tokens.toml"), "").unwrap();
    let documentation = std::fs::read_to_string("docs/configuration.md").unwrap();
    let keys = recorded::take();
    assert!(keys.len() > 60, "{keys:?}");
    for (label, key) in keys {
        let forms = [format!("`{key}`"), format!("[{key}]"), format!(".{key}]"), format!("\n{key} =")];
        assert!(forms.iter().any(|form| documentation.contains(form)), "{label} {key}");
    }
}

/// A byte that is more likely to keep the file nearly TOML than one at random.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), prop::sample::select(b"\n\"'[]{}=,.#-+ 0123456789eE_:\\xXtfinalimt".to_vec())]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        // The same bytes each time: a failure must be reproducible by running the test again.
        rng_seed: proptest::test_runner::RngSeed::Fixed(20_260_301),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn mutated_bytes_are_refused_or_read_and_never_panic(
        mutations in prop::collection::vec((any::<prop::sample::Index>(), byte(), 0_u8..3), 1..12),
    ) {
        let mut bytes = include_bytes!("everything.toml").to_vec();
        for (index, byte, kind) in mutations {
            let at = index.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site.toml");
        std::fs::write(&path, &bytes).unwrap();
        match load(&path) {
            Ok(loaded) => prop_assert_eq!(loaded.config.setup("0", 7).seed, 7),
            Err(problems) => prop_assert!(problems.error_count() > 0),
        }
    }
}

//! One file for each named fault in `scenarios/`: what is wrong, for how long, and that every invariant holds nevertheless.

use std::path::Path;

use siteward_sim::world::{WorldOptions, run_world};

#[test]
fn every_scenario_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(files.len() >= 10, "the scenarios are missing in {}", folder.display());
    let mut failures = Vec::new();
    for path in files {
        let options = WorldOptions::from_toml(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let report = run_world(options).unwrap();
        assert!(report.transactions > 0, "{}: nothing happened", path.display());
        if report.violated > 0 {
            failures.push(format!("{}: {report}", path.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_scenario_with_an_unknown_fault_is_refused() {
    let text = "about = \"x\"\nseed = 1\nminutes = 1\nstations = 1\n[[fault]]\nkind = \"flood\"\nat_s = 1\n";
    assert_eq!(WorldOptions::from_toml(text).unwrap_err(), "fault kind \"flood\" is not known");
}

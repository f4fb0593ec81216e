//! One file for each named fault in `scenarios/`: what is wrong, for how long, and that every invariant holds nevertheless.

use std::path::{Path, PathBuf};

use siteward_sim::world::{WorldReport, run_site, scenario};

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

fn run(path: &Path) -> WorldReport {
    let run = || run_site(scenario::read(&std::fs::read_to_string(path).map_err(|error| error.to_string())?)?);
    run().unwrap_or_else(|error: String| panic!("{}: {error}", path.display()))
}

#[test]
fn every_scenario_holds() {
    let mut failures = Vec::new();
    let files = files("scenarios");
    assert!(files.len() >= 10, "the scenarios are missing");
    for path in files {
        let report = run(&path);
        assert!(report.transactions > 0, "{}: nothing happened", path.display());
        if report.violated > 0 {
            failures.push(format!("{}: {report}", path.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A fault of the engine lands first as a scenario; once it is mended, its file moves up to the others.
#[test]
fn a_scenario_with_an_unknown_fault_is_refused() {
    let text = "about = \"x\"\nseed = 1\nminutes = 1\nstations = 1\n[[fault]]\nkind = \"flood\"\nat_s = 1\n";
    assert_eq!(scenario::read(text).unwrap_err(), "fault kind \"flood\" is not known");
}

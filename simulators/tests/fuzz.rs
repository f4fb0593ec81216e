//! Bad input in the suite: the same as `make fuzz`, shorter.

use siteward_sim::fuzz::{Failure, FuzzOptions, Part, fuzz, replay};

#[test]
fn mutated_commands_and_files_neither_panic_nor_change_what_they_may_not() {
    let report = fuzz(FuzzOptions { seed: 1, cases: 20_000, jobs: 2 }, |text| println!("{text}")).unwrap();
    assert_eq!(report.failed, 0, "{report}");
    // A fuzzer that is never understood tests little, and one that always is, too.
    assert!(report.accepted() > 3_000 && report.refused() > 2_000 && report.not_understood > 4_000, "{report}");
    assert!(report.repeated > 100 && report.restarts > 5 && report.files.1 > 20, "{report}");
    assert_eq!(report.accepted.len(), 21, "every type of command was accepted: {report}");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let run = |jobs| {
        let report = fuzz(FuzzOptions { seed: 2, cases: 1_000, jobs }, |_| {}).unwrap();
        (report.accepted, report.refused, report.not_understood, report.repeated, report.files)
    };
    // Or a failure would not be found again by its seed.
    assert_eq!(run(1), run(2));
}

/// A fault of the test itself: what the outbox was about to do was laid at the message's door.
#[test]
fn what_was_due_anyway_is_not_the_doing_of_a_message() {
    let found = Failure {
        seed: 600_751_700_000,
        part: Part::Commands,
        life: 319,
        case: 777,
        what: String::new(),
        payload: String::new(),
    };
    let report = replay(&found).unwrap();
    assert_eq!(report.failed, 0, "{report}");
}

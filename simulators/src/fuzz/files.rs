//! Configurations that somebody has edited in a hurry, and what a broken disk makes of them.

use std::path::Path;

use siteward::config::{Loaded, Places, Problems, load_text};
use siteward::engine::controller::Controller;
use siteward::engine::site::Restored;
use siteward::engine::site::io::Input;
use siteward::engine::time::{Mono, Now, Utc};

use super::{Ended, Progress, SITE, mutate};
use crate::rng::Dice;

/// Good files of all kinds. The last one is the prices alone, so that they are changed more often than the rest.
const FILES: [&str; 5] = [
    SITE,
    include_str!("../../../configs/site.toml"),
    include_str!("../../../configs/depot.toml"),
    include_str!("../../../configs/minimal.toml"),
    include_str!("../../../src/config/everything.toml"),
];

/// The part of the file with the prices is changed in so many of ten cases.
const PRICES_IN_TEN: u64 = 5;

/// Reads so many mutated files.
pub(super) fn read(seed: u64, lot: u64, cases: u64, progress: &mut Progress) -> Result<(), Ended> {
    let mut dice = Dice::named(seed, &format!("files {lot}"));
    for case in 0..cases {
        let text = mutated(&mut dice);
        progress.case = case;
        progress.payload = text.clone().into_bytes();
        progress.report.files.0 += 1;
        let path = Path::new("site.toml");
        match load_text(path, &text, &Places::of(path)) {
            Ok(loaded) => {
                progress.report.files.1 += 1;
                start(&loaded, seed)?;
            }
            Err(problems) => judge(&text, &problems)?,
        }
    }
    Ok(())
}

fn mutated(dice: &mut Dice) -> String {
    if dice.below(10) < PRICES_IN_TEN
        && let Some(at) = SITE.find("[[tariffs]]")
    {
        let (before, prices) = SITE.split_at(at);
        return format!("{before}{}", changed(prices, dice));
    }
    let file = dice.pick(&FILES).copied().unwrap_or(SITE);
    changed(file, dice)
}

fn changed(text: &str, dice: &mut Dice) -> String {
    if dice.chance(700_000) {
        return mutate::lines(text, dice);
    }
    let mut bytes = text.as_bytes().to_vec();
    let other = dice.pick(&FILES).copied().unwrap_or(SITE);
    mutate::bytes(&mut bytes, other.as_bytes(), dice);
    // What is not UTF-8 is refused where the file is read.
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What was called good starts, and runs.
fn start(loaded: &Loaded, seed: u64) -> Result<(), Ended> {
    let now = |ms| Now { mono: Mono::from_ms(ms), utc: Utc::from_unix_ms(1_772_434_800_000), utc_trusted: true };
    let restored = Restored { store_id: "fuzz".to_owned(), boot: 1, ..Restored::default() };
    let mut controller = Controller::new(loaded.config.setup("fuzz", seed), restored, true, now(1_000));
    let mut out = Vec::new();
    for ms in [1_200, 2_400, 60_000] {
        controller.handle(Input::Tick, now(ms), &mut out);
    }
    let status = controller.site().status(now(60_000));
    let bad = status.circuits.iter().find(|circuit| {
        circuit.limit_a.iter().zip(circuit.configured_limit_a).any(|(limit, configured)| *limit > configured)
    });
    match bad {
        Some(circuit) => Err(Ended::Broken(format!("circuit {} has more than its own limit", circuit.id))),
        None => Ok(()),
    }
}

/// A refused file has an error, and each problem is at a place that the file has.
fn judge(text: &str, problems: &Problems) -> Result<(), Ended> {
    if problems.error_count() == 0 {
        return Err(Ended::Broken("a file is refused without an error".to_owned()));
    }
    // As the reader counts: a mark in front is not part of the text.
    let lines: Vec<&str> = text.strip_prefix('\u{feff}').unwrap_or(text).split('\n').collect();
    for problem in &problems.0 {
        let (line, column) = (problem.position.line, problem.position.column);
        let letters = line.checked_sub(1).and_then(|line| lines.get(line)).map(|line| line.chars().count());
        if letters.is_none_or(|letters| column == 0 || column > letters + 2) {
            return Err(Ended::Broken(format!("{problem}: the file has no such place")));
        }
        if problem.message.is_empty() {
            return Err(Ended::Broken(format!("{problem}: nothing is said")));
        }
    }
    Ok(())
}

//! Bad input by the million: commands and configurations that were changed at random, into a site that is alive.
//!
//! Each life of a bench takes some thousand messages of the cloud's command topic, good ones and mutated ones, on the very way on which the
//! broker's messages come. After each one the whole state is held against the one before. One seed, one history: a failure is a seed, a life
//! and a case, and is found again by them.

mod bench;
mod corpus;
mod digest;
mod files;
mod life;
mod mutate;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::net::clock::Clock;

/// The configuration of the site that is fuzzed.
const SITE: &str = include_str!("site.toml");

/// Cases in one life of a site, and in one lot of files: the more a site remembers, the longer it takes to look whether it is the same.
const CASES: u64 = 1_000;
/// So many commands for each file: reading a file does not change anything that could be broken later.
const COMMANDS_PER_FILE: u64 = 50;
/// So many failures are kept.
const MOST_KEPT: usize = 20;

/// What is fuzzed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Messages on the command topic.
    Commands,
    /// The text of `site.toml`.
    Files,
}

/// A case that broke a promise. It is found again by all but `payload` and `what`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The seed of the run.
    pub seed: u64,
    /// What was fuzzed.
    pub part: Part,
    /// Which life, or which lot of files, from 0.
    pub life: u64,
    /// Which case in it, from 0.
    pub case: u64,
    /// What was broken.
    pub what: String,
    /// What was sent, as text.
    pub payload: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short: String = self.payload.chars().take(400).collect();
        write!(f, "life {} case {}: {}\n  {short:?}", self.life, self.case, self.what)
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FuzzReport {
    /// The seed.
    pub seed: u64,
    /// Messages on the command topic.
    pub commands: u64,
    /// Commands that were accepted, by type.
    pub accepted: BTreeMap<String, u64>,
    /// Commands that were understood and not carried out, by status and type.
    pub refused: BTreeMap<(String, String), u64>,
    /// Messages that were no command.
    pub not_understood: u64,
    /// Messages with the id of an earlier one: the answers of those that were answered again.
    pub repeated: u64,
    /// Messages without an answer since the one before with the same id was not answered yet.
    pub silent: u64,
    /// How often the site was started again.
    pub restarts: u64,
    /// Files that were read, and how many of them were good.
    pub files: (u64, u64),
    /// How many cases broke a promise.
    pub failed: u64,
    /// The first of them.
    pub failures: Vec<Failure>,
    /// The real time, in ms.
    pub took_ms: u64,
}

impl FuzzReport {
    fn add(&mut self, other: Self) {
        self.commands += other.commands;
        self.not_understood += other.not_understood;
        self.repeated += other.repeated;
        self.silent += other.silent;
        self.restarts += other.restarts;
        self.files = (self.files.0 + other.files.0, self.files.1 + other.files.1);
        self.failed += other.failed;
        for (kind, count) in other.accepted {
            *self.accepted.entry(kind).or_default() += count;
        }
        for (kind, count) in other.refused {
            *self.refused.entry(kind).or_default() += count;
        }
        let room = MOST_KEPT.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.into_iter().take(room));
    }

    fn fail(&mut self, failure: Failure) {
        self.failed += 1;
        self.failures.push(failure);
    }

    /// How many commands were accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.values().sum()
    }

    /// How many were understood and not carried out.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.values().sum()
    }
}

impl fmt::Display for FuzzReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (files, good) = self.files;
        let cases = self.commands + files;
        writeln!(
            f,
            "seed {}: {cases} cases in {} s ({} a second), {} broke a promise",
            self.seed,
            self.took_ms / 1_000,
            cases * 1_000 / self.took_ms.max(1),
            self.failed
        )?;
        writeln!(
            f,
            "{} messages: {} accepted, {} refused, {} not understood, {} repeated, {} repeated before the answer; {} restarts",
            self.commands,
            self.accepted(),
            self.refused(),
            self.not_understood,
            self.repeated,
            self.silent,
            self.restarts
        )?;
        write!(f, "{files} files: {good} good, {} with problems", files - good)?;
        for (kind, count) in &self.accepted {
            let refused = self.refused.iter().filter(|((_, other), _)| other == kind);
            let refused: Vec<String> = refused.map(|((status, _), count)| format!("{status} {count}")).collect();
            write!(f, "\n  {kind:<22} accepted {count:>7}  {}", refused.join("  "))?;
        }
        Ok(())
    }
}

/// What is to be fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct FuzzOptions {
    /// Decides everything.
    pub seed: u64,
    /// How many messages; there is a file for each fifty of them.
    pub cases: u64,
    /// How many sites at the same time.
    pub jobs: usize,
}

/// Fuzzes.
///
/// # Errors
/// If the site cannot be made, which is no finding.
pub fn fuzz(options: FuzzOptions, say: impl Fn(&str) + Sync) -> Result<FuzzReport, String> {
    let clock = Clock::start();
    let lots = |cases: u64| (0..cases.div_ceil(CASES)).map(move |lot| (lot, CASES.min(cases - lot * CASES)));
    let commands = lots(options.cases).map(|(lot, cases)| (Part::Commands, lot, cases));
    let files = lots(options.cases / COMMANDS_PER_FILE).map(|(lot, cases)| (Part::Files, lot, cases));
    let work: Vec<(Part, u64, u64)> = commands.chain(files).collect();
    let (next, total) = (AtomicU64::new(0), Mutex::new(FuzzReport { seed: options.seed, ..FuzzReport::default() }));
    let job = || -> Result<(), String> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((part, lot, cases)) = usize::try_from(index).ok().and_then(|index| work.get(index)) else {
                return Ok(());
            };
            let report = run(options.seed, *part, *lot, *cases)?;
            report.failures.iter().for_each(|failure| say(&failure.to_string()));
            let mut total = total.lock().map_err(|_| "a job has ended in a panic".to_owned())?;
            total.add(report);
            if index % 50 == 49 {
                say(&format!("{} of {} lots, {} failed", index + 1, work.len(), total.failed));
            }
        }
    };
    std::thread::scope(|scope| {
        let jobs: Vec<_> = (0..options.jobs.max(1)).map(|_| scope.spawn(job)).collect();
        jobs.into_iter().try_for_each(|job| job.join().map_err(|_| "a job has ended in a panic".to_owned())?)
    })?;
    let mut total = total.into_inner().map_err(|_| "a job has ended in a panic".to_owned())?;
    total.took_ms = clock.mono().ms();
    Ok(total)
}

/// Runs a failure again, with everything that came before it in its life.
///
/// # Errors
/// If the site cannot be made.
pub fn replay(failure: &Failure) -> Result<FuzzReport, String> {
    run(failure.seed, failure.part, failure.life, failure.case + 1)
}

/// What a case was when it began, for whoever finds it after a panic.
#[derive(Debug, Default)]
struct Progress {
    report: FuzzReport,
    case: u64,
    payload: Vec<u8>,
}

fn run(seed: u64, part: Part, life: u64, cases: u64) -> Result<FuzzReport, String> {
    let mut progress = Progress::default();
    // What is left of a life that ended in a panic is looked at by nobody.
    let ended = catch_unwind(AssertUnwindSafe(|| match part {
        Part::Commands => life::live(seed, life, cases, &mut progress),
        Part::Files => files::read(seed, life, cases, &mut progress),
    }));
    let what = match ended {
        Ok(Ok(())) => return Ok(progress.report),
        Ok(Err(Ended::Broken(what))) => what,
        Ok(Err(Ended::NoSite(why))) => return Err(why),
        Err(panic) => {
            let text =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            format!("a panic: {}", text.unwrap_or("no reason given"))
        }
    };
    let payload = String::from_utf8_lossy(&progress.payload).into_owned();
    progress.report.fail(Failure { seed, part, life, case: progress.case, what, payload });
    Ok(progress.report)
}

/// Why a life ended early.
#[derive(Debug)]
enum Ended {
    /// A promise was broken.
    Broken(String),
    /// There was no site to begin with.
    NoSite(String),
}

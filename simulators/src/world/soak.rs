//! Many sites, one after the other and side by side: the long run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::net::clock::Clock;
use crate::oracle::Worst;

use super::invent::{Wanted, invent};
use super::{WorldReport, judge_site};

/// How many faults come to a site a day.
pub const FAULTS_PER_DAY: u64 = 60;
/// So many violations are kept with what happened.
const MOST_KEPT: usize = 20;
/// How often it says how far it is, in sites.
const SAYS_EVERY: u64 = 20;

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub struct SoakOptions {
    /// The first seed; the others follow it.
    pub seed: u64,
    /// How many sites.
    pub sites: u64,
    /// How long each, in minutes of virtual time.
    pub site_minutes: u64,
    /// The most stations of one.
    pub most_stations: u32,
    /// How many at the same time.
    pub jobs: usize,
    /// No site is begun after so much real time, in minutes.
    pub minutes: u64,
}

/// A site that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// The first violation.
    pub first: String,
}

/// What came of it all.
#[derive(Clone, Debug, Default)]
pub struct SoakReport {
    options: Option<(u32, u64)>,
    /// How many sites.
    pub sites: u64,
    /// Their virtual time, in minutes.
    pub minutes: u64,
    /// The same times the number of stations.
    pub station_minutes: u64,
    /// The most stations of one.
    pub largest: usize,
    /// How many faults of each kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often the controller was started again.
    pub restarts: u64,
    /// How many transactions.
    pub transactions: usize,
    /// How often a car that was charging was given less.
    pub cuts: u64,
    /// How long phases were above their limit while they could have been below, in ms.
    pub above_ms: u64,
    /// The worst of it.
    pub worst: Worst,
    /// As [`WorldReport::utilisation`].
    pub utilisation: (u64, u64),
    /// How many violations.
    pub violated: u64,
    /// The sites where they were.
    pub failures: Vec<Failure>,
    /// The real time, in ms.
    pub took_ms: u64,
    /// The time that the cores worked, in ms.
    pub cores_ms: u64,
}

/// Runs many sites.
///
/// # Errors
/// If one of them is none.
pub fn soak(options: SoakOptions, say: impl Fn(&str) + Sync) -> Result<SoakReport, String> {
    let clock = Clock::start();
    let cores_before = Clock::cores_ms();
    let next = AtomicU64::new(0);
    let total = Mutex::new(SoakReport {
        options: Some((options.most_stations, options.site_minutes)),
        ..SoakReport::default()
    });
    let work = || -> Result<(), String> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= options.sites || clock.mono().ms() >= options.minutes * 60_000 {
                return Ok(());
            }
            let wanted = Wanted {
                seed: options.seed.wrapping_add(index),
                minutes: options.site_minutes,
                most_stations: options.most_stations,
                faults_per_day: FAULTS_PER_DAY,
            };
            let report = judge_site(&invent(wanted))?;
            let mut total = total.lock().map_err(|_| "a run has ended in a panic".to_owned())?;
            for violation in report.violations.iter().take(1) {
                say(&format!("seed {} ({} stations): {violation}", report.seed, report.stations));
            }
            total.add(&report, options.site_minutes);
            if total.sites.is_multiple_of(SAYS_EVERY) {
                let (sites, stations) = (total.sites, total.station_minutes / options.site_minutes);
                say(&format!("{sites} sites, {stations} stations, {} s", clock.mono().ms() / 1000));
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        let ended =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".to_owned())));
        ended.collect::<Result<Vec<()>, String>>()
    })?;
    let mut total = total.into_inner().map_err(|_| "a run has ended in a panic".to_owned())?;
    total.took_ms = clock.mono().ms();
    total.cores_ms = Clock::cores_ms().saturating_sub(cores_before);
    Ok(total)
}

impl SoakReport {
    fn add(&mut self, report: &WorldReport, minutes: u64) {
        self.sites += 1;
        self.minutes += minutes;
        self.station_minutes += minutes * u64::try_from(report.stations).unwrap_or(0);
        self.largest = self.largest.max(report.stations);
        for (kind, count) in &report.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.restarts += report.restarts;
        self.transactions += report.transactions;
        self.cuts += report.cuts;
        self.above_ms += report.above_ms;
        self.worst = self.worst.and(report.worst);
        self.utilisation.0 += report.utilisation.0;
        self.utilisation.1 += report.utilisation.1;
        self.violated += report.violated;
        if let Some(first) = report.violations.first().filter(|_| self.failures.len() < MOST_KEPT) {
            self.failures.push(Failure { seed: report.seed, first: first.to_string() });
        }
    }
}

impl fmt::Display for SoakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let real = |value: u64| f64::from(u32::try_from(value).unwrap_or(u32::MAX));
        let days = |minutes: u64| real(minutes) / 1440.0;
        let faults: u64 = self.faults.values().sum();
        writeln!(
            f,
            "{} sites with up to {} stations, {:.1} site-days, {:.0} station-days in {:.1} min",
            self.sites,
            self.largest,
            days(self.minutes),
            days(self.station_minutes),
            real(self.took_ms) / 60_000.0
        )?;
        let speed = real(self.minutes) * 60_000.0 / real(self.took_ms).max(1.0);
        let (cores, station_days) = (real(self.cores_ms), days(self.station_minutes).max(0.001));
        writeln!(
            f,
            "  {speed:.0} x real time on all cores together; the cores worked for {:.1} min, {:.3} s for a station-day",
            cores / 60_000.0,
            cores / 1000.0 / station_days
        )?;
        writeln!(
            f,
            "  {} transactions, {} cuts, {} restarts of the controller",
            self.transactions, self.cuts, self.restarts
        )?;
        let kinds: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        writeln!(f, "  {faults} faults: {}", kinds.join(", "))?;
        let worst = self.worst;
        writeln!(
            f,
            "  above a limit: {:.1} s a site-day, {} s at a stretch, {:.1} A or {:.1} % at most, {} s beyond the grace",
            real(self.above_ms) / 1000.0 / days(self.minutes).max(0.001),
            worst.longest_ms / 1000,
            f64::from(worst.above_ma) / 1000.0,
            real(worst.above_permille.unsigned_abs()) / 10.0,
            worst.beyond_grace_ms / 1000
        )?;
        if let Some(permille) = self.utilisation.0.checked_div(self.utilisation.1 * 1000) {
            writeln!(
                f,
                "  while a car could take more, the tightest circuit above it is at {:.1} % of its limit",
                real(permille) / 10.0
            )?;
        }
        writeln!(f, "  {} violations at {} sites", self.violated, self.failures.len())?;
        let (stations, minutes) = self.options.unwrap_or_default();
        for failure in &self.failures {
            writeln!(f, "  {}", failure.first)?;
            writeln!(f, "    again: siteward-sim world --seed {} --invent {stations} {minutes}", failure.seed)?;
            writeln!(
                f,
                "    small: siteward-sim world --seed {} --invent {stations} {minutes} --shrink out.toml",
                failure.seed
            )?;
        }
        Ok(())
    }
}

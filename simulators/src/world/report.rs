//! What came of a run.

use std::collections::BTreeMap;
use std::fmt;

use siteward::engine::model::alarm::AlarmKind;

use crate::oracle::{Violation, Worst};

/// Counters of a run.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) frames: u64,
    pub(super) cuts: u64,
    pub(super) turns: u64,
    pub(super) alarms: BTreeMap<(AlarmKind, String), u64>,
}

/// What became of the first circuit's current on L1 while cars could have taken more: sums of mA over the samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unused {
    /// What cars could have drawn: the limit less what other loads draw, or less what is kept for them where nobody measures.
    pub free: u64,
    /// Of that, what no station offered.
    pub not_offered: u64,
    /// What was offered to cars that are full.
    pub full: u64,
    /// What was offered to cars whose batteries take less.
    pub tapers: u64,
    /// What was offered to cars that had not followed yet.
    pub follows: u64,
}

impl std::ops::AddAssign for Unused {
    fn add_assign(&mut self, other: Self) {
        self.free += other.free;
        self.not_offered += other.not_offered;
        self.full += other.full;
        self.tapers += other.tapers;
        self.follows += other.follows;
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorldReport {
    /// The seed.
    pub seed: u64,
    /// How often which alarm was raised, by its kind and what it is about.
    pub alarms: BTreeMap<(AlarmKind, String), u64>,
    /// The virtual time that was run, in ms.
    pub duration_ms: u64,
    /// How many stations there were.
    pub stations: usize,
    /// How many faults of each kind began.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often the controller was started again.
    pub restarts: u64,
    /// How many OCPP frames were exchanged.
    pub frames: u64,
    /// How often a car that was charging was given less.
    pub cuts: u64,
    /// How many records are in the journal.
    pub records: u64,
    /// How many transactions the stations made.
    pub transactions: usize,
    /// How often stations were told what a running transaction costs.
    pub costs_shown: u64,
    /// At how many transactions the station was told what it came to in the end.
    pub final_costs: usize,
    /// What the cars took, in Wh.
    pub energy_wh: i64,
    /// What the cloud billed, in Wh.
    pub billed_wh: i64,
    /// How many events came to the cloud, duplicates included.
    pub delivered: u64,
    /// How many of them came again.
    pub duplicates: u64,
    /// For how long phases of circuits were above their limit while they could have been below, in ms, summed up.
    pub above_ms: u64,
    /// The worst of it.
    pub worst: Worst,
    /// How far the tightest circuit above each car that could have taken more was used: sum of the shares in millionths, and how many.
    pub utilisation: (u64, u64),
    /// What became of what was not used.
    pub unused: Unused,
    /// How many waits for a turn ended, where the queue could be held to what it said.
    pub turns: u64,
    /// How many invariants were violated.
    pub violated: u64,
    /// The first violations with their circumstances.
    pub violations: Vec<Violation>,
    /// The hash of all frames and records: the same for the same seed.
    pub trace: u64,
}

impl WorldReport {
    /// A run that ended in a panic of the engine.
    pub(super) fn of_panic(seed: u64, stations: usize, what: String) -> Self {
        let violation = Violation { invariant: "the_engine_does_not_panic", at_ms: 0, what, last_events: Vec::new() };
        Self { seed, stations, violated: 1, violations: vec![violation], ..Self::default() }
    }

    /// The mean of [`WorldReport::utilisation`] in thousandths; `None` if every car always had what it could take.
    #[must_use]
    pub const fn utilisation_permille(&self) -> Option<u64> {
        let (sum, samples) = self.utilisation;
        (sum / 1000).checked_div(samples)
    }
}

impl fmt::Display for WorldReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.duration_ms / 3_600_000;
        writeln!(f, "seed {}: {} d {} h, {} stations", self.seed, hours / 24, hours % 24, self.stations)?;
        let faults: u64 = self.faults.values().sum();
        writeln!(f, "  {faults} faults, {} restarts of the controller, {} cuts", self.restarts, self.cuts)?;
        writeln!(
            f,
            "  {} transactions, {} kWh charged, {} kWh billed",
            self.transactions,
            self.energy_wh / 1000,
            self.billed_wh / 1000
        )?;
        writeln!(
            f,
            "  {} frames, {} records, {} events at the cloud ({} of them twice)",
            self.frames, self.records, self.delivered, self.duplicates
        )?;
        let worst = self.worst;
        writeln!(
            f,
            "  above a limit: {} s in all, {} s at a stretch, {:.1} A or {:.1} % at most, {} s beyond the grace",
            self.above_ms / 1000,
            worst.longest_ms / 1000,
            f64::from(worst.above_ma) / 1000.0,
            f64::from(i32::try_from(worst.above_permille).unwrap_or(i32::MAX)) / 10.0,
            worst.beyond_grace_ms / 1000
        )?;
        if let Some(permille) = self.utilisation_permille() {
            let percent = f64::from(u32::try_from(permille).unwrap_or(0)) / 10.0;
            writeln!(
                f,
                "  while a car could take more, the tightest circuit above it is at {percent:.1} % of its limit"
            )?;
            let share = |part: u64| {
                let permille = (part * 1000).checked_div(self.unused.free).unwrap_or(0);
                f64::from(u32::try_from(permille).unwrap_or(0)) / 10.0
            };
            let unused = self.unused;
            writeln!(
                f,
                "    of the first circuit's L1 {:.1} % are not offered, {:.1} % offered to full cars, {:.1} % to cars that taper, {:.1} % not followed yet",
                share(unused.not_offered),
                share(unused.full),
                share(unused.tapers),
                share(unused.follows)
            )?;
        }
        writeln!(f, "  trace {:016x}, {} violations", self.trace, self.violated)?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        if let Some(first) = self.violations.first() {
            writeln!(f, "  before the first of them:")?;
            for event in &first.last_events {
                writeln!(f, "    {event}")?;
            }
        }
        Ok(())
    }
}

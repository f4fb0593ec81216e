//! What came of a run.

use std::fmt;

use crate::oracle::Violation;

/// Counters of a run.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) faults: u64,
    pub(super) frames: u64,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldReport {
    /// The seed.
    pub seed: u64,
    /// The virtual time that was run, in ms.
    pub duration_ms: u64,
    /// How many stations there were.
    pub stations: usize,
    /// How many faults began.
    pub faults: u64,
    /// How often the controller was started again.
    pub restarts: u64,
    /// How many OCPP frames were exchanged.
    pub frames: u64,
    /// How many records are in the journal.
    pub records: u64,
    /// How many transactions the stations made.
    pub transactions: usize,
    /// What the cars took, in Wh.
    pub energy_wh: i64,
    /// What the cloud billed, in Wh.
    pub billed_wh: i64,
    /// How many events came to the cloud, duplicates included.
    pub delivered: u64,
    /// How many of them came again.
    pub duplicates: u64,
    /// For how long phases of circuits were above their limit, in ms, summed up.
    pub above_ms: u64,
    /// The longest time at a stretch, in ms.
    pub longest_above_ms: u64,
    /// How many invariants were violated.
    pub violated: u64,
    /// The first violations with their circumstances.
    pub violations: Vec<Violation>,
    /// The hash of all frames and records: the same for the same seed.
    pub trace: u64,
}

impl fmt::Display for WorldReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.duration_ms / 3_600_000;
        writeln!(f, "seed {}: {} d {} h, {} stations", self.seed, hours / 24, hours % 24, self.stations)?;
        writeln!(f, "  {} faults, {} restarts of the controller", self.faults, self.restarts)?;
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
        writeln!(
            f,
            "  above a limit: {} s in all, {} s at a stretch",
            self.above_ms / 1000,
            self.longest_above_ms / 1000
        )?;
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

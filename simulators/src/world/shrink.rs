//! Makes a failing site small: fewer faults, fewer stations, less time, while the same promise is still broken.

use crate::faults::FaultFile;

use super::blueprint::Blueprint;
use super::{WorldReport, judge_site};

/// So many runs at most.
const MOST_RUNS: u32 = 400;

/// A site that breaks a promise, and how.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest site found.
    pub site: Blueprint,
    /// What came of it.
    pub report: WorldReport,
    /// How many runs it took.
    pub runs: u32,
}

/// Makes `site` smaller as long as it breaks the same promise first. `None` if it breaks none.
///
/// # Errors
/// If the blueprint does not make a site.
pub fn shrink(site: &Blueprint) -> Result<Option<Shrunk>, String> {
    let report = judge_site(site)?;
    let Some(first) = report.violations.first() else { return Ok(None) };
    let invariant = first.invariant;
    let mut search = Search { invariant, best: site.clone(), report, runs: 1 };
    search.cut_time()?;
    search.without_some(|site| site.fault.len(), without_faults)?;
    search.without_some(|site| site.station.len(), without_stations)?;
    search.without_some(|site| site.fault.len(), without_faults)?;
    search.simplify()?;
    search.cut_time()?;
    let about = format!("Breaks {invariant}. Made small from seed {}.", site.seed);
    search.best.about = about;
    Ok(Some(Shrunk { site: search.best, report: search.report, runs: search.runs }))
}

struct Search {
    invariant: &'static str,
    best: Blueprint,
    report: WorldReport,
    runs: u32,
}

impl Search {
    /// Takes `candidate` if it still fails in the same way.
    fn attempt(&mut self, candidate: Blueprint) -> Result<bool, String> {
        if self.runs >= MOST_RUNS || candidate.station.is_empty() || candidate == self.best {
            return Ok(false);
        }
        self.runs += 1;
        let report = judge_site(&candidate)?;
        let fails = report.violations.iter().any(|violation| violation.invariant == self.invariant);
        if fails {
            self.best = candidate;
            self.report = report;
        }
        Ok(fails)
    }

    /// Nothing after the violation matters.
    fn cut_time(&mut self) -> Result<(), String> {
        let found = self.report.violations.iter().find(|violation| violation.invariant == self.invariant);
        let at_minute = found.map_or(0, |violation| violation.at_ms / 60_000 + 1);
        if at_minute == 0 || at_minute >= self.best.minutes {
            return Ok(());
        }
        let mut candidate = self.best.clone();
        candidate.minutes = at_minute;
        // The quiet begins when it began.
        candidate.quiet_minutes = at_minute.saturating_sub(self.best.minutes - self.best.quiet_minutes);
        candidate.fault.retain(|fault| fault.at_s < at_minute * 60);
        self.attempt(candidate).map(|_| ())
    }

    /// Takes away halves, quarters, and so on down to single ones.
    fn without_some(
        &mut self,
        count: impl Fn(&Blueprint) -> usize,
        without: impl Fn(&Blueprint, usize, usize) -> Blueprint,
    ) -> Result<(), String> {
        let mut chunk = count(&self.best).div_ceil(2);
        while chunk > 0 {
            let mut from = 0;
            while from < count(&self.best) {
                let candidate = without(&self.best, from, chunk);
                if !self.attempt(candidate)? {
                    from += chunk;
                }
            }
            chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
        }
        Ok(())
    }

    fn simplify(&mut self) -> Result<(), String> {
        self.attempt(Blueprint { pv: None, ..self.best.clone() })?;
        for index in 0..self.best.circuit.len() {
            let mut candidate = self.best.clone();
            candidate.circuit[index].load = None;
            self.attempt(candidate)?;
        }
        for index in 0..self.best.station.len() {
            let mut candidate = self.best.clone();
            candidate.station[index].evses = 1;
            candidate.station[index].levels_a.clear();
            self.attempt(candidate)?;
        }
        Ok(())
    }
}

fn without_faults(site: &Blueprint, from: usize, count: usize) -> Blueprint {
    let mut site = site.clone();
    site.fault.drain(from..(from + count).min(site.fault.len()));
    site
}

/// Without some stations, and without the faults that were about them alone.
fn without_stations(site: &Blueprint, from: usize, count: usize) -> Blueprint {
    let mut site = site.clone();
    let to = (from + count).min(site.station.len());
    site.station.drain(from..to);
    site.fault = site.fault.iter().filter_map(|fault| moved(fault, from, to)).collect();
    site
}

fn moved(fault: &FaultFile, from: usize, to: usize) -> Option<FaultFile> {
    let about = fault.planned().ok()?.fault.stations();
    let Some((first, count)) = about else { return Some(fault.clone()) };
    let left: Vec<usize> = (first..first + count)
        .filter(|station| !(from..to).contains(station))
        .map(|station| if station >= to { station - (to - from) } else { station })
        .collect();
    let station = *left.first()?;
    let count = if fault.count == 0 { 0 } else { left.len() };
    Some(FaultFile { station, count, ..fault.clone() })
}

#[cfg(test)]
mod tests {
    use super::super::invent::{Wanted, invent};
    use super::*;

    #[test]
    fn faults_move_with_their_stations() {
        let fault = |station, count| FaultFile { kind: "partition".to_owned(), station, count, ..FaultFile::default() };
        assert_eq!(moved(&fault(3, 4), 0, 2), Some(fault(1, 4)));
        assert_eq!(moved(&fault(3, 4), 4, 6), Some(fault(3, 2)));
        assert_eq!(moved(&fault(3, 2), 2, 8), None);
    }

    #[test]
    fn a_site_without_some_stations_is_a_site() {
        let site = invent(Wanted { seed: 5, minutes: 300, most_stations: 60, faults_per_day: 100 });
        let smaller = without_stations(&site, 1, site.station.len() / 2);
        assert!(super::super::scenario::read(&super::super::scenario::write(&smaller).expect("written")).is_ok());
    }
}

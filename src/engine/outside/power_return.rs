//! The start after a power cut: a street that comes back together must not take its full load together.
//!
//! Each station waits a time of its own, thrown once, before it is raised. That the power was away is seen in two ways: the gateway itself came up
//! cold and stations boot soon after, or half of all stations boot within a minute of each other.

use super::schedule::mix;
use crate::engine::time::Mono;

/// So long after a cold start a station that boots comes back from the same power cut. Stations need up to some minutes to boot.
const COLD_MS: u64 = 10 * 60_000;

/// Stations that boot within this time of each other boot for the same reason.
const TOGETHER_MS: u64 = 60_000;

/// Who waits until when.
#[derive(Clone, Debug)]
pub struct PowerReturn {
    most_ms: u64,
    dice: u64,
    cold_until: Option<Mono>,
    booted: Vec<Option<Mono>>,
    held_until: Vec<Option<Mono>>,
}

impl PowerReturn {
    /// For so many stations. `most_ms`: the longest wait, 0 for none. `cold`: this gateway was without power itself.
    #[must_use]
    pub fn new(most_ms: u64, dice: u64, stations: usize, (cold, now): (bool, Mono)) -> Self {
        let cold_until = cold.then(|| now.plus_ms(COLD_MS));
        Self { most_ms, dice, cold_until, booted: vec![None; stations], held_until: vec![None; stations] }
    }

    /// A station has booted. Gives the stations that wait from now on.
    pub fn booted(&mut self, station: usize, now: Mono) -> Vec<usize> {
        if self.most_ms == 0 {
            return Vec::new();
        }
        self.booted[station] = Some(now);
        let cold = self.cold_until.is_some_and(|until| now < until);
        let is_recent = |booted: &Option<Mono>| booted.is_some_and(|at| now.since(at) < TOGETHER_MS);
        let recent = self.booted.iter().filter(|booted| is_recent(booted)).count();
        // One station alone has only been restarted.
        let together = recent >= 2 && recent * 2 >= self.booted.len();
        let waits = |index: usize| (cold && index == station) || (together && is_recent(&self.booted[index]));
        let new: Vec<usize> =
            (0..self.booted.len()).filter(|index| waits(*index) && self.held_until[*index].is_none()).collect();
        for index in &new {
            let throw = mix(self.dice ^ mix(u64::try_from(*index).unwrap_or(0)) ^ now.ms());
            self.held_until[*index] = Some(now.plus_ms(throw % (self.most_ms + 1)));
        }
        new
    }

    /// Until when a station waits, if it does.
    #[must_use]
    pub fn held_until(&self, station: usize, now: Mono) -> Option<Mono> {
        self.held_until[station].filter(|until| now < *until)
    }

    /// Somebody wants the station to start now.
    pub fn release(&mut self, station: usize) {
        self.held_until[station] = None;
        self.booted[station] = None;
    }

    /// Forgets waits that are over, so that the next power cut begins anew.
    pub fn tidy(&mut self, now: Mono) {
        for held in &mut self.held_until {
            // Kept a little longer: a second boot of the same return is no new one.
            *held = held.filter(|until| now.since(*until) < COLD_MS);
        }
    }

    /// When the next wait ends.
    #[must_use]
    pub fn next_end(&self, now: Mono) -> Option<Mono> {
        self.held_until.iter().flatten().filter(|until| now < **until).min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::from_ms(seconds * 1_000)
    }

    #[test]
    fn a_cold_start_makes_each_station_wait_a_time_of_its_own() {
        let mut waits = PowerReturn::new(600_000, 7, 40, (true, at(0)));
        let ends: Vec<u64> = (0..40)
            .map(|station| {
                waits.booted(station, at(30));
                waits.held_until(station, at(30)).map_or(0, |end| end.since(at(30)))
            })
            .collect();
        assert!(ends.iter().all(|wait| *wait <= 600_000));
        assert!(ends.iter().min() < Some(&60_000) && ends.iter().max() > Some(&540_000), "{ends:?}");
        assert_eq!(waits.held_until(3, at(631)), None);
    }

    #[test]
    fn one_station_that_restarts_does_not_wait() {
        let mut waits = PowerReturn::new(600_000, 7, 4, (false, at(0)));
        assert_eq!(waits.booted(0, at(1_000)), [] as [usize; 0]);
        assert_eq!(waits.booted(1, at(1_061)), [] as [usize; 0]);
        assert_eq!(waits.booted(2, at(1_100)), [1, 2], "half of them within a minute");
        assert_eq!(waits.booted(0, at(1_110)), [0]);
        assert_eq!(waits.booted(2, at(1_115)), [] as [usize; 0], "once for one return");
    }

    #[test]
    fn a_wait_can_be_ended_and_off_is_off() {
        let mut waits = PowerReturn::new(600_000, 7, 2, (true, at(0)));
        waits.booted(0, at(1));
        waits.release(0);
        assert_eq!(waits.held_until(0, at(1)), None);
        let mut off = PowerReturn::new(0, 7, 2, (true, at(0)));
        assert_eq!(off.booted(0, at(1)), [] as [usize; 0]);
        // Long after a cold start a boot is a restart.
        let mut late = PowerReturn::new(600_000, 7, 9, (true, at(0)));
        assert_eq!(late.booted(0, at(600)), [] as [usize; 0]);
    }
}

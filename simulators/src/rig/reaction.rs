//! How long it takes from the meter seeing an overload to the last station having accepted its cut.

use std::path::PathBuf;
use std::time::Duration;

use siteward::engine::units::{Current, PerPhase};

use super::{Rig, RigOptions};
use crate::car::{Car, CarOptions};
use crate::net::cloud::lock;
use crate::rng::Dice;

/// The goals, in ms.
pub const MEDIAN_MS: u64 = 300;
/// See [`MEDIAN_MS`].
pub const P99_MS: u64 = 700;
/// How often the daemon reads the meter.
const METER_MS: u64 = 200;
/// What each step takes from each station, in A. A cut below half an ampere might wait.
const STEP_A: i32 = 1;
/// From the most to the minimum there are so many steps; then the load falls back and the ladder begins anew.
const LADDER: i32 = 20;
/// The cars have followed a cut, and the controller counts on it, after so long (IEC 61851-1: 5 s).
const SETTLE: Duration = Duration::from_millis(7_000);
/// After the load has fallen all offers have risen again after so long; the last part of an ampere comes with the renewal of the lease.
const RISE: Duration = Duration::from_secs(90);
/// A cut that takes longer than this is not coming.
const PATIENCE_MS: u64 = 10_000;

/// What was measured: one time for each step, in ms, sorted.
#[derive(Clone, Debug)]
pub struct Reactions {
    /// How many stations.
    pub stations: usize,
    /// The times.
    pub sorted_ms: Vec<u64>,
}

impl Reactions {
    /// The time that `percent` of the steps did not exceed.
    #[must_use]
    pub fn percentile_ms(&self, percent: usize) -> u64 {
        let last = self.sorted_ms.len().saturating_sub(1);
        let index = (self.sorted_ms.len() * percent).div_ceil(100).saturating_sub(1).min(last);
        self.sorted_ms.get(index).copied().unwrap_or(u64::MAX)
    }

    /// Whether both goals are met.
    #[must_use]
    pub fn meets_the_goals(&self) -> bool {
        self.percentile_ms(50) <= MEDIAN_MS && self.percentile_ms(99) <= P99_MS
    }
}

/// Measures.
///
/// # Errors
/// If the rig does not come up, or a cut does not come.
pub async fn measure(
    stations: usize,
    steps: usize,
    siteward: Option<PathBuf>,
    mut say: impl FnMut(&str),
) -> Result<Reactions, String> {
    let count = i32::try_from(stations).unwrap_or(i32::MAX);
    let options = RigOptions {
        stations,
        limit_a: count * 32,
        // Fits beside the fallbacks.
        unmeasured_a: count * 24,
        fallback_a: 6,
        meter_ms: METER_MS,
        stale_after_ms: 3_000,
        meter_values_s: 5,
        seed: 1,
    };
    let rig = Rig::start(options, siteward).await?;
    for (index, station) in rig.stations.iter().enumerate() {
        let car =
            CarOptions { battery_wh: 200_000, arrives_percent: 5, max: Current::from_a(32), ..CarOptions::default() };
        let taken = lock(station).plug_in(1, Car::new(car), Some(&format!("TAG{index}")));
        taken.map_err(|_| "there is no room for a car".to_owned())?;
    }
    say(&format!("{stations} stations charge; the load rises by {STEP_A} A a station, {steps} times"));
    let mut load = Current::ZERO;
    let mut dice = Dice::new(1);
    rise(&rig, load).await?;
    let mut sorted_ms = Vec::new();
    for step in 0..steps {
        if step > 0 && step.is_multiple_of(usize::try_from(LADDER).unwrap_or(1)) {
            load = Current::ZERO;
            rise(&rig, load).await?;
        }
        load += Current::from_a(count * STEP_A);
        sorted_ms.push(one_step(&rig, load).await?);
        settle(&rig, load, SETTLE + Duration::from_millis(dice.below(METER_MS))).await;
    }
    sorted_ms.sort_unstable();
    Ok(Reactions { stations, sorted_ms })
}

/// All stations are offered the most that the load leaves.
async fn rise(rig: &Rig, load: Current) -> Result<(), String> {
    let deadline = rig.clock.mono().plus_ms(u64::try_from(RISE.as_millis()).unwrap_or(0));
    // One that has less than all would not have to be cut in the first step.
    let nearly = Current::from_ma(31_900);
    while rig.clock.mono() < deadline {
        settle(rig, load, Duration::from_millis(500)).await;
        if rig.stations.iter().all(|station| lock(station).offered(1) >= nearly) {
            settle(rig, load, SETTLE).await;
            return Ok(());
        }
    }
    let low = rig.stations.iter().filter(|station| lock(station).offered(1) < nearly).count();
    Err(format!("{low} stations were not offered {nearly} within {} s", RISE.as_secs()))
}

/// Lets time pass while the meter shows what flows.
async fn settle(rig: &Rig, load: Current, time: Duration) {
    let until = rig.clock.mono().plus_ms(u64::try_from(time.as_millis()).unwrap_or(0));
    while rig.clock.mono() < until {
        show(rig, load);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn show(rig: &Rig, load: Current) {
    let total = rig.drawn() + PerPhase::splat(load);
    lock(&rig.meter).set_current(total, rig.clock.mono());
}

/// The load rises: the ms until the last station has accepted less than it had.
async fn one_step(rig: &Rig, load: Current) -> Result<u64, String> {
    show(rig, load);
    let began = rig.clock.mono();
    loop {
        let lowered: Option<Vec<_>> =
            rig.stations.iter().map(|station| lock(station).lowered_at().filter(|at| *at > began)).collect();
        if let Some(last) = lowered.and_then(|all| all.into_iter().max()) {
            return Ok(last.since(began));
        }
        if rig.clock.mono().since(began) > PATIENCE_MS {
            return Err(format!("not every station was cut within {} s of {load} of load", PATIENCE_MS / 1000));
        }
        // The load stays as it is; what the cars draw changes meanwhile, but the first reading decides.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

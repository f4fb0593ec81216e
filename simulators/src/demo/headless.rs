//! The demo without a terminal: things are taken away and brought back by a timetable, and at the end everything is judged.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::summary::{Audit, Findings, Summary};
use super::{Demo, STEP, daemon};
use crate::net::cloud::lock;

/// How long stations and cloud may take, once the last car has left, until everything has arrived.
const DRAIN_PATIENCE_MS: u64 = 60_000;
/// The longest that the broker or the meter stays away in a long run, in ms.
const LONGEST_AWAY_MS: u64 = 20_000;

/// What is to happen during the run.
#[derive(Clone, Copy, Debug)]
pub struct Timetable {
    /// How long cars come and go.
    pub duration: Duration,
    /// Whether the broker and the meter go away and come back.
    pub chaos: bool,
    /// How often the controller is killed.
    pub kills: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    BrokerGone,
    BrokerBack,
    MeterGone,
    MeterBack,
    Kill,
    Explain,
}

impl Timetable {
    /// What happens when, in ms from the start.
    fn acts(&self) -> Vec<(u64, Act)> {
        let whole = u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX);
        let at = |percent: u64| whole / 100 * percent;
        let mut acts = vec![(at(45), Act::Explain)];
        if self.chaos {
            let away = at(20).min(LONGEST_AWAY_MS);
            acts.extend([(at(20), Act::BrokerGone), (at(20) + away, Act::BrokerBack)]);
            acts.extend([(at(55), Act::MeterGone), (at(55) + away, Act::MeterBack)]);
        }
        let kills = u64::from(self.kills);
        acts.extend((0..kills).map(|kill| (whole / 20 + whole * 9 / 10 * kill / kills, Act::Kill)));
        acts.sort_by_key(|(at, _)| *at);
        acts
    }
}

/// Runs the timetable, waits until everything has arrived, and judges.
///
/// # Errors
/// If the demo itself fails, or somebody interrupts it.
pub async fn run(demo: &mut Demo, timetable: Timetable) -> Result<Summary, String> {
    let start = demo.elapsed_ms();
    let end = start + u64::try_from(timetable.duration.as_millis()).unwrap_or(u64::MAX);
    let mut acts = timetable.acts().into_iter().peekable();
    let mut findings = Findings::default();
    let mut explain_wanted = false;
    let mut step = interval(STEP);
    step.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    while demo.elapsed_ms() < end {
        tokio::select! {
            _ = step.tick() => {
                demo.step()?;
                findings.look(demo.status.borrow().as_ref());
                let away = !demo.processes.controller_runs();
                findings.absence.look(away, demo.elapsed_ms(), || demo.plant.profile_limits());
            }
            _ = &mut interrupted => return Err("interrupted".to_owned()),
        }
        while let Some((_, act)) = acts.next_if(|(at, _)| demo.elapsed_ms() - start >= *at) {
            explain_wanted |= act == Act::Explain;
            perform(demo, act)?;
        }
        // Asked when the controller is there: nobody can explain anything while it is killed.
        if explain_wanted && everyone_connected(demo) {
            explain_wanted = false;
            findings.explain_asked = true;
            findings.explain_failures = explain(demo).await?;
        }
    }
    demo.plant.close();
    let drained = drain(demo, &mut step).await?;
    if !findings.explain_asked {
        findings.explain_asked = everyone_connected(demo);
        findings.explain_failures = explain(demo).await?;
    }
    findings.drained = drained;
    let status = demo.status.borrow().clone();
    findings.clean_stop = demo.processes.stop_controller();
    let cloud = lock(&demo.cloud).clone();
    let audit = Audit::of(&demo.plant.ledgers(), &cloud.consumer);
    findings.log_errors = log_errors(demo);
    Ok(Summary::new(demo, findings, audit, (status.as_ref(), &cloud)))
}

fn perform(demo: &mut Demo, act: Act) -> Result<(), String> {
    match act {
        Act::BrokerGone => demo.set_broker(false)?,
        Act::BrokerBack => demo.set_broker(true)?,
        Act::MeterGone => demo.set_meter(false),
        Act::MeterBack => demo.set_meter(true),
        Act::Kill => demo.kill_controller(),
        Act::Explain => {}
    }
    Ok(())
}

fn everyone_connected(demo: &Demo) -> bool {
    demo.status.borrow().as_ref().is_some_and(|status| {
        status.chargers.len() == super::STATIONS.len() && status.chargers.iter().all(|charger| charger.connected)
    })
}

/// Asks the command line for every station, while the site goes on.
async fn explain(demo: &mut Demo) -> Result<Vec<String>, String> {
    let (siteward, places) = (demo.siteward.clone(), demo.places.clone());
    let mut asking = tokio::task::spawn_blocking(move || daemon::explain_all(&siteward, &places));
    let mut step = interval(STEP);
    loop {
        tokio::select! {
            answer = &mut asking => return answer.map_err(|error| error.to_string()),
            _ = step.tick() => demo.step()?,
        }
    }
}

/// Waits until the stations have told everything and the cloud has it. Says whether that was in time.
async fn drain(demo: &mut Demo, step: &mut tokio::time::Interval) -> Result<bool, String> {
    let deadline = demo.elapsed_ms() + DRAIN_PATIENCE_MS;
    while demo.elapsed_ms() < deadline {
        step.tick().await;
        demo.step()?;
        // The status is older than what is looked at next: an event made after it is then in the count of the cloud, not missing.
        let status = demo.status.borrow().clone();
        let Some(status) = status else { continue };
        let delivered = lock(&demo.cloud).consumer.last() >= status.last_sequence;
        let backlog = status.cloud.as_ref().map_or(u64::MAX, |cloud| cloud.backlog);
        if demo.plant.queued() == 0
            && status.transactions.is_empty()
            && delivered
            && backlog == 0
            && everyone_connected(demo)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The lines of the daemon's log that say ERROR: it broke a promise.
fn log_errors(demo: &Demo) -> Vec<String> {
    let log = std::fs::read_to_string(demo.places.log()).unwrap_or_default();
    log.lines()
        .filter(|line| line.split_whitespace().take(4).any(|word| word == "ERROR" || word == "panicked"))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_goes_away_comes_back_before_the_end() {
        for seconds in [25, 60, 600] {
            let timetable = Timetable { duration: Duration::from_secs(seconds), chaos: true, kills: 5 };
            let acts = timetable.acts();
            let place = |wanted: Act| acts.iter().position(|(_, act)| *act == wanted).unwrap();
            assert!(place(Act::BrokerGone) < place(Act::BrokerBack));
            assert!(place(Act::BrokerBack) < place(Act::MeterGone));
            assert!(place(Act::MeterGone) < place(Act::MeterBack));
            assert_eq!(acts.iter().filter(|(_, act)| *act == Act::Kill).count(), 5);
            assert!(acts.iter().all(|(at, _)| *at < seconds * 1000));
        }
    }
}

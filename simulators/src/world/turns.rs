//! Once a second: does everybody's turn begin when the controller said that it would at the latest?
//!
//! What it says holds as long as nobody else comes, no limit falls, and the controller is not started again. So it is held against it on sites
//! where nothing of that can happen but the coming of cars: without meters, inverters and faults.

use siteward::engine::plan::NOT_FORESEEABLE;

use super::World;
use super::blueprint::Blueprint;

/// Whether nothing but cars can change what the queue says.
pub(super) fn is_steady(site: &Blueprint) -> bool {
    let measured = site.circuit.iter().any(|circuit| circuit.meter.is_some());
    let odd = site.station.iter().any(|station| station.odd.is_some());
    !measured && !odd && site.pv.is_none() && site.fault.is_empty()
}

impl World {
    /// Holds those who wait to the earliest start that they were ever told since the last car came.
    pub(super) fn hold_to_the_queue(&mut self) {
        let Some(running) = &self.controller else { return };
        let mut told = vec![None; self.posts.iter().map(|post| post.places.len()).sum()];
        for place in running.controller.site().queue().iter().filter(|place| place.starts != NOT_FORESEEABLE) {
            told[place.evse.0] = Some(running.started_ms + place.starts.ms());
        }
        let mut told = told.into_iter();
        let mut late = Vec::new();
        for post in &mut self.posts {
            let least = post.least();
            for (evse, place) in (1..=post.plan.evses).zip(&mut post.places) {
                let now_told = told.next().flatten();
                if post.station.offered(evse) >= least || post.station.running(evse).is_none() {
                    self.counts.turns += u64::from(place.starts_by.take().is_some());
                    continue;
                }
                place.starts_by = [place.starts_by, now_told].into_iter().flatten().min();
                if place.starts_by.take_if(|by| *by < self.now_ms).is_some() {
                    late.push((post.station.options().identity.clone(), evse));
                }
            }
        }
        for (identity, evse) in late {
            let what = format!("{identity} connector {evse} still waits when its turn should have begun at the latest");
            self.oracle.violate("nobody_waits_longer_than_the_queue_says", what);
        }
    }

    /// Somebody came: what was said before holds no longer.
    pub(super) fn forget_what_the_queue_said(&mut self) {
        self.posts.iter_mut().flat_map(|post| &mut post.places).for_each(|place| place.starts_by = None);
    }
}

//! What drivers and operators read: why an EVSE has what it has, in plain words and in the site's local time.

use super::Site;
use super::wishes::{Course, kwh};
use crate::engine::model::exchange::{AuthorizationStatus, ConnectorStatus};
use crate::engine::model::status::TargetStatus;
use crate::engine::model::topology::{Evse, EvseIndex};
use crate::engine::model::wish::{TargetSource, clock_text};
use crate::engine::time::Now;
use crate::engine::units::Energy;

impl Site {
    /// Why an EVSE is offered nothing although nothing is in its way.
    pub(super) fn why_no_demand(&self, index: EvseIndex, now: Now) -> String {
        let control = &self.evses[index.0];
        match control.status {
            Some(ConnectorStatus::Faulted) => return "paused: the connector reports a fault".to_owned(),
            Some(ConnectorStatus::Unavailable) => return "paused: the connector is out of service".to_owned(),
            Some(
                ConnectorStatus::Available
                | ConnectorStatus::Preparing
                | ConnectorStatus::Charging
                | ConnectorStatus::SuspendedEv
                | ConnectorStatus::SuspendedEvse
                | ConnectorStatus::Finishing
                | ConnectorStatus::Reserved
                | ConnectorStatus::Occupied,
            )
            | None => {}
        }
        let Some(open) = self.open_at(index) else {
            return match control.status {
                Some(ConnectorStatus::Preparing | ConnectorStatus::Occupied) => {
                    "paused: a cable is in, but nobody has started charging yet"
                }
                Some(ConnectorStatus::Finishing) => "paused: charging has ended, the cable is still in",
                Some(_) | None => "paused: no transaction wants to charge here",
            }
            .to_owned();
        };
        match &open.facts.token {
            Some(token) if self.authorize(token, now) != AuthorizationStatus::Accepted => {
                format!("paused: token {:?} may not charge ({:?})", token.as_str(), self.authorize(token, now))
            }
            Some(_) if self.wishes[index.0].used_up => "paused: what an unknown token may have is used up".to_owned(),
            None => "paused: nobody has identified for the transaction yet".to_owned(),
            Some(_) => "paused: the car wants nothing".to_owned(),
        }
    }

    /// `4th of 7 in the queue, starts by 14:20`; `None`: it does not wait.
    pub(super) fn place_in_queue(&self, index: EvseIndex, now: Now) -> Option<String> {
        let place = self.queue_status(index, now)?;
        let position = ordinal(place.position);
        if !now.utc_trusted {
            let minutes = place.starts_by.since(now.utc).max(0) / 60_000;
            return Some(format!("{position} of {} in the queue, starts within {} min", place.of, minutes + 1));
        }
        let by = clock_text(place.starts_by, now.utc, self.setup.timezone);
        Some(format!("{position} of {} in the queue, starts by {by}", place.of))
    }

    /// The target at an EVSE as the interfaces show it.
    pub(super) fn target_status(&self, index: EvseIndex, now: Now) -> Option<TargetStatus> {
        let Course { target, missing, short } = self.course(index)?;
        Some(TargetStatus {
            energy_wh: target.energy.wh(),
            departure: target.departure,
            source: source(target.source).to_owned(),
            missing_wh: missing.wh(),
            short_wh: short.wh(),
            effective: now.utc_trusted,
        })
    }

    /// Boost, target and place in the queue, as sentences.
    pub(super) fn wishes_text(&self, index: EvseIndex, now: Now) -> String {
        let zone = self.setup.timezone;
        let wish = &self.wishes[index.0];
        let mut parts = Vec::new();
        if let Some(boost) = &wish.boost {
            parts.push(format!("goes first (boost) until {}", clock_text(boost.until, now.utc, zone)));
        }
        if let Some(Course { target, missing, short }) = self.course(index) {
            let by = clock_text(target.departure, now.utc, zone);
            let course = match (now.utc_trusted, short > Energy::ZERO, self.takes_no_more(index)) {
                (false, _, _) => "not steered for while the clock is not synchronised".to_owned(),
                (true, _, true) => format!("{} missing, but the car takes no more", kwh(missing)),
                (true, true, false) => format!("cannot be met: short by {}", kwh(short)),
                (true, false, false) => format!("on course, {} to go", kwh(missing)),
            };
            parts.push(format!("{} by {by} (from {}): {course}", kwh(target.energy), described(target.source)));
        }
        parts.extend(self.place_in_queue(index, now));
        let Evse { station, .. } = self.setup.topology.evse(index);
        let usual = self.setup.topology.station(station);
        if wish.min > usual.min {
            parts.push(format!("its car needs at least {}", wish.min));
        }
        if wish.max < usual.max {
            parts.push(format!("its token may have {} at most", wish.max));
        }
        parts.join("; ")
    }
}

/// 1st, 2nd, 3rd, 4th … 11th, 12th, 13th … 21st.
fn ordinal(number: usize) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// Who set a target, as the interfaces name it.
const fn source(source: TargetSource) -> &'static str {
    match source {
        TargetSource::Token => "token",
        TargetSource::Car => "car",
        TargetSource::Command => "command",
    }
}

const fn described(source: TargetSource) -> &'static str {
    match source {
        TargetSource::Token => "its token",
        TargetSource::Car => "its car",
        TargetSource::Command => "a command",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_as_people_count() {
        let told: Vec<String> = [1, 2, 3, 4, 11, 12, 13, 21, 102, 111].into_iter().map(ordinal).collect();
        assert_eq!(told, ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"]);
    }
}

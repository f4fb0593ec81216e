//! What the station does when the CSMS asks for something, in one place for both versions.

use serde_json::{Value, json};
use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::time::Now;
use siteward::engine::units::Current;

use super::link::Plain;
use super::profiles::{Profile, Purpose, periods_json};
use super::transaction::TxPart;
use super::{Station, StopReason, v16, v201};

/// The code and description of a CALLERROR.
pub(super) type Refusal = (&'static str, String);

impl Station {
    /// The answer's payload to a CALL.
    pub(super) fn answer(&mut self, action: &str, payload: &Value, now: Now) -> Result<Value, Refusal> {
        match (action, self.options.version) {
            ("SetChargingProfile", _) => self.set_charging_profile(payload, now),
            ("ClearChargingProfile", _) => Ok(self.clear_charging_profile(payload)),
            ("GetCompositeSchedule", _) => self.composite_schedule(payload, now),
            ("TriggerMessage", _) => Ok(self.trigger(payload, now)),
            ("ChangeAvailability", _) => self.change_availability(payload),
            ("Reset", _) => Ok(self.reset(payload, now)),
            ("ClearCache", _) => Ok(self.clear_cache()),
            ("GetLocalListVersion", _) => self.local_list_version(),
            ("SendLocalList", _) => self.send_local_list(payload),
            (_, OcppVersion::V16) => v16::answer(self, action, payload, now),
            (_, OcppVersion::V201 | OcppVersion::V21) => v201::answer(self, action, payload, now),
        }
    }

    fn set_charging_profile(&mut self, payload: &Value, now: Now) -> Result<Value, Refusal> {
        let (evse_name, profile_name, formation) = match self.options.version {
            OcppVersion::V16 => ("connectorId", "csChargingProfiles", "FormationViolation"),
            OcppVersion::V201 | OcppVersion::V21 => ("evseId", "chargingProfile", "FormatViolation"),
        };
        let evse = number(payload, evse_name).ok_or((formation, format!("{evse_name} is missing")))?;
        let value = payload.get(profile_name).ok_or((formation, format!("{profile_name} is missing")))?;
        let voltage_mv = i64::from(self.options.voltage.mv());
        let profile =
            Profile::parse(self.options.version, evse, value, voltage_mv).map_err(|error| (formation, error))?;
        let status = if self.accepts(&profile) { "Accepted" } else { "Rejected" };
        if status == "Accepted" {
            self.profile_writes += 1;
            let quirks = &self.options.quirks;
            self.profiles.install(match (quirks.never_falls_back, quirks.never_ends_by_time) {
                (true, _) => profile.without_an_end(),
                (false, true) => profile.without_an_end_in_time(),
                (false, false) => profile,
            });
            self.offers_are_old = true;
            let allowed = self.limit_at(evse, self.clock(now)).limit;
            if allowed.is_some_and(|allowed| self.offered(evse) > allowed) {
                self.lowered_at = Some(now.mono);
            }
        }
        Ok(json!({"status": status}))
    }

    fn accepts(&self, profile: &Profile) -> bool {
        let quirks = &self.options.quirks;
        if quirks.refuses_profiles || (quirks.refuses_zero && profile.has_zero()) {
            return false;
        }
        let (level, periods) = (quirks.highest_level.unwrap_or(8), quirks.most_periods.unwrap_or(24));
        if profile.evse > self.options.evses || profile.stack_level > level || profile.period_count() > periods {
            return false;
        }
        if quirks.watts_only && !profile.is_in_watts() {
            return false;
        }
        match profile.purpose {
            Purpose::StationMax => profile.evse == 0,
            Purpose::TxDefault => true,
            // A TxProfile is for a running transaction only (1.6 §5.16.2, 2.0.1 K01.FR.09).
            Purpose::Tx => {
                let running = self.running(profile.evse).and_then(|truth| truth.id.clone());
                running.is_some() && profile.transaction.as_ref().is_none_or(|id| running.as_ref() == Some(id))
            }
        }
    }

    fn clear_charging_profile(&mut self, payload: &Value) -> Value {
        let (id, criteria, evse_name, purpose_name) = match self.options.version {
            OcppVersion::V16 => (payload.get("id"), payload, "connectorId", "chargingProfilePurpose"),
            OcppVersion::V201 | OcppVersion::V21 => (
                payload.get("chargingProfileId"),
                payload.get("chargingProfileCriteria").unwrap_or(&Value::Null),
                "evseId",
                "chargingProfilePurpose",
            ),
        };
        let id = id.and_then(Value::as_i64);
        let evse = number(criteria, evse_name);
        let level = criteria.get("stackLevel").and_then(Value::as_i64);
        let purpose = criteria.get(purpose_name).and_then(Value::as_str).map(|name| match name {
            "TxProfile" => Purpose::Tx,
            "TxDefaultProfile" => Purpose::TxDefault,
            _ => Purpose::StationMax,
        });
        let gone = self.profiles.remove(|profile| {
            id.map_or_else(
                || {
                    evse.is_none_or(|wanted| profile.evse == wanted)
                        && level.is_none_or(|wanted| profile.stack_level == wanted)
                        && purpose.is_none_or(|wanted| profile.purpose == wanted)
                },
                |wanted| profile.id == wanted,
            )
        });
        self.offers_are_old = true;
        json!({"status": if gone > 0 { "Accepted" } else { "Unknown" }})
    }

    fn composite_schedule(&self, payload: &Value, now: Now) -> Result<Value, Refusal> {
        let evse_name = if self.options.version == OcppVersion::V16 { "connectorId" } else { "evseId" };
        let (Some(evse), Some(duration)) =
            (number(payload, evse_name), payload.get("duration").and_then(Value::as_i64))
        else {
            return Err(("PropertyConstraintViolation", format!("{evse_name} and duration are needed")));
        };
        if evse > self.options.evses || self.options.quirks.keeps_its_schedule_secret {
            return Ok(json!({"status": "Rejected"}));
        }
        let clock = self.clock(now);
        let max = self.options.max;
        let phases = usize::try_from(self.options.wiring.phases().len()).unwrap_or(3);
        let limited = |at| {
            let mut found = self.limit_at(evse, at);
            found.limit = Some(found.limit.map_or(max, |limit: Current| limit.min(max)));
            found
        };
        let in_watts = payload.get("chargingRateUnit").and_then(Value::as_str) == Some("W");
        let mw_per_a = i64::from(self.options.voltage.mv()) * i64::try_from(phases).unwrap_or(3);
        let periods = periods_json(limited, clock, duration, (phases, in_watts.then_some(mw_per_a)));
        let unit = if in_watts { "W" } else { "A" };
        let start = clock.to_string();
        Ok(match self.options.version {
            OcppVersion::V16 => json!({"status": "Accepted", "connectorId": evse, "scheduleStart": start,
                "chargingSchedule": {"duration": duration, "startSchedule": start, "chargingRateUnit": unit, "chargingSchedulePeriod": periods}}),
            OcppVersion::V201 | OcppVersion::V21 => {
                json!({"status": "Accepted", "schedule": {"evseId": evse, "duration": duration,
                "scheduleStart": start, "chargingRateUnit": unit, "chargingSchedulePeriod": periods}})
            }
        })
    }

    fn trigger(&mut self, payload: &Value, now: Now) -> Value {
        let evse = number(payload, "connectorId").or_else(|| payload.get("evse").and_then(|evse| number(evse, "id")));
        let at = self.clock(now);
        let wanted: Vec<usize> =
            (0..self.bays.len()).filter(|index| evse.is_none_or(|evse| self.bays[*index].number == evse)).collect();
        match payload.get("requestedMessage").and_then(Value::as_str) {
            Some("BootNotification") => self.link.push(Plain::Boot { reason: "Triggered" }),
            Some("Heartbeat") => self.link.push(Plain::Heartbeat),
            Some("StatusNotification") => {
                for index in wanted {
                    let (evse, status) = (self.bays[index].number, self.bays[index].status());
                    self.link.push(Plain::Status { evse, status, at });
                }
            }
            Some("MeterValues" | "TransactionEvent") => {
                for index in wanted {
                    self.tell(index, TxPart::Metered, now);
                }
            }
            _ => return json!({"status": "NotImplemented"}),
        }
        json!({"status": "Accepted"})
    }

    fn reset(&mut self, payload: &Value, now: Now) -> Value {
        let kind = payload.get("type").and_then(Value::as_str);
        let busy = self.bays.iter().any(|bay| bay.running.is_some());
        match kind {
            Some("OnIdle") if busy => {
                self.reset_when_idle = true;
                json!({"status": "Scheduled"})
            }
            Some("Hard" | "Immediate") => {
                self.reboot(StopReason::HardReset, now);
                json!({"status": "Accepted"})
            }
            Some("Soft" | "OnIdle") => {
                self.reboot(StopReason::SoftReset, now);
                json!({"status": "Accepted"})
            }
            _ => json!({"status": "Rejected"}),
        }
    }

    /// `RemoteStartTransaction`, `RequestStartTransaction`: whether it was possible.
    pub(super) fn start_remotely(&mut self, evse: Option<u32>, token: &str, start_id: Option<i64>, now: Now) -> bool {
        let possible = |bay: &super::Bay| {
            bay.running.is_none() && bay.car.is_some() && !bay.inoperative && evse.is_none_or(|evse| bay.number == evse)
        };
        let Some(index) = self.bays.iter().position(possible) else { return false };
        let bay = &mut self.bays[index];
        bay.token = Some(token.to_owned());
        bay.remote_start = start_id;
        bay.finishing = false;
        self.start(index, now);
        true
    }

    /// Whether a transaction has ended at an EVSE while its car is still plugged in.
    #[must_use]
    pub fn is_finishing(&self, evse: u32) -> bool {
        self.bays.iter().any(|bay| bay.number == evse && bay.finishing && bay.car.is_some() && bay.running.is_none())
    }

    /// The driver of a car whose transaction has ended holds the card up again: without that nothing begins anew.
    pub fn hold_up(&mut self, evse: u32, token: &str) {
        if self.is_finishing(evse)
            && let Some(bay) = self.bays.iter_mut().find(|bay| bay.number == evse)
        {
            bay.finishing = false;
            bay.token = Some(token.to_owned());
            bay.authorized = false;
            bay.asked = false;
        }
    }

    /// `RemoteStopTransaction`, `RequestStopTransaction`: whether there is such a transaction.
    pub(super) fn stop_remotely(&mut self, id: &str, now: Now) -> bool {
        let running = |bay: &super::Bay| bay.running.as_ref().and_then(|running| self.transactions.get(running.index));
        let found = self.bays.iter().position(|bay| running(bay).is_some_and(|truth| truth.id.as_deref() == Some(id)));
        if let Some(index) = found.filter(|_| !self.options.quirks.ignores_stop) {
            self.stop(index, StopReason::Remote, now);
        }
        found.is_some()
    }
}

/// An EVSE's number.
pub(super) fn number(value: &Value, name: &str) -> Option<u32> {
    value.get(name).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok())
}

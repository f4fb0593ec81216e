//! What stations say that they draw, read by the guard itself, and only to be sure what they do **not** draw: wherever a message can be read in
//! more than one way, the larger current counts, and what cannot be read may be any.

use serde_json::{Map, Value};

use super::hold::Ms;
use super::ms;
use crate::engine::model::topology::Station;
use crate::engine::time::Mono;
use crate::engine::units::{Current, PerPhase, Phase, Power, Voltage};

/// A sample is believed for some intervals of the station; a message may be late besides. Nobody else counts on one for so long.
const INTERVALS: u64 = 4;
const LATE_MS: u64 = 60_000;

/// The most that a station has said that one of its EVSEs draws on each grid phase, of late.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    /// The most since a moment, and in the time before that.
    newest: PerPhase<Current>,
    before: PerPhase<Current>,
    since: Ms,
    /// Each of the two lasts so long.
    lasts: Ms,
}

impl Said {
    /// Takes in a frame of a station, if it says what flows.
    pub(super) fn hear(&mut self, text: &str, station: &Station, voltage: Voltage, now: Mono) {
        let Some(draws) = draws(text, station, voltage) else { return };
        self.lasts = super::span(station.model.meter_interval_ms.saturating_mul(INTERVALS).saturating_add(LATE_MS));
        let age = ms(now).saturating_sub(self.since);
        if age > self.lasts {
            self.before = if age > 2 * self.lasts { PerPhase::default() } else { self.newest };
            self.newest = PerPhase::default();
            self.since = ms(now);
        }
        self.newest = self.newest.zip_with(draws, Current::max);
    }

    /// The most of late.
    pub(super) fn most(&self, now: Mono) -> PerPhase<Current> {
        let is_over = ms(now).saturating_sub(self.since) > 2 * self.lasts;
        if is_over { PerPhase::default() } else { self.newest.zip_with(self.before, Current::max) }
    }
}

/// The most that a frame says of each grid phase of its station; `None`: it says nothing of that.
fn draws(text: &str, station: &Station, voltage: Voltage) -> Option<PerPhase<Current>> {
    // An escape could hide the word.
    if !text.contains("sampledValue") && !text.contains("\\u") {
        return None;
    }
    let mut most: Option<PerPhase<Current>> = None;
    match serde_json::from_str::<Value>(text) {
        Ok(value) => look(&value, &mut |samples| {
            let draws = Samples::of(samples).draws(station, voltage);
            most = Some(most.unwrap_or_default().zip_with(draws, Current::max));
        }),
        Err(_) => most = Some(PerPhase::splat(Current::MAX)),
    }
    most
}

/// Finds all samples, wherever they are.
fn look(value: &Value, found: &mut impl FnMut(&Value)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| look(item, found)),
        Value::Object(fields) => {
            if let Some(samples) = fields.get("sampledValue") {
                found(samples);
            }
            fields.values().for_each(|field| look(field, found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The samples of one time, in mA and W: at each terminal, and of all of them or of nobody knows which.
#[derive(Default)]
struct Samples {
    current: PerPhase<Option<i64>>,
    current_whole: Option<i64>,
    power: PerPhase<Option<i64>>,
    power_whole: Option<i64>,
}

impl Samples {
    fn of(samples: &Value) -> Self {
        let mut all = Self::default();
        let list = match samples {
            Value::Array(items) => items.as_slice(),
            other => std::slice::from_ref(other),
        };
        list.iter().filter_map(fields_of).for_each(|sample| all.take(sample));
        all
    }

    fn take(&mut self, sample: &Map<String, Value>) {
        let measurand = sample.get("measurand").and_then(Value::as_str).unwrap_or_default().trim();
        let (is_current, places, whole) = if measurand.eq_ignore_ascii_case("Current.Import") {
            (true, &mut self.current, &mut self.current_whole)
        } else if measurand.eq_ignore_ascii_case("Power.Active.Import") {
            (false, &mut self.power, &mut self.power_whole)
        } else {
            return;
        };
        let phase = sample.get("phase").filter(|phase| !phase.is_null());
        let place = match phase.map(|phase| phase.as_str().unwrap_or_default().trim().to_ascii_uppercase()).as_deref() {
            Some("L1" | "L1-N") => places.get_mut(Phase::L1),
            Some("L2" | "L2-N") => places.get_mut(Phase::L2),
            Some("L3" | "L3-N") => places.get_mut(Phase::L3),
            // What flows there flows on a phase as well.
            Some("N" | "L1-L2" | "L2-L3" | "L3-L1") => return,
            Some(_) | None => whole,
        };
        *place = (*place).max(Some(amount(sample, is_current)));
    }

    fn draws(&self, station: &Station, voltage: Voltage) -> PerPhase<Current> {
        let measured = self.current.map(|each| each.max(self.current_whole));
        if station.dc.is_none() && measured.iter().any(|(_, each)| each.is_some()) {
            return station.wiring.attribute(measured.map(|each| Some(current(each.unwrap_or_default())))).1;
        }
        let by_phase: i64 = self.power.iter().filter_map(|(_, each)| *each).fold(0, i64::saturating_add);
        let power = Power::from_w(by_phase.max(self.power_whole.unwrap_or_default()));
        let terminals = i64::try_from(station.wiring.terminals()).unwrap_or(1).max(1);
        let each = match station.dc {
            Some(dc) => dc.current_for(power, voltage, station.wiring),
            None => Power::from_w(power.w() / terminals).current_at(voltage),
        };
        station.wiring.phases().spread(each.unwrap_or(Current::MAX))
    }
}

fn fields_of(value: &Value) -> Option<&Map<String, Value>> {
    match value {
        Value::Object(fields) => Some(fields),
        Value::Array(items) => items.first().and_then(Value::as_object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// A sample's value in mA or W, at least 0 and rounded up; more than anything where it cannot be read.
fn amount(sample: &Map<String, Value>, is_current: bool) -> i64 {
    read(sample, is_current).unwrap_or(i64::MAX)
}

fn read(sample: &Map<String, Value>, is_current: bool) -> Option<i64> {
    let measure = sample.get("unitOfMeasure").filter(|measure| !measure.is_null());
    let fields = measure.map_or(Some(sample), fields_of)?;
    let is_plain = |multiplier: &Value| multiplier.is_null() || multiplier.as_i64() == Some(0);
    let is_raw = |format: &Value| format.is_null() || format.as_str() == Some("Raw");
    if !fields.get("multiplier").is_none_or(is_plain) || !sample.get("format").is_none_or(is_raw) {
        return None;
    }
    let unit = match fields.get("unit") {
        None | Some(Value::Null) => "",
        Some(unit) => unit.as_str()?.trim(),
    };
    let factor = match (is_current, unit.to_ascii_lowercase().as_str()) {
        (true, "" | "a" | "amp" | "amperes") | (false, "kw") => 1_000.0,
        (true, "ma") | (false, "" | "w" | "watt" | "watts") => 1.0,
        (true | false, _) => return None,
    };
    let value = sample.get("value")?;
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    whole(number * factor)
}

#[expect(clippy::cast_possible_truncation, reason = "it is held below any number that does not fit")]
fn whole(value: f64) -> Option<i64> {
    // One more than enough, for the decimals that a rounding may go either way with.
    (value.is_finite() && value < 1e15).then(|| value.max(0.0).ceil() as i64 + 1)
}

fn current(ma: i64) -> Current {
    Current::from_ma(i32::try_from(ma).unwrap_or(i32::MAX))
}

#[cfg(test)]
#[path = "said_tests.rs"]
mod tests;

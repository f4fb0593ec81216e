//! Meter values of stations, in the form that OCPP 1.6 and 2.0.1 share but for the unit.

use super::lenient::{Decimal, Fields, Notes, shown};
use super::tree::Json;
use crate::engine::model::ids::TransactionId;
use crate::engine::model::reading::StationReading;
use crate::engine::model::signed::SignedValue;
use crate::engine::time::Utc;
use crate::engine::units::{Current, Energy, PerPhase, Phase, Power};

/// The most sampling times that are kept of one message: a day of 15-minute samples is 96, a long transaction's data some hundred.
const MAX_READINGS: usize = 1_000;

/// The longest public key (`string[2500]`).
const MAX_KEY_BYTES: usize = 2_500;

/// Where the values of a message belong.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    /// The EVSE; 0 where the message names none.
    pub(super) evse: u32,
    /// The transaction, if the message names one.
    pub(super) transaction: Option<TransactionId>,
}

/// Reads the elements of a `meterValue` or `transactionData`: one reading for each time. Times without any value that means something to the
/// site give none.
pub(super) fn readings(values: &[Json<'_>], origin: &Origin, notes: &mut Notes) -> Vec<StationReading> {
    let mut samplings: Vec<Sampling> = Vec::new();
    for value in values {
        let Some(fields) = Fields::of(value) else {
            notes.add(format!("a meter value is {}, not an object", shown(value)));
            continue;
        };
        let at = fields.time("timestamp", notes);
        let mut sampling = match samplings.last() {
            // Some stations send one element for each measurand of the same moment.
            Some(last) if at.is_some() && last.at == at => samplings.pop().unwrap_or_default(),
            Some(_) | None => Sampling { at, ..Sampling::default() },
        };
        for sample in fields.list("sampledValue", notes) {
            if let Err(problem) = sampling.take(sample, notes) {
                notes.add(format!("sampledValue {}: {problem}", shown(sample)));
            }
        }
        if samplings.len() == MAX_READINGS {
            notes.add(format!("more than {MAX_READINGS} sampling times"));
            break;
        }
        samplings.push(sampling);
    }
    samplings.iter().filter_map(|sampling| sampling.reading(origin)).collect()
}

/// What is measured that the site has a use for. All else (voltage, frequency, export …) is ignored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Measurand {
    Current,
    Power,
    Energy,
    StateOfCharge,
}

impl Measurand {
    fn named(name: Option<&str>) -> Option<Self> {
        let Some(name) = name else { return Some(Self::Energy) };
        let known = [
            ("Current.Import", Self::Current),
            ("Power.Active.Import", Self::Power),
            ("Energy.Active.Import.Register", Self::Energy),
            ("SoC", Self::StateOfCharge),
        ];
        known.into_iter().find(|(text, _)| text.eq_ignore_ascii_case(name)).map(|(_, measurand)| measurand)
    }

    /// The power of ten from a unit to mA, W, Wh or %. A missing unit is A, W, Wh or %.
    fn shift(self, unit: Option<&str>) -> Option<i32> {
        let units: &[(&str, i32)] = match self {
            Self::Current => &[("A", 3), ("mA", 0), ("kA", 6), ("Amp", 3), ("Amperes", 3)],
            Self::Power => &[("W", 0), ("kW", 3), ("Watt", 0), ("Watts", 0)],
            Self::Energy => &[("Wh", 0), ("kWh", 3), ("MWh", 6)],
            Self::StateOfCharge => &[("Percent", 0), ("%", 0)],
        };
        let Some(unit) = unit else {
            return Some(if self == Self::Current { 3 } else { 0 });
        };
        units.iter().find(|(text, _)| text.eq_ignore_ascii_case(unit)).map(|(_, shift)| *shift)
    }
}

/// A value and how well it fits what is asked for: a value taken at the outlet wins over one from elsewhere, and any over the register's
/// stand at the transaction's begin, which some stations repeat in every message.
#[derive(Clone, Copy, Debug, Default)]
struct Slot(Option<(u8, i64)>);

impl Slot {
    fn put(&mut self, rank: u8, value: i64) {
        if self.0.is_none_or(|(best, _)| rank >= best) {
            self.0 = Some((rank, value));
        }
    }

    fn value(self) -> Option<i64> {
        self.0.map(|(_, value)| value)
    }
}

/// A quantity as a whole and for each phase.
#[derive(Clone, Copy, Debug, Default)]
struct Slots {
    whole: Slot,
    phases: PerPhase<Slot>,
}

impl Slots {
    /// The whole, or the sum of the phases.
    fn total(&self) -> Option<i64> {
        let sum = || self.phases.iter().filter_map(|(_, slot)| slot.value()).reduce(i64::saturating_add);
        self.whole.value().or_else(sum)
    }
}

/// All values of one time.
#[derive(Debug, Default)]
struct Sampling {
    at: Option<Utc>,
    current: Slots,
    power: Slots,
    energy: Slots,
    soc_percent: Slot,
    signed: Vec<SignedValue>,
}

impl Sampling {
    /// Takes in one `sampledValue`.
    fn take(&mut self, sample: &Json<'_>, notes: &mut Notes) -> Result<(), String> {
        let fields = Fields::of(sample).ok_or("not an object")?;
        if self.take_signed(fields, notes) {
            return Ok(());
        }
        let Some(measurand) = Measurand::named(fields.word("measurand", notes).as_deref()) else { return Ok(()) };
        let place = match fields.word("phase", notes) {
            None => Place::Whole,
            Some(phase) => Place::named(&phase).ok_or_else(|| format!("there is no phase {phase:?}"))?,
        };
        let value = fields.get("value").ok_or("there is no value")?;
        let number = Decimal::of(value).ok_or_else(|| format!("{} is not a number", shown(value)))?;
        let shift = unit_shift(fields, measurand, notes)?;
        let value = number.scaled(shift).ok_or("the value is too large")?;
        let rank = rank(fields, notes);
        let slots = match measurand {
            Measurand::Current if i32::try_from(value).is_err() => return Err("the current is too large".to_owned()),
            Measurand::Current => &mut self.current,
            Measurand::Power => &mut self.power,
            Measurand::Energy => &mut self.energy,
            Measurand::StateOfCharge if !(0..=100).contains(&value) => {
                return Err("a state of charge is 0 to 100 %".to_owned());
            }
            Measurand::StateOfCharge => {
                self.soc_percent.put(rank, value);
                return Ok(());
            }
        };
        match place {
            Place::Whole => slots.whole.put(rank, value),
            Place::Terminal(phase) => slots.phases.get_mut(phase).put(rank, value),
            Place::Elsewhere => {}
        }
        Ok(())
    }

    /// Takes in what is signed, byte for byte. Says whether that is all that the sample has: in OCPP 1.6 it is the value itself, also without the
    /// format that says so; in 2.x it stands beside the value.
    fn take_signed(&mut self, fields: Fields<'_>, notes: &mut Notes) -> bool {
        let context = |notes: &mut Notes| fields.text("context", notes);
        if let Some(beside) = fields.get("signedMeterValue").and_then(Fields::of) {
            let context = context(notes);
            self.signed.extend(signed_meter_value(beside, context, notes));
            return false;
        }
        let format = fields.word("format", notes);
        let value = fields.get("value");
        let text = value.and_then(Json::as_str);
        let is_signed = format.is_some_and(|format| format.eq_ignore_ascii_case("SignedData"));
        if !is_signed && !text.is_some_and(|text| text.starts_with("OCMF|")) {
            return false;
        }
        let context = context(notes);
        // The Open Charge Alliance's application note puts the object of 2.x into the text of 1.6.
        let inner: Option<Json<'_>> =
            text.filter(|text| text.starts_with('{')).and_then(|text| serde_json::from_str(text).ok());
        let object = inner.as_ref().or(value).and_then(Fields::of);
        let signed = match (object, text) {
            (Some(object), _) if object.get("signedMeterData").is_some() => signed_meter_value(object, context, notes),
            (_, Some(text)) => Some(SignedValue { data: text.to_owned(), context, ..SignedValue::default() }),
            (_, None) => None,
        };
        if signed.is_none() {
            notes.add("a signed value is not a text".to_owned());
        }
        self.signed.extend(signed);
        true
    }

    /// What was sampled; `None` if it was nothing.
    fn reading(&self, origin: &Origin) -> Option<StationReading> {
        let current = |slot: Slot| slot.value().and_then(|ma| i32::try_from(ma).ok()).map(Current::from_ma);
        let reading = StationReading {
            evse: origin.evse,
            at: self.at,
            transaction: origin.transaction.clone(),
            current: self.current.phases.map(current),
            current_total: current(self.current.whole),
            power: self.power.total().map(Power::from_w),
            energy: self.energy.total().map(Energy::from_wh),
            soc_percent: self.soc_percent.value().and_then(|percent| u8::try_from(percent).ok()),
            signed: self.signed.clone(),
        };
        let empty = StationReading {
            evse: origin.evse,
            at: self.at,
            transaction: origin.transaction.clone(),
            ..StationReading::default()
        };
        (reading != empty).then_some(reading)
    }
}

/// A `SignedMeterValueType` of OCPP 2.x.
fn signed_meter_value(fields: Fields<'_>, context: Option<String>, notes: &mut Notes) -> Option<SignedValue> {
    let Some(data) = fields.get("signedMeterData").and_then(Json::as_str) else {
        notes.add("signedMeterData is not a text".to_owned());
        return None;
    };
    let key = fields.get("publicKey").and_then(Json::as_str).filter(|key| !key.is_empty());
    Some(SignedValue {
        data: data.to_owned(),
        context,
        encoding: fields.text("encodingMethod", notes),
        method: fields.text("signingMethod", notes),
        key: key.filter(|key| key.len() <= MAX_KEY_BYTES).map(str::to_owned),
    })
}

/// What a value is a value of.
enum Place {
    Whole,
    Terminal(Phase),
    /// The neutral, or between two phases: nothing that is drawn from one.
    Elsewhere,
}

impl Place {
    fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_uppercase().as_str() {
            "L1" | "L1-N" => Self::Terminal(Phase::L1),
            "L2" | "L2-N" => Self::Terminal(Phase::L2),
            "L3" | "L3-N" => Self::Terminal(Phase::L3),
            "N" | "L1-L2" | "L2-L3" | "L3-L1" => Self::Elsewhere,
            _ => return None,
        })
    }
}

/// The power of ten by which a value must be shifted: 1.6 has `unit`, 2.0.1 `unitOfMeasure` with a multiplier.
fn unit_shift(fields: Fields<'_>, measurand: Measurand, notes: &mut Notes) -> Result<i32, String> {
    let (unit, multiplier) = match fields.get("unitOfMeasure").and_then(Fields::of) {
        Some(measure) => (measure.word("unit", notes), measure.int("multiplier", notes).unwrap_or(0)),
        None => (fields.word("unit", notes), 0),
    };
    let unit = unit.as_deref();
    let shift =
        measurand.shift(unit).ok_or_else(|| format!("{:?} is no unit for this measurand", unit.unwrap_or_default()))?;
    let multiplier = i32::try_from(multiplier).map_err(|_| "the multiplier is too large")?;
    shift.checked_add(multiplier).ok_or_else(|| "the multiplier is too large".to_owned())
}

fn rank(fields: Fields<'_>, notes: &mut Notes) -> u8 {
    let at_begin = fields.word("context", notes).is_some_and(|context| context == "Transaction.Begin");
    let at_outlet = fields.word("location", notes).is_none_or(|location| location.eq_ignore_ascii_case("Outlet"));
    match (at_begin, at_outlet) {
        (true, _) => 0,
        (false, false) => 1,
        (false, true) => 2,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn read(json: &str) -> (Vec<StationReading>, Option<String>) {
        let value: Json<'_> = serde_json::from_str(json).unwrap();
        let mut notes = Notes::default();
        let values = match &value {
            Json::List(items) => items.as_slice(),
            other => std::slice::from_ref(other),
        };
        let found = readings(values, &Origin { evse: 1, transaction: None }, &mut notes);
        (found, notes.summary())
    }

    fn one(samples: &str) -> (StationReading, Option<String>) {
        let (found, notes) = read(&format!(r#"{{"timestamp":"2026-03-01T12:00:00Z","sampledValue":[{samples}]}}"#));
        assert_eq!(found.len(), 1, "{notes:?}");
        (found[0].clone(), notes)
    }

    #[test]
    fn phases_map_to_terminals_and_the_neutral_is_ignored() {
        let (reading, notes) = one(r#"{"value":"15.9","measurand":"Current.Import","phase":"L1","unit":"A"},
               {"value":16.04,"measurand":"Current.Import","phase":"L2-N"},
               {"value":"16100","measurand":"Current.Import","phase":"L3","unit":"mA"},
               {"value":"0.3","measurand":"Current.Import","phase":"N","unit":"A"}"#);
        let ma = |value| Some(Current::from_ma(value));
        assert_eq!(reading.current, PerPhase::new(ma(15_900), ma(16_040), ma(16_100)));
        assert_eq!(reading.current_total, None);
        assert_eq!(notes, None);
    }

    #[test]
    fn power_of_phases_is_summed_only_without_a_total() {
        let phases = r#"{"value":"3.6","measurand":"Power.Active.Import","phase":"L1","unit":"kW"},
                        {"value":"3600","measurand":"Power.Active.Import","phase":"L2","unit":"W"}"#;
        assert_eq!(one(phases).0.power, Some(Power::from_w(7_200)));
        let with_total = format!(r#"{phases},{{"value":"7250","measurand":"Power.Active.Import"}}"#);
        assert_eq!(one(&with_total).0.power, Some(Power::from_w(7_250)));
    }

    #[test]
    fn a_missing_measurand_is_the_energy_register_in_wh() {
        assert_eq!(one(r#"{"value":"1234.5"}"#).0.energy, Some(Energy::from_wh(1_235)));
        assert_eq!(one(r#"{"value":"1.2345","unit":"kWh"}"#).0.energy, Some(Energy::from_wh(1_235)));
    }

    #[test]
    fn the_multiplier_is_a_power_of_ten() {
        // OCPP 2.0.1 UnitOfMeasureType: the value is multiplied by 10^multiplier.
        let (reading, _) = one(r#"{"value":12.345,"unitOfMeasure":{"unit":"Wh","multiplier":3}},
               {"value":160,"measurand":"Current.Import","phase":"L1","unitOfMeasure":{"unit":"A","multiplier":-1}}"#);
        assert_eq!(reading.energy, Some(Energy::from_wh(12_345)));
        assert_eq!(reading.current.of(Phase::L1), Some(Current::from_a(16)));
    }

    #[test]
    fn the_register_at_the_begin_does_not_hide_the_one_now() {
        let (reading, _) =
            one(r#"{"value":"5000"},{"value":"1000","context":"Transaction.Begin"},{"value":"77","location":"Inlet"}"#);
        assert_eq!(reading.energy, Some(Energy::from_wh(5_000)));
        assert_eq!(one(r#"{"value":"1000","context":"Transaction.Begin"}"#).0.energy, Some(Energy::from_wh(1_000)));
    }

    #[test]
    fn a_bad_value_costs_only_itself() {
        let (reading, notes) =
            one(r#"{"value":"abc"}, {}, 7, {"value":"1","unit":"furlong"}, {"value":"150","measurand":"SoC"},
               {"value":"9999999999","measurand":"Current.Import"},
               {"value":"1","measurand":"Current.Import","phase":"R"},
               {"value":"80","measurand":"SoC","unit":"Percent"},
               {"value":"x","measurand":"Vendor.Thing"}, {"value":7,"format":"SignedData"}"#);
        assert_eq!(
            reading,
            StationReading { evse: 1, at: reading.at, soc_percent: Some(80), ..StationReading::default() }
        );
        let notes = notes.unwrap();
        for part in ["not a number", "no value", "not an object", "furlong", "0 to 100", "too large", "phase \"R\""] {
            assert!(notes.contains(part), "{part} is not in {notes}");
        }
    }

    #[test]
    fn signed_values_are_kept_byte_for_byte() {
        let long = format!("OCMF|{{\"PG\":\"T1\",\"ID\":\"é {}\"}}|{{\"SD\":\"00\"}}  ", "x".repeat(2_000));
        let value = Value::from(long.as_str()).to_string();
        let beside = |data: &str| {
            format!(r#"{{"signedMeterData":{data},"signingMethod":"","encodingMethod":"OCMF","publicKey":"b2Nh"}}"#)
        };
        let inside = Value::from(beside(r#""T0NN""#)).to_string();
        let (reading, notes) = one(&format!(
            r#"{{"value":{value},"format":"SignedData","context":"Transaction.Begin"}}, {{"value":{value}}},
               {{"value":"0F3A","format":"SignedData","measurand":"Vendor.Thing"}},
               {{"value":12,"context":"Transaction.End","signedMeterValue":{}}},
               {{"value":{inside},"format":"SignedData"}}, {{"value":13,"signedMeterValue":{{}}}}"#,
            beside(r#""T0NN""#)
        ));
        let all: Vec<&str> = reading.signed.iter().map(|signed| signed.data.as_str()).collect();
        assert_eq!(all, [long.as_str(), &long, "0F3A", "T0NN", "T0NN"]);
        let [first, _, _, beside, inside] = reading.signed.as_slice() else { panic!("five") };
        assert_eq!((first.context.as_deref(), &first.key), (Some("Transaction.Begin"), &None));
        for object in [beside, inside] {
            let found = (object.encoding.as_deref(), object.method.as_deref(), object.key.as_deref());
            assert_eq!(found, (Some("OCMF"), None, Some("b2Nh")));
        }
        assert_eq!(reading.energy, Some(Energy::from_wh(13)), "the register stands beside it");
        assert_eq!(notes.as_deref(), Some("signedMeterData is not a text"));
    }

    #[test]
    fn values_of_one_time_are_one_reading() {
        let (found, _) = read(
            r#"[{"timestamp":"2026-03-01T12:00:00Z","sampledValue":[{"value":"1"}]},
                {"timestamp":"2026-03-01T12:00:00.000Z","sampledValue":{"value":"50","measurand":"SoC"}},
                {"timestamp":"2026-03-01T12:01:00","sampledValue":[{"value":"2"}]},
                {"timestamp":"2026-03-01T12:02:00Z","sampledValue":[]}]"#,
        );
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].energy, found[0].soc_percent), (Some(Energy::from_wh(1)), Some(50)));
        assert_eq!(found[1].at, Utc::parse("2026-03-01T12:01:00Z"));
    }
}

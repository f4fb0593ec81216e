//! SunSpec: a device lists its models in a chain behind the marker "SunS"; the models say where the values are.
//!
//! SunSpec Device Information Model Specification, and the models 101 to 103, 111 to 113, 201 to 204 and 211 to 214.

use super::value::{Value, ValueName, ValueType};
use super::{Answer, DeviceKind, Function, Request};
use crate::engine::model::reading::DeviceFault;
use crate::engine::units::Phase;

/// Where the marker may be, the most usual place first.
const BASES: [u16; 3] = [40_000, 50_000, 0];
/// "SunS".
const MARKER: [u16; 2] = [0x5375, 0x6E53];
/// The id after the last model.
const END: u16 = 0xFFFF;
/// The longest chains known have about 30 models; a chain that does not end must not keep the line busy.
const MAX_MODELS: usize = 100;

/// A model that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Model {
    /// Its number.
    pub(super) id: u16,
    /// The register with the number; the length follows, then the values.
    pub(super) address: u16,
    /// How many registers follow the length.
    pub(super) length: u16,
}

/// The walk along the chain of models.
#[derive(Clone, Debug)]
pub(super) struct Discovery {
    function: Function,
    kind: DeviceKind,
    /// How many models of this kind are still to be passed, this one included.
    instance: u16,
    base: usize,
    bases_tried: usize,
    /// `None`: the marker is asked for; otherwise the header at this register.
    header: Option<u16>,
    seen: Vec<u16>,
}

/// What the walk wants next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// Send this request.
    Ask(Request),
    /// The model was found.
    Found(Model),
    /// There is none, or the device does not answer.
    Failed(DeviceFault),
}

impl Discovery {
    pub(super) const fn new(function: Function, kind: DeviceKind, instance: u16, base: usize) -> Self {
        Self { function, kind, instance, base: base % BASES.len(), bases_tried: 0, header: None, seen: Vec::new() }
    }

    pub(super) fn request(&self) -> Request {
        Request { function: self.function, address: self.header.unwrap_or(BASES[self.base]), count: 2 }
    }

    /// Where the walk began.
    pub(super) const fn base(&self) -> usize {
        self.base
    }

    /// Where the next walk should begin after this one failed: the same place if the marker was there.
    pub(super) const fn next_base(&self) -> usize {
        if self.header.is_some() { self.base } else { (self.base + 1) % BASES.len() }
    }

    pub(super) fn take(&mut self, answer: Answer) -> Outcome {
        let words = match answer {
            Ok(words) => Some(words),
            // A refusal is an answer: there is nothing at this place.
            Err(DeviceFault::Exception { .. }) => None,
            Err(fault) => return Outcome::Failed(fault),
        };
        match (self.header, words.as_deref()) {
            (None, Some(found)) if *found == MARKER => self.go_to(BASES[self.base].checked_add(2)),
            (None, _) => self.try_next_base(),
            (Some(address), Some([id, length])) if *id != END => {
                self.model(Model { id: *id, address, length: *length })
            }
            (Some(_), _) => self.nothing(),
        }
    }

    fn go_to(&mut self, header: Option<u16>) -> Outcome {
        // A header needs two registers: it cannot begin at the last one.
        match header.filter(|address| *address < u16::MAX) {
            None => self.nothing(),
            Some(address) => {
                self.header = Some(address);
                Outcome::Ask(self.request())
            }
        }
    }

    fn try_next_base(&mut self) -> Outcome {
        self.bases_tried += 1;
        if self.bases_tried < BASES.len() {
            self.base = (self.base + 1) % BASES.len();
            return Outcome::Ask(self.request());
        }
        let message =
            format!("no SunSpec marker at registers {BASES:?}: is SunSpec switched on, and is this the right unit id?");
        Outcome::Failed(DeviceFault::Garbage(message))
    }

    fn model(&mut self, model: Model) -> Outcome {
        if self.seen.len() >= MAX_MODELS {
            return self.nothing();
        }
        self.seen.push(model.id);
        if is_of(self.kind, model.id) {
            self.instance = self.instance.saturating_sub(1);
            if self.instance == 0 {
                return Outcome::Found(model);
            }
        }
        self.go_to(model.address.checked_add(2).and_then(|address| address.checked_add(model.length)))
    }

    fn nothing(&self) -> Outcome {
        let wanted = match self.kind {
            DeviceKind::Meter => "meter (201 to 204, 211 to 214)",
            DeviceKind::Inverter => "inverter (101 to 103, 111 to 113)",
        };
        let message = format!("no SunSpec {wanted} among the models {:?} of this unit id", self.seen);
        Outcome::Failed(DeviceFault::Garbage(message))
    }
}

const fn is_of(kind: DeviceKind, model: u16) -> bool {
    match kind {
        DeviceKind::Inverter => matches!(model, 101..=103 | 111..=113),
        DeviceKind::Meter => matches!(model, 201..=204 | 211..=214),
    }
}

/// How a point is coded.
#[derive(Clone, Copy)]
enum Point {
    /// int16 with the register of its scale factor.
    Int16(u16),
    /// uint16 with the register of its scale factor.
    Uint16(u16),
    /// acc32 with the register of its scale factor.
    Acc32(u16),
    /// float32.
    Float,
}

type Table = &'static [(ValueName, u16, Point)];

const INVERTER_INT: Table = &[
    (ValueName::CurrentL1A, 3, Point::Uint16(6)),
    (ValueName::CurrentL2A, 4, Point::Uint16(6)),
    (ValueName::CurrentL3A, 5, Point::Uint16(6)),
    (ValueName::PowerW, 14, Point::Int16(15)),
    (ValueName::EnergyWh, 24, Point::Acc32(26)),
];

const INVERTER_FLOAT: Table = &[
    (ValueName::CurrentL1A, 4, Point::Float),
    (ValueName::CurrentL2A, 6, Point::Float),
    (ValueName::CurrentL3A, 8, Point::Float),
    (ValueName::PowerW, 22, Point::Float),
    (ValueName::EnergyWh, 32, Point::Float),
];

const METER_INT: Table = &[
    (ValueName::CurrentL1A, 3, Point::Int16(6)),
    (ValueName::CurrentL2A, 4, Point::Int16(6)),
    (ValueName::CurrentL3A, 5, Point::Int16(6)),
    (ValueName::VoltageL1V, 8, Point::Int16(15)),
    (ValueName::VoltageL2V, 9, Point::Int16(15)),
    (ValueName::VoltageL3V, 10, Point::Int16(15)),
    (ValueName::PowerL1W, 19, Point::Int16(22)),
    (ValueName::PowerL2W, 20, Point::Int16(22)),
    (ValueName::PowerL3W, 21, Point::Int16(22)),
    (ValueName::EnergyExportWh, 38, Point::Acc32(54)),
    (ValueName::EnergyImportWh, 46, Point::Acc32(54)),
];

const METER_FLOAT: Table = &[
    (ValueName::CurrentL1A, 4, Point::Float),
    (ValueName::CurrentL2A, 6, Point::Float),
    (ValueName::CurrentL3A, 8, Point::Float),
    (ValueName::VoltageL1V, 12, Point::Float),
    (ValueName::VoltageL2V, 14, Point::Float),
    (ValueName::VoltageL3V, 16, Point::Float),
    (ValueName::PowerL1W, 30, Point::Float),
    (ValueName::PowerL2W, 32, Point::Float),
    (ValueName::PowerL3W, 34, Point::Float),
    (ValueName::EnergyExportWh, 60, Point::Float),
    (ValueName::EnergyImportWh, 68, Point::Float),
];

/// Single-phase models: the per-phase points are optional there, the totals are not, and they are the same thing.
const INVERTER_INT_SINGLE: Table = &[
    (ValueName::CurrentL1A, 2, Point::Uint16(6)),
    (ValueName::PowerW, 14, Point::Int16(15)),
    (ValueName::EnergyWh, 24, Point::Acc32(26)),
];
const INVERTER_FLOAT_SINGLE: Table = &[
    (ValueName::CurrentL1A, 2, Point::Float),
    (ValueName::PowerW, 22, Point::Float),
    (ValueName::EnergyWh, 32, Point::Float),
];
const METER_INT_SINGLE: Table = &[
    (ValueName::CurrentL1A, 2, Point::Int16(6)),
    (ValueName::VoltageL1V, 7, Point::Int16(15)),
    (ValueName::PowerL1W, 18, Point::Int16(22)),
    (ValueName::EnergyExportWh, 38, Point::Acc32(54)),
    (ValueName::EnergyImportWh, 46, Point::Acc32(54)),
];
const METER_FLOAT_SINGLE: Table = &[
    (ValueName::CurrentL1A, 2, Point::Float),
    (ValueName::VoltageL1V, 10, Point::Float),
    (ValueName::PowerL1W, 28, Point::Float),
    (ValueName::EnergyExportWh, 60, Point::Float),
    (ValueName::EnergyImportWh, 68, Point::Float),
];

const fn table(model: u16) -> Option<Table> {
    match model {
        101 => Some(INVERTER_INT_SINGLE),
        102 | 103 => Some(INVERTER_INT),
        111 => Some(INVERTER_FLOAT_SINGLE),
        112 | 113 => Some(INVERTER_FLOAT),
        201 => Some(METER_INT_SINGLE),
        202..=204 => Some(METER_INT),
        211 => Some(METER_FLOAT_SINGLE),
        212..=214 => Some(METER_FLOAT),
        _ => None,
    }
}

/// The values of a model with their registers. `import_is_negative` concerns meters only.
pub(super) fn values(model: &Model, import_is_negative: bool) -> Result<Vec<Value>, DeviceFault> {
    let unusable = || {
        let Model { id, address, length } = model;
        DeviceFault::Garbage(format!(
            "the SunSpec model {id} at register {address} has a length of {length}, too short for it"
        ))
    };
    let table = table(model.id).ok_or_else(unusable)?;
    let negate = import_is_negative && is_of(DeviceKind::Meter, model.id);
    let value = |(name, offset, point): &(ValueName, u16, Point)| {
        let (ty, scale_offset, nan) = match point {
            Point::Int16(scale) => (ValueType::I16, Some(scale), vec![0x8000]),
            // 0x8000 is what devices write that take it for an int16.
            Point::Uint16(scale) => (ValueType::U16, Some(scale), vec![0xFFFF, 0x8000]),
            // An accumulator of 0 is one that does not count.
            Point::Acc32(scale) => (ValueType::U32, Some(scale), vec![0, 0xFFFF_FFFF, 0x8000_0000]),
            Point::Float => (ValueType::F32, None, Vec::new()),
        };
        let last = scale_offset.copied().unwrap_or(0).max(offset + ty.words() - 1);
        if last >= model.length.saturating_add(2) {
            return None;
        }
        let (minimum, maximum) = name.default_range();
        Some(Value {
            name: *name,
            address: model.address.checked_add(*offset)?,
            ty,
            scale: if negate && name.is_power() { -1.0 } else { 1.0 },
            scale_address: match scale_offset {
                None => None,
                Some(offset) => Some(model.address.checked_add(*offset)?),
            },
            nan,
            sign_from: signs(*name, model.id),
            minimum,
            maximum,
        })
    };
    table.iter().map(value).collect::<Option<Vec<_>>>().ok_or_else(unusable)
}

/// Many devices give unsigned currents beside signed powers; with signed ones it makes no difference.
///
/// At a meter the sum of the phases says nothing about one of them: L1 may draw while the site as a whole feeds in, and an overload there
/// must not be read as a surplus. An inverter feeds all its phases alike.
fn signs(name: ValueName, model: u16) -> Vec<ValueName> {
    let Some(phase) = Phase::ALL.into_iter().find(|phase| ValueName::current(*phase) == name) else {
        return Vec::new();
    };
    vec![if is_of(DeviceKind::Meter, model) { ValueName::power(phase) } else { ValueName::PowerW }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::modbus::builtin::builtin;
    use crate::engine::modbus::map::DeviceMap;
    use crate::engine::modbus::poll::{Poll, Step};
    use crate::engine::modbus::value::Registers;
    use crate::engine::modbus::{Reading, exception};

    fn answer(registers: &Registers, request: Request) -> Answer {
        let words: Option<Vec<u16>> = (request.address..)
            .take(usize::from(request.count))
            .map(|address| registers.get(&address).copied())
            .collect();
        words.ok_or_else(|| exception(2))
    }

    /// A common model of 65 registers, then the models given, at `base`.
    fn device(base: u16, models: &[(u16, Vec<u16>)]) -> Registers {
        let mut words = MARKER.to_vec();
        words.extend([1, 65]);
        words.extend([0x2020; 65]);
        for (id, content) in models {
            words.extend([*id, u16::try_from(content.len()).unwrap()]);
            words.extend(content);
        }
        words.extend([END, 0]);
        (base..).zip(words).collect()
    }

    fn inverter(watts: u16) -> Vec<u16> {
        let mut content = vec![0xFFFF; 50];
        content[12] = watts; // W
        content[13] = 0; // W_SF
        content[4] = 0xFFFF; // A_SF −1
        content[1] = 87; // AphA
        content
    }

    fn run(poll: &mut Poll, registers: &Registers) -> (usize, Result<Reading, DeviceFault>) {
        let mut request = poll.start();
        for asked in 1.. {
            match poll.take(answer(registers, request)) {
                Step::Ask(next) => request = next,
                Step::Done(result) => return (asked, result),
            }
        }
        unreachable!("the loop ends by returning")
    }

    fn poll(kind: DeviceKind) -> Poll {
        Poll::new(DeviceMap::parse(builtin("sunspec").unwrap()).unwrap(), kind)
    }

    fn power(result: &Result<Reading, DeviceFault>) -> Option<i64> {
        match result {
            Ok(Reading::Inverter(reading)) => reading.power.map(crate::engine::units::Power::w),
            Ok(Reading::Meter(_)) | Err(_) => None,
        }
    }

    #[test]
    fn the_marker_is_found_at_each_of_the_three_places_and_searched_only_once() {
        for base in BASES {
            let registers = device(base, &[(120, vec![0; 26]), (103, inverter(1_234))]);
            let mut poll = poll(DeviceKind::Inverter);
            let (first, result) = run(&mut poll, &registers);
            assert_eq!(power(&result), Some(1_234), "{result:?}");
            let (later, result) = run(&mut poll, &registers);
            assert_eq!(power(&result), Some(1_234));
            assert!(later < first && later == 1, "{first} requests, then {later}");
        }
    }

    #[test]
    fn a_model_that_moved_is_noticed_and_found_again() {
        let mut poll = poll(DeviceKind::Inverter);
        let before = device(40_000, &[(103, inverter(1_000))]);
        assert_eq!(power(&run(&mut poll, &before).1), Some(1_000));
        let after = device(40_000, &[(120, vec![0; 60]), (103, inverter(2_000))]);
        assert!(matches!(run(&mut poll, &after).1, Err(DeviceFault::Garbage(_))));
        assert_eq!(power(&run(&mut poll, &after).1), Some(2_000));
    }

    #[test]
    fn repeated_models_are_told_apart_by_instance() {
        let registers = device(40_000, &[(103, inverter(1_000)), (103, inverter(2_000))]);
        let text = format!("instance = 2\n{}", builtin("sunspec").unwrap());
        let mut second = Poll::new(DeviceMap::parse(&text).unwrap(), DeviceKind::Inverter);
        assert_eq!(power(&run(&mut second, &registers).1), Some(2_000));
    }

    #[test]
    fn what_is_not_there_is_said() {
        let registers = device(40_000, &[(103, inverter(1_000))]);
        let (_, result) = run(&mut poll(DeviceKind::Meter), &registers);
        assert!(matches!(&result, Err(DeviceFault::Garbage(text)) if text.contains("[1, 103]")), "{result:?}");
        let (_, result) = run(&mut poll(DeviceKind::Meter), &Registers::new());
        assert!(matches!(&result, Err(DeviceFault::Garbage(text)) if text.contains("no SunSpec marker")), "{result:?}");
        let short = device(40_000, &[(103, vec![0; 20])]);
        let (_, result) = run(&mut poll(DeviceKind::Inverter), &short);
        assert!(matches!(&result, Err(DeviceFault::Garbage(text)) if text.contains("too short")), "{result:?}");
    }

    #[test]
    fn a_device_that_is_silent_at_one_place_is_asked_at_the_next() {
        let mut poll = poll(DeviceKind::Inverter);
        assert_eq!(poll.start().address, 40_000);
        poll.take(Err(DeviceFault::Timeout));
        assert_eq!(poll.start().address, 50_000);
        poll.take(Err(DeviceFault::Timeout));
        assert_eq!(poll.start().address, 0);
    }

    #[test]
    fn at_night_there_is_an_answer_without_a_value() {
        let registers = device(40_000, &[(103, inverter(0x8000))]);
        let (_, result) = run(&mut poll(DeviceKind::Inverter), &registers);
        let Ok(Reading::Inverter(reading)) = result else { panic!("a reading is expected") };
        assert_eq!(reading.power, None);
    }
}

//! Register dumps inside a map, with the reading expected of them: a wrong reading on a site becomes a line in a file.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::map::{DeviceMap, MapError};
use super::poll::{Poll, Step};
use super::value::{Registers, ValueName, to_integer};
use super::{Answer, DeviceKind, Reading, Request, exception};
use crate::engine::model::reading::DeviceFault;
use crate::engine::units::{Current, Energy, Phase, Power, Voltage};

/// A register dump with what it should be read as.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// What it shows.
    pub name: String,
    /// What the device is read as.
    pub kind: DeviceKind,
    /// The registers that the device has; all others answer with exception 2.
    pub registers: Registers,
    /// The reading or fault expected.
    pub expected: Expected,
    /// Where it stands in the map's text, in bytes.
    pub span: Range<usize>,
}

/// What an example should be read as.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// Exactly these values, in thousandths of V and A, in W, in Wh; what is not listed has no value.
    Values(BTreeMap<ValueName, i64>),
    /// No reading.
    Fault(FaultName),
}

/// The kinds of [`DeviceFault`] that a register dump can lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultName {
    /// [`DeviceFault::Exception`].
    Exception,
    /// [`DeviceFault::Garbage`].
    Garbage,
    /// [`DeviceFault::Implausible`].
    Implausible,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    name: String,
    kind: Option<Spanned<DeviceKind>>,
    registers: Vec<Block>,
    expect: Option<BTreeMap<ValueName, f64>>,
    fault: Option<FaultName>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {
    address: u16,
    words: Spanned<String>,
}

pub(super) fn lower(entry: Spanned<Entry>, map: &DeviceMap) -> Result<Example, MapError> {
    let span = entry.span();
    let entry = entry.into_inner();
    let kind = match (&entry.kind, &map.kinds[..]) {
        (None, [kind]) => *kind,
        (Some(kind), kinds) if kinds.contains(kind.get_ref()) => *kind.get_ref(),
        (Some(_) | None, _) => {
            let place = entry.kind.as_ref().map_or(span, Spanned::span);
            let message = format!("example {:?}: as which kind is it read?", entry.name);
            return Err(MapError::new(place, message, "write kind = \"meter\" or \"inverter\", one that the map has"));
        }
    };
    let mut registers = Registers::new();
    for block in &entry.registers {
        for (offset, word) in block.words.get_ref().split_whitespace().enumerate() {
            let address = u16::try_from(usize::from(block.address) + offset);
            let (Ok(address), Ok(word), 4) = (address, u16::from_str_radix(word, 16), word.len()) else {
                let message = format!("{word:?} is no register's content");
                return Err(MapError::new(
                    block.words.span(),
                    message,
                    "write four hexadecimal digits for each register",
                ));
            };
            registers.insert(address, word);
        }
    }
    let expected = match (entry.expect, entry.fault) {
        (Some(values), None) => {
            let integers =
                values.into_iter().map(|(name, value)| (name, to_integer(value, per_unit(name)).unwrap_or(0)));
            Expected::Values(integers.collect())
        }
        (None, Some(fault)) => Expected::Fault(fault),
        (None, None) | (Some(_), Some(_)) => {
            let message = format!("example {:?} must say what is expected", entry.name);
            return Err(MapError::new(span, message, "write either expect = { … } or fault = \"…\""));
        }
    };
    Ok(Example { name: entry.name, kind, registers, expected, span })
}

/// Voltages and currents are compared in thousandths, as the engine keeps them.
fn per_unit(name: ValueName) -> f64 {
    let is_voltage = Phase::ALL.iter().any(|phase| ValueName::voltage(*phase) == name);
    if is_voltage || name.is_current() { 1_000.0 } else { 1.0 }
}

impl DeviceMap {
    /// Reads every example of the map as the poll machine would.
    ///
    /// # Errors
    /// The first example that is not read as it says.
    pub fn check_examples(&self) -> Result<(), MapError> {
        for example in &self.examples {
            let found = read(self, example);
            let right = match (&example.expected, &found) {
                (Expected::Values(expected), Ok(reading)) => *expected == values(reading),
                (Expected::Fault(name), Err(fault)) => fault_name(fault) == Some(*name),
                (Expected::Values(_), Err(_)) | (Expected::Fault(_), Ok(_)) => false,
            };
            if !right {
                let found = found.map(|reading| values(&reading));
                let message = format!("example {:?} is read as {found:?} (in mA, mV, W, Wh)", example.name);
                let remedy = format!("correct the map or the example, which expects {:?}", example.expected);
                return Err(MapError::new(example.span.clone(), message, remedy));
            }
        }
        Ok(())
    }
}

fn read(map: &DeviceMap, example: &Example) -> Result<Reading, DeviceFault> {
    let mut poll = Poll::new(map.clone(), example.kind);
    let mut request = poll.start();
    loop {
        match poll.take(answer(&example.registers, request)) {
            Step::Ask(next) => request = next,
            Step::Done(result) => return result,
        }
    }
}

/// What a device with these registers answers.
fn answer(registers: &Registers, request: Request) -> Answer {
    let wanted = u32::from(request.address)..u32::from(request.address) + u32::from(request.count);
    let word = |address: u32| u16::try_from(address).ok().and_then(|address| registers.get(&address).copied());
    wanted.map(word).collect::<Option<Vec<u16>>>().ok_or_else(|| exception(2))
}

const fn fault_name(fault: &DeviceFault) -> Option<FaultName> {
    match fault {
        DeviceFault::Exception { .. } => Some(FaultName::Exception),
        DeviceFault::Garbage(_) => Some(FaultName::Garbage),
        DeviceFault::Implausible(_) => Some(FaultName::Implausible),
        DeviceFault::Unreachable(_) | DeviceFault::Timeout => None,
    }
}

fn values(reading: &Reading) -> BTreeMap<ValueName, i64> {
    let mut values = BTreeMap::new();
    let mut put = |name, value: Option<i64>| {
        if let Some(value) = value {
            values.insert(name, value);
        }
    };
    match reading {
        Reading::Meter(meter) => {
            for phase in Phase::ALL {
                put(ValueName::voltage(phase), meter.voltage.of(phase).map(Voltage::mv).map(i64::from));
                put(ValueName::current(phase), meter.current.of(phase).map(Current::ma).map(i64::from));
                put(ValueName::power(phase), meter.power.of(phase).map(Power::w));
            }
            put(ValueName::EnergyImportWh, meter.import.map(Energy::wh));
            put(ValueName::EnergyExportWh, meter.export.map(Energy::wh));
        }
        Reading::Inverter(inverter) => {
            for phase in Phase::ALL {
                put(ValueName::current(phase), inverter.current.of(phase).map(Current::ma).map(i64::from));
            }
            put(ValueName::PowerW, inverter.power.map(Power::w));
            put(ValueName::EnergyWh, inverter.energy.map(Energy::wh));
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = r#"
manufacturer = "M"
model = "X"
kind = "meter"
[[values]]
name = "current_l1_a"
address = 0
type = "u16"
scale = 0.1
[[examples]]
name = "ten"
registers = [{ address = 0, words = "0064" }]
expect = { current_l1_a = 10.0 }
"#;

    #[test]
    fn an_example_that_is_read_otherwise_is_shown_with_both() {
        DeviceMap::parse(MAP).unwrap().check_examples().unwrap();
        let wrong = DeviceMap::parse(&MAP.replace("0064", "0065")).unwrap().check_examples().unwrap_err();
        assert!(wrong.message.contains("10100") && wrong.remedy.contains("10000"), "{wrong}");
    }

    #[test]
    fn examples_that_say_nothing_are_refused() {
        for (from, to) in [
            ("0064", "64"),
            ("0064", "00G4"),
            ("expect = {", "#"),
            ("name = \"ten\"", "name = \"ten\"\nfault = \"garbage\""),
        ] {
            assert!(DeviceMap::parse(&MAP.replace(from, to)).is_err(), "{to}");
        }
    }
}

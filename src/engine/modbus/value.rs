//! What the words in registers mean: types, word order, scale, sentinels, plausible range.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::engine::units::Phase;

/// A value that a map can describe. The last word of the name is the unit that `scale` leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueName {
    /// Voltage from L1 to neutral.
    VoltageL1V,
    /// Voltage from L2 to neutral.
    VoltageL2V,
    /// Voltage from L3 to neutral.
    VoltageL3V,
    /// Current on L1.
    CurrentL1A,
    /// Current on L2.
    CurrentL2A,
    /// Current on L3.
    CurrentL3A,
    /// Active power on L1.
    PowerL1W,
    /// Active power on L2.
    PowerL2W,
    /// Active power on L3.
    PowerL3W,
    /// Active power of all phases. At a meter it only lends its sign to currents.
    PowerW,
    /// Energy drawn (meters).
    EnergyImportWh,
    /// Energy fed in (meters).
    EnergyExportWh,
    /// Energy fed in (inverters).
    EnergyWh,
}

impl ValueName {
    /// Every name, in order.
    pub const ALL: [Self; 13] = [
        Self::VoltageL1V,
        Self::VoltageL2V,
        Self::VoltageL3V,
        Self::CurrentL1A,
        Self::CurrentL2A,
        Self::CurrentL3A,
        Self::PowerL1W,
        Self::PowerL2W,
        Self::PowerL3W,
        Self::PowerW,
        Self::EnergyImportWh,
        Self::EnergyExportWh,
        Self::EnergyWh,
    ];

    /// The voltage of a phase.
    #[must_use]
    pub const fn voltage(phase: Phase) -> Self {
        Self::ALL[phase.index()]
    }

    /// The current of a phase.
    #[must_use]
    pub const fn current(phase: Phase) -> Self {
        Self::ALL[3 + phase.index()]
    }

    /// The power of a phase.
    #[must_use]
    pub const fn power(phase: Phase) -> Self {
        Self::ALL[6 + phase.index()]
    }

    /// Whether it is a current.
    #[must_use]
    pub const fn is_current(self) -> bool {
        matches!(self, Self::CurrentL1A | Self::CurrentL2A | Self::CurrentL3A)
    }

    /// Whether it is a power.
    #[must_use]
    pub const fn is_power(self) -> bool {
        matches!(self, Self::PowerL1W | Self::PowerL2W | Self::PowerL3W | Self::PowerW)
    }

    /// The name as it is written in a map.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::VoltageL1V => "voltage_l1_v",
            Self::VoltageL2V => "voltage_l2_v",
            Self::VoltageL3V => "voltage_l3_v",
            Self::CurrentL1A => "current_l1_a",
            Self::CurrentL2A => "current_l2_a",
            Self::CurrentL3A => "current_l3_a",
            Self::PowerL1W => "power_l1_w",
            Self::PowerL2W => "power_l2_w",
            Self::PowerL3W => "power_l3_w",
            Self::PowerW => "power_w",
            Self::EnergyImportWh => "energy_import_wh",
            Self::EnergyExportWh => "energy_export_wh",
            Self::EnergyWh => "energy_wh",
        }
    }

    /// The range outside of which no device at a low-voltage connection can be right, for maps that state none: 1000 V is the end of
    /// low voltage (IEC 60038), 10 kA and 10 MW are beyond the largest low-voltage transformers, and 10 TWh beyond any counter.
    #[must_use]
    pub const fn default_range(self) -> (f64, f64) {
        match self {
            Self::VoltageL1V | Self::VoltageL2V | Self::VoltageL3V => (0.0, 1e3),
            Self::CurrentL1A | Self::CurrentL2A | Self::CurrentL3A => (-1e4, 1e4),
            Self::PowerL1W | Self::PowerL2W | Self::PowerL3W | Self::PowerW => (-1e7, 1e7),
            Self::EnergyImportWh | Self::EnergyExportWh | Self::EnergyWh => (0.0, 1e13),
        }
    }
}

impl fmt::Display for ValueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// How a number is coded in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    /// IEEE 754 single, two registers.
    F32,
    /// Unsigned, one register.
    U16,
    /// Two's complement, one register.
    I16,
    /// Unsigned, two registers.
    U32,
    /// Two's complement, two registers.
    I32,
    /// Unsigned, four registers.
    U64,
    /// Two's complement, four registers.
    I64,
}

impl ValueType {
    /// How many registers it takes.
    #[must_use]
    pub const fn words(self) -> u16 {
        match self {
            Self::U16 | Self::I16 => 1,
            Self::F32 | Self::U32 | Self::I32 => 2,
            Self::U64 | Self::I64 => 4,
        }
    }
}

/// In which order the registers of one number come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WordOrder {
    /// The most significant register first.
    #[default]
    Big,
    /// The least significant register first.
    Little,
}

/// Where a value is and what its words mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// What it is.
    pub name: ValueName,
    /// Its first register, counted from 0 as on the wire.
    pub address: u16,
    /// How it is coded.
    pub ty: ValueType,
    /// Number × scale = value in the unit of the name.
    pub scale: f64,
    /// A register with a power of ten (−10 to 10, two's complement) that multiplies `scale`.
    pub scale_address: Option<u16>,
    /// Bit patterns that mean "no value".
    pub nan: Vec<u64>,
    /// Powers to take the sign from, best first. Empty: the value has a sign of its own.
    pub sign_from: Vec<ValueName>,
    /// The smallest plausible value, in the unit of the name.
    pub minimum: f64,
    /// The largest plausible value, in the unit of the name.
    pub maximum: f64,
}

/// What became of a value in one poll.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Quality {
    /// A plausible value in the unit of its name.
    Good(f64),
    /// Not read, or the device says that it has none.
    Absent,
    /// The device gave a number that cannot be.
    Implausible(f64),
}

impl Quality {
    /// The value, if it is good.
    #[must_use]
    pub const fn good(self) -> Option<f64> {
        match self {
            Self::Good(value) => Some(value),
            Self::Absent | Self::Implausible(_) => None,
        }
    }
}

/// Registers that were read.
pub type Registers = BTreeMap<u16, u16>;

impl Value {
    /// The registers it needs, as (first, count).
    pub fn registers(&self) -> impl Iterator<Item = (u16, u16)> {
        std::iter::once((self.address, self.ty.words())).chain(self.scale_address.map(|address| (address, 1)))
    }

    /// What the registers say about it, before signs are taken from powers.
    #[must_use]
    pub fn evaluate(&self, registers: &Registers, order: WordOrder) -> Quality {
        let Some(bits) = self.bits(registers, order) else { return Quality::Absent };
        if self.nan.contains(&bits) {
            return Quality::Absent;
        }
        let Some(number) = number(self.ty, bits) else { return Quality::Absent };
        let exponent = match self.scale_address {
            None => 0,
            Some(address) => match registers.get(&address).map(|word| word.cast_signed()) {
                Some(exponent @ -10..=10) => i32::from(exponent),
                // SunSpec: 0x8000 means that the point is not there; anything else out of range is no scale factor.
                Some(_) | None => return Quality::Absent,
            },
        };
        let value = number * self.scale * 10f64.powi(exponent);
        if (self.minimum..=self.maximum).contains(&value) { Quality::Good(value) } else { Quality::Implausible(value) }
    }

    fn bits(&self, registers: &Registers, order: WordOrder) -> Option<u64> {
        let mut bits = 0;
        for offset in 0..self.ty.words() {
            let offset = match order {
                WordOrder::Big => offset,
                WordOrder::Little => self.ty.words() - 1 - offset,
            };
            bits = (bits << 16) | u64::from(*registers.get(&self.address.checked_add(offset)?)?);
        }
        Some(bits)
    }
}

/// The number in the lowest bits. `None` where it is no number: NaN, infinite, or the ±3.4e38 that devices send for "no value".
fn number(ty: ValueType, bits: u64) -> Option<f64> {
    let [.., b5, b6, b7] = bits.to_be_bytes();
    let word = u16::from_be_bytes([b6, b7]);
    let [_, _, _, _, b4, ..] = bits.to_be_bytes();
    let long = u32::from_be_bytes([b4, b5, b6, b7]);
    match ty {
        ValueType::U16 => Some(f64::from(word)),
        ValueType::I16 => Some(f64::from(word.cast_signed())),
        ValueType::U32 => Some(f64::from(long)),
        ValueType::I32 => Some(f64::from(long.cast_signed())),
        ValueType::U64 => Some(from_u64(bits)),
        ValueType::I64 => {
            let signed = bits.cast_signed();
            let magnitude = from_u64(signed.unsigned_abs());
            Some(if signed < 0 { -magnitude } else { magnitude })
        }
        ValueType::F32 => {
            let float = f32::from_bits(long);
            (float.is_finite() && float.abs() < 3.4e38).then(|| f64::from(float))
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 of the smallest unit in use (0.01 Wh) is 90 TWh, beyond the plausible range"
)]
const fn from_u64(bits: u64) -> f64 {
    bits as f64
}

/// A plausible value as an integer of a thousandth (or one) of its unit: `None` beyond what can be represented.
///
/// To nearest, not to the safe side: a meter's own steps are ten times coarser, and rounding up would make a step of binary noise.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "checked to be within the exact integers of f64")]
pub fn to_integer(value: f64, per_unit: f64) -> Option<i64> {
    let scaled = (value * per_unit).round();
    (scaled.abs() <= 9e15).then_some(scaled as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(ty: ValueType) -> Value {
        Value {
            name: ValueName::PowerW,
            address: 10,
            ty,
            scale: 1.0,
            scale_address: None,
            nan: Vec::new(),
            sign_from: Vec::new(),
            minimum: -1e7,
            maximum: 1e7,
        }
    }

    fn read(value: &Value, words: &[u16], order: WordOrder) -> Quality {
        value.evaluate(&(10..).zip(words.iter().copied()).collect(), order)
    }

    #[test]
    fn every_type_in_both_word_orders() {
        use ValueType::{F32, I16, I32, I64, U16, U32, U64};
        let cases: [(ValueType, &[u16], f64); 8] = [
            (U16, &[0xFFFE], 65534.0),
            (I16, &[0xFFFE], -2.0),
            (U32, &[0x0001, 0x0002], 65538.0),
            (I32, &[0xFFFF, 0xFFFE], -2.0),
            (U64, &[0, 0, 1, 2], 65538.0),
            (I64, &[0xFFFF, 0xFFFF, 0xFFFF, 0xFFFE], -2.0),
            (F32, &[0x4366, 0x8000], 230.5),
            (F32, &[0xC366, 0x8000], -230.5),
        ];
        for (ty, words, expected) in cases {
            assert_eq!(read(&value(ty), words, WordOrder::Big), Quality::Good(expected), "{ty:?}");
            let swapped: Vec<u16> = words.iter().rev().copied().collect();
            assert_eq!(read(&value(ty), &swapped, WordOrder::Little), Quality::Good(expected), "{ty:?}");
        }
    }

    #[test]
    fn no_value_is_never_a_number() {
        for words in [[0x7FC0, 0], [0x7F80, 0], [0x7F7F, 0xFFFF], [0xFF7F, 0xFFFF]] {
            assert_eq!(read(&value(ValueType::F32), &words, WordOrder::Big), Quality::Absent, "{words:X?}");
        }
        let mut sentinel = value(ValueType::I16);
        sentinel.nan = vec![0x8000];
        assert_eq!(read(&sentinel, &[0x8000], WordOrder::Big), Quality::Absent);
        assert_eq!(read(&value(ValueType::U32), &[1], WordOrder::Big), Quality::Absent, "half a value");
    }

    #[test]
    fn scale_registers_are_powers_of_ten_from_minus_10_to_10() {
        let mut scaled = value(ValueType::I16);
        scaled.scale_address = Some(11);
        assert_eq!(read(&scaled, &[123, 1], WordOrder::Big), Quality::Good(1230.0));
        let Quality::Good(small) = read(&scaled, &[123, 0xFFFE], WordOrder::Big) else { panic!("a value is expected") };
        assert!((small - 1.23).abs() < 1e-9);
        for nonsense in [0x8000, 11, 0xFFF5] {
            assert_eq!(read(&scaled, &[123, nonsense], WordOrder::Big), Quality::Absent, "{nonsense:X}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_implausible() {
        assert_eq!(read(&value(ValueType::U32), &[0xFFFF, 0], WordOrder::Big), Quality::Implausible(4_294_901_760.0));
    }
}

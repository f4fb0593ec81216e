//! An energy meter as a register image, with its faults.

use siteward::engine::model::reading::{DeviceFault, MeterReading};
use siteward::engine::time::Mono;
use siteward::engine::units::{Current, Energy, PerPhase, Phase, Power, Voltage};

use crate::car::WH_IN_MWMS;
use crate::rng::Dice;

/// Which device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeterKind {
    /// Eastron SDM630: 32-bit floats in input registers, currents without sign.
    Sdm630,
    /// ABB B23: scaled integers in holding registers, currents without sign.
    AbbB23,
}

/// What is wrong with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceTrouble {
    /// It gives no answer.
    Silent,
    /// It answers with this Modbus exception code.
    Exception(u8),
    /// It answers, but with the values of the moment in which the fault began.
    Frozen,
    /// It answers with random words.
    Garbage,
    /// Its phases are swapped: what flows on L1 is shown on L2, and so on.
    Swapped,
    /// It was built in the wrong way round: what flows in is shown as flowing out.
    Flipped,
    /// It shows new values only every so many ms.
    Slow(u64),
}

/// What comes back from a device when registers are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The registers' words.
    Words(Vec<u16>),
    /// A Modbus exception with this code.
    Exception(u8),
    /// Nothing.
    Silent,
}

/// A meter.
#[derive(Clone, Debug)]
pub struct Meter {
    kind: MeterKind,
    trouble: Option<DeviceTrouble>,
    current: PerPhase<Current>,
    shown: PerPhase<Current>,
    /// How often it shows new values, in ms; 0: at once.
    refresh_ms: u64,
    shown_at: Option<Mono>,
    voltage: Voltage,
    import_mwms: i64,
    export_mwms: i64,
    updated: Option<Mono>,
    dice: Dice,
}

impl Meter {
    /// A meter through which nothing flows yet. `seed` is for the words of [`DeviceTrouble::Garbage`].
    #[must_use]
    pub const fn new(kind: MeterKind, voltage: Voltage, seed: u64) -> Self {
        Self {
            kind,
            trouble: None,
            current: PerPhase::splat(Current::ZERO),
            shown: PerPhase::splat(Current::ZERO),
            refresh_ms: 0,
            shown_at: None,
            voltage,
            import_mwms: 0,
            export_mwms: 0,
            updated: None,
            dice: Dice::new(seed),
        }
    }

    /// Shows new values only every so many ms (SBC ALE3: 10 s).
    #[must_use]
    pub const fn refreshed_every(mut self, refresh_ms: u64) -> Self {
        self.refresh_ms = refresh_ms;
        self
    }

    /// Begins a fault, or ends it with `None`.
    pub const fn set_trouble(&mut self, trouble: Option<DeviceTrouble>) {
        self.trouble = trouble;
    }

    /// The fault that it has.
    #[must_use]
    pub const fn trouble(&self) -> Option<DeviceTrouble> {
        self.trouble
    }

    /// Sets what flows through it from now on; positive flows into the site. Call it whenever that changes, or at each poll.
    pub fn set_current(&mut self, current: PerPhase<Current>, now: Mono) {
        let elapsed = i64::try_from(now.since(self.updated.unwrap_or(now))).unwrap_or(0);
        let through: i64 = self.current.iter().map(|(_, current)| i64::from(current.ma())).sum();
        let energy = (through * i64::from(self.voltage.mv()) / 1000).saturating_mul(elapsed);
        // The device counts the balance of the phases, as the meters of the supply companies do.
        if energy >= 0 {
            self.import_mwms += energy;
        } else {
            self.export_mwms -= energy;
        }
        self.updated = Some(now);
        self.current = current;
        let every_ms = if let Some(DeviceTrouble::Slow(ms)) = self.trouble { ms } else { self.refresh_ms };
        let due = self.shown_at.is_none_or(|at| now.since(at) >= every_ms);
        if due && self.trouble != Some(DeviceTrouble::Frozen) {
            self.shown_at = Some(now);
            self.shown = match self.trouble {
                Some(DeviceTrouble::Swapped) => {
                    PerPhase::new(current.of(Phase::L3), current.of(Phase::L1), current.of(Phase::L2))
                }
                Some(DeviceTrouble::Flipped) => PerPhase::splat(Current::ZERO) - current,
                _ => current,
            };
        }
    }

    /// What flows through it.
    #[must_use]
    pub const fn current(&self) -> PerPhase<Current> {
        self.current
    }

    /// Reads `count` registers from `address` by Modbus function 3 (holding) or 4 (input).
    pub fn read(&mut self, function: u8, address: u16, count: u16) -> Answer {
        match self.trouble {
            Some(DeviceTrouble::Silent) => return Answer::Silent,
            Some(DeviceTrouble::Exception(code)) => return Answer::Exception(code),
            Some(DeviceTrouble::Garbage) => {
                return Answer::Words((0..count).map(|_| word(self.dice.bits() >> 48)).collect());
            }
            Some(DeviceTrouble::Frozen | DeviceTrouble::Swapped | DeviceTrouble::Flipped | DeviceTrouble::Slow(_))
            | None => {}
        }
        let wanted_function = match self.kind {
            MeterKind::Sdm630 => 4,
            MeterKind::AbbB23 => 3,
        };
        if function != wanted_function {
            return Answer::Exception(1);
        }
        let words: Option<Vec<u16>> =
            (0..count).map(|offset| address.checked_add(offset).and_then(|at| self.register(at))).collect();
        words.map_or(Answer::Exception(2), Answer::Words)
    }

    /// What a driver makes of a poll, for worlds that do not care for registers.
    ///
    /// # Errors
    /// As the fault that it has.
    pub fn reading(&self) -> Result<MeterReading, DeviceFault> {
        match self.trouble {
            Some(DeviceTrouble::Silent) => return Err(DeviceFault::Timeout),
            Some(DeviceTrouble::Exception(code)) => {
                return Err(DeviceFault::Exception { code, meaning: "server device failure".to_owned() });
            }
            Some(DeviceTrouble::Garbage) => return Err(DeviceFault::Implausible("voltage of 3.1e12 V".to_owned())),
            Some(DeviceTrouble::Frozen | DeviceTrouble::Swapped | DeviceTrouble::Flipped | DeviceTrouble::Slow(_))
            | None => {}
        }
        Ok(MeterReading {
            current: self.shown.map(Some),
            power: self.shown.map(|current| Some(current.power_at(self.voltage))),
            voltage: PerPhase::splat(Some(self.voltage)),
            import: Some(Energy::from_wh(self.import_mwms / WH_IN_MWMS)),
            export: Some(Energy::from_wh(self.export_mwms / WH_IN_MWMS)),
        })
    }

    fn power(&self, phase: Phase) -> Power {
        self.shown.of(phase).power_at(self.voltage)
    }

    fn register(&self, at: u16) -> Option<u16> {
        match self.kind {
            MeterKind::Sdm630 => self.sdm630(at),
            MeterKind::AbbB23 => self.abb_b23(at),
        }
    }

    /// Eastron's "SDM630 Modbus protocol", input registers 30001 and on; register pairs that are not used here read as 0.
    fn sdm630(&self, at: u16) -> Option<u16> {
        if at > 0x017f {
            return None;
        }
        let total: Power = Phase::ALL.into_iter().map(|phase| self.power(phase)).sum();
        let value = match at & !1 {
            0x00 | 0x02 | 0x04 => thousandths(i64::from(self.voltage.mv())),
            0x06 => thousandths(i64::from(self.shown.of(Phase::L1).abs().ma())),
            0x08 => thousandths(i64::from(self.shown.of(Phase::L2).abs().ma())),
            0x0a => thousandths(i64::from(self.shown.of(Phase::L3).abs().ma())),
            0x0c => thousandths(self.power(Phase::L1).w() * 1000),
            0x0e => thousandths(self.power(Phase::L2).w() * 1000),
            0x10 => thousandths(self.power(Phase::L3).w() * 1000),
            0x34 => thousandths(total.w() * 1000),
            0x46 => 50.0,
            0x48 => thousandths(self.import_mwms / WH_IN_MWMS),
            0x4a => thousandths(self.export_mwms / WH_IN_MWMS),
            _ => 0.0,
        };
        let bits = value.to_bits();
        Some(if at & 1 == 0 { word(u64::from(bits >> 16)) } else { word(u64::from(bits)) })
    }

    /// ABB's "B23/B24 user manual", mapping tables: energies in 0.01 kWh, voltages in 0.1 V, currents and powers in 0.01.
    fn abb_b23(&self, at: u16) -> Option<u16> {
        if (0x5000..0x5008).contains(&at) {
            let energy = if at < 0x5004 { self.import_mwms } else { self.export_mwms };
            let shift = 48 - 16 * u32::from((at - 0x5000) % 4);
            return Some(word((energy / WH_IN_MWMS / 10).unsigned_abs() >> shift));
        }
        if !(0x5b00..0x5b40).contains(&at) {
            return None;
        }
        let total: Power = Phase::ALL.into_iter().map(|phase| self.power(phase)).sum();
        let value = match at & !1 {
            0x5b00 | 0x5b02 | 0x5b04 => i64::from(self.voltage.mv()) / 100,
            0x5b0c => i64::from(self.shown.of(Phase::L1).abs().ma()) / 10,
            0x5b0e => i64::from(self.shown.of(Phase::L2).abs().ma()) / 10,
            0x5b10 => i64::from(self.shown.of(Phase::L3).abs().ma()) / 10,
            0x5b14 => total.w() * 100,
            0x5b16 => self.power(Phase::L1).w() * 100,
            0x5b18 => self.power(Phase::L2).w() * 100,
            0x5b1a => self.power(Phase::L3).w() * 100,
            0x5b2c => 5_000,
            _ => 0,
        };
        let bits = u64::from_be_bytes(value.to_be_bytes());
        Some(if at & 1 == 0 { word(bits >> 16) } else { word(bits) })
    }
}

/// The low 16 bits.
pub(crate) const fn word(bits: u64) -> u16 {
    let [_, _, _, _, _, _, high, low] = bits.to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a 32-bit float is what the device shows"
)]
const fn thousandths(value: i64) -> f32 {
    (value as f64 / 1000.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(kind: MeterKind) -> Meter {
        let mut meter = Meter::new(kind, Voltage::from_mv(230_000), 1);
        let current = PerPhase::new(Current::from_a(10), Current::from_a(-20), Current::from_a(30));
        meter.set_current(current, Mono::from_ms(0));
        meter.set_current(current, Mono::from_ms(3_600_000));
        meter
    }

    #[test]
    fn the_sdm630_shows_floats_and_unsigned_currents() {
        let mut meter = meter(MeterKind::Sdm630);
        let Answer::Words(words) = meter.read(4, 0x06, 12) else { panic!("no words") };
        let values: Vec<f32> =
            words.chunks(2).map(|pair| f32::from_bits(u32::from(pair[0]) << 16 | u32::from(pair[1]))).collect();
        assert_eq!(values, [10.0, 20.0, 30.0, 2300.0, -4600.0, 6900.0]);
        assert_eq!(meter.read(3, 0x06, 2), Answer::Exception(1));
        let Answer::Words(energy) = meter.read(4, 0x48, 2) else { panic!("no words") };
        assert_eq!(f32::from_bits(u32::from(energy[0]) << 16 | u32::from(energy[1])), 4.6);
    }

    #[test]
    fn the_b23_shows_scaled_integers() {
        let mut meter = meter(MeterKind::AbbB23);
        assert_eq!(meter.read(3, 0x5b00, 2), Answer::Words(vec![0, 2300]));
        assert_eq!(meter.read(3, 0x5b0e, 2), Answer::Words(vec![0, 2000]));
        assert_eq!(meter.read(3, 0x5000, 4), Answer::Words(vec![0, 0, 0, 460]));
        assert_eq!(meter.read(3, 0x1000, 2), Answer::Exception(2));
    }

    #[test]
    fn a_frozen_meter_keeps_its_last_values() {
        let mut meter = meter(MeterKind::Sdm630);
        meter.set_trouble(Some(DeviceTrouble::Frozen));
        let before = meter.reading().unwrap().current;
        meter.set_current(PerPhase::splat(Current::from_a(99)), Mono::from_ms(3_601_000));
        assert_eq!(meter.reading().unwrap().current, before);
        meter.set_trouble(Some(DeviceTrouble::Silent));
        assert_eq!(meter.read(4, 0, 2), Answer::Silent);
    }
}

//! A three-phase PV inverter: the sun, clouds, and its SunSpec registers (models 1 and 103).

use siteward::engine::model::reading::{DeviceFault, InverterReading};
use siteward::engine::time::Mono;
use siteward::engine::units::{Current, Energy, PerPhase, Power, Voltage};

use crate::car::WH_IN_MWMS;
use crate::meter::{Answer, DeviceTrouble, word};
use crate::rng::Dice;

/// Where the SunSpec registers begin.
const BASE: u16 = 40_000;

/// A PV inverter.
#[derive(Clone, Debug)]
pub struct Pv {
    peak: Power,
    voltage: Voltage,
    trouble: Option<DeviceTrouble>,
    dice: Dice,
    minute: Option<i64>,
    cloud_percent: i64,
    power: Power,
    energy_mwms: i64,
    updated: Option<Mono>,
}

impl Pv {
    /// An inverter that feeds at most `peak`, on all phases together.
    #[must_use]
    pub const fn new(peak: Power, voltage: Voltage, dice: Dice) -> Self {
        Self {
            peak,
            voltage,
            trouble: None,
            dice,
            minute: None,
            cloud_percent: 0,
            power: Power::ZERO,
            energy_mwms: 0,
            updated: None,
        }
    }

    /// Begins a fault, or ends it with `None`.
    pub const fn set_trouble(&mut self, trouble: Option<DeviceTrouble>) {
        self.trouble = trouble;
    }

    /// Lets time pass. `unix_ms` is the time of day (UTC) in ms since 1970; clouds change once a minute.
    pub fn advance(&mut self, now: Mono, unix_ms: i64) {
        let elapsed = i64::try_from(now.since(self.updated.unwrap_or(now))).unwrap_or(0);
        self.energy_mwms += self.power.w().saturating_mul(1000).saturating_mul(elapsed);
        self.updated = Some(now);
        let minute = unix_ms.div_euclid(60_000);
        if self.minute == Some(minute) {
            return;
        }
        self.minute = Some(minute);
        if self.dice.chance(100_000) {
            self.cloud_percent = i64::try_from(self.dice.below(80)).unwrap_or(0);
        }
        let sun = sun_per_mille(minute.rem_euclid(1440));
        self.power = Power::from_w(self.peak.w() * sun / 1000 * (100 - self.cloud_percent) / 100);
    }

    /// What it feeds in.
    #[must_use]
    pub const fn power(&self) -> Power {
        self.power
    }

    /// The current that it feeds in on each phase, as a positive number.
    #[must_use]
    pub fn current(&self) -> PerPhase<Current> {
        let per_phase = Power::from_w(self.power.w() / 3);
        PerPhase::splat(per_phase.current_at(self.voltage).unwrap_or(Current::ZERO))
    }

    /// What a driver makes of a poll, for worlds that do not care for registers.
    ///
    /// # Errors
    /// As the fault that it has.
    pub fn reading(&self) -> Result<InverterReading, DeviceFault> {
        match self.trouble {
            Some(DeviceTrouble::Silent) => Err(DeviceFault::Timeout),
            Some(DeviceTrouble::Exception(code)) => {
                Err(DeviceFault::Exception { code, meaning: "server device failure".to_owned() })
            }
            Some(DeviceTrouble::Garbage) => Err(DeviceFault::Garbage("no SunSpec model 103".to_owned())),
            Some(DeviceTrouble::Frozen | DeviceTrouble::Swapped | DeviceTrouble::Flipped | DeviceTrouble::Slow(_))
            | None => Ok(InverterReading {
                power: Some(self.power),
                current: self.current().map(Some),
                energy: Some(Energy::from_wh(self.energy_mwms / WH_IN_MWMS)),
            }),
        }
    }

    /// Reads `count` registers from `address` by Modbus function 3.
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
        if function != 3 {
            return Answer::Exception(1);
        }
        let image = self.image();
        let from = address.checked_sub(BASE).map(usize::from);
        let words = from.and_then(|from| image.get(from..from + usize::from(count)));
        words.map_or(Answer::Exception(2), |words| Answer::Words(words.to_vec()))
    }

    /// SunSpec marker, model 1 (common), model 103 (three-phase inverter), end marker.
    fn image(&self) -> Vec<u16> {
        let mut image = vec![0x5375, 0x6e53, 1, 66];
        for (text, words) in [("Siteward", 16), ("Simulated PV", 16), ("", 8), ("1.0", 8), ("SIM0001", 16)] {
            image.extend(text_words(text, words));
        }
        image.extend([126, 0x8000, 103, 50]);
        image.extend(self.model_103());
        image.extend([0xffff, 0]);
        image
    }

    fn model_103(&self) -> [u16; 50] {
        let mut points = [0xffff_u16; 50];
        let ma = self.current().of(siteward::engine::units::Phase::L1).ma();
        let tenths = word(u64::from(ma.unsigned_abs() / 100));
        points[0] = tenths.saturating_mul(3);
        points[1..4].fill(tenths);
        points[4] = scale(-1);
        points[8..11].fill(word(u64::from(self.voltage.mv().unsigned_abs() / 100)));
        points[11] = scale(-1);
        // W is a 16-bit signed number: in steps of 10 W up to 327 kW.
        points[12] = word(self.power.w().unsigned_abs() / 10);
        points[13] = scale(1);
        points[14] = 5_000;
        points[15] = scale(-2);
        for unknown in [16, 18, 20, 27, 29, 31, 32, 33, 34] {
            points[unknown] = 0x8000;
        }
        for no_scale in [17, 19, 21, 26, 28, 30, 35] {
            points[no_scale] = 0x8000;
        }
        let energy = (self.energy_mwms / WH_IN_MWMS).unsigned_abs();
        points[22] = word(energy >> 16);
        points[23] = word(energy);
        points[24] = scale(0);
        // 4: MPPT, tracking the power point; 2: asleep.
        points[36] = if self.power > Power::ZERO { 4 } else { 2 };
        points[38..50].fill(0);
        points
    }
}

/// A scale factor as a register word.
const fn scale(exponent: i16) -> u16 {
    u16::from_be_bytes(exponent.to_be_bytes())
}

fn text_words(text: &str, words: usize) -> impl Iterator<Item = u16> {
    let bytes = text.as_bytes();
    (0..words).map(move |index| {
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
        u16::from_be_bytes([byte(2 * index), byte(2 * index + 1)])
    })
}

/// How high the sun stands at a minute of the day (UTC), 0 to 1000: a parabola from 5:00 to 19:00.
const fn sun_per_mille(minute: i64) -> i64 {
    let (rise, set) = (300, 1140);
    if minute <= rise || minute >= set {
        return 0;
    }
    4000 * (minute - rise) * (set - minute) / ((set - rise) * (set - rise))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noon_is_bright_and_night_is_dark() {
        let mut pv = Pv::new(Power::from_w(30_000), Voltage::from_mv(230_000), Dice::new(1));
        pv.advance(Mono::from_ms(0), 0);
        assert_eq!(pv.power(), Power::ZERO);
        pv.advance(Mono::from_ms(1), 12 * 3_600_000);
        assert!(pv.power() > Power::from_w(5_000));
    }

    #[test]
    fn its_registers_are_a_sunspec_device() {
        let mut pv = Pv::new(Power::from_w(30_000), Voltage::from_mv(230_000), Dice::new(1));
        pv.advance(Mono::from_ms(0), 12 * 3_600_000);
        assert_eq!(pv.read(3, 40_000, 4), Answer::Words(vec![0x5375, 0x6e53, 1, 66]));
        assert_eq!(pv.read(3, 40_070, 2), Answer::Words(vec![103, 50]));
        let Answer::Words(power) = pv.read(3, 40_084, 2) else { panic!("no words") };
        assert_eq!(i64::from(power[0]) * 10, pv.power().w() / 10 * 10);
        assert_eq!(power[1], 1);
        assert_eq!(pv.read(3, 40_122, 2), Answer::Words(vec![0xffff, 0]));
    }
}

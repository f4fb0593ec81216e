//! One device's polls: what to ask next, and what the answers add up to.

use std::collections::BTreeMap;

use super::map::{DeviceMap, Protocol};
use super::sunspec::{self, Discovery, Outcome};
use super::value::{Quality, Registers, Value, ValueName, to_integer};
use super::{Answer, DeviceKind, Reading, Request, plan};
use crate::engine::model::reading::{DeviceFault, InverterReading, MeterReading};
use crate::engine::units::{Current, Energy, PerPhase, Phase, Power, Voltage};

/// What a poll wants next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Send this request and hand in its answer.
    Ask(Request),
    /// The poll has ended.
    Done(Result<Reading, DeviceFault>),
}

/// The polls of one device. It remembers between polls what it has learnt of the device: where its SunSpec model is, and whether it
/// refuses requests that read over unused registers.
#[derive(Clone, Debug)]
pub struct Poll {
    map: DeviceMap,
    kind: DeviceKind,
    layout: Option<Layout>,
    state: State,
    /// Where SunSpec discovery begins: moves on when a device did not answer there.
    first_base: usize,
}

/// Where the values of this very device are.
#[derive(Clone, Debug)]
struct Layout {
    values: Vec<Value>,
    /// Registers whose content proves that the values are still there.
    identity: Vec<(u16, u16)>,
    max_gap: u16,
    blocks: Vec<Request>,
}

#[derive(Clone, Debug)]
enum State {
    Idle,
    Discovering(Discovery),
    Reading(Progress),
}

#[derive(Clone, Debug, Default)]
struct Progress {
    next: usize,
    registers: Registers,
    /// The first block that the device refused.
    refused: Option<DeviceFault>,
}

impl Poll {
    /// Prepares to poll a device of that map as a meter or an inverter.
    #[must_use]
    pub fn new(map: DeviceMap, kind: DeviceKind) -> Self {
        let mut poll = Self { map, kind, layout: None, state: State::Idle, first_base: 0 };
        if poll.map.protocol == Protocol::Registers {
            let values = poll.map.values.clone();
            poll.layout = Some(poll.plan(values, Vec::new(), poll.map.max_gap));
        }
        poll
    }

    /// The map it was made from.
    #[must_use]
    pub const fn map(&self) -> &DeviceMap {
        &self.map
    }

    /// Begins a poll and gives its first request. A poll that was under way is forgotten.
    pub fn start(&mut self) -> Request {
        if let Some(request) = self.layout.as_ref().and_then(|layout| layout.blocks.first()).copied() {
            self.state = State::Reading(Progress::default());
            return request;
        }
        let discovery = Discovery::new(self.map.function, self.kind, self.map.instance, self.first_base);
        let request = discovery.request();
        self.state = State::Discovering(discovery);
        request
    }

    /// Takes in the answer to the last request.
    pub fn take(&mut self, answer: Answer) -> Step {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => Step::Done(Err(DeviceFault::Garbage("an answer that nobody asked for".to_owned()))),
            State::Discovering(discovery) => self.discover(discovery, answer),
            State::Reading(progress) => self.read(progress, answer),
        }
    }

    fn plan(&self, values: Vec<Value>, identity: Vec<(u16, u16)>, max_gap: u16) -> Layout {
        let extra: Vec<u16> = identity.iter().map(|(address, _)| *address).collect();
        let blocks = plan::blocks(self.map.function, &values, &extra, self.map.max_block, max_gap);
        Layout { values, identity, max_gap, blocks }
    }

    fn discover(&mut self, mut discovery: Discovery, answer: Answer) -> Step {
        match discovery.take(answer) {
            Outcome::Ask(request) => {
                self.state = State::Discovering(discovery);
                Step::Ask(request)
            }
            Outcome::Failed(fault) => {
                // Some devices keep silent where others refuse: do not ask at the same place for ever.
                self.first_base = discovery.next_base();
                Step::Done(Err(fault))
            }
            Outcome::Found(model) => {
                let negative = self.map.import_is_negative;
                match sunspec::values(&model, negative) {
                    Err(fault) => Step::Done(Err(fault)),
                    Ok(values) => {
                        let identity = vec![(model.address, model.id), (model.address.saturating_add(1), model.length)];
                        self.layout = Some(self.plan(values, identity, self.map.max_gap));
                        self.first_base = discovery.base();
                        Step::Ask(self.start())
                    }
                }
            }
        }
    }

    fn read(&mut self, mut progress: Progress, answer: Answer) -> Step {
        let Some(layout) = &self.layout else { return Step::Ask(self.start()) };
        let block = layout.blocks[progress.next];
        match answer {
            Ok(words) if words.len() == usize::from(block.count) => {
                progress.registers.extend((block.address..=u16::MAX).zip(words));
            }
            Ok(words) => {
                let message = format!("{} registers instead of {}", words.len(), block.count);
                return Step::Done(Err(DeviceFault::Garbage(message)));
            }
            Err(DeviceFault::Exception { code: 2 | 3, .. }) if layout.max_gap > 0 => {
                // It refuses blocks with holes: from now on ask without.
                let Layout { values, identity, .. } = layout.clone();
                self.layout = Some(self.plan(values, identity, 0));
                return Step::Ask(self.start());
            }
            Err(fault @ DeviceFault::Exception { .. }) => {
                progress.refused.get_or_insert(fault);
            }
            Err(fault) => return Step::Done(Err(fault)),
        }
        progress.next += 1;
        if let Some(request) = layout.blocks.get(progress.next).copied() {
            self.state = State::Reading(progress);
            return Step::Ask(request);
        }
        Step::Done(self.finish(progress))
    }

    fn finish(&mut self, progress: Progress) -> Result<Reading, DeviceFault> {
        let Some(layout) = &self.layout else { return Err(DeviceFault::Timeout) };
        let moved = |(address, word): &(u16, u16)| progress.registers.get(address).is_some_and(|found| found != word);
        if layout.identity.iter().any(moved) || (progress.registers.is_empty() && !layout.identity.is_empty()) {
            self.layout = None;
            let message = "the SunSpec model is no longer where it was; it is searched again at the next poll";
            return Err(DeviceFault::Garbage(message.to_owned()));
        }
        let found = evaluate(&layout.values, &progress.registers, &self.map);
        let needed = |name: &ValueName| match self.kind {
            DeviceKind::Meter => name.is_current(),
            DeviceKind::Inverter => *name == ValueName::PowerW,
        };
        let any_good = found.iter().any(|(name, quality)| needed(name) && quality.good().is_some());
        let impossible: Vec<String> = found.iter().filter(|(name, _)| needed(name)).filter_map(complaint).collect();
        if any_good {
            return Ok(reading(self.kind, &found));
        }
        if !impossible.is_empty() {
            return Err(DeviceFault::Implausible(impossible.join(", ")));
        }
        if let Some(fault) = progress.refused {
            return Err(fault);
        }
        match self.kind {
            DeviceKind::Meter => {
                Err(DeviceFault::Implausible("it says that it has no current on any phase".to_owned()))
            }
            // Inverters answer so at night. It is an answer, with no value in it.
            DeviceKind::Inverter => Ok(reading(self.kind, &found)),
        }
    }
}

fn complaint((name, quality): (&ValueName, &Quality)) -> Option<String> {
    match quality {
        Quality::Implausible(value) => Some(format!("{name} = {value} cannot be")),
        Quality::Good(_) | Quality::Absent => None,
    }
}

fn evaluate(values: &[Value], registers: &Registers, map: &DeviceMap) -> BTreeMap<ValueName, Quality> {
    let plain: BTreeMap<ValueName, Quality> =
        values.iter().map(|value| (value.name, value.evaluate(registers, map.word_order))).collect();
    let mut signed = plain.clone();
    for value in values {
        let Some(Quality::Good(current)) = signed.get_mut(&value.name).filter(|_| !value.sign_from.is_empty()) else {
            continue;
        };
        match value.sign_from.iter().find_map(|name| plain.get(name).and_then(|quality| quality.good())) {
            Some(power) if power < 0.0 => *current = -current.abs(),
            Some(_) => *current = current.abs(),
            // Without a power the current stays as it is: at an unsigned meter that is a load, the safe side. Where signs are turned
            // round, nobody knows whether this one would have to be; a load again.
            None if map.import_is_negative => *current = current.abs(),
            None => {}
        }
    }
    signed
}

fn reading(kind: DeviceKind, found: &BTreeMap<ValueName, Quality>) -> Reading {
    let integer = |name: ValueName, per_unit: f64| {
        let value = found.get(&name).and_then(|quality| quality.good())?;
        to_integer(value, per_unit)
    };
    let milli = |name: ValueName| integer(name, 1_000.0).and_then(|milli| i32::try_from(milli).ok());
    let energy = |name: ValueName| integer(name, 1.0).map(Energy::from_wh);
    let power = |name: ValueName| integer(name, 1.0).map(Power::from_w);
    let current = PerPhase::from_fn(|phase: Phase| milli(ValueName::current(phase)).map(Current::from_ma));
    match kind {
        DeviceKind::Meter => Reading::Meter(MeterReading {
            current,
            power: PerPhase::from_fn(|phase| power(ValueName::power(phase))),
            voltage: PerPhase::from_fn(|phase| milli(ValueName::voltage(phase)).map(Voltage::from_mv)),
            import: energy(ValueName::EnergyImportWh),
            export: energy(ValueName::EnergyExportWh),
        }),
        DeviceKind::Inverter => Reading::Inverter(InverterReading {
            power: power(ValueName::PowerW),
            current,
            energy: energy(ValueName::EnergyWh),
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::modbus::builtin::{builtin, builtin_names};
    use crate::engine::modbus::exception;

    fn poll(name: &str) -> Poll {
        let map = DeviceMap::parse(builtin(name).unwrap()).unwrap();
        let kind = map.kinds[0];
        Poll::new(map, kind)
    }

    #[test]
    fn a_timeout_ends_the_poll_and_the_next_one_begins_anew() {
        let mut poll = poll("eastron-sdm630");
        let first = poll.start();
        assert_eq!((first.address, first.count), (0, 18));
        assert_eq!(poll.take(Err(DeviceFault::Timeout)), Step::Done(Err(DeviceFault::Timeout)));
        assert_eq!(poll.start(), first);
    }

    #[test]
    fn a_short_answer_is_garbage() {
        let mut poll = poll("eastron-sdm630");
        poll.start();
        assert!(matches!(poll.take(Ok(vec![0; 17])), Step::Done(Err(DeviceFault::Garbage(_)))));
    }

    #[test]
    fn a_refused_energy_block_costs_the_energy_only() {
        let mut poll = poll("eastron-sdm630");
        poll.start();
        let Step::Ask(energy) = poll.take(Ok(vec![0; 18])) else { panic!("a second block is expected") };
        assert_eq!((energy.address, energy.count), (72, 4));
        let Step::Done(Ok(Reading::Meter(reading))) = poll.take(Err(exception(2))) else {
            panic!("a reading is expected")
        };
        assert_eq!(reading.current, PerPhase::splat(Some(Current::ZERO)));
        assert_eq!((reading.import, reading.export), (None, None));
    }

    #[test]
    fn a_device_that_refuses_holes_is_asked_without_them() {
        let text = builtin("eastron-sdm630").unwrap().replace("max_gap = 0", "max_gap = 60");
        let mut poll = Poll::new(DeviceMap::parse(&text).unwrap(), DeviceKind::Meter);
        assert_eq!(poll.start().count, 76);
        let Step::Ask(again) = poll.take(Err(exception(2))) else { panic!("another try is expected") };
        assert_eq!(again.count, 18);
        assert_eq!(poll.start().count, 18, "it remembers");
    }

    #[test]
    fn an_unasked_answer_is_no_reading() {
        assert!(matches!(poll("abb-b23").take(Ok(vec![1])), Step::Done(Err(DeviceFault::Garbage(_)))));
    }

    proptest! {
        #[test]
        fn no_answer_leads_to_a_panic_or_an_endless_poll(
            words in proptest::collection::vec(any::<u16>(), 1..300),
            which in 0_usize..6,
        ) {
            let mut poll = poll(builtin_names().nth(which).unwrap());
            let mut source = words.iter().copied().cycle();
            for _ in 0..3 {
                let mut request = poll.start();
                for step in 0.. {
                    prop_assert!(step < 400, "the poll does not end");
                    let roll = source.next().unwrap() % 16;
                    let answer = match roll {
                        0 => Err(exception(2)),
                        1 => Err(exception(4)),
                        2 => Ok(vec![0x5375, 0x6E53]),
                        _ => Ok((0..request.count).map(|_| source.next().unwrap()).collect()),
                    };
                    match poll.take(answer) {
                        Step::Ask(next) => request = next,
                        Step::Done(_) => break,
                    }
                }
            }
        }
    }
}

//! How the controller's driver reads the devices of the world.

use siteward::engine::modbus::map::DeviceMap;
use siteward::engine::modbus::poll::{Poll, Step};
use siteward::engine::modbus::{DeviceKind, Function, Reading, Request, builtin, exception};
use siteward::engine::model::reading::{DeviceFault, MeterReading};
use siteward::engine::model::topology::{InverterIndex, MeterIndex};
use siteward::engine::site::io::Input;
use siteward::engine::time::Mono;

use crate::meter::{Answer, Meter};
use crate::pv::Pv;

use super::World;
use super::tamper::Tampering;

/// The engine's poll machine with the device map of the meter that the world has.
pub(super) fn meter_poll() -> Result<Poll, String> {
    let text = builtin::builtin("eastron-sdm630").ok_or("there is no device map for the SDM630")?;
    let map = DeviceMap::parse(text).map_err(|error| error.to_string())?;
    Ok(Poll::new(map, DeviceKind::Meter))
}

impl World {
    /// Polls the meters that are due at this tick.
    pub(super) fn poll_meters(&mut self) {
        let Some(asked_at) = self.controller_clock() else { return };
        for index in 0..self.meters.len() {
            if !self.now_ms.is_multiple_of(self.site.meter[index].poll_ms) {
                continue;
            }
            let meter = &mut self.meters[index];
            let result = match self.polls.get_mut(index) {
                None => meter.reading(),
                Some(poll) => read_registers(poll, meter),
            };
            let result = match (result, &mut self.last_readings[index]) {
                (Err(_), Some(last)) if self.site.tampering == Some(Tampering::MeterLossUnseen) => Ok(last.clone()),
                (Ok(reading), last) if self.site.tampering.is_some() => Ok(last.insert(reading).clone()),
                (result, _) => result,
            };
            self.tell_site(Input::Meter { meter: MeterIndex(index), asked_at, result });
        }
    }

    pub(super) fn poll_inverter(&mut self) {
        let Some(asked_at) = self.controller_clock() else { return };
        if let Some(result) = self.pv.as_ref().map(Pv::reading) {
            self.tell_site(Input::Inverter { inverter: InverterIndex(0), asked_at, result });
        }
    }

    fn controller_clock(&self) -> Option<Mono> {
        self.controller
            .as_ref()
            .filter(|_| self.paused_until.is_none())
            .map(|running| Mono::from_ms(self.now_ms - running.started_ms))
    }
}

/// One whole poll: request by request, words by words.
fn read_registers(poll: &mut Poll, meter: &mut Meter) -> Result<MeterReading, DeviceFault> {
    let mut request = poll.start();
    // A poll of a meter needs a handful of requests; one that does not end is a fault of the poll machine.
    for _ in 0..50 {
        match poll.take(answer(meter, request)) {
            Step::Ask(next) => request = next,
            Step::Done(Ok(Reading::Meter(reading))) => return Ok(reading),
            Step::Done(Ok(Reading::Inverter(_))) => {
                return Err(DeviceFault::Garbage("an inverter's reading".to_owned()));
            }
            Step::Done(Err(fault)) => return Err(fault),
        }
    }
    Err(DeviceFault::Garbage("the poll does not end".to_owned()))
}

fn answer(meter: &mut Meter, request: Request) -> Result<Vec<u16>, DeviceFault> {
    let function = match request.function {
        Function::Input => 4,
        Function::Holding => 3,
        Function::Coil => 1,
        Function::Discrete => 2,
    };
    match meter.read(function, request.address, request.count) {
        Answer::Words(words) => Ok(words),
        Answer::Exception(code) => Err(exception(code)),
        Answer::Silent => Err(DeviceFault::Timeout),
    }
}

#[cfg(test)]
mod tests {
    use siteward::engine::units::{Current, PerPhase, Voltage};

    use super::*;
    use crate::meter::MeterKind;

    #[test]
    fn the_device_map_reads_what_the_meter_measures() {
        let mut meter = Meter::new(MeterKind::Sdm630, Voltage::from_mv(230_000), 1);
        let current = PerPhase::new(Current::from_a(10), Current::from_a(-20), Current::from_a(30));
        meter.set_current(current, Mono::START);
        let reading = read_registers(&mut meter_poll().unwrap(), &mut meter).unwrap();
        assert_eq!(reading.current, current.map(Some));
    }
}

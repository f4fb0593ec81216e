//! What leaves as telemetry: each quarter of an hour of each meter, and of each EVSE with a transaction.

use super::Site;
use super::io::{Output, TelemetryInput};
use super::readings::Measured;
use crate::engine::cloud::courier::{Courier, CourierAction};
use crate::engine::cloud::telemetry::{Interval, Sample};
use crate::engine::model::ids::TransactionId;
use crate::engine::model::reading::{MeterReading, StationReading};
use crate::engine::model::topology::{EvseIndex, MeterIndex, Topology};
use crate::engine::time::{Mono, Now, Utc};
use crate::engine::units::{Current, Energy, PerPhase, Phase, Power};

/// Quarters of an hour begin at whole ones everywhere: all time zones differ by multiples of one.
const QUARTER_MS: i64 = 900_000;
/// A quarter that is noticed later than this had no end in time: the process stood still.
const LATE_MS: i64 = 5_000;
/// The clock was set if it differs from the monotonic one by more.
const SET_MS: i64 = 2_000;
/// One sample in so many ms is kept.
const SAMPLE_MS: u64 = 60_000;
/// W · ms in a Wh.
const WMS_IN_WH: i64 = 3_600_000;

/// Telemetry as the site gathers it, and how it leaves.
#[derive(Debug)]
pub(super) struct Telemetry {
    courier: Courier,
    /// The ring's name.
    ring: String,
    /// When the quarter began.
    began: (Utc, Mono),
    meters: Vec<Gathered>,
    evses: Vec<Gathered>,
}

/// What one device measured since the quarter began.
#[derive(Clone, Debug, Default)]
struct Gathered {
    /// How many values came.
    values: u64,
    /// For how long one was known.
    measured_ms: u64,
    last: Option<(Mono, Option<Power>)>,
    /// Drawn and fed in, in W · ms.
    worked: (i64, i64),
    /// For how long a power was known.
    powered_ms: u64,
    /// The registers of energy drawn and fed in as the quarter before left them.
    before: (Option<Energy>, Option<Energy>),
    registers: (Option<Energy>, Option<Energy>),
    peak: PerPhase<Option<Current>>,
    least: PerPhase<Option<Current>>,
    peak_power: Option<Power>,
    samples: Vec<Sample>,
    sampled_at: Option<Mono>,
    transaction: Option<TransactionId>,
}

/// When a quarter was.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: Utc,
    until: Utc,
    trusted: bool,
}

/// One value of a device.
#[derive(Clone, Copy, Debug, Default)]
struct Value {
    current: PerPhase<Option<Current>>,
    power: Option<Power>,
    registers: (Option<Energy>, Option<Energy>),
    offered: Option<Current>,
    soc_percent: Option<u8>,
}

impl Telemetry {
    pub(super) fn new(topology: &Topology, now: Now) -> Self {
        Self {
            courier: Courier::default(),
            ring: String::new(),
            began: (now.utc, now.mono),
            meters: vec![Gathered::default(); topology.meters().len()],
            evses: vec![Gathered::default(); topology.evses().len()],
        }
    }

    pub(super) const fn courier(&mut self) -> &mut Courier {
        &mut self.courier
    }

    /// From when until when the quarter was, if it is over; then the next one begins.
    fn ended(&mut self, now: Now) -> Option<Span> {
        let (from, since) = self.began;
        let elapsed = i64::try_from(now.mono.since(since)).unwrap_or(i64::MAX);
        let was_set = now.utc.since(from.plus_ms(elapsed)).saturating_abs() > SET_MS;
        let boundary = Utc::from_unix_ms((from.unix_ms().div_euclid(QUARTER_MS) + 1) * QUARTER_MS);
        let late = now.utc.since(boundary);
        if !was_set && late < 0 {
            return None;
        }
        let (from, until) = match was_set {
            true => (now.utc.plus_ms(elapsed.saturating_neg()), now.utc),
            false if late > LATE_MS => (from, now.utc),
            false => (from, boundary),
        };
        let since_then = u64::try_from(now.utc.since(until)).unwrap_or(0);
        self.began = (until, now.mono.minus_ms(since_then));
        Some(Span { from, until, trusted: now.utc_trusted })
    }
}

impl Gathered {
    /// Takes a value in. The one before holds until it, unless it is older than `longest_ms`.
    fn take(&mut self, value: &Value, longest_ms: u64, (at, now): (Mono, Now)) {
        self.values += 1;
        if let Some((last, power)) = self.last {
            let held_ms = at.since(last);
            if held_ms <= longest_ms {
                self.measured_ms += held_ms;
                self.work(power, held_ms);
            }
        }
        self.last = Some((at, value.power));
        let (import, export) = value.registers;
        self.registers = (import.or(self.registers.0), export.or(self.registers.1));
        self.before = (self.before.0.or(import), self.before.1.or(export));
        self.peak = self.peak.zip_with(value.current, Ord::max);
        self.least = self.least.zip_with(value.current, |least, current| match (least, current) {
            (Some(least), Some(current)) => Some(least.min(current)),
            (least, current) => least.or(current),
        });
        self.peak_power = self.peak_power.max(value.power);
        if self.sampled_at.is_none_or(|sampled| at.since(sampled) >= SAMPLE_MS) {
            self.sampled_at = Some(at);
            let age_ms = i64::try_from(now.mono.since(at)).unwrap_or(i64::MAX);
            self.samples.push(Sample {
                at: now.utc.plus_ms(age_ms.saturating_neg()),
                current_a: amperes(value.current),
                power_w: value.power.map(Power::w),
                import_register_wh: import.map(Energy::wh),
                offered_a: value.offered.map(Current::as_a),
                soc_percent: value.soc_percent,
            });
        }
    }

    fn work(&mut self, power: Option<Power>, held_ms: u64) {
        let (Some(power), Ok(ms)) = (power, i64::try_from(held_ms)) else { return };
        self.powered_ms += held_ms;
        let work = power.w().saturating_mul(ms);
        let (drawn, fed_in) = self.worked;
        self.worked = (drawn.saturating_add(work.max(0)), fed_in.saturating_add(work.saturating_neg().max(0)));
    }

    /// Energy drawn and fed in, and where that comes from.
    fn energy(&self) -> (Option<i64>, Option<i64>, Option<&'static str>) {
        // A register that stepped back says nothing.
        let moved = |before: Option<Energy>, now: Option<Energy>| Some((now? - before?).wh()).filter(|wh| *wh >= 0);
        let (import, export) = (moved(self.before.0, self.registers.0), moved(self.before.1, self.registers.1));
        if import.is_some() {
            (import, export, Some("register"))
        } else if self.powered_ms > 0 {
            (Some(self.worked.0 / WMS_IN_WH), Some(self.worked.1 / WMS_IN_WH), Some("power"))
        } else {
            (None, None, None)
        }
    }

    /// What the quarter `span` was; `None`: no value came. The next one begins where this one ends.
    fn end(&mut self, span: Span) -> Option<Interval> {
        let next = Self {
            last: self.last,
            before: self.registers,
            registers: self.registers,
            sampled_at: None,
            ..Self::default()
        };
        let gathered = std::mem::replace(self, next);
        let (import_wh, export_wh, energy_by) = gathered.energy();
        (gathered.values > 0).then(|| Interval {
            transaction_id: gathered.transaction.map(|transaction| transaction.to_string()),
            from: span.from,
            until: span.until,
            clock_trusted: span.trusted,
            measured_s: gathered.measured_ms / 1_000,
            import_wh,
            export_wh,
            energy_by,
            peak_a: amperes(gathered.peak),
            least_a: amperes(gathered.least),
            peak_w: gathered.peak_power.map(Power::w),
            samples: gathered.samples,
            ..Interval::default()
        })
    }
}

impl Site {
    /// A meter was read.
    pub(super) fn gather_meter(&mut self, meter: MeterIndex, reading: &MeterReading, (at, now): (Mono, Now)) {
        let longest_ms = self.setup.topology.meters()[meter.0].stale_after_ms;
        let Some(cloud) = &mut self.cloud else { return };
        let power = reading.power.complete().map(|power| power.iter().map(|(_, power)| *power).sum());
        let value =
            Value { current: reading.current, power, registers: (reading.import, reading.export), ..Value::default() };
        cloud.telemetry.meters[meter.0].take(&value, longest_ms, (at, now));
    }

    /// A station has told what one of its EVSEs draws.
    pub(super) fn gather_sample(&mut self, index: EvseIndex, reading: &StationReading, measured: &Measured, now: Now) {
        if self.cloud.is_none() || !self.is_charging(index) {
            return;
        }
        let (longest_ms, evse) = (self.sample_gap_ms(index), self.setup.topology.evse(index));
        let facts = self.ledger.station(self.station_id(evse.station));
        let open = facts.and_then(|facts| facts.transaction_at(evse.number));
        let transaction = open.map(|open| open.facts.transaction.clone());
        let value = Value {
            current: measured.current.map(Some),
            power: reading.power,
            registers: (reading.energy, None),
            offered: self.evses[index.0].tether.offered().map(|sent| sent.limit),
            soc_percent: reading.soc_percent,
        };
        let Some(cloud) = &mut self.cloud else { return };
        let gathered = &mut cloud.telemetry.evses[index.0];
        gathered.transaction = transaction;
        gathered.take(&value, longest_ms, (now.mono, now));
    }

    /// Hands a quarter that is over to the ring.
    pub(super) fn telemetry_tick(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(cloud) = &mut self.cloud else { return };
        let Some(span) = cloud.telemetry.ended(now) else { return };
        let topology = &self.setup.topology;
        let mut intervals = Vec::new();
        for (meter, gathered) in topology.meters().iter().zip(&mut cloud.telemetry.meters) {
            let meter = Some(meter.id.to_string());
            intervals.extend(gathered.end(span).map(|interval| Interval { meter, ..interval }));
        }
        for (evse, gathered) in topology.evses().iter().zip(&mut cloud.telemetry.evses) {
            let (charger, evse) = (Some(topology.station(evse.station).id.to_string()), Some(evse.number));
            // Nobody measures what an EVSE feeds in.
            let export_wh = None;
            intervals.extend(gathered.end(span).map(|interval| Interval { charger, evse, export_wh, ..interval }));
        }
        let texts = intervals.iter().filter_map(|interval| serde_json::to_string(interval).ok());
        let intervals: Vec<String> = texts.collect();
        if !intervals.is_empty() {
            out.push(Output::Telemetry { intervals });
        }
    }

    /// The ring has something to say.
    pub(super) fn telemetry_said(&mut self, said: TelemetryInput, now: Now, out: &mut Vec<Output>) {
        let Some(cloud) = &mut self.cloud else { return };
        match said {
            TelemetryInput::Kept { ring, dropped, newest } => {
                cloud.telemetry.ring = ring;
                cloud.telemetry.courier.kept(dropped, newest);
            }
            TelemetryInput::Intervals { intervals } => cloud.telemetry.courier.intervals(intervals),
        }
        self.telemetry_poll(now, out);
    }

    /// Sends what may be sent now.
    pub(super) fn telemetry_poll(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(cloud) = &mut self.cloud else { return };
        let idle = cloud.outbox.has_sent_all();
        for action in cloud.telemetry.courier.poll(idle, now.mono) {
            out.push(match action {
                CourierAction::Read { from, limit } => Output::ReadTelemetry { from, limit },
                CourierAction::Publish { sequence, interval } => {
                    Output::Publish(cloud.messages.telemetry(&cloud.telemetry.ring, sequence, &interval))
                }
                CourierAction::Acknowledged(through) => Output::TelemetryAcknowledged { through },
            });
        }
    }
}

fn amperes(current: PerPhase<Option<Current>>) -> [Option<f64>; 3] {
    Phase::ALL.map(|phase| current.of(phase).map(Current::as_a))
}

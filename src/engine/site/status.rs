//! The site as people see it: status and explanation.

use super::Site;
use super::ledger::OpenTransaction;
use super::outside_status::limit_status;
use crate::engine::model::exchange::{ChargingState, ConnectorStatus};
use crate::engine::model::status::{
    ChargerStatus, CircuitStatus, CloudStatus, EvseStatus, Explanation, InverterStatus, MeterStatus, ProfileWrites,
    SiteStatus, TransactionStatus,
};
use crate::engine::model::topology::{CircuitIndex, EvseIndex, StationIndex};
use crate::engine::plan::binding::Binding;
use crate::engine::time::Now;
use crate::engine::units::{Current, Energy, PerPhase, Phase, Power};

impl Site {
    /// The site at a glance.
    #[must_use]
    pub fn status(&self, now: Now) -> SiteStatus {
        let topology = &self.setup.topology;
        SiteStatus {
            site: topology.site().to_string(),
            version: self.setup.version.clone(),
            time: now.utc,
            clock_trusted: now.utc_trusted,
            uptime_ms: now.mono.since(self.started),
            circuits: (0..topology.circuits().len())
                .map(|index| self.circuit_status(CircuitIndex(index), now))
                .collect(),
            chargers: (0..topology.stations().len())
                .map(|index| self.charger_status(StationIndex(index), now))
                .collect(),
            pending: self.pending.chargers.clone(),
            meters: (0..self.meters.len()).map(|index| self.meter_status(index, now)).collect(),
            inverters: (0..self.inverters.len()).map(|index| self.inverter_status(index, now)).collect(),
            transactions: self.transactions(),
            limits: self.ledger.limits().iter().map(limit_status).collect(),
            alarms: self.ledger.alarms().to_vec(),
            cloud: self.cloud.as_ref().map(|cloud| CloudStatus {
                connected: cloud.connected,
                acknowledged_sequence: cloud.outbox.acknowledged().0,
                backlog: cloud.outbox.backlog(),
                error: cloud.error.clone(),
            }),
            last_sequence: self.ledger.last().0,
            durable_sequence: self.durable.0,
        }
    }

    /// Why a station's EVSEs have the limits that they have.
    #[must_use]
    pub fn explain(&self, station: StationIndex, now: Now) -> Explanation {
        let topology = &self.setup.topology;
        let circuit = topology.station(station).circuit;
        Explanation {
            charger: self.station_id(station).to_string(),
            connected: self.stations[station.0].session.is_some(),
            evses: topology.evses_of(station).map(|evse| self.evse_status(evse, now)).collect(),
            circuits: topology.path_to_grid(circuit).map(|above| self.circuit_status(above, now)).collect(),
        }
    }

    fn circuit_status(&self, index: CircuitIndex, now: Now) -> CircuitStatus {
        let topology = &self.setup.topology;
        let circuit = topology.circuit(index);
        let state = self.plan_state.circuits.get(index.0);
        let measured = circuit.meter.and_then(|meter| {
            let stale_after_ms = topology.meters()[meter.0].stale_after_ms;
            self.meters[meter.0].last.as_ref()?.fresh(now.mono, stale_after_ms)?.current.complete()
        });
        let mut offered = PerPhase::splat(Current::ZERO);
        for evse in topology.evses_below(index) {
            let limit = self.evses[evse.0].tether.offered().map(|sent| sent.limit);
            let phases = topology.station(topology.evse(*evse).station).wiring.phases();
            offered += phases.spread(limit.unwrap_or_default());
        }
        CircuitStatus {
            id: circuit.id.to_string(),
            parent: circuit.parent.map(|parent| topology.circuit(parent).id.to_string()),
            limit_a: amperes(state.map_or(circuit.limit, |state| state.limit)),
            configured_limit_a: amperes(circuit.limit),
            measured_a: measured.map(amperes),
            background_a: amperes(state.map_or(PerPhase::default(), |state| state.background)),
            background_source: state.map_or("unknown", |state| state.background_source.name()).to_owned(),
            committed_a: amperes(self.committed_below(index)),
            offered_a: amperes(offered),
        }
    }

    fn charger_status(&self, index: StationIndex, now: Now) -> ChargerStatus {
        let topology = &self.setup.topology;
        let station = topology.station(index);
        let facts = self.ledger.station(&station.id);
        let info = facts.and_then(|facts| facts.info.as_ref());
        let version = facts.and_then(|facts| facts.version);
        ChargerStatus {
            id: station.id.to_string(),
            circuit: topology.circuit(station.circuit).id.to_string(),
            connected: self.stations[index.0].session.is_some(),
            ocpp_version: version.map(|version| version.subprotocol().trim_start_matches("ocpp").to_owned()),
            vendor: info.map(|info| info.vendor.clone()),
            model: info.map(|info| info.model.clone()),
            firmware: info.and_then(|info| info.firmware.clone()),
            starts_in_s: self.waits_until(index, now.mono).map(|until| until.since(now.mono) / 1_000),
            profile_writes: ProfileWrites {
                in_a_day: self.stations[index.0].writes.in_a_day(now.mono),
                budget: station.model.writes_per_day,
            },
            evses: topology.evses_of(index).map(|evse| self.evse_status(evse, now)).collect(),
        }
    }

    fn evse_status(&self, index: EvseIndex, now: Now) -> EvseStatus {
        let evse = self.setup.topology.evse(index);
        let control = &self.evses[index.0];
        let measured = self.fresh_measured(index, now.mono);
        let facts = self.ledger.station(self.station_id(evse.station));
        let open = facts.and_then(|facts| facts.transaction_at(evse.number));
        let energy = open.and_then(|open| {
            let register = self.known_register(index, open)?;
            Some((register - open.facts.meter_start?).wh())
        });
        EvseStatus {
            evse: evse.number,
            status: status_name(control.status, control.charging_state.filter(|_| open.is_some())),
            offered_a: control.tether.offered().map(|sent| sent.limit.as_a()),
            committed_a: control.tether.committed(self.reachable(index), now.mono).as_a(),
            measured_a: measured.map(|measured| amperes(measured.current)),
            power_w: measured.and_then(|measured| measured.power).map(Power::w),
            energy_wh: energy,
            transaction: open.map(|open| open.facts.transaction.to_string()),
            binding: self.binding_name(index, now.mono).to_owned(),
            explanation: self.outside_sentence(index, now.mono).unwrap_or_else(|| self.sentence(index, now)),
            priority: self.wishes[index.0].priority,
            weight: self.wishes[index.0].weight,
            priority_from: self.wishes[index.0].priority_from.name().to_owned(),
            boost_until: self.wishes[index.0].boost.as_ref().map(|boost| boost.until),
            target: self.target_status(index, now),
            queue: self.queue_status(index, now),
            wishes: self.wishes_text(index, now),
        }
    }

    /// The energy register of a running transaction: from this run, or as last recorded. Its start alone says nothing of the progress.
    pub(super) fn known_register(&self, index: EvseIndex, open: &OpenTransaction) -> Option<Energy> {
        let recorded = open.meter.filter(|meter| Some(*meter) != open.facts.meter_start);
        self.energy_register(index).or(recorded)
    }

    /// What decides the limit of an EVSE, with circuit, phase and amount.
    pub(super) fn sentence(&self, index: EvseIndex, now: Now) -> String {
        let Some(offer) = self.offer(index) else { return "no plan yet".to_owned() };
        let topology = &self.setup.topology;
        let station = topology.station(topology.evse(index).station);
        let limit = self.evses[index.0].tether.offered().map_or(Current::ZERO, |sent| sent.limit);
        let nearest = self.nearest_bottleneck(index);
        match offer.binding {
            Binding::NoDemand => format!("{} ({nearest})", self.why_no_demand(index, now)),
            Binding::Demand if self.is_commissioned(topology.evse(index).station) => {
                format!("{limit}: it is being commissioned ({nearest})")
            }
            Binding::Demand => format!("{limit}: the car takes no more ({nearest})"),
            Binding::EvseMaximum if self.wishes[index.0].max < station.max => {
                format!("{limit}: its token may have no more ({nearest})")
            }
            Binding::EvseMaximum => format!("{limit}: this is its own maximum ({nearest})"),
            Binding::Circuit(at) => {
                format!("{limit}: {}{}, rest shared", at.describe(topology), self.lowered_circuit(at.circuit))
            }
            Binding::Queue(at) => {
                let place = self.place_in_queue(index, now).unwrap_or_else(|| "waits for its turn".to_owned());
                let (why, by) = (at.describe(topology), self.lowered_circuit(at.circuit));
                format!("{place}: its minimum of {} does not fit, {why}{by}", self.wishes[index.0].min)
            }
            Binding::MeterLost { circuit } => {
                let id = &topology.circuit(circuit).id;
                format!("{limit}: the meter of circuit {id} is silent, only the fallback may be given ({nearest})")
            }
            Binding::BelowMinimum => {
                format!("paused: it could use less than its minimum of {} only ({nearest})", self.wishes[index.0].min)
            }
            Binding::Deadline(at) => {
                format!("{limit}: more than its share, to be ready in time; {}", at.describe(topology))
            }
            Binding::Ramp { circuit } => {
                let id = &topology.circuit(circuit).id;
                format!("{limit}, rising to {} as fast as the ramp of circuit {id} lets it ({nearest})", offer.target)
            }
            Binding::Hold => {
                format!(
                    "{limit}, to be raised to {} later: its limit has changed often lately ({nearest})",
                    offer.target
                )
            }
            Binding::RaisePending(at) => {
                format!(
                    "{limit}, rising to {} once cuts elsewhere are confirmed: {}",
                    offer.target,
                    at.describe(topology)
                )
            }
            Binding::Unreachable if self.is_commissioned(topology.evse(index).station) => {
                format!("{limit}: it is being commissioned, its limit stays as it is meanwhile ({nearest})")
            }
            Binding::Unreachable => {
                let committed = self.evses[index.0].tether.committed(self.reachable(index), now.mono);
                format!("no limit can be sent to it now; it counts at {committed} ({nearest})")
            }
        }
    }

    /// The circuit and phase above an EVSE that has least left.
    fn nearest_bottleneck(&self, index: EvseIndex) -> String {
        let topology = &self.setup.topology;
        let evse = topology.evse(index);
        let phases = topology.station(evse.station).wiring.phases();
        let tightest = topology
            .path_to_grid(evse.circuit)
            .filter_map(|circuit| Some((circuit, self.room(circuit)?)))
            .flat_map(|(circuit, room)| phases.iter().map(move |phase| (room.of(phase), circuit, phase)))
            .min_by_key(|(room, _, _)| *room);
        match tightest {
            Some((room, circuit, phase)) => {
                let limit = self.plan_state.circuits[circuit.0].limit.of(phase);
                let id = &topology.circuit(circuit).id;
                format!("tightest above it: circuit {id} {phase}, {} of {limit} free", room.at_least_zero())
            }
            None => "no plan yet".to_owned(),
        }
    }

    fn meter_status(&self, index: usize, now: Now) -> MeterStatus {
        let meter = &self.setup.topology.meters()[index];
        let state = &self.meters[index];
        let last = state.last.as_ref().map(|last| *last.for_display()).unwrap_or_default();
        let power =
            last.power.complete().map(|power| Phase::ALL.iter().map(|phase| power.of(*phase)).sum::<Power>().w());
        MeterStatus {
            id: meter.id.to_string(),
            fresh: state.last.as_ref().is_some_and(|last| last.fresh(now.mono, meter.stale_after_ms).is_some()),
            age_ms: state.last.as_ref().map(|last| last.age_ms(now.mono)),
            current_a: Phase::ALL.map(|phase| last.current.of(phase).map(Current::as_a)),
            power_w: power,
            fault: state.fault.as_ref().map(ToString::to_string),
        }
    }

    fn inverter_status(&self, index: usize, now: Now) -> InverterStatus {
        let inverter = &self.setup.topology.inverters()[index];
        let state = &self.inverters[index];
        let fresh = state.last.as_ref().and_then(|last| last.fresh(now.mono, inverter.stale_after_ms));
        InverterStatus {
            id: inverter.id.to_string(),
            fresh: fresh.is_some(),
            age_ms: state.last.as_ref().map(|last| last.age_ms(now.mono)),
            power_w: fresh.and_then(|reading| reading.power).map(Power::w),
            fault: state.fault.as_ref().map(ToString::to_string),
        }
    }

    fn transactions(&self) -> Vec<TransactionStatus> {
        let status = |open: &OpenTransaction| {
            let station = self.setup.topology.find_station(&open.facts.charger);
            let index = station.and_then(|station| self.setup.topology.find_evse(station, open.facts.evse));
            let register = index.and_then(|index| self.known_register(index, open));
            let energy = register.zip(open.facts.meter_start).map(|(now, start): (Energy, Energy)| (now - start).wh());
            TransactionStatus {
                transaction: open.facts.transaction.to_string(),
                charger: open.facts.charger.to_string(),
                evse: open.facts.evse,
                token: open.facts.token.as_ref().map(ToString::to_string),
                started: open.facts.started,
                energy_wh: energy,
            }
        };
        self.ledger.open().map(status).collect()
    }
}

/// The connector's state. OCPP 2.x only says that it is occupied; what its transaction does says more.
fn status_name(status: Option<ConnectorStatus>, doing: Option<ChargingState>) -> Option<String> {
    match (status?, doing) {
        (ConnectorStatus::Occupied, Some(ChargingState::EvConnected)) => Some("Preparing".to_owned()),
        (
            ConnectorStatus::Occupied,
            Some(doing @ (ChargingState::Charging | ChargingState::SuspendedEv | ChargingState::SuspendedEvse)),
        ) => Some(format!("{doing:?}")),
        (status, _) => Some(format!("{status:?}")),
    }
}

fn amperes(current: PerPhase<Current>) -> [f64; 3] {
    Phase::ALL.map(|phase| current.of(phase).as_a())
}

//! A charging station with its cars, on OCPP 1.6, 2.0.1 or 2.1.
//!
//! It is driven from outside: [`Station::connected`], [`Station::receive`], [`Station::tick`] and so on; what it returns are
//! frames to be sent in that order. [`Now::utc`] is the true time; the station's own clock may differ.

mod authorization;
mod availability;
mod bay;
mod calls;
mod display;
mod link;
mod options;
pub mod profiles;
pub mod signing;
mod transaction;
mod v16;
mod v201;
mod variables;

use siteward::engine::model::exchange::{ChargingState, ConnectorStatus, OcppVersion};
use siteward::engine::time::{Mono, Now, Utc};
use siteward::engine::units::{Current, PerPhase, Phase};

use crate::car::{Car, WH_IN_MWMS};
use crate::rng::Dice;
pub use authorization::{ListFault, OwnTokens};
use bay::{Bay, Running};
pub use display::COST_VENDOR;
use link::{Link, Plain};
pub use options::{Quirks, Rectifier, StationOptions};
use profiles::{Asked, LimitAt, Profiles};
use transaction::{Sample, TxMessage, TxPart, TxQueue};
pub use transaction::{StopReason, TransactionTruth};
use variables::Variables;

/// A charging station.
#[derive(Clone, Debug)]
pub struct Station {
    options: StationOptions,
    clock_offset_ms: i64,
    bays: Vec<Bay>,
    profiles: Profiles,
    /// Until when the offers hold by the profiles alone; `None`: for ever.
    offers_hold_until: Option<Utc>,
    offers_are_old: bool,
    variables: Variables,
    link: Link,
    queue: TxQueue,
    transactions: Vec<TransactionTruth>,
    dice: Dice,
    close_wanted: bool,
    reset_when_idle: bool,
    profile_writes: u64,
    lowered_at: Option<Mono>,
    known: authorization::Known,
}

impl Station {
    /// A station that has just got power and is not connected.
    #[must_use]
    pub fn new(options: StationOptions) -> Self {
        let bays = (1..=options.evses).map(Bay::new).collect();
        let dice = Dice::named(options.seed, &options.identity);
        Self {
            clock_offset_ms: options.quirks.clock_offset_ms,
            bays,
            profiles: Profiles::default(),
            offers_hold_until: None,
            offers_are_old: true,
            variables: Variables::new(&options),
            link: Link::new("PowerUp"),
            queue: TxQueue::default(),
            transactions: Vec::new(),
            dice,
            close_wanted: false,
            reset_when_idle: false,
            profile_writes: 0,
            lowered_at: None,
            known: authorization::Known::default(),
            options,
        }
    }

    /// What kind of station it is.
    #[must_use]
    pub const fn options(&self) -> &StationOptions {
        &self.options
    }

    /// What is odd about it, to switch it during a run.
    pub const fn quirks_mut(&mut self) -> &mut Quirks {
        self.offers_are_old = true;
        &mut self.options.quirks
    }

    /// It behaves differently from now on. A clock that was wrong is right when the controller next tells the time.
    pub fn behave(&mut self, quirks: Quirks) {
        if quirks.clock_offset_ms != self.options.quirks.clock_offset_ms {
            self.clock_offset_ms = quirks.clock_offset_ms;
        }
        self.options.quirks = quirks;
        self.offers_are_old = true;
    }

    /// It forgets all its profiles, and says nothing.
    pub fn forget_profiles(&mut self) {
        self.profiles = Profiles::default();
        self.offers_are_old = true;
    }

    /// The WebSocket is open.
    pub fn connected(&mut self, now: Now) -> Vec<String> {
        self.link.opened();
        self.offers_are_old |= self.profiles.online(self.clock(now));
        if self.options.quirks.resend_storm {
            self.queue.repeat_answered();
        }
        for bay in &mut self.bays {
            bay.told = None;
            bay.asked = false;
        }
        self.tick(now)
    }

    /// The WebSocket is gone.
    pub fn disconnected(&mut self, now: Now) {
        self.advance(now);
        self.link.closed();
        self.offers_are_old |= self.profiles.offline(self.clock(now));
        if self.options.quirks.drops_when_offline {
            self.profiles.remove(|profile| profile.purpose == profiles::Purpose::Tx);
            self.offers_are_old = true;
        }
    }

    /// Whether it is connected, as far as it knows.
    #[must_use]
    pub const fn is_online(&self) -> bool {
        self.link.online
    }

    /// Whether it wants its WebSocket closed because it reboots. Then: close it, [`Station::disconnected`], and connect again
    /// after some time. Says so once.
    pub const fn take_close(&mut self) -> bool {
        let wanted = self.close_wanted;
        self.close_wanted = false;
        wanted
    }

    /// The power was gone for a moment. Transactions end; queued messages and (usually) profiles are kept.
    pub fn power_cycle(&mut self, now: Now) {
        self.advance(now);
        self.reboot(StopReason::PowerLoss, now);
    }

    /// A text frame came.
    pub fn receive(&mut self, text: &str, now: Now) -> Vec<String> {
        self.advance(now);
        let mut frames = self.take_frame(text, now);
        frames.extend(self.run(now));
        frames
    }

    /// Time has passed. Call it at least once a second.
    pub fn tick(&mut self, now: Now) -> Vec<String> {
        self.advance(now);
        self.run(now)
    }

    /// A car is plugged in. With a token the driver has also shown a card; without, somebody has to start it remotely.
    /// Nothing happens if the EVSE is taken or does not exist: then the car comes back.
    ///
    /// # Errors
    /// The car, if there is no room for it.
    pub fn plug_in(&mut self, evse: u32, mut car: Car, token: Option<&str>) -> Result<(), Box<Car>> {
        car.use_at_most(usize::try_from(self.options.wiring.phases().len()).unwrap_or(3));
        let Some(bay) = self.bay_mut(evse).filter(|bay| bay.car.is_none()) else { return Err(Box::new(car)) };
        bay.car = Some(car);
        bay.finishing = false;
        bay.token = token.map(str::to_owned);
        bay.authorized = false;
        bay.asked = false;
        bay.remote_start = None;
        Ok(())
    }

    /// The plug is pulled. The car, if there was one.
    pub fn unplug(&mut self, evse: u32, now: Now) -> Option<Car> {
        self.advance(now);
        let index = self.index_of(evse)?;
        self.stop(index, StopReason::EvDisconnected, now);
        let leaks_wh = self.options.quirks.leaks_wh;
        let bay = &mut self.bays[index];
        bay.energy_mwms += leaks_wh * WH_IN_MWMS;
        bay.finishing = false;
        bay.token = None;
        bay.authorized = false;
        bay.car.take()
    }

    /// Somebody at the station stops charging; the cable stays in.
    pub fn stop_locally(&mut self, evse: u32, now: Now) {
        self.advance(now);
        if let Some(index) = self.index_of(evse) {
            self.stop(index, StopReason::Local, now);
        }
    }

    /// What an EVSE draws on each phase of the grid.
    #[must_use]
    pub fn current(&self, evse: u32) -> PerPhase<Current> {
        let Some(bay) = self.index_of(evse).map(|index| &self.bays[index]) else {
            return PerPhase::splat(Current::ZERO);
        };
        self.options.wiring.to_grid(self.at_terminals(bay)).map(|current| current.unwrap_or(Current::ZERO))
    }

    /// What the station draws on each phase of the grid.
    #[must_use]
    pub fn total_current(&self) -> PerPhase<Current> {
        self.bays.iter().filter(|bay| bay.car.is_some()).fold(PerPhase::splat(Current::ZERO), |sum, bay| {
            sum + self.options.wiring.to_grid(self.at_terminals(bay)).map(|current| current.unwrap_or(Current::ZERO))
        })
    }

    /// What an EVSE offers its car per phase now: by profiles and by what it can. Zero without a transaction.
    #[must_use]
    pub fn offered(&self, evse: u32) -> Current {
        self.index_of(evse).map_or(Current::ZERO, |index| self.bays[index].offered)
    }

    /// When it last accepted a limit that offers a car less than before.
    #[must_use]
    pub const fn lowered_at(&self) -> Option<Mono> {
        self.lowered_at
    }

    /// What the profiles allow an EVSE now per phase, whether or not a transaction runs; `None`: no profile says anything.
    #[must_use]
    pub fn profile_limit(&self, evse: u32, now: Now) -> Option<Current> {
        self.limit_at(evse, self.clock(now)).limit
    }

    /// The car at an EVSE.
    #[must_use]
    pub fn car(&self, evse: u32) -> Option<&Car> {
        self.index_of(evse).and_then(|index| self.bays[index].car.as_ref())
    }

    /// The state of an EVSE in the words of OCPP 1.6.
    #[must_use]
    pub fn status(&self, evse: u32) -> Option<ConnectorStatus> {
        self.index_of(evse).map(|index| self.bays[index].status())
    }

    /// The energy register of an EVSE in Wh.
    #[must_use]
    pub fn energy_wh(&self, evse: u32) -> i64 {
        self.index_of(evse).map_or(0, |index| self.bays[index].energy_wh())
    }

    /// All transactions there ever were, in order.
    #[must_use]
    pub fn transactions(&self) -> &[TransactionTruth] {
        &self.transactions
    }

    /// The running transaction of an EVSE.
    #[must_use]
    pub fn running(&self, evse: u32) -> Option<&TransactionTruth> {
        let bay = &self.bays[self.index_of(evse)?];
        bay.running.as_ref().and_then(|running| self.transactions.get(running.index))
    }

    /// How many charging profiles it has accepted: each is a write to the flash of a station that keeps them there.
    #[must_use]
    pub const fn profile_writes(&self) -> u64 {
        self.profile_writes
    }

    /// How many transaction messages wait to be sent or answered.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Its own clock.
    #[must_use]
    pub const fn clock(&self, now: Now) -> Utc {
        now.utc.plus_ms(self.clock_offset_ms)
    }

    fn index_of(&self, evse: u32) -> Option<usize> {
        self.bays.iter().position(|bay| bay.number == evse)
    }

    fn bay_mut(&mut self, evse: u32) -> Option<&mut Bay> {
        self.bays.iter_mut().find(|bay| bay.number == evse)
    }

    fn at_terminals(&self, bay: &Bay) -> PerPhase<Option<Current>> {
        let wired = usize::try_from(self.options.wiring.phases().len()).unwrap_or(3);
        let (phases, taken) = bay.car.as_ref().map_or((0, Current::ZERO), |car| (car.options().phases, car.current()));
        let drawn = self.options.rectifier.map_or(taken, |rectifier| rectifier.draws(taken));
        PerPhase::from_fn(|terminal: Phase| {
            let index = terminal.index();
            (index < wired).then_some(if index < phases { drawn } else { Current::ZERO })
        })
    }

    fn limit_at(&self, evse: u32, at: Utc) -> LimitAt {
        let bay = self.index_of(evse).map(|index| &self.bays[index]);
        let truth = bay.and_then(|bay| bay.running.as_ref()).and_then(|running| self.transactions.get(running.index));
        let asked = Asked {
            evse,
            transaction: truth.and_then(|truth| truth.id.as_deref()),
            started: truth.map(|truth| truth.started),
        };
        let late = self.options.quirks.default_comes_late && truth.is_some();
        let own = match bay.filter(|_| late) {
            Some(bay) => self.profiles.with_defaults_of(&bay.profiles_at_start).limit(asked, at),
            None => self.profiles.limit(asked, at),
        };
        let all = self.profiles.station_limit(at);
        let active = self.bays.iter().filter(|bay| bay.running.is_some()).count().max(1);
        // The limit of the station is for all EVSEs together: each gets the same share.
        let share = all.limit.map(|limit| Current::from_ma(limit.ma() / i32::try_from(active).unwrap_or(1)));
        let limit = match (own.limit, share) {
            (Some(own), Some(share)) => Some(own.min(share)),
            (own, share) => own.or(share),
        };
        let until = match (own.until, all.until) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        LimitAt { limit, until }
    }

    /// Lets the cars draw up to now, and renews the offers where a schedule has come to its next period.
    fn advance(&mut self, now: Now) {
        let clock = self.clock(now);
        if self.offers_are_old || self.offers_hold_until.is_some_and(|until| clock >= until) {
            self.renew_offers(clock);
        }
        let lag = self.options.reaction_ms + self.options.quirks.extra_reaction_ms;
        let voltage_mv = i64::from(self.options.voltage.mv());
        for bay in &mut self.bays {
            let Some(car) = &mut bay.car else { continue };
            if bay.running.is_none() {
                car.cut_off();
            }
            let drawn = car.advance(now.mono, bay.offered, lag, voltage_mv);
            bay.energy_mwms += drawn + drawn * self.options.quirks.register_off_permille / 1_000;
        }
    }

    fn renew_offers(&mut self, clock: Utc) {
        self.offers_are_old = false;
        let mut until: Option<Utc> = None;
        let least = self.options.least_offer();
        for index in 0..self.bays.len() {
            let found = self.limit_at(self.bays[index].number, clock);
            until = match (until, found.until) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            let allowed = match found.limit {
                Some(limit) if !self.options.quirks.ignores_limit => limit.min(self.options.max),
                Some(_) | None => self.options.max,
            };
            let allowed = self.options.level_below(allowed);
            let bay = &mut self.bays[index];
            let possible = bay.running.is_some() && allowed >= least;
            bay.offered = if possible { allowed } else { Current::ZERO };
        }
        self.offers_hold_until = until;
    }

    fn sample(&self, index: usize, at: Utc) -> Sample {
        let bay = &self.bays[index];
        let drawn = Phase::ALL.map(|terminal| self.at_terminals(bay).of(terminal));
        let (current, total): (_, Current) = match self.options.rectifier {
            None => (drawn, drawn.iter().flatten().copied().sum()),
            // Its meter is at the output, where there are no phases.
            Some(_) => ([None; 3], bay.car.iter().flat_map(|car| [car.current(); 3]).sum()),
        };
        Sample {
            at,
            current,
            power_w: total.power_at(self.options.voltage).w(),
            energy_wh: bay.energy_wh(),
            soc_percent: bay.car.as_ref().map(Car::soc_percent),
        }
    }

    fn start(&mut self, index: usize, now: Now) {
        let clock = self.clock(now);
        let id = match self.options.version {
            OcppVersion::V16 => None,
            OcppVersion::V201 | OcppVersion::V21 => Some(self.dice.uuid()),
        };
        let bay = &mut self.bays[index];
        let truth = TransactionTruth {
            evse: bay.number,
            token: bay.token.take().unwrap_or_default(),
            id,
            started: clock,
            ended: None,
            meter_start_wh: bay.energy_wh(),
            meter_stop_wh: None,
            start_answered: false,
            stop_answered: false,
            given_up: false,
            shown_cost: None,
            final_cost: None,
            costs_shown: 0,
            signed: Vec::new(),
        };
        bay.profiles_at_start = self.profiles.clone();
        bay.running = Some(Running { index: self.transactions.len(), next_seq: 0, state: ChargingState::EvConnected });
        bay.metered_at = now.mono;
        bay.authorized = false;
        let remote_start = bay.remote_start.take();
        self.transactions.push(truth);
        self.tell(index, TxPart::Started { remote_start }, now);
        self.renew_offers(clock);
    }

    fn stop(&mut self, index: usize, reason: StopReason, now: Now) {
        if self.bays[index].running.is_none() {
            return;
        }
        let clock = self.clock(now);
        self.tell(index, TxPart::Ended(reason), now);
        let bay = &mut self.bays[index];
        let Some(running) = bay.running.take() else { return };
        if let Some(car) = &mut bay.car {
            car.cut_off();
        }
        bay.finishing = true;
        let energy = bay.energy_wh();
        if let Some(truth) = self.transactions.get_mut(running.index) {
            truth.ended = Some(clock);
            truth.meter_stop_wh = Some(energy);
            let id = truth.id.clone();
            // A TxProfile is gone with its transaction (1.6 §3.13.1).
            self.profiles.remove(|profile| profile.purpose == profiles::Purpose::Tx && profile.transaction == id);
        }
        self.renew_offers(clock);
    }

    /// Queues a message about the running transaction of a bay.
    fn tell(&mut self, index: usize, part: TxPart, now: Now) {
        let sample = self.sample(index, self.clock(now));
        let offline = !self.link.online;
        let bay = &mut self.bays[index];
        let state = bay.charging_state();
        let Some(running) = &mut bay.running else { return };
        if part == TxPart::Changed && self.options.version == OcppVersion::V16 {
            // Its StatusNotification says it.
            running.state = state;
            return;
        }
        let message = TxMessage {
            transaction: running.index,
            part,
            evse: bay.number,
            sample,
            offline,
            seq_no: running.next_seq,
            state,
            signed: None,
            attempts: 0,
            not_before: Mono::START,
        };
        running.next_seq += 1;
        running.state = state;
        self.sign(index, message);
    }

    fn reboot(&mut self, reason: StopReason, now: Now) {
        for index in 0..self.bays.len() {
            self.stop(index, reason, now);
            // The driver is still there and shows the card again.
            let last = self.transactions.iter().rev().find(|truth| truth.evse == self.bays[index].number);
            let token = last.map(|truth| truth.token.clone());
            let bay = &mut self.bays[index];
            if bay.car.is_some() {
                bay.finishing = false;
                bay.token = bay.token.take().or(token);
            }
        }
        if self.options.quirks.loses_profiles_on_reboot {
            self.profiles = Profiles::default();
        }
        self.offers_are_old = true;
        self.close_wanted = true;
        self.reset_when_idle = false;
        self.link = Link::new(if reason == StopReason::PowerLoss { "PowerUp" } else { "RemoteReset" });
    }

    /// Everything that has become due, then the next frame if none is open.
    fn run(&mut self, now: Now) -> Vec<String> {
        for index in 0..self.bays.len() {
            self.run_bay(index, now);
        }
        if self.reset_when_idle && self.bays.iter().all(|bay| bay.running.is_none()) {
            self.reboot(StopReason::SoftReset, now);
        }
        self.pump(now)
    }

    fn run_bay(&mut self, index: usize, now: Now) {
        let bay = &self.bays[index];
        if bay.car.is_none() && bay.told == Some(ConnectorStatus::Available) {
            return;
        }
        if bay.car.is_some() && bay.running.is_none() && bay.token.is_some() && !bay.inoperative {
            self.begin_if_allowed(index, now);
        }
        let bay = &self.bays[index];
        if let Some(running) = &bay.running {
            let interval = self.variables.meter_interval_s().saturating_mul(1000);
            if running.state != bay.charging_state() {
                self.tell(index, TxPart::Changed, now);
            } else if interval > 0 && now.mono.since(bay.metered_at) >= interval {
                self.bays[index].metered_at = now.mono;
                self.tell(index, TxPart::Metered, now);
            }
        }
        let bay = &mut self.bays[index];
        let status = bay.status();
        if self.link.online && bay.told != Some(status) {
            // OCPP 2.x knows only free, taken and out of service: the rest is in the transaction events.
            let kind = |status| (status == ConnectorStatus::Available, status == ConnectorStatus::Unavailable);
            let worth =
                self.options.version == OcppVersion::V16 || bay.told.is_none_or(|old| kind(old) != kind(status));
            bay.told = Some(status);
            if worth {
                self.link.push(Plain::Status { evse: bay.number, status, at: now.utc.plus_ms(self.clock_offset_ms) });
            }
        }
    }
}

#[cfg(test)]
mod tests;

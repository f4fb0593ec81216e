//! Modbus lines: one task for each connection, which all devices on that line share.
//!
//! tokio-modbus frames and unframes; everything that it leaves to the caller is here: time-outs, stale answers (`drain`), counts, pauses,
//! reconnects (`line`), and whose turn it is (`schedule`). What to read and what it means is the engine's ([`Poll`]).

mod dial;
mod drain;
mod line;
mod schedule;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::engine::modbus::connection::Connection;
use crate::engine::modbus::map::DeviceMap;
use crate::engine::modbus::poll::{Poll, Step};
use crate::engine::modbus::switch::Switch;
use crate::engine::modbus::{DeviceKind, Reading};
use crate::engine::model::reading::DeviceFault;
use crate::engine::model::topology::{InverterIndex, MeterIndex};
use crate::engine::site::io::Input;
use crate::engine::time::Mono;
use crate::shell::clock::Clock;
use dial::{Connect, Dial};
use line::{Failure, Line};
use schedule::Schedule;

/// A line with the devices on it.
#[derive(Clone, Debug, PartialEq)]
pub struct BusPlan {
    /// How the line is reached.
    pub connection: Connection,
    /// The devices; at least one.
    pub devices: Vec<DevicePlan>,
}

/// A device on a line.
#[derive(Clone, Debug, PartialEq)]
pub struct DevicePlan {
    /// What it is to the site.
    pub target: Target,
    /// Its Modbus unit id.
    pub unit_id: u8,
    /// How often it is polled, in ms. A line that cannot carry it polls as often as it can.
    pub interval_ms: u64,
    /// What is read.
    pub reads: Reads,
}

/// What is read of a device.
#[derive(Clone, Debug, PartialEq)]
pub enum Reads {
    /// The values of a device map.
    Map(DeviceMap),
    /// One bit.
    Switch(Switch),
}

impl Reads {
    const fn timeout_ms(&self) -> u64 {
        match self {
            Self::Map(map) => map.timeout_ms,
            Self::Switch(_) => Switch::TIMEOUT_MS,
        }
    }

    const fn pause_ms(&self) -> u64 {
        match self {
            Self::Map(map) => map.pause_ms,
            Self::Switch(_) => 0,
        }
    }

    const fn connect_delay_ms(&self) -> u64 {
        match self {
            Self::Map(map) => map.connect_delay_ms,
            Self::Switch(_) => 0,
        }
    }
}

/// What came of a poll.
#[derive(Clone, Copy, Debug)]
enum Said {
    Reading(Reading),
    Bit(bool),
}

/// What a device is to the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A meter.
    Meter(MeterIndex),
    /// An inverter.
    Inverter(InverterIndex),
    /// The input of the grid operator's dimming.
    Dimming,
}

impl Target {
    const fn kind(self) -> DeviceKind {
        match self {
            Self::Meter(_) => DeviceKind::Meter,
            Self::Inverter(_) | Self::Dimming => DeviceKind::Inverter,
        }
    }

    fn input(self, asked_at: Mono, result: Result<Said, DeviceFault>) -> Input {
        let mixed_up = || DeviceFault::Garbage("a reading of another kind of device".to_owned());
        match self {
            Self::Meter(meter) => {
                let result = result.and_then(|reading| match reading {
                    Said::Reading(Reading::Meter(reading)) => Ok(reading),
                    Said::Reading(Reading::Inverter(_)) | Said::Bit(_) => Err(mixed_up()),
                });
                Input::Meter { meter, asked_at, result }
            }
            Self::Inverter(inverter) => {
                let result = result.and_then(|reading| match reading {
                    Said::Reading(Reading::Inverter(reading)) => Ok(reading),
                    Said::Reading(Reading::Meter(_)) | Said::Bit(_) => Err(mixed_up()),
                });
                Input::Inverter { inverter, asked_at, result }
            }
            Self::Dimming => {
                let result = result.and_then(|said| match said {
                    Said::Bit(active) => Ok(active),
                    Said::Reading(_) => Err(mixed_up()),
                });
                Input::Dimming { asked_at, result }
            }
        }
    }
}

impl BusPlan {
    /// Puts devices that share a connection on one line: serial lines cannot be opened twice, and many inverters accept one connection.
    ///
    /// # Errors
    /// Two devices name the same line with different settings.
    pub fn group(devices: Vec<(Connection, DevicePlan)>) -> Result<Vec<Self>, String> {
        let mut plans: Vec<Self> = Vec::new();
        for (connection, device) in devices {
            let same = plans.iter_mut().find(|plan| plan.connection.line_key() == connection.line_key());
            match same {
                Some(plan) if plan.connection == connection => plan.devices.push(device),
                Some(_) => {
                    let line = connection.line_key();
                    return Err(format!(
                        "two devices use {line} with different settings: give both the same connection"
                    ));
                }
                None => plans.push(Self { connection, devices: vec![device] }),
            }
        }
        Ok(plans)
    }
}

/// Polls the devices of a line until `shutdown` turns true (or its sender is gone). Each poll ends as exactly one [`Input::Meter`],
/// [`Input::Inverter`] or [`Input::Dimming`]; while the line itself is down, each attempt to connect ends as one for every device on it.
///
/// When the inbox is full this waits: polling faster than the site can take in is of no use, the readings would only be older, and a
/// meter that is late is seen as that by its age.
pub async fn run(plan: BusPlan, clock: Clock, inbox: mpsc::Sender<Input>, shutdown: watch::Receiver<bool>) {
    let dial = Dial::new(plan.connection);
    run_with(dial, plan.devices, clock, inbox, shutdown).await;
}

async fn run_with<C: Connect>(
    connect: C,
    devices: Vec<DevicePlan>,
    clock: Clock,
    inbox: mpsc::Sender<Input>,
    mut shutdown: watch::Receiver<bool>,
) {
    if devices.is_empty() {
        return;
    }
    let mut bus = Bus::new(connect, &devices, clock, inbox);
    tokio::select! {
        _ = shutdown.wait_for(|stop| *stop) => {}
        () = bus.work() => {}
    }
}

struct Device {
    target: Target,
    unit_id: u8,
    poll: DevicePoll,
}

enum DevicePoll {
    Map(Box<Poll>),
    Switch(Switch),
}

struct Bus<C> {
    line: Line<C>,
    devices: Vec<Device>,
    schedule: Schedule,
    clock: Clock,
    inbox: mpsc::Sender<Input>,
}

/// The site does not listen any more.
struct InboxClosed;

impl<C: Connect> Bus<C> {
    fn new(connect: C, plans: &[DevicePlan], clock: Clock, inbox: mpsc::Sender<Input>) -> Self {
        let longest =
            |ms: fn(&Reads) -> u64| Duration::from_millis(plans.iter().map(|plan| ms(&plan.reads)).max().unwrap_or(0));
        // RS-485 devices need the pause after any traffic on the line, also that of others: the longest one holds for all.
        let line = Line::new(connect, longest(Reads::pause_ms), longest(Reads::connect_delay_ms));
        let schedule = Schedule::new(plans, line.guard(), Instant::now());
        let device = |plan: &DevicePlan| Device {
            target: plan.target,
            unit_id: plan.unit_id,
            poll: match &plan.reads {
                Reads::Map(map) => DevicePoll::Map(Box::new(Poll::new(map.clone(), plan.target.kind()))),
                Reads::Switch(switch) => DevicePoll::Switch(*switch),
            },
        };
        Self { line, devices: plans.iter().map(device).collect(), schedule, clock, inbox }
    }

    async fn work(&mut self) {
        loop {
            let (index, due) = self.schedule.next();
            sleep_until(due).await;
            let (asked_at, result) = self.poll(index).await;
            let sent = match result {
                Ok(reading) => {
                    self.schedule.answered(index, Instant::now());
                    self.report(index, asked_at, Ok(reading)).await
                }
                Err(Failure::Device(fault)) => {
                    match fault {
                        // It is there, and what it says costs the others no time.
                        DeviceFault::Exception { .. } | DeviceFault::Implausible(_) => {
                            self.schedule.answered(index, Instant::now());
                        }
                        DeviceFault::Unreachable(_) | DeviceFault::Timeout | DeviceFault::Garbage(_) => {
                            self.schedule.silent(index, Instant::now());
                        }
                    }
                    self.report(index, asked_at, Err(fault)).await
                }
                Err(Failure::Line(fault)) => {
                    self.schedule.line_down(Instant::now());
                    self.report_all(asked_at, &fault).await
                }
            };
            if let Err(InboxClosed) = sent {
                return;
            }
        }
    }

    /// One poll of one device, with the time just before its first request left.
    async fn poll(&mut self, index: usize) -> (Mono, Result<Said, Failure>) {
        if let Err(failure) = self.line.ready().await {
            return (self.clock.mono(), Err(failure));
        }
        let asked_at = self.clock.mono();
        let device = &mut self.devices[index];
        let poll = match &mut device.poll {
            DevicePoll::Map(poll) => poll,
            DevicePoll::Switch(switch) => {
                let timeout = Duration::from_millis(Switch::TIMEOUT_MS);
                let answer = self.line.ask(device.unit_id, timeout, switch.request()).await;
                let said = answer.and_then(|words| switch.read(Ok(words)).map_err(Failure::Device));
                return (asked_at, said.map(Said::Bit));
            }
        };
        let mut request = poll.start();
        loop {
            let timeout = Duration::from_millis(poll.map().timeout_ms);
            let answer = match self.line.ask(device.unit_id, timeout, request).await {
                Ok(words) => Ok(words),
                Err(Failure::Device(fault)) => Err(fault),
                Err(failure @ Failure::Line(_)) => return (asked_at, Err(failure)),
            };
            match poll.take(answer) {
                Step::Ask(next) => request = next,
                Step::Done(result) => return (asked_at, result.map(Said::Reading).map_err(Failure::Device)),
            }
        }
    }

    // `&mut`: the connection inside may move between threads but not be shared.
    async fn report(
        &mut self,
        index: usize,
        asked_at: Mono,
        result: Result<Said, DeviceFault>,
    ) -> Result<(), InboxClosed> {
        let input = self.devices[index].target.input(asked_at, result);
        self.inbox.send(input).await.map_err(|_closed| InboxClosed)
    }

    async fn report_all(&mut self, asked_at: Mono, fault: &DeviceFault) -> Result<(), InboxClosed> {
        for index in 0..self.devices.len() {
            self.report(index, asked_at, Err(fault.clone())).await?;
        }
        Ok(())
    }
}

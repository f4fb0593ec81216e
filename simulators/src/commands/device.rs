//! `siteward-sim meter` and `siteward-sim pv`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{Args, ValueEnum};
use siteward::engine::units::{Current, PerPhase, Power, Voltage};
use siteward_sim::meter::{Meter, MeterKind};
use siteward_sim::net::clock::Clock;
use siteward_sim::net::cloud::lock;
use siteward_sim::net::devices::{MeterBus, PvBus};
use siteward_sim::net::modbus::{Bus, Fault, serve_rtu, serve_tcp};
use siteward_sim::net::pty::Line;
use siteward_sim::pv::Pv;
use siteward_sim::rng::Dice;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::interval;

use super::say;

const VOLTAGE: Voltage = Voltage::from_mv(230_000);
/// How often the models are given time.
const STEP: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    EastronSdm630,
    AbbB23,
}

#[derive(Args)]
pub(super) struct MeterArguments {
    /// Where to listen with Modbus TCP
    #[arg(long, default_value = "127.0.0.1:5020", conflicts_with = "serial")]
    listen: SocketAddr,
    /// A serial line (RTU) instead: makes a pseudo terminal and prints its path
    #[arg(long)]
    serial: bool,
    /// Which device it is
    #[arg(long, value_enum, default_value = "eastron-sdm630")]
    kind: Kind,
    /// The unit id that it answers to
    #[arg(long, default_value_t = 1)]
    unit_id: u8,
    /// What flows on L1, L2 and L3 in A; negative flows out of the site
    #[arg(long, num_args = 3, default_values_t = [10.0, 10.0, 10.0], allow_negative_numbers = true)]
    current_a: Vec<f64>,
}

impl MeterArguments {
    pub(super) async fn run(self) -> Result<(), String> {
        let kind = match self.kind {
            Kind::EastronSdm630 => MeterKind::Sdm630,
            Kind::AbbB23 => MeterKind::AbbB23,
        };
        let [l1, l2, l3] = self.current_a[..] else { return Err("three currents are needed".to_owned()) };
        let current = PerPhase::new(amperes(l1)?, amperes(l2)?, amperes(l3)?);
        let meter = Arc::new(Mutex::new(Meter::new(kind, VOLTAGE, 1)));
        let clock = Clock::start();
        lock(&meter).set_current(current, clock.mono());
        let bus: Arc<dyn Bus> = Arc::new(MeterBus { unit: self.unit_id, meter: meter.clone() });
        let counting = every_step(|| lock(&meter).set_current(current, clock.mono()));
        if self.serial {
            let (line, near) = Line::open().map_err(|error| error.to_string())?;
            say(&format!("rtu://{}", line.path()));
            let (_steady, fault) = watch::channel(Fault::None);
            tokio::select! {
                ended = serve_rtu(near, bus, fault) => ended.map_err(|error| error.to_string()),
                () = counting => Ok(()),
            }
        } else {
            serve(self.listen, bus, counting).await
        }
    }
}

#[derive(Args)]
pub(super) struct PvArguments {
    /// Where to listen with Modbus TCP
    #[arg(long, default_value = "127.0.0.1:5021")]
    listen: SocketAddr,
    /// The unit id that it answers to
    #[arg(long, default_value_t = 126)]
    unit_id: u8,
    /// The most that it feeds in, on all phases together
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(i64).range(1..=300_000))]
    peak_w: i64,
}

impl PvArguments {
    pub(super) async fn run(self) -> Result<(), String> {
        let pv = Arc::new(Mutex::new(Pv::new(Power::from_w(self.peak_w), VOLTAGE, Dice::new(1))));
        let clock = Clock::start();
        let bus: Arc<dyn Bus> = Arc::new(PvBus { unit: self.unit_id, pv: pv.clone() });
        let shining = every_step(|| {
            let now = clock.now();
            lock(&pv).advance(now.mono, now.utc.unix_ms());
        });
        serve(self.listen, bus, shining).await
    }
}

async fn serve(listen: SocketAddr, bus: Arc<dyn Bus>, living: impl Future<Output = ()>) -> Result<(), String> {
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    say(&format!("tcp://{}", listener.local_addr().map_err(|error| error.to_string())?));
    let (_steady, fault) = watch::channel(Fault::None);
    tokio::select! {
        ended = serve_tcp(listener, bus, fault) => ended.map_err(|error| error.to_string()),
        () = living => Ok(()),
    }
}

async fn every_step(mut step: impl FnMut()) {
    let mut ticks = interval(STEP);
    loop {
        ticks.tick().await;
        step();
    }
}

fn amperes(value: f64) -> Result<Current, String> {
    // Far beyond every meter, and far within what a Current holds.
    if !(-10_000.0..=10_000.0).contains(&value) {
        return Err(format!("{value} A is not between -10000 and 10000 A"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked one line above")]
    let milliamperes = (value * 1000.0).round() as i32;
    Ok(Current::from_ma(milliamperes))
}

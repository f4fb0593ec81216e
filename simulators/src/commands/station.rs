//! `siteward-sim charger`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{Args, ValueEnum};
use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::model::topology::Wiring;
use siteward::engine::units::{Current, Phase};
use siteward_sim::car::{Car, CarOptions};
use siteward_sim::net::clock::Clock;
use siteward_sim::net::cloud::lock;
use siteward_sim::net::station::{Link, run};
use siteward_sim::station::{Station, StationOptions};
use tokio::sync::watch;
use tokio::time::interval;

use super::say;

#[derive(Clone, Copy, ValueEnum)]
enum Version {
    #[value(name = "1.6")]
    V16,
    #[value(name = "2.0.1")]
    V201,
    #[value(name = "2.1")]
    V21,
}

#[derive(Args)]
pub(super) struct Arguments {
    /// The CSMS without the identity, such as ws://127.0.0.1:8887/ocpp
    url: String,
    /// The station's identity
    #[arg(long, default_value = "CP001")]
    id: String,
    /// The OCPP version to speak
    #[arg(long, value_enum, default_value = "1.6")]
    version: Version,
    /// Who charges: a token that the CSMS accepts
    #[arg(long, default_value = "ANNA")]
    token: String,
    /// How many phases it has, 1 to 3
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    phases: u8,
    /// The most that it and its car take, in A per phase
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(i32).range(6..=125))]
    max_a: i32,
    /// How often it sends meter values, in s
    #[arg(long, default_value_t = 10)]
    meter_interval_s: u64,
}

impl Arguments {
    pub(super) async fn run(self) -> Result<(), String> {
        let version = match self.version {
            Version::V16 => OcppVersion::V16,
            Version::V201 => OcppVersion::V201,
            Version::V21 => OcppVersion::V21,
        };
        let phases = usize::from(self.phases);
        let max = Current::from_a(self.max_a);
        let wiring = Wiring::new(&Phase::ALL[..phases]).ok_or("a station has one to three phases")?;
        let options = StationOptions {
            wiring,
            max,
            meter_interval_s: self.meter_interval_s,
            ..StationOptions::new(&self.id, version)
        };
        let mut station = Station::new(options);
        let car = Car::new(CarOptions { phases, max, ..CarOptions::default() });
        station.plug_in(1, car, Some(&self.token)).map_err(|_| "there is no room for the car")?;
        let model = Arc::new(Mutex::new(station));
        let clock = Clock::start();
        // Nobody pulls this cable.
        let (_cable, plugged) = watch::channel(true);
        let link = Link { url: self.url, retry: Duration::from_secs(2), plugged };
        tokio::select! {
            () = run(model.clone(), clock, link, |trouble| say(&format!("not connected: {trouble}"))) => {}
            () = report(&model) => {}
        }
        Ok(())
    }
}

/// Prints a line whenever something has changed, looked at once a second.
async fn report(model: &Mutex<Station>) {
    let mut second = interval(Duration::from_secs(1));
    let mut last = String::new();
    loop {
        second.tick().await;
        let station = lock(model);
        let current: Vec<String> =
            station.current(1).iter().map(|(_, current)| format!("{:.1}", current.as_a())).collect();
        let status = station.status(1).map_or(String::new(), |status| format!("{status:?}"));
        let transaction = station.running(1).and_then(|truth| truth.id.clone()).unwrap_or_else(|| "-".to_owned());
        let line = format!(
            "{status}, transaction {transaction}, offered {:.1} A, draws {} A",
            station.offered(1).as_a(),
            current.join(" ")
        );
        drop(station);
        if line != last {
            say(&line);
            last = line;
        }
    }
}

//! Is anything lost or doubled on the way from the stations to the cloud's books? Real daemon, real mosquitto, real WebSockets; the daemon, the
//! broker and the consumer are killed at random moments, the broker's files are deleted, the link is cut. In the end the stations' own
//! transactions are held against the consumer's database.

mod commands;
mod link;
mod parts;
mod verdict;

use std::path::PathBuf;
use std::time::Duration;

use crate::car::{Car, CarOptions};
use crate::net::cloud::lock;
use crate::rng::Dice;
use parts::Parts;
pub use verdict::LosslessReport;

/// How often cars are looked at.
const STEP: Duration = Duration::from_millis(50);
/// A car stays for so long, in ms.
const STAYS_MS: (u64, u64) = (500, 5_000);
/// And its place is free for so long.
const AWAY_MS: (u64, u64) = (100, 1_500);
/// The daemon lives for so long before it is killed, in ms.
const LIVES_MS: (u64, u64) = (100, 4_000);
/// The broker after the daemon is connected to it, and then it is away.
const BROKER_LIVES_MS: (u64, u64) = (100, 2_500);
/// See [`BROKER_LIVES_MS`].
const BROKER_AWAY_MS: (u64, u64) = (0, 800);
/// The consumer is killed with each kill of that number.
const CONSUMER_EVERY: u64 = 8;
/// The daemon is killed with each kill of the broker of that number. A broker that ends every connection after seconds is left alone for longer and
/// longer; a new process tries at once.
const BOTH_EVERY: u64 = 4;
/// How long everything may take to arrive in the end, in ms: a daemon that has been refused often waits for a minute.
const DRAIN_MS: u64 = 240_000;
/// How long the daemon may need to be connected to a broker that is there, in ms.
const CONNECT_MS: u64 = 90_000;

/// What is done to them.
#[derive(Clone, Debug)]
pub struct LosslessOptions {
    /// How many stations.
    pub stations: usize,
    /// How often the daemon is killed.
    pub kills: u64,
    /// How often the broker is killed.
    pub broker_kills: u64,
    /// How often its files are deleted meanwhile.
    pub broker_wipes: u64,
    /// How long the link between them is cut.
    pub link_cut: Option<Duration>,
    /// Whether the daemon has a network of its own, and the cut is a pulled cable; otherwise a relay stops.
    pub namespaces: bool,
    /// For everything random: cars, and the moments of the kills.
    pub seed: u64,
}

/// Does it. Call it on the main thread: the processes die with the thread that starts them.
///
/// # Errors
/// If something does not start.
pub async fn run(
    options: &LosslessOptions,
    siteward: Option<PathBuf>,
    say: fn(&str),
) -> Result<LosslessReport, String> {
    let mut soak = Soak {
        parts: Parts::start(options, siteward).await?,
        dice: Dice::named(options.seed, "moments"),
        cars: Dice::named(options.seed, "cars"),
        changes: vec![0; options.stations],
        report: LosslessReport { seed: options.seed, stations: options.stations, ..LosslessReport::default() },
        say,
    };
    let began_ms = soak.parts.clock.mono().ms();
    soak.kill_the_daemon(options.kills).await?;
    soak.kill_the_broker(options.broker_kills, options.broker_wipes).await?;
    soak.cut_the_link(options.link_cut).await?;
    soak.drain().await;
    soak.report.took_ms = soak.parts.clock.mono().ms() - began_ms;
    verdict::judge(&mut soak.report, &soak.parts);
    if !soak.report.is_good() {
        say(&format!("configuration, store, books and logs are kept in {}", soak.parts.keep().display()));
    }
    Ok(soak.report)
}

struct Soak {
    parts: Parts,
    dice: Dice,
    cars: Dice,
    /// When the car at each station comes or goes, in ms.
    changes: Vec<u64>,
    report: LosslessReport,
    say: fn(&str),
}

impl Soak {
    async fn kill_the_daemon(&mut self, kills: u64) -> Result<(), String> {
        for kill in 1..=kills {
            let lives = self.dice.between(LIVES_MS.0, LIVES_MS.1);
            self.live(lives).await;
            self.parts.kill_daemon();
            self.report.kills += 1;
            if kill % CONSUMER_EVERY == 0 {
                self.kill_the_consumer()?;
            }
            self.parts.start_daemon()?;
            if kill % 50 == 0 {
                (self.say)(&format!("the daemon was killed {kill} times; {} transactions", self.parts.transactions()));
            }
        }
        Ok(())
    }

    async fn kill_the_broker(&mut self, kills: u64, wipes: u64) -> Result<(), String> {
        for kill in 1..=kills {
            self.live_until(CONNECT_MS, Parts::is_connected).await;
            let lives = self.dice.between(BROKER_LIVES_MS.0, BROKER_LIVES_MS.1);
            self.live(lives).await;
            self.parts.broker.kill();
            self.report.broker_kills += 1;
            let both = kill % BOTH_EVERY == 0;
            if both {
                self.parts.kill_daemon();
                self.report.kills += 1;
            }
            if kill % CONSUMER_EVERY == 0 {
                self.kill_the_consumer()?;
            }
            let away = self.dice.between(BROKER_AWAY_MS.0, BROKER_AWAY_MS.1);
            self.live(away).await;
            // Spread evenly, the last with the last kill.
            if kill * wipes / kills > (kill - 1) * wipes / kills {
                self.parts.broker.wipe()?;
                self.report.broker_wipes += 1;
            }
            self.parts.broker.revive()?;
            if both {
                self.parts.start_daemon()?;
            }
            if kill % 25 == 0 {
                (self.say)(&format!("the broker was killed {kill} times; {} transactions", self.parts.transactions()));
            }
        }
        Ok(())
    }

    async fn cut_the_link(&mut self, cut: Option<Duration>) -> Result<(), String> {
        let Some(cut) = cut else { return Ok(()) };
        let cut_ms = u64::try_from(cut.as_millis()).unwrap_or(u64::MAX);
        self.parts.set_cut(true)?;
        self.live(cut_ms / 2).await;
        // The backlog is on the disk, not in the process.
        self.parts.kill_daemon();
        self.report.kills += 1;
        self.parts.start_daemon()?;
        self.live(cut_ms - cut_ms / 2).await;
        self.report.link_cut_ms = cut_ms;
        self.report.backlog = self.parts.cloud().map_or(0, |cloud| cloud.backlog);
        self.parts.set_cut(false)?;
        Ok(())
    }

    fn kill_the_consumer(&mut self) -> Result<(), String> {
        self.report.consumer_kills += 1;
        self.parts.restart_consumer()
    }

    /// The last cars go, the stations tell what they still have to tell, and everything has to arrive.
    async fn drain(&mut self) {
        let now = self.parts.clock.now();
        for station in &self.parts.stations {
            lock(station).unplug(1, now);
        }
        self.parts.commands.stop();
        let deadline = self.parts.clock.mono().plus_ms(DRAIN_MS);
        while self.parts.clock.mono() < deadline && !self.parts.is_drained() {
            tokio::time::sleep(STEP).await;
        }
    }

    /// Lets cars come and go for so long.
    async fn live(&mut self, ms: u64) {
        self.live_until(ms, |_| false).await;
    }

    /// The same until `done`, at most for so long.
    async fn live_until(&mut self, ms: u64, done: impl Fn(&Parts) -> bool) {
        let end = self.parts.clock.mono().plus_ms(ms);
        while self.parts.clock.mono() < end && !done(&self.parts) {
            self.traffic();
            let left = end.since(self.parts.clock.mono());
            tokio::time::sleep(STEP.min(Duration::from_millis(left))).await;
        }
    }

    fn traffic(&mut self) {
        let now = self.parts.clock.now();
        for (index, (station, change)) in self.parts.stations.iter().zip(&mut self.changes).enumerate() {
            if now.mono.ms() < *change {
                continue;
            }
            let mut station = lock(station);
            let (least, most) = if station.car(1).is_some() {
                station.unplug(1, now);
                AWAY_MS
            } else {
                let car = Car::new(CarOptions { reaction_ms: 200, ..CarOptions::default() });
                // It was free a moment ago, and nobody else parks cars.
                let _ = station.plug_in(1, car, Some(&format!("TAG{index}")));
                STAYS_MS
            };
            *change = now.mono.ms() + self.cars.between(least, most);
        }
    }
}

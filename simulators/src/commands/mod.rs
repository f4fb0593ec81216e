//! The commands of `siteward-sim`.

mod cloud;
mod demo;
mod device;
mod duration;
mod fleet;
mod fuzz;
mod journal;
mod offline;
mod rig;
mod soak;
mod station;
mod world;

use std::ffi::OsString;
use std::net::SocketAddr;

use clap::{Parser, Subcommand};
use siteward_sim::net::{broker, process};

#[derive(Parser)]
#[command(name = "siteward-sim", version)]
#[command(about = "Simulated chargers, meters, inverters, clouds and whole sites for Siteward")]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A whole site on this machine with the real daemon in its middle, live in the terminal
    Demo(demo::Arguments),
    /// One simulated charging station with a car, against any CSMS
    Charger(station::Arguments),
    /// A simulated energy meter on Modbus TCP, or on a serial line of its own
    Meter(device::MeterArguments),
    /// A simulated PV inverter on SunSpec Modbus TCP
    Pv(device::PvArguments),
    /// A small MQTT 5 broker without a disk
    Broker {
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:1883")]
        listen: SocketAddr,
    },
    /// A cloud: takes the events of any number of sites into a database, each once; acknowledges them, asks for what is missing
    Cloud(cloud::Arguments),
    /// A thousand simulated sites into one broker and one database: how fast, and is anything lost?
    Fleet(fleet::Arguments),
    /// A site in virtual time with faults, watched by an oracle; fails if an invariant was violated
    World(world::Arguments),
    /// Many sites by dice in virtual time, side by side; fails if an invariant was violated at any
    Soak(soak::Arguments),
    /// Commands and configurations changed at random, into a site in virtual time: does any of them do what it must not?
    Fuzz(fuzz::Arguments),
    /// Many stations on real sockets around the real daemon, which is killed again and again while its meter comes and goes
    SoakSockets(rig::RoughArguments),
    /// Is anything lost or doubled between stations and the cloud's books while daemon, broker and consumer are killed again and again?
    SoakCloud(rig::LosslessArguments),
    /// Days without the cloud into the real journal, with a restart a day: how large is it, and does all of it drain in order?
    Offline(offline::Arguments),
    /// How fast the daemon drains a backlog, beside what its MQTT client can do alone
    Drain(rig::DrainArguments),
    /// How fast the daemon's journal is, what it writes in a day, how long a start takes, and how much space it needs
    Journal(journal::Arguments),
    /// How long it takes from the meter seeing an overload to the last station having accepted its cut, on real sockets
    Reaction(rig::ReactionArguments),
    /// Runs a program that is killed when its parent dies
    #[command(hide = true)]
    Leash {
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

impl Cli {
    /// Carries the command out. False: it ran, and what it looked at is not as it should be.
    pub(crate) fn run(self) -> Result<bool, String> {
        match self.command {
            Command::Demo(arguments) => arguments.run(),
            Command::Charger(arguments) => on_runtime(arguments.run()),
            Command::Meter(arguments) => on_runtime(arguments.run()),
            Command::Pv(arguments) => on_runtime(arguments.run()),
            Command::Broker { listen } => {
                say(&format!("mqtt://{listen}"));
                broker::serve(listen).map(|()| true)
            }
            Command::Cloud(arguments) => arguments.run(),
            Command::Fleet(arguments) => arguments.run(),
            Command::World(arguments) => arguments.run(),
            Command::Soak(arguments) => arguments.run(),
            Command::Fuzz(arguments) => arguments.run(),
            Command::SoakSockets(arguments) => arguments.run(),
            Command::SoakCloud(arguments) => arguments.run(),
            Command::Offline(arguments) => arguments.run(),
            Command::Drain(arguments) => arguments.run(),
            Command::Journal(arguments) => arguments.run(),
            Command::Reaction(arguments) => arguments.run(),
            Command::Leash { command } => Err(leash(&command)),
        }
    }
}

/// Runs a command that works until Ctrl-C.
fn on_runtime(work: impl Future<Output = Result<(), String>>) -> Result<bool, String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        tokio::select! {
            result = work => result.map(|()| true),
            _ = tokio::signal::ctrl_c() => Ok(true),
        }
    })
}

fn leash(command: &[OsString]) -> String {
    let Some((program, arguments)) = command.split_first() else { return "nothing to run".to_owned() };
    format!("{}: {}", program.display(), process::leash(program, arguments))
}

/// Says what went wrong.
#[expect(clippy::print_stderr, reason = "a command line tool says what went wrong on standard error")]
pub(crate) fn complain(text: &str) {
    eprintln!("siteward-sim: {text}");
}

/// What a shell shows of a program that SIGPIPE has ended. A run that was cut short is no success.
const NOBODY_READS: i32 = 141;

/// Says something to whoever asked for it. Where nobody reads any more (`siteward-sim charger … | head`) the command ends quietly, and what it
/// started with it, since that is leashed.
fn say(text: &str) {
    use std::io::{ErrorKind, Write as _};
    if let Err(error) = writeln!(std::io::stdout(), "{text}") {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(NOBODY_READS);
        }
        complain(&format!("cannot write: {error}"));
        std::process::exit(1);
    }
}

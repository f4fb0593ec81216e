//! `siteward-sim`: simulated devices, clouds and whole sites.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use siteward_sim::net::{broker, process};

#[derive(Parser)]
#[command(
    name = "siteward-sim",
    version,
    about = "Simulated chargers, meters, inverters, clouds and whole sites for Siteward"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A small MQTT 5 broker without a disk
    Broker {
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:1883")]
        listen: SocketAddr,
    },
    /// Runs a program that is killed when its parent dies
    #[command(hide = true)]
    Leash {
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Broker { listen } => broker::serve(listen),
        Command::Leash { command } => Err(leash(&command)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

fn leash(command: &[OsString]) -> String {
    let Some((program, arguments)) = command.split_first() else { return "nothing to run".to_owned() };
    format!("{}: {}", program.display(), process::leash(program, arguments))
}

#[expect(clippy::print_stderr, reason = "a command line tool says what went wrong on standard error")]
fn say(text: &str) {
    eprintln!("siteward-sim: {text}");
}

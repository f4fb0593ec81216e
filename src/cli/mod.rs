//! The command line: one file per subcommand.

mod boost;
pub mod check;
mod client;
mod commission;
mod events;
mod explain;
mod journal;
mod man;
mod ocpp;
mod plan;
mod run;
mod status;
mod table;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};

use client::Client;

/// Site controller for EV charging: keeps every circuit below its limit, loses no transaction.
#[derive(Debug, Parser)]
#[command(name = "siteward", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run the controller in the foreground.
    Run(Configuration),
    /// Read the configuration, print every error with its place, then the fail-safe report. Changes nothing.
    Check(Configuration),
    /// Show what the running controller is doing: circuits, chargers, meters, cloud, alarms.
    Status(StatusArgs),
    /// Say why a charger has the limit that it has now.
    Explain(ExplainArgs),
    /// Send one OCPP request to a charger and print its answer.
    Ocpp(OcppArgs),
    /// Test a charger: lower it, read back, measure, be silent until it falls back by itself, and write a signed report.
    Commission(CommissionArgs),
    /// Let a charger's connector go first for a while.
    Boost(BoostArgs),
    /// Print the event journal.
    Events(EventsArgs),
    /// Check, read out or recover the journal on disk while the controller does not run.
    Journal {
        #[command(subcommand)]
        task: journal::JournalTask,
    },
    /// The planner alone: site states as JSON lines on standard input, limits as JSON lines on standard output.
    Plan,
    /// Write the manual pages into a directory.
    #[command(hide = true)]
    Man {
        /// The directory; it must exist.
        directory: PathBuf,
    },
    /// Print the completions for a shell.
    #[command(hide = true)]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct Configuration {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/siteward/site.toml")]
    config: PathBuf,
}

/// How to find the running controller.
#[derive(Debug, Args)]
struct Daemon {
    #[command(flatten)]
    configuration: Configuration,
    /// Where the controller answers; without it, `api.listen` of the configuration.
    #[arg(long, value_name = "URL", value_parser = client::base)]
    api: Option<String>,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    daemon: Daemon,
    /// Print JSON, with --watch one line each time.
    #[arg(long)]
    json: bool,
    /// Print again every 2 seconds until interrupted.
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Args)]
struct ExplainArgs {
    #[command(flatten)]
    daemon: Daemon,
    /// The charger's OCPP identity.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    charger: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct OcppArgs {
    #[command(flatten)]
    daemon: Daemon,
    /// The charger's OCPP identity.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    charger: String,
    /// The action, such as GetConfiguration, as the charger's OCPP version names it.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    action: String,
    /// The payload, a JSON object.
    #[arg(default_value = "{}")]
    payload: String,
}

#[derive(Debug, Args)]
struct CommissionArgs {
    #[command(flatten)]
    daemon: Daemon,
    /// The charger's OCPP identity.
    #[arg(value_parser = NonEmptyStringValueParser::new(), required_unless_present = "verify")]
    charger: Option<String>,
    /// Do not ask first.
    #[arg(long)]
    yes: bool,
    /// Check the signature of a report instead, and print it. Needs no running controller.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["charger", "yes"])]
    verify: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct BoostArgs {
    #[command(flatten)]
    daemon: Daemon,
    /// The charger's OCPP identity.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    charger: String,
    /// Which connector.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    connector: u32,
    /// For how long; it ends at the latest with the transaction that is running now.
    #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: u64,
    /// Take the boost back.
    #[arg(long, conflicts_with = "minutes")]
    clear: bool,
}

#[derive(Debug, Args)]
struct EventsArgs {
    #[command(flatten)]
    daemon: Daemon,
    /// Begin behind the event with this sequence number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    after: u64,
    /// Wait for further events until interrupted.
    #[arg(long)]
    follow: bool,
    /// Print each event as a line of JSON (CloudEvents 1.0).
    #[arg(long)]
    json: bool,
}

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// It failed: an exit status from the contract and a message.
    #[error("{1}")]
    Said(u8, String),
    /// Standard output is gone.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// No daemon answers.
    const NO_DAEMON: u8 = 3;
    /// The charger is not known.
    const UNKNOWN: u8 = 4;
    /// The charger refused, or answered with an error.
    const REFUSED: u8 = 5;
    /// The charger did not answer in time.
    const TIMEOUT: u8 = 6;
    /// `EX_CONFIG` of sysexits(3).
    const CONFIG: u8 = 78;

    fn new(code: u8, message: impl Into<String>) -> Self {
        Self::Said(code, message.into())
    }
}

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = io::stdout().lock();
    let result = dispatch(cli.command, &mut out).and_then(|code| Ok(out.flush().map(|()| code)?));
    match result {
        Ok(code) => ExitCode::from(code),
        // Whoever read our output has seen enough: `siteward status | head`.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let code = if let Failure::Said(code, _) = &failure { *code } else { 1 };
            // Nobody is left to be told if this fails too.
            let _ = writeln!(io::stderr(), "siteward: {failure}");
            ExitCode::from(code)
        }
    }
}

fn dispatch(task: Task, out: &mut dyn Write) -> Result<u8, Failure> {
    match task {
        Task::Run(Configuration { config }) => return Ok(run::run(&config)),
        Task::Check(Configuration { config }) => return Ok(check::check(&config, out)?),
        Task::Status(args) => status::status(&Client::find(&args.daemon)?, &args, out),
        Task::Explain(args) => explain::explain(&Client::find(&args.daemon)?, &args, out),
        Task::Ocpp(args) => ocpp::ocpp(&Client::find(&args.daemon)?, &args, out),
        Task::Commission(args) => return commission::commission(&args, out),
        Task::Boost(args) => boost::boost(&Client::find(&args.daemon)?, &args, out),
        Task::Events(args) => events::events(&Client::find(&args.daemon)?, &args, out),
        Task::Journal { task } => return journal::journal(&task, out),
        Task::Plan => plan::plan(&mut io::stdin().lock(), out),
        Task::Man { directory } => man::pages(&directory),
        Task::Completions { shell } => man::completions(shell, out),
    }?;
    Ok(0)
}

/// Text from a charger on a terminal: control characters could do anything there.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let cli = Cli::parse_from(["siteward", "run"]);
        let Task::Run(Configuration { config }) = cli.command else { panic!("not run") };
        assert_eq!(config, PathBuf::from("/etc/siteward/site.toml"));
    }

    #[test]
    fn what_cannot_be_meant_is_said_before_anything_is_asked() {
        for line in [
            ["siteward", "ocpp", "", "Reset"].as_slice(),
            &["siteward", "ocpp", "CP001", ""],
            &["siteward", "explain", ""],
            &["siteward", "status", "--api", "https://127.0.0.1:8080"],
            &["siteward", "status", "--api", ""],
        ] {
            assert_eq!(Cli::try_parse_from(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
    }
}

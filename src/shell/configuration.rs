//! Configurations that come by `configuration.put` or `charger.approve`: kept on disk, judged, on probation, and taken back when they do
//! not work.
//!
//! What is decided stands in [`crate::config::remote`]. A configuration is changed by starting again with it, in the same process id
//! ([`Restart`]): everything begins as after an update, and the chargers keep their leases meanwhile.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::interval;

use crate::config::remote::{
    InForce, PROBATION_S, Probation, RemoteState, Sent, Trial, Verdict, Working, only_on_site, with_charger,
};
use crate::config::{Config, Loaded, Places, load_text};
use crate::engine::model::command::CommandOutcome;
use crate::engine::model::errand::{Errand, ErrandId};
use crate::engine::model::ids::{CircuitId, StationId};
use crate::engine::site::io::Input;
use crate::engine::time::Mono;
use crate::shell::clock::Clock;
use crate::shell::logging;
use crate::shell::site::Asker;
use crate::shell::station::Waiting;
use crate::shell::stopped;

/// Errands that wait. The engine has no more under way.
pub const WAITING: usize = 8;

/// In the store's directory.
const FILE: &str = "configuration.json";

/// Two texts of site.toml and two that were sent, as JSON; what is larger was not written by us.
const MAX_BYTES: u64 = 4 << 20;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// From the answer to the restart: the answer has to become durable and leave.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Start again, for that reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart(pub String);

/// With what the daemon starts.
pub struct Starting {
    /// The configuration.
    pub config: Config,
    /// Why it is not the one before, if it is not.
    pub cause: Option<String>,
    /// What was sent, and where it is kept.
    pub kept: Arc<Kept>,
}

/// What was sent, in memory and on disk.
pub struct Kept {
    file: PathBuf,
    /// The configuration in `site.toml`, and its text.
    site: (Config, String),
    held: Mutex<Held>,
}

/// Which configuration is in force, and those that were sent.
struct Held {
    in_force: InForce,
    state: RemoteState,
}

impl Held {
    /// The text of the configuration in force; `None`: it is that of `site.toml`.
    fn text(&self) -> Option<&str> {
        self.state.text(self.in_force)
    }
}

/// Finds out which configuration holds: that in `site.toml`, or one that was sent for just this file.
#[must_use]
pub fn start(site: Config, text: String) -> Starting {
    let file = site.store.path.join(FILE);
    let mut state = recall(&file);
    let before = state.clone();
    let mut cause = None;
    let (config, in_force) = loop {
        let (mut in_force, why) = state.begin(&text);
        cause = why.or(cause);
        if in_force == InForce::Trial
            && let Err(error) = write(&file, &state)
        {
            // Its starts could not be counted: it might be tried for ever.
            let why = format!("{} cannot be written: {error}", file.display());
            cause = state.cannot_use(in_force, &why);
            (in_force, _) = state.begin(&text);
        }
        let Some(sent) = state.text(in_force) else { break (site.clone(), InForce::Site) };
        match judge(&site, sent) {
            Ok(config) => break (config, in_force),
            Err(why) => cause = state.cannot_use(in_force, &why),
        }
    };
    if state != before
        && in_force != InForce::Trial
        && let Err(error) = write(&file, &state)
    {
        tracing::warn!("{} cannot be written: {error}", file.display());
    }
    match in_force {
        InForce::Site => {}
        InForce::Confirmed => tracing::info!("the configuration that came by command is in force"),
        InForce::Trial => tracing::info!("the configuration that came by command is on probation"),
    }
    if let Some(cause) = &cause {
        tracing::warn!("configuration: {cause}");
    }
    Starting {
        config,
        cause,
        kept: Arc::new(Kept { file, site: (site, text), held: Mutex::new(Held { in_force, state }) }),
    }
}

/// The configuration in `text`, as if it stood in `site.toml`.
fn judge(site: &Config, text: &str) -> Result<Config, String> {
    let loaded: Loaded =
        load_text(&site.path, text, &Places::of(&site.path)).map_err(|problems| problems.to_string())?;
    if let Some(reason) = loaded.refuse_unsafe() {
        return Err(reason);
    }
    let wrong = only_on_site(site, &loaded.config);
    if wrong.is_empty() { Ok(loaded.config) } else { Err(wrong.join("\n")) }
}

fn recall(file: &Path) -> RemoteState {
    let read = || -> io::Result<RemoteState> {
        if fs::metadata(file)?.len() > MAX_BYTES {
            return Err(io::Error::other("it is too large"));
        }
        Ok(serde_json::from_slice(&fs::read(file)?)?)
    };
    match read() {
        Ok(state) => state,
        Err(error) if error.kind() == io::ErrorKind::NotFound => RemoteState::default(),
        Err(error) => {
            tracing::error!("{} cannot be used: {error}; site.toml holds", file.display());
            RemoteState::default()
        }
    }
}

/// Written whole, and safe from a power cut before it is renamed.
fn write(file: &Path, state: &RemoteState) -> io::Result<()> {
    let new = file.with_extension("new");
    let mut written = fs::File::create(&new)?;
    written.write_all(&serde_json::to_vec(state)?)?;
    written.sync_all()?;
    fs::rename(&new, file)?;
    fs::File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}

impl Kept {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The probation of the configuration in force, if it is on one, from `now` on.
    #[must_use]
    pub fn on_probation(&self, now: Mono) -> Option<Probation> {
        let held = self.held();
        let trial = held.state.trial.as_ref().filter(|_| held.in_force == InForce::Trial)?;
        // As long as its sender was told, whatever the new configuration says.
        Some(Probation::new(trial.before.clone(), now, self.probation_s()))
    }

    fn probation_s(&self) -> u64 {
        self.site.0.cloud.as_ref().map_or(PROBATION_S, |cloud| cloud.probation_s)
    }

    /// The configuration that stood in `site.toml` at the start, whichever is in force, and its text.
    #[must_use]
    pub const fn site(&self) -> &(Config, String) {
        &self.site
    }

    /// Changes what is kept: on disk first.
    fn change(&self, change: impl FnOnce(&mut RemoteState)) -> io::Result<()> {
        let mut held = self.held();
        let mut next = held.state.clone();
        change(&mut next);
        write(&self.file, &next)?;
        held.state = next;
        Ok(())
    }

    /// The one on probation, which is in force, has passed.
    fn confirm(&self) -> io::Result<()> {
        self.change(RemoteState::confirm)?;
        self.held().in_force = InForce::Confirmed;
        Ok(())
    }

    fn get(&self) -> CommandOutcome {
        let held = self.held();
        let text = held.text().unwrap_or(&self.site.1);
        let source = if held.in_force == InForce::Site { "site.toml" } else { "configuration.put" };
        let data = json!({ "source": source, "probation": held.in_force == InForce::Trial, "toml": text });
        CommandOutcome::Accepted { data: Some(data.to_string()) }
    }

    /// Whether the cloud may change the configuration.
    fn is_remote(&self) -> bool {
        self.site.0.cloud.as_ref().is_some_and(|cloud| cloud.remote_configuration)
    }

    /// Whether a configuration is on probation, or will be after the next start.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        self.held().state.trial.is_some()
    }

    /// The text of the configuration in force, or of the one that will be after the next start.
    fn text(&self) -> String {
        let held = self.held();
        let trial = held.state.trial.as_ref().map(|trial| trial.sent.toml.as_str());
        trial.or_else(|| held.text()).unwrap_or(&self.site.1).to_owned()
    }

    /// Judges a configuration and keeps it for the next start. The answer; and whether to start again.
    fn put(&self, toml: String, before: Working) -> Answer {
        if !self.is_remote() {
            return rejected("site.toml has `remote_configuration = false` in [cloud]");
        }
        self.try_out(toml, before, |_| Ok(()))
    }

    /// Adds a charger to the configuration in force, and goes on as [`Self::put`]. `waits`: it is connected.
    fn approve(&self, (charger, circuit, on_site): Approval, waits: bool, before: Working) -> Answer {
        if !on_site && !self.is_remote() {
            return rejected("site.toml has `remote_configuration = false` in [cloud]; approve it on site");
        }
        let text = self.text();
        let topology = match judge(&self.site.0, &text) {
            Ok(config) => config.topology,
            Err(problems) => return rejected(&format!("the configuration in force is not good any more: {problems}")),
        };
        if topology.find_station(&charger).is_some() {
            return (CommandOutcome::Accepted { data: Some(json!({ "unchanged": true }).to_string()) }, false);
        }
        if !waits {
            return rejected(&format!(
                "charger {charger} is neither configured nor connected and waiting: set unknown_chargers = \"pending\" in [ocpp] and let it connect"
            ));
        }
        let count = topology.stations().len();
        match with_charger(&text, &topology, &charger, circuit.as_ref()) {
            // What is added is one charger and nothing else, whatever it calls itself.
            Ok(toml) => self.try_out(toml, before, |config| {
                let new = &config.topology;
                let good = new.find_station(&charger).is_some() && new.stations().len() == count + 1;
                if good { Ok(()) } else { Err(format!("{charger} cannot be added")) }
            }),
            Err(error) => rejected(&error),
        }
    }

    fn try_out(&self, toml: String, before: Working, check: impl FnOnce(&Config) -> Result<(), String>) -> Answer {
        if self.is_changing() {
            return rejected("the last configuration is still on probation; wait for its end");
        }
        if let Err(problems) = judge(&self.site.0, &toml).and_then(|config| check(&config)) {
            return rejected(&problems);
        }
        if self.text() == toml {
            return (CommandOutcome::Accepted { data: Some(json!({ "unchanged": true }).to_string()) }, false);
        }
        let sent = Sent { toml, base: self.site.1.clone() };
        match self.change(|state| state.trial = Some(Trial { sent, starts: 0, before })) {
            Ok(()) => {
                let data = json!({ "probation_s": self.probation_s() });
                (CommandOutcome::Accepted { data: Some(data.to_string()) }, true)
            }
            Err(error) => {
                let error = format!("it is good, but {} cannot be written: {error}", self.file.display());
                (CommandOutcome::Failed { error, data: None }, false)
            }
        }
    }
}

/// What came of an errand; and whether to start again.
type Answer = (CommandOutcome, bool);

/// Which charger, on which circuit, and whether somebody on site asks.
type Approval = (StationId, Option<CircuitId>, bool);

fn rejected(error: &str) -> Answer {
    (CommandOutcome::Rejected { error: error.to_owned() }, false)
}

/// Who is asked and told.
#[derive(Clone)]
pub struct Desk {
    /// What was sent.
    pub kept: Arc<Kept>,
    /// The stations that wait for approval.
    pub waiting: Waiting,
    /// The site.
    pub asker: Asker,
    /// Where answers go.
    pub inbox: mpsc::Sender<Input>,
    /// Who starts the daemon again.
    pub restarts: mpsc::Sender<Restart>,
}

/// Does errands until nobody can send any more, or the daemon stops.
pub async fn run(mut errands: mpsc::Receiver<(ErrandId, Errand)>, desk: Desk, mut shutdown: watch::Receiver<bool>) {
    loop {
        let (id, errand) = tokio::select! {
            () = stopped(&mut shutdown) => return,
            next = errands.recv() => match next {
                Some(next) => next,
                None => return,
            },
        };
        let (kept, before) = (Arc::clone(&desk.kept), Working::of(&desk.asker.status()));
        let (waiting, cause) = (desk.waiting.clone(), kind(&errand));
        let done = tokio::task::spawn_blocking(move || match errand {
            Errand::Configuration => (kept.get(), false),
            Errand::PutConfiguration { toml } => kept.put(toml, before),
            Errand::Approve { charger, circuit, on_site } => {
                let waits = waiting.has(&charger);
                kept.approve((charger, circuit, on_site), waits, before)
            }
            Errand::Log { lines } => {
                let data = json!({ "lines": logging::last_lines(lines) });
                (CommandOutcome::Accepted { data: Some(data.to_string()) }, false)
            }
        });
        let (outcome, restart) = done.await.unwrap_or_else(|error| {
            (CommandOutcome::Failed { error: format!("it was not finished: {error}"), data: None }, false)
        });
        if desk.inbox.send(Input::ErrandAnswered { id, outcome }).await.is_err() {
            return;
        }
        if restart {
            tokio::time::sleep(ANSWER_TIME).await;
            // Nobody there: the daemon stops already, and starts with it next time.
            let _ = desk.restarts.send(Restart(cause.to_owned())).await;
        }
    }
}

/// The name of the command, for the cause of the restart.
const fn kind(errand: &Errand) -> &'static str {
    match errand {
        Errand::Approve { .. } => "charger.approve",
        Errand::PutConfiguration { .. } | Errand::Configuration | Errand::Log { .. } => "configuration.put",
    }
}

/// Watches a configuration on probation until it has passed, or is taken back.
pub async fn watch_probation(desk: Desk, mut probation: Probation, clock: Clock, mut shutdown: watch::Receiver<bool>) {
    let mut looks = interval(LOOK);
    loop {
        tokio::select! {
            () = stopped(&mut shutdown) => return,
            _ = looks.tick() => {}
        }
        match probation.look(&desk.asker.status(), clock.now().mono) {
            Verdict::Waits => {}
            Verdict::Passed => return confirmed(&desk).await,
            Verdict::Failed(why) => return taken_back(&desk, &why).await,
        }
    }
}

async fn confirmed(desk: &Desk) {
    let kept = Arc::clone(&desk.kept);
    let written = tokio::task::spawn_blocking(move || kept.confirm()).await;
    match written {
        Ok(Ok(())) => {
            tracing::info!("the configuration that came by command has passed its probation");
            // Nobody there: the daemon stops.
            let _ = desk.inbox.send(Input::ConfigurationChanged { cause: "confirmed".to_owned() }).await;
        }
        Ok(Err(error)) => taken_back(desk, &format!("{} cannot be written: {error}", desk.kept.file.display())).await,
        Err(error) => tracing::error!("the configuration could not be confirmed: {error}"),
    }
}

async fn taken_back(desk: &Desk, why: &str) {
    let (kept, why) = (Arc::clone(&desk.kept), why.to_owned());
    let told = tokio::task::spawn_blocking(move || {
        let mut told = String::new();
        // What cannot be written is given up after some more starts.
        let written = kept.change(|state| told = state.give_up(&why));
        match written {
            Ok(()) => told,
            Err(error) => format!("{told} ({} cannot be written: {error})", kept.file.display()),
        }
    });
    let told = told.await.unwrap_or_else(|error| format!("rolled back: {error}"));
    tracing::warn!("configuration: {told}");
    let _ = desk.restarts.send(Restart(told)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "[site]\nid = \"depot\"\ntimezone = \"Europe/Berlin\"\nvoltage_v = 230\n\n[store]\npath = \"store\"\n\n\
        [cloud]\nurl = \"mqtt://127.0.0.1:1883\"\nprobation_s = 60\n\n[[circuits]]\nid = \"grid\"\nlimit_a = 63\n";

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            fs::create_dir(place.0.path().join("store")).unwrap();
            place
        }

        fn starting(&self, text: &str) -> Starting {
            let path = self.0.path().join("site.toml");
            fs::write(&path, text).unwrap();
            start(crate::config::load(&path).unwrap_or_else(|problems| panic!("{problems}")).config, text.to_owned())
        }
    }

    fn limit_a(starting: &Starting) -> i32 {
        starting.config.topology.circuits()[0].limit.max().ma() / 1_000
    }

    fn put(starting: &Starting, text: &str) -> (CommandOutcome, bool) {
        starting.kept.put(text.to_owned(), Working { cloud: true, ..Working::default() })
    }

    #[test]
    fn what_was_sent_is_tried_confirmed_and_kept() {
        let place = Place::new();
        let lower = SITE.replace("limit_a = 63", "limit_a = 50");
        let first = place.starting(SITE);
        assert_eq!((limit_a(&first), first.cause.as_deref()), (63, None));
        let (outcome, restart) = put(&first, &lower);
        assert!(restart, "{outcome:?}");
        assert_eq!(outcome, CommandOutcome::Accepted { data: Some("{\"probation_s\":60}".to_owned()) });
        let second = place.starting(SITE);
        assert_eq!((limit_a(&second), second.kept.on_probation(Mono::START).is_some()), (50, true));
        assert!(matches!(put(&second, SITE), (CommandOutcome::Rejected { .. }, false)), "one at a time");
        second.kept.confirm().unwrap();
        let CommandOutcome::Accepted { data: Some(got) } = second.kept.get() else { panic!("it is not got") };
        assert!(got.contains("\"probation\":false") && got.contains("limit_a = 50"), "{got}");
        let third = place.starting(SITE);
        assert_eq!((limit_a(&third), third.kept.on_probation(Mono::START).is_some()), (50, false));
        let (outcome, restart) = put(&third, &lower);
        assert_eq!(
            (outcome, restart),
            (CommandOutcome::Accepted { data: Some("{\"unchanged\":true}".to_owned()) }, false)
        );
        let changed = place.starting(&SITE.replace("limit_a = 63", "limit_a = 40"));
        assert_eq!((limit_a(&changed), changed.cause.as_deref()), (40, Some("site.toml was changed on site")));
        assert_eq!(limit_a(&place.starting(SITE)), 63, "and what was sent is gone for good");
    }

    #[test]
    fn what_does_not_come_up_is_taken_back() {
        let place = Place::new();
        assert!(put(&place.starting(SITE), &SITE.replace("limit_a = 63", "limit_a = 50")).1);
        for _ in 0..3 {
            assert_eq!(limit_a(&place.starting(SITE)), 50);
        }
        let back = place.starting(SITE);
        assert_eq!(limit_a(&back), 63);
        assert!(back.cause.is_some_and(|cause| cause.starts_with("rolled back to site.toml")));
    }

    #[test]
    fn what_is_wrong_or_not_the_clouds_to_change_is_refused_and_changes_nothing() {
        let place = Place::new();
        let starting = place.starting(SITE);
        for (old, new, part) in [
            ("limit_a = 63", "limit_b = 63", "did you mean `limit_a`?"),
            ("limit_a = 63", "limit_a = 64", "can only be raised on site"),
            ("[site]", "[site", "not TOML"),
        ] {
            let (CommandOutcome::Rejected { error }, false) = put(&starting, &SITE.replace(old, new)) else {
                panic!("{new} was accepted")
            };
            assert!(error.contains(part), "{error}");
        }
        let closed = place.starting(&SITE.replace("probation_s = 60", "remote_configuration = false"));
        assert!(matches!(put(&closed, SITE), (CommandOutcome::Rejected { .. }, false)));
        assert!(!place.0.path().join("store").join(FILE).exists());
    }

    fn approve(starting: &Starting, id: &str, (circuit, on_site, waits): (Option<&str>, bool, bool)) -> Answer {
        let approval = (StationId::new(id), circuit.map(CircuitId::new), on_site);
        starting.kept.approve(approval, waits, Working::default())
    }

    fn error((outcome, restart): Answer) -> String {
        match outcome {
            CommandOutcome::Rejected { error } if !restart => error,
            other => panic!("{other:?} is no rejection"),
        }
    }

    #[test]
    fn a_charger_that_waits_is_added_once() {
        let place = Place::new();
        let starting = place.starting(SITE);
        assert!(error(approve(&starting, "CP9", (None, true, false))).contains("neither configured nor connected"));
        assert!(error(approve(&starting, "CP9", (Some("gird"), true, true))).contains("did you mean \"grid\"?"));
        assert!(approve(&starting, "CP\"9", (None, true, true)).1);
        let again = error(approve(&starting, "CP10", (None, true, true)));
        assert!(again.contains("still on probation"), "before the restart: {again}");
        let second = place.starting(SITE);
        let stations = |starting: &Starting| -> Vec<String> {
            starting.config.topology.stations().iter().map(|station| station.id.to_string()).collect()
        };
        assert_eq!(stations(&second), ["CP\"9"]);
        assert!(error(approve(&second, "CP10", (None, true, true))).contains("still on probation"));
        second.kept.confirm().unwrap();
        let unchanged = CommandOutcome::Accepted { data: Some("{\"unchanged\":true}".to_owned()) };
        assert_eq!(approve(&second, "CP\"9", (None, true, false)), (unchanged, false));
        assert!(approve(&second, "CP10", (None, false, true)).1, "the cloud may as well");
        assert_eq!(stations(&place.starting(SITE)), ["CP\"9", "CP10"]);
    }

    #[test]
    fn without_a_cloud_only_somebody_on_site_approves() {
        let place = Place::new();
        let site = SITE.replace("probation_s = 60", "remote_configuration = false");
        let starting = place.starting(&site);
        assert!(error(approve(&starting, "CP9", (None, false, true))).contains("remote_configuration"));
        assert!(approve(&starting, "CP9", (None, true, true)).1);
    }

    #[test]
    fn a_file_that_is_no_state_and_a_text_that_is_no_configuration_any_more_leave_site_toml() {
        let place = Place::new();
        let file = place.0.path().join("store").join(FILE);
        fs::write(&file, "{").unwrap();
        assert_eq!(limit_a(&place.starting(SITE)), 63);
        let sent = Sent { toml: SITE.replace("limit_a = 63", "limit_a = 99"), base: SITE.to_owned() };
        write(&file, &RemoteState { confirmed: Some(sent), trial: None }).unwrap();
        let starting = place.starting(SITE);
        assert_eq!(limit_a(&starting), 63);
        assert!(starting.cause.is_some_and(|cause| cause.contains("can only be raised on site")));
    }
}

//! Who may charge while a station is cut off: one site and one station with a local list, wire text to wire text, in virtual time.

use std::collections::BTreeMap;

use serde_json::Value;
use siteward::engine::model::billing::BillingSetup;
use siteward::engine::model::command::Command;
use siteward::engine::model::exchange::{AuthorizationStatus, OcppVersion};
use siteward::engine::model::ids::{CircuitId, ConnectionId, IdToken, RequestId, SiteId, StationId};
use siteward::engine::model::record::{Record, RecordBody};
use siteward::engine::model::setup::Setup;
use siteward::engine::model::token::{AuthorizationSetup, TokenEntry, TokensOrder};
use siteward::engine::model::topology::{
    Circuit, CircuitIndex, Station as Settings, StationIndex, StationModel, Topology, Wiring,
};
use siteward::engine::model::wish::Wish;
use siteward::engine::site::io::{Input, JournalInput, LogLevel, Output};
use siteward::engine::site::ledger::Ledger;
use siteward::engine::site::{Restored, Site};
use siteward::engine::time::{Mono, Now, Utc};
use siteward::engine::units::{Current, PerPhase, Voltage};
use siteward_sim::car::{Car, CarOptions};
use siteward_sim::station::{ListFault, OwnTokens, Station, StationOptions};

const AT: StationIndex = StationIndex(0);
const BOTH: [OcppVersion; 2] = [OcppVersion::V16, OcppVersion::V201];

struct Bench {
    site: Site,
    station: Station,
    ms: u64,
    boot: u64,
    connection: Option<ConnectionId>,
    connections: u64,
    tokens: Vec<TokenEntry>,
    master: Option<String>,
    records: Vec<Record>,
    warnings: Vec<String>,
    calls: Vec<(String, Value)>,
}

fn entry(token: &str, status: AuthorizationStatus, group: Option<&str>) -> TokenEntry {
    let group = group.map(str::to_owned);
    TokenEntry { token: IdToken::new(token), status, group, expires: None, wish: Wish::default() }
}

fn now(ms: u64) -> Now {
    let utc = Utc::from_unix_ms(1_772_366_400_000 + i64::try_from(ms).expect("small"));
    Now { mono: Mono::from_ms(ms), utc, utc_trusted: true }
}

fn setup(tokens: &[TokenEntry], master: Option<&String>) -> Setup {
    let circuit = Circuit {
        id: CircuitId::new("grid"),
        parent: None,
        limit: PerPhase::splat(Current::from_a(100)),
        meter: None,
        unmeasured_load: None,
        max_unbalance: None,
        max_power: None,
        short_time: None,
    };
    let station = Settings {
        id: StationId::new("CP1"),
        circuit: CircuitIndex(0),
        model: StationModel::default(),
        wiring: Wiring::STRAIGHT,
        max: Current::from_a(32),
        min: Current::from_a(6),
        fallback: Current::from_a(6),
        evse_count: 1,
        priority: 0,
        weight: 1,
        dc: None,
        password: None,
    };
    let devices = (Vec::new(), Vec::new());
    let voltage = Voltage::from_mv(230_000);
    Setup {
        topology: Topology::new(SiteId::new("bench"), voltage, vec![circuit], vec![station], devices).expect("valid"),
        version: "bench".to_owned(),
        heartbeat_s: 300,
        tokens: tokens.to_vec(),
        groups: BTreeMap::new(),
        timezone: Default::default(),
        authorization: AuthorizationSetup { master_pass_group: master.cloned(), ..AuthorizationSetup::default() },
        cloud: None,
        unsafe_fallback: None,
        seed: 1,
        tariffs: Vec::new(),
        billing: BillingSetup::default(),
        outside: Default::default(),
        charging: Default::default(),
    }
}

impl Bench {
    fn new(version: OcppVersion, own: OwnTokens, tokens: &[TokenEntry]) -> Self {
        Self::with(version, own, tokens, None)
    }

    fn with(version: OcppVersion, own: OwnTokens, tokens: &[TokenEntry], master: Option<&str>) -> Self {
        let master = master.map(str::to_owned);
        let restored = Restored { store_id: "s".to_owned(), boot: 1, ..Restored::default() };
        let options = StationOptions { own_tokens: Some(own), ..StationOptions::new("CP1", version) };
        let mut bench = Self {
            site: Site::new(setup(tokens, master.as_ref()), restored, now(1_000)),
            station: Station::new(options),
            ms: 1_000,
            boot: 1,
            connection: None,
            connections: 0,
            tokens: tokens.to_vec(),
            master,
            records: Vec::new(),
            warnings: Vec::new(),
            calls: Vec::new(),
        };
        bench.run(1);
        bench.connect();
        bench
    }

    fn connect(&mut self) {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        self.connection = Some(connection);
        let version = self.station.options().version;
        self.tell(Input::StationConnected { station: AT, connection, version });
        let frames = self.station.connected(now(self.ms));
        self.frames_of_station(frames);
    }

    fn disconnect(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        self.station.disconnected(now(self.ms));
        self.tell(Input::StationDisconnected { station: AT, connection, reason: "cable".to_owned() });
    }

    /// The controller starts anew on what it has recorded.
    fn restart(&mut self) {
        self.connection = None;
        self.station.disconnected(now(self.ms));
        let mut ledger = Ledger::default();
        for record in &self.records {
            ledger.apply(record);
        }
        self.boot += 1;
        let restored = Restored { store_id: "s".to_owned(), boot: self.boot, ledger, ..Restored::default() };
        self.site = Site::new(setup(&self.tokens, self.master.as_ref()), restored, now(self.ms));
        self.run(1);
        self.connect();
    }

    fn frames_of_station(&mut self, frames: Vec<String>) {
        let Some(connection) = self.connection else { return };
        for text in frames {
            self.tell(Input::StationFrame { station: AT, connection, text });
        }
    }

    fn tell(&mut self, input: Input) {
        let mut out = Vec::new();
        self.site.handle(input, now(self.ms), &mut out);
        for output in out {
            match output {
                Output::Frame { connection, text, .. } if Some(connection) == self.connection => {
                    let frame: Value = serde_json::from_str(&text).expect("frames are JSON");
                    if frame[0] == 2 {
                        self.calls.push((frame[2].as_str().expect("an action").to_owned(), frame[3].clone()));
                    }
                    let frames = self.station.receive(&text, now(self.ms));
                    self.frames_of_station(frames);
                }
                Output::Append(record) => {
                    let through = record.sequence;
                    self.records.push(record);
                    self.tell(Input::Journal(JournalInput::Durable { through }));
                }
                Output::Log { level: LogLevel::Warn | LogLevel::Error, message } => self.warnings.push(message),
                _ => {}
            }
        }
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 5 {
            self.ms += 200;
            let frames = self.station.tick(now(self.ms));
            self.frames_of_station(frames);
            self.tell(Input::Tick);
        }
    }

    /// Runs until `done`, at most so many seconds. How long it took.
    fn run_until(&mut self, most_s: u64, done: impl Fn(&Self) -> bool) -> Option<u64> {
        (0..most_s).find(|_| {
            self.run(1);
            done(self)
        })
    }

    fn order(&mut self, order: TokensOrder) {
        self.tell(Input::Request { request: RequestId(1), command: Command::Tokens(order) });
    }

    fn set(&mut self, token: &str, status: AuthorizationStatus) {
        self.order(TokensOrder::Update { entries: vec![entry(token, status, None)] });
    }

    fn plug_in(&mut self, token: &str) {
        let car = Car::new(CarOptions { max: Current::from_a(16), battery_wh: 10_000_000, ..CarOptions::default() });
        assert!(self.station.plug_in(1, car, Some(token)).is_ok(), "the place is free");
    }

    fn charges(&self) -> bool {
        self.station.running(1).is_some()
    }

    fn unplug(&mut self) {
        self.station.unplug(1, now(self.ms));
    }

    fn lists(&self) -> Vec<&Value> {
        self.calls.iter().filter(|(action, _)| action == "SendLocalList").map(|(_, payload)| payload).collect()
    }

    /// The tokens of the station's list, with whether they may charge.
    fn list(&self) -> Vec<(String, bool)> {
        let list = self.station.local_list();
        list.into_iter().map(|(token, status)| (token.to_owned(), status == "Accepted")).collect()
    }

    fn starts(&self) -> usize {
        self.records.iter().filter(|record| matches!(record.body, RecordBody::TransactionStarted { .. })).count()
    }
}

const ROOMY: OwnTokens = OwnTokens { room: 100, per_message: 10, unknown_may: false };

fn plain(tokens: &[&str]) -> Vec<TokenEntry> {
    tokens.iter().map(|token| entry(token, AuthorizationStatus::Accepted, None)).collect()
}

#[test]
fn cut_off_a_known_token_charges_and_a_blocked_one_does_not() {
    for (version, unknown_may) in BOTH.into_iter().flat_map(|version| [(version, false), (version, true)]) {
        let mut bench = Bench::new(version, OwnTokens { unknown_may, ..ROOMY }, &plain(&["ANNA", "BERT"]));
        bench.run(30);
        assert_eq!(bench.list(), [("anna".to_owned(), true), ("bert".to_owned(), true)], "{version:?}");
        // Bert has charged here, so that his station remembers him.
        bench.plug_in("BERT");
        assert!(bench.run_until(60, Bench::charges).is_some());
        bench.unplug();
        bench.run(60);
        bench.set("BERT", AuthorizationStatus::Blocked);
        bench.run(30);
        bench.disconnect();
        bench.run(30);
        bench.plug_in("BERT");
        bench.run(120);
        assert!(!bench.charges(), "{version:?}");
        bench.unplug();
        bench.plug_in("ANNA");
        assert!(bench.run_until(60, Bench::charges).is_some(), "{version:?}");
        bench.unplug();
        bench.plug_in("NOBODY");
        bench.run(120);
        assert_eq!(bench.charges(), unknown_may, "{version:?}");
        bench.unplug();
        let before = bench.starts();
        bench.connect();
        bench.run(120);
        assert_eq!(bench.starts() - before, 1 + usize::from(unknown_may), "what happened meanwhile is told");
    }
}

#[test]
fn a_list_is_sent_once_in_pieces_and_then_only_what_changes() {
    for version in BOTH {
        let tokens: Vec<String> = (0..25).map(|number| format!("T{number:02}")).collect();
        let tokens = plain(&tokens.iter().map(String::as_str).collect::<Vec<_>>());
        let mut bench = Bench::new(version, ROOMY, &tokens);
        bench.run(60);
        assert_eq!((bench.list().len(), bench.station.list_writes()), (25, 3), "{version:?}");
        bench.set("T07", AuthorizationStatus::Blocked);
        let waited = bench.run_until(60, |bench| bench.station.list_writes() == 4);
        assert!(waited.is_some_and(|seconds| seconds < 10), "{version:?} {waited:?}");
        assert_eq!(bench.lists().last().expect("a list")["updateType"], "Differential");
        assert_eq!(bench.list()[7], ("t07".to_owned(), false));
        // Changes that come together go together, and not more than once a minute.
        for number in 30..40 {
            bench.set(&format!("T{number}"), AuthorizationStatus::Accepted);
            bench.run(2);
        }
        bench.run(120);
        assert_eq!(bench.list().len(), 35);
        assert!(bench.station.list_writes() <= 6, "{version:?} {}", bench.station.list_writes());
        let writes = bench.station.list_writes();
        // A restart and a new connection change nothing of it.
        bench.restart();
        bench.run(120);
        bench.disconnect();
        bench.run(10);
        bench.connect();
        bench.run(120);
        assert_eq!((bench.station.list_writes(), bench.list().len()), (writes, 35), "{version:?}");
        // What the file holds is known to be another list.
        bench.tokens.push(entry("LATE", AuthorizationStatus::Accepted, None));
        bench.restart();
        bench.run(60);
        assert_eq!(bench.list().len(), 36, "{version:?}");
    }
}

#[test]
fn a_list_that_is_too_long_keeps_those_who_may_charge_and_were_here() {
    let mut tokens = plain(&["A", "B", "C", "D", "E", "Z"]);
    tokens[0].status = AuthorizationStatus::Blocked;
    let own = OwnTokens { room: 4, per_message: 3, unknown_may: false };
    let mut bench = Bench::new(OcppVersion::V16, own, &tokens);
    bench.run(60);
    let names = |bench: &Bench| bench.list().into_iter().map(|(token, _)| token).collect::<Vec<_>>();
    assert_eq!(names(&bench), ["b", "c", "d", "e"]);
    bench.plug_in("Z");
    assert!(bench.run_until(60, Bench::charges).is_some());
    bench.unplug();
    bench.run(60);
    bench.set("F", AuthorizationStatus::Accepted);
    bench.run(120);
    assert_eq!(names(&bench), ["b", "c", "d", "z"]);
}

#[test]
fn a_list_from_elsewhere_is_replaced() {
    for version in BOTH {
        let mut bench = Bench::new(version, ROOMY, &plain(&["ANNA", "BERT"]));
        bench.run(30);
        bench.disconnect();
        bench.station.list_from_elsewhere(999, "STRANGER");
        bench.run(10);
        bench.connect();
        bench.run(60);
        assert_eq!(bench.list(), [("anna".to_owned(), true), ("bert".to_owned(), true)], "{version:?}");
        // While the connection stands nobody tells: the next change finds it.
        bench.station.list_from_elsewhere(2_000_000_000, "STRANGER");
        bench.set("CARL", AuthorizationStatus::Accepted);
        bench.run(180);
        assert_eq!(bench.list().len(), 3, "{version:?}");
    }
}

#[test]
fn stations_that_take_less_than_they_say_get_what_they_take() {
    for version in BOTH {
        let tokens = plain(&["A", "B", "C", "D", "E", "F", "G", "H"]);
        let mut bench = Bench::new(version, OwnTokens { room: 100, per_message: 3, unknown_may: false }, &tokens);
        bench.station.quirks_mut().list = ListFault::Room(6);
        bench.run(300);
        assert_eq!(bench.list().len(), 6, "{version:?}");
        let writes = bench.station.list_writes();
        bench.run(3_600);
        assert_eq!(bench.station.list_writes(), writes, "{version:?}: it is left alone");
    }
}

#[test]
fn stations_with_a_broken_list_are_told_seldom_and_lose_nothing_else() {
    for fault in [ListFault::Fails, ListFault::Silent, ListFault::Mismatches] {
        for version in BOTH {
            let mut bench = Bench::new(version, ROOMY, &plain(&["ANNA", "BERT"]));
            bench.station.quirks_mut().list = fault;
            bench.plug_in("ANNA");
            assert!(bench.run_until(120, |bench| bench.station.current(1).max() > Current::from_a(15)).is_some());
            bench.run(3_600);
            assert!(bench.lists().len() < 15, "{fault:?} {version:?}: {}", bench.lists().len());
            assert!(bench.station.current(1).max() > Current::from_a(15), "{fault:?} {version:?}");
            let silent = bench.warnings.iter().filter(|line| line.contains("does not answer its calls")).count();
            assert_eq!(silent, 0, "{:?}", bench.warnings);
            // Whole lists it takes, and when it is well again all of them.
            bench.station.quirks_mut().list = ListFault::None;
            bench.run(3_700);
            assert_eq!(bench.list().len(), 2, "{fault:?} {version:?}");
        }
    }
    let mut bench = Bench::new(OcppVersion::V16, ROOMY, &plain(&["ANNA"]));
    bench.station.quirks_mut().list = ListFault::Fails;
    bench.run(3_600);
    let told = bench.warnings.iter().filter(|line| line.contains("to its local list again and again")).count();
    assert_eq!(told, 1, "{:?}", bench.warnings);
}

#[test]
fn a_station_that_takes_whole_lists_only_gets_whole_ones() {
    for version in BOTH {
        let mut bench = Bench::new(version, ROOMY, &plain(&["ANNA", "BERT", "CARL"]));
        bench.station.quirks_mut().list = ListFault::Mismatches;
        bench.run(60);
        bench.set("DORA", AuthorizationStatus::Accepted);
        bench.run(180);
        assert_eq!(bench.list().len(), 4, "{version:?}");
    }
}

#[test]
fn a_station_without_a_list_is_asked_and_left_alone() {
    for version in BOTH {
        let mut bench = Bench::new(version, ROOMY, &plain(&["ANNA"]));
        bench.station = Station::new(StationOptions::new("CP1", version));
        bench.disconnect();
        bench.connect();
        bench.run(300);
        assert_eq!(bench.lists().len(), 0, "{version:?}");
    }
}

#[test]
fn a_card_of_the_same_group_and_the_master_pass_end_a_transaction() {
    for version in BOTH {
        let tokens = [
            entry("ANNA", AuthorizationStatus::Accepted, Some("staff")),
            entry("BERT", AuthorizationStatus::Accepted, Some("staff")),
            entry("CARL", AuthorizationStatus::Accepted, Some("guests")),
            entry("MAIK", AuthorizationStatus::Accepted, Some("keyholders")),
        ];
        for (card, ends) in [("CARL", false), ("BERT", true), ("MAIK", true)] {
            let mut bench = Bench::with(version, ROOMY, &tokens, Some("keyholders"));
            bench.run(30);
            bench.plug_in("ANNA");
            assert!(bench.run_until(60, Bench::charges).is_some(), "{version:?}");
            bench.run(10);
            let at = now(bench.ms);
            bench.station.hold_card(1, card, at);
            bench.run(10);
            assert_eq!(!bench.charges(), ends, "{version:?} {card}");
            bench.unplug();
            bench.run(10);
            bench.plug_in("MAIK");
            bench.run(30);
            assert!(!bench.charges(), "{version:?}: the master pass starts nothing");
        }
    }
}

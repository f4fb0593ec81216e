//! From the configuration to the parts of the daemon, and what can go wrong on the way.

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, oneshot, watch};

use super::{OpenStore, StartError, VERSION};
use crate::config::{Config, DeviceConfig, DeviceTarget, DimmingDevice};
use crate::engine::modbus::connection::Connection;
use crate::engine::model::ids::Sequence;
use crate::engine::model::record::Record;
use crate::engine::site::Restored;
use crate::engine::site::io::{Input, Publication};
use crate::engine::site::ledger::Ledger;
use crate::shell::bus::{BusPlan, DevicePlan, Reads, Target};
use crate::shell::clock::Clock;
use crate::shell::http::Events;
use crate::shell::journal::{Journal, JournalHandle, OpenError, Opened};
use crate::shell::site::{Store, StoreOverrun};
use crate::shell::telemetry::TelemetryHandle;
use crate::shell::{memory, mqtt};

/// The outbox has at most 100 events under way; the rest is room for state, answers and a burst of both.
const PUBLICATIONS: usize = 256;

/// The link to the cloud: where messages for it go, and the task that carries them.
pub(super) type CloudLink = (mpsc::Sender<Publication>, Pin<Box<dyn Future<Output = ()> + Send>>);

/// Seeds the engine's dice. The standard library's hash keys are the one source of randomness that needs no package.
pub(super) fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The Modbus lines with their devices.
pub(super) fn bus_plans(config: &Config) -> Result<Vec<BusPlan>, StartError> {
    let devices =
        config.devices.iter().map(device_plan).chain(config.dimming_device.as_ref().map(dimming_plan)).collect();
    BusPlan::group(devices).map_err(|error| bad(&config.path, &error))
}

fn device_plan(device: &DeviceConfig) -> (Connection, DevicePlan) {
    let target = match device.target {
        DeviceTarget::Meter(index) => Target::Meter(index),
        DeviceTarget::Inverter(index) => Target::Inverter(index),
    };
    let (unit_id, interval_ms, reads) = (device.unit_id, device.interval_ms, Reads::Map(device.map.clone()));
    (device.connection.clone(), DevicePlan { target, unit_id, interval_ms, reads })
}

fn dimming_plan(device: &DimmingDevice) -> (Connection, DevicePlan) {
    let (unit_id, interval_ms, reads) = (device.unit_id, device.interval_ms, Reads::Switch(device.switch));
    (device.connection.clone(), DevicePlan { target: Target::Dimming, unit_id, interval_ms, reads })
}

fn bad(file: &Path, error: &str) -> StartError {
    StartError::Configuration(format!("{}: {error}", file.display()))
}

/// Why an address cannot be listened on, and what to change.
pub(super) fn cannot_listen(key: &str, wanted: SocketAddr, file: &Path, error: &io::Error) -> StartError {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another process has this port (perhaps another siteward; `ss -ltnp 'sport = :{}'` shows it): stop it, or change",
            wanted.port()
        ),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address: change".to_owned(),
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: take a higher one in".to_owned(),
        _ => "change".to_owned(),
    };
    StartError::Other(format!("cannot listen on {wanted}: {error}; {remedy} {key} in {}", file.display()))
}

/// The sections of the configuration that differ.
pub(super) fn changed(running: &Config, new: &Config) -> Vec<&'static str> {
    let wiring = running.topology != new.topology || running.devices != new.devices;
    [
        ("[site]", running.site != new.site || running.topology.site() != new.topology.site()),
        ("[ocpp]", running.ocpp != new.ocpp),
        ("[api]", running.api != new.api),
        ("[store]", running.store != new.store),
        ("[cloud]", running.cloud != new.cloud),
        (
            "[authorization]",
            running.authorization != new.authorization || running.tokens != new.tokens || running.groups != new.groups,
        ),
        ("[charging]", running.charging != new.charging),
        ("[[tariffs]] or [billing]", running.tariffs != new.tariffs || running.billing != new.billing),
        (
            "[[schedules]], [dimming] or `floor_a`",
            running.outside != new.outside || running.dimming_device != new.dimming_device,
        ),
        ("[[circuits]], [[meters]], [[inverters]] or [[chargers]]", wiring),
    ]
    .into_iter()
    .filter_map(|(part, differs)| differs.then_some(part))
    .collect()
}

/// Opens the journal, folds what it holds, and starts its thread. Blocks while a large store is read.
pub(super) fn open_store(config: &Config, clock: Clock, inbox: mpsc::Sender<Input>) -> Result<OpenStore, StartError> {
    let name = config.path.display();
    let explain = |error: OpenError| StartError::Other(format!("{error} ([store] path in {name})"));
    let (runtime, history) = (memory::runtime(), config.store.history_events);
    let opened = Journal::open_beside(&config.store.path, runtime.as_deref(), history, clock).map_err(explain)?;
    let Opened { journal, store_id, boot, acknowledged, snapshot, records, damage, .. } = opened;
    if let Some(missing) = &damage {
        tracing::error!("a damaged store was set aside in {}: {missing}", config.store.path.display());
    }
    let (mut ledger, mut snapshot_at) = (Ledger::default(), Sequence(0));
    if let Some((through, state)) = snapshot {
        let path = config.store.path.display();
        snapshot_at = through;
        ledger = Ledger::restore(&state)
            .map_err(|error| StartError::Other(format!("the store in {path}, snapshot through {through}: {error}")))?;
    }
    for record in &records {
        ledger.apply(record);
    }
    let room = config.store.max_size_mb.saturating_mul(1_000_000);
    let ring = || TelemetryHandle::start(&config.store.path, room, inbox.clone());
    let telemetry = config.cloud.as_ref().map(|_| ring()).transpose();
    let telemetry = telemetry.map_err(|error| StartError::Other(format!("cannot start a thread: {error}")))?;
    let journal = match telemetry.as_ref().and_then(TelemetryHandle::relief) {
        Some(relief) => journal.relieved_by(move || relief.give_way()),
        None => journal,
    };
    let handle = Arc::new(journal.start(inbox).map_err(explain)?);
    // The closing alone keeps it: whoever else holds one longer must not keep the thread running.
    let shared = Shared(Arc::downgrade(&handle));
    Ok(OpenStore {
        restored: Restored {
            store_id,
            boot,
            ledger,
            snapshot_at,
            acknowledged,
            damage,
            remembered: memory::recall(&memory::place(&config.store.path)),
            cause: None,
        },
        store: Box::new(shared.clone()),
        telemetry,
        events: Arc::new(shared),
        close: Box::new(move || drop(handle)),
    })
}

/// The journal for the owner and for readers.
#[derive(Clone)]
struct Shared(Weak<JournalHandle>);

impl Store for Shared {
    fn append(&mut self, records: Vec<Record>) -> Result<(), StoreOverrun> {
        let result = self.0.upgrade().map(|journal| journal.append(records));
        match result {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(StoreOverrun(error.to_string())),
            None => Err(StoreOverrun("the journal is closed already".to_owned())),
        }
    }

    fn snapshot(&mut self, through: Sequence, state: Vec<u8>) {
        // A full queue leaves it out; the next one makes it good.
        let _ = self.0.upgrade().map(|journal| journal.snapshot(through, state));
    }

    fn read(&mut self, from: Sequence, limit: usize) {
        // The engine asks again when no answer comes.
        let _ = self.0.upgrade().map(|journal| journal.read(from, limit));
    }

    fn acknowledged(&mut self, through: Sequence) {
        let _ = self.0.upgrade().map(|journal| journal.acknowledged(through));
    }
}

impl Events for Shared {
    fn read(&self, from: Sequence, limit: usize, answer: oneshot::Sender<Result<Vec<Record>, String>>) {
        // Refused: the answer is dropped, which says so.
        let _ = self.0.upgrade().map(|journal| journal.read_for(from, limit, answer));
    }
}

/// The link to the broker, if one is configured.
pub(super) fn cloud_link(
    config: &Config,
    inbox: mpsc::Sender<Input>,
    shutdown: watch::Receiver<bool>,
    clock: Clock,
) -> Option<CloudLink> {
    let cloud = config.cloud.as_ref()?;
    let site = config.topology.site().clone();
    let (certificate, private_key) = cloud.client.clone().unzip();
    let tls = cloud.tls.then(|| mqtt::TlsFiles { ca: cloud.ca.clone(), certificate, private_key });
    let link = mqtt::CloudLink {
        brokers: cloud.brokers.clone(),
        look_for_better: mqtt::LOOK_FOR_BETTER,
        tls,
        username: cloud.username.clone(),
        password: cloud.password.clone(),
        client_id: format!("siteward-{site}"),
        topic_prefix: cloud.topic_prefix.clone(),
        site,
        version: VERSION.to_owned(),
        clock,
    };
    let (publications_in, publications) = mpsc::channel(PUBLICATIONS);
    Some((publications_in, Box::pin(mqtt::run(link, publications, inbox, shutdown))))
}

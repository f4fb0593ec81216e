//! One connection to the broker, from its first byte to its last.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::future::poll_immediate;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, LastWill, LastWillProperties, Packet, PubAck, PubAckReason, Publish, PublishProperties, SubAck,
    SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use rumqttc::{Outgoing, TlsConfiguration, Transport};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, timeout};

use super::{CloudLink, stopped, tls};
use crate::config::Broker;
use crate::engine::cloud::messages;
use crate::engine::cloud::topics::Topics;
use crate::engine::model::ids::Sequence;
use crate::engine::site::io::{Carries, CloudInput, Input, Publication};
use crate::engine::time::Utc;

/// QoS 1 publications without PUBACK: the outbox's window. More gains nothing (measured).
const IN_FLIGHT: u16 = 100;
/// Publications given to rumqttc and not on the wire yet; beyond it the channel to us fills.
const UNSENT: usize = 128;
/// From TCP to CONNACK.
const CONNECT: Duration = Duration::from_secs(15);
/// TCP and TLS alone, in rumqttc.
const CONNECT_S: u64 = 10;
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// The event loop says something with each ping; silent for so much longer it hangs on a peer that does not read.
const POLL_MARGIN: Duration = Duration::from_secs(10);
/// From the start to SUBACK: a broker that answers pings only must not be waited for.
const SUBSCRIBED: Duration = Duration::from_secs(30);
/// A broker that does not answer a publication for so long has forgotten it: a new connection starts again.
const PUBACK: Duration = Duration::from_secs(60);
/// How often it is looked whether the broker owes an answer.
const LOOK: Duration = Duration::from_secs(1);
/// Packets that have arrived together and are taken before anything else has its turn; their PUBACKs are told to the site in one piece.
const TOGETHER: u32 = 64;
/// How long the farewell may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// The largest packet taken in: a command of the largest size with its properties, so that a larger one is still answered.
const MAX_INCOMING: u32 = 512 * 1024;
/// Fixed header, packet id, property lengths and our properties, beside topic, payload and correlation data.
const PACKET_OVERHEAD: usize = 256;

pub(super) struct Session<'a> {
    pub(super) link: &'a CloudLink,
    pub(super) broker: &'a Broker,
    pub(super) topics: &'a Topics,
    pub(super) publications: &'a mut mpsc::Receiver<Publication>,
    pub(super) inbox: &'a mpsc::Sender<Input>,
}

/// How a connection ended.
pub(super) struct Ended {
    /// The site was told that it is connected.
    pub(super) connected: bool,
    /// It was of use: the broker has acknowledged something.
    pub(super) worked: bool,
    /// Why.
    pub(super) end: End,
}

/// Why a connection ended.
pub(super) enum End {
    /// It was to end, and has said so to the broker.
    Told,
    /// A broker that is preferred can be reached, and this one was told.
    Better,
    /// It is lost, or could not be made.
    Failed(String),
}

/// What waits for the broker's answer.
#[derive(Clone, Copy)]
struct Sent {
    carries: Carries,
    at: Instant,
}

struct Wire {
    client: AsyncClient,
    /// Given to rumqttc, in order; it names the packet id when it sends.
    unsent: VecDeque<(bool, Carries)>,
    open: BTreeMap<u16, Sent>,
    /// What the broker has taken over and the site was not told of yet.
    taken: Vec<Sequence>,
    since: Instant,
    max_packet: usize,
    connected: bool,
    worked: bool,
}

impl Session<'_> {
    /// `better` ends when a broker that is preferred can be reached.
    pub(super) async fn run(mut self, better: impl Future<Output = ()>, shutdown: &mut watch::Receiver<bool>) -> Ended {
        let since = self.link.clock.now().utc;
        let options = match options(self.link, self.broker, self.topics, since) {
            Ok(options) => options,
            Err(error) => return Ended { connected: false, worked: false, end: End::Failed(error) },
        };
        let (client, event_loop) = AsyncClient::new(options, UNSENT);
        let mut wire = Wire {
            client,
            unsent: VecDeque::new(),
            open: BTreeMap::new(),
            taken: Vec::new(),
            since: Instant::now(),
            max_packet: usize::MAX,
            connected: false,
            worked: false,
        };
        let ends = std::pin::pin!(async {
            tokio::select! {
                () = better => End::Better,
                () = stopped(shutdown) => End::Told,
            }
        });
        let end = self.serve(&mut wire, Box::new(event_loop), ends).await.unwrap_or_else(End::Failed);
        self.tell_taken(&mut wire).await;
        Ended { connected: wire.connected, worked: wire.worked, end }
    }

    /// `Ok`: it was to end, which `ends` says, and has said so to the broker.
    async fn serve(
        &mut self,
        wire: &mut Wire,
        event_loop: Box<EventLoop>,
        mut ends: std::pin::Pin<&mut impl Future<Output = End>>,
    ) -> Result<End, String> {
        // The poll in progress is never dropped while the connection lives: rumqttc does not promise that this loses nothing.
        let mut polling = Box::pin(poll(event_loop, CONNECT));
        let mut look = interval(LOOK);
        let end = loop {
            let room = wire.unsent.len() < UNSENT - 2;
            tokio::select! {
                polled = &mut polling => {
                    let mut polled = Some(polled);
                    let mut together = 0;
                    while let Some((mut event_loop, event)) = polled {
                        let patience = patience(&mut event_loop.options);
                        polling.set(poll(event_loop, patience));
                        let event = event.map_err(|error| self.explain(error))?;
                        self.take(wire, event).await?;
                        together += 1;
                        polled = if together < TOGETHER { poll_immediate(polling.as_mut()).await } else { None };
                    }
                    self.tell_taken(wire).await;
                }
                publication = self.publications.recv(), if room => match publication {
                    Some(publication) if wire.connected => self.publish(wire, publication).await?,
                    // From before this connection: the outbox starts again when it hears of it.
                    Some(_) => {}
                    None => break End::Told,
                },
                now = look.tick() => {
                    if wire.overdue().is_some_and(|overdue| now >= overdue) {
                        return Err(self.name("the broker does not acknowledge what it was sent"));
                    }
                }
                end = &mut ends => break end,
            }
        };
        if wire.connected {
            let farewell = self.farewell(wire, polling);
            let _ = timeout(FAREWELL, farewell).await;
        }
        Ok(end)
    }

    async fn take(&mut self, wire: &mut Wire, event: Event) -> Result<(), String> {
        match event {
            Event::Incoming(Packet::ConnAck(connack)) => {
                let limit = connack.properties.and_then(|properties| properties.max_packet_size);
                wire.max_packet = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
                let subscribed = wire.client.try_subscribe(self.topics.commands(), QoS::AtLeastOnce);
                subscribed.map_err(|error| self.name(&error.to_string()))
            }
            Event::Incoming(Packet::SubAck(suback)) => self.subscribed(wire, &suback).await,
            Event::Outgoing(Outgoing::Publish(pkid)) => {
                if let Some((true, carries)) = wire.unsent.pop_front() {
                    wire.open.insert(pkid, Sent { carries, at: Instant::now() });
                }
                Ok(())
            }
            Event::Incoming(Packet::PubAck(puback)) => {
                self.acknowledged(wire, &puback).await;
                Ok(())
            }
            Event::Incoming(Packet::Publish(publish)) => {
                self.message(publish).await;
                Ok(())
            }
            Event::Incoming(_) | Event::Outgoing(_) => Ok(()),
        }
    }

    async fn subscribed(&mut self, wire: &mut Wire, suback: &SubAck) -> Result<(), String> {
        if let Some(code) = suback.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_))) {
            let topic = self.topics.commands();
            return Err(
                self.name(&format!("the broker refuses the subscription to {topic} ({code:?}): check its access list"))
            );
        }
        // Publications from before the connection was lost are not wanted: the outbox starts again.
        while self.publications.try_recv().is_ok() {}
        let online = messages::connection(true, self.link.clock.now().utc, &self.link.version);
        wire.put(connection_message(self.topics, online)).map_err(|error| self.name(&error))?;
        wire.connected = true;
        if self.link.brokers.first() != Some(self.broker) {
            tracing::warn!("{}", self.name("connected to it, since those that are preferred do not work"));
        }
        self.tell(CloudInput::Connected).await;
        Ok(())
    }

    async fn publish(&self, wire: &mut Wire, publication: Publication) -> Result<(), String> {
        // The sender of a command names the topic of its answer: a bad one must not cost the connection.
        if publication.topic.is_empty() || publication.topic.contains(['+', '#', '\0']) {
            return Ok(());
        }
        let correlation = publication.correlation.as_ref().map_or(0, Vec::len);
        let size = publication.topic.len() + publication.payload.len() + correlation + PACKET_OVERHEAD;
        if size > wire.max_packet {
            let reason = format!("it has {size} bytes and the broker takes {}: raise its limit", wire.max_packet);
            if let Some(input) = publication.carries.not_taken(reason) {
                self.tell(input).await;
            }
            return Ok(());
        }
        wire.put(publication).map_err(|error| self.name(&error))
    }

    async fn acknowledged(&self, wire: &mut Wire, puback: &PubAck) {
        let Some(sent) = wire.open.remove(&puback.pkid) else { return };
        wire.worked = true;
        let reason = match (puback.reason, sent.carries) {
            (PubAckReason::Success, Carries::Event(sequence)) => {
                wire.taken.push(sequence);
                return;
            }
            // Nobody has to want it: it is offered.
            (PubAckReason::Success | PubAckReason::NoMatchingSubscribers, Carries::Interval(interval)) => {
                return self.tell(CloudInput::IntervalTaken { interval }).await;
            }
            (PubAckReason::NoMatchingSubscribers, _) => "nobody is subscribed to the events".to_owned(),
            (reason, _) => format!("the broker refuses it ({reason:?}): check its access list"),
        };
        // In the order of the answers.
        self.tell_taken(wire).await;
        if let Some(input) = sent.carries.not_taken(reason) {
            self.tell(input).await;
        }
    }

    async fn tell_taken(&self, wire: &mut Wire) {
        if !wire.taken.is_empty() {
            let sequences = std::mem::take(&mut wire.taken);
            self.tell(CloudInput::Acknowledged { sequences }).await;
        }
    }

    async fn message(&self, publish: Publish) {
        let properties = publish.properties.unwrap_or_default();
        self.tell(CloudInput::Message {
            payload: publish.payload.to_vec(),
            response_topic: properties.response_topic,
            correlation: properties.correlation_data.map(|data| data.to_vec()),
        })
        .await;
    }

    /// Says `online: false`, waits until the broker has it, and disconnects.
    async fn farewell(&mut self, wire: &mut Wire, mut polling: std::pin::Pin<Box<impl Future<Output = Polled>>>) {
        let offline = messages::connection(false, self.link.clock.now().utc, &self.link.version);
        if wire.put(connection_message(self.topics, offline)).is_err() {
            return;
        }
        let (mut event_loop, mut event) = (&mut polling).await;
        let mut disconnecting = false;
        while let Ok(now) = event {
            let acknowledged = matches!(now, Event::Incoming(Packet::PubAck(_)));
            if self.take(wire, now).await.is_err() {
                return;
            }
            if acknowledged && !disconnecting && wire.unsent.is_empty() && wire.open.is_empty() {
                disconnecting = wire.client.try_disconnect().is_ok();
            }
            (event_loop, event) = poll(event_loop, FAREWELL).await;
        }
    }

    async fn tell(&self, input: CloudInput) {
        // The site has ended: there is nobody left to tell.
        let _ = self.inbox.send(Input::Cloud(input)).await;
    }

    fn name(&self, what: &str) -> String {
        format!("broker {}:{}: {what}", self.broker.host, self.broker.port)
    }

    /// What is wrong, and what to check.
    fn explain(&self, error: Option<ConnectionError>) -> String {
        let Some(error) = error else { return self.name("it does not answer any more") };
        let text = match error {
            ConnectionError::ConnectionRefused(code)
            | ConnectionError::MqttState(StateError::ConnFail { reason: code }) => refused(code),
            ConnectionError::Timeout(_) => "no connection in time: check cloud.url and the firewall".to_owned(),
            ConnectionError::Io(error) => format!("{error}: check cloud.url, the name and the network"),
            ConnectionError::Tls(error) => {
                format!(
                    "TLS failed ({error}): check cloud.ca, the host's name in the broker's certificate, and the clock"
                )
            }
            ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => format!(
                "it ended the connection ({reason_code:?}{}); if it says SessionTakenOver, another client uses the same id",
                reason_string.map(|reason| format!(", {reason}")).unwrap_or_default()
            ),
            ConnectionError::MqttState(error) => format!("the connection is lost: {error}"),
            ConnectionError::NotConnAck(_) => "what answers is not an MQTT 5 broker: check cloud.url".to_owned(),
            ConnectionError::RequestsDone => "the connection is closed".to_owned(),
        };
        self.name(&text)
    }
}

fn refused(code: ConnectReturnCode) -> String {
    let check = match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
            "check cloud.username, cloud.password_file and the broker's list of users"
        }
        ConnectReturnCode::ClientIdentifierNotValid | ConnectReturnCode::BadClientId => {
            "check the client ids that the broker allows"
        }
        ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion => {
            "the broker must speak MQTT 5"
        }
        ConnectReturnCode::Banned => "the broker has banned this client",
        _ => "ask the broker's operator",
    };
    format!("it refuses the connection ({code:?}): {check}")
}

/// How long the event loop may be silent. The broker may have named another interval for the pings than we did.
fn patience(options: &mut MqttOptions) -> Duration {
    // MQTT 5 §3.1.2.10: 0 switches keep-alive off. rumqttc would ping without a pause and miss the answers.
    if options.keep_alive().is_zero() {
        options.set_keep_alive(KEEP_ALIVE);
    }
    options.keep_alive() + POLL_MARGIN
}

/// In a box, for it is large and changes hands with each event.
type Polled = (Box<EventLoop>, Result<Event, Option<ConnectionError>>);

/// One step of the event loop, which is handed back. `Err(None)`: it hangs.
async fn poll(mut event_loop: Box<EventLoop>, longest: Duration) -> Polled {
    let event = match timeout(longest, event_loop.poll()).await {
        Ok(Ok(event)) => Ok(event),
        Ok(Err(error)) => Err(Some(error)),
        Err(_) => Err(None),
    };
    (event_loop, event)
}

impl Wire {
    /// When the broker will have been silent for too long about what it was sent.
    fn overdue(&self) -> Option<Instant> {
        let subscribed = (!self.connected).then_some(self.since + SUBSCRIBED);
        self.open.values().map(|sent| sent.at + PUBACK).chain(subscribed).min()
    }

    fn put(&mut self, publication: Publication) -> Result<(), String> {
        let (at_least_once, carries) = (publication.at_least_once, publication.carries);
        let qos = if at_least_once { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        let properties = PublishProperties {
            payload_format_indicator: Some(1),
            content_type: Some(publication.content_type.to_owned()),
            correlation_data: publication.correlation.map(Into::into),
            ..PublishProperties::default()
        };
        let Publication { topic, payload, retain, .. } = publication;
        self.client
            .try_publish_with_properties(topic, qos, retain, payload, properties)
            .map_err(|error| format!("a message cannot be sent: {error}"))?;
        self.unsent.push_back((at_least_once, carries));
        Ok(())
    }
}

fn connection_message(topics: &Topics, payload: String) -> Publication {
    Publication {
        topic: topics.connection(),
        payload,
        content_type: messages::JSON,
        at_least_once: true,
        retain: true,
        carries: Carries::Nothing,
        correlation: None,
    }
}

fn options(link: &CloudLink, broker: &Broker, topics: &Topics, since: Utc) -> Result<MqttOptions, String> {
    let mut options = MqttOptions::new(&link.client_id, &broker.host, broker.port);
    options.set_keep_alive(KEEP_ALIVE);
    options.set_clean_start(true);
    options.set_connection_timeout(CONNECT_S);
    options.set_outgoing_inflight_upper_limit(IN_FLIGHT);
    options.set_max_packet_size(Some(MAX_INCOMING));
    if let Some(username) = &link.username {
        let password = link.password.as_ref().map(|password| String::from_utf8_lossy(password.expose()).into_owned());
        options.set_credentials(username, password.unwrap_or_default());
    }
    if let Some(files) = &link.tls {
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls::client(files)?)));
    }
    let will = messages::connection(false, since, &link.version);
    let properties = LastWillProperties {
        delay_interval: None,
        payload_format_indicator: Some(1),
        message_expiry_interval: None,
        content_type: Some(messages::JSON.to_owned()),
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
    };
    options.set_last_will(LastWill::new(topics.connection(), will, QoS::AtLeastOnce, true, Some(properties)));
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(options: MqttOptions) -> Wire {
        let (client, _) = AsyncClient::new(options, 1);
        let (unsent, open) = (VecDeque::new(), BTreeMap::new());
        let since = Instant::now();
        Wire { client, unsent, open, taken: Vec::new(), since, max_packet: 0, connected: false, worked: false }
    }

    #[tokio::test]
    async fn neither_a_subscription_nor_a_publication_is_waited_for_without_end() {
        let mut wire = wire(MqttOptions::new("id", "localhost", 1));
        assert_eq!(wire.overdue(), Some(wire.since + SUBSCRIBED));
        wire.connected = true;
        assert_eq!(wire.overdue(), None);
        wire.open.insert(1, Sent { carries: Carries::Nothing, at: wire.since });
        assert_eq!(wire.overdue(), Some(wire.since + PUBACK));
    }

    #[test]
    fn the_broker_s_interval_for_pings_is_waited_for() {
        let mut options = MqttOptions::new("id", "localhost", 1);
        options.set_keep_alive(Duration::from_secs(300));
        assert!(patience(&mut options) > Duration::from_secs(300));
    }
}

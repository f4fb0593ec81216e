use proptest::prelude::*;

use super::*;
use crate::engine::model::record::{RecordBody, Stamp};
use crate::engine::time::Utc;

fn record(sequence: u64) -> Record {
    let stamp = Stamp { utc: Utc::from_unix_ms(0), trusted: true, mono: Mono::START, boot: 1 };
    Record {
        sequence: Sequence(sequence),
        stamp,
        body: RecordBody::StoreRecovered { missing: format!("record {sequence}") },
    }
}

fn published(actions: &[OutboxAction]) -> Vec<u64> {
    actions.iter().filter_map(|a| if let OutboxAction::Publish(r) = a { Some(r.sequence.0) } else { None }).collect()
}

/// Answers every read from records `1..=last` and returns what was published.
fn pump(outbox: &mut Outbox, now: Mono, last: u64) -> Vec<u64> {
    let mut sent = Vec::new();
    loop {
        let actions = outbox.poll(now);
        sent.extend(published(&actions));
        let read = actions.iter().find_map(|a| match a {
            OutboxAction::Read { from, limit } => Some((from.0, *limit as u64)),
            OutboxAction::Publish(_) | OutboxAction::Acknowledged(_) => None,
        });
        let Some((from, limit)) = read else { return sent };
        outbox.records((from..=last).take(usize::try_from(limit).unwrap()).map(record).collect());
    }
}

fn started(mode: Acknowledge, last: u64) -> Outbox {
    let mut outbox = Outbox::new(mode, Sequence(0));
    outbox.durable(Sequence(last));
    outbox.connected();
    outbox
}

#[test]
fn the_window_is_bounded_and_moves_with_the_brokers_answers() {
    let mut outbox = started(Acknowledge::Broker, 250);
    assert_eq!(pump(&mut outbox, Mono::START, 250), (1..=100).collect::<Vec<_>>());
    outbox.broker_acknowledged(Sequence(2));
    assert_eq!(pump(&mut outbox, Mono::START, 250), Vec::<u64>::new(), "1 is still open");
    assert_eq!(outbox.acknowledged(), Sequence(0));
    outbox.broker_acknowledged(Sequence(1));
    assert_eq!(pump(&mut outbox, Mono::START, 250), vec![101, 102]);
    assert_eq!(outbox.acknowledged(), Sequence(2));
    assert_eq!(outbox.backlog(), 248);
}

#[test]
fn the_cursor_is_reported_once() {
    let mut outbox = started(Acknowledge::Broker, 1);
    pump(&mut outbox, Mono::START, 1);
    outbox.broker_acknowledged(Sequence(1));
    assert_eq!(outbox.poll(Mono::START), vec![OutboxAction::Acknowledged(Sequence(1))]);
    assert_eq!(outbox.poll(Mono::START), vec![]);
}

#[test]
fn only_durable_records_leave() {
    let mut outbox = started(Acknowledge::Broker, 2);
    assert_eq!(pump(&mut outbox, Mono::START, 5), vec![1, 2]);
    outbox.durable(Sequence(3));
    assert_eq!(pump(&mut outbox, Mono::START, 5), vec![3]);
}

#[test]
fn a_new_connection_starts_again_behind_the_cursor() {
    let mut outbox = started(Acknowledge::Broker, 5);
    pump(&mut outbox, Mono::START, 5);
    outbox.broker_acknowledged(Sequence(1));
    outbox.broker_acknowledged(Sequence(3));
    outbox.disconnected();
    outbox.broker_acknowledged(Sequence(2));
    assert_eq!(pump(&mut outbox, Mono::START, 5), Vec::<u64>::new());
    outbox.connected();
    assert_eq!(pump(&mut outbox, Mono::START, 5), vec![2, 3, 4, 5]);
}

#[test]
fn after_a_refusal_everything_from_there_on_is_sent_again() {
    let mut outbox = started(Acknowledge::Broker, 4);
    pump(&mut outbox, Mono::START, 4);
    outbox.broker_acknowledged(Sequence(1));
    outbox.not_taken(Sequence(2), Mono::START);
    outbox.broker_acknowledged(Sequence(3));
    assert_eq!(pump(&mut outbox, Mono::from_ms(2_000), 4), Vec::<u64>::new(), "4 is not answered yet");
    outbox.broker_acknowledged(Sequence(4));
    assert_eq!(pump(&mut outbox, Mono::from_ms(2_000), 4), vec![2, 3, 4]);
    assert_eq!(outbox.acknowledged(), Sequence(1));
}

#[test]
fn refusals_are_repeated_with_growing_waits() {
    let mut outbox = started(Acknowledge::Broker, 1);
    let mut now = Mono::START;
    let mut waits = Vec::new();
    pump(&mut outbox, now, 1);
    for _ in 0..7 {
        outbox.not_taken(Sequence(1), now);
        let since = now;
        while pump(&mut outbox, now, 1).is_empty() {
            now = now.plus_ms(200);
        }
        waits.push(now.since(since));
    }
    assert_eq!(waits, vec![1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
}

#[test]
fn in_application_mode_only_the_application_moves_the_cursor() {
    let mut outbox = started(Acknowledge::Application, 3);
    pump(&mut outbox, Mono::START, 3);
    (1..=3).for_each(|s| outbox.broker_acknowledged(Sequence(s)));
    assert_eq!(outbox.acknowledged(), Sequence(0));
    assert_eq!(outbox.application_acknowledged(Sequence(2)), Ok(()));
    assert_eq!(outbox.poll(Mono::START), vec![OutboxAction::Acknowledged(Sequence(2))]);
    assert_eq!(outbox.application_acknowledged(Sequence(1)), Ok(()), "old news");
    assert_eq!(outbox.acknowledged(), Sequence(2));
    let refusal = outbox.application_acknowledged(Sequence(4)).unwrap_err();
    assert!(refusal.contains("never sent") && refusal.contains('3'), "{refusal}");
}

#[test]
fn what_an_earlier_life_has_sent_may_be_acknowledged() {
    let mut outbox = Outbox::new(Acknowledge::Application, Sequence(10));
    outbox.durable(Sequence(20));
    outbox.connected();
    assert_eq!(outbox.application_acknowledged(Sequence(15)), Ok(()));
    assert_eq!(pump(&mut outbox, Mono::START, 20), vec![16, 17, 18, 19, 20]);
}

#[test]
fn an_application_that_stands_still_gets_everything_again() {
    let mut outbox = started(Acknowledge::Application, 3);
    pump(&mut outbox, Mono::START, 3);
    (1..=3).for_each(|s| outbox.broker_acknowledged(Sequence(s)));
    outbox.application_acknowledged(Sequence(1)).unwrap();
    assert_eq!(pump(&mut outbox, Mono::START, 3), Vec::<u64>::new());
    assert_eq!(pump(&mut outbox, Mono::from_ms(59_999), 3), Vec::<u64>::new());
    pump(&mut outbox, Mono::from_ms(60_000), 3);
    assert_eq!(outbox.in_flight.len(), 2);
    (2..=3).for_each(|s| outbox.broker_acknowledged(Sequence(s)));
    assert_eq!(pump(&mut outbox, Mono::from_ms(179_999), 3), Vec::<u64>::new(), "the second wait is twice as long");
    assert_eq!(pump(&mut outbox, Mono::from_ms(180_000), 3), vec![2, 3]);
}

#[test]
fn a_standstill_that_is_over_while_a_replay_waits_does_not_send_again_twice() {
    let mut outbox = started(Acknowledge::Application, 2);
    assert_eq!(pump(&mut outbox, Mono::START, 2), vec![1, 2]);
    outbox.broker_acknowledged(Sequence(1));
    outbox.replay(Sequence(1)).unwrap();
    assert_eq!(pump(&mut outbox, Mono::from_ms(59_000), 2), Vec::<u64>::new(), "2 is still open");
    let over = Mono::from_ms(60_200);
    outbox.broker_acknowledged(Sequence(2));
    assert_eq!(pump(&mut outbox, over, 2), vec![1, 2]);
    outbox.broker_acknowledged(Sequence(1));
    outbox.broker_acknowledged(Sequence(2));
    assert_eq!(pump(&mut outbox, over, 2), Vec::<u64>::new(), "once is enough");
}

#[test]
fn an_application_that_is_away_is_not_flooded() {
    let mut outbox = started(Acknowledge::Application, 5_000);
    let mut sent = 0;
    loop {
        let batch = pump(&mut outbox, Mono::START, 5_000);
        if batch.is_empty() {
            break;
        }
        sent += batch.len() as u64;
        batch.into_iter().for_each(|s| outbox.broker_acknowledged(Sequence(s)));
    }
    assert_eq!(sent, MAX_UNACKNOWLEDGED);
    outbox.application_acknowledged(Sequence(500)).unwrap();
    assert_eq!(pump(&mut outbox, Mono::START, 5_000).len(), 100);
}

#[test]
fn the_broker_mode_refuses_the_applications_word() {
    let mut outbox = started(Acknowledge::Broker, 3);
    assert!(outbox.application_acknowledged(Sequence(1)).unwrap_err().contains("cloud.acknowledge"));
}

#[test]
fn a_replay_sends_again_without_moving_the_cursor_back() {
    let mut outbox = started(Acknowledge::Broker, 5);
    pump(&mut outbox, Mono::START, 5);
    (1..=5).for_each(|s| outbox.broker_acknowledged(Sequence(s)));
    assert_eq!(outbox.replay(Sequence(2)), Ok(()));
    assert_eq!(pump(&mut outbox, Mono::START, 5), vec![2, 3, 4, 5]);
    assert_eq!(outbox.acknowledged(), Sequence(5));
    outbox.broker_acknowledged(Sequence(2));
    outbox.disconnected();
    outbox.connected();
    assert_eq!(pump(&mut outbox, Mono::START, 5), vec![3, 4, 5], "the replay goes on over a new connection");
    assert!(outbox.replay(Sequence(0)).unwrap_err().contains("from 1 to 5"));
    assert!(outbox.replay(Sequence(6)).is_err());
}

#[test]
fn a_replay_of_what_is_not_kept_any_more_begins_with_the_oldest_record() {
    let mut outbox = Outbox::new(Acknowledge::Broker, Sequence(50));
    outbox.durable(Sequence(50));
    outbox.connected();
    outbox.replay(Sequence(1)).unwrap();
    let actions = outbox.poll(Mono::START);
    assert_eq!(actions, vec![OutboxAction::Read { from: Sequence(1), limit: 50 }]);
    outbox.records((41..=50).map(record).collect());
    assert_eq!(published(&outbox.poll(Mono::START)), (41..=50).collect::<Vec<_>>());
}

#[test]
fn a_read_that_is_not_answered_or_gives_nothing_is_repeated_without_haste() {
    let mut outbox = started(Acknowledge::Broker, 5);
    let read = vec![OutboxAction::Read { from: Sequence(1), limit: 5 }];
    assert_eq!(outbox.poll(Mono::START), read);
    assert_eq!(outbox.poll(Mono::from_ms(4_999)), vec![]);
    assert_eq!(outbox.poll(Mono::from_ms(5_000)), read);
    outbox.records(vec![]);
    assert_eq!(outbox.poll(Mono::from_ms(5_000)), vec![]);
    assert_eq!(outbox.poll(Mono::from_ms(6_000)), read);
}

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    Connect,
    /// The connection breaks after the broker has taken that many of what was in flight; their answers are lost.
    Disconnect(usize),
    Taken,
    Refused,
    /// Taken by the broker, then lost in it.
    Lost,
    ConsumerAcknowledges,
    Wait(u64),
    Replay(u64),
}

fn step(faults: bool) -> impl Strategy<Value = Step> {
    let fault = u32::from(faults);
    prop_oneof![
        6 => (1_u64..60).prop_map(Step::Append),
        2 => Just(Step::Connect),
        1 => (0_usize..40).prop_map(Step::Disconnect),
        30 => Just(Step::Taken),
        1 + fault => Just(if faults { Step::Refused } else { Step::Taken }),
        1 + fault => Just(if faults { Step::Lost } else { Step::Taken }),
        6 => Just(Step::ConsumerAcknowledges),
        4 => (0_u64..70_000).prop_map(Step::Wait),
        1 => (1_u64..300).prop_map(move |from| if faults { Step::Replay(from) } else { Step::Taken }),
    ]
}

/// The journal, the broker and a consumer that takes only the sequence after its last one.
struct World {
    outbox: Outbox,
    mode: Acknowledge,
    now: Mono,
    durable: u64,
    wire: VecDeque<u64>,
    /// Everything the broker ever took is remembered, to judge the cursor.
    taken: BTreeSet<u64>,
    consumed: u64,
    in_order: bool,
    consumer_acknowledged: u64,
    connected: bool,
}

impl World {
    fn new(mode: Acknowledge) -> Self {
        let mut outbox = Outbox::new(mode, Sequence(0));
        outbox.durable(Sequence(0));
        Self {
            outbox,
            mode,
            now: Mono::START,
            durable: 0,
            wire: VecDeque::new(),
            taken: BTreeSet::new(),
            consumed: 0,
            in_order: true,
            consumer_acknowledged: 0,
            connected: false,
        }
    }

    fn reaches_consumer(&mut self, sequence: u64) {
        self.taken.insert(sequence);
        self.in_order &= sequence <= self.consumed + 1;
        if sequence == self.consumed + 1 {
            self.consumed = sequence;
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Append(count) => {
                self.durable += count;
                self.outbox.durable(Sequence(self.durable));
            }
            Step::Connect if !self.connected => {
                self.connected = true;
                self.outbox.connected();
            }
            Step::Connect => {}
            Step::Disconnect(arrived) => {
                for _ in 0..*arrived {
                    let Some(sequence) = self.wire.pop_front() else { break };
                    self.reaches_consumer(sequence);
                }
                self.wire.clear();
                self.connected = false;
                self.outbox.disconnected();
            }
            Step::Taken => {
                if let Some(sequence) = self.wire.pop_front() {
                    self.reaches_consumer(sequence);
                    self.outbox.broker_acknowledged(Sequence(sequence));
                }
            }
            Step::Refused => {
                if let Some(sequence) = self.wire.pop_front() {
                    self.outbox.not_taken(Sequence(sequence), self.now);
                }
            }
            Step::Lost if self.mode == Acknowledge::Application => {
                if let Some(sequence) = self.wire.pop_front() {
                    self.outbox.broker_acknowledged(Sequence(sequence));
                }
            }
            Step::Lost => {}
            Step::ConsumerAcknowledges => {
                self.consumer_acknowledged = self.consumed;
                let answer = self.outbox.application_acknowledged(Sequence(self.consumed));
                assert!(answer.is_ok() == (self.mode == Acknowledge::Application), "{answer:?}");
            }
            Step::Wait(ms) => self.now = self.now.plus_ms(*ms),
            Step::Replay(from) => {
                let answer = self.outbox.replay(Sequence(*from));
                assert_eq!(answer.is_ok(), *from <= self.durable);
            }
        }
        let sent = pump(&mut self.outbox, self.now, self.durable);
        assert!(self.connected || sent.is_empty(), "nothing is sent without a connection");
        assert!(sent.iter().all(|s| *s <= self.durable), "only durable records leave");
        self.wire.extend(sent);
        assert!(self.wire.len() as u64 <= 2 * WINDOW, "the window is bounded");
        self.judge_cursor();
    }

    fn judge_cursor(&self) {
        let cursor = self.outbox.acknowledged().0;
        match self.mode {
            Acknowledge::Broker => assert!((1..=cursor).all(|s| self.taken.contains(&s)), "the cursor passed a record"),
            Acknowledge::Application => assert!(cursor <= self.consumer_acknowledged, "the cursor passed the consumer"),
        }
    }
}

fn everything_arrives(mode: Acknowledge, steps: &[Step]) -> World {
    let mut world = World::new(mode);
    steps.iter().for_each(|step| world.apply(step));
    // The faults are over: connected, everything is taken, time passes.
    let mut rounds = 0;
    while world.consumed < world.durable || world.outbox.backlog() > 0 || !world.wire.is_empty() {
        world.apply(&Step::Connect);
        while !world.wire.is_empty() {
            world.apply(&Step::Taken);
        }
        if mode == Acknowledge::Application {
            world.apply(&Step::ConsumerAcknowledges);
        }
        world.apply(&Step::Wait(10_000));
        rounds += 1;
        assert!(rounds < 1_000, "stuck at {} of {}: {:?}", world.consumed, world.durable, world.outbox);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_record_is_delivered_whatever_the_broker_does(
        broker in any::<bool>(),
        steps in proptest::collection::vec(step(true), 0..300),
    ) {
        let mode = if broker { Acknowledge::Broker } else { Acknowledge::Application };
        // In broker mode the acknowledgement step is refused, which the world asserts.
        everything_arrives(mode, &steps);
    }

    #[test]
    fn the_first_delivery_is_in_order_however_the_connection_breaks(
        broker in any::<bool>(),
        steps in proptest::collection::vec(step(false), 0..300),
    ) {
        let mode = if broker { Acknowledge::Broker } else { Acknowledge::Application };
        let world = everything_arrives(mode, &steps);
        prop_assert!(world.in_order);
    }
}

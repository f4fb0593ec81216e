//! One WebSocket connection of a station: which CALLs are open in which direction, and what waits.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use super::frame::{self, BadFrame, ErrorCode, Frame, IdJson, MAX_FRAME_BYTES, cut};
use super::lenient::{Notes, Refusal};
use super::outgoing::{Outgoing, Verdict};
use super::{v16, v201};
use crate::engine::model::exchange::{OcppVersion, StationAnswer, StationCall, StationReply, StationRequest};
use crate::engine::time::{Mono, Now};

/// How long a station may take for an answer, in ms. Usual for OCPP-J, and shorter than any lease.
pub const CALL_TIMEOUT_MS: u64 = 30_000;

/// How long the open CALL may still take when a cut of current waits behind it, in ms.
///
/// One CALL is open at a time (OCPP-J 1.6 §4.1.1, 2.0.1 part 4 §4.1.2: until it was answered or has timed out). How long the time-out
/// is, is left to the sender; here it ends early for a CALL that no safety depends on. The station reads its messages in order, so that it
/// comes to the cut as soon as it has come to itself; the answer that it still owes is known by its id.
pub const CUT_WAIT_MS: u64 = 5_000;

/// How many CALLs of the station may wait for their answers. The standard allows one (OCPP-J 1.6 §4.1.1); answers to transaction messages wait
/// for the disk, and a station that empties its offline queue without waiting must not lose what it sent. Beyond that it gets an error and
/// sends again later.
pub const MAX_OPEN_CALLS: usize = 32;

/// How many CALLs to the station wait in the queue of each priority. The station takes them one at a time, so that 32 are up to a quarter of
/// an hour of time-outs; a queue for each priority, so that scripts cannot keep a cut of current out.
pub const MAX_QUEUED_CALLS: usize = 32;

/// How many frames in a row may be unusable before the connection is closed: such a station is lost until it connects anew.
pub const MAX_FAULTS_IN_A_ROW: u32 = 20;

/// How many ids of CALLs that ran out of time are remembered, to know a late answer from a wrong one.
const MAX_LATE_IDS: usize = 8;

/// The longest text of a fault, in characters: it goes to the log.
const MAX_FAULT_CHARS: usize = 500;

/// The name of an open CALL of the station until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallToken(u64);

/// The caller's own name for a CALL to the station.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey(pub u64);

/// Which of the waiting CALLs to the station goes first. Within one priority they keep their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Cuts of current.
    Urgent,
    /// Raises, starts and stops, what people ask for.
    Normal,
    /// Renewals with time to spare, inventory.
    Background,
}

/// Something that the session has to tell.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionEvent {
    /// The station sent a CALL. It must be answered by [`Session::answer`] or [`Session::refuse`].
    Request {
        /// Its name.
        token: CallToken,
        /// What it says.
        request: StationRequest,
    },
    /// A CALL to the station is done with. Each key given to [`Session::call`] comes back exactly once, here or from [`Session::end`],
    /// unless [`Session::withdraw`] took it back.
    Reply {
        /// Which CALL.
        key: CallKey,
        /// How it went.
        reply: StationReply,
    },
    /// The station sent something unusable, or a part of a message was dropped.
    Fault {
        /// What was wrong, for the log.
        message: String,
    },
}

/// What a session wants to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionOutput {
    /// Text frames to send, in order.
    pub frames: Vec<String>,
    /// What happened, in order.
    pub events: Vec<SessionEvent>,
    /// Close the connection, for this reason.
    pub close: Option<String>,
}

impl SessionOutput {
    fn fault(&mut self, message: &str) {
        self.events.push(SessionEvent::Fault { message: cut(message, MAX_FAULT_CHARS).to_owned() });
    }

    fn reply(&mut self, key: CallKey, reply: StationReply) {
        self.events.push(SessionEvent::Reply { key, reply });
    }
}

/// A CALL of the station that waits for its answer.
#[derive(Debug)]
struct OpenCall {
    id: IdJson,
    action: String,
}

/// The CALL to the station that waits for its answer.
#[derive(Debug)]
struct ActiveCall {
    key: CallKey,
    id: String,
    verdict: Verdict,
    priority: Priority,
    deadline: Mono,
    /// A cut waits: it ends as overtaken.
    hurried: bool,
}

/// The OCPP-J session of one WebSocket connection.
#[derive(Debug)]
pub struct Session {
    version: OcppVersion,
    seed: u64,
    calls_made: u64,
    calls_taken: u64,
    open: BTreeMap<CallToken, OpenCall>,
    active: Option<ActiveCall>,
    queues: BTreeMap<Priority, VecDeque<(CallKey, Outgoing)>>,
    late_ids: VecDeque<String>,
    faults_in_a_row: u32,
    closing: bool,
}

impl Session {
    /// A session on a new connection. `seed` is the prefix of our message ids and must be another one for each connection, so that a late
    /// answer on a new connection is known as such.
    #[must_use]
    pub fn new(version: OcppVersion, seed: u64) -> Self {
        Self {
            version,
            seed,
            calls_made: 0,
            calls_taken: 0,
            open: BTreeMap::new(),
            active: None,
            queues: BTreeMap::new(),
            late_ids: VecDeque::new(),
            faults_in_a_row: 0,
            closing: false,
        }
    }

    /// The OCPP version of the connection.
    #[must_use]
    pub const fn version(&self) -> OcppVersion {
        self.version
    }

    /// How many CALLs to the station wait, the one that is being answered among them.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queues.values().map(VecDeque::len).sum::<usize>() + usize::from(self.active.is_some())
    }

    /// Takes in a text frame of the station. What is unusable becomes a [`SessionEvent::Fault`], and a CALLERROR where there is somebody to
    /// answer. After `close` has been set, frames are ignored.
    pub fn receive(&mut self, text: &str, now: Now, out: &mut SessionOutput) {
        if self.closing {
            return;
        }
        if text.len() > MAX_FRAME_BYTES {
            let message = format!("a frame of {} bytes is longer than the {MAX_FRAME_BYTES} allowed", text.len());
            out.fault(&message);
            self.close(message, out);
            return;
        }
        match frame::parse(text, self.version) {
            Ok(Frame::Call { id, action, payload }) => self.take_call(OpenCall { id, action }, payload, now, out),
            Ok(Frame::Result { id, payload }) => self.take_reply(&id, now.mono, out, |verdict| verdict.judge(payload)),
            Ok(Frame::Error { id, code, description }) => {
                self.take_reply(&id, now.mono, out, |_| StationReply::Error { code, description });
            }
            Err(BadFrame { text, answer }) => {
                if let Some((id, code)) = answer {
                    out.frames.push(frame::write_error(&id, code, &text, self.version));
                }
                self.count_fault(&text, out);
            }
        }
    }

    /// Answers an open CALL of the station. An answer that does not belong to its action is a mistake of ours: the station gets an
    /// `InternalError`, and a fault is told.
    pub fn answer(&mut self, token: CallToken, answer: &StationAnswer, out: &mut SessionOutput) {
        let Some(open) = self.take_open(token, out) else { return };
        let payload = match self.version {
            OcppVersion::V16 => v16::answer(&open.action, answer),
            OcppVersion::V201 => v201::answer(&open.action, answer),
        };
        match payload {
            Ok(payload) => out.frames.push(frame::write_result(&open.id, &payload)),
            Err(problem) => {
                out.frames.push(frame::write_error(&open.id, ErrorCode::InternalError, &problem, self.version));
                out.fault(&problem);
            }
        }
    }

    /// Answers an open CALL of the station with a CALLERROR. The description is cut at 255 characters.
    pub fn refuse(&mut self, token: CallToken, code: ErrorCode, description: &str, out: &mut SessionOutput) {
        if let Some(open) = self.take_open(token, out) {
            out.frames.push(frame::write_error(&open.id, code, description, self.version));
        }
    }

    /// Leaves an open CALL of the station unanswered for good: the station must send it again.
    pub fn forget(&mut self, token: CallToken) {
        self.open.remove(&token);
    }

    /// Sends a CALL to the station, at once or when it is its turn. What the version's schema cannot express, and what finds the queue of its
    /// priority full (code `QueueFull`), is answered at once by a [`StationReply::Error`].
    pub fn call(&mut self, key: CallKey, call: StationCall, priority: Priority, now: Mono, out: &mut SessionOutput) {
        let outgoing = match self.version {
            OcppVersion::V16 => v16::call(call),
            OcppVersion::V201 => v201::call(call),
        };
        let outgoing = match outgoing {
            Ok(outgoing) => outgoing,
            Err(Refusal { code, text }) => {
                let code = code.as_str(self.version).to_owned();
                out.reply(key, StationReply::Error { code, description: text });
                return;
            }
        };
        let queue = self.queues.entry(priority).or_default();
        if queue.len() >= MAX_QUEUED_CALLS {
            let description = format!("{MAX_QUEUED_CALLS} calls of this priority wait for the station already");
            out.reply(key, StationReply::Error { code: "QueueFull".to_owned(), description });
            return;
        }
        queue.push_back((key, outgoing));
        self.hurry(priority, now);
        self.send_next(now, out);
    }

    /// Takes a CALL back that has not left yet: then it is done with, without a reply. `false`: it has left, or is not known.
    pub fn withdraw(&mut self, key: CallKey) -> bool {
        let before = self.waiting();
        for queue in self.queues.values_mut() {
            queue.retain(|(queued, _)| *queued != key);
        }
        self.waiting() < before
    }

    /// Whether a CALL has not left yet.
    #[must_use]
    pub fn is_queued(&self, key: CallKey) -> bool {
        self.queues.values().flatten().any(|(queued, _)| *queued == key)
    }

    /// A cut does not wait long behind something else.
    fn hurry(&mut self, priority: Priority, now: Mono) {
        let behind = self.active.as_mut().filter(|active| active.priority != Priority::Urgent);
        if let Some(active) = behind.filter(|_| priority == Priority::Urgent) {
            let earlier = now.plus_ms(CUT_WAIT_MS);
            active.hurried |= earlier < active.deadline;
            active.deadline = active.deadline.min(earlier);
        }
    }

    /// Ends the CALL to the station that has run out of time, and sends the next one.
    pub fn tick(&mut self, now: Mono, out: &mut SessionOutput) {
        if let Some(active) = self.active.take_if(|active| active.deadline <= now) {
            let reply = if active.hurried { StationReply::Overtaken } else { StationReply::Timeout };
            out.reply(active.key, reply);
            if self.late_ids.len() == MAX_LATE_IDS {
                self.late_ids.pop_front();
            }
            self.late_ids.push_back(active.id);
        }
        self.send_next(now, out);
    }

    /// Ends the session: all CALLs to the station that are open or wait end as [`StationReply::Disconnected`], in the order in which they
    /// would have been sent. Open CALLs of the station are forgotten; it will send them again.
    pub fn end(&mut self) -> Vec<(CallKey, StationReply)> {
        self.closing = true;
        self.open.clear();
        let active = self.active.take().map(|active| active.key);
        let queued = std::mem::take(&mut self.queues).into_values().flatten().map(|(key, _)| key);
        active.into_iter().chain(queued).map(|key| (key, StationReply::Disconnected)).collect()
    }

    fn take_call(&mut self, call: OpenCall, payload: &str, now: Now, out: &mut SessionOutput) {
        let mut notes = Notes::default();
        let request = match serde_json::from_str::<Value>(payload) {
            Ok(value) => match self.version {
                OcppVersion::V16 => v16::request(&call.action, &value, now.utc, &mut notes),
                OcppVersion::V201 => v201::request(&call.action, &value, now.utc, &mut notes),
            },
            Err(error) => Err(Refusal::new(ErrorCode::FormatViolation, format!("the payload cannot be read: {error}"))),
        };
        let request = if self.open.len() >= MAX_OPEN_CALLS {
            let text = format!("{MAX_OPEN_CALLS} calls wait for an answer already, send this one again later");
            Err(Refusal::new(ErrorCode::GenericError, text))
        } else {
            request
        };
        match request {
            Ok(request) => {
                self.faults_in_a_row = 0;
                if let Some(dropped) = notes.summary() {
                    out.fault(&format!("{}: {dropped}", call.action));
                }
                self.calls_taken += 1;
                let token = CallToken(self.calls_taken);
                self.open.insert(token, call);
                out.events.push(SessionEvent::Request { token, request });
            }
            Err(Refusal { code, text }) => {
                out.frames.push(frame::write_error(&call.id, code, &text, self.version));
                let message = format!("{}: {text}", cut(&call.action, 50));
                if matches!(code, ErrorCode::NotImplemented | ErrorCode::NotSupported) {
                    // A vendor's own action is well-formed; it says nothing about the connection.
                    out.fault(&message);
                } else {
                    self.count_fault(&message, out);
                }
            }
        }
    }

    fn take_reply(
        &mut self,
        id: &str,
        now: Mono,
        out: &mut SessionOutput,
        judge: impl FnOnce(Verdict) -> StationReply,
    ) {
        if let Some(active) = self.active.take_if(|active| active.id == id) {
            self.faults_in_a_row = 0;
            out.reply(active.key, judge(active.verdict));
            self.send_next(now, out);
        } else if let Some(late) = self.late_ids.iter().position(|late| late == id) {
            self.late_ids.remove(late);
            out.fault(&format!("the answer to {id} came after its time-out and is ignored"));
        } else {
            self.count_fault(&format!("the answer to {} was not asked for", cut(id, 50)), out);
        }
    }

    fn take_open(&mut self, token: CallToken, out: &mut SessionOutput) -> Option<OpenCall> {
        let open = self.open.remove(&token);
        if open.is_none() && !self.closing {
            out.fault(&format!("the call {} of the station is not open", token.0));
        }
        open
    }

    fn send_next(&mut self, now: Mono, out: &mut SessionOutput) {
        if self.active.is_some() || self.closing {
            return;
        }
        let next = self.queues.iter_mut().find_map(|(priority, queue)| Some((*priority, queue.pop_front()?)));
        let Some((priority, (key, outgoing))) = next else { return };
        self.calls_made += 1;
        // Two numbers in hexadecimal: at most 33 of the 36 characters allowed.
        let id = format!("{:x}-{:x}", self.seed, self.calls_made);
        out.frames.push(frame::write_call(&id, &outgoing.action, &outgoing.payload));
        let deadline = now.plus_ms(CALL_TIMEOUT_MS);
        self.active = Some(ActiveCall { key, id, verdict: outgoing.verdict, priority, deadline, hurried: false });
    }

    fn count_fault(&mut self, message: &str, out: &mut SessionOutput) {
        out.fault(message);
        self.faults_in_a_row += 1;
        if self.faults_in_a_row > MAX_FAULTS_IN_A_ROW {
            self.close(format!("more than {MAX_FAULTS_IN_A_ROW} unusable messages in a row"), out);
        }
    }

    fn close(&mut self, reason: String, out: &mut SessionOutput) {
        self.closing = true;
        out.close = Some(reason);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::model::exchange::AuthorizationStatus;
    use crate::engine::model::ids::TransactionId;
    use crate::engine::time::Utc;

    const NOW: Now = Now { mono: Mono::from_ms(1_000), utc: Utc::from_unix_ms(1_772_366_400_000), utc_trusted: true };

    fn session(version: OcppVersion) -> Session {
        Session::new(version, 0xab)
    }

    fn receive(session: &mut Session, text: &str) -> SessionOutput {
        let mut out = SessionOutput::default();
        session.receive(text, NOW, &mut out);
        out
    }

    fn call(session: &mut Session, key: u64, priority: Priority) -> SessionOutput {
        let mut out = SessionOutput::default();
        let call = StationCall::Raw { action: format!("A{key}"), payload: "{}".to_owned() };
        session.call(CallKey(key), call, priority, NOW.mono, &mut out);
        out
    }

    fn tick(session: &mut Session, ms: u64) -> SessionOutput {
        let mut out = SessionOutput::default();
        session.tick(Mono::from_ms(ms), &mut out);
        out
    }

    fn reply(key: u64, reply: StationReply) -> SessionEvent {
        SessionEvent::Reply { key: CallKey(key), reply }
    }

    fn accepted(payload: &str) -> StationReply {
        StationReply::Accepted { payload: payload.to_owned() }
    }

    fn only_token(out: &SessionOutput) -> CallToken {
        let [SessionEvent::Request { token, .. }] = out.events.as_slice() else { panic!("{out:?}") };
        *token
    }

    fn faults(out: &SessionOutput) -> usize {
        out.events.iter().filter(|event| matches!(event, SessionEvent::Fault { .. })).count()
    }

    #[test]
    fn one_call_is_open_at_a_time_and_the_urgent_go_first() {
        // OCPP-J 1.6 §4.1.1: no new CALL before the answer to the last or its time-out.
        let mut session = session(OcppVersion::V16);
        assert_eq!(call(&mut session, 1, Priority::Background).frames, [r#"[2,"ab-1","A1",{}]"#]);
        for (key, priority) in
            [(2, Priority::Background), (3, Priority::Normal), (4, Priority::Urgent), (5, Priority::Urgent)]
        {
            assert_eq!(call(&mut session, key, priority), SessionOutput::default());
        }
        let mut sent = Vec::new();
        for number in 1..=5 {
            sent.extend(receive(&mut session, &format!(r#"[3,"ab-{number}",{{}}]"#)).frames);
        }
        let order =
            [r#"[2,"ab-2","A4",{}]"#, r#"[2,"ab-3","A5",{}]"#, r#"[2,"ab-4","A3",{}]"#, r#"[2,"ab-5","A2",{}]"#];
        assert_eq!(sent, order);
        assert_eq!(session.waiting(), 0);
    }

    #[test]
    fn a_call_without_answer_times_out_and_a_late_answer_is_ignored() {
        let mut session = session(OcppVersion::V16);
        call(&mut session, 1, Priority::Normal);
        call(&mut session, 2, Priority::Normal);
        assert_eq!(tick(&mut session, 1_000 + CALL_TIMEOUT_MS - 1), SessionOutput::default());
        let out = tick(&mut session, 1_000 + CALL_TIMEOUT_MS);
        assert_eq!(out.events, [reply(1, StationReply::Timeout)]);
        assert_eq!(out.frames, [r#"[2,"ab-2","A2",{}]"#]);
        let late = receive(&mut session, r#"[3,"ab-1",{"status":"Accepted"}]"#);
        assert_eq!((late.frames.len(), faults(&late), late.events.len()), (0, 1, 1));
        let out = receive(&mut session, r#"[3, "ab-2", {"status": "Accepted"} ]"#);
        assert_eq!(out.events, [reply(2, accepted(r#"{"status": "Accepted"}"#))]);
    }

    #[test]
    fn a_cut_waits_five_seconds_behind_a_hanging_call_and_the_late_answer_is_known() {
        let mut session = session(OcppVersion::V16);
        call(&mut session, 1, Priority::Normal);
        let mut out = SessionOutput::default();
        let cut = StationCall::Raw { action: "Cut".to_owned(), payload: "{}".to_owned() };
        session.call(CallKey(2), cut, Priority::Urgent, Mono::from_ms(2_000), &mut out);
        assert_eq!(tick(&mut session, 2_000 + CUT_WAIT_MS - 1), SessionOutput::default());
        let out = tick(&mut session, 2_000 + CUT_WAIT_MS);
        assert_eq!(out.events, [reply(1, StationReply::Overtaken)]);
        assert_eq!(out.frames, [r#"[2,"ab-2","Cut",{}]"#]);
        let late = receive(&mut session, r#"[3,"ab-1",{}]"#);
        assert!(
            matches!(late.events.as_slice(), [SessionEvent::Fault { message }] if message.contains("after its time-out"))
        );
        assert_eq!(receive(&mut session, r#"[3,"ab-2",{}]"#).events, [reply(2, accepted("{}"))]);
    }

    #[test]
    fn a_cut_behind_a_cut_waits_for_its_answer() {
        let mut session = session(OcppVersion::V16);
        call(&mut session, 1, Priority::Urgent);
        call(&mut session, 2, Priority::Urgent);
        assert_eq!(tick(&mut session, 1_000 + CALL_TIMEOUT_MS - 1), SessionOutput::default());
        assert_eq!(tick(&mut session, 1_000 + CALL_TIMEOUT_MS).events, [reply(1, StationReply::Timeout)]);
    }

    #[test]
    fn a_call_that_has_not_left_can_be_taken_back() {
        let mut session = session(OcppVersion::V16);
        call(&mut session, 1, Priority::Normal);
        call(&mut session, 2, Priority::Normal);
        call(&mut session, 3, Priority::Normal);
        assert!(!session.withdraw(CallKey(1)), "it has left");
        assert!(session.is_queued(CallKey(2)) && session.withdraw(CallKey(2)) && !session.withdraw(CallKey(2)));
        let out = receive(&mut session, r#"[3,"ab-1",{}]"#);
        assert_eq!((out.frames.as_slice(), session.waiting()), ([r#"[2,"ab-2","A3",{}]"#.to_owned()].as_slice(), 1));
    }

    #[test]
    fn a_full_queue_says_so_at_once_and_leaves_room_for_the_urgent() {
        let mut session = session(OcppVersion::V16);
        let most = u64::try_from(MAX_QUEUED_CALLS).unwrap();
        for key in 0..=most {
            assert_eq!(call(&mut session, key, Priority::Normal).events, []);
        }
        let out = call(&mut session, 999, Priority::Normal);
        let [SessionEvent::Reply { key: CallKey(999), reply: StationReply::Error { code, .. } }] =
            out.events.as_slice()
        else {
            panic!("{out:?}");
        };
        assert_eq!(code, "QueueFull");
        assert_eq!(call(&mut session, 1_000, Priority::Urgent), SessionOutput::default());
        let ended = session.end();
        assert_eq!(ended.len(), MAX_QUEUED_CALLS + 2);
        assert_eq!(ended[0], (CallKey(0), StationReply::Disconnected));
        assert_eq!(ended[1].0, CallKey(1_000));
        assert_eq!(session.end(), []);
    }

    #[test]
    fn answers_become_replies() {
        let cases = [
            (r#"[3,"ab-1",{"status":"Rejected"}]"#, "Refused { status: \"Rejected\""),
            (r#"[3,"ab-1",{"status":"accepted"}]"#, "Accepted"),
            (r#"[3,"ab-1",{}]"#, "Error { code: \"FormationViolation\""),
            (r#"[3,"ab-1",[]]"#, "Error { code: \"FormationViolation\""),
            (r#"[3,"ab-1"]"#, "Error { code: \"FormationViolation\""),
            (r#"[4,"ab-1","NotSupported","no","{}"]"#, "Error { code: \"NotSupported\", description: \"no\" }"),
            (r#"[4,"ab-1","InternalError"]"#, "Error { code: \"InternalError\", description: \"\" }"),
            (r#"[4,"ab-1"]"#, "Error { code: \"GenericError\""),
        ];
        for (frame, expected) in cases {
            let mut session = session(OcppVersion::V16);
            let mut out = SessionOutput::default();
            session.call(CallKey(1), StationCall::Reset { hard: true }, Priority::Normal, NOW.mono, &mut out);
            let out = receive(&mut session, frame);
            let Some(SessionEvent::Reply { reply, .. }) = out.events.last() else { panic!("{frame}: {out:?}") };
            assert!(format!("{reply:?}").starts_with(expected), "{frame}: {reply:?}");
        }
    }

    #[test]
    fn the_ids_of_a_station_are_no_key() {
        // A station numbers its CALLs 1, 2, 3 from every boot.
        let mut session = session(OcppVersion::V16);
        let frame = r#"[2,"1","Heartbeat",{}]"#;
        let first = only_token(&receive(&mut session, frame));
        let second = only_token(&receive(&mut session, frame));
        assert_ne!(first, second);
        let mut out = SessionOutput::default();
        session.answer(second, &StationAnswer::Heartbeat { now: NOW.utc }, &mut out);
        session.answer(first, &StationAnswer::Heartbeat { now: NOW.utc }, &mut out);
        assert_eq!(out.frames, [r#"[3,"1",{"currentTime":"2026-03-01T12:00:00.000Z"}]"#; 2]);
        session.answer(first, &StationAnswer::Heartbeat { now: NOW.utc }, &mut out);
        assert_eq!((out.frames.len(), faults(&out)), (2, 1));
    }

    #[test]
    fn calls_of_the_station_are_bounded() {
        let mut session = session(OcppVersion::V16);
        for _ in 0..MAX_OPEN_CALLS {
            assert_eq!(receive(&mut session, r#"[2,"1","Heartbeat",{}]"#).frames.len(), 0);
        }
        let out = receive(&mut session, r#"[2,"33","Heartbeat",{}]"#);
        assert!(out.frames[0].starts_with(r#"[4,"33","GenericError","32 calls wait"#), "{out:?}");
    }

    #[test]
    fn a_wrong_answer_of_ours_is_an_internal_error() {
        let mut session = session(OcppVersion::V201);
        let token = only_token(&receive(&mut session, r#"[2,"1","Heartbeat",{}]"#));
        let mut out = SessionOutput::default();
        session.answer(token, &StationAnswer::Authorize { status: AuthorizationStatus::Accepted }, &mut out);
        assert!(out.frames[0].starts_with(r#"[4,"1","InternalError","#), "{out:?}");
        assert_eq!(faults(&out), 1);
    }

    #[test]
    fn a_call_that_the_schema_does_not_know_is_answered_at_once() {
        let raw =
            |action: &str, payload: &str| StationCall::Raw { action: action.to_owned(), payload: payload.to_owned() };
        let stop = StationCall::Stop { transaction: TransactionId::new("abc") };
        let trigger = StationCall::Trigger { message: "Coffee".to_owned(), evse: None };
        let report = StationCall::GetBaseReport { request_id: 1, report: "FullInventory".to_owned() };
        let cases = [
            (stop, "PropertyConstraintViolation"),
            (trigger, "PropertyConstraintViolation"),
            (report, "NotSupported"),
            (raw("Reset", "{"), "FormationViolation"),
            (raw("Reset", "[]"), "FormationViolation"),
            (raw("", "{}"), "PropertyConstraintViolation"),
        ];
        for (call, expected) in cases {
            let mut session = session(OcppVersion::V16);
            let mut out = SessionOutput::default();
            session.call(CallKey(7), call.clone(), Priority::Normal, NOW.mono, &mut out);
            let [SessionEvent::Reply { key: CallKey(7), reply: StationReply::Error { code, .. } }] =
                out.events.as_slice()
            else {
                panic!("{call:?}: {out:?}");
            };
            assert_eq!((code.as_str(), out.frames.len()), (expected, 0), "{call:?}");
        }
    }

    /// What a malformed frame gets: in 1.6, and in 2.0.1. Empty: nothing.
    const MALFORMED: &[(&str, &str, &str)] = &[
        ("", "", r#"[4,"-1","RpcFrameworkError","#),
        ("hello", "", r#"[4,"-1","RpcFrameworkError","#),
        ("{}", "", r#"[4,"-1","RpcFrameworkError","#),
        ("[]", "", r#"[4,"-1","RpcFrameworkError","#),
        ("[2", "", r#"[4,"-1","RpcFrameworkError","#),
        ("[3,\"1\"", "", ""),
        ("[2]", "", r#"[4,"-1","RpcFrameworkError","#),
        (r#"[2,null,"Heartbeat",{}]"#, "", r#"[4,"-1","RpcFrameworkError","#),
        (r#"[2,"","Heartbeat",{}]"#, "", r#"[4,"-1","RpcFrameworkError","#),
        (r#"[2,{"id":1},"Heartbeat",{}]"#, "", r#"[4,"-1","RpcFrameworkError","#),
        (r#"[5,"1","Heartbeat",{}]"#, "", r#"[4,"1","MessageTypeNotSupported","#),
        (r#"["CALL","1"]"#, "", r#"[4,"1","MessageTypeNotSupported","#),
        (
            r#"[2,"1234567890123456789012345678901234567","Heartbeat",{}]"#,
            r#"[4,"1234567890123456789012345678901234567","FormationViolation","#,
            r#"[4,"1234567890123456789012345678901234567","RpcFrameworkError","#,
        ),
        (r#"[2,"1"]"#, r#"[4,"1","FormationViolation","#, r#"[4,"1","FormatViolation","#),
        (r#"[2,"1",7,{}]"#, r#"[4,"1","FormationViolation","#, r#"[4,"1","FormatViolation","#),
        (r#"[2,"1","Heartbeat",[1]]"#, r#"[4,"1","FormationViolation","#, r#"[4,"1","FormatViolation","#),
        (r#"[2,"1","Heartbeat","x"]"#, r#"[4,"1","FormationViolation","#, r#"[4,"1","FormatViolation","#),
        (r#"[2,"1","Coffee",{}]"#, r#"[4,"1","NotImplemented","#, r#"[4,"1","NotImplemented","#),
        (r#"[2,"1","Reset",{}]"#, r#"[4,"1","NotSupported","#, r#"[4,"1","NotSupported","#),
        (
            r#"[2,"1","Authorize",{}]"#,
            r#"[4,"1","OccurenceConstraintViolation","#,
            r#"[4,"1","OccurrenceConstraintViolation","#,
        ),
        (
            r#"[2,"1","Authorize",{"idTag":[],"idToken":7}]"#,
            r#"[4,"1","TypeConstraintViolation","#,
            r#"[4,"1","TypeConstraintViolation","#,
        ),
        (
            r#"[2,"1","MeterValues",{"connectorId":-1,"evseId":-1}]"#,
            r#"[4,"1","PropertyConstraintViolation","#,
            r#"[4,"1","PropertyConstraintViolation","#,
        ),
        (r#"[3,"nobody",{}]"#, "", ""),
        ("[3]", "", ""),
        (r#"[4,null,"GenericError","",{}]"#, "", ""),
    ];

    #[test]
    fn malformed_frames_are_faults_and_get_the_right_error() {
        for (text, in_v16, in_v201) in MALFORMED {
            for (version, expected) in [(OcppVersion::V16, in_v16), (OcppVersion::V201, in_v201)] {
                let out = receive(&mut session(version), text);
                assert_eq!((faults(&out), out.events.len()), (1, 1), "{text}: {out:?}");
                assert_eq!(out.close, None, "{text}");
                match out.frames.as_slice() {
                    [] => assert_eq!(*expected, "", "{text}: no answer"),
                    [frame] => assert!(!expected.is_empty() && frame.starts_with(expected), "{text}: {frame}"),
                    more => panic!("{text}: {more:?}"),
                }
            }
        }
    }

    #[test]
    fn only_many_faults_in_a_row_close_the_connection() {
        let mut session = session(OcppVersion::V16);
        for _ in 0..MAX_FAULTS_IN_A_ROW {
            assert_eq!(receive(&mut session, "junk").close, None);
        }
        let token = only_token(&receive(&mut session, r#"[2,"1","Heartbeat",{}]"#));
        session.refuse(token, ErrorCode::SecurityError, "no", &mut SessionOutput::default());
        for _ in 0..MAX_FAULTS_IN_A_ROW {
            assert_eq!(receive(&mut session, "junk").close, None);
            assert_eq!(receive(&mut session, r#"[2,"1","Vendor.Own",{}]"#).close, None);
        }
        let out = receive(&mut session, "junk");
        assert_eq!(out.close.as_deref(), Some("more than 20 unusable messages in a row"));
        assert_eq!(receive(&mut session, r#"[2,"1","Heartbeat",{}]"#), SessionOutput::default());
    }

    #[test]
    fn an_oversized_frame_closes_the_connection() {
        let mut session = session(OcppVersion::V16);
        let out = receive(&mut session, &" ".repeat(MAX_FRAME_BYTES + 1));
        assert_eq!(faults(&out), 1);
        assert!(out.close.is_some());
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_crash() {
        let deep = "[".repeat(100_000);
        let closed = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
        for version in [OcppVersion::V16, OcppVersion::V201] {
            assert_eq!(faults(&receive(&mut session(version), &deep)), 1);
            let out = receive(&mut session(version), &format!(r#"[2,"1","Heartbeat",{{"a":{closed}}}]"#));
            assert!(out.frames[0].starts_with(r#"[4,"1","Form"#), "{}", out.frames[0]);
        }
    }

    #[test]
    fn our_ids_fit_the_schema() {
        let mut session = Session::new(OcppVersion::V16, u64::MAX);
        session.calls_made = u64::MAX - 1;
        let out = call(&mut session, 1, Priority::Normal);
        assert_eq!(out.frames, [r#"[2,"ffffffffffffffff-ffffffffffffffff","A1",{}]"#]);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-zA-Z0-9 .:-]{0,24}".prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        let names = prop_oneof![
            Just("connectorId"),
            Just("evseId"),
            Just("idTag"),
            Just("idToken"),
            Just("timestamp"),
            Just("meterStart"),
            Just("meterStop"),
            Just("transactionId"),
            Just("transactionInfo"),
            Just("meterValue"),
            Just("transactionData"),
            Just("sampledValue"),
            Just("value"),
            Just("measurand"),
            Just("unit"),
            Just("unitOfMeasure"),
            Just("multiplier"),
            Just("phase"),
            Just("eventType"),
            Just("seqNo"),
            Just("evse"),
            Just("id"),
            Just("status"),
            Just("connectorStatus"),
            Just("vendorId"),
        ];
        leaf.prop_recursive(5, 64, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn action() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("BootNotification".to_owned()),
            Just("Heartbeat".to_owned()),
            Just("StatusNotification".to_owned()),
            Just("Authorize".to_owned()),
            Just("StartTransaction".to_owned()),
            Just("StopTransaction".to_owned()),
            Just("TransactionEvent".to_owned()),
            Just("MeterValues".to_owned()),
            Just("DataTransfer".to_owned()),
            Just("NotifyEVChargingNeeds".to_owned()),
            "\\PC{1,12}",
        ]
    }

    /// The answer that belongs to a request.
    fn fitting(request: &StationRequest) -> StationAnswer {
        let (now, status) = (NOW.utc, AuthorizationStatus::Accepted);
        match request {
            StationRequest::Boot { .. } => StationAnswer::Boot { accepted: true, now, interval_s: 300 },
            StationRequest::Heartbeat => StationAnswer::Heartbeat { now },
            StationRequest::Authorize { .. } => StationAnswer::Authorize { status },
            StationRequest::StartTransaction { .. } => StationAnswer::StartTransaction { transaction: 1, status },
            StationRequest::StopTransaction { token, .. } => {
                StationAnswer::Transaction { status: token.as_ref().map(|_| status) }
            }
            StationRequest::TransactionEvent(event) => {
                StationAnswer::Transaction { status: event.token.as_ref().map(|_| status) }
            }
            StationRequest::ChargingNeeds { .. } => StationAnswer::ChargingNeeds { used: true },
            StationRequest::DataTransfer { .. } => StationAnswer::UnknownVendor,
            StationRequest::Status { .. } | StationRequest::MeterValues { .. } | StationRequest::Notify { .. } => {
                StationAnswer::Taken
            }
        }
    }

    fn version() -> impl Strategy<Value = OcppVersion> {
        prop_oneof![Just(OcppVersion::V16), Just(OcppVersion::V201)]
    }

    proptest! {
        #[test]
        fn no_text_panics(version in version(), text in prop_oneof!["\\PC*", "[\\[\\]{}\",:0-9a-zA-Z ]{0,80}"]) {
            receive(&mut session(version), &text);
        }

        #[test]
        fn no_array_panics(version in version(), parts in prop::collection::vec(json(), 0..6)) {
            let out = receive(&mut session(version), &Value::from(parts).to_string());
            prop_assert!(out.frames.len() <= 1);
        }

        #[test]
        fn every_call_gets_exactly_one_frame(
            version in version(), id in "[a-zA-Z0-9-]{1,36}", action in action(), payload in json(), refuse in any::<bool>(),
        ) {
            let mut session = session(version);
            let call = Value::from(vec![Value::from(2), Value::from(id.as_str()), Value::from(action), payload]);
            let mut out = receive(&mut session, &call.to_string());
            for event in std::mem::take(&mut out.events) {
                if let SessionEvent::Request { token, request } = event {
                    if refuse {
                        session.refuse(token, ErrorCode::InternalError, "disk", &mut out);
                    } else {
                        session.answer(token, &fitting(&request), &mut out);
                        prop_assert!(out.frames[0].starts_with("[3,"), "{:?}", out.frames);
                    }
                }
            }
            prop_assert_eq!(out.frames.len(), 1);
            let frame: Value = serde_json::from_str(&out.frames[0]).unwrap();
            prop_assert_eq!(frame[1].as_str(), Some(id.as_str()));
        }
    }
}

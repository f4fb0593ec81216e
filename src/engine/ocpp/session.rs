//! One WebSocket connection of a station: which CALLs are open in which direction, and what waits.

use std::collections::{BTreeMap, VecDeque};

use super::frame::{self, BadFrame, ErrorCode, Frame, IdJson, MAX_FRAME_BYTES, cut};
use super::lenient::{Notes, Refusal};
use super::outgoing::{Outgoing, Verdict};
use super::tree::Json;
use super::{v16, v21, v201};
use crate::engine::model::exchange::{OcppVersion, StationAnswer, StationCall, StationReply, StationRequest};
use crate::engine::time::{Mono, Now, Utc};

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

/// How many CALLs that ran out of time are remembered, to know a late answer from a wrong one.
const MAX_LATE_CALLS: usize = 32;

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
    /// A CALL to the station that has run out of time was answered after all. Its key has come back before.
    Late {
        /// Which CALL.
        key: CallKey,
        /// What the answer says.
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
    late: VecDeque<(String, CallKey, Verdict)>,
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
            late: VecDeque::new(),
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
        if let Some((id, action, payload)) = frame::plain_call(text)
            && let Ok(payload) = serde_json::from_str(payload)
        {
            return self.take_call(OpenCall { id, action: action.to_owned() }, Ok(payload), now, out);
        }
        match frame::parse(text, self.version) {
            Ok(Frame::Call { id, action, payload }) => {
                self.take_call(OpenCall { id, action }, serde_json::from_str(payload), now, out);
            }
            Ok(Frame::Result { id, payload }) => self.take_reply(&id, now.mono, out, |verdict| verdict.judge(payload)),
            Ok(Frame::Error { id, code, description }) => {
                self.take_reply(&id, now.mono, out, |_| StationReply::Error { code, description });
            }
            // Nobody waits for an answer, and nothing that decides anything comes this way.
            Ok(Frame::Send { action, payload }) if v21::is_sent(&action) => {
                self.faults_in_a_row = 0;
                if serde_json::from_str::<Json<'_>>(payload).is_err() {
                    out.fault(&format!("{action}: the payload cannot be read"));
                }
            }
            Ok(Frame::Send { action, .. }) => {
                out.fault(&format!("{} came as a SEND, which it is not for: it is ignored", cut(&action, 50)));
            }
            Ok(Frame::ResultError { id, code, description }) => {
                let id = cut(&id, 50);
                out.fault(&format!("the station could not use the answer to its call {id}: {code} {description}"));
            }
            Err(BadFrame { text, answer, of_later_version }) => {
                if let Some((id, code)) = answer {
                    out.frames.push(frame::write_error(&id, code, &text, self.version));
                }
                if of_later_version {
                    out.fault(&text);
                } else {
                    self.count_fault(&text, out);
                }
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
            OcppVersion::V21 => v21::answer(&open.action, answer),
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
            OcppVersion::V21 => v21::call(call),
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
            if self.late.len() == MAX_LATE_CALLS {
                self.late.pop_front();
            }
            self.late.push_back((active.id, active.key, active.verdict));
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

    fn take_call(
        &mut self,
        call: OpenCall,
        payload: Result<Json<'_>, serde_json::Error>,
        now: Now,
        out: &mut SessionOutput,
    ) {
        let mut notes = Notes::default();
        let request = match payload {
            Ok(value) => self.read(&call.action, &value, now.utc, &mut notes),
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

    fn read(&self, action: &str, payload: &Json<'_>, now: Utc, notes: &mut Notes) -> Result<StationRequest, Refusal> {
        match self.version {
            OcppVersion::V16 => v16::request(action, payload, now, notes),
            OcppVersion::V201 => v201::request(action, payload, now, notes),
            OcppVersion::V21 => v21::request(action, payload, now, notes),
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
        } else if let Some(late) = self.late.iter().position(|(late, ..)| late == id)
            && let Some((_, key, verdict)) = self.late.remove(late)
        {
            out.fault(&format!("the answer to {id} came after its time-out"));
            out.events.push(SessionEvent::Late { key, reply: judge(verdict) });
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
#[path = "session_tests.rs"]
mod tests;

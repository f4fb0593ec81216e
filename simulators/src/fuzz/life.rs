//! One life of a site: message after message, and what must hold after each.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;
use siteward::engine::cloud::intake::read_command;
use siteward::engine::model::record::RecordBody;
use siteward::engine::site::io::Publication;

use super::bench::{Bench, Heard};
use super::digest::Digest;
use super::{Ended, Progress, corpus, mutate};
use crate::rng::Dice;

/// Commands that are known to be remembered by their ids, whatever else happens.
const REMEMBERED: usize = 256;
/// Messages that may be sent again as they were.
const RECENT: usize = 100;
/// Everything is answered after so many ticks: a call to a station may take 30 s, and others wait for it.
const EPILOGUE_TICKS: u64 = 1_500;

/// What a refused command may change besides what its own record changes in the ledger, which is held against the fold: counters, and what
/// the cloud is told.
const OWN_TRACES: [&str; 9] = [
    "ledger",
    "durable",
    "snapshot_at",
    "wishes_stale",
    "last_call",
    "held_answers",
    "cloud.state_changed",
    "cloud.outbox",
    "cloud.answers",
];
/// The same for one that leaves no record: that it was there, and the numbers of calls.
const NO_RECORD_TRACES: [&str; 2] = ["cloud.answers", "last_call"];

/// A message that was not answered yet.
#[derive(Debug)]
struct Open {
    id: Option<String>,
    kind: String,
    /// It is no command.
    misread: bool,
}

/// A life.
struct Life<'a> {
    bench: Bench,
    dice: Dice,
    progress: &'a mut Progress,
    application: bool,
    open: BTreeMap<u64, Open>,
    /// Ids of the last commands that were carried out or refused, with their answers since the last start.
    done: VecDeque<(String, Option<String>)>,
    recent: VecDeque<Vec<u8>>,
    digest: Option<Digest>,
}

/// Lives through so many messages.
pub(super) fn live(seed: u64, life: u64, cases: u64, progress: &mut Progress) -> Result<(), Ended> {
    let application = life % 2 == 1;
    let mut life = Life {
        bench: Bench::new(application, seed.wrapping_add(life)).map_err(Ended::NoSite)?,
        dice: Dice::named(seed, &format!("life {life}")),
        progress,
        application,
        open: BTreeMap::new(),
        done: VecDeque::new(),
        recent: VecDeque::new(),
        digest: None,
    };
    for case in 0..cases {
        life.progress.case = case;
        life.case(case)?;
        if life.dice.chance(250_000) {
            let ticks = life.dice.between(1, 4);
            life.pass(ticks)?;
        }
        if life.dice.chance(1_000) {
            life.restart()?;
        }
    }
    life.end()
}

impl Life<'_> {
    fn broken(&self, what: &str) -> Ended {
        Ended::Broken(what.to_owned())
    }

    fn case(&mut self, case: u64) -> Result<(), Ended> {
        let payload = self.payload(case);
        self.progress.payload.clone_from(&payload);
        self.progress.report.commands += 1;
        let parsed = serde_json::from_slice::<Value>(&payload).ok();
        let text = |key: &str| parsed.as_ref()?.get(key)?.as_str().map(str::to_owned);
        let (id, kind) = (text("id"), text("type").unwrap_or_default());
        let waits = id.is_some() && self.open.values().any(|open| open.id == id);
        let known = id.as_ref().and_then(|id| self.done.iter().rev().find(|(done, _)| done == id)).cloned();
        let before = match self.digest.take() {
            Some(digest) => digest,
            None => Digest::of(&self.bench.controller),
        };
        let heard = self.bench.message(&payload, case.to_string().as_bytes(), self.dice.chance(100_000));
        let after = Digest::of(&self.bench.controller);
        self.keep(payload);
        if waits && heard.answers.is_empty() {
            self.progress.report.silent += 1;
        } else {
            self.open.insert(case, Open { id, kind, misread: self.is_misread() });
        }
        self.remember(&heard)?;
        self.judge(case, &heard, (&before, &after), known)?;
        self.digest = Some(after);
        self.look()
    }

    /// What is sent.
    fn payload(&mut self, case: u64) -> Vec<u8> {
        let dice = &mut self.dice;
        let way = dice.below(100);
        if way < 4
            && let Some(again) = dice.pick(self.recent.make_contiguous())
        {
            return again.clone();
        }
        if way < 6 {
            return mutate::rubbish(dice);
        }
        let mut command = corpus::command(&format!("c-{case}"), &self.bench.facts(), dice);
        if (50..85).contains(&way) {
            for _ in 0..dice.between(1, 3) {
                mutate::structure(&mut command, dice);
            }
        }
        let mut payload = mutate::written(&command, dice);
        if way >= 80 {
            let other = dice.pick(self.recent.make_contiguous()).cloned().unwrap_or_default();
            mutate::bytes(&mut payload, &other, dice);
        }
        payload
    }

    fn keep(&mut self, payload: Vec<u8>) {
        self.recent.push_back(payload);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    /// What a message may lead to at once.
    fn judge(
        &mut self,
        case: u64,
        heard: &Heard,
        (before, after): (&Digest, &Digest),
        known: Option<(String, Option<String>)>,
    ) -> Result<(), Ended> {
        let mut status = None;
        for (correlation, answer) in &heard.answers {
            let said = self.answered(correlation, answer)?;
            if correlation == case.to_string().as_bytes() {
                status = Some((said, answer));
            }
        }
        if let Some((id, answer)) = known {
            return self.judge_repeated(&id, (answer, status.map(|(_, answer)| answer)), heard);
        }
        let Some((status, answer)) = status else { return Ok(()) };
        // One that failed was tried, and the guard may have kept it back, unless there was nobody to try it with.
        let is_tried = status == "failed" && !answer.payload.contains("is not connected");
        if status == "accepted" || is_tried {
            return Ok(());
        }
        let own = |body: &RecordBody| matches!(body, RecordBody::CommandExecuted { status: recorded, .. } if *recorded == status);
        if heard.records.len() > 1 || heard.records.iter().any(|record| !own(&record.body)) {
            return Err(self.broken(&format!("a command that was {status} has left {:?}", heard.records)));
        }
        // The record is an event, and a broker that takes it moves the cursor.
        let may_move = !self.application && !heard.records.is_empty();
        if let Some(deed) = heard.deeds.iter().find(|deed| !(may_move && **deed == "a move of the cursor")) {
            return Err(self.broken(&format!("a command that was {status} has led to {deed}")));
        }
        let allowed: &[&str] = if heard.records.is_empty() { &NO_RECORD_TRACES } else { &OWN_TRACES };
        let changed = after.changed(before, allowed);
        if !changed.is_empty() {
            return Err(self.broken(&format!("a command that was {status} has changed {}", changed.join(", "))));
        }
        Ok(())
    }

    /// A command with an id that was answered before gets the same answer and does nothing.
    fn judge_repeated(
        &mut self,
        id: &str,
        (before, now): (Option<String>, Option<&Publication>),
        heard: &Heard,
    ) -> Result<(), Ended> {
        self.progress.report.repeated += 1;
        if !heard.records.is_empty() || !heard.deeds.is_empty() {
            return Err(
                self.broken(&format!("command {id} was carried out twice: {:?} {:?}", heard.records, heard.deeds))
            );
        }
        let Some(now) = now else {
            return Err(self.broken(&format!("command {id} came again after its answer and was not answered")));
        };
        // A repetition that is not understood is told so; what it was to the earlier one does not count.
        if before.is_some_and(|before| before != now.payload) && !self.is_misread() {
            return Err(self.broken(&format!("command {id} came again and was answered otherwise: {}", now.payload)));
        }
        Ok(())
    }

    /// Whether the last message is no command, although it has an id.
    fn is_misread(&self) -> bool {
        read_command(&self.progress.payload).is_err()
    }

    /// Takes an answer in. Its status.
    fn answered(&mut self, correlation: &[u8], answer: &Publication) -> Result<String, Ended> {
        let case = String::from_utf8_lossy(correlation).parse::<u64>().ok();
        let Some(open) = case.and_then(|case| self.open.remove(&case)) else {
            return Err(self.broken(&format!("an answer too many: {}", answer.payload)));
        };
        let said: Value = serde_json::from_str(&answer.payload).map_err(|_| self.broken("an answer is not JSON"))?;
        let status = said["status"].as_str().unwrap_or_default().to_owned();
        if !["accepted", "rejected", "failed", "expired"].contains(&status.as_str()) {
            return Err(self.broken(&format!("an answer without a status: {}", answer.payload)));
        }
        if (status == "accepted") != said["error"].is_null()
            || said["id"].as_str().is_some_and(|id| open.id.as_deref() != Some(id))
        {
            return Err(self.broken(&format!("an answer that does not fit: {}", answer.payload)));
        }
        self.note(&open, &status, &answer.payload);
        Ok(status)
    }

    fn note(&mut self, open: &Open, status: &str, payload: &str) {
        if let Some(entry) = open.id.as_ref().and_then(|id| self.done.iter_mut().rev().find(|(done, _)| done == id)) {
            entry.1.get_or_insert_with(|| payload.to_owned());
        }
        let report = &mut self.progress.report;
        if status == "accepted" {
            *report.accepted.entry(open.kind.clone()).or_default() += 1;
        } else if open.misread {
            report.not_understood += 1;
        } else {
            *report.refused.entry((status.to_owned(), open.kind.clone())).or_default() += 1;
        }
    }

    /// What holds after everything: the state is the fold of the records, no command was carried out twice, and no circuit has too much.
    fn look(&mut self) -> Result<(), Ended> {
        if self.bench.controller.site().ledger() != &self.bench.fold {
            return Err(self.broken("the state is not what its records make"));
        }
        match self.bench.broken.first() {
            Some(what) => Err(self.broken(what)),
            None => Ok(()),
        }
    }

    fn remember(&mut self, heard: &Heard) -> Result<(), Ended> {
        for record in &heard.records {
            let RecordBody::CommandExecuted { id, .. } = &record.body else { continue };
            if self.done.iter().any(|(done, _)| done == id) {
                return Err(self.broken(&format!("command {id} was carried out twice")));
            }
            self.done.push_back((id.clone(), None));
            if self.done.len() > REMEMBERED {
                self.done.pop_front();
            }
        }
        Ok(())
    }

    /// Some ticks pass, and what was held up is answered.
    fn pass(&mut self, ticks: u64) -> Result<(), Ended> {
        self.digest = None;
        for _ in 0..ticks {
            self.bench.heard = Heard::default();
            self.bench.step(&mut self.dice);
            let heard = std::mem::take(&mut self.bench.heard);
            self.remember(&heard)?;
            for (correlation, answer) in &heard.answers {
                self.answered(correlation, answer)?;
            }
        }
        self.look()
    }

    /// What was not answered is not answered any more: the sender asks again, with the same id.
    fn restart(&mut self) -> Result<(), Ended> {
        self.progress.report.restarts += 1;
        self.digest = None;
        self.open.clear();
        self.done.iter_mut().for_each(|(_, answer)| *answer = None);
        self.bench.restart();
        self.look()
    }

    fn end(&mut self) -> Result<(), Ended> {
        for _ in 0..EPILOGUE_TICKS {
            if self.open.is_empty() {
                return Ok(());
            }
            self.pass(1)?;
        }
        let left: Vec<&Open> = self.open.values().collect();
        Err(self.broken(&format!("never answered: {left:?}")))
    }
}

//! Commands already seen: a second one with the same id gets the same answer and is not run again.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// Commands remembered at most: hours of a busy cloud's repetitions.
const MAX_COMMANDS: usize = 1_000;
/// Answers remembered at most, in bytes: charger configurations are large, a gateway's memory is not.
const MAX_BYTES: usize = 1 << 20;

/// What is known of a command's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is new, and from now on it is known: run it.
    New,
    /// It runs: its answer will come.
    Running,
    /// It was answered with this payload: send it again.
    Answered(String),
}

/// The last commands and their answers, oldest forgotten first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// `None` while it runs.
    by_id: BTreeMap<String, Option<String>>,
    order: VecDeque<String>,
    bytes: usize,
}

impl Answers {
    /// Looks an id up, and remembers it.
    pub fn begin(&mut self, id: &str) -> Seen {
        match self.by_id.get(id) {
            Some(Some(payload)) => Seen::Answered(payload.clone()),
            Some(None) => Seen::Running,
            None => {
                self.by_id.insert(id.to_owned(), None);
                self.order.push_back(id.to_owned());
                self.forget();
                Seen::New
            }
        }
    }

    /// Remembers the answer to a command that has begun. A command that was forgotten meanwhile stays forgotten.
    pub fn answer(&mut self, id: &str, payload: &str) {
        if let Some(answer) = self.by_id.get_mut(id) {
            let before = answer.as_ref().map_or(0, String::len);
            *answer = Some(payload.to_owned());
            self.bytes = self.bytes - before + payload.len();
            self.forget();
        }
    }

    fn forget(&mut self) {
        while self.order.len() > MAX_COMMANDS || (self.bytes > MAX_BYTES && self.order.len() > 1) {
            let Some(oldest) = self.order.pop_front() else { return };
            let answer = self.by_id.remove(&oldest).flatten();
            self.bytes -= answer.map_or(0, |payload| payload.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_runs_once_and_is_answered_alike() {
        let mut answers = Answers::default();
        assert_eq!(answers.begin("a"), Seen::New);
        assert_eq!(answers.begin("a"), Seen::Running);
        answers.answer("a", "done");
        assert_eq!(answers.begin("a"), Seen::Answered("done".to_owned()));
        let stored = serde_json::to_string(&answers).unwrap();
        let mut restored: Answers = serde_json::from_str(&stored).unwrap();
        assert_eq!(restored.begin("a"), Seen::Answered("done".to_owned()));
    }

    #[test]
    fn memory_is_bounded() {
        let mut answers = Answers::default();
        for number in 0..1_500 {
            assert_eq!(answers.begin(&number.to_string()), Seen::New);
        }
        assert_eq!(answers.order.len(), MAX_COMMANDS);
        let large = "x".repeat(MAX_BYTES / 4);
        for number in 1_400..1_410 {
            answers.answer(&number.to_string(), &large);
        }
        assert!(answers.bytes <= MAX_BYTES);
        assert_eq!(answers.by_id.len(), answers.order.len());
        answers.answer("0", "late");
        assert_eq!(answers.begin("0"), Seen::New, "forgotten");
    }
}

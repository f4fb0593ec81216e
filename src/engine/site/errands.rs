//! Commands that only the shell can carry out: it is asked, and its answer goes to whoever asked.

use super::Site;
use super::commands::CloudRequest;
use super::io::Output;
use crate::engine::model::command::CommandOutcome;
use crate::engine::model::errand::{Errand, ErrandId};
use crate::engine::model::ids::RequestId;
use crate::engine::time::Now;

/// Errands under way; each may hold a configuration in memory.
const MOST: usize = 8;

/// Who waits for the end of an errand.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Waiting {
    /// Somebody on site.
    Person(RequestId),
    /// The cloud.
    Cloud(CloudRequest),
}

impl Site {
    /// Asks the shell.
    pub(super) fn send_errand(&mut self, errand: Errand, waiting: Waiting, now: Now, out: &mut Vec<Output>) {
        if self.errands.len() >= MOST {
            let error = format!("{MOST} of these commands are being carried out; try again later");
            return self.errand_ended(waiting, CommandOutcome::Rejected { error }, now, out);
        }
        self.last_call += 1;
        let id = ErrandId(self.last_call);
        self.errands.insert(id, waiting);
        out.push(Output::Errand { id, errand });
    }

    /// The shell has answered.
    pub(super) fn errand_answered(&mut self, id: ErrandId, outcome: CommandOutcome, now: Now, out: &mut Vec<Output>) {
        if let Some(waiting) = self.errands.remove(&id) {
            self.errand_ended(waiting, outcome, now, out);
        }
    }

    fn errand_ended(&mut self, waiting: Waiting, outcome: CommandOutcome, now: Now, out: &mut Vec<Output>) {
        match waiting {
            Waiting::Person(request) => out.push(Output::Reply { request, outcome }),
            Waiting::Cloud(request) => self.cloud_answer(&request, &outcome, now, out),
        }
    }
}

//! The thread that has the books: a commit takes as long as the disk does, and nothing else waits for it.

use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::oneshot;

use super::ledger::{Ledger, Rules};

/// Questions that wait: a batch, the replays that are due, and room.
const QUEUE: usize = 4;

type Work = Box<dyn FnOnce(&mut Ledger) + Send>;

/// The way to the thread. It ends with this.
#[derive(Debug)]
pub struct Keeper {
    work: SyncSender<Work>,
}

impl Keeper {
    /// Opens the books in a thread of their own.
    ///
    /// # Errors
    /// If they cannot be opened, in words.
    pub fn open(place: String, rules: Rules) -> Result<Self, String> {
        let (work, queue) = sync_channel::<Work>(QUEUE);
        let (opened, result) = sync_channel(1);
        let thread = move || match Ledger::open(&place, rules) {
            Ok(mut ledger) => {
                // Nobody waits for the answer only if the keeper is gone already.
                let _ = opened.send(Ok(()));
                while let Ok(work) = queue.recv() {
                    work(&mut ledger);
                }
            }
            Err(error) => {
                let _ = opened.send(Err(error));
            }
        };
        std::thread::Builder::new().name("books".to_owned()).spawn(thread).map_err(|error| error.to_string())?;
        result.recv().map_err(|_| "the thread of the books has ended".to_owned())??;
        Ok(Self { work })
    }

    /// Has something done with the books; the result comes out of the channel. It is closed if too much waits, or the thread has ended.
    pub fn ask<T: Send + 'static>(&self, work: impl FnOnce(&mut Ledger) -> T + Send + 'static) -> oneshot::Receiver<T> {
        let (answer, result) = oneshot::channel();
        let work = Box::new(move |ledger: &mut Ledger| {
            // Who does not wait for it any more has no use for it.
            let _ = answer.send(work(ledger));
        });
        // A full queue drops the work, and with it the sender: the receiver sees that.
        let _ = self.work.try_send(work);
        result
    }
}

//! The Python peers.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use serde_json::Value;
use siteward_sim::net::clock::Clock;

use crate::rig::{PATIENCE, sim};

/// What a peer tells in a test; far more than any test makes it tell.
const EVENTS: usize = 10_000;

/// A Python program that tells JSON lines and takes lines as commands.
pub(crate) struct Peer {
    child: Child,
    stdin: Option<ChildStdin>,
    events: Receiver<Value>,
    seen: Vec<Value>,
}

impl Peer {
    /// Starts `simulators/tests/python/SCRIPT`.
    pub(crate) fn start(script: &str, arguments: &[&str]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script);
        let python = python();
        let mut child = Command::new(sim())
            .args(["leash", "--"])
            .arg(python)
            .arg(path)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, events) = sync_channel(EVENTS);
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let told = sender.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
                if told.is_err() {
                    break;
                }
            }
        });
        Self { stdin: child.stdin.take(), child, events, seen: Vec::new() }
    }

    /// Waits for the next event that is `wanted`; those before it are passed over.
    pub(crate) fn expect(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let clock = Clock::start();
        loop {
            // One deadline for all of them: a peer that goes on telling other things is no reason to wait for ever.
            let left = PATIENCE.saturating_sub(Duration::from_millis(clock.mono().ms()));
            match self.events.recv_timeout(left) {
                Ok(event) => {
                    self.seen.push(event.clone());
                    if wanted(&event) {
                        return event;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("{what} did not happen in time; seen: {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => panic!("the peer ended before {what}; seen: {:#?}", self.seen),
            }
        }
    }

    /// Waits for the next event of that name.
    pub(crate) fn event(&mut self, name: &str) -> Value {
        self.expect(name, |event| event["event"] == name)
    }

    /// Sends a command.
    pub(crate) fn tell(&mut self, command: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{command}").unwrap();
        stdin.flush().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The Python of the virtual environment that `make prepare` makes.
fn python() -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let venv = std::env::var_os("SITEWARD_VENV").map_or_else(|| top.join(".venv"), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(
        python.exists(),
        "{} is missing; `make prepare` makes it, or name another by SITEWARD_VENV",
        python.display()
    );
    python
}

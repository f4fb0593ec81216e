//! Child processes that do not outlive us: not after a panic, not after Ctrl-C, not after `kill -9`.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, setrlimit};

/// How often a stopping process is looked at. Short beside the seconds that a clean stop may take.
const LOOK: Duration = Duration::from_millis(20);

/// What to run, and how to run it again.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where its standard output and error are appended to.
    pub log: PathBuf,
    /// The `siteward-sim` program: its hidden `leash` command ties the child's life to ours. `None`: only dropping kills it.
    pub leash: Option<PathBuf>,
}

impl Recipe {
    /// A recipe with the arguments given.
    pub fn new<A: AsRef<OsStr>>(program: &Path, arguments: &[A], log: &Path) -> Self {
        let arguments = arguments.iter().map(|argument| argument.as_ref().to_owned()).collect();
        Self { program: program.to_owned(), arguments, log: log.to_owned(), leash: None }
    }

    /// Ties the child's life to that of the thread that starts it, by way of `siteward-sim leash`.
    #[must_use]
    pub fn leashed(mut self, siteward_sim: &Path) -> Self {
        self.leash = Some(siteward_sim.to_owned());
        self
    }

    /// Starts the process. Call it from a thread that lives as long as the child should: Linux ties the leash to the thread.
    ///
    /// # Errors
    /// If the log cannot be opened or the program cannot be started; the message names which.
    pub fn start(&self) -> io::Result<Running> {
        let name =
            |path: &Path, error: &io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let log =
            OpenOptions::new().create(true).append(true).open(&self.log).map_err(|error| name(&self.log, &error))?;
        let mut command = match &self.leash {
            Some(leash) => {
                let mut command = Command::new(leash);
                command.arg("leash").arg("--").arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Whoever started us may be a systemd unit; the child is not: its log goes where we say, and it has nobody to notify.
        for variable in ["JOURNAL_STREAM", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(variable);
        }
        // A group of its own: Ctrl-C at the terminal reaches us alone, and we stop the children in order.
        command.process_group(0);
        let child = command.spawn().map_err(|error| name(&self.program, &error))?;
        Ok(Running { child })
    }
}

/// A running child process. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The time that the cores have worked for it so far, in ms.
    #[must_use]
    pub fn cores_ms(&self) -> u64 {
        super::clock::cores_ms_of(&format!("/proc/{}/stat", self.id()))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        // Both fail only if it is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none()
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Waits until it ends by itself, at most `patience`.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let mut left = patience;
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if left.is_zero() {
                return None;
            }
            std::thread::sleep(LOOK.min(left));
            left = left.saturating_sub(LOOK);
        }
    }

    /// SIGTERM; `kill -9` if it has not ended after `patience`. Says how it ended by itself, if it did.
    pub fn stop(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        let status = self.wait(patience);
        if status.is_none() {
            self.kill();
        }
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The hidden `leash` command: asks the kernel to kill this process when its parent dies, then becomes `program`.
///
/// # Errors
/// If the kernel refuses or the program cannot be executed. On success it does not return.
pub fn leash(program: &OsStr, arguments: &[OsString]) -> io::Error {
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    Command::new(program).args(arguments).exec()
}

/// Allows this process and its children as many open files as the system lets them have: each connection is one.
pub fn allow_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // If it is refused, the usual number has to do.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(directory: &Path, script: &str) -> Recipe {
        Recipe::new(Path::new("/bin/sh"), &["-c", script], &directory.join("log"))
    }

    #[test]
    fn dropping_a_child_kills_it() {
        let directory = tempfile::tempdir().unwrap();
        let running = recipe(directory.path(), "exec sleep 600").start().unwrap();
        let process = PathBuf::from(format!("/proc/{}", running.id()));
        assert!(process.exists());
        drop(running);
        assert!(!process.exists());
    }

    #[test]
    fn a_child_that_ends_by_itself_is_noticed_and_its_output_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut running = recipe(directory.path(), "echo hello; exit 78").start().unwrap();
        assert_eq!(running.wait(Duration::from_secs(20)).and_then(|status| status.code()), Some(78));
        assert_eq!(std::fs::read_to_string(directory.path().join("log")).unwrap(), "hello\n");
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let recipe = Recipe::new(Path::new("/no/such/program"), &["x"], &directory.path().join("log"));
        assert!(recipe.start().unwrap_err().to_string().starts_with("/no/such/program: "));
    }
}

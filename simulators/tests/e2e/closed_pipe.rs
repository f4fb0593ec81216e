//! Whoever reads what a command prints may have seen enough: `siteward status | head -1`.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::rig::{Rig, sim, siteward};

/// Runs a command whose output nobody reads: it ends by itself, and says nothing of it.
fn ends_quietly(program: &Path, arguments: &[&str], status: i32) {
    let (reader, writer) = std::io::pipe().unwrap();
    // Before it begins: its only line must not be faster than we are.
    drop(reader);
    let child = Command::new(program).args(arguments).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {errors}");
    assert!(errors.is_empty(), "{arguments:?}: {errors}");
}

#[test]
fn commands_end_quietly_when_nobody_reads_them_any_more() {
    let rig = Rig::started("");
    let config = rig.directory.path().join("site.toml");
    let config = config.to_str().unwrap();
    for arguments in [
        ["status"].as_slice(),
        &["status", "--json"],
        &["status", "--watch"],
        &["explain", "PY1"],
        &["explain", "PY1", "--json"],
        &["events"],
        &["events", "--follow", "--json"],
        &["check"],
        &["boost", "PY1"],
    ] {
        ends_quietly(&siteward(), &[arguments, &["--config", config]].concat(), 0);
    }
    ends_quietly(&siteward(), &["completions", "bash"], 0);
    ends_quietly(&siteward(), &["--help"], 0);
    ends_quietly(&siteward(), &["commission", "--help"], 0);
    rig.assert_no_error_logged();
}

#[test]
fn simulators_end_quietly_when_nobody_reads_them_any_more() {
    for arguments in [
        ["meter", "--listen", "127.0.0.1:0"].as_slice(),
        &["broker", "--listen", "127.0.0.1:0"],
        // Nobody listens there: it says so, again and again.
        &["charger", "ws://127.0.0.1:9/ocpp"],
        &["world", "--days", "1", "--stations", "2"],
    ] {
        // As SIGPIPE would have it: what was cut short has not succeeded.
        ends_quietly(sim(), arguments, 141);
    }
}

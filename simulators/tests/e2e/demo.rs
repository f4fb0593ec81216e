//! The demo itself, without a terminal.

use std::process::Command;

use crate::rig::{sim, siteward};

fn demo(arguments: &[&str]) -> String {
    let output = Command::new(sim())
        .args(["demo", "--headless", "--siteward"])
        .arg(siteward())
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn a_whole_site_keeps_every_promise_while_broker_and_meter_go_away_and_come_back() {
    let text = demo(&["--duration", "25s"]);
    assert!(text.contains("broker lost 1 times"), "{text}");
    assert!(text.contains("every promise was kept"), "{text}");
}

#[test]
fn five_kills_of_the_controller_lose_and_double_nothing() {
    let text = demo(&["--duration", "40s", "--kill-controller", "5", "--chaos", "false", "--seed", "2"]);
    assert!(text.contains("controller restarted 5 times"), "{text}");
}

#[test]
fn a_daemon_that_does_not_exist_is_named() {
    let output = Command::new(sim()).args(["demo", "--headless", "--siteward", "/no/such/siteward"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("/no/such/siteward does not exist: build it"), "{text}");
}

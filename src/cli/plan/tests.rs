use super::*;

mod examples;

fn answers(input: &str) -> Vec<serde_json::Value> {
    let mut out = Vec::new();
    converse(&mut input.as_bytes(), &mut out).expect("memory takes everything");
    let text = String::from_utf8(out).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

const HELLO: &str = r#"{"type":"hello","proto":"edge-planner/1","period_s":300,"new":1,"stations":[{"id":"a","voltage_v":208,"min_a":0,"max_a":32,"levels_a":null}],"constraints":[{"id":"fuse","limit_a":20,"terms":[[0,1,0]]}]}"#;
const SITE: &str = r#"{"type":"site","proto":"siteward-plan/1","voltage_v":230,"circuits":[{"id":"grid","limit_a":[20,20,20]}],"evses":[{"id":"A","circuit":"grid","phases":["L1","L2","L3"],"min_a":6,"max_a":32,"fallback_a":6},{"id":"B","circuit":"grid","phases":"unknown","min_a":6,"max_a":32,"fallback_a":6}]}"#;

#[test]
fn phasor_rows_get_pilots_and_bye_ends_it() {
    let plan = r#"{"type":"plan","t":7,"time_s":2100,"sessions":[{"station":0,"session":"x","estimated_departure":20,"remaining_amp_periods":500,"min_a":0,"max_a":32}]}"#;
    let said = answers(&format!("{HELLO}\n\n{plan}\n{{\"type\":\"bye\"}}\n{plan}\n"));
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said[0]["type"], "ready");
    assert_eq!(said[1]["t"].to_string(), "7");
    // All of the fuse, rounded down to the mA.
    let amps: f64 = said[1]["amps"]["0"].to_string().parse().expect("a number");
    assert!((19.998..=20.0).contains(&amps), "{amps}");
    assert!(said[1]["solve_us"].is_u64());
}

#[test]
fn a_tree_gets_limits_with_their_reason() {
    let state = r#"{"type":"state","time_s":100,"circuits":[{"id":"grid","background_a":[4,0,0]}],"evses":[{"id":"B","committed_a":[0,0,0],"demand_a":32,"reachable":true},{"id":"A","committed_a":[10,10,10],"demand_a":32,"reachable":true}]}"#;
    let said = answers(&format!("{SITE}\n{state}\n"));
    let evses = &said[1]["evses"];
    assert_eq!(evses[0]["id"], "A");
    assert_eq!(evses[0]["target_a"].to_string(), "8.0");
    assert_eq!(evses[0]["limit_a"].to_string(), "8.0");
    assert_eq!(evses[0]["circuit"], "grid");
    assert_eq!(evses[0]["phase"], "L1");
    // 16 A for both, and A has not confirmed its cut from 10 A.
    assert_eq!(evses[1]["limit_a"].to_string(), "6.0");
    assert_eq!(evses[1]["binding"], "raise_pending");
}

#[test]
fn a_bad_line_is_answered_with_its_place_and_the_next_one_is_read() {
    let lines = [
        ("{", "column 1: not a JSON object on one line: EOF while parsing an object"),
        (r#"{"type":"plan"}"#, r#"type "plan" before the site is known"#),
        (r#"{"type":"hello","proto":"edge-planner/2"}"#, r#"proto "edge-planner/2" is not spoken here"#),
        (r#"{"type":"site"}"#, "proto is missing"),
        (SITE, ""),
        (r#"{"type":"state","time_s":1,"circuits":[],"evses":[]}"#, "circuits: grid is missing; a state lists each"),
        (r#"{"type":"state","time_s":1,"circuits":[{"id":"grid"}],"evses":[]}"#, "missing field `background_a`"),
        (r#"{"type":"state","time_s":-1,"circuits":[],"evses":[]}"#, "time_s: must be 0 to 10000000000, not -1"),
        (r#"{"type":"state","time_s":1,"circuit":[]}"#, "unknown field `circuit`"),
        (&SITE.replace("\"unknown\"", "[\"L4\"]"), "evses[1] (B): phases: must be a list of"),
        (
            &SITE.replace("\"circuit\":\"grid\"", "\"circuit\":\"gird\""),
            "evses[0] (A): circuit: there is no circuit \"gird\"",
        ),
        (HELLO, ""),
        (
            r#"{"type":"plan","t":1,"sessions":[{"station":1,"session":"x","estimated_departure":2,"remaining_amp_periods":5,"min_a":0,"max_a":32}]}"#,
            "sessions[0]: station 1 does not exist; there are 0 to 0",
        ),
        (&HELLO.replace("[[0,1,0]]", "[[3,1,0]]"), "constraints[0].terms[0]: must be [station index below 1, re, im]"),
    ];
    let input: String = lines.iter().map(|(line, _)| format!("{line}\n")).collect();
    let said = answers(&input);
    for (index, ((line, expected), answer)) in lines.iter().zip(&said).enumerate() {
        if expected.is_empty() {
            assert_eq!(answer["type"], "ready", "{line}: {answer}");
            continue;
        }
        assert_eq!(answer["line"].to_string(), (index + 1).to_string());
        assert!(
            answer["message"].as_str().is_some_and(|message| message.contains(expected)),
            "{line}: {answer}, not {expected}"
        );
    }
    assert_eq!(said.len(), lines.len());
}

#[test]
fn a_panic_of_the_planner_is_an_answer() {
    let refused: Result<(), String> = guarded(|| panic!("the plan would overload a circuit"));
    assert!(refused.expect_err("refused").starts_with("the planner refused this state: the plan would overload"));
}

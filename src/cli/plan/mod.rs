//! `siteward plan`: the planner alone. Each line on standard input is a JSON object, and so is each line on standard output; the first
//! line says which of two forms is spoken (`docs/planner.md`). A line that cannot be used is answered with what is wrong, and the next one
//! is read.

mod edge;
mod lines;
mod site;
mod wire;

use std::io::{BufRead, Write};
use std::panic::{self, AssertUnwindSafe};

use serde::{Deserialize, Serialize};
use serde_json::error::Category;

use super::Failure;
use crate::shell::clock::Clock;
use edge::EdgeForm;
use lines::{Line, Lines};
use site::SiteForm;

/// What a line is.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
    proto: Option<String>,
}

/// The answer to a line that cannot be used.
#[derive(Serialize)]
struct Refusal<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    line: u64,
    message: &'a str,
}

/// What comes of a line.
enum Answer {
    /// A line of JSON.
    Line(String),
    /// The other side is done.
    End,
}

/// The form that the first line chose.
enum Form {
    Edge(Box<EdgeForm>),
    Site(Box<SiteForm>),
}

/// Answers each line of `input` until its end, or until the other side says `bye`.
pub(super) fn plan(input: &mut dyn BufRead, out: &mut dyn Write) -> Result<(), Failure> {
    // A broken promise of the planner is an answer of its own here, with the promise in it: the default hook's text would not help.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = converse(input, out);
    panic::set_hook(hook);
    result
}

fn converse(input: &mut dyn BufRead, out: &mut dyn Write) -> Result<(), Failure> {
    let clock = Clock::start();
    let mut lines = Lines::new(input);
    let mut form: Option<Form> = None;
    loop {
        let answer = match lines.next().map_err(|error| Failure::new(1, format!("cannot read the input: {error}")))? {
            Line::End => return Ok(()),
            Line::Bad(why) => Err(why),
            Line::Text(text) if text.trim().is_empty() => continue,
            Line::Text(text) => guarded(|| answer(&text, &mut form, clock)),
        };
        match answer {
            Ok(Answer::End) => return Ok(()),
            Ok(Answer::Line(line)) => writeln!(out, "{line}")?,
            Err(message) => {
                let refusal = Refusal { kind: "error", line: lines.number(), message: &message };
                writeln!(out, "{}", serde_json::to_string(&refusal)?)?;
            }
        }
        out.flush()?;
    }
}

fn answer(text: &str, form: &mut Option<Form>, clock: Clock) -> Result<Answer, String> {
    let head: Head = read(text)?;
    match (head.kind.as_str(), head.proto.as_deref(), form) {
        ("bye", _, _) => Ok(Answer::End),
        ("hello", Some(edge::PROTO), form) => {
            let (edge, ready) = EdgeForm::hello(text)?;
            *form = Some(Form::Edge(Box::new(edge)));
            Ok(Answer::Line(ready))
        }
        ("site", Some(site::PROTO), form) => {
            let (site, ready) = SiteForm::site(text)?;
            *form = Some(Form::Site(Box::new(site)));
            Ok(Answer::Line(ready))
        }
        ("plan", _, Some(Form::Edge(edge))) => edge.plan(text, clock).map(Answer::Line),
        ("state", _, Some(Form::Site(site))) => site.state(text, clock).map(Answer::Line),
        (kind, proto, form) => Err(out_of_place(kind, proto, form.as_ref())),
    }
}

fn out_of_place(kind: &str, proto: Option<&str>, form: Option<&Form>) -> String {
    let forms = r#"{"type":"hello","proto":"edge-planner/1",…} or {"type":"site","proto":"siteward-plan/1",…}"#;
    match (kind, proto, form) {
        ("hello" | "site", Some(proto), _) => {
            format!("proto {proto:?} is not spoken here for {kind:?}: begin with {forms}")
        }
        ("hello" | "site", None, _) => format!("proto is missing: begin with {forms}"),
        (_, _, None) => format!("type {kind:?} before the site is known: begin with {forms}"),
        (_, _, Some(Form::Edge(_))) => format!("type {kind:?}: in edge-planner/1 it is \"plan\", \"hello\" or \"bye\""),
        (_, _, Some(Form::Site(_))) => {
            format!("type {kind:?}: in siteward-plan/1 it is \"state\", \"site\" or \"bye\"")
        }
    }
}

/// Reads a line. The message says the column, and what was expected there.
fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| {
        let told = error.to_string();
        let what = told.split(" at line ").next().unwrap_or(&told);
        match error.classify() {
            Category::Data => format!("column {}: {what}", error.column()),
            Category::Syntax | Category::Eof | Category::Io => {
                format!("column {}: not a JSON object on one line: {what}", error.column().max(1))
            }
        }
    })
}

/// A panic of the planner as a message.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let said =
            payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied());
        Err(format!("the planner refused this state: {}; please report it", said.unwrap_or("no reason given")))
    })
}

#[cfg(test)]
mod tests;

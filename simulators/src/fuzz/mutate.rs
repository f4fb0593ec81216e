//! What a broken or hostile sender makes of a good message: bytes that are wrong, and JSON that is right and says something else.

use serde_json::{Map, Number, Value};

use crate::rng::Dice;

/// Texts that programs have stumbled over.
const TEXTS: [&str; 22] = [
    "",
    " ",
    "\u{0}",
    "\u{7f}",
    "\u{feff}",
    "\u{202e}abc",
    "é",
    "🚗",
    "null",
    "true",
    "NaN",
    "-Infinity",
    "0x1F",
    "1e5",
    "../../etc/passwd",
    "'; DROP TABLE events; --",
    "%s%n",
    "${jndi:x}",
    "cloud",
    "local",
    "[]",
    "{}",
];
/// Times at the ends of the calendar, and what is none.
const TIMES: [&str; 14] = [
    "2026-03-01T12:00:00Z",
    "1970-01-01T00:00:00Z",
    "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999Z",
    "-0001-01-01T00:00:00Z",
    "+262142-12-31T23:59:59Z",
    "2026-02-29T12:00:00Z",
    "2026-03-29T02:30:00+01:00",
    "2026-03-01T24:00:00Z",
    "2016-12-31T23:59:60Z",
    "2026-03-01T12:00:00+23:59",
    "2026-03-01T12:00:00.999999999999Z",
    "2026-03-01",
    "12:00",
];
/// Numbers at the ends of what types hold, and beyond. As text, since some are no number of any type.
const NUMBERS: [&str; 28] = [
    "0",
    "-0",
    "0.0",
    "1",
    "-1",
    "0.0001",
    "5.999999999",
    "6",
    "32",
    "1e3",
    "1e-400",
    "1e400",
    "-1e400",
    "127",
    "128",
    "255",
    "256",
    "65535",
    "2147483647",
    "2147483648",
    "-2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "0.1234567890123456789012345678901234567890",
];
/// Decimals in quotes, as prices are written.
const PRICES: [&str; 12] = [
    "0",
    "0.49",
    "-0.01",
    "1000000",
    "999999.999999",
    "0.0000001",
    "1e3",
    "1,5",
    ".5",
    "5.",
    "+1",
    "99999999999999999999999999999.9",
];
/// Other words where one of a few is expected.
const WORDS: [&str; 16] = [
    "Accepted",
    "Blocked",
    "hold",
    "release",
    "Mon",
    "Sun",
    "EUR",
    "eur",
    "XXX",
    "07:00",
    "24:00",
    "25:61",
    "TxProfile",
    "Absolute",
    "staff",
    "CP1",
];

/// A number that JSON can write down, whether or not a type holds it.
fn number(dice: &mut Dice) -> Value {
    let text = if dice.chance(200_000) { dice.between(0, 200).to_string() } else { pick(dice, &NUMBERS).to_owned() };
    text.parse::<Number>().map_or(Value::Null, Value::Number)
}

fn pick<'a>(dice: &mut Dice, from: &[&'a str]) -> &'a str {
    dice.pick(from).copied().unwrap_or_default()
}

/// Something else in place of a value.
fn other(dice: &mut Dice) -> Value {
    match dice.below(12) {
        0 => Value::Null,
        1 => Value::Bool(dice.chance(500_000)),
        2..=4 => number(dice),
        5 => Value::String(pick(dice, &TEXTS).to_owned()),
        6 => Value::String(pick(dice, &TIMES).to_owned()),
        7 => Value::String(pick(dice, &PRICES).to_owned()),
        8 => Value::String(pick(dice, &WORDS).to_owned()),
        9 => Value::String(long(dice)),
        10 => Value::Array(Vec::new()),
        _ => Value::Object(Map::new()),
    }
}

fn long(dice: &mut Dice) -> String {
    let length = dice.pick(&[33, 37, 129, 256, 4_096, 70_000]).copied().unwrap_or(33);
    pick(dice, &["x", "ä", "\\", "\"", "9"]).repeat(length)
}

/// Deep enough for any reader to stop.
fn deep(dice: &mut Dice) -> Value {
    let depth = dice.pick(&[20, 100, 120, 124, 126]).copied().unwrap_or(20);
    let is_list = dice.chance(500_000);
    (0..depth).fold(Value::Null, |inner, _| {
        if is_list { Value::Array(vec![inner]) } else { Value::Object(Map::from_iter([("a".to_owned(), inner)])) }
    })
}

/// Changes one thing somewhere in `value`.
pub(super) fn structure(value: &mut Value, dice: &mut Dice) {
    let stops = dice.chance(300_000);
    match value {
        Value::Object(object) if !object.is_empty() && !stops => in_object(object, dice),
        Value::Array(list) if !list.is_empty() && !stops => in_list(list, dice),
        Value::String(text) if dice.chance(300_000) => *text = in_text(text, dice),
        other_value => *other_value = if dice.chance(30_000) { deep(dice) } else { other(dice) },
    }
}

fn in_object(object: &mut Map<String, Value>, dice: &mut Dice) {
    let keys: Vec<String> = object.keys().cloned().collect();
    let Some(key) = dice.pick(&keys) else { return };
    match dice.below(10) {
        0 => {
            object.remove(key);
        }
        1 => {
            let value = object.remove(key).unwrap_or_default();
            object.insert(in_text(key, dice), value);
        }
        2 => {
            let name = pick(
                dice,
                &["until", "source", "x", "", "id", "data", "ttl_s", "limit_w", "transaction", "group", "min_a"],
            )
            .to_owned();
            object.insert(name, other(dice));
        }
        3 => {
            // Two values that have changed places.
            let second = dice.pick(&keys).unwrap_or(key);
            let (one, two) = (object.get(key).cloned(), object.get(second).cloned());
            object.insert(key.clone(), two.unwrap_or_default());
            object.insert(second.clone(), one.unwrap_or_default());
        }
        _ => {
            if let Some(value) = object.get_mut(key) {
                structure(value, dice);
            }
        }
    }
}

fn in_list(list: &mut Vec<Value>, dice: &mut Dice) {
    let index = usize::try_from(dice.below(u64::try_from(list.len()).unwrap_or(1))).unwrap_or(0);
    match dice.below(8) {
        0 => {
            list.remove(index);
        }
        1 => list.push(list[index].clone()),
        2 => {
            let times = dice.pick(&[10, 100, 1_000]).copied().unwrap_or(10);
            let copy = list[index].clone();
            list.extend(std::iter::repeat_n(copy, times));
        }
        3 => list.insert(index, other(dice)),
        _ => structure(&mut list[index], dice),
    }
}

/// A misspelt word.
fn in_text(text: &str, dice: &mut Dice) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    let at = usize::try_from(dice.below(u64::try_from(letters.len()).unwrap_or(0))).unwrap_or(0);
    match dice.below(6) {
        0 => letters.insert(at, 'x'),
        1 if !letters.is_empty() => {
            letters.remove(at);
        }
        2 => letters.push(' '),
        3 => return text.to_uppercase(),
        4 => return text.repeat(40),
        _ => letters.insert(at, dice.pick(&['\u{0}', '\n', 'é', '"', '🚗']).copied().unwrap_or('x')),
    }
    letters.into_iter().collect()
}

/// JSON as another writer would write it: escapes, white space, a key twice.
pub(super) fn written(value: &Value, dice: &mut Dice) -> Vec<u8> {
    let mut text =
        if dice.chance(100_000) { serde_json::to_string_pretty(value).unwrap_or_default() } else { value.to_string() };
    if dice.chance(20_000)
        && let Some(rest) = text.strip_prefix('{')
    {
        let key = pick(dice, &["id", "type", "data", "expires"]);
        text = format!("{{\"{key}\":{},{rest}", other(dice));
    }
    if dice.chance(20_000) {
        text = text.replace('e', "\\u0065");
    }
    if dice.chance(10_000) {
        text = text.replacen("\":", "\":NaN,\"x\":", 1);
    }
    text.into_bytes()
}

/// Changes bytes, a few times. `other` is another message, for splices.
pub(super) fn bytes(message: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    for _ in 0..dice.between(1, 6) {
        let end = u64::try_from(message.len()).unwrap_or(u64::MAX);
        let mut place = || usize::try_from(dice.below(end)).unwrap_or(0);
        let (at, to) = (place(), place());
        let (from, to) = (at.min(to), at.max(to));
        let byte = u8::try_from(dice.below(256)).unwrap_or(0);
        match dice.below(12) {
            0 | 1 if !message.is_empty() => message[at] ^= 1 << dice.below(8),
            2 if !message.is_empty() => message[at] = byte,
            3 => message.insert(at, byte),
            4 => message.insert(at, dice.pick(b"{}[]\",:\\0-e.").copied().unwrap_or(b'{')),
            5 if !message.is_empty() => {
                message.remove(at);
            }
            6 => {
                message.drain(from..to);
            }
            7 => message.truncate(at),
            8 => {
                let length = u64::try_from(other.len()).unwrap_or(0);
                let begin = usize::try_from(dice.below(length)).unwrap_or(0);
                message.truncate(at);
                message.extend_from_slice(&other[begin.min(other.len())..]);
            }
            9 => {
                let piece = message[from..to.min(from + 40)].to_vec();
                let times = dice.pick(&[2, 20, 300]).copied().unwrap_or(2);
                message.splice(at..at, piece.repeat(times));
            }
            10 => {
                // No UTF-8: a lone continuation, an overlong slash, half of a pair, beyond the last character.
                let wrong: [&[u8]; 4] = [b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"];
                let wrong = dice.pick(&wrong).copied().unwrap_or(b"\x80");
                message.splice(at..at, wrong.iter().copied());
            }
            _ => {
                let digits = pick(dice, &NUMBERS);
                message.splice(at..at, digits.bytes());
            }
        }
    }
}

/// A message that was none to begin with.
pub(super) fn rubbish(dice: &mut Dice) -> Vec<u8> {
    let times = dice.pick(&[1, 64, 1_000, 100_000, 300_000]).copied().unwrap_or(1);
    match dice.below(6) {
        0 => pick(dice, &["[", "{\"a\":", "{\"id\":", "\"\\u", "9", " ", "[{\"id\":\"x\","]).repeat(times).into_bytes(),
        1 => (0..times).map(|_| u8::try_from(dice.below(256)).unwrap_or(0)).collect(),
        2 => format!("{}{}", "[".repeat(times), "]".repeat(times)).into_bytes(),
        3 => format!("{{\"id\":\"big\",\"type\":\"{}\"}}", "x".repeat(times)).into_bytes(),
        4 => other(dice).to_string().into_bytes(),
        _ => Vec::new(),
    }
}

/// Changes lines of a TOML file: as somebody does who edits it in a hurry.
pub(super) fn lines(text: &str, dice: &mut Dice) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..dice.between(1, 4) {
        let end = u64::try_from(lines.len()).unwrap_or(0);
        let mut place = || usize::try_from(dice.below(end)).unwrap_or(0);
        let (at, to) = (place(), place());
        let Some(line) = lines.get(at).cloned() else { return String::new() };
        match dice.below(9) {
            0 => {
                lines.remove(at);
            }
            1 => lines.insert(to, line),
            2 => lines.swap(at, to),
            3 => lines[at] = in_text(&line, dice),
            4 => lines.truncate(at),
            _ => {
                if let Some((key, _)) = line.split_once('=') {
                    let value = toml_value(dice);
                    lines[at] = format!("{key}= {value}");
                }
            }
        }
    }
    lines.join("\n")
}

fn toml_value(dice: &mut Dice) -> String {
    match dice.below(8) {
        0..=2 => pick(dice, &NUMBERS).to_owned(),
        3 => pick(
            dice,
            &[
                "nan",
                "inf",
                "-inf",
                "true",
                "[]",
                "{}",
                "[1, \"a\"]",
                "1979-05-27T07:32:00Z",
                "07:32:00",
                "{ a = 1 }",
                "'",
                "\"\"\"",
            ],
        )
        .to_owned(),
        4 => format!("{:?}", pick(dice, &WORDS)),
        5 => format!("{:?}", pick(dice, &PRICES)),
        6 => format!("[{}, {}, {}]", pick(dice, &NUMBERS), pick(dice, &NUMBERS), pick(dice, &NUMBERS)),
        _ => format!("\"{}\"", long(dice).replace(['\\', '"'], "x")),
    }
}

//! Times as people type them.

use std::time::Duration;

/// Reads `90`, `90s`, `15m` or `2h`.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let factor = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        other => return Err(format!("{other:?} is no unit of time; s, m and h are")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no duration; 90s, 15m and 2h are"))?;
    // A week is longer than any soak.
    let seconds = number.checked_mul(factor).filter(|seconds| (1..=604_800).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("{text:?} is not between 1 s and a week"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_bounds() {
        assert_eq!(parse("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse("1h"), Ok(Duration::from_secs(3600)));
        for bad in ["", "0s", "-1s", "5d", "1.5h", "99999999999999999999h", "18446744073709551615h"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

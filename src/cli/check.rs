//! `siteward check`: reads the configuration and says what is wrong with it. It opens no connection and changes nothing.

use std::io::{Result, Write};
use std::path::Path;

use crate::config::load;

/// Everything is right.
const GOOD: u8 = 0;
/// `EX_CONFIG` of sysexits.h: the configuration cannot be used.
const EX_CONFIG: u8 = 78;

/// Writes every problem of the configuration at `path` on a line of its own, then the fail-safe report. The exit status is 0 where
/// `siteward run` would start with it, else 78.
///
/// # Errors
/// Only those of `out`.
pub fn check(path: &Path, out: &mut dyn Write) -> Result<u8> {
    let loaded = match load(path) {
        Ok(loaded) => loaded,
        Err(problems) => {
            writeln!(out, "{problems}")?;
            let count = problems.error_count();
            let errors = if count == 1 { "error" } else { "errors" };
            writeln!(out, "{count} {errors}; the fail-safe report follows when there is none.")?;
            return Ok(EX_CONFIG);
        }
    };
    for warning in &loaded.warnings {
        writeln!(out, "{warning}")?;
    }
    if !loaded.config.tariffs.is_empty() && loaded.config.billing.operator.is_none() {
        writeln!(
            out,
            "hint: transactions are priced, but get no CDR: [billing] names no operator (`country_code`, `party_id` and so on)."
        )?;
    }
    write!(out, "{}", loaded.config.failsafe())?;
    if loaded.refuse_unsafe().is_some() {
        writeln!(
            out,
            "{}: `siteward run` refuses it; change it, or accept the risk with `allow_unsafe_fallback = true` in [site].",
            path.display()
        )?;
        return Ok(EX_CONFIG);
    }
    if !loaded.config.failsafe().is_safe() {
        writeln!(out, "`allow_unsafe_fallback = true` accepts this; the daemon starts and keeps an alarm standing.")?;
    }
    Ok(GOOD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn checked(path: &Path) -> String {
        let mut out = Vec::new();
        let status = check(path, &mut out).unwrap();
        format!("{}exit status {status}\n", String::from_utf8(out).unwrap())
    }

    #[test]
    fn golden_files_say_what_check_prints() {
        let entries = std::fs::read_dir("src/config/golden").unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> =
            entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
        files.sort();
        assert!(files.len() >= 12);
        let update = std::env::var_os("UPDATE").is_some();
        for file in files {
            let expected = file.with_extension("txt");
            let found = checked(&file);
            if update {
                std::fs::write(&expected, found).unwrap();
            } else {
                let known = std::fs::read_to_string(&expected).unwrap_or_default();
                assert_eq!(found, known, "{}; `UPDATE=1 cargo test` rewrites it", file.display());
            }
        }
    }

    #[test]
    fn a_good_file_exits_with_0_and_ends_with_the_fail_safe_report() {
        let text = checked(Path::new("configs/site.toml"));
        assert!(
            text.ends_with("fail-safe: every circuit and phase stays within its limit.\nexit status 0\n"),
            "{text}"
        );
    }
}

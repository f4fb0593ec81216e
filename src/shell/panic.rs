//! A panic is a broken invariant: the process ends at once, systemd starts it again, leases hold meanwhile.
//!
//! The one exception is the guarded opening of a store: sled panics on some damaged files, and these must not keep the site down.

use std::cell::Cell;
use std::panic::{self, PanicHookInfo, UnwindSafe};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Installs the hook that logs a panic and aborts.
pub fn install() {
    panic::set_hook(Box::new(|info| {
        let description = describe(info);
        if GUARDED.get() {
            tracing::warn!("caught while opening the store: {description}");
            return;
        }
        tracing::error!("internal error, the controller restarts: {description}");
        std::process::abort();
    }));
}

/// Runs `risky` and turns a panic on this thread into an error with its message. For the opening of a store alone.
///
/// # Errors
/// The panic's message.
pub fn guarded<T>(risky: impl FnOnce() -> T + UnwindSafe) -> Result<T, String> {
    let before = GUARDED.replace(true);
    let result = panic::catch_unwind(risky);
    GUARDED.set(before);
    result.map_err(|payload| message(payload.as_ref()))
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map_or_else(String::new, |location| format!(" at {location}"));
    format!("{}{place}", message(info.payload()))
}

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guarded_panic_is_an_error() {
        assert_eq!(guarded(|| 7), Ok(7));
        assert_eq!(guarded(|| -> u8 { panic!("broken {}", "file") }), Err("broken file".to_owned()));
        assert!(!GUARDED.get());
    }
}

//! A panic is a broken invariant: the process ends at once, systemd starts it again, leases hold meanwhile.
//!
//! The one exception is the guarded opening of a store: sled panics on some damaged files, and these must not keep the site down.

use std::panic::{self, PanicHookInfo};

use crate::shell::journal::in_guarded_open;

/// Installs the hook that logs a panic and aborts.
pub fn install() {
    panic::set_hook(Box::new(|info| {
        let description = describe(info);
        if in_guarded_open() {
            tracing::warn!("caught while opening the store: {description}");
            return;
        }
        tracing::error!("internal error, the controller restarts: {description}");
        std::process::abort();
    }));
}

/// For commands that look into a damaged store: what is caught there is part of their answer and is not printed besides.
pub fn quiet_in_guarded_open() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !in_guarded_open() {
            before(info);
        }
    }));
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
    fn a_message_is_found_in_every_kind_of_payload() {
        assert_eq!(message(&"plain"), "plain");
        assert_eq!(message(&"formatted".to_owned()), "formatted");
        assert_eq!(message(&7), "a panic without a message");
    }
}

//! The site's state machine: `Site::handle(input, now, &mut out)`.

pub mod io;

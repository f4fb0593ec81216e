//! `siteward journal verify`: is the store good?

use std::io::Write;

use super::{Failure, Place, plain, range, seen};
use crate::shell::journal::SnapshotLook;

pub(super) fn verify(place: &Place, out: &mut dyn Write) -> Result<u8, Failure> {
    let look = seen(&place.directory()?, false)?;
    let count = look.records.len();
    writeln!(out, "store         {}", plain(&look.home.display().to_string()))?;
    writeln!(out, "id            {}", plain(look.store_id.as_deref().unwrap_or("not known")))?;
    writeln!(out, "starts        {}", look.boot)?;
    match (look.records.keys().next(), look.records.keys().next_back()) {
        (Some(first), Some(last)) => writeln!(out, "records       {count}: {}", range((*first, *last)))?,
        _ => writeln!(out, "records       none")?,
    }
    writeln!(out, "acknowledged  up to {}", look.acknowledged)?;
    match &look.snapshot {
        SnapshotLook::Missing => writeln!(out, "snapshot      none")?,
        SnapshotLook::Damaged => writeln!(out, "snapshot      damaged")?,
        SnapshotLook::Good { through, state } => {
            writeln!(out, "snapshot      up to {through}, {} bytes", state.len())?;
        }
    }
    writeln!(out, "size on disk  {} bytes", look.bytes)?;
    if look.findings.is_empty() {
        writeln!(out, "good: every record has its checksum, and none is missing")?;
        return Ok(0);
    }
    for finding in &look.findings {
        writeln!(out, "damaged: {}", plain(finding))?;
    }
    for gap in look.missing() {
        writeln!(out, "cannot be read: {}", range(gap))?;
    }
    writeln!(
        out,
        "`siteward journal recover --from {}` reads what can be read",
        plain(&look.home.display().to_string())
    )?;
    Ok(1)
}

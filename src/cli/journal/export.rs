//! `siteward journal export`: the records of a good store as JSON lines.

use std::io::Write;
use std::ops::Bound;

use super::{ExportArgs, Failure, lines, plain, seen};

pub(super) fn export(args: &ExportArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let look = seen(&args.place.directory()?, false)?;
    if let Some(finding) = look.findings.first() {
        // A file with holes that nobody sees would be worse than none.
        let home = look.home.display();
        let message = format!("the store {home} is damaged: {finding}; use `siteward journal recover --from {home}`");
        return Err(Failure::new(1, plain(&message)));
    }
    let records = look.records.range((Bound::Excluded(args.after), Bound::Unbounded)).map(|(_, record)| record);
    lines(&args.place.configuration, &look, records, out)?;
    Ok(0)
}

//! `siteward journal recover`: what can be read of a damaged store.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;

use super::{Failure, RecoverArgs, lines, plain, range, seen};
use crate::shell::journal::{Look, rebuild};

pub(super) fn recover(args: &RecoverArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let look = seen(&args.from, true)?;
    let records = look.records.values();
    if let Some(into) = &args.into {
        rebuild(&look, into).map_err(|error| Failure::new(1, plain(&error)))?;
        summary(&look, out)?;
        writeln!(
            out,
            "the store in {} is whole; siteward goes on with it as store.path",
            plain(&into.display().to_string())
        )?;
        return Ok(0);
    }
    if let Some(path) = &args.out {
        let write = || -> io::Result<()> {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            let mut writer = BufWriter::new(file);
            lines(&args.configuration, &look, records, &mut writer)?;
            writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
        };
        write().map_err(|error| Failure::new(1, plain(&format!("cannot write {}: {error}", path.display()))))?;
        summary(&look, out)?;
    } else {
        lines(&args.configuration, &look, records, out)?;
        out.flush()?;
        summary(&look, &mut io::stderr().lock())?;
    }
    Ok(u8::from(!look.missing().is_empty()))
}

fn summary(look: &Look, out: &mut dyn Write) -> io::Result<()> {
    let (count, missing) = (look.records.len(), look.missing());
    writeln!(out, "{count} records read, {} of them found only by searching the files", look.dug_out)?;
    writeln!(out, "the cloud had acknowledged the records up to {}", look.acknowledged)?;
    for gap in &missing {
        let had = if gap.1 <= look.acknowledged { "the cloud has them" } else { "the cloud does not have all of them" };
        writeln!(out, "missing: {}; {had}", range(*gap))?;
    }
    if missing.is_empty() {
        writeln!(out, "nothing is missing")?;
    }
    Ok(())
}

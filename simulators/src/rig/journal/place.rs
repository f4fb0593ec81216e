//! Where the journal lies, and what reaches the disk below it.

use std::fs;
use std::path::{Path, PathBuf};

/// What Linux counts in.
const SECTOR_BYTES: u64 = 512;

/// A directory on a real file system.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The directory.
    pub(super) path: PathBuf,
    /// Its file system: ext4, btrfs, ...
    pub(super) kind: String,
    /// Whether it is mounted with `lazytime`: that a file was written to is not written down at once.
    pub(super) is_lazy: bool,
    /// What Linux counts for the device below it, if it counts it.
    device: Option<PathBuf>,
}

impl Place {
    /// Looks at a directory.
    ///
    /// # Errors
    /// If it cannot be found, or lies in memory: synchronising costs nothing there.
    pub(super) fn of(path: &Path) -> Result<Self, String> {
        let path = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
        let (_, number, (kind, options)) = mounts
            .lines()
            .filter_map(mount)
            .filter(|(point, ..)| path.starts_with(point))
            // A later one covers an earlier one.
            .max_by_key(|(point, ..)| point.len())
            .ok_or("there is no file system")?;
        if matches!(kind, "tmpfs" | "ramfs") {
            let path = path.display();
            return Err(format!("{path} lies in memory ({kind}): name a directory on a disk with --dir"));
        }
        let device = PathBuf::from(format!("/sys/dev/block/{number}/stat"));
        let is_lazy = options.split(',').any(|option| option == "lazytime");
        Ok(Self { kind: kind.to_owned(), is_lazy, device: written(&device).map(|_| device), path })
    }

    /// The bytes written so far, by whose count.
    #[must_use]
    pub(super) fn written(&self) -> Written {
        let device = self.device.as_deref().and_then(written);
        let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
        let own = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.trim().parse().ok());
        Written { device, own: own.unwrap_or(0) }
    }
}

/// Bytes written: by everybody to the device, the file system's own journal included, and by this process into files.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    /// To the device, if that is counted.
    pub(super) device: Option<u64>,
    /// By this process.
    pub(super) own: u64,
}

impl Written {
    /// What was written since then.
    #[must_use]
    pub(super) fn since(self, then: Self) -> Self {
        let device = self.device.zip(then.device).map(|(now, then)| now.saturating_sub(then));
        Self { device, own: self.own.saturating_sub(then.own) }
    }

    /// What the goals are held against.
    #[must_use]
    pub(super) fn bytes(self) -> u64 {
        self.device.unwrap_or(self.own)
    }
}

/// The mount point, the device's number, and the kind of file system with its options of a line of `mountinfo`.
fn mount(line: &str) -> Option<(&str, &str, (&str, &str))> {
    let (place, system) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(2);
    let number = place.next()?;
    let mut system = system.split(' ');
    Some((place.nth(1)?, number, (system.next()?, system.nth(1).unwrap_or_default())))
}

fn written(stat: &Path) -> Option<u64> {
    let text = fs::read_to_string(stat).ok()?;
    let sectors: u64 = text.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * SECTOR_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_says_where_on_what_and_as_what() {
        let line = "36 35 98:0 /root /mnt rw,noatime shared:1 - ext4 /dev/root rw,lazytime,errors=continue";
        assert_eq!(mount(line), Some(("/mnt", "98:0", ("ext4", "rw,lazytime,errors=continue"))));
    }

    #[test]
    fn memory_is_refused() {
        let shared = Path::new("/dev/shm");
        if shared.exists() {
            let error = Place::of(shared).map(|place| place.kind).expect_err("it is memory");
            assert!(error.contains("--dir"), "{error}");
        }
    }
}

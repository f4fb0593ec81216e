//! A disk in memory: what a program wrote, what of it was synchronised, and what is there after a power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path};

/// What a disk writes at once.
const BLOCK: usize = 4096;

/// One change, as `shim.c` saw it.
#[derive(Debug)]
pub(crate) enum Change {
    Create {
        inode: u64,
        path: String,
    },
    Directory {
        inode: u64,
        path: String,
    },
    Write {
        inode: u64,
        at: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        inode: u64,
        length: usize,
    },
    /// `fsync` of a file or a directory.
    Synchronise {
        inode: u64,
    },
    /// `fdatasync`.
    SynchroniseData {
        inode: u64,
    },
    /// `sync_file_range`: neither the device's cache nor the file's length is safe after it.
    WriteOut,
    Rename {
        from: String,
        to: String,
    },
    Remove {
        path: String,
    },
    /// The program has said something on its standard output.
    Said(String),
}

/// Reads a whole trace.
pub(crate) fn changes(path: &Path) -> Vec<Change> {
    let mut trace = io::BufReader::new(fs::File::open(path).expect("a trace"));
    let mut changes = Vec::new();
    let mut number = [0; 8];
    while trace.read_exact(&mut number).is_ok() {
        let what = char::from(number[0]);
        let mut next = || {
            trace.read_exact(&mut number).expect("a head");
            u64::from_ne_bytes(number)
        };
        let (inode, at, first, second) = (next(), next(), next(), next());
        let mut bytes = |length: u64| {
            let mut bytes = vec![0; usize::try_from(length).expect("a length")];
            trace.read_exact(&mut bytes).expect("a body");
            bytes
        };
        let (first, second) = (bytes(first), bytes(second));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let at = usize::try_from(at).expect("a place");
        changes.push(match what {
            'C' => Change::Create { inode, path: text(&first) },
            'M' => Change::Directory { inode, path: text(&first) },
            'W' => Change::Write { inode, at, bytes: first },
            'T' => Change::Truncate { inode, length: at },
            'F' => Change::Synchronise { inode },
            'D' => Change::SynchroniseData { inode },
            'G' => Change::WriteOut,
            'R' => Change::Rename { from: text(&first), to: text(&second) },
            'U' => Change::Remove { path: text(&first) },
            'A' => Change::Said(text(&first)),
            other => panic!("a change {other:?} in the trace"),
        });
    }
    changes
}

/// When a name (of a new, renamed or removed file) is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// When its own directory was synchronised: all that POSIX promises.
    ByDirectory,
    /// When anything was synchronised after it: a journal of names, as in ext4 and XFS.
    Journalled,
}

/// What the disk does with blocks that nobody has synchronised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocks {
    /// None of them was written.
    Dropped,
    /// Some of them were, in any order.
    Scattered,
}

enum Node {
    File { now: Vec<u8>, safe: Vec<u8>, dirty: BTreeSet<usize> },
    Directory { now: BTreeMap<String, usize>, safe: BTreeMap<String, usize> },
}

/// The disk below one directory.
pub(crate) struct Disk {
    root: String,
    names: Names,
    nodes: Vec<Node>,
    by_inode: BTreeMap<u64, usize>,
    /// Counts what an `fdatasync` had to do.
    pub(crate) synchronised: u64,
    /// Leaves `fdatasync` out, as if the program had never called it.
    pub(crate) without_fdatasync: bool,
}

impl Disk {
    /// The disk as it is below `root` at present, all of it safe.
    pub(crate) fn of(root: &Path, names: Names) -> Self {
        let mut disk = Self {
            root: root.to_str().expect("a path of text").to_owned(),
            names,
            nodes: Vec::new(),
            by_inode: BTreeMap::new(),
            synchronised: 0,
            without_fdatasync: false,
        };
        disk.take_over(root);
        disk
    }

    fn take_over(&mut self, path: &Path) -> usize {
        use std::os::unix::fs::MetadataExt as _;
        let index = self.nodes.len();
        let metadata = fs::metadata(path).expect("something there");
        self.by_inode.insert(metadata.ino(), index);
        if metadata.is_file() {
            let bytes = fs::read(path).expect("a file");
            self.nodes.push(Node::File { now: bytes.clone(), safe: bytes, dirty: BTreeSet::new() });
            return index;
        }
        self.nodes.push(Node::Directory { now: BTreeMap::new(), safe: BTreeMap::new() });
        let entries: Vec<_> = fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry")).collect();
        for entry in entries {
            let child = self.take_over(&entry.path());
            let name = entry.file_name().into_string().expect("a name of text");
            if let Node::Directory { now, safe } = &mut self.nodes[index] {
                now.insert(name.clone(), child);
                safe.insert(name, child);
            }
        }
        index
    }

    /// Carries out one change.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Create { inode, path } => {
                self.add(*inode, path, Node::File { now: Vec::new(), safe: Vec::new(), dirty: BTreeSet::new() });
            }
            Change::Directory { inode, path } => {
                self.add(*inode, path, Node::Directory { now: BTreeMap::new(), safe: BTreeMap::new() });
            }
            Change::Write { inode, at, bytes } => {
                let Node::File { now, dirty, .. } = self.node(*inode) else { panic!("a directory was written") };
                let end = at + bytes.len();
                if now.len() < end {
                    now.resize(end, 0);
                }
                now[*at..end].copy_from_slice(bytes);
                dirty.extend(at / BLOCK..=(end - 1) / BLOCK);
            }
            Change::Truncate { inode, length } => {
                let Node::File { now, dirty, .. } = self.node(*inode) else { panic!("a directory was cut") };
                dirty.extend(now.len().min(*length) / BLOCK..=now.len().max(*length) / BLOCK);
                now.resize(*length, 0);
            }
            Change::Synchronise { inode } => self.synchronise(*inode),
            Change::SynchroniseData { inode } if self.without_fdatasync => drop(self.node(*inode)),
            Change::SynchroniseData { inode } => self.synchronise(*inode),
            Change::WriteOut | Change::Said(_) => {}
            Change::Rename { from, to } => {
                let moved = self.remove(from);
                let (directory, name) = self.place(to);
                self.entries(directory).insert(name, moved);
            }
            Change::Remove { path } => drop(self.remove(path)),
        }
    }

    fn synchronise(&mut self, inode: u64) {
        let everything = self.names == Names::Journalled;
        match self.node(inode) {
            Node::File { now, safe, dirty } => {
                safe.resize(now.len(), 0);
                for block in std::mem::take(dirty) {
                    let (from, to) = (block * BLOCK, ((block + 1) * BLOCK).min(now.len()));
                    if from < to {
                        safe[from..to].copy_from_slice(&now[from..to]);
                    }
                }
            }
            Node::Directory { now, safe } => safe.clone_from(now),
        }
        self.synchronised += 1;
        if everything {
            for node in &mut self.nodes {
                if let Node::Directory { now, safe } = node {
                    safe.clone_from(now);
                }
            }
        }
    }

    fn node(&mut self, inode: u64) -> &mut Node {
        let index = self.by_inode.get(&inode).expect("a known file");
        &mut self.nodes[*index]
    }

    fn add(&mut self, inode: u64, path: &str, node: Node) {
        let index = self.nodes.len();
        self.nodes.push(node);
        self.by_inode.insert(inode, index);
        let (directory, name) = self.place(path);
        self.entries(directory).insert(name, index);
    }

    fn remove(&mut self, path: &str) -> usize {
        let (directory, name) = self.place(path);
        self.entries(directory).remove(&name).expect("it was there")
    }

    /// The directory that `path` stands in, and its last part.
    fn place(&self, path: &str) -> (usize, String) {
        let inside = Path::new(path).strip_prefix(&self.root).expect("below the root");
        let names: Vec<String> = inside
            .components()
            .map(|part| match part {
                Component::Normal(name) => name.to_string_lossy().into_owned(),
                other => panic!("{other:?} in a path"),
            })
            .collect();
        let (name, above) = names.split_last().expect("a name");
        let mut directory = 0;
        for part in above {
            let Node::Directory { now, .. } = &self.nodes[directory] else { panic!("{path} leads through a file") };
            directory = now[part];
        }
        (directory, name.clone())
    }

    fn entries(&mut self, directory: usize) -> &mut BTreeMap<String, usize> {
        let Node::Directory { now, .. } = &mut self.nodes[directory] else { panic!("a file as a directory") };
        now
    }

    /// Writes into `to` what is there after a power cut at this moment. `chance` says for a block whether it was written although nobody
    /// had synchronised it.
    pub(crate) fn after_power_cut(&self, to: &Path, chance: &mut dyn FnMut() -> bool) {
        self.write_safe(0, to, chance);
    }

    fn write_safe(&self, index: usize, to: &Path, chance: &mut dyn FnMut() -> bool) {
        match &self.nodes[index] {
            Node::Directory { safe, .. } => {
                fs::create_dir_all(to).expect("room");
                for (name, child) in safe {
                    self.write_safe(*child, &to.join(name), chance);
                }
            }
            Node::File { now, safe, dirty } => {
                let mut bytes = safe.clone();
                for block in dirty.iter().filter(|_| chance()) {
                    let (from, to) = (block * BLOCK, ((block + 1) * BLOCK).min(now.len()));
                    if from < to {
                        bytes.resize(bytes.len().max(to), 0);
                        bytes[from..to].copy_from_slice(&now[from..to]);
                    }
                }
                fs::write(to, bytes).expect("room");
            }
        }
    }

    /// Whether all of it, synchronised or not, is what lies below `path`: the trace has everything.
    pub(crate) fn is_as_in(&self, path: &Path) -> bool {
        self.compare(0, path)
    }

    fn compare(&self, index: usize, path: &Path) -> bool {
        match &self.nodes[index] {
            Node::File { now, .. } => fs::read(path).is_ok_and(|bytes| bytes == *now),
            Node::Directory { now, .. } => {
                let count = fs::read_dir(path).map_or(usize::MAX, Iterator::count);
                count == now.len() && now.iter().all(|(name, child)| self.compare(*child, &path.join(name)))
            }
        }
    }
}

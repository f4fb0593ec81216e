//! Files below a folder, as bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every file below a folder, by its path from there.
pub(crate) type Tree = BTreeMap<PathBuf, Vec<u8>>;

/// Reads all files below `folder`.
pub(crate) fn read(folder: &Path) -> Tree {
    let mut tree = Tree::new();
    walk(folder, Path::new(""), &mut tree);
    tree
}

fn walk(root: &Path, below: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            walk(root, &path, tree);
        } else {
            tree.insert(path, fs::read(entry.path()).unwrap());
        }
    }
}

/// Writes all files, and nothing else, below `folder`. A folder without files is not written.
pub(crate) fn write(tree: &Tree, folder: &Path) {
    for (path, bytes) in tree {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// The paths at which two trees differ.
pub(crate) fn differences(one: &Tree, other: &Tree) -> Vec<PathBuf> {
    let paths = one.keys().chain(other.keys().filter(|path| !one.contains_key(*path)));
    paths.filter(|path| one.get(*path) != other.get(*path)).cloned().collect()
}

//! The obvious model that the checker is compared with: each disk that a crash may leave is built, for every subset of
//! the changes that may be lost. Feasible for short histories only, and where a real directory is wanted.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::history::{Event, History, Node, ROOT, contains, holds_whole_files};

/// A disk after a crash.
#[derive(Default)]
pub(super) struct DiskAfterCrash {
    entries: HashMap<Node, HashMap<String, Node>>,
    links: HashMap<Node, usize>,
    octets: HashMap<Node, Vec<u8>>,
}

/// Calls `each` with every disk that a crash before the event `cut` may leave; with none where more than `most` changes
/// may be lost. Returns true if it did.
pub(super) fn each(
    history: &History,
    durable_at: &[Option<usize>],
    cut: usize,
    most: usize,
    each: &mut dyn FnMut(&DiskAfterCrash),
) -> bool {
    let pending = history.pending(durable_at, cut);
    if pending.len() > most {
        return false;
    }
    for kept in 0..1_usize << pending.len() {
        let lost = |index: usize| {
            let position = pending.iter().position(|&pending| pending == index);
            position.is_some_and(|position| kept >> position & 1 == 0)
        };
        each(&DiskAfterCrash::after(history, cut, lost));
    }
    true
}

impl DiskAfterCrash {
    fn after(history: &History, cut: usize, lost: impl Fn(usize) -> bool) -> Self {
        let mut disk = Self {
            links: history.dirs.iter().map(|dir| (*dir, 1)).collect(),
            ..Self::default()
        };
        for (dir, name, node) in &history.before {
            disk.set(*dir, name, Some(*node));
        }
        for (index, event) in history.events[..cut].iter().enumerate() {
            match event {
                Event::Data { file, octets } => {
                    let all = disk.octets.entry(*file).or_default();
                    // Lost octets before others that are there read as zeros.
                    all.extend(octets.iter().map(|&o| if lost(index) { 0 } else { o }));
                }
                _ if lost(index) => {}
                Event::Entry { dir, name, node } => disk.set(*dir, name, *node),
                Event::Links { node, count } => drop(disk.links.insert(*node, *count)),
                _ => {}
            }
        }
        for all in disk.octets.values_mut() {
            let end = all.iter().rposition(|&octet| octet != 0);
            all.truncate(end.map_or(0, |end| end + 1));
        }
        disk
    }

    fn set(&mut self, dir: Node, name: &str, node: Option<Node>) {
        let names = self.entries.entry(dir).or_default();
        match node {
            Some(node) => drop(names.insert(name.to_owned(), node)),
            None => drop(names.remove(name)),
        }
    }

    /// The two promises, on this disk.
    pub(super) fn keeps(
        &self,
        owed: &[(&[String], &str)],
        contents: &HashMap<Node, Vec<u8>>,
    ) -> bool {
        let octets = |file: Node| self.octets.get(&file).map(Vec::as_slice).unwrap_or(b"");
        let whole = |file: Node| contents.get(&file).map(Vec::as_slice).unwrap_or(b"");
        let dirs = self.entries.values().flatten();
        let files = dirs.flat_map(|(name, dir)| {
            let files = self.entries.get(dir).into_iter().flatten();
            files.filter(move |(file, _)| holds_whole_files(name, file))
        });
        let mut there = files.filter(|(_, file)| self.is_there(**file));
        let is_kept = |(path, holds): &(&[String], &str)| {
            let step = |dir: Node, name: &String| {
                let node = self.entries.get(&dir)?.get(name).copied();
                node.filter(|node| self.is_there(*node))
            };
            let found = path.iter().try_fold(ROOT, step);
            found.is_some_and(|file| contains(octets(file), holds))
        };
        there.all(|(_, &file)| octets(file) == whole(file)) && owed.iter().all(is_kept)
    }

    /// An entry of an inode without links is removed by the file system's repair.
    fn is_there(&self, node: Node) -> bool {
        self.links.get(&node).is_some_and(|&links| links > 0)
    }

    /// Makes the disk in a real directory.
    pub(super) fn write(&self, history: &History, path: &Path) {
        self.write_dir(history, ROOT, path);
    }

    fn write_dir(&self, history: &History, dir: Node, path: &Path) {
        for (name, node) in self.entries.get(&dir).into_iter().flatten() {
            let path = path.join(name);
            if history.dirs.contains(node) {
                fs::create_dir(&path).unwrap();
                self.write_dir(history, *node, &path);
            } else if self.is_there(*node) {
                fs::write(
                    path,
                    self.octets.get(node).map(Vec::as_slice).unwrap_or(b""),
                )
                .unwrap();
            }
        }
    }
}

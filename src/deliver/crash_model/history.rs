//! The changes of a run to the disk, in order, and the promises still owed after a crash at any point of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A file or directory, numbered in the order in which they were made; the root is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Node(pub(super) usize);

/// The root directory.
pub(super) const ROOT: Node = Node(0);

/// A change of the disk, or what is known of changes.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A name that is added to a directory or removed.
    Entry {
        dir: Node,
        name: String,
        node: Option<Node>,
    },
    /// Octets at the end of a file.
    Data { file: Node, octets: Arc<[u8]> },
    /// The number of names that an inode has from now on.
    Links { node: Node, count: usize },
    /// The end of a sync, with the number of events at its beginning.
    Synced { node: Node, begun: usize, ok: bool },
    /// From now on a whole file with these octets in it is owed at a path.
    Promised { path: Vec<String>, holds: String },
    /// This promise is fulfilled.
    Released { path: Vec<String>, holds: String },
}

/// Events, and the names that were there before, durably.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) before: Vec<(Node, String, Node)>,
    /// A directory is written anew with each change of its names, so that it is there whenever its own name is.
    pub(super) dirs: HashSet<Node>,
    pub(super) events: Vec<Event>,
}

impl History {
    /// The node that a change belongs to: a sync of it makes the change durable.
    fn changed(event: &Event) -> Option<Node> {
        match event {
            Event::Entry { dir: node, .. }
            | Event::Data { file: node, .. }
            | Event::Links { node, .. } => Some(*node),
            Event::Synced { .. } | Event::Promised { .. } | Event::Released { .. } => None,
        }
    }

    /// For each event the number of the one that made it durable. The first sync that covers a change decides: if it
    /// fails, the change may be lost even if later ones succeed.
    pub(super) fn durable_at(&self) -> Vec<Option<usize>> {
        let mut syncs: HashMap<Node, Vec<(usize, usize, bool)>> = HashMap::new();
        for (ended, event) in self.events.iter().enumerate() {
            if let Event::Synced { node, begun, ok } = event {
                syncs.entry(*node).or_default().push((*begun, ended, *ok));
            }
        }
        let decide = |(index, event): (usize, &Event)| {
            let covers = |&&(begun, ended, ok): &&(usize, usize, bool)| {
                ended > index && (!ok || begun > index)
            };
            let first = syncs.get(&Self::changed(event)?)?.iter().find(covers);
            first.filter(|sync| sync.2).map(|sync| sync.1)
        };
        self.events.iter().enumerate().map(decide).collect()
    }

    /// The changes before `cut` that a crash there may lose.
    pub(super) fn pending(&self, durable_at: &[Option<usize>], cut: usize) -> Vec<usize> {
        let lost = |&index: &usize| {
            Self::changed(&self.events[index]).is_some()
                && durable_at[index].is_none_or(|ended| ended >= cut)
        };
        (0..cut).filter(lost).collect()
    }

    /// All octets of each file, from the first write of the run to its last.
    pub(super) fn contents(&self) -> HashMap<Node, Vec<u8>> {
        let mut contents: HashMap<Node, Vec<u8>> = HashMap::new();
        for event in &self.events {
            if let Event::Data { file, octets } = event {
                contents.entry(*file).or_default().extend_from_slice(octets);
            }
        }
        contents
    }

    /// The promises owed at a crash before the event `cut`.
    pub(super) fn owed(&self, cut: usize) -> Vec<(&[String], &str)> {
        let mut owed = Vec::new();
        for event in &self.events[..cut] {
            match event {
                Event::Promised { path, holds } => owed.push((path.as_slice(), holds.as_str())),
                Event::Released { path, holds } => {
                    owed.retain(|owed| *owed != (path.as_slice(), holds.as_str()));
                }
                _ => {}
            }
        }
        owed
    }

    /// How many promises were made.
    pub(super) fn promises(&self) -> usize {
        let promised = |event: &&Event| matches!(event, Event::Promised { .. });
        self.events.iter().filter(promised).count()
    }

    /// True if the last message to one mailbox was accepted during a sync of the other mailbox.
    pub(super) fn overtaken(&self, by: &str, slow: &str) -> bool {
        let promise = |user: &str| {
            let to = |event: &Event| matches!(event, Event::Promised { path, .. } if path.iter().any(|name| name == user));
            self.events.iter().rposition(to)
        };
        let (Some(quick), Some(late)) = (promise(by), promise(slow)) else {
            return false;
        };
        let spans = |event: &Event| matches!(event, Event::Synced { begun, .. } if *begun <= quick);
        quick < late && self.events[quick..late].iter().any(spans)
    }

    /// The nodes that were synced, in the order of their creation.
    pub(super) fn synced(&self) -> Vec<Node> {
        let synced = |event: &Event| match event {
            Event::Synced { node, .. } => Some(*node),
            _ => None,
        };
        let nodes: HashSet<Node> = self.events.iter().filter_map(synced).collect();
        let mut nodes: Vec<Node> = nodes.into_iter().collect();
        nodes.sort();
        nodes
    }

    /// True if a node has a name at the end of the run.
    pub(super) fn is_named(&self, node: Node) -> bool {
        let mut names: HashMap<(Node, &str), Option<Node>> = HashMap::new();
        for event in &self.events {
            if let Event::Entry { dir, name, node } = event {
                names.insert((*dir, name), *node);
            }
        }
        node == ROOT || names.values().any(|named| *named == Some(node))
    }
}

/// True if a directory of this name only holds complete files, except those marked by their names.
pub(super) fn holds_whole_files(dir: &str, file: &str) -> bool {
    // The name of an envelope is an id, which has one dot.
    let is_envelope = file.matches('.').count() == 1;
    dir == "new" && !is_envelope && !file.ends_with(".half")
}

/// True if a file contains a text.
pub(super) fn contains(octets: &[u8], text: &str) -> bool {
    octets
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

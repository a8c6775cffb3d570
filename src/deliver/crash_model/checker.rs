//! The checker: checks, at each point of a history, every disk that a crash may leave.

use std::collections::HashMap;

use super::history::{Event, History, Node, ROOT, contains, holds_whole_files};

/// Lets the system crash before, between and after all events, with every legal loss.
///
/// # Errors
/// The first point at which a promise would be broken, and how.
pub(super) fn check(history: &History) -> Result<(), String> {
    let mut verdicts = verdicts(history).into_iter().enumerate();
    verdicts.try_for_each(|(cut, kept)| {
        kept.map_err(|what| format!("crash after {cut} events: {what}"))
    })
}

/// Checks the promises for a crash after a number of events.
pub(super) fn verdicts(history: &History) -> Vec<Result<(), String>> {
    let mut settled = vec![Vec::new(); history.events.len()];
    for (change, ended) in history.durable_at().into_iter().enumerate() {
        if let Some(ended) = ended {
            settled[ended].push(change);
        }
    }
    let contents = history.contents();
    let mut places = Places::before(history);
    let mut verdicts = vec![Ok(())];
    for (index, event) in history.events.iter().enumerate() {
        places.change(index, event);
        for &change in &settled[index] {
            places.settle(change, &history.events[change]);
        }
        verdicts.push(places.check(&history.owed(index + 1), &contents));
    }
    verdicts
}

/// The values that a place of the disk may have after a crash, each with the change that it is of, oldest first.
struct Place<T>(Vec<(usize, T)>);

/// The place of each thing on the disk.
#[derive(Default)]
struct Places<'a> {
    entries: HashMap<Node, HashMap<&'a str, Place<Option<Node>>>>,
    links: HashMap<Node, Place<usize>>,
    /// Octets of each file that are there for sure.
    octets: HashMap<Node, usize>,
}

impl<T> Place<T> {
    fn of(value: T) -> Self {
        Self(vec![(0, value)])
    }

    fn change(&mut self, index: usize, value: T) {
        self.0.push((index, value));
    }

    /// The values from before a change that is durable now are gone.
    fn settle(&mut self, change: usize) {
        let durable = self.0.iter().rposition(|(index, _)| *index == change);
        self.0.drain(..durable.unwrap_or(0));
    }

    fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, value)| value)
    }
}

impl<'a> Places<'a> {
    fn before(history: &'a History) -> Self {
        let mut places = Self::default();
        for dir in &history.dirs {
            places.links.insert(*dir, Place::of(1));
        }
        for (dir, name, node) in &history.before {
            let names = places.entries.entry(*dir).or_default();
            names.insert(name, Place::of(Some(*node)));
        }
        places
    }

    fn change(&mut self, index: usize, event: &'a Event) {
        match event {
            Event::Entry { dir, name, node } => {
                let names = self.entries.entry(*dir).or_default();
                let place = names.entry(name).or_insert_with(|| Place::of(None));
                place.change(index, *node);
            }
            Event::Links { node, count } => {
                let place = self.links.entry(*node).or_insert_with(|| Place::of(0));
                place.change(index, *count);
            }
            _ => {}
        }
    }

    fn settle(&mut self, change: usize, event: &'a Event) {
        match event {
            Event::Entry { dir, name, .. } => {
                let names = self.entries.get_mut(dir);
                let place = names.and_then(|names| names.get_mut(name.as_str()));
                place.unwrap().settle(change);
            }
            Event::Links { node, .. } => self.links.get_mut(node).unwrap().settle(change),
            Event::Data { file, octets } => {
                *self.octets.entry(*file).or_default() += octets.len();
            }
            _ => {}
        }
    }

    fn check(
        &self,
        owed: &[(&[String], &str)],
        contents: &HashMap<Node, Vec<u8>>,
    ) -> Result<(), String> {
        let is_whole =
            |file: Node| self.octets.get(&file).copied() == contents.get(&file).map(Vec::len);
        for (dir, inner) in self.entries.values().flatten() {
            for dir_node in inner.values().flatten() {
                for (name, file) in self.files(*dir_node) {
                    let visible = holds_whole_files(dir, name) && self.may_have_links(file);
                    if visible && !is_whole(file) {
                        return Err(format!("half a file at {dir}/{name}"));
                    }
                }
            }
        }
        for (path, holds) in owed {
            let is_kept = |file: &Option<Node>| {
                file.is_some_and(|file| {
                    let all = contents.get(&file).map(Vec::as_slice).unwrap_or_default();
                    self.has_links(file) && is_whole(file) && contains(all, holds)
                })
            };
            if !self.at_path(path).iter().all(is_kept) {
                return Err(format!("accepted and lost: {}", path.join("/")));
            }
        }
        Ok(())
    }

    /// The nodes that may be at a path; `None` is nothing.
    fn at_path(&self, path: &[String]) -> Vec<Option<Node>> {
        let mut nodes = vec![Some(ROOT)];
        for name in path {
            let inner = |dir: Option<Node>| -> Vec<Option<Node>> {
                let names = dir.and_then(|dir| self.entries.get(&dir));
                match names.and_then(|names| names.get(name.as_str())) {
                    Some(place) => place.values().copied().collect(),
                    None => vec![None],
                }
            };
            nodes = nodes.into_iter().flat_map(inner).collect();
        }
        nodes
    }

    /// The files that may have names in a directory.
    fn files(&self, dir: Node) -> impl Iterator<Item = (&'a str, Node)> {
        let names = self.entries.get(&dir).into_iter().flatten();
        names.flat_map(|(name, place)| place.values().flatten().map(|node| (*name, *node)))
    }

    fn has_links(&self, node: Node) -> bool {
        let counts = self.links.get(&node);
        counts.is_some_and(|counts| counts.values().all(|&count| count > 0))
    }

    fn may_have_links(&self, node: Node) -> bool {
        let counts = self.links.get(&node);
        counts.is_some_and(|counts| counts.values().any(|&count| count > 0))
    }
}

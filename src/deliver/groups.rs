//! The recipients of a message: its mailboxes, each once, and those of each recipient. A thousand recipients that are
//! the same list of a thousand members take two thousand steps.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::target::{Group, Target};

/// The mailboxes of each recipient of a message.
pub struct Groups {
    each: Vec<Group>,
    distinct: bool,
}

/// Groups of mailboxes, as indexes into the list of all.
pub(super) struct Members {
    /// The mailboxes of each distinct group, sorted.
    pub(super) groups: Vec<Vec<usize>>,
    /// The group of each recipient.
    pub(super) recipients: Vec<usize>,
}

impl Groups {
    /// Recipients without common mailboxes, so that duplicates need not be looked for.
    pub const fn distinct(each: Vec<Group>) -> Self {
        Self {
            each,
            distinct: true,
        }
    }

    /// The only mailbox, if the message was sent to one address with one mailbox.
    pub(super) fn only(&self) -> Option<&Target> {
        match self.each.as_slice() {
            [Group::One(target)] => Some(target),
            _ => None,
        }
    }

    /// The mailboxes, each once, in the order of the recipients.
    pub(super) fn mailboxes(&self) -> Vec<Arc<Target>> {
        let mut all = Vec::with_capacity(self.each.len());
        let (mut lists, mut known) = (HashSet::new(), HashSet::new());
        for group in &self.each {
            if self.distinct || group.list().is_none_or(|list| lists.insert(list)) {
                let targets = group.iter();
                let new = targets.filter(|t| self.distinct || known.insert(t.mailbox()));
                all.extend(new.cloned());
            }
        }
        all
    }

    /// The members of each group among `mailboxes`.
    pub(super) fn members<'a>(&self, mailboxes: impl Iterator<Item = &'a Target>) -> Members {
        let places: HashMap<_, usize> = mailboxes.map(Target::mailbox).zip(0..).collect();
        let mut lists = HashMap::new();
        let mut groups = Vec::new();
        let mut add = |group: &Group| {
            let mut members = BTreeSet::new();
            let complete = group.iter().all(|target| {
                let place = places.get(&target.mailbox()).copied();
                place.map(|place| members.insert(place)).is_some()
            });
            // If one were missing, the empty group would get no receipt.
            let members = members.into_iter().filter(|_| complete);
            groups.push(members.collect());
            groups.len() - 1
        };
        let each = self.each.iter().map(|group| match group.list() {
            Some(list) => *lists.entry(list).or_insert_with(|| add(group)),
            None => add(group),
        });
        let recipients = each.collect();
        Members { groups, recipients }
    }
}

impl From<Vec<Group>> for Groups {
    fn from(each: Vec<Group>) -> Self {
        Self {
            each,
            distinct: false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a test may panic")]
    use super::*;
    use crate::deliver::faults::{Scratch, target};

    #[test]
    fn equal_lists_and_mailboxes_are_kept_once() {
        let scratch = Scratch::new();
        let member = |n: usize| Arc::new(target(&scratch, &format!("u{n}")));
        let list: Group = (0..1_000).map(member).collect();
        let other: Group = [member(7), member(7), member(2_000)].into_iter().collect();
        let mut groups = vec![list; 1_000];
        groups.push(other);
        let groups = Groups::from(groups);
        let mailboxes = groups.mailboxes();
        assert_eq!(mailboxes.len(), 1_001);
        let found = groups.members(mailboxes.iter().map(Arc::as_ref));
        assert_eq!(found.groups.len(), 2);
        assert_eq!(found.groups[1], [7, 1_000]);
        assert_eq!(found.recipients.len(), 1_001);
        assert!(groups.only().is_none());
    }

    /// Two addresses of a catch-all are one mailbox, whose copy names neither.
    #[test]
    fn one_address_alone_is_named() {
        let scratch = Scratch::new();
        let group = || Group::One(Arc::new(target(&scratch, "a")));
        assert!(Groups::from(vec![group()]).only().is_some());
        let both = Groups::from(vec![group(), group()]);
        assert!(both.only().is_none() && both.mailboxes().len() == 1);
    }
}

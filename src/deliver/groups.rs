//! The targets of a message without duplicates: each mailbox once, and each group of mailboxes once, even if several
//! recipients lead to them. A thousand recipients that are the same list of a thousand members cost two thousand steps.

use std::collections::HashMap;
use std::sync::Arc;

use super::target::{Group, Target};

/// The distinct mailboxes and groups of a message.
#[derive(Default)]
pub(super) struct Groups {
    /// The first target of each mailbox.
    pub(super) targets: Vec<Arc<Target>>,
    /// The mailboxes of each group, as sorted indexes into `targets`.
    pub(super) members: Vec<Vec<usize>>,
    /// For each recipient the index of its group in `members`.
    pub(super) recipients: Vec<usize>,
}

impl Groups {
    pub(super) fn new(groups: &[Group]) -> Self {
        let mut all = Self::default();
        // Most messages go to one mailbox.
        if let [group] = groups
            && let [target] = &**group
        {
            all.targets.push(Arc::clone(target));
            all.members.push(vec![0]);
            all.recipients.push(0);
            return all;
        }
        let mut mailboxes = HashMap::with_capacity(groups.len());
        let mut known = HashMap::with_capacity(groups.len());
        for group in groups {
            let own = *known.entry(Arc::as_ptr(group)).or_insert_with(|| {
                let mut members: Vec<usize> = Vec::with_capacity(group.len());
                for target in group.iter() {
                    let mailbox = (target.maildir.as_os_str(), target.folder.as_deref());
                    members.push(*mailboxes.entry(mailbox).or_insert_with(|| {
                        all.targets.push(Arc::clone(target));
                        all.targets.len() - 1
                    }));
                }
                members.sort_unstable();
                members.dedup();
                all.members.push(members);
                all.members.len() - 1
            });
            all.recipients.push(own);
        }
        all
    }

    /// The only mailbox, if the message was sent to one address with one mailbox.
    pub(super) fn only(&self) -> Option<&Target> {
        match (self.recipients.as_slice(), self.targets.as_slice()) {
            ([_], [target]) => Some(target),
            _ => None,
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
        let mut groups = vec![Arc::clone(&list); 1_000];
        groups.push(other);
        let found = Groups::new(&groups);
        assert_eq!(found.targets.len(), 1_001);
        assert_eq!(found.members.len(), 2);
        assert_eq!(found.members[1], [7, 1_000]);
        assert_eq!(found.recipients.len(), 1_001);
        assert!(found.only().is_none());
    }

    /// Two addresses of a catch-all are one mailbox, whose copy names neither.
    #[test]
    fn one_address_alone_is_named() {
        let scratch = Scratch::new();
        let group = || -> Group { [Arc::new(target(&scratch, "a"))].into_iter().collect() };
        assert!(Groups::new(&[group()]).only().is_some());
        assert!(Groups::new(&[group(), group()]).only().is_none());
    }
}

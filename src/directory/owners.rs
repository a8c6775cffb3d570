//! The owners of mailboxes, for a warning at the start.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::lookup::Directory;
use crate::deliver::{Owner, Target};

/// Maximum mailboxes that are examined.
const MAX_EXAMINED: usize = 1_000;

impl Directory {
    /// A mailbox, among the first ones, that belongs to another user than `uid` although its entry names no owner; and
    /// that user. Its mail would belong to `uid`.
    pub fn mailbox_of_other(&self, uid: u32) -> Option<(PathBuf, u32)> {
        self.first_mailboxes().find_map(|target| {
            let found = fs::symlink_metadata(&target.maildir).ok()?;
            let other = target.owner.is_none() && found.is_dir() && found.uid() != uid;
            other.then(|| (target.maildir, found.uid()))
        })
    }

    /// A directory, among those of the first mailboxes, in which the mailbox's owner may not write, as older versions
    /// made them; and the owner. Files are created with the owner's rights, so mail for it is refused.
    pub fn unwritable_part(&self) -> Option<(PathBuf, u32)> {
        self.first_mailboxes().find_map(|target| {
            let owner = target.owner?;
            let mut parts = ["tmp", "new"]
                .into_iter()
                .map(|part| target.maildir.join(part));
            let unwritable = parts.find(|part| {
                let found = fs::symlink_metadata(part);
                found.is_ok_and(|found| found.is_dir() && !may_write(&found, owner))
            });
            unwritable.map(|part| (part, owner.uid))
        })
    }

    /// The first mailboxes of each domain.
    fn first_mailboxes(&self) -> impl Iterator<Item = Target> {
        (0..self.domains.len()).flat_map(move |domain| self.first_mailboxes_of(domain))
    }

    fn first_mailboxes_of(&self, domain: usize) -> Vec<Target> {
        if let Some(users) = &self.users {
            let key = self.domains.key(domain);
            let entries = users.iter().filter(|entry| entry.is_at(key));
            let found = entries.filter_map(|entry| self.listed(&entry, domain));
            return found.take(MAX_EXAMINED).map(|found| found.target).collect();
        }
        let Some(siblings) = self.pattern.siblings(self.domains.name(domain)) else {
            return Vec::new();
        };
        let entries = fs::read_dir(&siblings.dir).into_iter().flatten();
        let target = |entry| self.target(&siblings.local(entry)?, domain, None);
        entries.take(MAX_EXAMINED).filter_map(target).collect()
    }
}

/// True if the mode lets a user create files in a directory.
fn may_write(found: &Metadata, owner: Owner) -> bool {
    let shift = match (found.uid() == owner.uid, found.gid() == owner.gid) {
        (true, _) => 6,
        (false, true) => 3,
        (false, false) => 0,
    };
    found.mode() >> shift & 0o3 == 0o3
}

//! The owners of mailboxes, for a warning at the start.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::lookup::Directory;
use crate::deliver::{Owner, Target};

/// Maximum mailboxes that are examined.
const LOOKED_AT: usize = 1_000;

impl Directory {
    /// True if the users file has owners.
    pub fn has_owners(&self) -> bool {
        let mut entries = self.users.iter().flat_map(|users| users.iter());
        entries.any(|entry| matches!(entry.owner(), Ok(Some(_))))
    }

    /// A mailbox, with its owner, that belongs to another user than `uid` without an entry that says so: its mail would
    /// belong to `uid`. Only the first mailboxes are examined.
    pub fn foreign_mailbox(&self, uid: u32) -> Option<(PathBuf, u32)> {
        let domains = 0..self.domains.len();
        let mut all = domains.flat_map(|domain| self.mailboxes(domain));
        all.find_map(|target| {
            let found = fs::symlink_metadata(&target.maildir).ok()?;
            let foreign = target.owner.is_none() && found.is_dir() && found.uid() != uid;
            foreign.then(|| (target.maildir, found.uid()))
        })
    }

    /// Among the first mailboxes a part that its own user may not write in, as older versions made it by root. With the
    /// user: files are made with that one's rights, so mail there is refused.
    pub fn closed_part(&self) -> Option<(PathBuf, u32)> {
        let domains = 0..self.domains.len();
        let mut all = domains.flat_map(|domain| self.mailboxes(domain));
        all.find_map(|target| {
            let owner = target.owner?;
            let mut parts = ["tmp", "new"]
                .into_iter()
                .map(|part| target.maildir.join(part));
            let closed = parts.find(|part| {
                let found = fs::symlink_metadata(part);
                found.is_ok_and(|found| found.is_dir() && !may_write(&found, owner))
            });
            closed.map(|part| (part, owner.uid))
        })
    }

    /// Some mailboxes of a domain.
    fn mailboxes(&self, domain: usize) -> Vec<Target> {
        if let Some(users) = &self.users {
            let key = self.domains.key(domain);
            let entries = users.iter().filter(|entry| entry.is_at(key));
            let found = entries.filter_map(|entry| self.listed(&entry, domain));
            return found.take(LOOKED_AT).map(|found| found.target).collect();
        }
        let siblings = self.pattern.siblings(self.domains.name(domain));
        let Some((siblings, entries)) = siblings
            .and_then(|siblings| fs::read_dir(&siblings.dir).ok().map(|dir| (siblings, dir)))
        else {
            return Vec::new();
        };
        let named = entries.take(LOOKED_AT).filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let local = name.strip_prefix(&siblings.before)?;
            self.target(local.strip_suffix(&siblings.after)?, domain, None)
        });
        named.collect()
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

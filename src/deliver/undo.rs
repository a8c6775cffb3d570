//! Undoes a message that is not committed: neither a name nor room in a quota is left.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::disk;
use super::spool::{Delivery, Spool};

impl Spool {
    /// Undoes everything that was begun for a mailbox: names in `new/` and `tmp/`, room in the quota.
    pub(super) fn undo(&mut self, index: usize) {
        let begun = |d: &&Delivery| !d.done && (d.published || d.staged || d.reserved);
        let Some(delivery) = self.deliveries.get(index).filter(begun) else {
            return;
        };
        let (published, staged, reserved) =
            (delivery.published, delivery.staged, delivery.reserved);
        let name = delivery.name(&self.name).to_owned();
        let target = Arc::clone(&delivery.target);
        match self.dirs(index) {
            Ok(dirs) => {
                let context = Arc::clone(&self.context);
                let disk = context.disk.as_ref();
                if staged {
                    let _ = disk.unlink(disk::fd(&dirs.tmp), OsStr::new(&name));
                }
                // A reader may have moved it to cur/: then it stays, and the client's next try is a duplicate.
                let unlink = || disk.unlink(disk::fd(&dirs.new), OsStr::new(&name)).is_ok();
                if reserved {
                    let gone = || !published || unlink();
                    context.ledger.release(
                        disk,
                        &dirs,
                        &target,
                        self.size_at(index),
                        !published,
                        gone,
                    );
                } else if published {
                    unlink();
                }
                // Shared, because a failure may have lost the names of other messages.
                if published {
                    let sync = || context.syncs.directory(disk, disk::fd(&dirs.new));
                    let _ = dirs.syncs.sync(dirs.syncs.ticket(), sync);
                }
            }
            Err(trouble) => {
                log::error!("undo failed id={} {trouble}", self.id);
                // The mailbox that takes its place has all of its room.
                if reserved && !published {
                    let (ledger, size) = (&self.context.ledger, self.size_at(index));
                    let _ = ledger.publish(&target.maildir, size, || Ok(()));
                }
            }
        }
        if let Some(delivery) = self.deliveries.get_mut(index) {
            (delivery.published, delivery.staged, delivery.reserved) = (false, false, false);
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        for index in 0..self.deliveries.len() {
            self.undo(index);
        }
        self.remove_sources();
        // After an error RCPT must look closely again, or it would accept the mailbox for as long as it is asked to.
        for delivery in self.deliveries.iter().filter(|delivery| !delivery.done) {
            self.context.dirs.forget(&delivery.target);
        }
        // These close the message's last descriptors, so others may only use them afterwards.
        self.sources.clear();
        self.deliveries.clear();
        self.context.spare.fetch_add(self.held, Ordering::Relaxed);
    }
}

//! Commits a message: from complete files to a name in every mailbox's `new/`. A review of durability is a review of
//! this file. The order is always: sync the files, take quota, check that every directory is open and in place, make
//! copies where a link is not possible, create the names, sync the directories, make the receipt. If a step fails,
//! dropping the spool undoes the others.

use std::io;
use std::sync::Arc;

use nix::errno::Errno;

use super::disk::{self, errno};
use super::groups::Members;
use super::maildir::OpenMaildir;
use super::quota::Reservation;
use super::refusal::{Trouble, for_queue};
use super::spool::{Delivery, Spool};
use crate::clock;
use crate::smtp::reply::{self, Reply};

/// Maximum names to try: a second one is only needed if clock, process id and count all repeat.
pub(super) const ATTEMPTS: u32 = 10;

/// The receipt for a message that is in `new/` and durable. Only a commit makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    id: String,
    name: String,
}

impl Delivered {
    /// The unique part of the file name, which client, log and file share.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The file name in `new/`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The acknowledgement (RFC 5321 §4.2.5), by which the server takes responsibility.
    pub fn reply(&self) -> Reply {
        let text = ["Message accepted for delivery as ", &self.id].concat();
        reply::reply(250, reply::Enhanced(0, 0), "").with_text(text)
    }
}

/// The way a message gets into a mailbox; the number is that of its source.
enum Way {
    /// The file itself is moved.
    Move(usize),
    Link(usize),
    /// The copy in `tmp/` is moved.
    Copy,
}

impl Spool {
    /// Delivers to all mailboxes or to none (SMTP).
    ///
    /// # Errors
    /// A refusal: then nothing is left in any `new/` or `tmp/`. It is a 5xx only if all mailboxes have one.
    pub fn commit(mut self: Box<Self>) -> Result<Delivered, Reply> {
        let all: Vec<usize> = (0..self.deliveries.len()).collect();
        let outcome = self.commit_all(&all);
        outcome.map_err(|refusal| self.refused(&all, refusal))
    }

    fn commit_all(&mut self, all: &[usize]) -> Result<Delivered, Reply> {
        self.seal()?;
        self.appear_all(all)?;
        for &index in all {
            let synced = self.make_durable(index);
            synced.map_err(|refusal| softened(refusal, all.len()))?;
        }
        self.receipt(all)
    }

    /// Delivers to each recipient separately (LMTP, RFC 2033 §4.2), in order: to all mailboxes of its group or to none.
    /// Directories are synced after all names are created: with a journal the first sync then serves all.
    pub fn commit_each(mut self: Box<Self>) -> Vec<Result<Delivered, Reply>> {
        // Sealing may redirect deliveries to other folders.
        let mailboxes = self.deliveries.iter().map(|d| d.target.as_ref());
        let Members { groups, recipients } = self.groups.members(mailboxes);
        if let Err(refusal) = self.seal() {
            return vec![Err(refusal); recipients.len()];
        }
        let mut outcomes: Vec<Result<(), Reply>> = Vec::with_capacity(groups.len());
        for members in &groups {
            let new: Vec<usize> = members
                .iter()
                .copied()
                .filter(|&index| !self.deliveries.get(index).is_some_and(|d| d.published))
                .collect();
            let outcome = self.appear_all(&new);
            if outcome.is_err() {
                new.iter().for_each(|&index| self.undo(index));
            }
            outcomes.push(outcome.map_err(|refusal| softened(refusal, members.len())));
        }
        for index in 0..self.deliveries.len() {
            if self.deliveries.get(index).is_some_and(|d| d.published)
                && let Err(refusal) = self.make_durable(index)
                && let Some(delivery) = self.deliveries.get_mut(index)
            {
                delivery.refusal = Some(refusal);
            }
        }
        let delivered = groups.iter().zip(outcomes);
        let delivered: Vec<_> = delivered
            .map(|(members, outcome)| {
                let durable = outcome.and_then(|()| self.durable(members));
                durable.map_err(|refusal| self.refused(members, refusal))
            })
            .collect();
        let receipts = self.settle(&groups, &delivered);
        let lost = || Err(reply::LOCAL_ERROR);
        let of = |&group: &usize| receipts.get(group).cloned().unwrap_or_else(lost);
        recipients.iter().map(of).collect()
    }

    /// The refusal for these mailboxes, or for the queue alone.
    fn refused(&self, members: &[usize], refusal: Reply) -> Reply {
        let mut all = members.iter().map(|&index| self.deliveries.get(index));
        match all.all(|delivery| delivery.is_some_and(|d| !d.target.is_mailbox())) {
            true => for_queue(refusal),
            false => refusal,
        }
    }

    /// Checks that every mailbox of a group has the message durably.
    fn durable(&self, members: &[usize]) -> Result<(), Reply> {
        let refused = |&index: &usize| self.deliveries.get(index)?.refusal.clone();
        match members.iter().find_map(refused) {
            Some(refusal) => Err(softened(refusal, members.len())),
            None => Ok(()),
        }
    }

    /// Undoes deliveries that only refused groups need, and makes the receipts of the others.
    fn settle(
        &mut self,
        groups: &[Vec<usize>],
        outcomes: &[Result<(), Reply>],
    ) -> Vec<Result<Delivered, Reply>> {
        let mut wanted = vec![false; self.deliveries.len()];
        for (members, _) in groups.iter().zip(outcomes).filter(|(_, o)| o.is_ok()) {
            for index in members {
                if let Some(wanted) = wanted.get_mut(*index) {
                    *wanted = true;
                }
            }
        }
        for (index, _) in wanted.iter().enumerate().filter(|(_, wanted)| !**wanted) {
            self.undo(index);
        }
        let mut receipts: Vec<Result<Delivered, Reply>> = Vec::with_capacity(groups.len());
        for (members, outcome) in groups.iter().zip(outcomes) {
            receipts.push(outcome.clone().and_then(|()| self.receipt(members)));
        }
        receipts
    }

    /// Makes the message visible in all of these mailboxes. After an error the caller must undo what was begun.
    fn appear_all(&mut self, members: &[usize]) -> Result<(), Reply> {
        let count = members.len();
        self.check_refusals(members)?;
        self.reserve_all(members)?;
        for &index in members {
            let prepared = self.prepare(index).or_else(|trouble| {
                self.retreat(index, trouble)?;
                self.prepare(index)
            });
            prepared.map_err(|trouble| softened(self.log(&trouble), count))?;
        }
        let mut left = members;
        while let Some((&index, rest)) = left.split_first() {
            let appeared = self.appear(index, left).or_else(|trouble| {
                self.retreat(index, trouble)?;
                self.prepare(index)?;
                self.appear(index, left)
            });
            appeared.map_err(|trouble| softened(self.log(&trouble), count))?;
            left = rest;
        }
        Ok(())
    }

    /// Makes the receipt of a recipient, after the last sync of its mailboxes. This is the only place that creates a
    /// [`Delivered`].
    fn receipt(&mut self, members: &[usize]) -> Result<Delivered, Reply> {
        let context = Arc::clone(&self.context);
        for &index in members {
            let delivery = self.delivery(index).map_err(|trouble| trouble.refusal())?;
            delivery.done = true;
            if let Some(dirs) = &delivery.dirs {
                context.keep(&delivery.target, dirs);
            }
        }
        // The queue knows its file by the receipt's name, and a mailbox beside it may have another one.
        let deliveries = |index: &usize| self.deliveries.get(*index);
        let queue = |delivery: &&Delivery| !delivery.target.is_mailbox();
        let onward = members.iter().filter_map(deliveries).find(queue);
        let first = onward.or_else(|| members.first().and_then(deliveries));
        let first = first.ok_or(reply::LOCAL_ERROR)?;
        let own = || (self.id.clone(), self.name.clone());
        let (id, name) = first.renamed.clone().unwrap_or_else(own);
        Ok(Delivered { id, name })
    }

    /// Checks that these mailboxes and their disks have had no error.
    fn check_refusals(&self, members: &[usize]) -> Result<(), Reply> {
        let refused = |&index: &usize| self.deliveries.get(index)?.refusal.clone();
        let refusals: Vec<Reply> = members.iter().filter_map(refused).collect();
        let Some(first) = refusals.first() else {
            return Ok(());
        };
        match refusals.iter().find(|refusal| refusal.code() < 500) {
            Some(temporary) => Err(temporary.clone()),
            None if refusals.len() == members.len() => Err(first.clone()),
            None => Err(softened(first.clone(), usize::MAX)),
        }
    }

    /// Reserves room in every mailbox's quota.
    fn reserve_all(&mut self, members: &[usize]) -> Result<(), Reply> {
        let mut full = 0;
        for &index in members {
            let room = self.reserve(index).or_else(|trouble| {
                self.retreat(index, trouble)?;
                self.reserve(index)
            });
            let room = room.map_err(|trouble| softened(self.log(&trouble), members.len()))?;
            full += usize::from(!room);
        }
        match full {
            0 => Ok(()),
            _ if full == members.len() => Err(reply::MAILBOX_FULL),
            // A 5xx would bounce the message for mailboxes with room; at the next try RCPT refuses the full ones.
            _ => Err(reply::SOME_FULL),
        }
    }

    /// Reserves room in one mailbox's quota; false if it is full.
    fn reserve(&mut self, index: usize) -> Result<bool, Trouble> {
        let target = &self.delivery(index)?.target;
        if target.counted_quota().is_none() {
            return Ok(true);
        }
        let target = Arc::clone(target);
        let dirs = self.dirs(index)?;
        let context = Arc::clone(&self.context);
        let size = self.size_at(index);
        let reservation = context
            .ledger
            .reserve(context.disk.as_ref(), &dirs, &target, size);
        self.delivery(index)?.reserved = reservation == Reservation::Made;
        Ok(reservation != Reservation::Full)
    }

    /// Does everything that can be done before the message is visible: checks that directories are open and still in
    /// place, and makes and syncs necessary copies.
    fn prepare(&mut self, index: usize) -> Result<(), Trouble> {
        let dirs = self.dirs(index)?;
        if !dirs.in_place(self.context.disk.as_ref()) {
            let target = Arc::clone(&self.delivery(index)?.target);
            self.context.dirs.forget(&target);
            return Err(Trouble::away(&dirs.path));
        }
        match self.way(index, &dirs)? {
            Way::Copy => self.stage_copy(index),
            Way::Move(_) | Way::Link(_) => Ok(()),
        }
    }

    /// Decides how the message gets into a mailbox.
    fn way(&self, index: usize, dirs: &OpenMaildir) -> Result<Way, Trouble> {
        let delivery = self.deliveries.get(index);
        if delivery.is_none_or(|delivery| delivery.staged) || self.is_rewritten(index) {
            return Ok(Way::Copy);
        }
        let here = |s: &super::source::Source| s.dirs.identity.device == dirs.identity.device;
        let found = self.sources.iter().enumerate().find(|(_, s)| here(s));
        let Some((number, source)) = found else {
            return Ok(Way::Copy);
        };
        if let Err(refusal) = &source.file {
            // A 5xx is that of the mailbox with the file: another one may have a quota of its own.
            let refusal = softened(refusal.clone(), 1 + usize::from(source.home != index));
            let path = dirs.path.clone();
            return Err(Trouble::Rule { path, refusal });
        }
        Ok(match source.dirs.owner == dirs.owner {
            true if self.deliveries.len() == 1 && source.home == index => Way::Move(number),
            true => Way::Link(number),
            false => Way::Copy,
        })
    }

    /// Makes the message visible in a mailbox's `new/`. If a copy is needed after all, the copies of the `rest` are
    /// made before any more is visible.
    fn appear(&mut self, index: usize, rest: &[usize]) -> Result<(), Trouble> {
        let dirs = self.take_ticket(index)?;
        let number = match self.way(index, &dirs)? {
            Way::Copy => return self.publish(index, &dirs),
            Way::Move(number) => match self.publish_source(index, number, &dirs) {
                // Another mount of the same file system.
                Err(trouble) if trouble.errno() == Some(Errno::EXDEV) => {
                    self.stage_copy(index)?;
                    return self.publish(index, &dirs);
                }
                other => return other,
            },
            Way::Link(number) => number,
        };
        for attempt in 0..ATTEMPTS {
            self.choose_name(index, attempt)?;
            match self.link(index, number, &dirs) {
                Ok(()) => return self.set_published(index),
                Err(e) if errno(&e) == Some(Errno::EEXIST) => {}
                Err(e) if needs_copy(&e) || self.is_orphaned(index, number, &e) => {
                    rest.iter().try_for_each(|&index| self.stage_copy(index))?;
                    return self.publish(index, &dirs);
                }
                Err(e) => return Err(Trouble::at("link", &dirs.path)(e)),
            }
        }
        Err(Trouble::at("link", &dirs.path)(Errno::EEXIST.into()))
    }

    /// Gives the message's file its name in a mailbox's `new/`.
    fn link(&self, index: usize, number: usize, dirs: &OpenMaildir) -> io::Result<()> {
        let (Some(source), Some(delivery)) = (self.sources.get(number), self.deliveries.get(index))
        else {
            return Err(Errno::EBADF.into());
        };
        let from = (disk::fd(&source.dirs.tmp), source.name.as_str());
        let to = (disk::fd(&dirs.new), delivery.name(&self.name));
        let link = || self.context.disk.link(from, to);
        self.within_quota(index, link)
    }

    /// True if the file is gone together with the mailbox of another recipient. Its contents are still at hand.
    fn is_orphaned(&self, index: usize, number: usize, e: &io::Error) -> bool {
        let source = self.sources.get(number);
        errno(e) == Some(Errno::ENOENT) && source.is_some_and(|source| source.home != index)
    }

    /// Makes a message visible, which turns its reserved room into usage.
    fn within_quota(&self, index: usize, make: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.deliveries.get(index) {
            Some(delivery) if delivery.reserved => {
                let maildir = &delivery.target.maildir;
                self.context
                    .ledger
                    .publish(maildir, self.size_at(index), make)
            }
            _ => make(),
        }
    }

    fn set_published(&mut self, index: usize) -> Result<(), Trouble> {
        let delivery = self.delivery(index)?;
        (delivery.staged, delivery.published) = (false, true);
        Ok(())
    }

    /// Makes the name in a mailbox's `new/` durable.
    fn make_durable(&mut self, index: usize) -> Result<(), Reply> {
        let synced = self.sync_new(index);
        synced.map_err(|trouble| self.log(&trouble))
    }

    fn sync_new(&mut self, index: usize) -> Result<(), Trouble> {
        let dirs = self.dirs(index)?;
        let begun = self.delivery(index)?.syncs.clone();
        let (syncs, ticket) = begun.ok_or_else(|| Trouble::away(&dirs.path))?;
        let context = &self.context;
        let sync = || {
            context
                .syncs
                .directory(context.disk.as_ref(), disk::fd(&dirs.new))
        };
        let synced = syncs.sync(ticket, sync);
        synced.map_err(Trouble::at("fsync", &dirs.path))
    }

    /// Moves a staged copy from `tmp/` into `new/`, without replacing anything.
    fn publish(&mut self, index: usize, dirs: &OpenMaildir) -> Result<(), Trouble> {
        let delivery = self.deliveries.get(index);
        let name = delivery.map_or(self.name.as_str(), |d| d.name(&self.name));
        if let Some(renamed) = self.move_in(index, (dirs, name), (dirs, name))? {
            self.delivery(index)?.renamed = Some(renamed);
        }
        self.set_published(index)
    }

    /// Moves the message's own file from `tmp/` into `new/`.
    fn publish_source(
        &mut self,
        index: usize,
        number: usize,
        dirs: &OpenMaildir,
    ) -> Result<(), Trouble> {
        let source = self.sources.get(number);
        let source = source.ok_or_else(|| Trouble::away(&dirs.path))?;
        let renamed = self.move_in(index, (&source.dirs, &source.name), (dirs, &self.name))?;
        if let Some(source) = self.sources.get_mut(number) {
            source.named = false;
        }
        self.delivery(index)?.renamed = renamed;
        self.set_published(index)
    }

    /// Moves a file from a `tmp/` into `new/`; returns its id and name there if `name` was taken (F27).
    fn move_in(
        &self,
        index: usize,
        (home, from): (&OpenMaildir, &str),
        (dirs, name): (&OpenMaildir, &str),
    ) -> Result<Option<(String, String)>, Trouble> {
        let (tmp, new) = (disk::fd(&home.tmp), disk::fd(&dirs.new));
        for attempt in 0..ATTEMPTS {
            let renamed = (attempt > 0).then(|| self.another_name(self.size_at(index)));
            let name = renamed.as_ref().map_or(name, |(_, name)| name);
            let rename = || self.context.disk.rename((tmp, from), (new, name));
            match self.within_quota(index, rename) {
                Err(e) if errno(&e) == Some(Errno::EEXIST) => {}
                Err(e) => return Err(Trouble::at("rename", &dirs.path)(e)),
                Ok(()) => return Ok(renamed),
            }
        }
        Err(Trouble::at("rename", &dirs.path)(Errno::EEXIST.into()))
    }

    /// The message's own name at the first attempt, then others (F27).
    pub(super) fn choose_name(&mut self, index: usize, attempt: u32) -> Result<(), Trouble> {
        let size = self.size_at(index);
        let renamed = match attempt {
            0 if size == self.size => None,
            0 => Some((self.id.clone(), self.context.name(&self.id, size))),
            _ => Some(self.another_name(size)),
        };
        self.delivery(index)?.renamed = renamed;
        Ok(())
    }

    /// An id and the file name that goes with it.
    fn another_name(&self, size: u64) -> (String, String) {
        let id = clock::unique();
        let name = self.context.name(&id, size);
        (id, name)
    }
}

/// The refusal of one mailbox for all of several: a 5xx would bounce the message for the others.
pub(super) fn softened(refusal: Reply, count: usize) -> Reply {
    match refusal.code() {
        500.. if count > 1 => reply::SOME_FULL,
        _ => refusal,
    }
}

/// True if a link is impossible but a copy may work: another file system (EXDEV), one without links, one link too many.
fn needs_copy(e: &io::Error) -> bool {
    errno(e).is_some_and(|errno| errno == Errno::EXDEV || disk::no_links(errno))
}

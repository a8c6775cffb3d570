//! The verdict on a message: from a sealed file to a name in every target's `new/`. A review of durability is a
//! review of this file. The order is always: file synced, quota taken, every directory open and in its place, copies
//! made where a link does not do, links made, directories synced, receipt.
//! Whatever is left half done when one of these fails is undone by the spool's drop.

use std::io;
use std::sync::Arc;

use nix::errno::Errno;

use super::disk::{self, errno};
use super::maildir::OpenMaildir;
use super::quota;
use super::refusal::refusal;
use super::spool::{Delivery, Source, Spool};
use crate::clock;
use crate::smtp::reply::{self, Refusal, Reply};

/// So many names are tried: a second one is taken only where clock, process id and count all repeat.
const ATTEMPTS: u32 = 10;

/// The receipt for a message that is in `new/` and durable. Only a commit makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    id: String,
    name: String,
}

impl Delivered {
    /// The unique part of the file name, that client, log and file can be matched by.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The file name in `new/`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The acknowledgement (RFC 5321 §4.2.5): with it the server has taken responsibility.
    pub fn reply(&self) -> Reply {
        let text = ["Message accepted for delivery as ", &self.id].concat();
        reply::reply(250, reply::Enhanced(0, 0), "").with_text(text)
    }
}

impl Spool {
    /// Delivers to all targets or to none (SMTP).
    ///
    /// # Errors
    /// The first refusal: nothing is visible then, in any `new/` or `tmp/`.
    pub fn commit(mut self) -> Result<Delivered, Refusal> {
        self.seal()?;
        if let Some(error) = self
            .deliveries
            .iter()
            .find_map(|delivery| delivery.refusal.clone())
        {
            return Err(error);
        }
        let targets = self.distinct();
        self.reserve_all(&targets)?;
        self.prepare(&targets)?;
        for (at, &index) in targets.iter().enumerate() {
            if !self.appear(index)? {
                // It takes a copy after all. Those behind it may too, and theirs are made before any more is visible.
                let rest = targets.get(at..).unwrap_or_default();
                rest.iter().try_for_each(|&index| self.stage_copy(index))?;
                self.publish(index)?;
            }
        }
        for &index in &targets {
            self.make_durable(index)?;
        }
        let receipts = targets.iter().map(|&index| self.receipt(index));
        receipts
            .reduce(|first, next| next.and(first))
            .unwrap_or_else(|| Err(Refusal::local(reply::LOCAL_ERROR)))
    }

    /// Delivers to each target by itself (LMTP, RFC 2033 §4.2), in order, all from one file. The directories are
    /// synced when all have their names: on a file system with a journal the first sync then serves all.
    pub fn commit_each(mut self) -> Vec<Result<Delivered, Refusal>> {
        let sealed = self.seal();
        let mut outcomes: Vec<Result<(), Refusal>> = Vec::with_capacity(self.deliveries.len());
        for index in 0..self.deliveries.len() {
            let twin = self
                .deliveries
                .get(index)
                .and_then(|delivery| delivery.twin);
            let outcome = match twin.and_then(|twin| outcomes.get(twin)) {
                Some(same) => same.clone(),
                None => self
                    .own_refusal(index, &sealed)
                    .and_then(|()| self.appear_alone(index)),
            };
            outcomes.push(outcome);
        }
        let mut delivered: Vec<Result<Delivered, Refusal>> = Vec::with_capacity(outcomes.len());
        for (index, outcome) in outcomes.into_iter().enumerate() {
            let twin = self
                .deliveries
                .get(index)
                .and_then(|delivery| delivery.twin);
            let outcome = match twin.and_then(|twin| delivered.get(twin)) {
                Some(same) => same.clone(),
                None => outcome
                    .and_then(|()| self.make_durable(index))
                    .and_then(|()| self.receipt(index)),
            };
            if outcome.is_err() && twin.is_none() {
                self.undo(index);
            }
            delivered.push(outcome);
        }
        delivered
    }

    /// What was wrong with a target already, or else with the message.
    fn own_refusal(&self, index: usize, sealed: &Result<(), Refusal>) -> Result<(), Refusal> {
        match self
            .deliveries
            .get(index)
            .and_then(|delivery| delivery.refusal.clone())
        {
            Some(error) if self.error.is_none() => Err(error),
            _ => sealed.clone(),
        }
    }

    /// One target of several, with its own quota and outcome.
    fn appear_alone(&mut self, index: usize) -> Result<(), Refusal> {
        if !self.reserve(index)? {
            return Err(Refusal::policy(reply::MAILBOX_FULL));
        }
        self.prepare(&[index])?;
        if !self.appear(index)? {
            self.stage_copy(index)?;
            self.publish(index)?;
        }
        Ok(())
    }

    /// The receipt for a target, asked for after its last sync only: the one place where [`Delivered`] is made.
    fn receipt(&mut self, index: usize) -> Result<Delivered, Refusal> {
        let (id, name) = (self.id.clone(), self.name.clone());
        let shared = Arc::clone(&self.context);
        let delivery = self.delivery(index)?;
        delivery.done = true;
        if let Some(dirs) = &delivery.dirs {
            shared.keep(&delivery.target, dirs);
        }
        let (id, name) = delivery.renamed.clone().unwrap_or((id, name));
        Ok(Delivered { id, name })
    }

    /// The targets that are mailboxes of their own.
    fn distinct(&self) -> Vec<usize> {
        let own = |(index, delivery): (usize, &Delivery)| delivery.twin.is_none().then_some(index);
        self.deliveries.iter().enumerate().filter_map(own).collect()
    }

    /// Takes room in every target's quota.
    fn reserve_all(&mut self, targets: &[usize]) -> Result<(), Refusal> {
        let mut full = 0;
        for &index in targets {
            full += usize::from(!self.reserve(index)?);
        }
        match full {
            0 => Ok(()),
            _ if full == targets.len() => Err(Refusal::policy(reply::MAILBOX_FULL)),
            // A 5xx would bounce the message for those who have room; at the next try RCPT says who hasn't.
            _ => Err(Refusal::policy(reply::SOME_FULL)),
        }
    }

    /// Takes room in one target's quota; false where it's full.
    fn reserve(&mut self, index: usize) -> Result<bool, Refusal> {
        let Some(quota) = self.delivery(index)?.target.counted_quota().cloned() else {
            return Ok(true);
        };
        let dirs = self.dirs(index)?;
        let taken = quota::reserve(self.context.disk.as_ref(), &dirs, &quota, self.size);
        self.delivery(index)?.reserved = taken == Some(true);
        Ok(taken.is_some())
    }

    /// Everything that can be done before the message is visible anywhere: the directories of every target are open and
    /// where their paths lead, and where only a copy can get, it is made and synced.
    fn prepare(&mut self, targets: &[usize]) -> Result<(), Refusal> {
        for &index in targets {
            let there = self.dirs(index)?.identity.device;
            let source = self.source.as_ref();
            if source.is_some_and(|source| source.home.device != there) {
                self.stage_copy(index)?;
            }
        }
        Ok(())
    }

    /// Has the message appear in a target's `new/`, by a link, or by moving the copy there. False where there is no copy
    /// and only that can get there.
    fn appear(&mut self, index: usize) -> Result<bool, Refusal> {
        if self.delivery(index)?.staged {
            return self.publish(index).map(|()| true);
        }
        let dirs = self.dirs(index)?;
        for attempt in 0..ATTEMPTS {
            self.choose_name(index, attempt)?;
            match self.link(index, &dirs) {
                Ok(()) => {
                    self.delivery(index)?.published = true;
                    return Ok(true);
                }
                Err(e) if errno(&e) == Some(Errno::EEXIST) => {}
                Err(e) if needs_copy(&e) => {
                    self.note_missing_proc(&e);
                    return Ok(false);
                }
                Err(e) => return Err(refusal(&e)),
            }
        }
        Err(refusal(&Errno::EEXIST.into()))
    }

    /// Gives the message's file its name in a target's `new/`.
    fn link(&self, index: usize, dirs: &OpenMaildir) -> io::Result<()> {
        let (Some(source), Some(delivery)) = (&self.source, self.deliveries.get(index)) else {
            return Err(Errno::EBADF.into());
        };
        let (disk, new, name) = (
            self.context.disk.as_ref(),
            disk::fd(&dirs.new),
            delivery.name(&self.name),
        );
        match &source.named {
            Some((tmp, own)) => disk.link((disk::fd(tmp), own), (new, name)),
            None => disk.link_unnamed(&source.file, new, name),
        }
    }

    /// The name in a target's `new/` survives a crash from here on.
    fn make_durable(&mut self, index: usize) -> Result<(), Refusal> {
        let dirs = self.dirs(index)?;
        let synced = dirs.syncs.sync(|| self.context.sync(&dirs.new));
        synced.map_err(|e| refusal(&e))
    }

    /// Copies the message into a target's `tmp/`, durably: another file system, one without hard links, or one link too many.
    fn stage_copy(&mut self, index: usize) -> Result<(), Refusal> {
        if self.delivery(index)?.staged {
            return Ok(());
        }
        let shared = Arc::clone(&self.context);
        let tmp = self.dirs(index)?.tmp(shared.disk.as_ref(), shared.sync)?;
        for attempt in 0..ATTEMPTS {
            self.choose_name(index, attempt)?;
            let common = self.name.clone();
            let delivery = self.delivery(index)?;
            let to = match shared.disk.create(disk::fd(&tmp), delivery.name(&common)) {
                Err(e) if errno(&e) == Some(Errno::EEXIST) => continue,
                other => other.map_err(|e| refusal(&e))?,
            };
            delivery.staged = true;
            let Some(Source { file, .. }) = &self.source else {
                break;
            };
            let copied = disk::copy(shared.disk.as_ref(), file, &to);
            return copied
                .and_then(|()| shared.sync(&to))
                .map_err(|e| refusal(&e));
        }
        Err(refusal(&Errno::EEXIST.into()))
    }

    /// Moves a staged message from `tmp/` into `new/`, over nothing that is there.
    fn publish(&mut self, index: usize) -> Result<(), Refusal> {
        let shared = Arc::clone(&self.context);
        let dirs = self.dirs(index)?;
        let tmp = dirs.tmp(shared.disk.as_ref(), shared.sync)?;
        let (tmp, new) = (disk::fd(&tmp), disk::fd(&dirs.new));
        let common = self.name.clone();
        let staged = self.delivery(index)?.name(&common).to_owned();
        for attempt in 0..ATTEMPTS {
            let renamed = (attempt > 0).then(|| self.another_name());
            let name = renamed.as_ref().map_or(staged.as_str(), |(_, name)| name);
            match shared.disk.rename((tmp, &staged), (new, name)) {
                Err(e) if errno(&e) == Some(Errno::EEXIST) => {}
                Err(e) => return Err(refusal(&e)),
                Ok(()) => {
                    let delivery = self.delivery(index)?;
                    if renamed.is_some() {
                        delivery.renamed = renamed;
                    }
                    (delivery.staged, delivery.published) = (false, true);
                    return Ok(());
                }
            }
        }
        Err(refusal(&Errno::EEXIST.into()))
    }

    /// The message's own name at the first attempt, another one where that is taken (F27).
    fn choose_name(&mut self, index: usize, attempt: u32) -> Result<(), Refusal> {
        let renamed = (attempt > 0).then(|| self.another_name());
        self.delivery(index)?.renamed = renamed;
        Ok(())
    }

    /// An id and the file name that goes with it.
    fn another_name(&self) -> (String, String) {
        let id = clock::unique();
        let name = self.context.name(&id, self.size);
        (id, name)
    }

    /// An unnamed file that finds no way to its name means that /proc is missing; the next messages need not try.
    fn note_missing_proc(&self, e: &io::Error) {
        let unnamed = self
            .source
            .as_ref()
            .is_some_and(|source| source.named.is_none());
        if unnamed
            && errno(e) == Some(Errno::ENOENT)
            && !std::path::Path::new("/proc/self/fd").exists()
        {
            self.context.give_up_unnamed();
        }
    }
}

/// Whether a link can't be made here but a copy may: another file system (EXDEV), one without links, a missing /proc.
fn needs_copy(e: &io::Error) -> bool {
    let reasons = [
        Errno::EXDEV,
        Errno::EPERM,
        Errno::EOPNOTSUPP,
        Errno::EMLINK,
        Errno::ENOENT,
    ];
    errno(e).is_some_and(|errno| reasons.contains(&errno))
}

//! The verdict on a message: from a sealed file to a name in every target's `new/`. A review of durability is a
//! review of this file. The order is always: file synced, quota taken, link made, directory synced, receipt.
//! Whatever is left half done when one of these fails is undone by the spool's drop.

use std::io;
use std::sync::Arc;

use nix::errno::Errno;

use super::disk::{self, errno};
use super::maildir::Dirs;
use super::spool::{Place, Source, Spool};
use super::{Delivered, quota, refusal};
use crate::clock;
use crate::smtp::reply::{self, Refusal};

impl Spool {
    /// Delivers to all targets or to none (SMTP).
    ///
    /// # Errors
    /// The first refusal: nothing is visible then, in any `new/` or `tmp/`.
    pub fn commit(mut self) -> Result<Delivered, Refusal> {
        self.seal()?;
        if let Some(error) = self.places.iter().find_map(|place| place.refusal.clone()) {
            return Err(error);
        }
        let targets = self.distinct();
        self.reserve_all(&targets)?;
        match targets.as_slice() {
            [] => return Err(Refusal::local(reply::LOCAL_ERROR)),
            &[only] => self.deliver(only)?,
            _ => self.deliver_together(&targets)?,
        }
        let receipts: Result<Vec<Delivered>, Refusal> =
            targets.iter().map(|&index| self.receipt(index)).collect();
        let first = receipts?.into_iter().next();
        first.ok_or_else(|| Refusal::local(reply::LOCAL_ERROR))
    }

    /// Delivers to each target by itself (LMTP, RFC 2033 §4.2), in order, all from one file.
    pub fn commit_each(mut self) -> Vec<Result<Delivered, Refusal>> {
        let sealed = self.seal();
        let mut outcomes: Vec<Result<Delivered, Refusal>> = Vec::with_capacity(self.places.len());
        for index in 0..self.places.len() {
            let twin = self.places.get(index).and_then(|place| place.twin);
            let outcome = match twin.and_then(|twin| outcomes.get(twin)) {
                Some(same) => same.clone(),
                None => self
                    .own_refusal(index, &sealed)
                    .and_then(|()| self.deliver_alone(index)),
            };
            outcomes.push(outcome);
        }
        outcomes
    }

    /// What was wrong with a target already, or else with the message.
    fn own_refusal(&self, index: usize, sealed: &Result<(), Refusal>) -> Result<(), Refusal> {
        match self
            .places
            .get(index)
            .and_then(|place| place.refusal.clone())
        {
            Some(error) if self.error.is_none() => Err(error),
            _ => sealed.clone(),
        }
    }

    /// One target of several, with its own quota and outcome.
    fn deliver_alone(&mut self, index: usize) -> Result<Delivered, Refusal> {
        let outcome = self.reserve(index).and_then(|room| match room {
            true => self.deliver(index),
            false => Err(Refusal::policy(reply::MAILBOX_FULL)),
        });
        if let Err(error) = outcome {
            self.undo(index);
            return Err(error);
        }
        self.receipt(index)
    }

    /// The receipt for a target, asked for after its last sync only: the one place where [`Delivered`] is made.
    fn receipt(&mut self, index: usize) -> Result<Delivered, Refusal> {
        let place = self.place(index)?;
        place.done = true;
        Ok(Delivered {
            id: place.id.clone(),
        })
    }

    /// The targets that are mailboxes of their own.
    fn distinct(&self) -> Vec<usize> {
        let own = |(index, place): (usize, &Place)| place.twin.is_none().then_some(index);
        self.places.iter().enumerate().filter_map(own).collect()
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
        let Some(quota) = self.place(index)?.target.counted_quota().cloned() else {
            return Ok(true);
        };
        let dirs = self.dirs(index)?;
        let taken = quota::reserve(self.shared.disk.as_ref(), &dirs, &quota, self.size);
        self.place(index)?.reserved = taken == Some(true);
        Ok(taken.is_some())
    }

    /// Delivers to one target: a link straight into `new/`, and that synced.
    fn deliver(&mut self, index: usize) -> Result<(), Refusal> {
        let dirs = self.dirs(index)?;
        if self.attach(index, &dirs, true)? {
            self.place(index)?.published = true;
        } else {
            self.stage_copy(index, &dirs)?;
            self.publish(index, &dirs)?;
        }
        self.shared.sync(&dirs.new).map_err(|e| refusal(&e))
    }

    /// Delivers to several: into every `tmp/` first, then all of them into `new/`, then the directories synced.
    fn deliver_together(&mut self, targets: &[usize]) -> Result<(), Refusal> {
        for &index in targets {
            let dirs = self.dirs(index)?;
            if self.attach(index, &dirs, false)? {
                self.place(index)?.staged = true;
            } else {
                self.stage_copy(index, &dirs)?;
            }
        }
        for &index in targets {
            let dirs = self.dirs(index)?;
            self.publish(index, &dirs)?;
        }
        for &index in targets {
            let dirs = self.dirs(index)?;
            self.shared.sync(&dirs.new).map_err(|e| refusal(&e))?;
        }
        Ok(())
    }

    /// Links the message's file into a target's `new/` or `tmp/`. False where only a copy can get there.
    fn attach(&mut self, index: usize, dirs: &Dirs, into_new: bool) -> Result<bool, Refusal> {
        let dir = disk::fd(if into_new { &dirs.new } else { &dirs.tmp });
        for attempt in 0..ATTEMPTS {
            let name = self.choose_name(index, attempt)?;
            let source = self
                .source
                .as_ref()
                .ok_or_else(|| Refusal::local(reply::LOCAL_ERROR))?;
            let linked = match &source.named {
                Some((home, own)) => self
                    .shared
                    .disk
                    .link((disk::fd(&home.tmp), own), (dir, &name)),
                None => self.shared.disk.link_unnamed(&source.file, dir, &name),
            };
            match linked {
                Ok(()) => return Ok(true),
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

    /// Copies the message into a target's `tmp/`, durably: another file system, one without hard links, or one link too many.
    fn stage_copy(&mut self, index: usize, dirs: &Dirs) -> Result<(), Refusal> {
        for attempt in 0..ATTEMPTS {
            let name = self.choose_name(index, attempt)?;
            let to = match self.shared.disk.create(disk::fd(&dirs.tmp), &name) {
                Err(e) if errno(&e) == Some(Errno::EEXIST) => continue,
                other => other.map_err(|e| refusal(&e))?,
            };
            self.place(index)?.staged = true;
            let Some(Source { file, .. }) = &self.source else {
                break;
            };
            let copied = disk::copy(self.shared.disk.as_ref(), file, &to);
            return copied
                .and_then(|()| self.shared.sync(&to))
                .map_err(|e| refusal(&e));
        }
        Err(refusal(&Errno::EEXIST.into()))
    }

    /// Moves a staged message from `tmp/` into `new/`, over nothing that is there.
    fn publish(&mut self, index: usize, dirs: &Arc<Dirs>) -> Result<(), Refusal> {
        let staged = self.place(index)?.name.clone();
        for attempt in 0..ATTEMPTS {
            let id = if attempt == 0 {
                self.place(index)?.id.clone()
            } else {
                clock::unique()
            };
            let name = self.shared.name(&id, self.size);
            let (tmp, new) = (disk::fd(&dirs.tmp), disk::fd(&dirs.new));
            match self.shared.disk.rename((tmp, &staged), (new, &name)) {
                Err(e) if errno(&e) == Some(Errno::EEXIST) => {}
                Err(e) => return Err(refusal(&e)),
                Ok(()) => {
                    let place = self.place(index)?;
                    (place.id, place.name) = (id, name);
                    (place.staged, place.published) = (false, true);
                    return Ok(());
                }
            }
        }
        Err(refusal(&Errno::EEXIST.into()))
    }

    /// The message's own name at the first attempt, another one where that is taken (F27).
    fn choose_name(&mut self, index: usize, attempt: u32) -> Result<String, Refusal> {
        let id = if attempt == 0 {
            self.id.clone()
        } else {
            clock::unique()
        };
        let name = self.shared.name(&id, self.size);
        let place = self.place(index)?;
        place.id = id;
        place.name.clone_from(&name);
        Ok(name)
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
            self.shared.give_up_unnamed();
        }
    }

    /// A place by its index.
    fn place(&mut self, index: usize) -> Result<&mut Place, Refusal> {
        self.places
            .get_mut(index)
            .ok_or_else(|| Refusal::local(reply::LOCAL_ERROR))
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

/// So many names are tried: a second one is taken only where clock, process id and count all repeat.
const ATTEMPTS: u32 = 10;

//! Ownership of mail. Files and directories are given to the account's user and group if the process may do that. From
//! the first directory in which the owner could have put a link, the path to a mailbox is followed with the owner's
//! rights, so that a link leads the server nowhere that its owner could not go. Without per-thread rights (only Linux
//! has them), or without permission to use them, links are not followed from there on.
//!
//! Supplementary groups are not changed: a server that runs as root has dropped its own.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use nix::sys::stat::Mode;
use nix::unistd::{getegid, geteuid};

use super::disk::{self, Disk};
use super::target::Owner;

/// The ids and rights of this process, after it has dropped privileges.
struct Rights {
    uid: u32,
    gid: u32,
    may_give: bool,
}

/// The ids do not change while mail is delivered.
fn rights() -> &'static Rights {
    static RIGHTS: OnceLock<Rights> = OnceLock::new();
    RIGHTS.get_or_init(|| Rights {
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
        may_give: may_give(),
    })
}

/// True if this process may change the owners of files.
fn may_give() -> bool {
    #[cfg(target_os = "linux")]
    return caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_CHOWN)
        .unwrap_or(false);
    #[cfg(not(target_os = "linux"))]
    geteuid().is_root()
}

/// The owner to give a new file to; `None` if it belongs to the owner already, or the process may not change it.
pub(super) fn receiver(owner: Option<Owner>) -> Option<Owner> {
    let rights = rights();
    owner.filter(|owner| rights.may_give && (owner.uid, owner.gid) != (rights.uid, rights.gid))
}

/// True if a user is that of this process.
pub(super) fn is_own(uid: u32) -> bool {
    uid == rights().uid
}

/// A walk through directories, and the rights that it uses.
pub(super) struct Walk {
    /// The user whose links are followed, if it is not that of the process.
    owner: Option<Owner>,
    acting: Option<Acting>,
    /// True if links are followed.
    pub(super) follow: bool,
}

impl Walk {
    pub(super) fn new(owner: Option<Owner>) -> Self {
        Self {
            owner: owner.filter(|owner| owner.uid != rights().uid),
            acting: None,
            follow: true,
        }
    }

    /// The owner's rights, once they are in use.
    pub(super) fn is_owners(&self) -> bool {
        self.acting.is_some()
    }

    /// Must be called for each directory before something in it is opened.
    ///
    /// # Errors
    /// Those of the look at its owner.
    pub(super) fn through(&mut self, disk: &dyn Disk, dir: &OwnedFd) -> io::Result<()> {
        let Some(owner) = self.owner else {
            return Ok(());
        };
        let (uid, mode) = disk.owner_and_mode(disk::fd(dir))?;
        if uid == owner.uid || mode.intersects(Mode::S_IWGRP | Mode::S_IWOTH) {
            self.owner = None;
            self.acting = Acting::begin(owner);
            self.follow = self.acting.is_some();
        }
        Ok(())
    }
}

/// Another user's file system rights for this thread, until dropped.
struct Acting;

impl Acting {
    /// Assumes the rights of a user; `None` if that is not possible.
    #[cfg(target_os = "linux")]
    fn begin(owner: Owner) -> Option<Self> {
        use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
        if !Uid::from_raw(rights().uid).is_root() {
            return None;
        }
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        // The group first: changing the user loses the right to change it.
        setfsgid(gid);
        setfsuid(uid);
        let acting = Self;
        // The calls return the previous ids and no errors.
        (setfsuid(uid) == uid && setfsgid(gid) == gid).then_some(acting)
    }

    #[cfg(not(target_os = "linux"))]
    fn begin(_: Owner) -> Option<Self> {
        None
    }
}

#[cfg(target_os = "linux")]
impl Drop for Acting {
    fn drop(&mut self) {
        use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
        setfsuid(Uid::from_raw(rights().uid));
        setfsgid(Gid::from_raw(rights().gid));
    }
}

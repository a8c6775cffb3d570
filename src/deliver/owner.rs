//! Whose the mail is. Files and directories are given to the account's user and group where the process may do that, and
//! the way to a mailbox is taken with the owner's own rights from the first directory on in which the owner could have put
//! a link: so a link leads the server nowhere that its maker could not go himself. Where the system has no such rights
//! for one thread (only Linux has), or the process may not take them, links are not followed from there on.
//!
//! Supplementary groups are left out: the owner has those of the process, which a server that runs as root gives up.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use nix::sys::stat::Mode;
use nix::unistd::{getegid, geteuid};

use super::disk::{self, Disk};
use super::target::Owner;

/// What this process is and may do, once it has given up its privileges.
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

/// Whether this process may change the owners of files.
fn may_give() -> bool {
    #[cfg(target_os = "linux")]
    return caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_CHOWN)
        .unwrap_or(false);
    #[cfg(not(target_os = "linux"))]
    geteuid().is_root()
}

/// Whom a new file must be given to: nobody where it is the owner's already, or where the process may not do that.
pub(super) fn receiver(owner: Option<Owner>) -> Option<Owner> {
    let rights = rights();
    owner.filter(|owner| rights.may_give && (owner.uid, owner.gid) != (rights.uid, rights.gid))
}

/// Whether a user is this process's.
pub(super) fn is_own(uid: u32) -> bool {
    uid == rights().uid
}

/// A way through directories, and with whose rights it is taken.
pub(super) struct Way {
    /// Whose links count, where they are another user's than the process is.
    owner: Option<Owner>,
    acting: Option<Acting>,
    /// Whether links are followed.
    pub(super) follow: bool,
}

impl Way {
    pub(super) fn new(owner: Option<Owner>) -> Self {
        Self {
            owner: owner.filter(|owner| owner.uid != rights().uid),
            acting: None,
            follow: true,
        }
    }

    /// Whether it is taken with the owner's rights by now.
    pub(super) fn is_owners(&self) -> bool {
        self.acting.is_some()
    }

    /// To be called for each directory before something in it is opened.
    ///
    /// # Errors
    /// Those of looking at it.
    pub(super) fn through(&mut self, disk: &dyn Disk, dir: &OwnedFd) -> io::Result<()> {
        let Some(owner) = self.owner else {
            return Ok(());
        };
        let (holder, mode) = disk.holder(disk::fd(dir))?;
        if holder == owner.uid || mode.intersects(Mode::S_IWGRP | Mode::S_IWOTH) {
            self.owner = None;
            self.acting = Acting::begin(owner);
            self.follow = self.acting.is_some();
        }
        Ok(())
    }
}

/// The file system rights of this thread, another user's as long as this lives.
struct Acting;

impl Acting {
    /// Takes on the rights of a user; `None` where that cannot be had.
    #[cfg(target_os = "linux")]
    fn begin(owner: Owner) -> Option<Self> {
        use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
        if !Uid::from_raw(rights().uid).is_root() {
            return None;
        }
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        // The group first: the right to change it goes with the user.
        setfsgid(gid);
        setfsuid(uid);
        let acting = Self;
        // The calls tell what was in force before, and nothing of failure.
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

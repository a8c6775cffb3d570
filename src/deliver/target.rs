//! The parameters of a delivery: mailbox, form of the message, durability. Plain data.

use std::ffi::OsStr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder that isn't counted.
pub(super) const TRASH: &str = ".Trash";

/// A mailbox to deliver to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The fixed part of the Maildir pattern. It must exist and is never created here, so that an unmounted volume is
    /// not replaced by a shadow tree.
    pub root: Arc<Path>,
    /// The whole path of the Maildir, below `root`.
    pub maildir: PathBuf,
    /// True if a missing Maildir is created.
    pub may_create: bool,
    /// The name of a Maildir++ folder, with its leading dot; the inbox is used if it does not exist.
    pub folder: Option<String>,
    /// The address for Delivered-To.
    pub address: String,
    /// The address for X-Original-To, if an alias led here.
    pub original: Option<String>,
    /// The mailbox's quota.
    pub quota: Option<Quota>,
    /// The owner of the Maildir and its files, if the process may change owners.
    pub owner: Option<Owner>,
}

/// The quota of a mailbox. Zero and `None` both mean unlimited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Octets of all messages.
    pub bytes: Option<u64>,
    /// Number of messages.
    pub messages: Option<u64>,
}

/// The mailboxes of one accepted recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// Its only mailbox.
    One(Arc<Target>),
    /// The members of a list, which other recipients may share.
    List(Arc<[Arc<Target>]>),
}

impl Group {
    /// The identity of a list, as long as it exists.
    pub fn list(&self) -> Option<usize> {
        match self {
            Self::One(_) => None,
            Self::List(list) => Some(Arc::as_ptr(list).addr()),
        }
    }
}

impl Deref for Group {
    type Target = [Arc<Target>];

    fn deref(&self) -> &[Arc<Target>] {
        match self {
            Self::One(target) => std::slice::from_ref(target),
            Self::List(list) => list,
        }
    }
}

impl FromIterator<Arc<Target>> for Group {
    fn from_iter<T: IntoIterator<Item = Arc<Target>>>(targets: T) -> Self {
        let targets: Arc<[Arc<Target>]> = targets.into_iter().collect();
        match &*targets {
            [only] => Self::One(Arc::clone(only)),
            _ => Self::List(targets),
        }
    }
}

/// A user and group of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// The form of a message on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Lines end in LF, as every Unix Maildir reader expects.
    Text,
    /// Unchanged octets (BINARYMIME, RFC 3030), with CRLF in the trace headers.
    Binary,
}

impl Form {
    /// The line end of added header lines.
    pub(super) fn eol(self) -> &'static str {
        match self {
            Self::Text => "\n",
            Self::Binary => "\r\n",
        }
    }
}

/// The durability of a message before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Files and directories are synced.
    Full,
    /// Nothing is synced: for test sinks and memory file systems.
    None,
}

impl Target {
    /// False for the queue, which is its own root. That of an account may be, too, if it is the home.
    pub(super) fn is_mailbox(&self) -> bool {
        self.may_create || self.maildir.as_os_str() != self.root.as_os_str()
    }

    /// The identity of its mailbox or folder.
    pub fn mailbox(&self) -> (&OsStr, Option<&str>) {
        (self.maildir.as_os_str(), self.folder.as_deref())
    }

    /// The quota that a message to this target counts against: none for Trash.
    pub(super) fn counted_quota(&self) -> Option<&Quota> {
        self.quota
            .as_ref()
            .filter(|_| self.folder.as_deref() != Some(TRASH))
    }
}

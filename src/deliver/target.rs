//! What a delivery is asked to do: the mailbox, how the message is kept, and how durable it must be. Plain data; what is
//! done with it is in the sibling files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder that isn't counted.
pub(super) const TRASH: &str = ".Trash";

/// One mailbox that a message goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The fixed part of the Maildir pattern. It must exist and is never made here, so that a volume which isn't mounted
    /// doesn't get a shadow tree.
    pub root: Arc<Path>,
    /// The whole path of the Maildir, below `root`.
    pub maildir: PathBuf,
    /// Whether a missing Maildir is made.
    pub may_create: bool,
    /// The name of a Maildir++ folder, with its leading dot; the inbox takes its place where it doesn't exist.
    pub folder: Option<String>,
    /// The address for Delivered-To.
    pub address: String,
    /// The address for X-Original-To, where an alias led here.
    pub original: Option<String>,
    /// The mailbox's quota.
    pub quota: Option<Quota>,
    /// Whose the Maildir and what is in it are, where the process may give files away.
    pub owner: Option<Owner>,
}

/// How much a mailbox may hold. Zero and `None` both mean: any amount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Octets of all messages.
    pub bytes: Option<u64>,
    /// Number of messages.
    pub messages: Option<u64>,
}

/// The mailboxes behind one accepted recipient.
pub type Group = Arc<[Arc<Target>]>;

/// A user and group of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// How a message lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Lines end in LF, as every Unix Maildir reader expects.
    Text,
    /// Octets as they came (BINARYMIME, RFC 3030), the trace headers with CRLF.
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

/// Whether a message must be on the disk before it's acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Files and directories are synced.
    Full,
    /// Nothing is: for test sinks and memory file systems.
    None,
}

impl Target {
    /// False for the queue of mail for elsewhere, which is its own root.
    pub(super) fn is_mailbox(&self) -> bool {
        self.maildir != *self.root
    }

    /// The quota that a message to this target counts against: none for Trash.
    pub(super) fn counted_quota(&self) -> Option<&Quota> {
        self.quota
            .as_ref()
            .filter(|_| self.folder.as_deref() != Some(TRASH))
    }
}

//! Making a message durable: it is written to a file in the first recipient's Maildir as it arrives, and then becomes
//! visible in every recipient's `new/`, or in none. [`Store::begin`] opens a [`Spool`], [`Spool::write`] adds content,
//! and [`Spool::commit`] returns [`Delivered`], the receipt that a 250 needs. There are no sockets here, and nothing of
//! the protocol except the replies for disk errors.
//!
//! The system calls of a message of up to 32 KiB for one recipient, and why there are no fewer: `openat` of the file in
//! `tmp/`; `write` of trace headers and message; `fsync`, because its octets must be durable before its name;
//! `fstatat`, because the directory that is kept open may have been moved since RCPT; `renameat2` to the name in
//! `new/`; `fsync`, because the name must be durable before the 250; `close`. If RCPT was more than a second ago, one
//! more `fstatat` comes first. A Maildir that was not used for ten seconds is opened first: an `openat` for itself, for
//! each directory above it up to the root and for its three parts, and an `fsync` of each directory that holds one of
//! these.
//!
//! Each further 32 KiB is one `write`. A quota adds two reads of `maildirsize` and one line to it. With several
//! recipients each one costs an `fstatat`, a `linkat` and an `fsync`, all together an `unlinkat`, and each further file
//! system a file. Sessions that deliver to one mailbox at the same time share the last `fsync` (see `group_sync`). A
//! message of any size needs a buffer of at most 96 KiB.

mod commit;
mod context;
mod copies;
#[cfg(test)]
mod crash_model;
mod dir_cache;
mod disk;
#[cfg(test)]
mod faults;
mod group_sync;
mod groups;
mod header;
mod junk;
mod maildir;
mod owner;
mod quota;
mod redirect;
mod refusal;
mod room;
mod source;
mod spool;
mod store;
mod sweep;
mod syncs;
mod target;
#[cfg(test)]
mod tests;
mod trace;
mod undo;

pub use self::commit::Delivered;
pub(crate) use self::disk::{Disk, FileId, Real as RealDisk, errno, fd, no_links, write_all};
pub use self::group_sync::GroupSync;
pub use self::groups::Groups;
pub use self::junk::JunkField;
pub use self::refusal::queue_refusal;
pub use self::room::Room;
pub use self::spool::Spool;
pub use self::store::Store;
pub use self::syncs::Syncs;
pub use self::target::{Form, Group, Owner, Quota, Sync, Target};
pub use self::trace::Trace;

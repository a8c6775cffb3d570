//! Resolves addresses: domains delivered here, aliases, accounts, subaddresses, the mailbox pattern, and which
//! mailboxes exist. It reads its two files once and looks at directories; it opens no mail and no sockets. `users` and
//! `aliases` parse the files, `lookup` finds names, `expand` follows aliases, `names` decides what is safe in a path.

mod accounts;
mod aliases;
mod composition;
mod domains;
mod expand;
mod fallbacks;
mod key;
mod lists;
mod lookup;
mod mailbox;
mod names;
mod owners;
mod pattern;
mod postmaster;
mod root;
#[cfg(test)]
mod tests;
mod userdb;
mod users;
mod vrfy;

pub use self::expand::{Onward, ResolveContext};
pub use self::lookup::{Directory, DirectoryConfig};
pub use self::names::domain_key;

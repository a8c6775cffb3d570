//! Who is behind an address: domains delivered here, aliases, accounts, subaddresses and the mailbox
//! pattern, and which mailboxes exist. It reads its two files once and looks at directories; it
//! opens no mail and knows no socket. `users` and `aliases` are the files, `domains` those delivered here,
//! `names` is what may be a name in a path.

mod accounts;
mod aliases;
mod domains;
mod expand;
mod lookup;
mod names;
mod pattern;
#[cfg(test)]
mod tests;
mod users;
mod vrfy;

pub use self::expand::Onward;
pub use self::lookup::{Directory, DirectorySettings};
pub use self::names::domain_key;

//! Greylisting (RFC 6647): [`Greylist`] is the pure decision, [`Keeper`] shares it in the server and keeps it on disk.

mod keeper;
mod list;

pub use self::keeper::{Attempt, Keeper, Settings};
pub use self::list::{Greylist, RETRY_WITHIN, Verdict};

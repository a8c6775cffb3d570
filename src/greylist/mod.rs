//! Greylisting (RFC 6647): [`Greylist`] decides who is put off and is pure, a [`Keeper`] has it in a running server
//! and on the disk.

mod keeper;
mod list;

pub use self::keeper::{Attempt, Keeper, Settings};
pub use self::list::{Greylist, RETRY_WITHIN, Verdict};

//! Greylisting (RFC 6647): [`Greylist`] is the pure decision, [`Keeper`] shares it in the server and keeps it on disk.

mod keeper;
mod list;

pub use self::keeper::{GreylistConfig, Keeper, Query};
pub use self::list::{Decision, Greylist, RETRY_WITHIN};

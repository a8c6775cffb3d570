//! The mailboxes that took mail for a postmaster who has none: what `postmaster` keeps between recipients.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::deliver::Target;

/// The mailboxes found so far, by domain.
#[derive(Default)]
pub(super) struct Fallbacks(pub(super) Mutex<HashMap<usize, Search>>);

/// What a search found, and until when it is not repeated.
pub(super) struct Search {
    pub(super) target: Option<Arc<Target>>,
    pub(super) rest: Instant,
}

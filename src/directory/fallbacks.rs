//! The cache of `postmaster`: the mailboxes that take mail for a postmaster without one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::deliver::Target;

/// The mailboxes found so far, by domain.
#[derive(Default)]
pub(super) struct Fallbacks(pub(super) Mutex<HashMap<usize, Search>>);

/// The result of a search, and the time before which it is not repeated.
pub(super) struct Search {
    pub(super) target: Option<Arc<Target>>,
    pub(super) not_before: Instant,
}

//! A cache of alias expansions, so that a list is not expanded again for every message. The mailboxes in it are shared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::key::AliasKey;
use crate::deliver::{Group, Target};
use crate::lock::lock;
use crate::smtp::reply::Reply;

/// How long an expansion is valid if it depends on directories, which may appear and vanish.
const FRESH: Duration = Duration::from_millis(100);
/// Maximum mailboxes in the cache.
const MAX_KEPT: usize = 100_000;

/// The cached expansion of an alias.
pub(super) type Expansion = Result<Group, Reply>;

/// Expansions by alias.
#[derive(Default)]
pub(super) struct Lists(Mutex<CachedLists>);

#[derive(Default)]
struct CachedLists {
    /// Each with the time until which it is valid; without one it is as long as the files are.
    expansions: HashMap<AliasKey<'static>, (Option<Instant>, Expansion)>,
    targets: HashMap<u64, Arc<Target>>,
    /// Members of all expansions, and one for each expansion.
    size: usize,
}

impl Lists {
    /// A cached expansion.
    pub(super) fn get(&self, key: &AliasKey<'_>) -> Option<Expansion> {
        let kept = self.lock();
        let (until, found) = kept.expansions.get(key)?;
        let valid = until.is_none_or(|until| Instant::now() < until);
        valid.then(|| found.clone())
    }

    /// Keeps an expansion; `fixed` if only the files decide on it. Equal mailboxes, which have equal numbers, are
    /// shared.
    pub(super) fn keep(
        &self,
        key: AliasKey<'_>,
        found: Result<Vec<(u64, Target)>, Reply>,
        fixed: bool,
    ) -> Expansion {
        let mut kept = self.lock();
        let length = found.as_ref().map_or(1, |found| found.len() + 1);
        if kept.size + length > MAX_KEPT {
            *kept = CachedLists::default();
        }
        let found = found.map(|found| {
            let share = |(number, target): (u64, Target)| {
                let known = kept.targets.get(&number).filter(|known| ***known == target);
                if let Some(known) = known {
                    return Arc::clone(known);
                }
                let target = Arc::new(target);
                kept.targets.insert(number, Arc::clone(&target));
                target
            };
            found.into_iter().map(share).collect::<Group>()
        });
        let until = (!fixed).then(|| Instant::now() + FRESH);
        if kept
            .expansions
            .insert(key.into_owned(), (until, found.clone()))
            .is_none()
        {
            kept.size += length;
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, CachedLists> {
        lock(&self.0)
    }
}

//! Expansions of aliases that are kept for a while, so that a list which is asked for again and again is
//! followed once. The mailboxes in them are shared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::key::AliasKey;
use crate::deliver::{Group, Target};
use crate::lock::lock;
use crate::smtp::reply::Refusal;

/// How long an expansion counts where mailboxes are directories, which anybody may make or remove.
const FRESH: Duration = Duration::from_millis(100);
/// The most mailboxes in all expansions that are kept.
const MAX_KEPT: usize = 100_000;

/// What was found for an alias.
pub(super) type Expansion = Result<Group, Refusal>;

/// Expansions by their aliases.
#[derive(Default)]
pub(super) struct Lists(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    expansions: HashMap<AliasKey, (Instant, Expansion)>,
    targets: HashMap<u64, Arc<Target>>,
    /// Members of all expansions, and one for each expansion.
    size: usize,
}

impl Lists {
    /// What was found before; `fixed` where only the files decide which mailboxes there are.
    pub(super) fn get(&self, key: &AliasKey, fixed: bool) -> Option<Expansion> {
        let kept = self.lock();
        let (since, found) = kept.expansions.get(key)?;
        (fixed || since.elapsed() < FRESH).then(|| found.clone())
    }

    /// Keeps an expansion. Equal mailboxes, which have equal numbers, become one.
    pub(super) fn keep(
        &self,
        key: AliasKey,
        found: Result<Vec<(u64, Target)>, Refusal>,
    ) -> Expansion {
        let mut kept = self.lock();
        let length = found.as_ref().map_or(1, |found| found.len() + 1);
        if kept.size + length > MAX_KEPT {
            *kept = Kept::default();
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
        if kept
            .expansions
            .insert(key, (Instant::now(), found.clone()))
            .is_none()
        {
            kept.size += length;
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        lock(&self.0)
    }
}

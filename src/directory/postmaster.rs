//! Mail for a postmaster without a mailbox goes to the first mailbox that can take it (RFC 5321 §4.5.1). The result is
//! cached, because the search goes through accounts or directories and any stranger can trigger it.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fallbacks::Search;
use super::lookup::Directory;
use crate::deliver::Target;
use crate::lock::lock;
use crate::smtp::reply::{self, Reply};

/// The generous cost of examining one candidate; until that time is over no other search begins.
const REST: Duration = Duration::from_micros(50);
/// Candidates that are free of charge.
const CHEAP: u32 = 256;

impl Directory {
    /// The first mailbox of the domain that can take mail, or else of any other domain.
    ///
    /// # Errors
    /// 550 if none can take it, 451 if the mail root is missing.
    pub(super) fn postmaster(
        &self,
        domain: usize,
        takes: &dyn Fn(&Target) -> bool,
    ) -> Result<Arc<Target>, Reply> {
        let mut searches = lock(&self.fallbacks.0);
        let fits = |target: &Target| {
            (self.creates() || self.users.is_some() || target.maildir.is_dir()) && takes(target)
        };
        let known = searches.get(&domain);
        if let Some(target) = known.and_then(|search| search.target.as_ref())
            && fits(target)
        {
            return Ok(Arc::clone(target));
        }
        let now = Instant::now();
        if known.is_none_or(|search| search.rest <= now) {
            let mut looks = 0;
            let target = self.first_mailbox(domain, &mut looks, &fits).map(Arc::new);
            let rest = now + REST * looks.saturating_sub(CHEAP);
            searches.insert(domain, Search { target, rest });
        }
        let found = searches
            .get(&domain)
            .and_then(|search| search.target.clone());
        found.ok_or_else(|| self.unknown(reply::NO_SUCH_USER))
    }

    fn first_mailbox(
        &self,
        domain: usize,
        looks: &mut u32,
        fits: &dyn Fn(&Target) -> bool,
    ) -> Option<Target> {
        let others = (0..self.domains.len()).filter(|&other| other != domain);
        let mut domains = std::iter::once(domain).chain(others);
        domains.find_map(|domain| match &self.users {
            Some(_) => self.first_account(domain, looks, fits),
            None => self.first_directory(domain, looks, fits),
        })
    }

    /// In the order of the users file.
    fn first_account(
        &self,
        domain: usize,
        looks: &mut u32,
        fits: &dyn Fn(&Target) -> bool,
    ) -> Option<Target> {
        let key = self.domains.key(domain);
        let users = self.users.as_ref()?;
        let mut entries = users.iter().inspect(|_| *looks = looks.saturating_add(1));
        entries.find_map(|entry| {
            let found = self.listed(&entry, domain).filter(|_| entry.is_at(key))?;
            fits(&found.target).then_some(found.target)
        })
    }

    /// In the order of the names of the directories.
    fn first_directory(
        &self,
        domain: usize,
        looks: &mut u32,
        fits: &dyn Fn(&Target) -> bool,
    ) -> Option<Target> {
        let siblings = self.pattern.siblings(self.domains.name(domain))?;
        let entries = fs::read_dir(&siblings.dir).ok()?;
        let mut names: Vec<String> = entries
            .inspect(|_| *looks = looks.saturating_add(1))
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                let name = name.strip_prefix(&siblings.before)?;
                Some(name.strip_suffix(&siblings.after)?.to_owned())
            })
            .collect();
        names.sort_unstable();
        names.into_iter().find_map(|name| {
            let target = self.target(&name, domain, None)?;
            fits(&target).then_some(target)
        })
    }
}

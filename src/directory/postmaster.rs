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

/// The pause between searches for each candidate examined; somewhat more than the examination takes.
const PAUSE: Duration = Duration::from_micros(50);
/// Candidates that are examined without a pause afterwards.
const WITHOUT_PAUSE: u32 = 256;

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
        if known.is_none_or(|search| search.not_before <= now) {
            let mut examined = 0;
            let target = self.first_mailbox(domain, &mut examined, &fits);
            let search = Search {
                target: target.map(Arc::new),
                not_before: now + PAUSE * examined.saturating_sub(WITHOUT_PAUSE),
            };
            searches.insert(domain, search);
        }
        let found = searches
            .get(&domain)
            .and_then(|search| search.target.clone());
        // Accounts cannot take mail either while the directory of all mailboxes is gone.
        found.ok_or_else(|| match self.root_exists() {
            Ok(true) => reply::NO_SUCH_USER,
            Ok(false) => reply::MAILBOX_AWAY,
            Err(refusal) => refusal,
        })
    }

    fn first_mailbox(
        &self,
        domain: usize,
        examined: &mut u32,
        fits: &dyn Fn(&Target) -> bool,
    ) -> Option<Target> {
        let others = (0..self.domains.len()).filter(|&other| other != domain);
        let mut domains = std::iter::once(domain).chain(others);
        domains.find_map(|domain| match &self.users {
            Some(_) => self.first_account(domain, examined, fits),
            None => self.first_directory(domain, examined, fits),
        })
    }

    /// In the order of the users file.
    fn first_account(
        &self,
        domain: usize,
        examined: &mut u32,
        fits: &dyn Fn(&Target) -> bool,
    ) -> Option<Target> {
        let key = self.domains.key(domain);
        let users = self.users.as_ref()?;
        let mut entries = users
            .iter()
            .inspect(|_| *examined = examined.saturating_add(1));
        entries.find_map(|entry| {
            let found = self.listed(&entry, domain).filter(|_| entry.is_at(key))?;
            fits(&found.target).then_some(found.target)
        })
    }

    /// In the order of the names of the directories.
    fn first_directory(
        &self,
        domain: usize,
        examined: &mut u32,
        fits: &dyn Fn(&Target) -> bool,
    ) -> Option<Target> {
        let siblings = self.pattern.siblings(self.domains.name(domain))?;
        let entries = fs::read_dir(&siblings.dir).ok()?;
        let mut names: Vec<String> = entries
            .inspect(|_| *examined = examined.saturating_add(1))
            .filter_map(|entry| siblings.local(entry))
            .collect();
        names.sort_unstable();
        names.into_iter().find_map(|name| {
            let target = self.target(&name, domain, None)?;
            fits(&target).then_some(target)
        })
    }
}

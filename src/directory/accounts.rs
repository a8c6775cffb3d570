//! Accounts: who logs in, and who may send as whom.

use super::lookup::Directory;
use super::names::domain_key;
use super::users::Entry;
use crate::auth::{Account, Mechanism};
use crate::smtp::address::{ForwardPath, ReversePath};
use std::path::PathBuf;
use std::sync::Arc;

impl Directory {
    /// Who logs in as `login`: an entry without a domain by its name, alone or with any
    /// delivered domain; one with a domain by its full address.
    pub fn account(&self, login: &str) -> Account {
        let Some(entry) = self.entry(login) else {
            return Account::Unknown;
        };
        match entry.stored() {
            Ok(Some(stored)) => Account::Known {
                user: entry.user.to_owned(),
                stored: Arc::new(stored),
            },
            Ok(None) | Err(_) => Account::Unknown,
        }
    }

    fn entry(&self, login: &str) -> Option<Entry<'_>> {
        let users = self.users.as_ref()?;
        let login = login.to_ascii_lowercase();
        match login.rsplit_once('@') {
            None => users.get(&login),
            Some((local, domain)) => {
                let key = domain_key(domain);
                let exact = users.get(&format!("{local}@{key}"));
                exact.or_else(|| {
                    users
                        .get(local)
                        .filter(|_| self.domains.find(&key).is_some())
                })
            }
        }
    }

    /// The mechanisms that every account's stored password allows.
    pub fn mechanisms(&self) -> Vec<Mechanism> {
        let users = self.users.as_ref();
        users
            .map(|users| users.mechanisms().to_vec())
            .unwrap_or_default()
    }

    /// Whether an address is the user's: mail to it reaches a mailbox of his. The null path is
    /// everybody's (RFC 6409 §6.1 leaves the rule to the site).
    pub fn may_send_as(&self, user: &str, from: &ReversePath) -> bool {
        let ReversePath::Mailbox(mailbox) = from else {
            return true;
        };
        let Some(entry) = self.entry(user) else {
            return false;
        };
        let reached = self.resolve(&ForwardPath::Mailbox(mailbox.clone()));
        let own = self.maildirs(&entry);
        reached.is_ok_and(|targets| targets.iter().any(|target| own.contains(&target.maildir)))
    }

    /// The Maildirs of an account, one for each domain that it is good for.
    fn maildirs(&self, entry: &Entry<'_>) -> Vec<PathBuf> {
        let only = entry.domain.map(domain_key);
        let at = (0..self.domains.len()).filter(|&at| {
            only.as_deref()
                .is_none_or(|only| only == self.domains.key(at))
        });
        let local = entry.local.to_ascii_lowercase();
        let targets = at.filter_map(|at| self.mailbox(&local, at, None, false).ok()?);
        targets.map(|target| target.maildir).collect()
    }
}

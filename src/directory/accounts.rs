//! Accounts as AUTH needs them: logins, and the addresses that a user may send from.

use std::hint::black_box;
use std::sync::Arc;

use super::composition::composed;
use super::expand::Visit;
use super::lookup::Directory;
use super::names::domain_key;
use super::users::{Entry, Users};
use crate::auth::{Account, Decoy, Mechanism};
use crate::smtp::address::{ForwardPath, ReversePath};

impl Directory {
    /// Looks up a login. An entry without a domain logs in by its name, alone or with any delivered domain; one with a
    /// domain by its full address.
    pub fn account(&self, login: &str) -> Account {
        let entry = self.entry(login);
        // Finding and parsing a password takes time, which must not reveal that the account exists.
        let users = self.users.as_ref();
        let sample = black_box(users.and_then(|users| users.sample(login)));
        let stored = entry.as_ref().and_then(|entry| entry.stored().ok()?);
        if let (Some(entry), Some(stored)) = (entry, stored) {
            return Account::Known {
                user: entry.user.to_owned(),
                stored: Arc::new(stored),
            };
        }
        drop(black_box(sample.map(|entry| entry.stored().map(Arc::new))));
        Account::Unknown
    }

    /// The name of the account of `login`, with or without a password.
    pub fn account_name(&self, login: &str) -> Option<String> {
        self.entry(login).map(|entry| entry.user.to_owned())
    }

    fn entry(&self, login: &str) -> Option<Entry<'_>> {
        let users = self.users.as_ref()?;
        let login = composed(&login.to_ascii_lowercase()).into_owned();
        let Some((local, domain)) = login.rsplit_once('@') else {
            return users.everywhere(&login);
        };
        let key = domain_key(domain);
        let exact = users.get(&format!("{local}@{key}"));
        let delivered = || {
            self.domains
                .find(&key)
                .and_then(|_| users.everywhere(local))
        };
        exact.or_else(delivered)
    }

    /// The substitute for accounts that do not exist.
    pub fn decoy(&self) -> Decoy {
        let users = self.users.as_ref();
        users.map_or_else(Decoy::default, |users| users.decoy().clone())
    }

    /// The name of a decoy. A stranger's logins with different domains show a client the same name or different ones as
    /// those of some account do, chosen by the stranger's name; those of a name in the file as the file has it.
    pub fn decoy_name(&self, login: &str) -> String {
        let login = composed(&login.to_ascii_lowercase()).into_owned();
        let Some((local, domain)) = login.rsplit_once('@') else {
            return login;
        };
        let key = domain_key(domain);
        let shared = |users: &Users| {
            let sample = users.sample(local).map(|entry| entry.local_key());
            let own =
                (0..self.domains.len()).any(|at| users.find(local, self.domains.key(at)).is_some());
            let like = sample.filter(|_| !own);
            let like = like.as_deref().unwrap_or(local);
            users.get(&format!("{like}@{key}")).is_none() && users.everywhere(like).is_some()
        };
        match self.domains.find(&key) {
            Some(_) if self.users.as_ref().is_none_or(shared) => local.to_owned(),
            _ => format!("{local}@{key}"),
        }
    }

    /// The mechanisms that every account's stored password supports.
    pub fn mechanisms(&self) -> Vec<Mechanism> {
        let users = self.users.as_ref();
        users
            .map(|users| users.mechanisms().to_vec())
            .unwrap_or_default()
    }

    /// True if an address belongs to the user: mail to it reaches the account's own mailbox, possibly by an alias.
    /// Everybody may use the null path (RFC 6409 §6.1 leaves the rule to the site).
    pub fn may_send_as(&self, user: &str, from: &ReversePath) -> bool {
        let ReversePath::Mailbox(mailbox) = from else {
            return true;
        };
        let Some(account) = self.entry(user).map(|entry| entry.key()) else {
            return false;
        };
        let path = ForwardPath::Mailbox(mailbox.clone());
        let Some(key) = self.key(&path) else {
            return false;
        };
        let mut own = false;
        // The final result does not matter: the address may have other targets as well.
        let _ = self.walk(&key, &mut usize::MAX.clone(), &mut |_, visit| {
            own |=
                matches!(visit, Visit::Mailbox(found) if found.account.as_ref() == Some(&account));
            Ok(!own)
        });
        own
    }
}

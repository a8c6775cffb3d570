//! The answers to VRFY and EXPN (RFC 5321 §3.5).

use std::borrow::Cow;
use std::sync::Mutex;

use super::aliases::AliasTarget;
use super::key::AliasKey;
use super::lookup::{Alias, Directory, Lookup};
use crate::lock::lock;
use crate::smtp::address::{ForwardPath, Mailbox};
use crate::smtp::reply::{self, Reply};

/// Held while all accounts are searched for a name, or a list is written out, so that this takes no more than one core.
static SEARCH: Mutex<()> = Mutex::new(());

impl Directory {
    /// The user or alias with an address, a name, a full name or a word of one (RFC 5321 §3.5.1).
    ///
    /// # Errors
    /// 550 5.1.1 for no match, 553 5.1.4 for several.
    pub fn vrfy(&self, name: &str) -> Result<Vec<String>, Reply> {
        if let Some(key) = self.key_of(name) {
            match self.lookup(&key)? {
                // RCPT takes mail for it in any case.
                Lookup::Nobody(_) if key.local == "postmaster" => {
                    return self
                        .postmaster(key.domain, &|_| true)
                        .map(|_| vec![self.line(&key)]);
                }
                Lookup::Nobody(_) => {}
                Lookup::Alias(_) | Lookup::Mailbox(_) => return Ok(vec![self.line(&key)]),
            }
        }
        let name = unquoted(name.trim());
        let _one = lock(&SEARCH);
        let mut named = self.users.iter().flat_map(|users| users.called(&name));
        match (named.next(), named.next()) {
            (None, _) => Err(reply::NO_SUCH_USER),
            (Some(_), Some(_)) => Err(reply::AMBIGUOUS),
            (Some(entry), None) => {
                let domain = entry.domain.unwrap_or_else(|| self.domains.name(0));
                let address = Mailbox::new(entry.local, domain);
                Ok(vec![format!("{} <{address}>", entry.name)])
            }
        }
    }

    /// The members of a list (RFC 5321 §3.5.2): a line each; a mailbox is a list of itself.
    ///
    /// # Errors
    /// As [`Self::vrfy`].
    pub fn expn(&self, name: &str) -> Result<Vec<String>, Reply> {
        let Some(key) = self.key_of(name) else {
            return self.vrfy(name);
        };
        let Lookup::Alias(Alias { targets, .. }) = self.lookup(&key)? else {
            return self.vrfy(name);
        };
        let line = |target: &AliasTarget| match target {
            AliasTarget::Remote(address) => format!("<{address}>"),
            AliasTarget::Local(local, at) | AliasTarget::Mailbox(local, at) => {
                self.line(&AliasKey::new(local, at.unwrap_or(key.domain)))
            }
        };
        let _one = lock(&SEARCH);
        Ok(targets.iter().map(line).collect())
    }

    /// `Full Name <address>`, or the address alone where no name is known.
    fn line(&self, key: &AliasKey<'_>) -> String {
        let users = self.users.as_ref();
        let entry = users.and_then(|users| users.find(&key.local, self.domains.key(key.domain)));
        let address = Mailbox::new(&key.local, self.domains.name(key.domain));
        match entry
            .map(|entry| entry.name)
            .filter(|name| !name.is_empty())
        {
            Some(name) => format!("{name} <{address}>"),
            None => format!("<{address}>"),
        }
    }

    fn key_of(&self, name: &str) -> Option<AliasKey<'static>> {
        let path = ForwardPath::from_text(name.trim())?;
        self.key(&path).map(AliasKey::into_owned)
    }
}

/// A name without the quotes that one with spaces needs (RFC 5321 §4.1.1.6).
fn unquoted(name: &str) -> Cow<'_, str> {
    match ForwardPath::from_text(name) {
        Some(ForwardPath::Mailbox(mailbox)) if name.starts_with('"') => {
            Cow::Owned(mailbox.local().to_owned())
        }
        _ => Cow::Borrowed(name),
    }
}

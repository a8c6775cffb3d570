//! Questions about people rather than mail: who logs in, who may send as whom, and what VRFY and
//! EXPN tell.

use super::aliases::Goal;
use super::users::Entry;
use super::{Directory, Meaning, Node, domain_key};
use crate::auth::{Account, Mechanism};
use crate::smtp::address::{ForwardPath, Mailbox, ReversePath};
use crate::smtp::cursor::Cursor;
use crate::smtp::reply::{self, Refusal};
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

    /// Who `name` is (RFC 5321 §3.5.1): an address, a user's or alias's name, or a full name or
    /// a word of one.
    ///
    /// # Errors
    /// 550 5.1.1 where nobody is, 553 5.1.4 where several are.
    pub fn vrfy(&self, name: &str) -> Result<Vec<String>, Refusal> {
        if let Some(node) = self.node(name) {
            match self.meaning(&node)? {
                Meaning::Nobody => {}
                Meaning::Goals(..) => return Ok(vec![self.line(&node)]),
                Meaning::Mailbox(_) => return Ok(vec![self.line(&node)]),
            }
        }
        let users = self.users.iter().flat_map(|users| users.iter());
        let mut named = users.filter(|entry| is_called(entry, name));
        match (named.next(), named.next()) {
            (None, _) => Err(Refusal::client(reply::NO_SUCH_USER)),
            (Some(_), Some(_)) => Err(Refusal::client(reply::AMBIGUOUS)),
            (Some(entry), None) => {
                let domain = entry.domain.unwrap_or_else(|| self.domains.name(0));
                Ok(vec![format!("{} <{}@{domain}>", entry.name, entry.local)])
            }
        }
    }

    /// The members of a list (RFC 5321 §3.5.2): a line each; a mailbox is a list of itself.
    ///
    /// # Errors
    /// As [`Self::vrfy`].
    pub fn expn(&self, name: &str) -> Result<Vec<String>, Refusal> {
        let Some(node) = self.node(name) else {
            return self.vrfy(name);
        };
        let Meaning::Goals(goals, _) = self.meaning(&node)? else {
            return self.vrfy(name);
        };
        let line = |goal: &Goal| match goal {
            Goal::Remote(address) => format!("<{address}>"),
            Goal::Local(local, at) => self.line(&Node {
                local: local.clone(),
                domain: at.unwrap_or(node.domain),
                own: true,
            }),
        };
        Ok(goals.iter().map(line).collect())
    }

    /// `Full Name <address>`, or the address alone where no name is known.
    fn line(&self, node: &Node) -> String {
        let users = self.users.as_ref();
        let entry = users.and_then(|users| users.find(&node.local, self.domains.key(node.domain)));
        let address = Mailbox::new(&node.local, self.domains.name(node.domain));
        match entry
            .map(|entry| entry.name)
            .filter(|name| !name.is_empty())
        {
            Some(name) => format!("{name} <{address}>"),
            None => format!("<{address}>"),
        }
    }

    fn node(&self, name: &str) -> Option<Node> {
        let name = name.trim();
        let path = match name.starts_with('<') {
            true => name.to_owned(),
            false => format!("<{name}>"),
        };
        let mut cursor = Cursor::new(&path);
        let parsed = ForwardPath::parse(&mut cursor).filter(|_| cursor.rest().is_empty());
        let (local, domain) = match parsed? {
            ForwardPath::Postmaster => ("postmaster".to_owned(), 0),
            ForwardPath::Mailbox(mailbox) => {
                let domain = match mailbox.domain() {
                    Some(domain) => self.domains.find(&domain_key(domain))?,
                    None => 0,
                };
                (mailbox.local().to_ascii_lowercase(), domain)
            }
        };
        Some(Node {
            local,
            domain,
            own: false,
        })
    }
}

/// Whether a full name, or a word of it, is `name`.
fn is_called(entry: &Entry<'_>, name: &str) -> bool {
    let same = |text: &str| text.to_lowercase() == name.trim().to_lowercase();
    !entry.name.is_empty() && (same(entry.name) || entry.name.split_whitespace().any(same))
}

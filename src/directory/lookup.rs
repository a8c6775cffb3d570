//! The directory: which names at the domains delivered here are aliases and which are mailboxes, and where
//! those lie. It looks at directories and opens no mail. Following an alias is `expand`'s.

use super::aliases::{AliasTarget, Aliases};
use super::domains::Domains;
use super::names::{self, domain_key};
use super::pattern::{Part, parts, root};
use super::users::{Entry, Users};
use crate::deliver::{Quota, Target};
use crate::failure::FileError;
use crate::smtp::reply::{self, Refusal};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a directory is made from.
#[derive(Clone, Debug)]
pub struct DirectorySettings {
    /// Domains delivered here; the first stands in where an address has none.
    pub domains: Vec<String>,
    /// Where a mailbox is: `%u` local part, `%d` domain, `%%`.
    pub pattern: String,
    /// Whether any well-formed local part is a mailbox.
    pub create: bool,
    /// Characters between user and folder (RFC 5233); none turns it off.
    pub delimiter: String,
    /// Accounts.
    pub users: Option<PathBuf>,
    /// Aliases.
    pub aliases: Option<PathBuf>,
    /// The quota of a mailbox that has none of its own.
    pub quota: Option<Quota>,
}

/// Who gets mail.
pub struct Directory {
    pub(super) domains: Domains,
    pub(super) pattern: String,
    pub(super) parts: Vec<Part>,
    pub(super) root: Arc<Path>,
    pub(super) create: bool,
    pub(super) delimiter: String,
    pub(super) users: Option<Users>,
    pub(super) aliases: Option<Aliases>,
    pub(super) quota: Option<Quota>,
}

/// A name at a domain on its way to a mailbox; `detail` is a subaddress that an alias before it
/// left over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct AliasKey {
    pub(super) local: String,
    pub(super) domain: usize,
    /// Whether aliases no longer count: the name stood among its own targets.
    pub(super) own: bool,
}

/// What aliases make of a node.
pub(super) enum Lookup<'a> {
    Targets(&'a [AliasTarget], Option<&'a str>),
    Mailbox(Target),
    Nobody,
}

impl Directory {
    /// Reads the files.
    ///
    /// # Errors
    /// The file, the line and what is wrong with it.
    pub fn load(settings: &DirectorySettings) -> Result<Self, FileError> {
        let domains = Domains::new(&settings.domains);
        let users = settings.users.as_deref().map(Users::load).transpose()?;
        let aliases = settings.aliases.as_deref();
        let aliases = aliases
            .map(|path| Aliases::load(path, &domains))
            .transpose()?;
        Ok(Self {
            domains,
            pattern: settings.pattern.clone(),
            parts: parts(&settings.pattern),
            root: Arc::from(root(&settings.pattern)),
            create: settings.create,
            delimiter: settings.delimiter.clone(),
            users,
            aliases,
            quota: settings.quota.clone(),
        })
    }

    /// Domains delivered here.
    pub fn domains(&self) -> &[String] {
        &self.domains.names
    }

    /// Where a mailbox is.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Whether any well-formed local part is a mailbox.
    pub const fn creates(&self) -> bool {
        self.create
    }

    /// How many accounts there are, where there is a file of them.
    pub fn users(&self) -> Option<usize> {
        self.users.as_ref().map(Users::len)
    }

    /// How many aliases there are, where there is a file of them.
    pub fn aliases(&self) -> Option<usize> {
        self.aliases.as_ref().map(Aliases::len)
    }

    /// The part of the pattern before its first `%`, to its last slash.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What a name means: an alias or a mailbox of the whole name, then of the name without its
    /// subaddress, then the domain's catch-all.
    pub(super) fn lookup<'a>(&'a self, node: &'a AliasKey) -> Result<Lookup<'a>, Refusal> {
        let aliases = self.aliases.as_ref().filter(|_| !node.own);
        let alias = |name: &str| aliases.and_then(|aliases| aliases.find(name, node.domain));
        let (local, domain) = (node.local.as_str(), node.domain);
        if let Some(targets) = alias(local) {
            return Ok(Lookup::Targets(targets, None));
        }
        let split = self.subaddress(local);
        if let Some(target) = self.mailbox(local, domain, None, split.is_none())? {
            return Ok(Lookup::Mailbox(target));
        }
        if let Some((base, detail)) = split {
            if let Some(targets) = alias(base) {
                return Ok(Lookup::Targets(targets, Some(detail)));
            }
            if let Some(target) = self.mailbox(base, domain, Some((local, detail)), true)? {
                return Ok(Lookup::Mailbox(target));
            }
        }
        let catch_all = aliases.and_then(|aliases| aliases.catch_all(domain));
        Ok(match catch_all {
            Some(targets) if local != "postmaster" => Lookup::Targets(targets, None),
            _ => Lookup::Nobody,
        })
    }

    /// User and detail (RFC 5233), at the first separator behind at least one character.
    pub(super) fn subaddress<'a>(&self, local: &'a str) -> Option<(&'a str, &'a str)> {
        let at = local
            .find(|c| self.delimiter.contains(c))
            .filter(|&at| at > 0)?;
        let (base, rest) = local.split_at_checked(at)?;
        let mut rest = rest.chars();
        rest.next();
        Some((base, rest.as_str()))
    }

    /// The mailbox of a name, if there is one. `whole` is the address with its subaddress and
    /// the folder it asks for; `may_create` whether `--create` makes one of any name.
    pub(super) fn mailbox(
        &self,
        local: &str,
        domain: usize,
        whole: Option<(&str, &str)>,
        may_create: bool,
    ) -> Result<Option<Target>, Refusal> {
        let Some(mut target) = self.target(local, domain) else {
            return Ok(None);
        };
        let made = self.create && may_create;
        let listed = match &self.users {
            Some(users) => {
                let entry = users.find(local, self.domains.key(domain));
                entry
                    .inspect(|entry| self.adapt(&mut target, entry, domain))
                    .is_some()
            }
            // Whether it is there already makes no difference then.
            None => made || exists(&target.maildir)?,
        };
        if !(listed || made) {
            return Ok(None);
        }
        if let Some((whole, detail)) = whole {
            target.address = format!("{whole}@{}", self.domains.name(domain));
            target.folder =
                names::folder(detail).filter(|folder| is_folder(&target.maildir.join(folder)));
        }
        Ok(Some(target))
    }

    /// What the users file says of a mailbox.
    fn adapt(&self, target: &mut Target, entry: &Entry<'_>, domain: usize) {
        if let Ok(Some(maildir)) = entry.mail(self.domains.name(domain)) {
            target.root = Arc::from(maildir.parent().unwrap_or_else(|| Path::new("/")));
            target.maildir = maildir;
        }
        if let Ok(Some(quota)) = entry.quota() {
            target.quota = Some(quota);
        }
    }

    /// Unknown, unless the whole tree is away.
    pub(super) fn unknown(&self) -> Refusal {
        match exists(&self.root) {
            Err(refusal) => refusal,
            Ok(false) if self.users.is_none() => Refusal::local(reply::MAILBOX_AWAY),
            Ok(_) => Refusal::client(reply::NO_SUCH_USER),
        }
    }

    /// Mail for postmaster always goes somewhere (RFC 5321 §4.5.1): where nobody has that name,
    /// to the first mailbox there is, of the users file or among the directories.
    pub(super) fn first_mailbox(&self, domain: usize) -> Result<Target, Refusal> {
        if let Some(users) = &self.users {
            let entry = users.first();
            let at = entry.as_ref().and_then(|entry| match entry.domain {
                Some(name) => self.domains.find(&domain_key(name)),
                None => Some(domain),
            });
            let local = entry.map(|entry| entry.local.to_ascii_lowercase());
            let target = match (local, at) {
                (Some(local), Some(at)) => self.mailbox(&local, at, None, false)?,
                _ => None,
            };
            return target.ok_or_else(|| self.unknown());
        }
        let own = self
            .target("postmaster", domain)
            .ok_or_else(|| self.unknown())?;
        let siblings = own
            .maildir
            .parent()
            .and_then(|dir| std::fs::read_dir(dir).ok());
        let mut names: Vec<String> = siblings
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        for name in names {
            if let Some(target) = self.target(&name, domain)
                && exists(&target.maildir)?
            {
                return Ok(target);
            }
        }
        Err(self.unknown())
    }

    /// The mailbox that a name would have.
    fn target(&self, local: &str, domain: usize) -> Option<Target> {
        if !names::safe(local) || !self.domains.is_safe(domain) {
            return None;
        }
        let domain = self.domains.name(domain);
        let mut path = String::with_capacity(self.pattern.len() + local.len() + domain.len());
        for part in &self.parts {
            path.push_str(match part {
                Part::Text(text) => text,
                Part::Local => local,
                Part::Domain => domain,
            });
        }
        Some(Target {
            root: Arc::clone(&self.root),
            maildir: PathBuf::from(path),
            address: [local, "@", domain].concat(),
            may_create: true,
            folder: None,
            original: None,
            quota: self.quota.clone(),
            owner: None,
        })
    }
}

/// Whether a directory is there. For a mailbox this is the one system call of a recipient without a subaddress
/// (`statx`), and there is none where a users file or `--create` decides. The answer is not kept: whoever makes or removes
/// a mailbox is heard at the next RCPT.
fn exists(dir: &Path) -> Result<bool, Refusal> {
    match std::fs::metadata(dir) {
        Ok(meta) => Ok(meta.is_dir()),
        Err(e)
            if matches!(
                e.kind(),
                ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename
            ) =>
        {
            Ok(false)
        }
        Err(_) => Err(Refusal::local(reply::LOCAL_ERROR)),
    }
}

/// Symbolic links inside a Maildir are not followed.
fn is_folder(dir: &Path) -> bool {
    std::fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir())
}

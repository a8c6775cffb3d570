//! The directory: which names at the delivered domains are aliases and which are mailboxes, and where these are.
//! `expand` follows aliases, `mailbox` looks at the disk.

use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::aliases::{AliasTarget, Aliases};
use super::composition::composed;
use super::domains::Domains;
use super::fallbacks::Fallbacks;
use super::key::AliasKey;
use super::lists::Lists;
use super::mailbox;
use super::names;
use super::pattern::{Pattern, Values};
use super::users::{Entry, Users};
use crate::deliver::{Owner, Quota, Target};
use crate::failure::FileError;
use crate::smtp::address::ForwardPath;
use crate::smtp::reply::{self, Reply};

/// The settings of a directory.
#[derive(Clone, Debug)]
pub struct DirectoryConfig {
    /// Domains delivered here; the first is the default of addresses without one.
    pub domains: Vec<String>,
    /// Where a mailbox is: `%u` local part, `%d` domain, `%h` home, `%%`.
    pub pattern: String,
    /// True if any well-formed local part is a mailbox.
    pub create: bool,
    /// Characters between user and folder (RFC 5233); empty turns subaddresses off.
    pub delimiter: String,
    /// Accounts.
    pub users: Option<PathBuf>,
    /// Aliases.
    pub aliases: Option<PathBuf>,
    /// The default quota of a mailbox.
    pub quota: Option<Quota>,
    /// Maximum mailboxes of one transaction.
    pub max_recipients: usize,
    /// True if a listener may offer AUTH; otherwise passwords are not parsed.
    pub logins: bool,
}

/// The mailboxes and aliases of the domains delivered here.
pub struct Directory {
    pub(super) domains: Domains,
    pub(super) pattern: Pattern,
    pub(super) root: Arc<Path>,
    /// The roots that were seen to be mounts, sorted: each home may be one.
    pub(super) mounted: Mutex<Vec<Arc<Path>>>,
    create: bool,
    delimiter: String,
    pub(super) users: Option<Users>,
    pub(super) aliases: Option<Aliases>,
    quota: Option<Quota>,
    pub(super) max_recipients: usize,
    pub(super) lists: Lists,
    pub(super) fallbacks: Fallbacks,
    /// Randomly keyed, so that nobody can construct two mailboxes with one number.
    hasher: RandomState,
}

/// A name with a subaddress, in parts (RFC 5233).
pub(super) struct Subaddress<'a> {
    /// The user, in lower case.
    pub(super) base: &'a str,
    /// The detail in the client's spelling.
    pub(super) detail: &'a str,
    /// The separator and the detail.
    tail: &'a str,
}

/// The meaning of a name.
pub(super) enum Lookup<'d, 'k> {
    /// An alias.
    Alias(Alias<'d, 'k>),
    /// A mailbox.
    Mailbox(Found),
    /// Neither; the reply says why.
    Nobody(Reply),
}

/// An alias that was found.
pub(super) struct Alias<'d, 'k> {
    pub(super) targets: &'d [AliasTarget],
    /// The name of the alias; empty for a catch-all.
    pub(super) name: &'k str,
    /// The detail of the subaddress, if any.
    pub(super) detail: Option<&'k str>,
}

/// True if a mailbox is open already and its path still leads to it.
pub(super) type IsOpen<'a> = &'a dyn Fn(&Target) -> bool;

/// A mailbox that was found.
pub(super) struct Found {
    pub(super) target: Target,
    /// The key of the account, if there is one.
    pub(super) account: Option<String>,
}

impl Directory {
    /// Reads the files.
    ///
    /// # Errors
    /// The file, the line and what is wrong with it.
    pub fn load(settings: &DirectoryConfig) -> Result<Self, FileError> {
        let domains = Domains::new(&settings.domains);
        let pattern = Pattern::new(&settings.pattern);
        let load_users = |path: &PathBuf| Users::load(path, settings.logins, pattern.needs_home());
        let users = settings.users.as_ref().map(load_users).transpose()?;
        let aliases = settings.aliases.as_deref();
        let aliases = aliases
            .map(|path| Aliases::load(path, &domains))
            .transpose()?;
        let directory = Self {
            domains,
            root: Arc::from(pattern.root()),
            mounted: Mutex::default(),
            pattern,
            create: settings.create,
            delimiter: settings.delimiter.clone(),
            users,
            aliases,
            quota: settings.quota.clone(),
            max_recipients: settings.max_recipients,
            lists: Lists::default(),
            fallbacks: Fallbacks::default(),
            hasher: RandomState::new(),
        };
        directory.warn_of_long_lists();
        // Whether it is a mount now must be known.
        directory.has_root();
        Ok(directory)
    }

    /// Domains delivered here.
    pub fn domains(&self) -> &[String] {
        &self.domains.names
    }

    /// Where a mailbox is.
    pub fn pattern(&self) -> &str {
        self.pattern.as_str()
    }

    /// The Maildir that `local` would have at the first domain, as an example.
    pub fn example(&self, local: &str) -> Option<String> {
        let path = self.pattern.fill(Values {
            local,
            domain: self.domains.name(0),
            home: None,
        })?;
        Some(path.display().to_string())
    }

    /// True if any well-formed local part is a mailbox.
    pub const fn creates(&self) -> bool {
        self.create
    }

    /// The number of accounts, if there is a users file.
    pub fn users(&self) -> Option<usize> {
        self.users.as_ref().map(Users::len)
    }

    /// The number of aliases, if there is an aliases file.
    pub fn aliases(&self) -> Option<usize> {
        self.aliases.as_ref().map(Aliases::len)
    }

    /// The part of the pattern before its first `%`, to its last slash.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// True if mailboxes are in the homes of their accounts, or all accounts have Maildirs of their own: there is no
    /// mail root.
    pub fn is_without_root(&self) -> bool {
        let own = || self.users.as_ref().is_some_and(Users::have_own_maildirs);
        self.pattern.needs_home() || !self.create && own()
    }

    /// Maximum mailboxes of one transaction.
    pub const fn max_recipients(&self) -> usize {
        self.max_recipients
    }

    /// A number by which a target's mailbox or folder is told from others.
    pub fn mailbox_number(&self, target: &Target) -> u64 {
        self.hasher.hash_one(target.mailbox())
    }

    /// A number by which a remote address is told from others.
    pub fn address_number(&self, address: &str) -> u64 {
        self.hasher.hash_one(address)
    }

    /// Checks on disk that a target can take mail now.
    ///
    /// # Errors
    /// 451 4.2.0 for a mailbox that cannot be used, 451 4.2.1 if the mail root is missing, 550 for a name that is too
    /// long.
    pub fn check_usable(&self, target: &Target) -> Result<(), Reply> {
        if !self.exists(&target.root)? {
            return Err(match target.root == self.root {
                true => reply::MAILBOX_AWAY,
                false => reply::MAILBOX_UNUSABLE,
            });
        }
        if let Some(folder) = &target.folder {
            mailbox::check(&target.maildir.join(folder), target.owner, false)?;
        }
        mailbox::check(&target.maildir, target.owner, target.may_create)
    }

    /// The key of a forward-path; `None` if its domain is not delivered here.
    pub(super) fn key<'k>(&self, to: &'k ForwardPath) -> Option<AliasKey<'k>> {
        let ForwardPath::Mailbox(mailbox) = to else {
            return Some(AliasKey::new("postmaster", 0));
        };
        let domain = match mailbox.domain() {
            None => 0,
            Some(name) => self.domains.find_name(name)?,
        };
        Some(AliasKey::new(composed(mailbox.local()), domain))
    }

    /// Looks up a name: first an alias or mailbox of the whole name, then one of the name without its subaddress, then
    /// the domain's catch-all.
    ///
    /// # Errors
    /// 451 for local errors.
    pub(super) fn lookup<'d, 'k>(&'d self, key: &'k AliasKey<'_>) -> Result<Lookup<'d, 'k>, Reply> {
        self.lookup_beside(key, false, &|_| false)
    }

    /// Like [`Self::lookup`], but relies on `is_open` before the disk. With `--create` a catch-all takes names that
    /// have no mailbox yet, except a `member` of an alias: its mailbox is created.
    ///
    /// # Errors
    /// 451 for local errors.
    pub(super) fn lookup_beside<'d, 'k>(
        &'d self,
        key: &'k AliasKey<'_>,
        member: bool,
        is_open: IsOpen<'_>,
    ) -> Result<Lookup<'d, 'k>, Reply> {
        let aliases = self.aliases.as_ref().filter(|_| !key.own);
        let alias = |name: &str| aliases.and_then(|aliases| aliases.find(name, key.domain));
        if let Some(targets) = alias(&key.local) {
            return Ok(Lookup::Alias(Alias {
                targets,
                name: &key.local,
                detail: None,
            }));
        }
        let sub = self.subaddress(key);
        let caught = !member && self.catch_all(key).is_some();
        let creates = self.create && !caught && !names::is_route(&key.local);
        let mailbox = |local: &str, creates| self.mailbox((local, key.domain), creates, is_open);
        if let Some(found) = mailbox(&key.local, creates && sub.is_none())? {
            return Ok(Lookup::Mailbox(found));
        }
        if let Some(sub) = &sub {
            if let Some(targets) = alias(sub.base) {
                return Ok(Lookup::Alias(Alias {
                    targets,
                    name: sub.base,
                    detail: Some(sub.detail),
                }));
            }
            if let Some(mut found) = mailbox(sub.base, creates)? {
                self.enter_folder(&mut found.target, key, sub);
                return Ok(Lookup::Mailbox(found));
            }
        }
        let base = sub.as_ref().map_or(&*key.local, |sub| sub.base);
        Ok(self.nobody(key, base))
    }

    /// Handles a name without alias and mailbox.
    fn nobody<'d>(&'d self, key: &AliasKey<'_>, base: &str) -> Lookup<'d, 'static> {
        if !names::safe(&key.local) && !names::safe(base) {
            return Lookup::Nobody(reply::NO_SUCH_USER);
        }
        if self.create && names::is_route(&key.local) {
            return Lookup::Nobody(reply::NO_RELAY);
        }
        match self.catch_all(key) {
            Some(targets) => Lookup::Alias(Alias {
                targets,
                name: "",
                detail: None,
            }),
            None => Lookup::Nobody(reply::NO_SUCH_USER),
        }
    }

    fn catch_all(&self, key: &AliasKey<'_>) -> Option<&[AliasTarget]> {
        let aliases = self.aliases.as_ref().filter(|_| !key.own)?;
        aliases.catch_all(key.domain)
    }

    fn enter_folder(&self, target: &mut Target, key: &AliasKey<'_>, sub: &Subaddress<'_>) {
        let domain = self.domains.name(key.domain);
        target.address = [sub.base, sub.tail, "@", domain].concat();
        target.folder = mailbox::folder(&target.maildir, sub.detail);
    }

    /// User and detail (RFC 5233), at the first separator after at least one character.
    pub(super) fn subaddress<'a>(&self, key: &'a AliasKey<'_>) -> Option<Subaddress<'a>> {
        let (base, _) = self.split(&key.local)?;
        let (spelled, detail) = self.split(key.spelled())?;
        Some(Subaddress {
            base,
            detail,
            tail: key.spelled().strip_prefix(spelled)?,
        })
    }

    /// User and detail of a local part.
    pub(super) fn split<'a>(&self, local: &'a str) -> Option<(&'a str, &'a str)> {
        let at = local
            .find(|c| self.delimiter.contains(c))
            .filter(|&at| at > 0)?;
        let (base, rest) = local.split_at_checked(at)?;
        let mut rest = rest.chars();
        rest.next();
        Some((base, rest.as_str()))
    }

    /// The separator of subaddresses.
    pub(super) fn separator(&self) -> char {
        self.delimiter.chars().next().unwrap_or('+')
    }

    /// The mailbox of a name, if there is one; with `creates` it need not exist yet.
    fn mailbox(
        &self,
        (local, domain): (&str, usize),
        creates: bool,
        is_open: IsOpen<'_>,
    ) -> Result<Option<Found>, Reply> {
        let users = self.users.as_ref();
        if let Some(entry) = users.and_then(|users| users.find(local, self.domains.key(domain))) {
            return Ok(self.listed(&entry, domain));
        }
        let home = None;
        let Some(mut target) = self.target(local, domain, home) else {
            return Ok(None);
        };
        target.may_create = creates;
        // The disk is not asked if the mailbox would be created anyway.
        let exists = || Ok(is_open(&target) || mailbox::exists(&target.maildir)?);
        let listed_only = users.is_some() && !self.create;
        let found = creates || (!listed_only && exists()?);
        let account = None;
        Ok(found.then_some(Found { target, account }))
    }

    /// The mailbox of an account.
    pub(super) fn listed(&self, entry: &Entry<'_>, domain: usize) -> Option<Found> {
        let domain_name = self.domains.name(domain);
        let local = composed(&entry.local.to_ascii_lowercase()).into_owned();
        // A faulty entry was reported when the file was read.
        let own = entry.mail(domain_name).ok()?;
        let home = Some(entry.home).filter(|home| !home.is_empty());
        let mut target = match own {
            Some(maildir) => Target {
                root: Arc::from(maildir.parent().unwrap_or_else(|| Path::new("/"))),
                maildir,
                ..self.new_target(&local, domain_name, PathBuf::new())
            },
            None => self.target(&local, domain, home)?,
        };
        target.may_create = true;
        if let Ok(Some((uid, gid))) = entry.owner() {
            target.owner = Some(Owner { uid, gid });
        }
        if let Ok(Some(quota)) = entry.quota() {
            target.quota = Some(quota);
        }
        let account = Some(entry.key());
        Some(Found { target, account })
    }

    /// The mailbox of a name according to the pattern.
    pub(super) fn target(&self, local: &str, domain: usize, home: Option<&str>) -> Option<Target> {
        if !names::safe(local) || !self.domains.is_safe(domain) {
            return None;
        }
        let domain = self.domains.name(domain);
        let maildir = self.pattern.fill(Values {
            local,
            domain,
            home,
        })?;
        if !names::fits(&maildir) {
            return None;
        }
        let mut target = self.new_target(local, domain, maildir);
        if let Some(home) = home.filter(|_| self.pattern.needs_home()) {
            target.root = Arc::from(Path::new(home));
        }
        Some(target)
    }

    fn new_target(&self, local: &str, domain: &str, maildir: PathBuf) -> Target {
        Target {
            root: Arc::clone(&self.root),
            maildir,
            address: [local, "@", domain].concat(),
            may_create: false,
            folder: None,
            original: None,
            quota: self.quota.clone(),
            owner: None,
        }
    }

    /// The refusal of an unknown name, or of any name while the mail root is missing.
    pub(super) fn unknown(&self, reply: Reply) -> Reply {
        match self.root_exists() {
            Err(refusal) => refusal,
            Ok(false) if self.users.is_none() => reply::MAILBOX_AWAY,
            Ok(_) => reply,
        }
    }
}

//! Who is behind an address: domains delivered here, aliases, accounts, subaddresses and the mailbox
//! pattern, and which mailboxes exist. It reads its two files once and looks at directories; it
//! opens no mail and knows no socket. `users` and `aliases` are the files, `domains` those delivered here,
//! `names` is what may be a name in a path.

mod aliases;
mod domains;
mod names;
mod people;
#[cfg(test)]
mod tests;
mod users;

use self::aliases::{Aliases, Goal};
use self::domains::Domains;
use self::users::{Entry, Users};
use crate::deliver::{Quota, Target};
use crate::failure::FileError;
use crate::smtp::address::ForwardPath;
use crate::smtp::reply::{self, Refusal};
use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::names::domain_key;

/// What a directory is made from.
#[derive(Clone, Debug)]
pub struct Settings {
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

/// A part of the mailbox pattern.
enum Part {
    Text(String),
    Local,
    Domain,
}

/// Who gets mail.
pub struct Directory {
    domains: Domains,
    pattern: String,
    parts: Vec<Part>,
    root: Arc<Path>,
    create: bool,
    delimiter: String,
    users: Option<Users>,
    aliases: Option<Aliases>,
    quota: Option<Quota>,
}

/// A name at a domain on its way to a mailbox; `detail` is a subaddress that an alias before it
/// left over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    local: String,
    domain: usize,
    /// Whether aliases no longer count: the name stood among its own targets.
    own: bool,
}

/// What aliases make of a node.
enum Meaning<'a> {
    Goals(&'a [Goal], Option<&'a str>),
    Mailbox(Target),
    Nobody,
}

impl Directory {
    /// Reads the files.
    ///
    /// # Errors
    /// The file, the line and what is wrong with it.
    pub fn load(settings: &Settings) -> Result<Self, FileError> {
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

    /// The mailboxes of a forward-path, each once and at least one. Aliases come first; what
    /// they lead to that nobody has is left out as long as somebody is there.
    ///
    /// # Errors
    /// 550 where there is none, 551 where the way leads elsewhere, 451 where it cannot be told.
    pub fn resolve(&self, to: &ForwardPath) -> Result<Vec<Arc<Target>>, Refusal> {
        let (local, domain) = match to {
            ForwardPath::Postmaster => ("postmaster".to_owned(), 0),
            ForwardPath::Mailbox(mailbox) => {
                let domain = match mailbox.domain() {
                    None => Some(0),
                    Some(name) => self.domains.find_name(name),
                };
                let domain = domain.ok_or(Refusal::client(reply::NO_RELAY))?;
                (mailbox.local().to_ascii_lowercase(), domain)
            }
        };
        let postmaster = local == "postmaster";
        let targets = self.expand(local, domain, to)?;
        if targets.is_empty() && postmaster {
            return Ok(vec![Arc::new(self.first_mailbox(domain)?)]);
        }
        if targets.is_empty() {
            return Err(self.unknown());
        }
        Ok(targets)
    }

    /// Follows aliases to mailboxes, without recursion: every node is seen once.
    fn expand(
        &self,
        local: String,
        domain: usize,
        original: &ForwardPath,
    ) -> Result<Vec<Arc<Target>>, Refusal> {
        let first = Node {
            local,
            domain,
            own: false,
        };
        // Most names are mailboxes, and there is nothing to follow.
        match self.meaning(&first)? {
            Meaning::Mailbox(target) => return Ok(vec![Arc::new(target)]),
            Meaning::Nobody => return Ok(Vec::new()),
            Meaning::Goals(..) => {}
        }
        let mut seen = HashSet::from([first.clone()]);
        let mut todo = vec![first.clone()];
        let mut targets: Vec<Arc<Target>> = Vec::new();
        while let Some(node) = todo.pop() {
            match self.meaning(&node)? {
                Meaning::Nobody => {
                    log::warn!("alias target missing name={:?}", node.local);
                }
                Meaning::Mailbox(mut target) => {
                    target.original = (node != first && !node.own).then(|| original.to_string());
                    let same = |known: &Arc<Target>| {
                        known.maildir == target.maildir && known.folder == target.folder
                    };
                    if !targets.iter().any(same) {
                        targets.push(Arc::new(target));
                    }
                }
                // The last goal is pushed first, so that the first one comes first.
                Meaning::Goals(goals, detail) => {
                    for goal in goals.iter().rev() {
                        let next = self.follow(&node, goal, detail)?;
                        if seen.insert(next.clone()) {
                            todo.push(next);
                        }
                    }
                }
            }
        }
        Ok(targets)
    }

    /// The node that a goal stands for.
    fn follow(&self, from: &Node, goal: &Goal, detail: Option<&str>) -> Result<Node, Refusal> {
        let (local, domain) = match goal {
            Goal::Local(local, at) => (local, at.unwrap_or(from.domain)),
            Goal::Remote(address) => {
                let text = format!("User not local; please try <{address}>");
                return Err(Refusal::client(reply::NOT_LOCAL.with_text(text)));
            }
        };
        let base = self
            .subaddress(&from.local)
            .map_or(from.local.as_str(), |(base, _)| base);
        let own = (*local == from.local || local == base) && domain == from.domain;
        let local = match detail {
            Some(detail) if self.subaddress(local).is_none() => {
                let separator = self.delimiter.chars().next().unwrap_or('+');
                format!("{local}{separator}{detail}")
            }
            _ => local.clone(),
        };
        Ok(Node { local, domain, own })
    }

    /// What a name means: an alias or a mailbox of the whole name, then of the name without its
    /// subaddress, then the domain's catch-all.
    fn meaning<'a>(&'a self, node: &'a Node) -> Result<Meaning<'a>, Refusal> {
        let aliases = self.aliases.as_ref().filter(|_| !node.own);
        let alias = |name: &str| aliases.and_then(|aliases| aliases.find(name, node.domain));
        let (local, domain) = (node.local.as_str(), node.domain);
        if let Some(goals) = alias(local) {
            return Ok(Meaning::Goals(goals, None));
        }
        let split = self.subaddress(local);
        if let Some(target) = self.mailbox(local, domain, None, split.is_none())? {
            return Ok(Meaning::Mailbox(target));
        }
        if let Some((base, detail)) = split {
            if let Some(goals) = alias(base) {
                return Ok(Meaning::Goals(goals, Some(detail)));
            }
            if let Some(target) = self.mailbox(base, domain, Some((local, detail)), true)? {
                return Ok(Meaning::Mailbox(target));
            }
        }
        let catch_all = aliases.and_then(|aliases| aliases.catch_all(domain));
        Ok(match catch_all {
            Some(goals) if local != "postmaster" => Meaning::Goals(goals, None),
            _ => Meaning::Nobody,
        })
    }

    /// User and detail (RFC 5233), at the first separator behind at least one character.
    fn subaddress<'a>(&self, local: &'a str) -> Option<(&'a str, &'a str)> {
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
    fn mailbox(
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
    fn unknown(&self) -> Refusal {
        match exists(&self.root) {
            Err(refusal) => refusal,
            Ok(false) if self.users.is_none() => Refusal::local(reply::MAILBOX_AWAY),
            Ok(_) => Refusal::client(reply::NO_SUCH_USER),
        }
    }

    /// Mail for postmaster always goes somewhere (RFC 5321 §4.5.1): where nobody has that name,
    /// to the first mailbox there is, of the users file or among the directories.
    fn first_mailbox(&self, domain: usize) -> Result<Target, Refusal> {
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
        })
    }
}

/// A pattern taken apart.
fn parts(pattern: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = pattern;
    while let Some((text, after)) = rest.split_once('%') {
        parts.push(Part::Text(text.to_owned()));
        let mut after = after.chars();
        match after.next() {
            Some('u') => parts.push(Part::Local),
            Some('d') => parts.push(Part::Domain),
            other => parts.extend(other.map(|c| Part::Text(c.to_string()))),
        }
        rest = after.as_str();
    }
    parts.push(Part::Text(rest.to_owned()));
    parts
}

/// The part of a pattern before its first `%`, to its last slash.
fn root(pattern: &str) -> PathBuf {
    let fixed = pattern.split('%').next().unwrap_or_default();
    let dir = fixed.rsplit_once('/').map_or("", |(dir, _)| dir);
    match (dir, fixed.starts_with('/')) {
        ("", true) => PathBuf::from("/"),
        ("", false) => PathBuf::from("."),
        (dir, _) => PathBuf::from(dir),
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

//! Accounts: a passwd-file as Dovecot reads it, so that one file serves both.
//! `user[@domain]:{SCHEME}hash:uid:gid:gecos:home:shell:extra`, everything after the name optional. `userdb` parses the
//! extra fields.
//!
//! The text of the file is kept, erased when dropped, with a hash table of line starts: about 250 octets for a user
//! with a SCRAM password and a full name. A line is parsed when it is used.

use std::collections::HashMap;
use std::path::Path;

use zeroize::Zeroizing;

use super::composition::composed;
use super::names::{domain_key, safe};
use crate::auth::{Decoy, DecoyMaker, MECHANISMS, Mechanism, Stored};
use crate::encoding::number;
use crate::failure::FileError;

/// The place of the gecos field, counted from 0.
const GECOS: usize = 4;

/// The accounts.
pub(super) struct Users {
    text: Zeroizing<String>,
    /// Start of the line of each key.
    lines: HashMap<Box<str>, u32>,
    mechanisms: Vec<Mechanism>,
    decoy: Decoy,
    /// True if each account has a Maildir of its own.
    own_maildirs: bool,
    /// Starts of the lines of accounts with a password.
    samples: Vec<u32>,
}

/// One line.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// The name as written, with its domain if it has one.
    pub(super) user: &'a str,
    /// Name without domain.
    pub(super) local: &'a str,
    /// The domain, if the account is for one only.
    pub(super) domain: Option<&'a str>,
    /// Stored password; empty if the account cannot log in.
    pub(super) password: &'a str,
    /// Full name.
    pub(super) name: &'a str,
    /// Home directory; may be empty.
    pub(super) home: &'a str,
    /// User and group of delivered files, as written.
    owner: (&'a str, &'a str),
    /// Fields after the shell.
    pub(super) extra: &'a str,
}

impl Users {
    /// Reads the file. Passwords are parsed if there are `logins`; every account needs a home if the mailbox pattern
    /// does.
    pub(super) fn load(path: &Path, logins: bool, needs_home: bool) -> Result<Self, FileError> {
        let text = Zeroizing::new(FileError::read(path)?);
        let mut users = Self {
            lines: HashMap::new(),
            mechanisms: Vec::new(),
            decoy: Decoy::default(),
            own_maildirs: true,
            samples: Vec::new(),
            text,
        };
        let mut mechanisms = None;
        let mut decoy = DecoyMaker::new();
        let mut offset = 0;
        for (number, raw) in users.text.split_inclusive('\n').enumerate() {
            let start = offset;
            offset += raw.len();
            let line = raw.trim_end_matches(['\n', '\r']);
            if is_skipped(line) {
                continue;
            }
            let fault = |reason: String| FileError::new(path, Some(number + 1), reason);
            let entry = Entry::parse(line).map_err(fault)?;
            entry.check(needs_home).map_err(fault)?;
            users.own_maildirs &= entry.mail("x").is_ok_and(|own| own.is_some());
            let start = u32::try_from(start).map_err(|_| fault("the file is too long".into()))?;
            let key = entry.key().into_boxed_str();
            if users.lines.insert(key, start).is_some() {
                return Err(fault(format!("user '{}' is listed twice", entry.user)));
            }
            if logins && let Some(stored) = entry.stored().map_err(fault)? {
                users.samples.push(start);
                decoy.add(entry.password, stored.cost(), stored.look());
                mechanisms
                    .get_or_insert_with(|| MECHANISMS.to_vec())
                    .retain(|mechanism| stored.supports(*mechanism));
            }
        }
        users.lines.shrink_to_fit();
        users.samples.shrink_to_fit();
        users.mechanisms = mechanisms.unwrap_or_default();
        users.decoy = decoy.finish();
        Ok(users)
    }

    /// Their number.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// True if there are accounts, and each has a Maildir of its own.
    pub(super) fn have_own_maildirs(&self) -> bool {
        self.own_maildirs && !self.lines.is_empty()
    }

    /// The mechanisms that every password supports: a client picks one of those offered, and may not try another.
    pub(super) fn mechanisms(&self) -> &[Mechanism] {
        &self.mechanisms
    }

    /// The substitute for accounts that do not exist.
    pub(super) fn decoy(&self) -> &Decoy {
        &self.decoy
    }

    /// An account with a password, always the same one for a name, if there is one.
    pub(super) fn sample(&self, name: &str) -> Option<Entry<'_>> {
        let chosen = self.decoy.choose(name, self.samples.len())?;
        self.at(*self.samples.get(chosen)?)
    }

    /// The account of `local` at a domain.
    pub(super) fn find(&self, local: &str, domain_key: &str) -> Option<Entry<'_>> {
        let there = self.get(&format!("{local}@{domain_key}"));
        there.or_else(|| self.everywhere(local))
    }

    /// The account of a name at every domain. A quoted `@` in it does not name a domain.
    pub(super) fn everywhere(&self, local: &str) -> Option<Entry<'_>> {
        self.get(local).filter(|entry| entry.domain.is_none())
    }

    /// The account of a key: `user`, or `user@` and a domain's key.
    pub(super) fn get(&self, key: &str) -> Option<Entry<'_>> {
        self.at(*self.lines.get(key)?)
    }

    /// All accounts, in the order of the file.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        let lines = self.account_lines();
        lines.filter_map(|line| Entry::parse(line).ok())
    }

    fn account_lines(&self) -> impl Iterator<Item = &str> {
        self.text.lines().filter(|line| !is_skipped(line))
    }

    /// The accounts with a full name, or with a word of it. Only the names of the others are read: the file may be long,
    /// and strangers may ask (VRFY).
    pub(super) fn called(&self, name: &str) -> impl Iterator<Item = Entry<'_>> {
        let name = name.to_lowercase();
        let called = move |line: &&str| {
            let full = full_name(line.split(':').nth(GECOS).unwrap_or("").trim());
            let same = |text: &str| match text.is_ascii() {
                true => text.eq_ignore_ascii_case(&name),
                false => text.to_lowercase() == name,
            };
            !full.is_empty() && (same(full) || full.split_whitespace().any(same))
        };
        let lines = self.account_lines().filter(called);
        lines.filter_map(|line| Entry::parse(line).ok())
    }

    fn at(&self, start: u32) -> Option<Entry<'_>> {
        let line = self
            .text
            .get(usize::try_from(start).ok()?..)?
            .lines()
            .next()?;
        Entry::parse(line).ok()
    }
}

impl<'a> Entry<'a> {
    pub(super) fn parse(line: &'a str) -> Result<Self, String> {
        let mut fields = line.splitn(8, ':');
        let mut field = || fields.next().unwrap_or("").trim();
        let user = field();
        let (local, domain) = match user.rsplit_once('@') {
            Some((local, domain)) => (local, Some(domain.strip_suffix('.').unwrap_or(domain))),
            None => (user, None),
        };
        let password = field();
        let owner = (field(), field());
        let (gecos, home, _shell) = (field(), field(), field());
        if !safe(local) || local.contains('@') || domain.is_some_and(|domain| !safe(domain)) {
            return Err(format!(
                "'{}' is not a valid user name",
                user.escape_debug()
            ));
        }
        Ok(Self {
            user,
            local,
            domain,
            password,
            name: full_name(gecos),
            home,
            owner,
            extra: field(),
        })
    }

    /// The key of the account: `user`, or `user@` and the domain's key.
    pub(super) fn key(&self) -> String {
        let local = self.local_key();
        match self.domain {
            Some(domain) => format!("{local}@{}", domain_key(domain)),
            None => local,
        }
    }

    /// The part of the key before the domain.
    pub(super) fn local_key(&self) -> String {
        composed(&self.local.to_ascii_lowercase()).into_owned()
    }

    /// True if the account is valid at a domain, given by its key.
    pub(super) fn is_at(&self, key: &str) -> bool {
        self.domain.is_none_or(|domain| domain_key(domain) == key)
    }

    fn check(&self, needs_home: bool) -> Result<(), String> {
        let own = self.mail("x")?.is_some();
        if needs_home && !own {
            self.check_home()?;
        }
        self.owner()?;
        self.quota().map(|_| ())
    }

    /// Checks that mail can be delivered below the home.
    fn check_home(&self) -> Result<(), String> {
        let steps_up = self.home.split('/').any(|part| part == "..");
        match self.home.starts_with('/') && !steps_up && !self.home.contains('\0') {
            true => Ok(()),
            false => Err(format!(
                "user '{}' has no home directory, which %h in --maildir needs",
                self.user
            )),
        }
    }

    /// The user and group of delivered files.
    pub(super) fn owner(&self) -> Result<Option<(u32, u32)>, String> {
        let number = |text: &str| {
            // The last number means "no change" in chown(2).
            let number = number(text).filter(|&n| n != u32::MAX);
            number.ok_or_else(|| format!("'{text}' is not the number of a user or group"))
        };
        match self.owner {
            ("", "") => Ok(None),
            ("", gid) => Err(format!("group {gid} is given without a user")),
            (uid, "") => Err(format!("user {uid} is given without a group")),
            (uid, gid) => Ok(Some((number(uid)?, number(gid)?))),
        }
    }

    /// The stored password; `None` if the account cannot log in.
    pub(super) fn stored(&self) -> Result<Option<Stored>, String> {
        // In passwd(5) `x`, `*` and `!` mean that a password is elsewhere or locked.
        if matches!(self.password, "" | "x") || self.password.starts_with(['*', '!']) {
            return Ok(None);
        }
        Stored::parse(self.password).map(Some)
    }
}

/// The full name in a gecos field: its first part.
fn full_name(gecos: &str) -> &str {
    gecos.split(',').next().unwrap_or("")
}

/// True for a blank line, a comment, or a reference to NIS: a name after `+` or `-` (nsswitch.conf(5), compat).
fn is_skipped(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with(['#', '+', '-'])
}

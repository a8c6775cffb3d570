//! Accounts: a passwd-file as Dovecot reads it, so that one file serves both.
//! `user[@domain]:{SCHEME}hash:uid:gid:gecos:home:shell:extra`, everything behind the name optional. Of
//! the extra fields `userdb_mail=maildir:PATH` and `userdb_quota_rule=*:storage=SIZE` count here.
//!
//! The file is kept as the text it is, erased when it goes, with a hash table of where each line
//! begins: about 245 octets a user with a SCRAM password and a full name. A line is made sense of when it is used.

use super::names::{domain_key, safe};
use crate::auth::{MECHANISMS, Mechanism, Stored};
use crate::deliver::Quota;
use crate::failure::FileError;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The accounts.
pub(super) struct Users {
    text: Zeroizing<String>,
    /// Where the line of a key begins.
    lines: HashMap<Box<str>, u32>,
    first: Option<u32>,
    mechanisms: Vec<Mechanism>,
}

/// One line.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// Name as it is spelled, with its domain where it has one.
    pub(super) user: &'a str,
    /// Name without domain.
    pub(super) local: &'a str,
    /// Domain, where the account is for one only.
    pub(super) domain: Option<&'a str>,
    /// Stored password; empty where there is no login.
    pub(super) password: &'a str,
    /// Full name.
    pub(super) name: &'a str,
    home: &'a str,
    extra: &'a str,
}

impl Users {
    pub(super) fn load(path: &Path) -> Result<Self, FileError> {
        let text = Zeroizing::new(FileError::read(path)?);
        let mut lines = HashMap::new();
        let (mut first, mut offset) = (None, 0);
        let mut mechanisms = None;
        for (number, raw) in text.split_inclusive('\n').enumerate() {
            let start = offset;
            offset += raw.len();
            let line = raw.trim_end_matches(['\n', '\r']);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fault = |reason: String| FileError::new(path, Some(number + 1), reason);
            let entry = Entry::parse(line).map_err(fault)?;
            entry.check().map_err(fault)?;
            let start = u32::try_from(start).map_err(|_| fault("the file is too long".into()))?;
            if lines.insert(entry.key().into_boxed_str(), start).is_some() {
                return Err(fault(format!("user '{}' is listed twice", entry.user)));
            }
            first.get_or_insert(start);
            if let Some(stored) = entry.stored().map_err(fault)? {
                mechanisms
                    .get_or_insert_with(|| MECHANISMS.to_vec())
                    .retain(|mechanism| stored.supports(*mechanism));
            }
        }
        lines.shrink_to_fit();
        Ok(Self {
            lines,
            first,
            mechanisms: mechanisms.unwrap_or_default(),
            text,
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Those that every password allows: a client may pick any that is offered, and not try
    /// another.
    pub(super) fn mechanisms(&self) -> &[Mechanism] {
        &self.mechanisms
    }

    /// Who `local` is at a domain.
    pub(super) fn find(&self, local: &str, domain_key: &str) -> Option<Entry<'_>> {
        self.get(&format!("{local}@{domain_key}"))
            .or_else(|| self.get(local))
    }

    /// The account of a key: `user`, or `user@` and a domain's key.
    pub(super) fn get(&self, key: &str) -> Option<Entry<'_>> {
        self.at(*self.lines.get(key)?)
    }

    /// The account that comes first in the file.
    pub(super) fn first(&self) -> Option<Entry<'_>> {
        self.at(self.first?)
    }

    /// All of them, in the order of the file.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        let lines = self
            .text
            .lines()
            .filter(|l| !l.is_empty() && !l.starts_with('#'));
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
    fn parse(line: &'a str) -> Result<Self, String> {
        let mut fields = line.splitn(8, ':');
        let mut field = || fields.next().unwrap_or("").trim();
        let user = field();
        let (local, domain) = match user.rsplit_once('@') {
            Some((local, domain)) => (local, Some(domain)),
            None => (user, None),
        };
        let password = field();
        let (_uid, _gid, gecos, home, _shell) = (field(), field(), field(), field(), field());
        if !safe(local) || domain.is_some_and(|domain| !safe(domain)) {
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
            name: gecos.split(',').next().unwrap_or(""),
            home,
            extra: field(),
        })
    }

    fn key(&self) -> String {
        let local = self.local.to_ascii_lowercase();
        match self.domain {
            Some(domain) => format!("{local}@{}", domain_key(domain)),
            None => local,
        }
    }

    fn check(&self) -> Result<(), String> {
        self.mail("x")?;
        self.quota().map(|_| ())
    }

    /// What the password is checked with; `None` where the account cannot log in.
    pub(super) fn stored(&self) -> Result<Option<Stored>, String> {
        if self.password.is_empty() {
            return Ok(None);
        }
        Stored::parse(self.password).map(Some)
    }

    fn extra(&self, name: &str) -> Option<&'a str> {
        let mut words = self.extra.split_ascii_whitespace();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// The Maildir of `userdb_mail`, with `~`, `%h`, `%u`, `%n` and `%d` filled in.
    pub(super) fn mail(&self, domain: &str) -> Result<Option<PathBuf>, String> {
        let Some(location) = self.extra("userdb_mail") else {
            return Ok(None);
        };
        let path = location.strip_prefix("maildir:").ok_or_else(|| {
            format!("userdb_mail={location}: only maildir:PATH can be delivered to")
        })?;
        let path = path.split(':').next().unwrap_or("");
        let path = match path.strip_prefix('~') {
            Some(rest) => format!("{}{rest}", self.home),
            None => path.to_owned(),
        };
        let local = self.local.to_ascii_lowercase();
        let path = path
            .replace("%h", self.home)
            .replace("%n", &local)
            .replace("%u", &self.user.to_ascii_lowercase())
            .replace("%d", domain);
        if !path.starts_with('/')
            || path.contains(['%', '\0'])
            || path.split('/').any(|p| p == "..")
        {
            return Err(format!(
                "userdb_mail={location}: no absolute path comes of it"
            ));
        }
        Ok(Some(PathBuf::from(path)))
    }

    /// The quota of `userdb_quota_rule`, as Dovecot reads it: `*:storage=` is in KiB without a
    /// unit.
    pub(super) fn quota(&self) -> Result<Option<Quota>, String> {
        let Some(rule) = self.extra("userdb_quota_rule") else {
            return Ok(None);
        };
        let Some(limits) = rule.strip_prefix("*:") else {
            // A rule for one folder is the IMAP server's.
            return Ok(None);
        };
        let wrong = || format!("userdb_quota_rule={rule}: expected *:storage=SIZE, for example");
        let mut quota = Quota {
            bytes: None,
            messages: None,
        };
        for limit in limits.split(':') {
            match limit.split_once('=').ok_or_else(wrong)? {
                ("storage", size) => quota.bytes = Some(octets(size, 1024).ok_or_else(wrong)?),
                ("bytes", size) => quota.bytes = Some(octets(size, 1).ok_or_else(wrong)?),
                ("messages", count) => quota.messages = Some(count.parse().map_err(|_| wrong())?),
                _ => return Err(wrong()),
            }
        }
        Ok(Some(quota))
    }
}

/// A number with B, K, M, G or T behind it; without one it counts in `unit`.
fn octets(text: &str, unit: u64) -> Option<u64> {
    let units = [
        ('B', 1),
        ('K', 1 << 10),
        ('M', 1 << 20),
        ('G', 1 << 30),
        ('T', 1 << 40),
    ];
    let scaled = units.into_iter().find_map(|(letter, factor)| {
        let digits = text.strip_suffix([letter, letter.to_ascii_lowercase()])?;
        Some((digits, factor))
    });
    let (digits, factor) = scaled.unwrap_or((text, unit));
    let number = digits
        .parse::<u64>()
        .ok()
        .filter(|_| !digits.starts_with('+'))?;
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn entry(line: &str) -> Result<(Option<PathBuf>, Option<Quota>), String> {
        let entry = Entry::parse(line)?;
        entry.stored()?;
        Ok((entry.mail("example.org")?, entry.quota()?))
    }

    #[test]
    fn fields() {
        let line = "Joe@Example.org:{PLAIN}x:1:1:Joe Doe,room 1:/home/joe::a=b \
            userdb_mail=maildir:~/Maildir:LAYOUT=fs userdb_quota_rule=*:storage=2:messages=5";
        let joe = Entry::parse(line).unwrap();
        assert_eq!(
            (joe.key().as_str(), joe.name),
            ("joe@example.org", "Joe Doe")
        );
        let quota = Quota {
            bytes: Some(2_048),
            messages: Some(5),
        };
        assert_eq!(
            entry(line),
            Ok((Some("/home/joe/Maildir".into()), Some(quota)))
        );
        assert_eq!(entry("joe"), Ok((None, None)));
        let bytes = |rule: &str| entry(&format!("j:::::::userdb_quota_rule={rule}")).map(|e| e.1);
        assert_eq!(bytes("*:bytes=3M").unwrap().unwrap().bytes, Some(3 << 20));
        assert_eq!(bytes("Trash:storage=5"), Ok(None));
    }

    #[test]
    fn faults() {
        for wrong in [
            ":x",
            "../x",
            ".x",
            "a/b",
            "a@",
            "joe:secret",
            "joe:{NONSENSE}x",
            "joe:{PLAIN}x::::::userdb_mail=mbox:~/mail",
            "joe:{PLAIN}x::::::userdb_mail=maildir:relative",
            "joe:{PLAIN}x::::::userdb_mail=maildir:/a/../b",
            "joe:{PLAIN}x::::::userdb_quota_rule=*:storage=5%",
            "joe:{PLAIN}x::::::userdb_quota_rule=*:storage=+5",
        ] {
            assert!(entry(wrong).is_err(), "{wrong}");
        }
    }
}

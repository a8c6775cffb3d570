//! Who is behind an address: domains delivered here, the mailbox pattern, and which mailboxes
//! exist. It looks at directories and opens no mail.

use crate::deliver::Target;
use crate::smtp::address::{ForwardPath, Mailbox};
use crate::smtp::reply::{self, Refusal};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where mail is delivered.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Domains delivered here, lower case; the first stands in where an address has none.
    pub domains: Vec<String>,
    /// `%u` local part, `%d` domain, `%%`.
    pub pattern: String,
    /// Whether any well-formed local part is a mailbox.
    pub create: bool,
}

/// What a directory is made from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Domains delivered here.
    pub domains: Vec<String>,
    /// Where a mailbox is.
    pub pattern: String,
    /// Whether any local part is a mailbox.
    pub create: bool,
    /// Subaddress separators.
    pub delimiter: String,
    /// Accounts.
    pub users: Option<PathBuf>,
    /// Aliases.
    pub aliases: Option<PathBuf>,
    /// The quota of each mailbox.
    pub quota: Option<crate::deliver::Quota>,
}

impl Directory {
    pub(crate) fn load(settings: &Settings) -> Result<Self, String> {
        Ok(Self {
            domains: settings.domains.clone(),
            pattern: settings.pattern.clone(),
            create: settings.create,
        })
    }
    pub(crate) fn domains(&self) -> &[String] {
        &self.domains
    }
    pub(crate) fn pattern(&self) -> &str {
        &self.pattern
    }
    pub(crate) fn users(&self) -> Option<usize> {
        None
    }
    pub(crate) fn aliases(&self) -> Option<usize> {
        None
    }
    pub(crate) fn creates(&self) -> bool {
        self.create
    }
    pub(crate) fn mechanisms(&self) -> Vec<crate::auth::Mechanism> {
        Vec::new()
    }
    /// The part of the pattern before its first `%`, to its last slash.
    pub fn root(&self) -> PathBuf {
        let fixed = self.pattern.split('%').next().unwrap_or_default();
        let dir = fixed.rsplit_once('/').map_or("", |(dir, _)| dir);
        match (dir, fixed.starts_with('/')) {
            ("", true) => PathBuf::from("/"),
            ("", false) => PathBuf::from("."),
            (dir, _) => PathBuf::from(dir),
        }
    }

    pub(crate) fn account(&self, _: &str) -> crate::auth::Account {
        crate::auth::Account::Unknown
    }
    pub(crate) fn vrfy(&self, _: &str) -> Result<Vec<String>, Refusal> {
        Err(Refusal::client(reply::NO_SUCH_USER))
    }
    pub(crate) fn expn(&self, _: &str) -> Result<Vec<String>, Refusal> {
        Err(Refusal::client(reply::NO_SUCH_USER))
    }
    pub(crate) fn may_send_as(&self, _: &str, _: &crate::smtp::address::ReversePath) -> bool {
        false
    }
    /// The mailbox of a forward-path.
    ///
    /// # Errors
    /// 550 where there is none; 451 where that cannot be told.
    pub fn resolve(&self, to: &ForwardPath) -> Result<Vec<Target>, Refusal> {
        let first = self.domains.first().map_or("localhost", String::as_str);
        match to {
            ForwardPath::Postmaster => self.postmaster(first),
            ForwardPath::Mailbox(mailbox) => self.mailbox(mailbox, first),
        }
        .map(|t| vec![t])
    }

    fn mailbox(&self, mailbox: &Mailbox, first: &str) -> Result<Target, Refusal> {
        let domain = mailbox
            .domain()
            .map_or_else(|| first.to_owned(), str::to_lowercase);
        if !self.domains.contains(&domain) {
            return Err(Refusal::client(reply::NO_RELAY));
        }
        let local = mailbox.local().to_ascii_lowercase();
        if local == "postmaster" {
            return self.postmaster(&domain);
        }
        let target = self
            .target(&local, &domain)
            .ok_or(Refusal::client(reply::NO_SUCH_USER))?;
        if self.create || exists(&target.maildir)? {
            Ok(target)
        } else {
            self.unknown()
        }
    }

    /// Unknown, unless the whole tree is away.
    fn unknown(&self) -> Result<Target, Refusal> {
        if exists(&self.root())? {
            return Err(Refusal::client(reply::NO_SUCH_USER));
        }
        Err(Refusal::local(reply::MAILBOX_AWAY))
    }

    /// Mail for postmaster always goes somewhere (RFC 5321 §4.5.1): to its mailbox, else to
    /// the first mailbox there is.
    fn postmaster(&self, domain: &str) -> Result<Target, Refusal> {
        let own = self
            .target("postmaster", domain)
            .ok_or(Refusal::client(reply::NO_SUCH_USER))?;
        if self.create || exists(&own.maildir)? {
            return Ok(own);
        }
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
        self.unknown()
    }

    fn target(&self, local: &str, domain: &str) -> Option<Target> {
        if !safe(local) || !safe(domain) {
            return None;
        }
        let mut path = String::new();
        let mut rest = self.pattern.chars();
        while let Some(c) = rest.next() {
            match (c, if c == '%' { rest.next() } else { None }) {
                ('%', Some('u')) => path.push_str(local),
                ('%', Some('d')) => path.push_str(domain),
                ('%', Some(other)) => path.push(other),
                (plain, _) => path.push(plain),
            }
        }
        Some(Target {
            root: self.root(),
            maildir: PathBuf::from(path),
            address: format!("{local}@{domain}"),
            may_create: true,
            folder: None,
            original: None,
            quota: None,
        })
    }
}

/// Whether a name can be one component of a path and nothing more (A4).
fn safe(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && !name.contains("..")
        && !name
            .contains(|c: char| c == '/' || c.is_control() || matches!(c, '\u{2215}' | '\u{ff0f}'))
}

fn exists(dir: &Path) -> Result<bool, Refusal> {
    match std::fs::metadata(dir) {
        Ok(meta) => Ok(meta.is_dir()),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(_) => Err(Refusal::local(reply::LOCAL_ERROR)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::cursor::Cursor;

    fn resolve(path: &str) -> Result<String, u16> {
        let directory = Directory {
            domains: vec!["example.org".into(), "localhost".into()],
            pattern: "mail/%d/%u/100%%".into(),
            create: true,
        };
        let path = ForwardPath::parse(&mut Cursor::new(path)).ok_or(501_u16)?;
        let target = directory
            .resolve(&path)
            .map_err(|refusal| refusal.reply.code())?
            .remove(0);
        assert_eq!(target.root, PathBuf::from("mail"));
        Ok(target.maildir.display().to_string())
    }

    /// R003, R030, R052, A4, A14.
    #[test]
    fn resolves_inside_the_pattern_only() {
        assert_eq!(
            resolve("<Alice@EXAMPLE.org>"),
            Ok("mail/example.org/alice/100%".into())
        );
        assert_eq!(resolve("<bob>"), Ok("mail/example.org/bob/100%".into()));
        assert_eq!(
            resolve("<POSTmaster>"),
            Ok("mail/example.org/postmaster/100%".into())
        );
        for refused in [
            "<a@other.org>",
            "<a%b@other.org>",
            "<@localhost:a@other.org>",
            "<\"a@localhost\"@other.org>",
            "<b!a@other.org>",
            "<a/b@localhost>",
            "<\"../x\"@localhost>",
            "<\".x\"@localhost>",
            "<\"\"@localhost>",
            "<\"a/b\"@localhost>",
            "<\"..\"@localhost>",
        ] {
            assert_eq!(resolve(refused), Err(550), "{refused}");
        }
    }
}

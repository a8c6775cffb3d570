//! The pattern of `--maildir`: its parts, the root of all mailboxes, and the directory with the mailboxes of one
//! domain.

use std::fs::DirEntry;
use std::io;
use std::path::PathBuf;

/// A part of the mailbox pattern.
enum Part {
    Text(String),
    Local,
    Domain,
    Home,
}

/// A parsed pattern.
pub(super) struct Pattern {
    text: String,
    parts: Vec<Part>,
}

/// The values of the variables in a pattern.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    /// `%u`.
    pub(super) local: &'a str,
    /// `%d`.
    pub(super) domain: &'a str,
    /// `%h`, if the account has a home.
    pub(super) home: Option<&'a str>,
}

/// The directory of a domain's mailboxes: their names in `dir` are between `before` and `after`.
pub(super) struct Siblings {
    pub(super) dir: PathBuf,
    before: String,
    after: String,
}

impl Siblings {
    /// The local part of the mailbox that an entry of the directory belongs to.
    pub(super) fn local(&self, entry: io::Result<DirEntry>) -> Option<String> {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let local = name.strip_prefix(&self.before)?.strip_suffix(&self.after)?;
        Some(local.to_owned())
    }
}

impl Pattern {
    pub(super) fn new(pattern: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = pattern;
        while let Some((text, after)) = rest.split_once('%') {
            parts.push(Part::Text(text.to_owned()));
            let mut after = after.chars();
            match after.next() {
                Some('u') => parts.push(Part::Local),
                Some('d') => parts.push(Part::Domain),
                Some('h') => parts.push(Part::Home),
                other => parts.extend(other.map(|c| Part::Text(c.to_string()))),
            }
            rest = after.as_str();
        }
        parts.push(Part::Text(rest.to_owned()));
        Self {
            text: pattern.to_owned(),
            parts,
        }
    }

    /// The pattern as configured.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// True if mailboxes are in the homes of their accounts.
    pub(super) fn needs_home(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Home))
    }

    /// The path of a mailbox; `None` if it needs a home and there is none.
    pub(super) fn fill(&self, values: Values<'_>) -> Option<PathBuf> {
        let mut path = String::with_capacity(self.text.len() + values.local.len() + 32);
        for part in &self.parts {
            path.push_str(match part {
                Part::Text(text) => text,
                Part::Local => values.local,
                Part::Domain => values.domain,
                Part::Home => values.home?,
            });
        }
        Some(PathBuf::from(path))
    }

    /// The part before the first `%`, to its last slash.
    pub(super) fn root(&self) -> PathBuf {
        let fixed = self.text.split('%').next().unwrap_or_default();
        let dir = fixed.rsplit_once('/').map_or("", |(dir, _)| dir);
        match (dir, fixed.starts_with('/')) {
            ("", true) => PathBuf::from("/"),
            ("", false) => PathBuf::from("."),
            (dir, _) => PathBuf::from(dir),
        }
    }

    /// The directory of a domain's mailboxes.
    pub(super) fn siblings(&self, domain: &str) -> Option<Siblings> {
        let (mut path, mut after) = (String::new(), None);
        for part in &self.parts {
            let text = match (part, &after) {
                (Part::Local, None) => {
                    after = Some(String::new());
                    continue;
                }
                // A second %u is checked by the existence of the whole path.
                (Part::Local, Some(_)) => break,
                (Part::Home, _) => return None,
                (Part::Text(text), _) => text,
                (Part::Domain, _) => domain,
            };
            after.as_mut().unwrap_or(&mut path).push_str(text);
        }
        let after = after?;
        let (dir, before) = match path.rsplit_once('/') {
            Some(("", before)) => ("/", before),
            Some((dir, before)) => (dir, before),
            None => (".", path.as_str()),
        };
        Some(Siblings {
            dir: PathBuf::from(dir),
            before: before.to_owned(),
            after: after.split('/').next().unwrap_or_default().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn the_directory_of_mailboxes() {
        for (pattern, dir, before, after) in [
            ("mail/%d/%u", "mail/a.org", "", ""),
            ("/home/%u/Maildir", "/home", "", ""),
            ("/%u", "/", "", ""),
            ("box-%u@%d/md", ".", "box-", "@a.org"),
            ("/m/%d.%u.d/%u", "/m", "a.org.", ".d"),
        ] {
            let found = Pattern::new(pattern).siblings("a.org").unwrap();
            let expected = (PathBuf::from(dir), before, after);
            assert_eq!(
                (found.dir, found.before.as_str(), found.after.as_str()),
                expected
            );
        }
        assert!(Pattern::new("%h/Maildir").siblings("a.org").is_none());
    }

    #[test]
    fn letters_are_filled_in() {
        let values = Values {
            local: "joe",
            domain: "a.org",
            home: None,
        };
        let fill = |pattern: &str, home| Pattern::new(pattern).fill(Values { home, ..values });
        assert_eq!(fill("m%%/%d/%u", None), Some("m%/a.org/joe".into()));
        assert_eq!(fill("%h/Maildir", None), None);
        assert_eq!(fill("%h/Maildir", Some("/h")), Some("/h/Maildir".into()));
        assert!(Pattern::new("%h/x").needs_home() && !Pattern::new("%%h/%u").needs_home());
        let root = |pattern: &str| Pattern::new(pattern).root();
        assert_eq!(root("/%u"), PathBuf::from("/"));
        assert_eq!(root("mail/x%u"), PathBuf::from("mail"));
        assert_eq!(root("%u"), PathBuf::from("."));
    }
}

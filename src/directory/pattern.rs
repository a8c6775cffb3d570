//! The pattern of `--maildir`: its parts, and the directory that all mailboxes are below.

use std::path::PathBuf;

/// A part of the mailbox pattern.
pub(super) enum Part {
    Text(String),
    Local,
    Domain,
}

/// A pattern taken apart.
pub(super) fn parts(pattern: &str) -> Vec<Part> {
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
pub(super) fn root(pattern: &str) -> PathBuf {
    let fixed = pattern.split('%').next().unwrap_or_default();
    let dir = fixed.rsplit_once('/').map_or("", |(dir, _)| dir);
    match (dir, fixed.starts_with('/')) {
        ("", true) => PathBuf::from("/"),
        ("", false) => PathBuf::from("."),
        (dir, _) => PathBuf::from(dir),
    }
}

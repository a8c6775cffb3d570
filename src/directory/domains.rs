//! The domains delivered here, and which of them an address is at.

use super::names::{self, domain_key};

/// Domains delivered here: spelled as they were given, compared by their keys.
pub(super) struct Domains {
    pub(super) names: Vec<String>,
    keys: Vec<String>,
    /// Whether each can be part of a path.
    safe: Vec<bool>,
}

impl Domains {
    pub(super) fn new(names: &[String]) -> Self {
        Self {
            names: names.to_vec(),
            keys: names.iter().map(|name| domain_key(name)).collect(),
            safe: names.iter().map(|name| names::safe(name)).collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn find(&self, key: &str) -> Option<usize> {
        self.keys.iter().position(|known| known == key)
    }

    /// Finds a domain as the client spells it. What is a key but for its case needs no making of one.
    pub(super) fn find_name(&self, name: &str) -> Option<usize> {
        let plain = self
            .keys
            .iter()
            .position(|key| key.eq_ignore_ascii_case(name));
        plain.or_else(|| self.find(&domain_key(name)))
    }

    pub(super) fn name(&self, at: usize) -> &str {
        self.names.get(at).map_or("", String::as_str)
    }

    pub(super) fn is_safe(&self, at: usize) -> bool {
        self.safe.get(at).is_some_and(|&safe| safe)
    }

    pub(super) fn key(&self, at: usize) -> &str {
        self.keys.get(at).map_or("", String::as_str)
    }
}

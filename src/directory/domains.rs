//! The domains delivered here.

use super::names::{self, domain_key};

/// The domains delivered here, spelled as given and compared by their keys.
pub(super) struct Domains {
    pub(super) names: Vec<String>,
    keys: Vec<String>,
    /// Checks that each can be part of a path.
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

    /// Finds a domain in the client's spelling. One that differs from its key by case only needs no conversion.
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

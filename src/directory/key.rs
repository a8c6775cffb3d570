//! The key of a name during alias expansion.

/// A name at a domain during expansion.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct AliasKey {
    /// Lower case, with its subaddress.
    pub(super) local: String,
    /// The client's spelling, if different: folders keep their case.
    pub(super) spelled: Option<String>,
    pub(super) domain: usize,
    /// True if aliases no longer apply: the name was one of its own targets.
    pub(super) own: bool,
}

impl AliasKey {
    pub(super) fn new(spelled: &str, domain: usize) -> Self {
        let local = spelled.to_ascii_lowercase();
        Self {
            spelled: (local != spelled).then(|| spelled.to_owned()),
            local,
            domain,
            own: false,
        }
    }

    pub(super) fn spelled(&self) -> &str {
        self.spelled.as_deref().unwrap_or(&self.local)
    }
}

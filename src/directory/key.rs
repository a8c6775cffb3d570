//! What a name is found by on its way through aliases.

/// A name at a domain on its way to a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct AliasKey {
    /// Lower case, with its subaddress.
    pub(super) local: String,
    /// As the client spelled it, where that is different: folders keep their case.
    pub(super) spelled: Option<String>,
    pub(super) domain: usize,
    /// Whether aliases no longer count: the name stood among its own targets.
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

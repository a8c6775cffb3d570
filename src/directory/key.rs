//! The key of a name during alias expansion.

use std::borrow::Cow;

/// A name at a domain during expansion.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct AliasKey<'a> {
    /// Lower case, with its subaddress.
    pub(super) local: Cow<'a, str>,
    /// The client's spelling, if different: folders keep their case.
    pub(super) spelled: Option<Cow<'a, str>>,
    pub(super) domain: usize,
    /// True if aliases no longer apply: the name was one of its own targets.
    pub(super) own: bool,
}

impl<'a> AliasKey<'a> {
    pub(super) fn new(spelled: impl Into<Cow<'a, str>>, domain: usize) -> Self {
        let spelled = spelled.into();
        let (local, spelled) = match spelled.bytes().any(|octet| octet.is_ascii_uppercase()) {
            true => (Cow::Owned(spelled.to_ascii_lowercase()), Some(spelled)),
            false => (spelled, None),
        };
        Self {
            local,
            spelled,
            domain,
            own: false,
        }
    }

    pub(super) fn spelled(&self) -> &str {
        self.spelled.as_deref().unwrap_or(&self.local)
    }

    pub(super) fn into_owned(self) -> AliasKey<'static> {
        let owned = |name: Cow<'_, str>| Cow::Owned(name.into_owned());
        AliasKey {
            local: owned(self.local),
            spelled: self.spelled.map(owned),
            domain: self.domain,
            own: self.own,
        }
    }
}

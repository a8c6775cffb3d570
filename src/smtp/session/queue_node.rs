//! The argument of ETRN (RFC 1985 §5.3).

use crate::smtp::address;

/// The part of the queue that ETRN asks to retry (RFC 1985 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueNode<'a> {
    /// The mail of a domain.
    Domain(&'a str),
    /// The mail of a domain and of its subdomains.
    Subdomains(&'a str),
    /// One message, by its id.
    Id(&'a str),
}

impl<'a> QueueNode<'a> {
    /// Parses the argument of ETRN.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if let Some(id) = text.strip_prefix('#') {
            let good = !id.is_empty() && id.bytes().all(|o| o.is_ascii_graphic());
            return good.then_some(Self::Id(id));
        }
        match text.strip_prefix('@') {
            Some(domain) => Some(Self::Subdomains(address::whole_domain(domain)?)),
            None => Some(Self::Domain(address::whole_domain(text)?)),
        }
    }
}

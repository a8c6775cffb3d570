//! ETRN and ATRN: clients that fetch the mail that waits for them. Whether there is any, and who
//! may have it, is the queue's to say.

use crate::smtp::address;
use crate::smtp::reply::{self, Reply};

use super::backend::Backend;
use super::state::Session;
use super::step::{Next, Step, say};

/// What ETRN asks to have tried now (RFC 1985 §5.3).
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
    fn parse(text: &'a str) -> Option<Self> {
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

impl<R> Session<R> {
    /// RFC 1985 §5.1.
    pub(super) fn etrn(
        &self,
        argument: &str,
        backend: &mut impl Backend<Recipient = R>,
    ) -> Result<Step, Reply> {
        if self.transaction().is_some() {
            return Err(reply::IN_TRANSACTION);
        }
        let node = QueueNode::parse(argument).ok_or(reply::BAD_ARGUMENT)?;
        Ok(say(backend.etrn(node, self.user())))
    }

    /// RFC 2645 §5.2.
    pub(super) fn atrn(
        &self,
        argument: &str,
        backend: &mut impl Backend<Recipient = R>,
    ) -> Result<Step, Reply> {
        let user = self.user().ok_or(reply::NEEDS_LOGIN)?;
        if self.transaction().is_some() {
            return Err(reply::IN_TRANSACTION);
        }
        let words = argument.split(',').map(str::trim);
        let words = words.filter(|_| !argument.is_empty());
        let domains: Option<Vec<&str>> = words.map(address::whole_domain).collect();
        let domains = domains.ok_or(reply::BAD_ARGUMENT)?;
        backend
            .atrn(user, &domains)
            .map_err(|refusal| refusal.reply)?;

        Ok(Step {
            reply: Some(reply::TURNING),
            next: Next::Turn(domains.into_iter().map(str::to_owned).collect()),
        })
    }
}

//! ETRN and ATRN: clients that fetch their queued mail. The backend decides who may, and which mail there is.

use super::backend::Backend;
use super::queue_node::QueueNode;
use super::state::Session;
use super::step::{Next, Step, say};
use crate::smtp::address;
use crate::smtp::reply::{self, Reply};

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
        let node = QueueNode::parse(argument).ok_or(reply::BAD_QUEUE_NAME)?;
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
        let domains = domains.ok_or(reply::BAD_QUEUE_NAME)?;
        backend.atrn(user, &domains)?;

        Ok(Step {
            reply: Some(reply::ATRN_STARTED),
            next: Next::Turn(domains.into_iter().map(str::to_owned).collect()),
        })
    }
}

//! The questions that a session asks: who a recipient is, whether there is room, who may log in.
//! The server answers them out of its files; a test out of its head.

use super::transaction::Mailboxes;
use crate::auth::Accounts;
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::reply::{self, Refusal, Reply};

use super::queue_node::QueueNode;

/// What the session must ask.
pub trait Backend: Accounts {
    /// What stands for an accepted recipient.
    type Recipient;
    /// Where mail for `to` from `from` goes; `size` is what MAIL declared, in octets. Mailboxes that the transaction does not have
    /// yet are added to `mailboxes` where the recipient is accepted.
    ///
    /// # Errors
    /// The refusal to answer RCPT with.
    fn recipient(
        &mut self,
        from: &ReversePath,
        to: &ForwardPath,
        size: Option<u64>,
        mailboxes: &mut Mailboxes,
    ) -> Result<Self::Recipient, Refusal>;
    /// Whether all mail of an accepted recipient goes on to other hosts (RFC 5321 §3.4).
    fn is_onward(&self, _recipient: &Self::Recipient) -> bool {
        false
    }
    /// Whether the client may send without a login where others may not: an address that mail is
    /// relayed from.
    fn is_exempt(&self) -> bool {
        false
    }
    /// Whether the client may not log in now, after too many wrong logins.
    fn is_guessing(&self) -> bool {
        false
    }
    /// Whether the client, or the user once there is one, has sent as many messages as it may for now.
    fn is_over_rate(&self, _user: Option<&str>) -> bool {
        false
    }
    /// Whether the disk has room for `octets`.
    ///
    /// # Errors
    /// The refusal to answer MAIL with.
    fn room(&mut self, octets: u64) -> Result<(), Refusal>;
    /// Who `name` is, a line each.
    ///
    /// # Errors
    /// Unknown, or ambiguous.
    fn vrfy(&mut self, name: &str) -> Result<Vec<String>, Refusal>;
    /// The members of the list `name`, a line each.
    ///
    /// # Errors
    /// Unknown, or ambiguous.
    fn expn(&mut self, name: &str) -> Result<Vec<String>, Refusal>;
    /// Whether `user` may send as `from`.
    fn may_send_as(&mut self, user: &str, from: &ReversePath) -> bool;
    /// Has mail that waits tried now, for `user` or for a client that has not logged in; the
    /// answer to ETRN. Nobody is allowed to by default.
    fn etrn(&mut self, _node: QueueNode<'_>, _user: Option<&str>) -> Reply {
        reply::ETRN_REFUSED
    }
    /// Whether the mail that waits for these domains, or for all of the user's where none is
    /// named, can be handed over now. Nothing waits by default.
    ///
    /// # Errors
    /// The refusal to answer ATRN with.
    fn atrn(&mut self, _user: &str, _domains: &[&str]) -> Result<(), Refusal> {
        Err(Refusal::policy(reply::NOTHING_WAITING))
    }
    /// Fresh, unpredictable, printable text for challenges.
    fn nonce(&mut self) -> String;
}

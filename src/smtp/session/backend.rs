//! The questions that a session asks: where a recipient's mail goes, whether there is room, who may log in. The
//! server answers from its files; tests have their own answers.

use super::queue_node::QueueNode;
use super::transaction::Mailboxes;
use crate::auth::Accounts;
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::reply::{self, Reply};

/// The session's questions.
pub trait Backend: Accounts {
    /// The backend's own type for an accepted recipient.
    type Recipient;
    /// Resolves a recipient. `size` is the size that MAIL declared, in octets. If the recipient is accepted, its
    /// mailboxes are added to `mailboxes`.
    ///
    /// # Errors
    /// The refusal to answer RCPT with.
    fn recipient(
        &mut self,
        from: &ReversePath,
        to: &ForwardPath,
        size: Option<u64>,
        mailboxes: &mut Mailboxes,
    ) -> Result<Self::Recipient, Reply>;
    /// True if all mail of an accepted recipient is relayed (RFC 5321 §3.4).
    fn is_onward(&self, _recipient: &Self::Recipient) -> bool {
        false
    }
    /// True if the client may not log in now, after too many failures.
    fn is_guessing(&self) -> bool {
        false
    }
    /// True if the client, or after a login the user, has reached its message rate.
    fn is_over_rate(&self, _user: Option<&str>) -> bool {
        false
    }
    /// Checks that the disk has room for `octets`.
    ///
    /// # Errors
    /// The refusal to answer MAIL with.
    fn room(&mut self, octets: u64) -> Result<(), Reply>;
    /// VRFY: full names and addresses that match `name`, one a line.
    ///
    /// # Errors
    /// The name is unknown or ambiguous.
    fn vrfy(&mut self, name: &str) -> Result<Vec<String>, Reply>;
    /// EXPN: the members of the list `name`, one a line.
    ///
    /// # Errors
    /// The name is unknown or ambiguous.
    fn expn(&mut self, name: &str) -> Result<Vec<String>, Reply>;
    /// True if `user` may send as `from`.
    fn may_send_as(&mut self, user: &str, from: &ReversePath) -> bool;
    /// ETRN: retries queued mail now, for `user` or for a client without a login, and returns the reply. By default
    /// nobody may.
    fn etrn(&mut self, _node: QueueNode<'_>, _user: Option<&str>) -> Reply {
        reply::ETRN_REFUSED
    }
    /// ATRN: checks that queued mail of these domains, or of all of the user's if none is named, can be sent now. By
    /// default there is none.
    ///
    /// # Errors
    /// The refusal to answer ATRN with.
    fn atrn(&mut self, _user: &str, _domains: &[&str]) -> Result<(), Reply> {
        Err(reply::NOTHING_WAITING)
    }
    /// Fresh, unpredictable, printable text for challenges; empty if the system has no random numbers.
    fn nonce(&mut self) -> String;
}

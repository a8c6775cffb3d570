//! What a mail transaction has gathered between MAIL and the end of its message.

use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::params::{MailParams, RcptParams};

/// A mail transaction: it is owned by the phase it belongs to.
#[derive(Debug)]
pub struct Transaction<R> {
    /// Where the message comes from.
    pub reverse_path: ReversePath,
    /// What MAIL said of it.
    pub params: MailParams,
    /// Accepted recipients in the order of RCPT.
    pub recipients: Vec<(ForwardPath, R)>,
    /// What RCPT said of each accepted recipient, in the same order.
    pub recipient_params: Vec<RcptParams>,
    /// Whether a RCPT was tried, accepted or not.
    pub(super) tried: bool,
}

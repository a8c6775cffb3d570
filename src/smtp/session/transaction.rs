//! A mail transaction: what was collected between MAIL and the end of the message.

use std::collections::BTreeSet;

use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::params::{MailParams, RcptParams};

/// A mail transaction, owned by the session's phase.
#[derive(Debug)]
pub struct Transaction<R> {
    /// The reverse-path.
    pub reverse_path: ReversePath,
    /// The parameters of MAIL.
    pub params: MailParams,
    /// Accepted recipients in the order of RCPT.
    pub recipients: Vec<(ForwardPath, R)>,
    /// The RCPT parameters of each accepted recipient, in the same order.
    pub recipient_params: Vec<RcptParams>,
    /// The mailboxes of all of them.
    pub(super) mailboxes: Mailboxes,
    /// True after any RCPT, accepted or not.
    pub(super) tried: bool,
}

/// The mailboxes of a transaction, each counted once even if several recipients lead to it. The backend numbers them.
#[derive(Debug, Default)]
pub struct Mailboxes {
    each: BTreeSet<u64>,
    lists: BTreeSet<usize>,
    onward: bool,
}

impl<R> Transaction<R> {
    /// True if some of the mail is relayed.
    pub const fn is_onward(&self) -> bool {
        self.mailboxes.onward
    }
}

impl Mailboxes {
    /// The number of mailboxes.
    pub fn count(&self) -> usize {
        self.each.len()
    }

    /// True if the mailbox is in the set.
    pub fn has(&self, mailbox: u64) -> bool {
        self.each.contains(&mailbox)
    }

    /// True if all of these mailboxes are in the set.
    pub fn has_list(&self, list: usize) -> bool {
        self.lists.contains(&list)
    }

    /// Notes that some of the mail is relayed.
    pub const fn set_onward(&mut self) {
        self.onward = true;
    }

    /// Adds mailboxes, and the list that they are the members of.
    pub fn add(&mut self, list: Option<usize>, mailboxes: Vec<u64>) {
        self.lists.extend(list);
        self.each.extend(mailboxes);
    }
}

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
    pub recipients: Vec<AcceptedRecipient<R>>,
    /// The mailboxes of all of them.
    pub(super) mailboxes: Mailboxes,
    /// True after any RCPT, accepted or not.
    pub(super) tried: bool,
}

/// An accepted recipient.
#[derive(Debug)]
pub struct AcceptedRecipient<R> {
    /// Its forward-path.
    pub path: ForwardPath,
    /// The parameters of RCPT.
    pub params: RcptParams,
    /// The backend's answer: its mailboxes.
    pub mailboxes: R,
}

/// The mailboxes of a transaction, each counted once even if several recipients lead to it. The backend numbers them.
#[derive(Debug, Default)]
pub struct Mailboxes {
    each: BTreeSet<u64>,
    lists: BTreeSet<usize>,
    onward: bool,
    /// True if two recipients have one in common.
    shared: bool,
}

impl<R> Transaction<R> {
    /// True if some of the mail is relayed.
    pub const fn is_onward(&self) -> bool {
        self.mailboxes.onward
    }

    /// True if no two recipients lead to the same mailbox. All relayed mail leads to the queue.
    pub const fn has_distinct_mailboxes(&self) -> bool {
        !self.mailboxes.shared && !self.mailboxes.onward
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

    /// Notes that a recipient leads to a mailbox that is in the set already.
    pub const fn set_shared(&mut self) {
        self.shared = true;
    }

    /// Adds mailboxes, and the list that they are the members of.
    pub fn add(&mut self, list: Option<usize>, mailboxes: impl Iterator<Item = u64>) {
        self.lists.extend(list);
        self.each.extend(mailboxes);
    }
}

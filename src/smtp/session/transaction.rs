//! What a mail transaction has gathered between MAIL and the end of its message.

use std::collections::BTreeSet;

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
    /// The mailboxes of all of them.
    pub(super) mailboxes: Mailboxes,
    /// Whether a RCPT was tried, accepted or not.
    pub(super) tried: bool,
}

/// The mailboxes of a transaction, each counted once however many recipients lead to it. They go by numbers, which the
/// backend gives.
#[derive(Debug, Default)]
pub struct Mailboxes {
    each: BTreeSet<u64>,
    lists: BTreeSet<usize>,
    onward: bool,
}

impl<R> Transaction<R> {
    /// Whether some of the mail goes on to other hosts.
    pub const fn is_onward(&self) -> bool {
        self.mailboxes.onward
    }
}

impl Mailboxes {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.each.len()
    }

    /// Whether one is there.
    pub fn has(&self, mailbox: u64) -> bool {
        self.each.contains(&mailbox)
    }

    /// Whether all of a list are there.
    pub fn has_list(&self, list: usize) -> bool {
        self.lists.contains(&list)
    }

    /// Some of the mail goes on to other hosts.
    pub const fn set_onward(&mut self) {
        self.onward = true;
    }

    /// Adds those of a list.
    pub fn add(&mut self, list: usize, mailboxes: Vec<u64>) {
        self.lists.insert(list);
        self.each.extend(mailboxes);
    }
}

//! The reports about an accepted message that NOTIFY=SUCCESS asks for (RFC 3461 §6.2): about deliveries and expanded
//! lists. The relay reports about other hosts.
//!
//! A report is made after the 250 and can neither delay nor change it. A crash in between loses the report, never the
//! message.

use super::reports;
use crate::clock;
use crate::deliver::Group;
use crate::relay::Relay;
use crate::report::{Action, Report, ReportRecipient};
use crate::smtp::client::Status;
use crate::smtp::reply::Reply;
use crate::smtp::session::{Session, Transaction};
use crate::state::ServerState;

/// Octets of the header that a report of success returns: with each connection's in memory it is less than what the
/// relay reads from the queue.
const MAX_RETURNED: usize = 16 * 1024;

/// The recipients to report, and the data of the report.
pub struct Notice {
    message: String,
    hostname: String,
    from: String,
    envid: Option<String>,
    requiretls: bool,
    start: Vec<u8>,
    reported: Vec<(Action, ReportRecipient)>,
}

/// The start of a message for a possible report.
#[derive(Default)]
pub(super) struct Start(Option<Vec<u8>>);

impl Start {
    /// Keeps nothing if no report is wanted.
    pub(super) fn new(session: &Session<Group>) -> Self {
        let asks = |t: &Transaction<Group>| {
            let mut all = t.recipients.iter().filter_map(|to| to.params.notify);
            !t.reverse_path.as_str().is_empty() && all.any(|notify| notify.success)
        };
        Self(session.transaction().is_some_and(asks).then(Vec::new))
    }

    /// Keeps decoded content, as much as a report can have.
    pub(super) fn take(&mut self, content: Option<&[u8]>) {
        if let (Some(start), Some(content)) = (&mut self.0, content) {
            let room = MAX_RETURNED.saturating_sub(start.len());
            start.extend(content.iter().take(room));
        }
    }
}

impl Notice {
    /// The reports to send after the replies; `None` if none is wanted.
    pub(super) fn new(
        session: &Session<Group>,
        relay: Option<&Relay>,
        message: &str,
        start: Start,
        replies: &[Reply],
    ) -> Option<Self> {
        let (start, transaction) = (start.0?, session.transaction()?);
        let mut reported = Vec::new();
        for (place, to) in transaction.recipients.iter().enumerate() {
            // Except on LMTP, one reply is for all recipients.
            let reply = replies.get(place).or_else(|| replies.first());
            let success = to.params.notify.is_some_and(|notify| notify.success);
            if !success || reply.is_none_or(Reply::is_error) {
                continue;
            }
            let Some((action, text)) = fate(&to.mailboxes, relay) else {
                continue;
            };
            let address = to.path.as_str().to_owned();
            let orcpt = to.params.orcpt.clone();
            reported.push((
                action,
                ReportRecipient {
                    address,
                    orcpt,
                    status: Status::new(2, 0, 0),
                    text: text.to_owned(),
                    remote: None,
                    is_reply: false,
                },
            ));
        }
        (!reported.is_empty()).then(|| Self {
            message: message.to_owned(),
            hostname: session.policy().hostname.clone(),
            from: transaction.reverse_path.as_str().to_owned(),
            envid: transaction.params.envid.clone(),
            requiretls: transaction.params.requiretls,
            start,
            reported,
        })
    }

    /// Sends the reports, one for each kind of action.
    pub(super) fn send(&self, state: &ServerState) {
        let relay = state.relay.get().map(AsRef::as_ref);
        let snapshot = state.snapshot();
        // Where recipients without a domain are.
        let domain = snapshot.directory.domains().first();
        let domain = domain.map_or(self.hostname.as_str(), String::as_str);
        let date = clock::rfc5322_now();
        for action in [Action::Delivered, Action::Expanded] {
            let found = self.reported.iter().filter(|(own, _)| *own == action);
            let mut recipients: Vec<ReportRecipient> = found.map(|(_, one)| one.clone()).collect();
            if recipients.is_empty() {
                continue;
            }
            for address in recipients.iter_mut().map(|one| &mut one.address) {
                if !address.contains('@') {
                    address.push('@');
                    address.push_str(domain);
                }
            }
            let report = Report {
                action,
                hostname: &self.hostname,
                to: &self.from,
                id: &clock::unique(),
                date: &date,
                arrived: &date,
                until: None,
                envid: self.envid.as_deref(),
                message: &self.message,
                recipients: &recipients,
                start: &self.start,
                // RFC 3461 §4.3: only failures return the whole message.
                full: false,
            };
            let content = (&*report.content(), self.requiretls);
            let sent = reports::deliver(state, relay, &self.hostname, &self.from, content);
            if let Err(why) = sent {
                log::warn!(
                    "report dropped id={} to={:?}: {why}",
                    self.message,
                    self.from
                );
            }
        }
    }
}

/// The action to report for an accepted recipient, if any.
fn fate(group: &Group, relay: Option<&Relay>) -> Option<(Action, &'static str)> {
    match &**group {
        [only] if relay.is_some_and(|relay| relay.is_queue(only)) => None,
        [_] => Some((Action::Delivered, "delivered to the mailbox")),
        _ => Some((Action::Expanded, "sent to all members")),
    }
}

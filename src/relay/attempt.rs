//! One message and one hop: the necessary transactions, and an outcome for each recipient.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::connect::NoConnection;
use super::content::Prepared;
use super::link::Link;
use super::retry::is_at;
use super::schedule::Hop;
use super::sender::{Relay, chance};
use super::settle::Settled;
use crate::client::Sent;
use crate::clock;
use crate::queue::{Envelope, QueuedRecipient};
use crate::smtp::client::{ConnectionError, Outcome, Stage, Verdict};

/// Maximum recipients of a transaction.
const MAX_RECIPIENTS: usize = 100;

/// The recipients of a message at one hop.
struct Attempt {
    /// Recipients without an outcome.
    rest: Vec<QueuedRecipient>,
    settled: Vec<Settled>,
}

impl Attempt {
    /// Takes the recipients of the next transaction.
    fn batch(&mut self, link: &Link) -> Vec<QueuedRecipient> {
        let offered = link.connection.extensions();
        let most = offered.rcpt_max.unwrap_or(MAX_RECIPIENTS);
        split(&mut self.rest, most.min(MAX_RECIPIENTS), offered.domain_max)
    }

    /// Records the outcomes of a transaction. Returns the connection if it can be used again.
    fn take_in(&mut self, batch: Vec<QueuedRecipient>, sent: Sent, link: Link) -> Option<Link> {
        let dsn = link.connection.extensions().dsn;
        for (to, outcome) in batch.into_iter().zip(sent.outcomes) {
            if outcome.verdict == Verdict::NextTransaction {
                self.rest.push(to);
                continue;
            }
            let host = link.host.clone();
            self.settled.push(Settled {
                to,
                outcome,
                host,
                dsn,
            });
        }
        let Some(failure) = sent.failure else {
            return Some(link);
        };
        self.all(&failure.outcome(), &link.host);
        None
    }

    /// Sets the outcome of all remaining recipients.
    fn all(&mut self, outcome: &Outcome, host: &str) {
        let settled = self.rest.drain(..).map(|to| Settled {
            to,
            outcome: outcome.clone(),
            host: host.to_owned(),
            dsn: false,
        });
        self.settled.extend(settled);
    }
}

impl Relay {
    /// Sends one message to its recipients at this hop; returns the connection if it can be used again.
    pub(super) fn send_message(
        &self,
        hop: &Hop,
        id: &Arc<str>,
        link: Option<Link>,
        thread: usize,
    ) -> Option<Link> {
        let (envelope, mut content) = match self.open_message(id) {
            Ok(opened) => opened,
            Err(e) => {
                self.unreadable(hop, id, &e);
                return link;
            }
        };
        let mut attempt = Attempt {
            rest: self.recipients(&envelope, hop),
            settled: Vec::new(),
        };
        let link = self.transactions(hop, &envelope, &mut content, &mut attempt, (link, thread));
        let silent = attempt.settled.iter().find(|one| one.is_silence());
        let silent = silent.map(|one| one.outcome.clone());
        let waits = attempt.rest.iter().map(|to| to.next).min();
        let next = match waits.filter(|_| attempt.settled.is_empty()) {
            Some(next) => Some(next),
            // Also without recipients: they are settled, but the disk failed when that was to be written.
            None => self.settle(hop, id, &envelope, attempt.settled, &mut content),
        };
        if let Some(outcome) = silent {
            self.put_off_overdue(hop, id, &outcome);
        }
        if let Some(next) = next {
            self.put_off(hop, id, next);
        }
        link
    }

    /// Sends one message over an existing connection to its recipients at these domains, or to all at this hop if none
    /// is named.
    pub(super) fn send_over(
        &self,
        hop: &Hop,
        id: &Arc<str>,
        names: &[String],
        link: Link,
    ) -> Option<Link> {
        let (envelope, mut content) = match self.open_message(id) {
            Ok(opened) => opened,
            Err(e) => {
                self.unreadable(hop, id, &e);
                return Some(link);
            }
        };
        let mut rest = self.recipients(&envelope, hop);
        let wanted = |address: &str| names.iter().any(|name| is_at(address, name, false));
        rest.retain(|to| names.is_empty() || wanted(&to.address));
        let mut attempt = Attempt {
            rest,
            settled: Vec::new(),
        };
        let mut link = Some(link);
        while !attempt.rest.is_empty()
            && let Some(mut open) = link.take_if(|open| !open.is_full())
        {
            let batch = attempt.batch(&open);
            open.used += 1;
            let sent = content.send(&mut open.connection, &envelope, &batch);
            link = attempt.take_in(batch, sent, open);
        }
        if let Some(next) = self.settle(hop, id, &envelope, attempt.settled, &mut content) {
            self.put_off(hop, id, next);
        }
        link
    }

    /// A message that cannot be read now, as without descriptors or while the folder is elsewhere, is tried again. One
    /// that is gone or damaged stays as it is. Neither delays anything else.
    pub(super) fn unreadable(&self, hop: &Hop, id: &Arc<str>, error: &io::Error) {
        log::error!("queue id={id}: {error}");
        let lasting = [
            ErrorKind::NotFound,
            ErrorKind::InvalidData,
            ErrorKind::PermissionDenied,
        ];
        if !lasting.contains(&error.kind()) || !self.queue.is_in_place() {
            let wait = self.settings.retry_policy.wait(1, chance());
            self.put_off(hop, id, clock::seconds().saturating_add(wait));
        }
    }

    fn open_message(&self, id: &str) -> io::Result<(Envelope, Prepared)> {
        let envelope = self.envelope(id)?;
        let content = self.content(id, &envelope)?;
        Ok((envelope, content))
    }

    fn envelope(&self, id: &str) -> io::Result<Envelope> {
        let mut envelope = self.queue.read(id)?;
        // RFC 5321 §2.3.5: names on the wire are complete. Bounces come back to where a recipient without a domain is.
        if is_local_part(&envelope.from) {
            envelope.from.push('@');
            envelope.from.push_str(&self.settings.domain);
        }
        Ok(envelope)
    }

    fn content(&self, id: &str, envelope: &Envelope) -> io::Result<Prepared> {
        Prepared::open(self.queue.content(id)?, envelope.exact_from)
    }

    pub(super) fn recipients(&self, envelope: &Envelope, hop: &Hop) -> Vec<QueuedRecipient> {
        let own = |to: &&QueuedRecipient| self.hop_or_none(&to.address) == *hop;
        envelope.recipients.iter().filter(own).cloned().collect()
    }

    /// Runs transactions until every recipient has its outcome.
    fn transactions(
        &self,
        hop: &Hop,
        envelope: &Envelope,
        content: &mut Prepared,
        attempt: &mut Attempt,
        (link, thread): (Option<Link>, usize),
    ) -> Option<Link> {
        let mut link = link.filter(|link| link.connection.is_open());
        while !attempt.rest.is_empty() {
            if let Some(Link { connection, .. }) = link.take_if(|link| link.is_used_up()) {
                connection.quit();
            }
            let mut open = match link.take().map_or_else(|| self.connect(hop, thread), Ok) {
                Ok(open) => open,
                // Not a try: this side has closed the connection.
                Err(_) if self.is_stopping() => return None,
                // The message goes over the other connection.
                Err(NoConnection::Later(failure)) if self.is_served(hop, thread, &failure) => {
                    return None;
                }
                Err(trouble) => {
                    attempt.all(&self.no_connection(hop, trouble), "");
                    return None;
                }
            };
            let batch = attempt.batch(&open);
            let fresh = open.used == 0;
            open.used += 1;
            let mut sent = content.send(&mut open.connection, envelope, &batch);
            if open.exposed && needs_tls(&mut sent.outcomes) {
                self.lock().schedule.encrypt(hop);
                open.used = usize::MAX;
            }
            // An idle connection may have been closed by the peer, so a new one is tried.
            if !fresh && !self.is_stopping() && is_unused(sent.failure.as_ref()) {
                attempt.rest.splice(0..0, batch);
                continue;
            }
            link = attempt.take_in(batch, sent, open);
        }
        link
    }

    /// The outcome for all recipients; if the hop is the reason, its other mail waits as well.
    fn no_connection(&self, hop: &Hop, trouble: NoConnection) -> Outcome {
        match trouble {
            NoConnection::Never(outcome) => outcome,
            NoConnection::Waits(outcome) => {
                self.hop_waits(hop, false);
                outcome
            }
            NoConnection::Later(failure) => {
                self.hop_failed(hop, &failure);
                failure.outcome()
            }
        }
    }

    /// A hop did not answer and was tried with one message only. Of its other messages, gives up those that have waited
    /// too long and sends delay notices.
    fn put_off_overdue(&self, hop: &Hop, tried: &str, outcome: &Outcome) {
        for id in self.overdue(hop) {
            if id.as_ref() == tried || self.is_stopping() {
                continue;
            }
            let Ok(envelope) = self.envelope(&id) else {
                continue;
            };
            let rest = self.recipients(&envelope, hop);
            // Most have nothing to tell, so that their content is not read.
            let told = rest.iter().all(|to| to.delayed);
            if told && !self.is_over(envelope.created, clock::seconds()) {
                continue;
            }
            let Ok(mut content) = self.content(&id, &envelope) else {
                continue;
            };
            let mut attempt = Attempt {
                rest,
                settled: Vec::new(),
            };
            attempt.all(outcome, "");
            if !self.forget(hop, &id) {
                continue;
            }
            if let Some(next) = self.settle(hop, &id, &envelope, attempt.settled, &mut content) {
                self.put_off(hop, &id, next);
            }
        }
    }
}

/// True if a server wants TLS (RFC 3207 §4), or has not offered in the clear what the mail needs. Neither is a refusal
/// of the mail, so that it is tried again.
fn needs_tls(outcomes: &mut [Outcome]) -> bool {
    let mut found = false;
    for one in outcomes {
        let is_refused = one.remote && !one.text.starts_with("530");
        if one.verdict == Verdict::Failed && !is_refused {
            (one.verdict, one.status.class, found) = (Verdict::Later, 4, true);
        }
    }
    found
}

/// True for the reverse-path of a client that names no domain.
fn is_local_part(path: &str) -> bool {
    let unquoted = path.rsplit('"').next().unwrap_or(path);
    !path.is_empty() && !unquoted.contains('@')
}

/// Takes at most `most` recipients with at most so many different domains.
fn split(
    rest: &mut Vec<QueuedRecipient>,
    most: usize,
    domains: Option<usize>,
) -> Vec<QueuedRecipient> {
    let Some(domains) = domains else {
        return rest.drain(..rest.len().min(most)).collect();
    };
    let (mut batch, mut left, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for to in rest.drain(..) {
        let domain = to.address.rsplit('@').next().unwrap_or_default();
        let domain = domain.to_lowercase();
        let known = seen.contains(&domain);
        if batch.len() < most && (known || seen.len() < domains) {
            seen.extend((!known).then_some(domain));
            batch.push(to);
        } else {
            left.push(to);
        }
    }
    *rest = left;
    batch
}

/// True if an idle connection turned out to be dead, so that nothing is known about the message.
fn is_unused(failure: Option<&ConnectionError>) -> bool {
    match failure {
        Some(ConnectionError::Lost(stage, _) | ConnectionError::Refused(stage, _)) => {
            matches!(stage, Stage::Reset | Stage::Mail | Stage::Idle)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
    use std::path::PathBuf;

    use super::super::testing::{put, relay};
    use super::*;
    use crate::testing::Scratch;

    const ID: &str = "1700000000.M1P1Q1";

    /// A queue with one message for `x@one.test`, which nobody has fetched yet. Returns the file of its content.
    fn with_message() -> (Scratch, Relay, PathBuf) {
        let dir = Scratch::new();
        let created = clock::seconds() - 10 * 86_400;
        let envelope = format!("from me\ncreated {created}\ncontent lines\nto 0 0 x@one.test\n");
        let content = put(&dir, ID, &envelope);
        let relay = relay(&dir, &["atrn:1", "smtp://127.0.0.1:1?for=far.test"]);
        (dir, relay, content)
    }

    /// Mail that was sent but could not be removed must not be there at the next start, which would send it again.
    #[test]
    fn settled_mail_is_removed_once_that_is_possible() {
        let (_dir, relay, content) = with_message();
        std::fs::remove_file(&content).unwrap();
        std::fs::create_dir(&content).unwrap();
        let settle = &mut |envelope: &mut Envelope| envelope.recipients.clear();
        let known = relay.queue.read(ID).unwrap();
        assert!(relay.queue.change(ID, &known, settle).is_err());
        std::fs::remove_dir(&content).unwrap();
        std::fs::write(&content, "Subject: x\n\ny").unwrap();
        let hop = relay.hop_or_none("x@one.test");
        relay.send_message(&hop, &ID.into(), None, 0);
        assert!(!content.exists());
    }

    /// A hop whose thread panics has its other messages sent, and the one in hand is tried again later.
    #[test]
    fn a_panic_ends_one_try() {
        let (_dir, relay, _content) = with_message();
        relay.report_by(Box::new(|_, _, _| panic!("in a report")));
        let hop = relay.hop_or_none("x@one.test");
        let started = relay.lock().schedule.start(clock::seconds(), |_| 1);
        assert_eq!(started.as_ref(), Some(&hop));
        let thread = relay.begin_thread();
        let send = std::panic::AssertUnwindSafe(|| relay.send(&hop, thread));
        assert!(std::panic::catch_unwind(send).is_err());
        let state = relay.lock();
        assert!(!state.schedule.is_running(std::slice::from_ref(&hop)));
        assert_eq!((state.running, state.schedule.waiting(&hop).len()), (0, 1));
    }

    /// At a shutdown nothing is known about the hop: this does not count as a try, and nobody is told that it failed.
    #[test]
    fn mail_is_not_tried_at_a_stop() {
        let (_dir, relay, content_path) = with_message();
        relay.lock().stopping = true;
        let hop = relay.hop_or_none("x@one.test");
        relay.forget(&hop, ID);
        relay.send_message(&hop, &ID.into(), None, 0);
        let envelope = relay.queue.read(ID).unwrap();
        let tries: Vec<u32> = envelope.recipients.iter().map(|to| to.tries).collect();
        assert_eq!(tries, [0]);
        assert_eq!(relay.waiting(&hop).len(), 1);
        // Nor is anything given up because this side has closed the connection.
        let cut = ConnectionError::Lost(Stage::Rcpt, "closed".to_owned()).outcome();
        let mut attempt = Attempt {
            rest: relay.recipients(&envelope, &hop),
            settled: Vec::new(),
        };
        attempt.all(&cut, "one.test");
        let mut content = relay.content(ID, &envelope).unwrap();
        let next = relay.settle(&hop, ID, &envelope, attempt.settled, &mut content);
        assert!(next.is_some() && content_path.exists());
    }

    /// After the first recipient the hop may have the message, whatever became of the connection: it is not sent again
    /// at once.
    #[test]
    fn only_a_connection_that_was_dead_is_replaced() {
        for (stage, unused) in [
            (Stage::Idle, true),
            (Stage::Reset, true),
            (Stage::Mail, true),
            (Stage::Rcpt, false),
            (Stage::Data, false),
            (Stage::Content, false),
            (Stage::End, false),
        ] {
            let lost = ConnectionError::Lost(stage, "closed".to_owned());
            assert_eq!(is_unused(Some(&lost)), unused, "{stage}");
        }
        let broken = ConnectionError::Protocol(Stage::Mail, "nonsense");
        assert!(!is_unused(Some(&broken)) && !is_unused(None));
    }

    #[test]
    fn senders_without_a_domain() {
        for path in ["root", "\"a b\"", "\"a@b\""] {
            assert!(is_local_part(path), "{path}");
        }
        for path in ["", "root@a", "\"a@b\"@c"] {
            assert!(!is_local_part(path), "{path}");
        }
    }

    #[test]
    fn recipients_are_taken_together_as_limits_allow() {
        let all = ["1@a", "2@b", "3@A", "4@c", "5@b", "6@a"];
        for (most, domains, batches) in [
            (100, None, &["123456"][..]),
            (4, None, &["1234", "56"]),
            (100, Some(1), &["136", "25", "4"]),
            (2, Some(1), &["13", "25", "4", "6"]),
            (100, Some(2), &["12356", "4"]),
        ] {
            let to = |address: &&str| QueuedRecipient {
                address: (*address).to_owned(),
                ..QueuedRecipient::default()
            };
            let mut rest: Vec<QueuedRecipient> = all.iter().map(to).collect();
            let mut found = Vec::new();
            while !rest.is_empty() && found.len() < all.len() {
                let batch = split(&mut rest, most, domains).into_iter();
                found.push(batch.filter_map(|to| to.address.chars().next()).collect());
            }
            let found: Vec<String> = found;
            assert_eq!(found, batches, "{most} {domains:?}");
        }
    }
}

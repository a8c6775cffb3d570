//! An incoming message: decoder, spool and limits, up to the outcome. Callers feed it octets: it uses no socket and
//! does not know the dialogue.

use std::io;
use std::sync::Arc;

use super::notice::{Notice, Start};
use crate::clock;
use crate::deliver::{Delivered, Form, Group, Groups, Spool, Store, Target, Trace, queue_refusal};
use crate::queue::{Draft, Envelope, QueuedRecipient};
use crate::relay::Relay;
use crate::smtp::body::{BareNewline, Chunks, Decoded, Dots, LineEnds};
use crate::smtp::params::{BodyType, Notify, RcptParams};
use crate::smtp::policy::Service;
use crate::smtp::reply::{self, Reply};
use crate::smtp::session::{Session, Transaction};

/// A message from DATA or the first BDAT to its outcome.
pub struct Message {
    spool: Box<Spool>,
    decoder: Decoder,
    bare_newline: BareNewline,
    /// Maximum octets of a message.
    limit: u64,
    /// A buffer for decoded octets past the limit, which are dropped.
    surplus: Vec<u8>,
    /// Data for a report of success.
    start: Start,
    /// The octet of the file from which line ends are stored unchanged.
    exact_from: Option<u64>,
}

enum Decoder {
    Dots(Dots),
    Chunks(Chunks),
}

/// The outcome of a message.
pub struct MessageOutcome {
    /// The unique part of the file name; `None` if the message was refused before any delivery was tried.
    pub id: Option<String>,
    /// One reply, or on LMTP one for each recipient.
    pub replies: Vec<Reply>,
    /// Octets of content, CRLF counted as two.
    pub size: u64,
    /// The reports to send after the replies.
    pub notice: Option<Notice>,
}

/// Trace data that the session does not have.
#[derive(Clone, Copy)]
pub struct ClientTrace<'a> {
    /// The client in Received.
    pub peer: &'a str,
    /// True if Received names the user.
    pub auth_header: bool,
}

impl Message {
    /// A message after DATA.
    pub fn data(session: &Session<Group>, store: &Store, origin: ClientTrace<'_>) -> Self {
        let dots = Dots::new(session.policy().bare_newline);
        Self::begin(session, store, origin, Form::Text, Decoder::Dots(dots))
    }

    /// A message in chunks.
    pub fn chunked(session: &Session<Group>, store: &Store, origin: ClientTrace<'_>) -> Self {
        let body = session.transaction().and_then(|t| t.params.body);
        let binary = body == Some(BodyType::Binary);
        let onward = session.transaction().is_some_and(Transaction::is_onward);
        let (form, ends) = match (binary, onward) {
            (true, _) => (Form::Binary, LineEnds::Kept),
            // The next hop must get every line end unchanged.
            (false, true) => (Form::Text, LineEnds::LfUntilBare),
            (false, false) => (Form::Text, LineEnds::Lf),
        };
        let decoder = Decoder::Chunks(Chunks::new(ends));
        let message = Self::begin(session, store, origin, form, decoder);
        Self {
            exact_from: binary.then_some(0),
            ..message
        }
    }

    fn begin(
        session: &Session<Group>,
        store: &Store,
        origin: ClientTrace<'_>,
        form: Form,
        decoder: Decoder,
    ) -> Self {
        let transaction = session.transaction();
        let policy = session.policy();
        let recipients = transaction.map_or(&[][..], |t| &t.recipients);
        let trace = Trace {
            reverse_path: transaction.map_or("", |t| t.reverse_path.as_str()),
            helo: session.helo().unwrap_or("unknown"),
            peer: origin.peer,
            hostname: &policy.hostname,
            protocol: session.protocol(),
            recipient: match recipients {
                [only] => Some(only.path.as_str()),
                _ => None,
            },
            user: session.user().filter(|_| origin.auth_header),
            submission: policy.service == Service::Submission,
        };
        let groups: Vec<Group> = recipients.iter().map(|to| to.mailboxes.clone()).collect();
        let groups = match transaction {
            Some(transaction) if transaction.has_distinct_mailboxes() => Groups::distinct(groups),
            _ => groups.into(),
        };
        let size = transaction.and_then(|t| t.params.size);
        Self {
            spool: store.begin(&trace, groups, form, size),
            decoder,
            bare_newline: policy.bare_newline,
            limit: policy.max_size,
            surplus: Vec::new(),
            start: Start::new(session),
            exact_from: None,
        }
    }

    /// Adds content: up to the lone dot after DATA, or a chunk, or part of one, with BDAT.
    ///
    /// # Errors
    /// The reply to close with, if the message is more than twice the allowed size.
    pub fn feed(&mut self, input: &[u8]) -> Result<Decoded, Reply> {
        let start = &mut self.start;
        let fed = match &mut self.decoder {
            Decoder::Dots(dots) if dots.size() <= self.limit => self.spool.decode(|out| {
                let before = out.len();
                let fed = dots.feed(input, out);
                start.take(out.get(before..));
                fed
            }),
            Decoder::Dots(dots) => {
                self.surplus.clear();
                dots.feed(input, &mut self.surplus)
            }
            Decoder::Chunks(chunks) => {
                let mut feed = |spool: &mut Spool, octets: &[u8], keep: bool| {
                    spool.decode(|out| {
                        let before = out.len();
                        if keep {
                            chunks.keep(out);
                        }
                        let used = chunks.feed(octets, out);
                        start.take(out.get(before..));
                        used
                    })
                };
                let used = feed(&mut self.spool, input, false);
                if let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
                    self.exact_from = Some(self.spool.keep_line_ends());
                    feed(&mut self.spool, rest, true);
                }
                Decoded::More
            }
        };
        if self.size() > self.limit.saturating_mul(2) {
            return Err(match self.decoder {
                Decoder::Dots(_) => reply::FAR_TOO_LARGE,
                Decoder::Chunks(_) => reply::CHUNK_FAR_TOO_LARGE,
            });
        }
        Ok(fed)
    }

    fn size(&self) -> u64 {
        match &self.decoder {
            Decoder::Dots(dots) => dots.size(),
            Decoder::Chunks(chunks) => chunks.size(),
        }
    }

    /// Ends the message: commits it, or refuses it for all recipients, as it does if the sender is `over_rate`.
    pub fn finish(
        mut self,
        session: &Session<Group>,
        relay: Option<&Relay>,
        over_rate: bool,
    ) -> MessageOutcome {
        let each = session.policy().service == Service::Lmtp;
        let size = self.size();
        if let Some(refused) = self.refused(over_rate) {
            let count = if each { recipients(session).count() } else { 1 };
            return MessageOutcome {
                id: None,
                replies: vec![refused; count],
                size,
                notice: None,
            };
        }
        if let Decoder::Chunks(chunks) = &mut self.decoder {
            self.spool.decode(|out| chunks.finish(out));
        }
        let id = self.spool.id().to_owned();
        let draft = relay.and_then(|relay| self.draft(session, relay));
        let (replies, receipt) = match each {
            true => commit_each(self.spool, session, relay),
            false => {
                let outcome = self.spool.commit();
                let receipt = draft.as_ref().and_then(|_| outcome.as_ref().ok().cloned());
                (vec![answer(outcome)], receipt)
            }
        };
        if let (Some(draft), Some(receipt), Some(relay)) = (draft, receipt, relay) {
            let envelope = draft.keep(receipt.name());
            let envelope = without_refused(envelope, receipt.id(), (session, &replies), relay);
            relay.add(receipt.id(), &envelope);
        }
        MessageOutcome {
            notice: Notice::new(session, relay, &id, self.start, &replies),
            id: Some(id),
            replies,
            size,
        }
    }

    /// Writes the envelope of remote recipients before the message is committed; `None` if there are none. If that
    /// fails, the commit refuses them: on LMTP the recipients here do not depend on the queue.
    #[inline(never)]
    fn draft<'a>(&mut self, session: &Session<Group>, relay: &'a Relay) -> Option<Draft<'a>> {
        let transaction = session.transaction()?;
        let created = clock::seconds();
        let mut envelope = Envelope {
            from: transaction.reverse_path.as_str().to_owned(),
            created,
            exact_from: self.exact_from,
            smtputf8: transaction.params.smtputf8,
            requiretls: transaction.params.requiretls,
            ret: transaction.params.ret.map(|ret| ret.as_str().to_owned()),
            envid: transaction.params.envid.clone(),
            ..Envelope::default()
        };
        envelope.recipients = onward(transaction, &[], relay, created);
        if envelope.recipients.is_empty() {
            return None;
        }
        let content = self.spool.expect_envelope();
        let draft = relay.queue().draft(self.spool.id(), envelope, content);
        let failed = |e: &io::Error| {
            log::error!("queue id={}: {e}", self.spool.id());
            self.spool.refuse_queue(&queue_refusal(e));
        };
        draft.inspect_err(failed).ok()
    }

    /// Why the message is refused for all.
    fn refused(&self, over_rate: bool) -> Option<Reply> {
        match &self.decoder {
            Decoder::Dots(dots)
                if dots.bare_newline() && self.bare_newline == BareNewline::Reject =>
            {
                Some(reply::BARE_NEWLINE)
            }
            _ if self.size() > self.limit => Some(reply::TOO_LARGE),
            _ => over_rate.then_some(reply::RATE_LIMITED),
        }
    }
}

/// The recipients of the queue to which those of a transaction lead that have no refusal among the `replies`, each once,
/// with the reports that any of them asks for.
fn onward(
    transaction: &Transaction<Group>,
    replies: &[Reply],
    relay: &Relay,
    now: u64,
) -> Vec<QueuedRecipient> {
    let mut queued: Vec<QueuedRecipient> = Vec::new();
    let mut wishes = Vec::new();
    let mut lists = Vec::new();
    for (place, to) in transaction.recipients.iter().enumerate() {
        if replies.get(place).is_some_and(Reply::is_error) {
            continue;
        }
        let notify = notify(&to.params, to.mailboxes.len());
        if let Some(list) = to.mailboxes.list() {
            // Once more it adds nothing, and its members may be many.
            if lists.contains(&(list, notify)) {
                continue;
            }
            lists.push((list, notify));
        }
        for target in to.mailboxes.iter().filter(|target| relay.is_queue(target)) {
            let mut known = queued.iter().zip(&mut wishes);
            match known.find(|(to, _)| is_same(&to.address, &target.address)) {
                Some((_, wish)) if *wish != notify => *wish = Some(either(*wish, notify)),
                Some(_) => {}
                None => {
                    wishes.push(notify);
                    queued.push(QueuedRecipient {
                        address: target.address.clone(),
                        next: now,
                        orcpt: to.params.orcpt.clone(),
                        ..QueuedRecipient::default()
                    });
                }
            }
        }
    }
    for (to, wish) in queued.iter_mut().zip(wishes) {
        to.notify = wish.map(|wish| wish.to_string());
    }
    queued
}

/// Removes from a queued message those to which only refused recipients lead: the client sends the message for them
/// again. An SMTP client has one reply for all, and no such recipients.
#[inline(never)]
fn without_refused(
    mut envelope: Envelope,
    id: &str,
    (session, replies): (&Session<Group>, &[Reply]),
    relay: &Relay,
) -> Envelope {
    if replies.len() > 1
        && replies.iter().any(Reply::is_error)
        && let Some(transaction) = session.transaction()
    {
        envelope.recipients = onward(transaction, replies, relay, envelope.created);
        // If it cannot be written, the queue still remembers it.
        let change =
            &mut |queued: &mut Envelope| queued.recipients.clone_from(&envelope.recipients);
        if let Err(e) = relay.queue().change(id, &envelope, change) {
            log::error!("queue id={id}: {e}");
        }
    }
    envelope
}

/// True if two addresses differ at most in the case of their domains.
fn is_same(one: &str, other: &str) -> bool {
    let local = |address| str::rsplit_once(address, '@').map(|(local, _)| local);
    one.eq_ignore_ascii_case(other) && local(one) == local(other)
}

/// The value of NOTIFY for the mailboxes of a recipient. Success of a list of several is an `expanded` report of its
/// own instead (RFC 3461 §6.2.7.3).
fn notify(params: &RcptParams, mailboxes: usize) -> Option<Notify> {
    let notify = params.notify?;
    let success = notify.success && mailboxes <= 1;
    Some(Notify { success, ..notify })
}

/// Both wishes; a missing one is for failures and delays (RFC 3461 §4.1).
fn either(one: Option<Notify>, other: Option<Notify>) -> Notify {
    const USUAL: Notify = Notify {
        success: false,
        failure: true,
        delay: true,
    };
    let (one, other) = (one.unwrap_or(USUAL), other.unwrap_or(USUAL));
    Notify {
        success: one.success || other.success,
        failure: one.failure || other.failure,
        delay: one.delay || other.delay,
    }
}

/// Commits for each recipient by itself: the replies, and the receipt of the queue if one has the message there.
fn commit_each(
    spool: Box<Spool>,
    session: &Session<Group>,
    relay: Option<&Relay>,
) -> (Vec<Reply>, Option<Delivered>) {
    let outcomes = spool.commit_each();
    let onward = |target: &Arc<Target>| relay.is_some_and(|relay| relay.is_queue(target));
    let queued = recipients(session)
        .zip(&outcomes)
        .find(|(group, outcome)| outcome.is_ok() && group.iter().any(onward));
    let queued = queued.and_then(|(_, outcome)| outcome.as_ref().ok().cloned());
    (outcomes.into_iter().map(answer).collect(), queued)
}

/// The mailboxes of each recipient.
fn recipients(session: &Session<Group>) -> impl Iterator<Item = &[Arc<Target>]> {
    let transaction = session.transaction().into_iter();
    transaction.flat_map(|t| t.recipients.iter().map(|to| &*to.mailboxes))
}

fn answer(outcome: Result<Delivered, Reply>) -> Reply {
    match outcome {
        Ok(delivered) => delivered.reply(),
        Err(refusal) => refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_have_no_case() {
        for (one, other, same) in [
            ("x@far.test", "x@FAR.test", true),
            ("x@far.test", "X@far.test", false),
            ("x@far.test", "x@fur.test", false),
            ("\"a@b\"@c", "\"a@b\"@C", true),
            ("\"a@b\"@c", "\"a@B\"@c", false),
        ] {
            assert_eq!(is_same(one, other), same, "{one} {other}");
        }
    }
}

//! Handles the outcomes of a try: settled recipients leave the queue, the others wait, and reports about failures and
//! delays are sent. A report is queued before its recipient is removed.

use super::content::Prepared;
use super::route::RouteKind;
use super::schedule::{Hop, RetryPolicy};
use super::sender::{FIRST_TIME, Relay, chance};
use crate::clock;
use crate::queue::{Envelope, QueuedRecipient};
use crate::report::{Action, EXPIRED, MAX_RETURNED, Report, ReportRecipient};
use crate::smtp::client::{Outcome, Verdict};

/// A recipient and its outcome.
pub(super) struct Settled {
    pub(super) to: QueuedRecipient,
    pub(super) outcome: Outcome,
    /// The host that was asked.
    pub(super) host: String,
    /// True if that host sends reports itself.
    pub(super) dsn: bool,
}

impl Settled {
    /// True if the hop did not answer at all.
    pub(super) fn is_silence(&self) -> bool {
        self.host.is_empty() && self.outcome.verdict == Verdict::Later
    }
}

impl Relay {
    /// Updates the queue. Returns the time of the next try at this hop, if any.
    pub(super) fn settle(
        &self,
        hop: &Hop,
        id: &str,
        envelope: &Envelope,
        mut settled: Vec<Settled>,
        content: &mut Prepared,
    ) -> Option<u64> {
        let now = clock::seconds();
        let policy = &self.settings.retry_policy;
        // At a stop this side closes connections: the next start has another try.
        let over = self.is_over(envelope.created, now) && !self.is_stopping();
        for one in &mut settled {
            if over && one.outcome.verdict == Verdict::Later {
                give_up(&mut one.outcome);
            }
            log(id, envelope, one);
        }
        let received = self.lock_by_the_clock().received(envelope.created);
        let late = policy.is_late(received, now);
        let message = (id, envelope, late);
        let (reported, delayed) = self.reports(message, self.success(hop), &settled, content);
        let changed = self.queue.change(id, envelope, &mut |envelope| {
            // The next start does not know when the clock was set first.
            if envelope.created < FIRST_TIME {
                envelope.created = received;
            }
            // A clock that was set back since must not make it wait for longer than `--retry-for`.
            envelope.created = envelope.created.min(now);
            for one in &settled {
                update(envelope, one, (reported, delayed), now, policy);
            }
        });
        match changed {
            Ok(left) => {
                let left = left?.recipients;
                let own = |to: &&QueuedRecipient| self.hop_or_none(&to.address) == *hop;
                left.iter().filter(own).map(|to| to.next).min()
            }
            Err(e) => {
                log::error!("queue id={id}: {e}");
                Some(now.saturating_add(policy.wait(1, chance())))
            }
        }
    }

    /// Sends the reports that are due: of failures, of successes, and, if it is late, of a delay. Returns true for
    /// failures that were reported, and for a delay that was.
    fn reports(
        &self,
        (id, envelope, late): (&str, &Envelope, bool),
        success: Action,
        settled: &[Settled],
        content: &mut Prepared,
    ) -> (bool, bool) {
        let mut report = |action, wanted: &dyn Fn(&Settled) -> bool| {
            let about = settled.iter().filter(|one| wanted(one));
            self.send_report(id, envelope, action, about, content)
        };
        let verdict = |one: &Settled| one.outcome.verdict;
        let reported = report(Action::Failed, &|one| verdict(one) == Verdict::Failed);
        if reported {
            report(success, &|one| {
                verdict(one) == Verdict::Accepted && !one.dsn && asks(&one.to, "SUCCESS")
            });
        }
        let waits = |one: &Settled| verdict(one) == Verdict::Later && !one.to.delayed;
        let delayed = late && report(Action::Delayed, &waits);
        (reported, delayed)
    }

    /// The action for recipients that a hop accepts: delivered for LMTP, relayed otherwise.
    fn success(&self, hop: &Hop) -> Action {
        match self.route(hop.route).map(|route| &route.kind) {
            Some(RouteKind::Socket(_) | RouteKind::Host { lmtp: true, .. }) => Action::Delivered,
            _ => Action::Relayed,
        }
    }

    /// Sends a report about the recipients for which one is wanted. False if it must be tried again.
    fn send_report<'a>(
        &self,
        id: &str,
        envelope: &Envelope,
        action: Action,
        about: impl Iterator<Item = &'a Settled>,
        content: &mut Prepared,
    ) -> bool {
        let wanted = |one: &&Settled| match action {
            Action::Failed => one.to.notify.is_none() || asks(&one.to, "FAILURE"),
            Action::Delayed => one.to.notify.is_none() || asks(&one.to, "DELAY"),
            Action::Relayed | Action::Delivered | Action::Expanded => true,
        };
        let recipients: Vec<ReportRecipient> = about.filter(wanted).map(report_recipient).collect();
        let Some(report) = self
            .report
            .get()
            .filter(|_| !recipients.is_empty() && !envelope.from.is_empty())
        else {
            return true;
        };
        let received = self.lock_by_the_clock().received(envelope.created);
        let until = received.saturating_add(self.settings.retry_policy.retry_for.as_secs());
        let until = clock::rfc5322_at(until);
        let text = Report {
            action,
            hostname: &self.settings.hostname,
            to: &envelope.from,
            id: &clock::unique(),
            date: &clock::rfc5322_now(),
            arrived: &clock::rfc5322_at(received),
            until: (action == Action::Delayed).then_some(until.as_str()),
            envid: envelope.envid.as_deref(),
            message: id,
            recipients: &recipients,
            start: &content.start(MAX_RETURNED + 1),
            full: action == Action::Failed && returns_all(envelope),
        };
        match report(&envelope.from, &text.content(), envelope.requiretls) {
            Ok(()) => true,
            Err(why) => {
                log::error!("report id={id} to={:?}: {why}", envelope.from);
                // In the end it is dropped, so that nothing waits for ever.
                let longer = self.settings.retry_policy.retry_for.as_secs();
                self.is_over(envelope.created, clock::seconds().saturating_sub(longer))
            }
        }
    }

    /// A hop did not answer: gives up what has waited too long, and sends delay notices.
    pub(super) fn overdue(&self, hop: &Hop) -> Vec<std::sync::Arc<str>> {
        let now = clock::seconds();
        let created = |id: &str| {
            id.split('.')
                .next()
                .and_then(|seconds| seconds.parse().ok())
        };
        let mut ids = self.waiting(hop);
        // One look for all: there may be many.
        let state = self.lock_by_the_clock();
        ids.retain(|id| {
            let received = state.received(created(id).unwrap_or(now));
            self.settings.retry_policy.is_late(received, now)
        });
        drop(state);
        ids
    }
}

/// True if the whole message is returned after a failure; with REQUIRETLS only its header is (RFC 8689 §5).
fn returns_all(envelope: &Envelope) -> bool {
    envelope.ret.as_deref() == Some("FULL") && !envelope.requiretls
}

/// Notes the outcome of a recipient in the envelope. It is removed once it is settled and, after a failure, `reported`.
fn update(
    envelope: &mut Envelope,
    one: &Settled,
    (reported, delayed): (bool, bool),
    now: u64,
    policy: &RetryPolicy,
) {
    let keep = match one.outcome.verdict {
        Verdict::Later => true,
        Verdict::Failed => !reported,
        _ => false,
    };
    let same = |to: &QueuedRecipient| to.address == one.to.address;
    if !keep {
        envelope.recipients.retain(|to| !same(to));
    } else if let Some(to) = envelope.recipients.iter_mut().find(|to| same(to)) {
        to.tries = to.tries.saturating_add(1);
        to.next = now.saturating_add(policy.wait(to.tries, chance()));
        to.last = Some(spelled(&one.outcome));
        to.delayed |= delayed;
    }
}

fn report_recipient(one: &Settled) -> ReportRecipient {
    ReportRecipient {
        address: one.to.address.clone(),
        orcpt: one.to.orcpt.clone(),
        status: one.outcome.status,
        text: one.outcome.text.clone(),
        remote: Some(&one.host).filter(|host| !host.is_empty()).cloned(),
        is_reply: one.outcome.remote,
    }
}

fn give_up(outcome: &mut Outcome) {
    outcome.verdict = Verdict::Failed;
    outcome.status = EXPIRED;
}

/// True if NOTIFY asks for this.
fn asks(to: &QueuedRecipient, what: &str) -> bool {
    let words = to.notify.as_deref().unwrap_or_default();
    words.split(',').any(|word| word.eq_ignore_ascii_case(what))
}

/// The text, with the status in front if it has none of its own.
fn spelled(outcome: &Outcome) -> String {
    if outcome.remote {
        outcome.text.clone()
    } else {
        format!("{} {}", outcome.status, outcome.text)
    }
}

fn log(id: &str, envelope: &Envelope, one: &Settled) {
    let outcome = match one.outcome.verdict {
        Verdict::Accepted => "sent",
        Verdict::Later | Verdict::NextTransaction => "later",
        Verdict::Failed => "failed",
    };
    log::info!(
        "relay id={id} from={:?} to={:?} host={:?} outcome={outcome} status={} reply={:?}",
        envelope.from,
        one.to.address,
        one.host,
        one.outcome.status,
        one.outcome.text
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::sync::{Arc, Mutex};

    use super::super::testing::{put, relay};
    use super::*;
    use crate::lock::lock;
    use crate::smtp::client::{ConnectionError, Replies, Stage, Status};
    use crate::testing::Scratch;

    /// The recipients at each hop have their notice, and only one.
    #[test]
    fn a_delay_is_told_for_each_hop() {
        let dir = Scratch::new();
        let created = clock::seconds() - 5 * 3_600;
        let id: Arc<str> = format!("{created}.M1P1Q1").into();
        let envelope = format!(
            "from me\ncreated {created}\ncontent lines\nto 0 1 u@one.test\n\
             to 0 1 v@two.test\nto 0 1 w@two.test\nnotify FAILURE\n"
        );
        put(&dir, &id, &envelope);
        let relay = relay(&dir, &["atrn:1?for=one.test", "atrn:2?for=two.test"]);
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&told);
        relay.report_by(Box::new(move |to, text, _| {
            assert_eq!(to, "me@a.test");
            lock(&heard).push(String::from_utf8(text.to_vec()).unwrap());
            Ok(())
        }));
        for to in ["u@one.test", "v@two.test", "u@one.test", "v@two.test"] {
            relay.send_message(&relay.hop_or_none(to), &id, None, 0);
        }
        let told = lock(&told);
        let about = |text: &String| {
            let all = ["u@one.test", "v@two.test", "w@two.test"].into_iter();
            let named = all.filter(|to| text.contains(&format!("Final-Recipient: rfc822; {to}\n")));
            (
                text.contains("Action: delayed\n"),
                named.collect::<Vec<_>>(),
            )
        };
        let found: Vec<_> = told.iter().map(about).collect();
        assert_eq!(
            found,
            [(true, vec!["u@one.test"]), (true, vec!["v@two.test"])]
        );
    }

    /// RFC 3461 §6.3: the last reply is told, also one to a connection that was not used, and the host that was asked.
    #[test]
    fn host_and_reply_are_in_a_report() {
        let reply = Replies::new().take(&mut &b"554 5.7.1 not you\r\n"[..]);
        let refused = ConnectionError::Refused(Stage::Greeting, reply.unwrap().unwrap());
        let unsent = Outcome::local(Verdict::Failed, Status::new(5, 3, 4), "too large");
        let mta = "Remote-MTA: dns; mx.test\n";
        let code = "Diagnostic-Code: smtp; 554 5.7.1 not you\n";
        for (outcome, host, fields, said) in [
            (refused.outcome(), "", ["", code], "554"),
            (
                refused.outcome(),
                "mx.test",
                [mta, code],
                "mx.test said: 554",
            ),
            (unsent, "mx.test", [mta, "\n"], "too large"),
        ] {
            let fields = format!("Status: {}\n{}", outcome.status, fields.concat());
            let one = Settled {
                to: QueuedRecipient::default(),
                outcome,
                host: host.to_owned(),
                dsn: false,
            };
            let report = Report {
                action: Action::Failed,
                hostname: "a.test",
                to: "me@a.test",
                id: "1",
                date: "",
                arrived: "",
                until: None,
                envid: None,
                message: "2",
                recipients: &[report_recipient(&one)],
                start: b"",
                full: false,
            };
            let text = String::from_utf8(report.content()).unwrap();
            for part in [fields, format!("\n    {said}")] {
                assert!(text.contains(&part), "{part} in {text}");
            }
        }
    }

    /// Mail that came before the clock was set is not returned by the next start, which did not see that.
    #[test]
    fn mail_of_a_run_without_the_time() {
        let dir = Scratch::new();
        for created in [50, 80] {
            let envelope =
                format!("from me\ncreated {created}\ncontent lines\nto 0 1 u@one.test\n");
            put(&dir, &format!("{created}.M1P1Q1"), &envelope);
        }
        let relay = relay(&dir, &["atrn:1"]);
        let now = clock::seconds();
        let id: Arc<str> = "50.M1P1Q1".into();
        relay.send_message(&relay.hop_or_none("u@one.test"), &id, None, 0);
        let age = now - relay.queue().read(&id).unwrap().created;
        assert!((29..=30).contains(&age), "{age}");
    }

    /// RFC 5321 §6.1: mail from the null reverse-path, as reports are, ends without another report.
    #[test]
    fn reports_are_not_reported() {
        let dir = Scratch::new();
        let created = clock::seconds() - 10 * 86_400;
        for (number, from) in ["", "me"].into_iter().enumerate() {
            let envelope =
                format!("from {from}\ncreated {created}\ncontent lines\nto 0 1 u@one.test\n");
            put(&dir, &format!("{created}.M{number}P1Q1"), &envelope);
        }
        let relay = relay(&dir, &["atrn:1"]);
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&told);
        relay.report_by(Box::new(move |to, _, _| {
            lock(&heard).push(to.to_owned());
            Ok(())
        }));
        let hop = relay.hop_or_none("u@one.test");
        for id in relay.queue().ids().unwrap() {
            relay.send_message(&hop, &id.into(), None, 0);
        }
        assert_eq!(*lock(&told), ["me@a.test"]);
        assert!(relay.queue().ids().unwrap().is_empty());
    }
}

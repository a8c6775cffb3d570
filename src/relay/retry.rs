//! Retries mail on request: of a client by ETRN, or of the operator by `--queue-run`.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

use super::schedule::Hop;
use super::sender::Relay;
use crate::lock::lock;
use crate::net::dns::to_alabel;

/// The mail to retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// All of it.
    All,
    /// One message, by its id.
    Id(&'a str),
    /// The mail of a domain.
    Domain(&'a str),
    /// The mail of a domain and of its subdomains.
    Subdomains(&'a str),
}

impl Relay {
    /// Retries mail now, that of a domain at its own hops only. Returns the number of messages, those that are being sent
    /// already included if they are all.
    ///
    /// # Errors
    /// The queue cannot be read, or the server is stopping.
    pub fn try_now(&self, wanted: Wanted<'_>) -> io::Result<usize> {
        if self.is_stopping() {
            return Err(io::Error::other("the server is stopping"));
        }
        let (domain, below) = match wanted {
            Wanted::All => return Ok(self.retry_now(|_, _| true)),
            Wanted::Id(wanted) => {
                let known = usize::from(self.queue().content(wanted).is_ok());
                return Ok(self.retry_now(|_, id| id == wanted).max(known));
            }
            Wanted::Domain(domain) => (domain, false),
            Wanted::Subdomains(domain) => (domain, true),
        };
        let Some(domain) = to_alabel(domain.strip_suffix('.').unwrap_or(domain)) else {
            return Ok(0);
        };
        // One client at a time, because there may be many files. They are read before the schedule is locked: new mail
        // needs that lock.
        let _one = lock(&self.search);
        // Only the keys of the map count; `Relay::add` has the same kind, and a set would be one more to compile.
        let (mut ids, mut hops) = (HashSet::<Arc<str>>::new(), BTreeMap::new());
        for id in self.queue().ids()? {
            let Ok(envelope) = self.queue().read(&id) else {
                continue;
            };
            for to in &envelope.recipients {
                if is_at(&to.address, &domain, below) {
                    hops.insert(self.hop_or_none(&to.address), 0_u64);
                    ids.insert(id.as_str().into());
                }
            }
        }
        let wanted = |hop: &Hop, id: &str| hops.contains_key(hop) && ids.contains(id);
        Ok(self.retry_now(wanted).max(ids.len()))
    }

    /// True if a message has a recipient at the domain; false if it has left the queue.
    pub(super) fn is_for(&self, id: &str, domain: &str, below: bool) -> bool {
        let Ok(envelope) = self.queue().read(id) else {
            return false;
        };
        let mut recipients = envelope.recipients.iter();
        recipients.any(|to| is_at(&to.address, domain, below))
    }
}

/// True if an address is at the domain or, with `below`, at one of its subdomains.
pub(super) fn is_at(address: &str, domain: &str, below: bool) -> bool {
    let own = address.rsplit_once('@').map(|(_, own)| own);
    let own = own.and_then(to_alabel);
    own.is_some_and(|own| matches(&own, domain, below))
}

/// True if a domain is the wanted one or, with `below`, one of its subdomains. Both are A-labels.
fn matches(own: &str, wanted: &str, below: bool) -> bool {
    match own.len().checked_sub(wanted.len()) {
        None => false,
        Some(0) => own.eq_ignore_ascii_case(wanted),
        Some(more) => {
            let (head, tail) = (own.get(..more), own.get(more..));
            let label = head.is_some_and(|head| head.ends_with('.'));
            below && label && tail.is_some_and(|tail| tail.eq_ignore_ascii_case(wanted))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::testing::relay;
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn mail_is_asked_for_by_domain() {
        let dir = Scratch::new();
        let relay = relay(&dir, &["atrn:1"]);
        let envelope =
            "mailslot-envelope 1\nfrom me\ncreated 9\ncontent lines\nto 0 1 u@x.one.test\n";
        std::fs::write(dir.0.join("queue/new/9.M1P1Q1"), envelope).unwrap();
        for (wanted, count) in [
            (Wanted::Domain("x.one.test"), 1),
            (Wanted::Domain("X.One.Test."), 1),
            (Wanted::Domain("one.test"), 0),
            (Wanted::Subdomains("one.test."), 1),
            (Wanted::Domain("."), 0),
        ] {
            assert_eq!(relay.try_now(wanted).unwrap(), count, "{wanted:?}");
        }
    }

    /// A message with recipients at two hops is one message, and the other hop keeps its time.
    #[test]
    fn the_hop_of_the_domain_is_asked() {
        let dir = Scratch::new();
        let relay = relay(&dir, &["smtp://a?for=one.test", "smtp://b?for=.two.test"]);
        let later = crate::clock::seconds() + 300;
        let text = format!(
            "mailslot-envelope 1\nfrom me\ncreated 9\ncontent lines\n\
             to {later} 1 u@one.test\nto {later} 1 v@x.two.test\n"
        );
        std::fs::write(dir.0.join("queue/new/9.M1P1Q1"), text).unwrap();
        relay.add("9.M1P1Q1", &relay.queue().read("9.M1P1Q1").unwrap());
        let (one, two) = (
            relay.hop_or_none("u@one.test"),
            relay.hop_or_none("v@x.two.test"),
        );
        let due = |hop| relay.lock().schedule.take(hop, later - 300).is_some();
        assert_eq!(relay.try_now(Wanted::All).unwrap(), 1);
        assert_eq!((due(&one), due(&two)), (true, true));
        for wanted in [Wanted::Domain("one.test"), Wanted::Subdomains("two.test")] {
            relay.put_off(&one, &"9.M1P1Q1".into(), later);
            relay.put_off(&two, &"9.M1P1Q1".into(), later);
            assert_eq!(relay.try_now(wanted).unwrap(), 1);
            let first = wanted == Wanted::Domain("one.test");
            assert_eq!((due(&one), due(&two)), (first, !first));
        }
    }

    #[test]
    fn domains_and_their_subdomains() {
        for (own, wanted, alone, below) in [
            ("b.test", "b.test", true, true),
            ("B.Test", "b.test", true, true),
            ("x.b.test", "b.test", false, true),
            ("x.y.b.test", "b.test", false, true),
            ("xb.test", "b.test", false, false),
            ("test", "b.test", false, false),
            ("c.test", "b.test", false, false),
        ] {
            assert_eq!(matches(own, wanted, false), alone, "{own}");
            assert_eq!(matches(own, wanted, true), below, "{own} and below");
        }
    }
}

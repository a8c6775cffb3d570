//! Schedules messages by hop. There is no clock, file or thread here: the caller passes times in seconds since 1970. A
//! hop that does not answer is tried with one message only, and all its mail waits.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Maximum wait between two tries, without jitter.
const LONGEST: Duration = Duration::from_secs(2 * 60 * 60);
/// The delay notice goes out after this time, or after half of all tries.
const DELAY_NOTICE: Duration = Duration::from_secs(4 * 60 * 60);

/// A next hop: the number of its route and, if each domain is separate, the domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hop {
    /// The place in [`super::Routes`].
    pub route: usize,
    /// The domain in ASCII, or empty.
    pub domain: Arc<str>,
}

/// How long to retry.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// The wait after the first try; it doubles with each.
    pub retry: Duration,
    /// When to give up.
    pub retry_for: Duration,
}

impl RetryPolicy {
    /// The wait after that many tries; `chance`, from 0 to 255, adds up to a quarter of jitter.
    pub fn wait(&self, tries: u32, chance: u8) -> u64 {
        let doubled = 1_u64
            .checked_shl(tries.saturating_sub(1).min(32))
            .unwrap_or(u64::MAX);
        let wait = self.retry.as_secs().saturating_mul(doubled);
        let wait = wait.clamp(1, LONGEST.as_secs().max(self.retry.as_secs()));
        wait + wait * u64::from(chance) / (4 * 256)
    }

    /// The longest wait of all.
    pub fn longest(&self) -> u64 {
        self.wait(u32::MAX, u8::MAX)
    }

    /// True if a message of that age is given up.
    pub const fn is_over(&self, created: u64, now: u64) -> bool {
        now.saturating_sub(created) >= self.retry_for.as_secs()
    }

    /// True if the delay notice is due.
    pub fn is_late(&self, created: u64, now: u64) -> bool {
        let half = self.retry_for.as_secs() / 2;
        now.saturating_sub(created) >= half.min(DELAY_NOTICE.as_secs())
    }
}

/// The mail of one hop.
#[derive(Debug, Default)]
struct Lane {
    /// Messages by the time of their next try.
    waiting: BTreeSet<(u64, Arc<str>)>,
    /// Current connections.
    running: usize,
    /// Consecutive failures, and the time of the next try.
    failures: u32,
    until: u64,
    /// Until then it is tried without TLS, because TLS failed.
    clear: u64,
    /// It refused a connection beside so many, and until then has no more.
    limit: (usize, u64),
    /// True while an ATRN connection has claimed it.
    claimed: bool,
}

/// The mail of all hops.
#[derive(Debug, Default)]
pub struct Schedule(HashMap<Hop, Lane>);

impl Schedule {
    /// Adds a message, due at `next`.
    pub fn add(&mut self, hop: &Hop, id: &Arc<str>, next: u64) {
        let lane = self.0.entry(hop.clone()).or_default();
        lane.waiting.insert((next, Arc::clone(id)));
    }

    /// Called when the clock was set back, with the seconds: keeps all waits as long as they were.
    pub fn set_back(&mut self, seconds: u64) {
        for lane in self.0.values_mut() {
            lane.until = lane.until.saturating_sub(seconds);
            lane.clear = lane.clear.saturating_sub(seconds);
            lane.limit.1 = lane.limit.1.saturating_sub(seconds);
            let waiting = std::mem::take(&mut lane.waiting).into_iter();
            let earlier = waiting.map(|(next, id)| (next.saturating_sub(seconds), id));
            lane.waiting.extend(earlier);
        }
    }

    /// Takes a message that is due now, for an existing connection.
    pub fn take(&mut self, hop: &Hop, now: u64) -> Option<Arc<str>> {
        let lane = self.0.get_mut(hop)?;
        if lane.until > now {
            return None;
        }
        let (next, _) = lane.waiting.first()?;
        if *next > now {
            return None;
        }
        lane.waiting.pop_first().map(|(_, id)| id)
    }

    /// A hop that needs another connection, which is counted from now on; `most` returns the maximum of a hop.
    pub fn start(&mut self, now: u64, most: impl Fn(&Hop) -> usize) -> Option<Hop> {
        let wanting = self.0.iter_mut().filter(|(hop, lane)| {
            let due = lane.waiting.first().is_some_and(|(next, _)| *next <= now);
            // A failing hop is tried by one connection only.
            let most = match lane.limit {
                _ if lane.failures > 0 => most(hop).min(1),
                (limit, until) if now < until => most(hop).min(limit),
                _ => most(hop),
            };
            due && lane.until <= now && lane.running < most && !lane.claimed
        });
        // Failing hops come last, so that they do not use up the threads.
        let (hop, lane) = wanting.min_by_key(|(_, lane)| lane.failures)?;
        lane.running += 1;
        Some(hop.clone())
    }

    /// Called when a connection has ended. A hop without mail and failures is forgotten.
    pub fn end(&mut self, hop: &Hop) {
        if let Some(lane) = self.0.get_mut(hop) {
            lane.running = lane.running.saturating_sub(1);
            self.tidy(hop);
        }
    }

    fn tidy(&mut self, hop: &Hop) {
        let idle = |lane: &&Lane| lane.running == 0 && !lane.claimed && lane.waiting.is_empty();
        if self.0.get(hop).filter(idle).is_some() {
            self.0.remove(hop);
        }
    }

    /// Claims hops for ATRN: no other connection starts for them. False if any of them is claimed already.
    pub fn claim(&mut self, hops: &[Hop]) -> bool {
        let claimed = |hop: &Hop| self.0.get(hop).is_some_and(|lane| lane.claimed);
        if hops.iter().any(claimed) {
            return false;
        }
        for hop in hops {
            self.0.entry(hop.clone()).or_default().claimed = true;
        }
        true
    }

    /// True if a thread has mail of one of these hops.
    pub fn is_running(&self, hops: &[Hop]) -> bool {
        let mut lanes = hops.iter().filter_map(|hop| self.0.get(hop));
        lanes.any(|lane| lane.running > 0)
    }

    /// Releases claimed hops.
    pub fn release(&mut self, hops: &[Hop]) {
        for hop in hops {
            if let Some(lane) = self.0.get_mut(hop) {
                lane.claimed = false;
            }
            self.tidy(hop);
        }
    }

    /// Takes the wanted messages of a hop, due or not, oldest first.
    pub fn withdraw(&mut self, hop: &Hop, wanted: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let Some(lane) = self.0.get_mut(hop) else {
            return Vec::new();
        };
        let (out, rest): (BTreeSet<_>, BTreeSet<_>) = std::mem::take(&mut lane.waiting)
            .into_iter()
            .partition(|(_, id)| wanted(id));
        lane.waiting = rest;
        // Ids are in the order in which messages came, whenever they are due.
        let mut ids = BTreeSet::new();
        ids.extend(out.into_iter().map(|(_, id)| (0, id)));
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// Called when a hop did not answer: all its mail waits. Returns the time of the next try, which is without TLS if
    /// `tls` failed; later ones are with it again.
    pub fn failed(
        &mut self,
        hop: &Hop,
        now: u64,
        policy: &RetryPolicy,
        chance: u8,
        tls: bool,
    ) -> u64 {
        let lane = self.0.entry(hop.clone()).or_default();
        // Connections that fail together are one failure.
        let first = lane.until <= now;
        if first {
            lane.failures = lane.failures.saturating_add(1);
            lane.until = now.saturating_add(policy.wait(lane.failures, chance));
        }
        if first || tls {
            lane.clear = u64::from(tls) * lane.until.saturating_add(LONGEST.as_secs());
        }
        lane.until
    }

    /// Called when a hop refused a connection beside `open` others.
    pub fn limit(&mut self, hop: &Hop, open: usize, until: u64) {
        if let Some(lane) = self.0.get_mut(hop) {
            lane.limit = (open, until);
        }
    }

    /// True if one of a hop's threads must end that has no connection.
    pub fn is_limited(&self, hop: &Hop, now: u64) -> bool {
        let lane = self.0.get(hop);
        lane.is_some_and(|lane| lane.running > lane.limit.0 && now < lane.limit.1)
    }

    /// Called when a hop has answered.
    pub fn answered(&mut self, hop: &Hop) {
        if let Some(lane) = self.0.get_mut(hop) {
            (lane.failures, lane.until) = (0, 0);
        }
    }

    /// Called when a hop refuses mail without TLS.
    pub fn encrypt(&mut self, hop: &Hop) {
        if let Some(lane) = self.0.get_mut(hop) {
            lane.clear = 0;
        }
    }

    /// True if a hop is tried without TLS.
    pub fn is_clear(&self, hop: &Hop, now: u64) -> bool {
        self.0.get(hop).is_some_and(|lane| now < lane.clear)
    }

    /// The messages of a hop.
    pub fn waiting(&self, hop: &Hop) -> Vec<Arc<str>> {
        let lane = self.0.get(hop);
        let ids = lane.into_iter().flat_map(|lane| lane.waiting.iter());
        ids.map(|(_, id)| Arc::clone(id)).collect()
    }

    /// The number of messages for a route, and the oldest id: ids begin with the time of their creation in seconds.
    pub fn length(&self, route: usize) -> (usize, Option<&str>) {
        let lanes = self.0.iter().filter(|(hop, _)| hop.route == route);
        let ids = lanes.flat_map(|(_, lane)| lane.waiting.iter().map(|(_, id)| id.as_ref()));
        ids.fold((0, None), |(count, oldest), id| {
            let oldest = oldest.map_or(id, |oldest: &str| oldest.min(id));
            (count + 1, Some(oldest))
        })
    }

    /// Removes a message of a hop; true if it was there.
    pub fn remove(&mut self, hop: &Hop, id: &str) -> bool {
        let Some(lane) = self.0.get_mut(hop) else {
            return false;
        };
        let before = lane.waiting.len();
        lane.waiting.retain(|(_, known)| known.as_ref() != id);
        lane.waiting.len() < before
    }

    /// Retries the hops that `wanted` selects at once, with all their mail. Returns the number of messages.
    pub fn retry_now(&mut self, wanted: impl Fn(&Hop, &str) -> bool) -> usize {
        let mut ids = HashSet::new();
        for (hop, lane) in &mut self.0 {
            let (hurried, rest): (BTreeSet<_>, BTreeSet<_>) = std::mem::take(&mut lane.waiting)
                .into_iter()
                .partition(|(_, id)| wanted(hop, id));
            lane.waiting = rest;
            if !hurried.is_empty() {
                lane.until = 0;
            }
            ids.extend(hurried.iter().map(|(_, id)| Arc::clone(id)));
            lane.waiting
                .extend(hurried.into_iter().map(|(_, id)| (0, id)));
        }
        ids.len()
    }

    /// The time when a new connection is needed next; `most` returns the maximum of a hop.
    pub fn next(&self, most: impl Fn(&Hop) -> usize) -> Option<u64> {
        let free = |(hop, lane): &(&Hop, &Lane)| lane.running < most(hop) && !lane.claimed;
        let lanes = self.0.iter().filter(free);
        let times = lanes.filter_map(|(_, lane)| {
            let (next, _) = lane.waiting.first()?;
            let full = lane.running >= lane.limit.0;
            let until = lane.until.max(lane.limit.1 * u64::from(full));
            (lane.failures == 0 || lane.running == 0).then(|| (*next).max(until))
        });
        times.min()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn hop(domain: &str) -> Hop {
        Hop {
            route: 0,
            domain: domain.into(),
        }
    }

    fn policy() -> RetryPolicy {
        RetryPolicy {
            retry: Duration::from_secs(300),
            retry_for: Duration::from_secs(5 * 86_400),
        }
    }

    #[test]
    fn waits_double_up_to_two_hours() {
        let wait = |tries, chance| policy().wait(tries, chance);
        assert_eq!(
            [1, 2, 3, 5, 6, 99].map(|n| wait(n, 0)),
            [300, 600, 1_200, 4_800, 7_200, 7_200]
        );
        assert_eq!(wait(u32::MAX, 0), 7_200);
        assert!((370..=375).contains(&wait(1, 255)));
        assert!(policy().is_over(10, 432_010) && !policy().is_over(10, 432_009));
        assert!(policy().is_late(10, 14_410) && !policy().is_late(10, 14_409));
        let brief = RetryPolicy {
            retry_for: Duration::from_secs(600),
            ..policy()
        };
        assert!(brief.is_late(10, 310) && !brief.is_late(10, 309));
    }

    #[test]
    fn lengths_are_those_of_a_route() {
        let mut all = Schedule::default();
        let other = Hop {
            route: 1,
            ..hop("")
        };
        for (hop, id, next) in [
            (&hop("a"), "20.M1", 5),
            (&hop("a"), "30.M1", 1),
            (&hop("b"), "10.M1", 9),
            (&other, "05.M1", 1),
        ] {
            all.add(hop, &id.into(), next);
        }
        assert_eq!(all.length(0), (3, Some("10.M1")));
        assert_eq!(all.length(1), (1, Some("05.M1")));
        assert_eq!(all.length(2), (0, None));
    }

    #[test]
    fn messages_by_their_time() {
        let mut all = Schedule::default();
        let (a, b) = (hop("a"), hop("b"));
        all.add(&a, &"late".into(), 20);
        all.add(&a, &"soon".into(), 10);
        assert_eq!((all.start(5, |_| 2), all.next(|_| 2)), (None, Some(10)));
        assert_eq!(all.start(10, |_| 2), Some(a.clone()));
        assert_eq!(all.take(&a, 10).as_deref(), Some("soon"));
        assert_eq!(all.take(&a, 10), None);
        assert_eq!(
            all.next(|_| 1),
            None,
            "the connection that runs looks itself"
        );
        assert_eq!(all.next(|_| 2), Some(20));
        assert_eq!(all.take(&a, 20).as_deref(), Some("late"));
        all.end(&a);
        assert!(all.0.is_empty());
        assert_eq!(all.take(&b, 99), None);
    }

    #[test]
    fn a_hop_in_trouble_is_tried_for_one_message() {
        let mut all = Schedule::default();
        let (a, b) = (hop("a"), hop("b"));
        for id in ["1", "2", "3"] {
            all.add(&a, &id.into(), 0);
        }
        assert_eq!(all.start(0, |_| 2), Some(a.clone()));
        let first = all.take(&a, 0).unwrap();
        assert_eq!(all.failed(&a, 0, &policy(), 0, true), 300);
        // The second connection of the same time fails, too.
        assert_eq!(all.failed(&a, 9, &policy(), 0, false), 300);
        all.add(&a, &first, 300);
        assert_eq!(all.take(&a, 299), None);
        all.end(&a);
        assert_eq!((all.start(299, |_| 2), all.next(|_| 2)), (None, Some(300)));
        // Others go on.
        all.add(&b, &"4".into(), 0);
        assert_eq!(all.start(0, |_| 2), Some(b.clone()));
        let only_a = |hop: &Hop| if hop.domain.as_ref() == "a" { 2 } else { 0 };
        assert_eq!(all.start(300, only_a), Some(a.clone()));
        // A handshake that failed once does not expose all later mail.
        assert!(all.is_clear(&a, 300) && !all.is_clear(&a, 300 + 7_200));
        let second = all.start(300, only_a);
        assert_eq!(second, None, "one connection until it answers");
        assert_eq!(all.failed(&a, 300, &policy(), 0, false), 900);
        all.answered(&a);
        assert!(all.take(&a, 301).is_some());
        assert_eq!(
            all.start(301, |hop| if *hop == a { 2 } else { 0 }),
            Some(a.clone())
        );
        all.add(&b, &"5".into(), 0);
        all.failed(&a, 301, &policy(), 0, false);
        all.end(&a);
        let first = all.start(999, |_| 9);
        assert_eq!(first, Some(b), "who is not in trouble comes first");
        assert_eq!(all.waiting(&a).len(), 2);
        assert!(all.remove(&a, "1") && !all.remove(&a, "1"));
        assert_eq!(all.waiting(&a).len(), 1);
    }

    #[test]
    fn a_hop_with_one_connection_gets_no_other() {
        let mut all = Schedule::default();
        let a = hop("a");
        for id in ["1", "2", "3"] {
            all.add(&a, &id.into(), 0);
        }
        assert!(all.start(0, |_| 2).is_some() && all.start(0, |_| 2).is_some());
        all.limit(&a, 1, 300);
        assert!(all.is_limited(&a, 0), "the one that was refused must end");
        all.end(&a);
        assert!(!all.is_limited(&a, 0) && all.take(&a, 0).is_some());
        assert_eq!((all.start(299, |_| 2), all.next(|_| 2)), (None, Some(300)));
        assert_eq!(all.start(300, |_| 2), Some(a.clone()));
        all.end(&a);
        all.end(&a);
        assert_eq!(
            all.start(1, |_| 2),
            Some(a),
            "it may have another first one"
        );
    }

    #[test]
    fn mail_to_retry_now_is_due_at_once() {
        let mut all = Schedule::default();
        let a = hop("a");
        all.add(&a, &"1".into(), 500);
        all.add(&a, &"2".into(), 500);
        all.failed(&a, 0, &policy(), 0, false);
        assert_eq!(all.retry_now(|_, id| id == "9"), 0);
        assert_eq!(all.retry_now(|_, id| id == "2"), 1);
        assert_eq!(all.take(&a, 0).as_deref(), Some("2"));
        assert_eq!(all.take(&a, 0), None);
    }

    #[test]
    fn a_clock_that_is_set_back_prolongs_no_wait() {
        let mut all = Schedule::default();
        let a = hop("a");
        for (id, next) in [("1", 1_000_300), ("2", 1_000_600), ("3", 5)] {
            all.add(&a, &id.into(), next);
        }
        all.failed(&a, 1_000_000, &policy(), 0, false);
        all.set_back(1_000_000);
        assert_eq!(all.next(|_| 1), Some(300));
        assert_eq!(all.start(299, |_| 1), None);
        assert_eq!(all.start(300, |_| 1), Some(a.clone()));
        assert_eq!(all.take(&a, 300).as_deref(), Some("3"));
        assert_eq!(all.take(&a, 300).as_deref(), Some("1"));
        assert_eq!(all.take(&a, 599), None);
        assert_eq!(all.take(&a, 600).as_deref(), Some("2"));
    }

    #[test]
    fn a_claimed_hop_is_left_alone() {
        let mut all = Schedule::default();
        let (a, b) = (hop("a"), hop("b"));
        for (id, next) in [("3", 0), ("1", 500), ("2", 9)] {
            all.add(&a, &id.into(), next);
        }
        assert!(all.claim(&[a.clone(), b.clone()]));
        assert!(!all.claim(std::slice::from_ref(&b)));
        assert_eq!((all.start(10, |_| 1), all.next(|_| 1)), (None, None));
        let out = all.withdraw(&a, |id| id != "2");
        assert_eq!(out, ["1", "3"].map(Arc::from));
        let both = [a.clone(), b];
        all.release(&both);
        assert!(!all.is_running(&both));
        assert_eq!(all.start(10, |_| 1), Some(a.clone()));
        assert!(all.is_running(&both));
        assert_eq!(all.take(&a, 10).as_deref(), Some("2"));
        all.end(&a);
        assert!(all.0.is_empty());
    }
}

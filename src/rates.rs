//! Counts recent events of each client in bounded memory: messages for `--max-rate`, failed logins for the limit on
//! guessing. Callers decide what counts and what happens past a limit, and provide the time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Maximum keys, in two generations of half as many.
const MAX_KEYS: usize = 32_768;
/// Events within this fraction of a span share an entry.
const PARTS: u32 = 16;

/// Counts by key in a sliding span of time.
#[derive(Debug)]
pub struct Rates<K> {
    span: Duration,
    limit: u32,
    /// Keys used since `turned`, and those of the time before. Forgetting drops the older map, so that no event has to
    /// walk all keys.
    current: HashMap<K, Events>,
    previous: HashMap<K, Events>,
    turned: Instant,
}

/// The events of one key, oldest first: about [`PARTS`] entries at most, whatever their number.
#[derive(Debug, Default)]
struct Events(Vec<Burst>);

/// Events at nearly the same time. They expire with the last one, so that no span ever exceeds its limit.
#[derive(Debug)]
struct Burst {
    began: Instant,
    last: Instant,
    count: u32,
}

impl Events {
    fn last(&self) -> Option<Instant> {
        self.0.last().map(|burst| burst.last)
    }

    /// The number of events in the span before `now`.
    fn count(&self, span: Duration, now: Instant) -> u32 {
        let recent = |burst: &&Burst| is_within(burst.last, span, now);
        let counts = self.0.iter().filter(recent).map(|burst| burst.count);
        counts.fold(0, u32::saturating_add)
    }

    fn add(&mut self, span: Duration, now: Instant) {
        self.0.retain(|burst| is_within(burst.last, span, now));
        match self.0.last_mut() {
            Some(burst) if is_within(burst.began, span / PARTS, now) => {
                burst.last = burst.last.max(now);
                burst.count = burst.count.saturating_add(1);
            }
            _ => {
                self.0.reserve_exact(1);
                self.0.push(Burst {
                    began: now,
                    last: now,
                    count: 1,
                });
            }
        }
    }
}

impl<K: Eq + Hash> Rates<K> {
    /// Allows `limit` events of one key in `span`.
    pub fn new(limit: u32, span: Duration, now: Instant) -> Self {
        Self {
            span,
            limit,
            current: HashMap::new(),
            previous: HashMap::new(),
            turned: now,
        }
    }

    /// True if a key has reached the limit in the span before `now`.
    pub fn is_used_up(&self, key: &K, now: Instant) -> bool {
        let events = self.events(key);
        events.is_some_and(|events| events.count(self.span, now) >= self.limit)
    }

    /// The same, but a key past the limit stays blocked for a span from its last event.
    pub fn is_blocked(&self, key: &K, now: Instant) -> bool {
        self.events(key).is_some_and(|events| {
            let last = events
                .last()
                .filter(|&last| is_within(last, self.span, now));
            last.is_some_and(|last| events.count(self.span, last) >= self.limit)
        })
    }

    /// Adds an event.
    pub fn add(&mut self, key: K, now: Instant) {
        if !is_within(self.turned, self.span, now) || self.current.len() >= MAX_KEYS / 2 {
            self.previous = std::mem::take(&mut self.current);
            self.turned = now;
        }
        let before = &mut self.previous;
        let events = self.current.entry(key);
        let events = match events {
            Entry::Occupied(events) => events.into_mut(),
            Entry::Vacant(vacant) => {
                let known = before.remove(vacant.key()).unwrap_or_default();
                vacant.insert(known)
            }
        };
        events.add(self.span, now);
    }

    /// Takes back an event that was just added.
    pub fn take_back(&mut self, key: &K) {
        let (current, previous) = (&mut self.current, &mut self.previous);
        let events = current.get_mut(key).or_else(|| previous.get_mut(key));
        if let Some(burst) = events.and_then(|events| events.0.last_mut()) {
            burst.count = burst.count.saturating_sub(1);
        }
    }

    fn events(&self, key: &K) -> Option<&Events> {
        self.current.get(key).or_else(|| self.previous.get(key))
    }
}

/// True if an event is within the span before `now`.
fn is_within(event: Instant, span: Duration, now: Instant) -> bool {
    now.saturating_duration_since(event) < span
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(600);

    /// No span, wherever it begins, exceeds the limit.
    #[test]
    fn a_span_slides() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut rates = Rates::new(3, SPAN, begin);
        for seconds in [100, 600, 650] {
            assert!(!rates.is_used_up(&"a", at(seconds)));
            rates.add("a", at(seconds));
        }
        assert!(rates.is_used_up(&"a", at(650)) && rates.is_used_up(&"a", at(699)));
        assert!(!rates.is_used_up(&"b", at(650)));
        assert!(!rates.is_used_up(&"a", at(700)));
        rates.add("a", at(700));
        assert!(rates.is_used_up(&"a", at(701)), "600, 650 and 700");
        assert!(!rates.is_used_up(&"a", at(1_300)));
    }

    /// Also if the older half of the keys was forgotten meanwhile.
    #[test]
    fn an_event_is_taken_back() {
        let begin = Instant::now();
        let mut rates = Rates::new(1, SPAN, begin);
        rates.add("a", begin + SPAN / 2);
        rates.add("b", begin + SPAN);
        assert!(rates.is_used_up(&"a", begin + SPAN));
        rates.take_back(&"a");
        assert!(!rates.is_used_up(&"a", begin + SPAN) && rates.is_used_up(&"b", begin + SPAN));
    }

    /// A key with many events needs little memory, and no event is forgotten early.
    #[test]
    fn bursts_are_kept_as_one() {
        let begin = Instant::now();
        let mut rates = Rates::new(10_000, SPAN, begin);
        for number in 0..10_000 {
            let now = begin + Duration::from_millis(number * 59);
            assert!(!rates.is_used_up(&(), now));
            rates.add((), now);
        }
        assert!(rates.is_used_up(&(), begin + Duration::from_secs(599)));
        assert!(!rates.is_used_up(&(), begin + Duration::from_secs(600) + SPAN / PARTS));
        assert!(rates.events(&()).is_some_and(|events| events.0.len() <= 17));
    }

    #[test]
    fn a_block_lasts_from_the_last_event() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut rates = Rates::new(2, SPAN, begin);
        rates.add(1, at(0));
        assert!(!rates.is_blocked(&1, at(1)));
        rates.add(1, at(500));
        assert!(rates.is_blocked(&1, at(500)) && rates.is_blocked(&1, at(1_099)));
        assert!(!rates.is_blocked(&1, at(1_100)));
        rates.add(1, at(1_100));
        assert!(!rates.is_blocked(&1, at(1_100)), "the first one of a span");
    }

    /// A million clients need no more memory, and the latest ones are still known.
    #[test]
    fn a_flood_of_keys_is_bounded() {
        let now = Instant::now();
        let mut rates = Rates::new(1, SPAN, now);
        for key in 0..1_000_000_u32 {
            rates.add(key, now);
            assert!(rates.current.len() + rates.previous.len() <= MAX_KEYS);
        }
        assert!((984_000..1_000_000).all(|key| rates.is_used_up(&key, now)));
    }

    /// A clock that stops or runs backwards does no harm.
    #[test]
    fn earlier_times_are_now() {
        let now = Instant::now() + SPAN;
        let mut rates = Rates::new(1, SPAN, now);
        rates.add(1, now);
        assert!(rates.is_used_up(&1, now - SPAN));
    }
}

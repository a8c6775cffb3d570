//! How often each client did something lately, in bounded memory: messages for `--max-rate`, wrong passwords for the
//! limit on guessing. What counts, and what is answered past a limit, is decided by the callers, who
//! bring the time, too.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Keys that are known at once, in two generations of half as many.
const MAX_KEYS: usize = 65_536;

/// Counts by key within a span of time that begins with the first event.
#[derive(Debug)]
pub struct Rates<K> {
    span: Duration,
    limit: u32,
    /// Keys that were touched since the last turn, and those of the turn before. Forgetting is dropping the
    /// older map: no event ever costs a walk through all keys.
    current: HashMap<K, Window>,
    previous: HashMap<K, Window>,
    turned: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    last: Instant,
    count: u32,
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

    /// Whether a key has used up what it may do, until its span is over.
    pub fn is_used_up(&self, key: &K, now: Instant) -> bool {
        self.window(key)
            .is_some_and(|window| self.is_open(window.began, now) && window.count >= self.limit)
    }

    /// The same for a block that lasts a span from the last event, however long ago the first one was.
    pub fn is_blocked(&self, key: &K, now: Instant) -> bool {
        self.window(key)
            .is_some_and(|window| self.is_open(window.last, now) && window.count >= self.limit)
    }

    /// Counts an event.
    pub fn count(&mut self, key: K, now: Instant) {
        if !self.is_open(self.turned, now) || self.current.len() >= MAX_KEYS / 2 {
            self.previous = std::mem::take(&mut self.current);
            self.turned = now;
        }
        let known = self.current.get(&key).or_else(|| self.previous.get(&key));
        let known = known.filter(|window| self.is_open(window.began, now));
        let window = Window {
            began: known.map_or(now, |window| window.began),
            last: now,
            count: known.map_or(1, |window| window.count.saturating_add(1)),
        };
        self.current.insert(key, window);
    }

    fn window(&self, key: &K) -> Option<&Window> {
        self.current.get(key).or_else(|| self.previous.get(key))
    }

    fn is_open(&self, began: Instant, now: Instant) -> bool {
        now.saturating_duration_since(began) < self.span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(600);

    #[test]
    fn a_span_begins_with_the_first_event() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut rates = Rates::new(3, SPAN, begin);
        for seconds in [100, 200, 300] {
            assert!(!rates.is_used_up(&"a", at(seconds)));
            rates.count("a", at(seconds));
        }
        assert!(rates.is_used_up(&"a", at(300)) && rates.is_used_up(&"a", at(699)));
        assert!(!rates.is_used_up(&"b", at(300)));
        assert!(!rates.is_used_up(&"a", at(700)));
        rates.count("a", at(700));
        assert!(
            !rates.is_used_up(&"a", at(700)),
            "a new span has a new count"
        );
    }

    #[test]
    fn a_block_lasts_from_the_last_event() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut rates = Rates::new(2, SPAN, begin);
        rates.count(1, at(0));
        assert!(!rates.is_blocked(&1, at(1)));
        rates.count(1, at(500));
        assert!(rates.is_blocked(&1, at(500)) && rates.is_blocked(&1, at(1_099)));
        assert!(!rates.is_blocked(&1, at(1_100)));
    }

    /// Not even a million clients take more memory, and the last ones are known all the same.
    #[test]
    fn a_flood_of_keys_is_bounded() {
        let now = Instant::now();
        let mut rates = Rates::new(1, SPAN, now);
        for key in 0..1_000_000_u32 {
            rates.count(key, now);
            assert!(rates.current.len() + rates.previous.len() <= MAX_KEYS);
        }
        assert!((970_000..1_000_000).all(|key| rates.is_used_up(&key, now)));
    }

    /// A clock that stands still or is asked out of order does no harm.
    #[test]
    fn earlier_times_are_now() {
        let now = Instant::now() + SPAN;
        let mut rates = Rates::new(1, SPAN, now);
        rates.count(1, now);
        assert!(rates.is_used_up(&1, now - SPAN));
    }
}

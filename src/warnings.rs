//! Warnings that would fill the log: any client can cause those about the disk and the aliases by asking for a
//! recipient, and accept can fail for ever. Each comes only once a minute.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;

/// How long a warning is not repeated.
const PAUSE: Duration = Duration::from_secs(60);
/// Maximum warnings that are remembered.
const MAX_KNOWN: usize = 4_096;

/// Hashes of the warnings since a time.
struct Recent {
    hasher: RandomState,
    since: Instant,
    known: Vec<u64>,
}

static RECENT: Mutex<Option<Recent>> = Mutex::new(None);

/// Logs a warning, unless it was logged within the last minute.
pub(crate) fn warn(line: &str) {
    if is_new(&mut lock(&RECENT), line, Instant::now()) {
        log::warn!("{line}");
    }
}

fn is_new(recent: &mut Option<Recent>, line: &str, now: Instant) -> bool {
    let recent = recent.get_or_insert_with(|| Recent {
        hasher: RandomState::new(),
        since: now,
        known: Vec::new(),
    });
    if now.saturating_duration_since(recent.since) >= PAUSE || recent.known.len() >= MAX_KNOWN {
        recent.known.clear();
        recent.since = now;
    }
    let hash = recent.hasher.hash_one(line);
    let new = !recent.known.contains(&hash);
    if new {
        recent.known.push(hash);
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_once_a_minute() {
        let (mut recent, begin) = (None, Instant::now());
        let mut new =
            |line: &str, seconds| is_new(&mut recent, line, begin + Duration::from_secs(seconds));
        assert!(new("a", 0) && new("b", 1) && !new("a", 59) && !new("b", 59));
        assert!(new("a", 60) && !new("a", 61) && new("b", 61));
        for number in 0..10_000 {
            assert!(new(&number.to_string(), 62));
        }
        assert!(recent.is_some_and(|recent| recent.known.len() <= MAX_KNOWN));
    }
}

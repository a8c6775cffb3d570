//! A bounded cache of answers: when it is full, expired entries are dropped, then all.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::message::{Answer, RecordType};
use crate::lock::lock;

/// Maximum names in the cache.
const CAPACITY: usize = 1_024;
/// Maximum records of a cached answer; a larger one is not cached.
const MAX_RECORDS: usize = 64;

/// Answers by name and kind, with their expiry.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<HashMap<(String, RecordType), (Answer, Instant)>>);

impl Cache {
    pub(super) fn get(&self, name: &str, kind: RecordType, now: Instant) -> Option<Answer> {
        let known = lock(&self.0);
        let (answer, until) = known.get(&(name.to_owned(), kind))?;
        (now < *until).then(|| answer.clone())
    }

    pub(super) fn put(&self, name: &str, kind: RecordType, answer: &Answer, now: Instant) {
        let ttl = ttl(answer);
        let small = match answer {
            Answer::Found(data, _) => data.len() <= MAX_RECORDS,
            _ => true,
        };
        let Some(until) = now.checked_add(ttl).filter(|_| small && !ttl.is_zero()) else {
            return;
        };
        let mut known = lock(&self.0);
        if known.len() >= CAPACITY {
            known.retain(|_, (_, until)| now < *until);
        }
        if known.len() >= CAPACITY {
            known.clear();
        }
        known.insert((name.to_owned(), kind), (answer.clone(), until));
    }
}

const fn ttl(answer: &Answer) -> Duration {
    match answer {
        Answer::Found(_, ttl)
        | Answer::Alias(_, ttl)
        | Answer::NoData(ttl)
        | Answer::NoName(ttl) => *ttl,
    }
}

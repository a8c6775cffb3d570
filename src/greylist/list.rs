//! Greylisting: the first mail of a client, reverse-path and recipient is deferred. If it is tried again after the
//! delay, the client is a server that retries, which most senders of spam do not do. This file has the decision and its
//! bounded memory; callers handle replies and the file.
//!
//! Each triple is known by a keyed hash of 64 bits and a time: 12 octets, and 4 more in the index. When a triple is
//! tried again in time, its place is taken by the client's network, whose mail then all passes. A network adds few
//! triples in a time, so that its flood does not push out those of others before they are tried again.

use std::net::IpAddr;
use std::time::Duration;

use ring::hmac;

/// Maximum entries; a position has 16 bits, and one value means a free slot.
const CAPACITY: usize = 65_535;
/// Slots of the index: at most half of them are used.
const SLOTS: usize = 131_072;
/// A slot without an entry.
const FREE: u16 = u16::MAX;
/// Seconds within which the second try must happen.
pub const RETRY_WITHIN: u32 = 4 * 60 * 60;
/// Seconds for which a client is known after its last mail.
const KNOWN: u32 = 36 * 24 * 60 * 60;
/// Times are kept as seconds after this one (2025-01-01), in 31 bits.
const EPOCH: u64 = 1_735_689_600;
/// Seconds for which the triples of networks are counted, the maximum in them, and the counts: networks share them.
const PERIOD: u32 = 10 * 60;
const MAX_NEW: u8 = 200;
const COUNTS: usize = 4_096;
/// The bit that marks a time as a client's, not a triple's.
const PASSED: u32 = 1 << 31;
/// Octets of the secret.
const KEY: usize = 32;
/// Octets of an entry in a file.
const RECORD: usize = 12;
/// The first octets of a file.
const MAGIC: &[u8; 16] = b"mailslot-grey-1\n";

/// The decision on a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Accept it.
    Pass,
    /// Defer it.
    Wait,
}

/// Clients and triples, and when each was seen.
pub struct Greylist {
    delay: u32,
    secret: [u8; KEY],
    hmac: hmac::Key,
    /// A ring in order of arrival; the oldest entry is overwritten. A hash of zero is an empty place.
    ring: Vec<RingEntry>,
    next: usize,
    /// Positions in the ring, by hash with linear probing.
    index: Vec<u16>,
    /// Triples that were added in a period, by network.
    added: Vec<u8>,
    period: u32,
}

#[derive(Clone, Copy, Default)]
struct RingEntry {
    /// The hash in two halves, so that an entry has 12 octets.
    high: u32,
    low: u32,
    time: u32,
}

impl RingEntry {
    const fn hash(self) -> u64 {
        (self.high as u64) << 32 | self.low as u64
    }
}

impl Greylist {
    /// An empty list. `secret` should be random, so that nobody can provoke collisions.
    pub fn new(delay: Duration, secret: [u8; KEY]) -> Self {
        Self {
            delay: u32::try_from(delay.as_secs()).unwrap_or(u32::MAX),
            secret,
            hmac: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            ring: Vec::new(),
            next: 0,
            index: vec![FREE; SLOTS],
            added: vec![0; COUNTS],
            period: 0,
        }
    }

    /// Decides on one recipient at `now`, in seconds since 1970.
    pub fn check(&mut self, client: IpAddr, from: &str, to: &str, now: u64) -> Decision {
        let now = u32::try_from(now.saturating_sub(EPOCH)).unwrap_or(PASSED) & !PASSED;
        let network = network(client);
        let known = self.hash(&[b"client", &network]);
        if let Some(at) = self.find(known)
            && self.age(at, now).is_none_or(|age| age < KNOWN)
        {
            self.refresh(at, known, now);
            return Decision::Pass;
        }
        let triple = self.hash(&[
            b"triple",
            &network,
            from.to_lowercase().as_bytes(),
            to.to_lowercase().as_bytes(),
        ]);
        let Some(at) = self.find(triple) else {
            if self.may_add(&network, now / PERIOD) {
                self.insert(triple, now);
            }
            return Decision::Wait;
        };
        match self.age(at, now) {
            // The clock was set back: counted from now, or the mail could wait for as long as the clock was wrong.
            None => {
                self.stamp(at, now);
                Decision::Wait
            }
            Some(age) if age < self.delay => Decision::Wait,
            Some(age) if age > RETRY_WITHIN => {
                self.remove(at);
                self.insert(triple, now);
                Decision::Wait
            }
            Some(_) => {
                self.remove(at);
                if let Some(old) = self.find(known) {
                    self.remove(old);
                }
                self.insert(known, now | PASSED);
                Decision::Pass
            }
        }
    }

    /// Counts one more triple of a network, of IPv6 of its /48, unless it has added too many.
    fn may_add(&mut self, network: &[u8], period: u32) -> bool {
        let site = self.hash(&[b"site", network.get(..6).unwrap_or(network)]);
        if self.period != period {
            self.period = period;
            self.added.fill(0);
        }
        let count = self.added.get_mut(home(site) % COUNTS);
        let count = count.filter(|count| **count < MAX_NEW);
        count.map(|count| *count += 1).is_some()
    }

    /// Serialises the list.
    pub fn save(&self) -> Vec<u8> {
        let mut octets = [MAGIC.as_slice(), &self.secret].concat();
        let (newer, older) = self.ring.split_at(self.next.min(self.ring.len()));
        for entry in older.iter().chain(newer).filter(|entry| entry.hash() != 0) {
            for part in [entry.high, entry.low, entry.time] {
                octets.extend(part.to_be_bytes());
            }
        }
        octets
    }

    /// Restores what [`Self::save`] made; `None` if it is damaged.
    pub fn load(delay: Duration, octets: &[u8]) -> Option<Self> {
        let (secret, records) = octets.strip_prefix(MAGIC)?.split_first_chunk::<KEY>()?;
        let (records, rest) = records.as_chunks::<RECORD>();
        if !rest.is_empty() || records.len() > CAPACITY {
            return None;
        }
        let mut list = Self::new(delay, *secret);
        for record in records {
            let [high, low, time] = words(*record);
            let entry = RingEntry { high, low, time };
            if entry.hash() == 0 || list.find(entry.hash()).is_some() {
                return None;
            }
            list.insert(entry.hash(), time);
        }
        Some(list)
    }

    /// A hash that is unpredictable without the secret; never zero.
    fn hash(&self, parts: &[&[u8]]) -> u64 {
        let mut context = hmac::Context::with_key(&self.hmac);
        for part in parts {
            // Length-prefixed, so that parts cannot run together.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let tag = context.sign();
        let first = tag.as_ref().first_chunk::<8>();
        first.map_or(1, |first| u64::from_be_bytes(*first)).max(1)
    }

    /// The seconds since an entry's time; `None` if the clock was set back.
    fn age(&self, at: u16, now: u32) -> Option<u32> {
        let time = self.entry(at).map_or(0, |entry| entry.time & !PASSED);
        now.checked_sub(time)
    }

    fn stamp(&mut self, at: u16, time: u32) {
        if let Some(entry) = self.ring.get_mut(usize::from(at)) {
            entry.time = time;
        }
    }

    fn entry(&self, at: u16) -> Option<&RingEntry> {
        self.ring.get(usize::from(at))
    }

    /// The position of a hash.
    fn find(&self, hash: u64) -> Option<u16> {
        let slot = self.slot(hash)?;
        self.index.get(slot).copied().filter(|&at| at != FREE)
    }

    /// The slot that holds a hash, or the free one where it would go.
    fn slot(&self, hash: u64) -> Option<usize> {
        let mut slot = home(hash);
        for _ in 0..SLOTS {
            match self.index.get(slot).copied()? {
                FREE => return Some(slot),
                at if self.entry(at)?.hash() == hash => return Some(slot),
                _ => slot = (slot + 1) % SLOTS,
            }
        }
        None
    }

    /// Replaces the oldest entry by a new one.
    fn insert(&mut self, hash: u64, time: u32) {
        let entry = RingEntry {
            high: (hash >> 32) as u32,
            low: (hash & u64::from(u32::MAX)) as u32,
            time,
        };
        let Ok(at) = u16::try_from(self.next) else {
            return;
        };
        if self.entry(at).is_some_and(|old| old.hash() != 0) {
            self.remove(at);
        }
        match self.ring.get_mut(self.next) {
            Some(place) => *place = entry,
            None => self.ring.push(entry),
        }
        self.next = (self.next + 1) % CAPACITY;
        if let Some(slot) = self.slot(hash)
            && let Some(slot) = self.index.get_mut(slot)
        {
            *slot = at;
        }
    }

    /// Removes an entry and closes the gap in its run of slots.
    fn remove(&mut self, at: u16) {
        let Some(mut gap) = self.entry(at).and_then(|entry| self.slot(entry.hash())) else {
            return;
        };
        if let Some(entry) = self.ring.get_mut(usize::from(at)) {
            *entry = RingEntry::default();
        }
        let mut slot = gap;
        loop {
            slot = (slot + 1) % SLOTS;
            let held = self.index.get(slot).copied().unwrap_or(FREE);
            let Some(entry) = self.entry(held).filter(|_| held != FREE) else {
                break;
            };
            // It can move into the gap unless its home slot is after it.
            let distance = |from: usize, to: usize| (to + SLOTS - from) % SLOTS;
            if distance(home(entry.hash()), slot) >= distance(gap, slot) {
                self.put(gap, held);
                gap = slot;
            }
        }
        self.put(gap, FREE);
    }

    fn put(&mut self, slot: usize, at: u16) {
        if let Some(slot) = self.index.get_mut(slot) {
            *slot = at;
        }
    }

    /// Updates a client's time. One in the older half of the ring moves to its newest place, so that a flood of triples
    /// does not push out regular clients.
    fn refresh(&mut self, at: u16, hash: u64, now: u32) {
        let age = (self.next + CAPACITY - usize::from(at)) % CAPACITY;
        if age > CAPACITY / 2 {
            self.remove(at);
            self.insert(hash, now | PASSED);
        } else {
            self.stamp(at, now | PASSED);
        }
    }
}

/// The /24 of an IPv4 address or the /64 of an IPv6 one: servers of one sender share it.
fn network(client: IpAddr) -> Vec<u8> {
    match client.to_canonical() {
        IpAddr::V4(address) => address.octets().iter().take(3).copied().collect(),
        IpAddr::V6(address) => address.octets().iter().take(8).copied().collect(),
    }
}

/// The slot where the search for a hash begins.
const fn home(hash: u64) -> usize {
    hash as usize % SLOTS
}

fn words(record: [u8; RECORD]) -> [u32; 3] {
    let mut words = [0; 3];
    for (word, octets) in words.iter_mut().zip(record.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*octets);
    }
    words
}

#[cfg(test)]
mod clocks;
#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const DELAY: Duration = Duration::from_secs(300);

    fn list() -> Greylist {
        Greylist::new(DELAY, [7; KEY])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_server_that_retries_passes() {
        let mut list = list();
        let mut check = |client: &str, to: &str, at| list.check(ip(client), "A@x", to, NOW + at);
        assert_eq!(check("192.0.2.1", "b@y", 0), Decision::Wait);
        assert_eq!(check("192.0.2.1", "b@y", 299), Decision::Wait);
        assert_eq!(
            check("192.0.2.1", "c@y", 299),
            Decision::Wait,
            "another recipient"
        );
        assert_eq!(
            check("192.0.3.1", "b@y", 300),
            Decision::Wait,
            "another network"
        );
        assert_eq!(
            check("192.0.2.9", "B@Y", 300),
            Decision::Pass,
            "of the same network"
        );
        assert_eq!(
            check("192.0.2.1", "new@y", 301),
            Decision::Pass,
            "known now"
        );
        let known = u64::from(KNOWN);
        assert_eq!(check("192.0.2.1", "new@y", 300 + known), Decision::Pass);
        assert_eq!(
            check("192.0.2.1", "new@y", 300 + 2 * known),
            Decision::Wait,
            "forgotten"
        );
    }

    /// A try after many hours counts as the first.
    #[test]
    fn the_second_try_must_come_in_time() {
        let mut list = list();
        let mut check = |at| list.check(ip("2001:db8::1"), "", "b@y", NOW + at);
        assert_eq!(check(0), Decision::Wait);
        assert_eq!(check(14_401), Decision::Wait);
        assert_eq!(check(14_402), Decision::Wait);
        assert_eq!(check(14_401 + 14_400), Decision::Pass);
    }

    #[test]
    fn networks() {
        assert_eq!(network(ip("192.0.2.77")), network(ip("::ffff:192.0.2.1")));
        assert_eq!(network(ip("2001:db8::1")), network(ip("2001:db8::ffff:1")));
        assert_ne!(network(ip("2001:db8::1")), network(ip("2001:db8:0:1::1")));
    }

    /// A spammer with a new reverse-path each time never passes, and memory stays bounded.
    #[test]
    fn a_flood_is_bounded_and_does_not_push_out_regulars() {
        let mut list = list();
        let regular = ip("198.51.100.1");
        assert_eq!(list.check(regular, "a@x", "b@y", NOW), Decision::Wait);
        assert_eq!(list.check(regular, "a@x", "b@y", NOW + 300), Decision::Pass);
        for number in 0..200_000_u32 {
            let from = format!("{number}@spam");
            let decision = list.check(ip("203.0.113.5"), &from, "b@y", NOW + 301);
            assert_eq!(decision, Decision::Wait);
            if number % 10_000 == 0 {
                let passed = list.check(regular, &from, "b@y", NOW + 302);
                assert_eq!(passed, Decision::Pass, "{number}");
            }
        }
        assert!(list.ring.len() <= CAPACITY && list.index.len() == SLOTS);
        let taken = list.index.iter().filter(|&&at| at != FREE).count();
        let live = list.ring.iter().filter(|entry| entry.hash() != 0).count();
        assert_eq!(taken, live);
        assert!(std::mem::size_of::<RingEntry>() * CAPACITY + 2 * SLOTS <= 1 << 20);
    }

    /// A client of its own network for each number.
    fn client(number: usize) -> IpAddr {
        let [.., a, b, c] = number.to_be_bytes();
        IpAddr::from([10 + a, b, c, 1])
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut list = list();
        for number in 0..CAPACITY + 100 {
            list.check(client(number), "a@x", "b@y", NOW);
        }
        let is_known = |number: usize| {
            let triple = list.hash(&[b"triple", &network(client(number)), b"a@x", b"b@y"]);
            list.find(triple).is_some()
        };
        assert!([100, 101, 5_000, CAPACITY + 99].into_iter().all(is_known));
        assert!(!is_known(99));
    }

    /// One network cannot make the list forget what others tried.
    #[test]
    fn a_flood_does_not_push_out_first_tries() {
        let mut list = list();
        let honest = ip("198.51.100.1");
        assert_eq!(list.check(honest, "a@x", "b@y", NOW), Decision::Wait);
        for number in 0..80_000_u64 {
            let from = format!("{number}@spam");
            for client in [
                "203.0.113.5",
                &format!("2001:db8:5:{:x}::1", number % 65_536),
            ] {
                let decision = list.check(ip(client), &from, "b@y", NOW + number / 1_000);
                assert_eq!(decision, Decision::Wait);
            }
        }
        assert_eq!(list.check(honest, "a@x", "b@y", NOW + 300), Decision::Pass);
        // Later the other network can be known, too.
        let later = NOW + u64::from(PERIOD);
        for (at, expected) in [(0, Decision::Wait), (300, Decision::Pass)] {
            assert_eq!(
                list.check(ip("203.0.113.9"), "new@x", "b@y", later + at),
                expected
            );
        }
    }

    #[test]
    fn a_file_keeps_it() {
        let mut list = list();
        for number in 0..CAPACITY + 10 {
            list.check(client(number), "a@x", "b@y", NOW);
        }
        let file = list.save();
        let mut again = Greylist::load(DELAY, &file).unwrap();
        for from in ["a@x", "else@x"] {
            let decision = again.check(client(65_544), from, "b@y", NOW + 300);
            assert_eq!(decision, Decision::Pass);
        }
        let again = Greylist::load(DELAY, &again.save()).unwrap();
        let left = again.ring.iter().filter(|entry| entry.hash() != 0);
        // The triple was replaced by the client, and the client took the oldest place.
        assert_eq!(left.count(), CAPACITY - 1);
        for damaged in [
            file.get(..file.len() - 1).unwrap().to_vec(),
            file.get(1..).unwrap().to_vec(),
            [file.as_slice(), file.get(file.len() - RECORD..).unwrap()].concat(),
            [MAGIC.as_slice(), &[0; KEY], &[0; RECORD]].concat(),
            Vec::new(),
        ] {
            assert!(Greylist::load(DELAY, &damaged).is_none());
        }
    }
}

//! Tests of a greylist whose clock is set back or forward, in a process or between two.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;

const NOW: u64 = 1_800_000_000;
const DELAY: Duration = Duration::from_secs(300);
const HOUR: u64 = 3_600;
const YEAR: u64 = 365 * 24 * HOUR;

fn list() -> Greylist {
    Greylist::new(DELAY, [7; KEY])
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The same list in another process.
fn restarted(list: &Greylist) -> Greylist {
    Greylist::load(DELAY, &list.save()).unwrap()
}

/// A clock that is set back, in a process or between two, lets nobody through and forgets nobody, and mail that came
/// while it was wrong waits no longer than other mail.
#[test]
fn a_clock_set_back() {
    for back in [1, 299, 9_000, YEAR] {
        for restart in [false, true] {
            let mut list = list();
            let client = ip("192.0.2.1");
            for (from, at) in [("known@x", NOW - 300), ("known@x", NOW)] {
                list.check(client, from, "b@y", at);
            }
            let other = ip("198.51.100.1");
            assert_eq!(list.check(other, "a@x", "b@y", NOW), Decision::Wait);
            if restart {
                list = restarted(&list);
            }
            let right = NOW - back;
            let mut check = |from, client, at| list.check(client, from, "b@y", right + at);
            assert_eq!(check("a@x", other, 0), Decision::Wait, "{back}");
            assert_eq!(check("a@x", other, 299), Decision::Wait, "{back}");
            assert_eq!(check("a@x", other, 300), Decision::Pass, "{back}");
            assert_eq!(check("new@x", other, 300), Decision::Pass, "{back}");
            assert_eq!(check("new@x", client, 0), Decision::Pass, "{back}");
        }
    }
    // Before the times that can be kept, as on a host without a clock of its own.
    let mut list = list();
    assert_eq!(list.check(ip("192.0.2.1"), "", "b@y", 0), Decision::Wait);
    assert_eq!(list.check(ip("192.0.2.1"), "", "b@y", NOW), Decision::Wait);
    assert_eq!(
        list.check(ip("192.0.2.1"), "", "b@y", NOW + 300),
        Decision::Pass
    );
}

/// A clock that is set forward costs another delay at most; one that comes back remembers the clients of before.
#[test]
fn a_clock_set_forward() {
    for forward in [5 * HOUR, YEAR, 100 * YEAR] {
        for restart in [false, true] {
            let mut list = list();
            let (known, other) = (ip("192.0.2.1"), ip("198.51.100.1"));
            for at in [NOW - 300, NOW] {
                list.check(known, "a@x", "b@y", at);
            }
            assert_eq!(list.check(other, "a@x", "b@y", NOW), Decision::Wait);
            if restart {
                list = restarted(&list);
            }
            let mut check = |client, at| list.check(client, "a@x", "b@y", at);
            assert_eq!(check(other, NOW + forward), Decision::Wait, "{forward}");
            let expected = match forward < u64::from(KNOWN) {
                true => Decision::Pass,
                false => Decision::Wait,
            };
            assert_eq!(check(known, NOW + forward), expected, "{forward}");
            // Set right again.
            assert_eq!(check(known, NOW + 1), Decision::Pass, "{forward}");
            assert_eq!(check(other, NOW + 1), Decision::Wait, "{forward}");
            assert_eq!(check(other, NOW + 301), Decision::Pass, "{forward}");
        }
    }
    // It stays as it was set: each has to wait once more.
    let mut list = list();
    for (at, expected) in [
        (0, Decision::Wait),
        (YEAR, Decision::Wait),
        (YEAR + 300, Decision::Pass),
    ] {
        assert_eq!(list.check(ip("::1"), "", "b@y", NOW + at), expected);
    }
}

/// A full list that is full of times to come, as after a clock that was wrong, works as an empty one does.
#[test]
fn full_of_times_to_come() {
    let mut list = list();
    let client = |number: usize| ip(&format!("10.{}.{}.1", number / 256, number % 256));
    for number in 0..=CAPACITY {
        list.check(client(number), "a@x", "b@y", NOW + YEAR);
    }
    let mut list = restarted(&list);
    for number in [0, 1, 5_000, CAPACITY] {
        let mut check = |at| list.check(client(number), "a@x", "b@y", NOW + at);
        assert_eq!(check(0), Decision::Wait, "{number}");
        assert_eq!(check(299), Decision::Wait, "{number}");
        assert_eq!(check(300), Decision::Pass, "{number}");
    }
    assert_eq!(list.ring.len(), CAPACITY);
}

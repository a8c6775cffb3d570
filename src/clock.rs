//! Wall-clock time: dates for trace headers (RFC 5322 §3.3, in local time) and unique stamps for messages. Durations
//! are not measured here: deadlines use the monotonic clock. A clock that is wrong, jumps, or is before 1970 causes odd
//! dates, but never an error or a duplicate stamp.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::path::{Component, Path};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::read;

const DAYS: &str = "Mon Tue Wed Thu Fri Sat Sun";
const MONTHS: &str = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec";
/// The directory of the zone files (tzfile(5)) that TZ names.
const ZONES: &str = "/usr/share/zoneinfo";
/// The zone without TZ.
const LOCAL: &str = "/etc/localtime";
/// The begin and end of daylight saving time if a POSIX rule has none, as in the C library.
const USUAL_RULE: &str = ",M3.2.0,M11.1.0";

/// Seconds since the host started, its sleep included; `None` if the system does not tell.
pub fn uptime() -> Option<u64> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
        now.ok()?.tv_sec().try_into().ok()
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    None
}

/// The present moment as an RFC 5322 §3.3 `date-time` in local time, such as `Tue, 24 Nov 2026 10:40:33 +0000`.
///
/// Each thread keeps the text for the rest of the second, so that a burst of messages formats it once.
///
/// The zone is read at the first call, which must be before a chroot.
pub fn rfc5322_now() -> String {
    thread_local! {
        static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let seconds = since_epoch().as_secs();
    LAST.with_borrow_mut(|(second, text)| {
        if *second != seconds || text.is_empty() {
            *second = seconds;
            *text = rfc5322_at(seconds);
        }
        text.clone()
    })
}

/// The same for another moment, in seconds since 1970.
pub fn rfc5322_at(seconds: u64) -> String {
    static ZONE: LazyLock<TimeZone> = LazyLock::new(local_zone);
    rfc5322(seconds, ZONE.clone())
}

/// A stamp of the form `SECONDS.MusecPpidQcount`: the part of a Maildir file name before the host, and the id told to
/// the client.
///
/// Within a process the count alone makes it unique. The count starts at a random number, so that two runs with the
/// same process id (1, in every container) differ even if the clock was set back.
pub fn unique() -> String {
    // 31 random bits, so that a 32-bit count does not wrap soon.
    static COUNT: LazyLock<AtomicUsize> = LazyLock::new(|| {
        let start = RandomState::new().hash_one(0) & 0x7fff_ffff;
        AtomicUsize::new(usize::try_from(start).unwrap_or(0))
    });
    // Nothing here forks, so one call is enough.
    static PID: LazyLock<u32> = LazyLock::new(std::process::id);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    stamp(since_epoch(), *PID, count)
}

/// Microseconds have six digits, so that the stamps of a second sort by time.
fn stamp(now: Duration, pid: u32, count: usize) -> String {
    let (seconds, micros) = (now.as_secs(), now.subsec_micros());
    let mut stamp = String::with_capacity(48);
    let _ = write!(stamp, "{seconds}.M{micros:06}P{pid}Q{count}");
    stamp
}

/// The present moment as `YYYYMMDDhhmmss` in UTC, for comparison with the times of a certificate.
pub fn utc_digits() -> String {
    let seconds = i64::try_from(since_epoch().as_secs()).ok();
    let now = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    let at = TimeZone::UTC.to_datetime(now.unwrap_or(Timestamp::MAX));
    let (year, month, day) = (at.year(), at.month(), at.day());
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}")
}

/// The present moment in seconds since 1970.
pub fn seconds() -> u64 {
    since_epoch().as_secs()
}

/// The time since 1970, in whole and parts of seconds; zero if the clock is before that.
fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// The zone of TZ, or else the system's; UTC if neither can be read, as in the C library.
fn local_zone() -> TimeZone {
    let found = match std::env::var("TZ") {
        Ok(name) => zone_named(&name, Path::new(ZONES)),
        Err(_) => zone_in(Path::new(LOCAL)),
    };
    found.unwrap_or(TimeZone::UTC)
}

/// The forms of tzset(3): a zone's name or the path of its file, after a colon or without, or a POSIX rule. Only if
/// the zones are elsewhere, the library searches for the name, which takes milliseconds.
fn zone_named(name: &str, zones: &Path) -> Option<TimeZone> {
    let name = name.strip_prefix(':').unwrap_or(name);
    let path = Path::new(name);
    if path.is_absolute() {
        return zone_in(path);
    }
    let mut parts = path.components();
    if name.is_empty() || !parts.all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    zone_in(&zones.join(path))
        .or_else(|| TimeZone::posix(name).ok())
        .or_else(|| TimeZone::posix(&[name, USUAL_RULE].concat()).ok())
        .or_else(|| TimeZone::get(name).ok())
}

fn zone_in(file: &Path) -> Option<TimeZone> {
    let octets = read::whole(file).ok()?;
    TimeZone::tzif("local", &octets).ok()
}

/// `seconds` after 1970 in the given zone. Past the year 9999 it is the last moment of the calendar.
fn rfc5322(seconds: u64, zone: TimeZone) -> String {
    let timestamp = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::MAX);
    // Formatted by hand: the library's formatter would add a lot to the binary.
    let offset = zone.to_offset(timestamp);
    let at = offset.to_datetime(timestamp);
    let (year, day) = (at.year(), at.day());
    let name = |names: &'static str, number: i8| {
        let mut names = names.split(' ');
        usize::try_from(number).ok().and_then(|n| names.nth(n))
    };
    let weekday = name(DAYS, at.weekday().to_monday_zero_offset()).unwrap_or_default();
    let month = name(MONTHS, at.month() - 1).unwrap_or_default();
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    let sign = if offset.is_negative() { '-' } else { '+' };
    let minutes = offset.seconds().unsigned_abs() / 60;
    let (hours, minutes) = (minutes / 60, minutes % 60);
    format!(
        "{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} {sign}{hours:02}{minutes:02}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// R050
    #[test]
    fn dates_have_the_form_of_rfc_5322() {
        assert_eq!(rfc5322(0, TimeZone::UTC), "Thu, 01 Jan 1970 00:00:00 +0000");
        let zone = TimeZone::fixed(jiff::tz::Offset::constant(-5));
        assert_eq!(
            rfc5322(4_102_444_800, zone),
            "Thu, 31 Dec 2099 19:00:00 -0500"
        );
        assert!(rfc5322(u64::MAX, TimeZone::UTC).contains("9999"));
        assert_eq!(rfc5322_now().len(), "Thu, 01 Jan 1970 00:00:00 +0000".len());
    }

    /// TZ names one file below the zones, and nothing else is read.
    #[test]
    fn zones_have_names() {
        let (zones, name) = (Path::new("/usr/share/zoneinfo"), "Asia/Kolkata");
        let found = zone_named(name, zones).map(|zone| rfc5322(0, zone));
        let expected = zones.join(name).exists();
        let expected = expected.then(|| "Thu, 01 Jan 1970 05:30:00 +0530".to_owned());
        assert_eq!(found, expected);
        for (rule, offset) in [
            ("IST-5:30", "+0530"),
            ("<-03>3", "-0300"),
            ("CET-1CEST,M3.5.0,M10.5.0/3", "+0100"),
            ("CET-1CEST", "+0100"),
            (":EST5:30EDT", "-0530"),
        ] {
            let nowhere = Path::new("/nonexistent");
            let date = zone_named(rule, nowhere).map(|zone| rfc5322(0, zone));
            assert!(date.is_some_and(|date| date.ends_with(offset)), "{rule}");
        }
        for wrong in [
            "",
            ":",
            "/dev/zero",
            "/etc/passwd",
            "../../../etc/localtime",
            "Asia/../UTC",
            "No/Such",
        ] {
            assert!(zone_named(wrong, zones).is_none(), "{wrong}");
        }
    }

    /// The queue sends messages of the same second in this order.
    #[test]
    fn stamps_sort_by_time() {
        let at = |micros| stamp(Duration::from_secs(7) + Duration::from_micros(micros), 1, 2);
        assert_eq!(at(9), "7.M000009P1Q2");
        let stamps = [0, 9, 10, 99_999, 100_000, 999_999].map(at);
        assert!(stamps.is_sorted(), "{stamps:?}");
    }

    /// R211, F28
    #[test]
    fn stamps_differ_between_threads_and_moments() {
        let threads: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(|| (0..1000).map(|_| unique()).collect::<Vec<_>>()))
            .collect();
        let all: Vec<String> = threads
            .into_iter()
            .flat_map(|t| t.join().unwrap_or_default())
            .collect();
        assert_eq!(all.len(), 4000);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 4000);
    }
}

//! Counters, and the page for Prometheus (OpenMetrics 1.0). Nothing is counted without a metrics listener. One lock
//! guards all counters, taken once a message and once a connection; 64-bit atomics do not exist on all hosts.
//!
//! Counters have HELP but no TYPE. OpenMetrics wants the type under a name without `_total`, which
//! `mailslot_connections` shares with a gauge, while `promtool check metrics` expects the whole name.

use std::fmt::{Display, Write as _};
use std::sync::Mutex;
use std::time::Duration;

use crate::lock::lock;

/// Upper ends of the buckets of commit times: in milliseconds, and in seconds in the canonical form of OpenMetrics.
#[rustfmt::skip]
const BUCKETS: [(u64, &str); 12] = [
    (1, "0.001"), (2, "0.002"), (5, "0.005"), (10, "0.01"), (25, "0.025"), (50, "0.05"), (100, "0.1"), (250, "0.25"),
    (500, "0.5"), (1_000, "1.0"), (2_500, "2.5"), (10_000, "10.0"),
];

/// The counters; `None` without a metrics listener.
#[derive(Debug, Default)]
pub struct Metrics(Option<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    connections: u64,
    recipients: u64,
    octets: u64,
    /// By service.
    messages: Vec<Tally>,
    /// By code.
    replies: Vec<(u16, u64)>,
    /// By mechanism and result.
    logins: Vec<Tally>,
    /// By version and result.
    handshakes: Vec<Tally>,
    /// By bucket; longer ones are in no bucket.
    commits: [u64; BUCKETS.len()],
    commit_count: u64,
    commit_time: Duration,
}

/// The count of a kind and result.
#[derive(Debug)]
struct Tally {
    kind: &'static str,
    result: &'static str,
    count: u64,
}

/// Adds one. There are few kinds, so a list is enough.
fn add(tallies: &mut Vec<Tally>, kind: &'static str, result: &'static str) {
    let same = |tally: &&mut Tally| (tally.kind, tally.result) == (kind, result);
    match tallies.iter_mut().find(same) {
        Some(tally) => tally.count += 1,
        None => tallies.push(Tally {
            kind,
            result,
            count: 1,
        }),
    }
}

/// The value of the label `result`.
const fn result(succeeded: bool) -> &'static str {
    if succeeded { "success" } else { "failure" }
}

/// Values of the moment of a scrape, from elsewhere.
#[derive(Debug, Default)]
pub struct Now {
    /// Current connections.
    pub connections: usize,
    /// The next hops with their mail.
    pub hops: Vec<Waiting>,
    /// Dropped log lines.
    pub dropped_lines: usize,
    /// The start of the server, in seconds since 1970.
    pub started: u64,
}

/// The queue of a next hop.
#[derive(Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The hop as configured.
    pub hop: String,
    /// How many messages.
    pub messages: usize,
    /// Age of the oldest in seconds; 0 if there is none.
    pub oldest: u64,
}

impl Metrics {
    /// Creates the counters, if there is a listener.
    pub fn new(read: bool) -> Self {
        Self(read.then(Mutex::default))
    }

    /// True if there is a listener.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        if let Some(counts) = &self.0 {
            change(&mut lock(counts));
        }
    }

    /// Counts a connection.
    pub fn connection(&self) {
        self.count(|counts| counts.connections += 1);
    }

    /// Counts a commit and its time; `recipients` is the number of recipients that got the message, 0 after a failure.
    pub fn message(&self, service: &'static str, recipients: usize, octets: u64, took: Duration) {
        self.count(|counts| {
            if recipients > 0 {
                add(&mut counts.messages, service, "");
                counts.recipients += recipients as u64;
                counts.octets = counts.octets.wrapping_add(octets);
            }
            let millis = took.as_micros().div_ceil(1_000);
            let mut buckets = BUCKETS.iter().zip(&mut counts.commits);
            if let Some((_, bucket)) = buckets.find(|((end, _), _)| millis <= u128::from(*end)) {
                *bucket += 1;
            }
            counts.commit_count += 1;
            counts.commit_time += took;
        });
    }

    /// Counts a 4xx or 5xx reply.
    pub fn refusal(&self, code: u16) {
        self.count(
            |counts| match counts.replies.iter_mut().find(|(known, _)| *known == code) {
                Some((_, count)) => *count += 1,
                None => counts.replies.push((code, 1)),
            },
        );
    }

    /// Counts a login.
    pub fn login(&self, mechanism: &'static str, succeeded: bool) {
        self.count(|counts| add(&mut counts.logins, mechanism, result(succeeded)));
    }

    /// Counts a TLS handshake.
    pub fn handshake(&self, version: &'static str, succeeded: bool) {
        self.count(|counts| add(&mut counts.handshakes, version, result(succeeded)));
    }

    /// The page.
    pub fn page(&self, now: &Now) -> String {
        let mut page = Page(String::with_capacity(8 * 1024));
        if let Some(counts) = &self.0 {
            page.counts(&lock(counts));
        }
        page.now(now);
        page.0.push_str("# EOF\n");
        page.0
    }
}

/// A page under construction.
struct Page(String);

impl Page {
    fn help(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP mailslot_{name} {help}");
    }

    fn gauge(&mut self, name: &str, help: &str) {
        self.help(name, help);
        let _ = writeln!(self.0, "# TYPE mailslot_{name} gauge");
    }

    /// A line; `labels` are names and values.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: &dyn Display) {
        let _ = write!(self.0, "mailslot_{name}");
        for (at, (label, value)) in labels.iter().enumerate() {
            let begin = if at == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{begin}{label}=\"{}\"", escaped(value));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }

    fn counts(&mut self, counts: &Counts) {
        for (name, help, value) in [
            (
                "connections_total",
                "Connections taken.",
                counts.connections,
            ),
            (
                "recipients_total",
                "Recipients of accepted messages.",
                counts.recipients,
            ),
            (
                "received_bytes_total",
                "Octets of accepted messages.",
                counts.octets,
            ),
        ] {
            self.help(name, help);
            self.sample(name, &[], &value);
        }
        self.help("replies_total", "Replies with a code from 400 on.");
        for (code, value) in &counts.replies {
            self.sample("replies_total", &[("code", &code.to_string())], value);
        }
        self.tallies(counts);
        self.commits(counts);
    }

    fn tallies(&mut self, counts: &Counts) {
        for (name, help, label, all) in [
            (
                "messages_total",
                "Accepted messages.",
                "service",
                &counts.messages,
            ),
            ("logins_total", "Logins.", "mechanism", &counts.logins),
            (
                "tls_handshakes_total",
                "TLS handshakes.",
                "version",
                &counts.handshakes,
            ),
        ] {
            self.help(name, help);
            for tally in all {
                let kind = (label, tally.kind);
                match tally.result {
                    "" => self.sample(name, &[kind], &tally.count),
                    result => self.sample(name, &[kind, ("result", result)], &tally.count),
                }
            }
        }
    }

    fn commits(&mut self, counts: &Counts) {
        self.help(
            "commit_seconds",
            "Seconds in which messages were made durable.",
        );
        self.0
            .push_str("# TYPE mailslot_commit_seconds histogram\n");
        let mut sum = 0;
        for ((_, end), count) in BUCKETS.iter().zip(&counts.commits) {
            sum += count;
            self.sample("commit_seconds_bucket", &[("le", end)], &sum);
        }
        self.sample(
            "commit_seconds_bucket",
            &[("le", "+Inf")],
            &counts.commit_count,
        );
        self.sample("commit_seconds_count", &[], &counts.commit_count);
        let time = counts.commit_time;
        let time = format!("{}.{:06}", time.as_secs(), time.subsec_micros());
        self.sample("commit_seconds_sum", &[], &time);
    }

    fn now(&mut self, now: &Now) {
        self.gauge("connections", "Connections now.");
        self.sample("connections", &[], &now.connections);
        let hops = &now.hops;
        for (name, help, value) in [
            (
                "queue_messages",
                "Messages that wait for a next hop.",
                (|waiting| waiting.messages as u64) as fn(&Waiting) -> u64,
            ),
            ("queue_oldest_seconds", "Age of the oldest of them.", |w| {
                w.oldest
            }),
        ] {
            if !hops.is_empty() {
                self.gauge(name, help);
            }
            for waiting in hops {
                self.sample(name, &[("hop", &waiting.hop)], &value(waiting));
            }
        }
        let dropped = "log_lines_dropped_total";
        self.help(dropped, "Log lines that were dropped.");
        self.sample(dropped, &[], &now.dropped_lines);
        self.gauge("start_time_seconds", "Start of the server, since 1970.");
        self.sample("start_time_seconds", &[], &now.started);
    }
}

/// The value of a label.
fn escaped(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    escaped.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_counted_is_on_the_page() {
        let metrics = Metrics::new(true);
        metrics.connection();
        for (service, recipients, octets, millis) in [
            ("smtp", 3, 5_000_000_000, 0),
            ("lmtp", 1, 1, 1),
            ("smtp", 0, 7, 3),
            ("smtp", 0, 7, 11_000),
        ] {
            let took = Duration::from_millis(millis);
            metrics.message(service, recipients, octets, took);
        }
        metrics.refusal(550);
        metrics.refusal(550);
        metrics.login("PLAIN", false);
        metrics.handshake("1.3", true);
        let page = metrics.page(&Now {
            connections: 7,
            hops: vec![Waiting {
                hop: "smtp://\"\\".to_owned(),
                messages: 2,
                oldest: 60,
            }],
            dropped_lines: 4,
            started: 1_700_000_000,
        });
        for line in [
            "mailslot_connections_total 1",
            "mailslot_messages_total{service=\"lmtp\"} 1",
            "mailslot_messages_total{service=\"smtp\"} 1",
            "mailslot_recipients_total 4",
            "mailslot_received_bytes_total 5000000001",
            "mailslot_replies_total{code=\"550\"} 2",
            "mailslot_logins_total{mechanism=\"PLAIN\",result=\"failure\"} 1",
            "mailslot_tls_handshakes_total{version=\"1.3\",result=\"success\"} 1",
            "mailslot_commit_seconds_bucket{le=\"0.001\"} 2",
            "mailslot_commit_seconds_bucket{le=\"0.002\"} 2",
            "mailslot_commit_seconds_bucket{le=\"0.005\"} 3",
            "mailslot_commit_seconds_bucket{le=\"0.01\"} 3",
            "mailslot_commit_seconds_bucket{le=\"0.25\"} 3",
            "mailslot_commit_seconds_bucket{le=\"1.0\"} 3",
            "mailslot_commit_seconds_bucket{le=\"10.0\"} 3",
            "mailslot_commit_seconds_bucket{le=\"+Inf\"} 4",
            "mailslot_commit_seconds_count 4",
            "mailslot_commit_seconds_sum 11.004000",
            "mailslot_connections 7",
            "mailslot_queue_messages{hop=\"smtp://\\\"\\\\\"} 2",
            "mailslot_queue_oldest_seconds{hop=\"smtp://\\\"\\\\\"} 60",
            "mailslot_log_lines_dropped_total 4",
            "mailslot_start_time_seconds 1700000000",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}: {page}");
        }
        assert!(page.ends_with("\n# EOF\n"));
    }

    #[test]
    fn without_a_reader_nothing_is_counted() {
        let metrics = Metrics::new(false);
        metrics.connection();
        assert!(!metrics.page(&Now::default()).contains("connections_total"));
    }
}

//! One delivery at a time: each call of it fails once, each sync is left out once.

use nix::errno::Errno;

use super::checker::{check, verdicts};
use super::disks;
use super::history::{History, Node};
use super::recorder::{Fails, Mutation};
use super::scenario::Scenario;

/// Changes that may be lost at a point where all disks are tried.
const MOST: usize = 9;

fn scenarios() -> Vec<Scenario> {
    let one = |name| Scenario::new(name, &[&["a"]]);
    let three = |name| Scenario::new(name, &[&["a"], &["b"], &["c"]]);
    let lists = |name| Scenario::new(name, &[&["a", "b"], &["b", "c"], &["a", "b"]]);
    let lmtp = true;
    let no_links = Some(Errno::EPERM);
    let elsewhere = Some("b");
    #[rustfmt::skip]
    let all = vec![
        one("one recipient"),
        Scenario { messages: 3, ..one("three messages") },
        Scenario { made_by_others: true, ..one("a Maildir that was made just now") },
        Scenario { made_by_others: true, junk: true, ..one("spam, and its folder was made just now") },
        Scenario { made_by_others: true, junk: true, named: true, ..one("a folder that was made just now") },
        Scenario { quota: true, ..one("a quota") },
        three("three recipients"),
        Scenario { lmtp, ..three("LMTP") },
        Scenario { quota: true, lmtp, ..three("LMTP and quotas") },
        Scenario { no_links, ..three("no links") },
        Scenario { no_links, lmtp, ..three("LMTP and no links") },
        Scenario { elsewhere, ..three("two devices") },
        Scenario { elsewhere, lmtp, ..three("LMTP to two devices") },
        lists("lists"),
        Scenario { quota: true, ..lists("lists and quotas") },
        Scenario { lmtp, ..lists("LMTP to lists") },
        Scenario { no_links, lmtp, ..lists("LMTP to lists without links") },
    ];
    all
}

fn promised(scenario: &Scenario) -> usize {
    let mailboxes: usize = scenario.recipients.iter().map(Vec::len).sum();
    mailboxes * scenario.messages
}

#[test]
fn what_was_accepted_survives() {
    for scenario in scenarios() {
        let (history, _) = scenario.run(Mutation::None, Fails::default());
        assert_eq!(history.promises(), promised(&scenario), "{}", scenario.name);
        check(&history).unwrap_or_else(|what| panic!("{}: {what}", scenario.name));
    }
}

/// A failure is refused and loses nothing, also if every later call fails as well.
#[test]
fn what_was_accepted_survives_failures() {
    for scenario in scenarios() {
        let (_, calls) = scenario.run(Mutation::None, Fails::default());
        for call in 1..=calls {
            for calls in [vec![call], (call..=calls + 100).collect()] {
                let fails = Fails {
                    calls,
                    ..Fails::default()
                };
                let (history, _) = scenario.run(Mutation::None, fails.clone());
                let found = check(&history);
                let name = scenario.name;
                assert!(found.is_ok(), "{name}, {fails:?} fail: {found:?}");
            }
        }
    }
}

/// True if a node's syncs do not matter: a file from which others are copied, which no mailbox keeps.
fn is_copied_only(history: &History, node: Node) -> bool {
    !history.is_named(node)
}

/// For every node that is synced: leaves its syncs out, delays them past the promise, or retries them after a failure.
#[test]
fn a_sync_that_is_missing_late_or_retried_is_found() {
    for scenario in scenarios() {
        let (history, _) = scenario.run(Mutation::None, Fails::default());
        let synced = history.synced();
        assert!(synced.len() >= 5, "parents, Maildir, new/ and file");
        for node in synced {
            for mutation in [
                Mutation::Unsynced(node),
                Mutation::Late(node),
                Mutation::Retried(node),
            ] {
                let (mutated, _) = scenario.run(mutation, Fails::default());
                assert_eq!(mutated.promises(), history.promises());
                let needless = is_copied_only(&history, node);
                let name = scenario.name;
                assert_eq!(check(&mutated).is_ok(), needless, "{name}: {mutation:?}");
            }
        }
    }
}

/// The way of O_TMPFILE: synced while it has no name, and named then. The name is durable, the file's link count is
/// not.
#[test]
fn unnamed_files_are_found() {
    let (history, _) = Scenario::new("one", &[&["a"]]).run(Mutation::Unnamed, Fails::default());
    let found = check(&history).unwrap_err();
    assert!(found.contains("accepted and lost"), "{found}");
}

/// On every disk that a short history may leave.
#[test]
fn the_checker_agrees_with_all_disks() {
    let one = Scenario::new("one", &[&["a"]]);
    let two = Scenario::new("two", &[&["a"], &["b"]]);
    let mut tried = 0;
    for scenario in [one, two] {
        let (history, _) = scenario.run(Mutation::None, Fails::default());
        let mut mutations = vec![Mutation::None, Mutation::Unnamed];
        for node in history.synced() {
            mutations.extend([Mutation::Unsynced(node), Mutation::Late(node)]);
            mutations.push(Mutation::Retried(node));
        }
        for mutation in mutations {
            tried += compare(&scenario.run(mutation, Fails::default()).0);
        }
    }
    assert!(tried > 10_000, "{tried} disks");
}

/// Compares at each point where all disks can be tried, and gives how many there were.
fn compare(history: &History) -> usize {
    let durable_at = history.durable_at();
    let contents = history.contents();
    let mut tried = 0;
    for (cut, found) in verdicts(history).into_iter().enumerate() {
        let owed = history.owed(cut);
        let mut kept = true;
        let all = disks::each(history, &durable_at, cut, MOST, &mut |disk| {
            tried += 1;
            kept &= disk.keeps(&owed, &contents);
        });
        assert!(!all || found.is_ok() == kept, "at {cut}: {found:?}");
    }
    tried
}

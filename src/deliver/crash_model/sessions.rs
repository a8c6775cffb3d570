//! Sessions that run at the same time, in orders that are chosen.

use super::super::faults::Scratch;
use super::super::store::Store;
use super::super::target::Sync;
use super::checker::check;
use super::history::History;
use super::recorder::{Fails, Mutation, Recorder};
use super::scenario::Scenario;
use super::turns::{self, Order, random, seeded, switching};

/// Random orders that are tried; the environment's CRASH_SEEDS can ask for more.
const SEEDS: u64 = 200;

/// The sessions that learn of a failed sync.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FailureScope {
    /// All sessions that may have lost something by it.
    Shared,
    /// Only the session that asked for the sync.
    Own,
}

/// A run of several sessions.
struct Run {
    history: History,
    /// Points where another session could go on.
    steps: usize,
    /// Syncs that were asked for.
    syncs: usize,
}

/// Runs the sessions; where `warm`, after a message by which their Maildirs are open already.
fn run(sessions: &[Scenario], warm: bool, syncs: FailureScope, order: Order, fails: Fails) -> Run {
    let scratch = Scratch::new();
    let recorder = Recorder::new(&scratch.0, Mutation::None, None, None);
    let own = |_: &Scenario| Store::with_disk("mx", Sync::Full, 100, Box::new(recorder.clone()));
    let stores: Vec<Store> = match syncs {
        FailureScope::Shared => sessions.iter().take(1).map(own).collect(),
        FailureScope::Own => sessions.iter().map(own).collect(),
    };
    for store in stores.iter().filter(|_| warm) {
        let sessions = sessions.iter();
        sessions.for_each(|session| session.deliver(&scratch, &recorder, store));
    }
    recorder.start(fails);
    let jobs = sessions.iter().enumerate().map(|(number, session)| {
        let store = &stores[number % stores.len()];
        let (scratch, recorder) = (&scratch, &recorder);
        let job = move || session.deliver(scratch, recorder, store);
        Box::new(job) as Box<dyn FnOnce() + Send>
    });
    let steps = turns::run(order, jobs.collect());
    Run {
        history: recorder.history(),
        steps,
        syncs: recorder.counts().1,
    }
}

fn session(recipients: &[&[&'static str]]) -> Scenario {
    Scenario {
        octets: 10,
        ..Scenario::new("", recipients)
    }
}

/// Tries every order of two sessions with a limited number of switches, with each of these syncs failing.
fn all_orders(
    sessions: &[Scenario],
    switches: usize,
    failing: fn(usize) -> Vec<Vec<usize>>,
    syncs: FailureScope,
) -> impl Iterator<Item = Result<(), String>> {
    let run = move |at: &[usize], syncs_that_fail: &[usize]| {
        let fails = Fails {
            syncs: syncs_that_fail.to_vec(),
            ..Fails::default()
        };
        run(sessions, true, syncs, switching(at.to_vec()), fails)
    };
    let alone = run(&[], &[]);
    let orders = (1..=alone.steps).flat_map(move |first| {
        let last = if switches > 1 { alone.steps } else { first };
        (first..=last).map(move |second| [first, second])
    });
    orders.flat_map(move |order| {
        let failing = failing(alone.syncs).into_iter();
        failing.map(move |numbers| {
            let found = check(&run(&order, &numbers).history);
            found.map_err(|what| format!("switches {order:?}, syncs {numbers:?} fail: {what}"))
        })
    })
}

/// Asserts that no run breaks a promise, and returns the number of runs.
fn all_keep(runs: impl Iterator<Item = Result<(), String>>) -> usize {
    runs.map(|run| run.unwrap_or_else(|what| panic!("{what}")))
        .count()
}

/// No sync, or one of them.
fn one_at_most(syncs: usize) -> Vec<Vec<usize>> {
    (0..=syncs).map(|number| vec![number]).collect()
}

/// Each two of the syncs, and one more that a failure may bring.
fn each_two(syncs: usize) -> Vec<Vec<usize>> {
    let pairs = |first| (first + 1..=syncs + 1).map(move |second| vec![first, second]);
    (1..=syncs).flat_map(pairs).collect()
}

/// Tries random orders of three sessions, of which some calls fail.
fn random_orders(syncs: FailureScope) -> impl Iterator<Item = Result<(), String>> {
    let lmtp = true;
    let both = session(&[&["a", "b"], &["b"]]);
    let sessions = [
        session(&[&["a"]]),
        session(&[&["b"], &["a"]]),
        Scenario { lmtp, ..both },
    ];
    let wanted = std::env::var("CRASH_SEEDS").ok();
    let seeds = wanted.and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    (1..=seeds).map(move |seed| {
        let mut state = seed;
        let mut call = |_| usize::try_from(random(&mut state) % 40).unwrap();
        let fails = Fails {
            calls: (0..seed % 4).map(&mut call).collect(),
            syncs: (0..seed % 3).map(&mut call).map(|call| call % 8).collect(),
        };
        let what = format!("seed {seed}, {fails:?}");
        let run = run(&sessions, seed % 2 == 0, syncs, seeded(seed), fails);
        check(&run.history).map_err(|found| format!("{what}: {found}"))
    })
}

#[test]
fn every_order_of_two_sessions_keeps_the_promise() {
    let one = session(&[&["a"]]);
    let sessions = [one.clone(), one];
    let orders = all_orders(&sessions, 2, one_at_most, FailureScope::Shared);
    assert!(all_keep(orders) > 300);
}

/// F64: while one session's sync takes long, a session to another mailbox finishes.
#[test]
fn a_slow_sync_holds_up_its_own_session_only() {
    let sessions = [session(&[&["a"]]), session(&[&["b"]])];
    let run = |at: Vec<usize>| {
        let order = switching(at);
        run(
            &sessions,
            true,
            FailureScope::Shared,
            order,
            Fails::default(),
        )
    };
    let alone = run(Vec::new());
    let overtakes = (1..=alone.steps).filter(|at| {
        let history = run(vec![*at]).history;
        assert!(check(&history).is_ok());
        history.overtaken("b", "a")
    });
    // The sync of the file, and that of the directory.
    assert_eq!(overtakes.count(), 2);
}

/// A session whose second mailbox fails takes its name out of the first again: the sync of that may fail, too, and
/// others have names there.
#[test]
fn what_is_taken_back_costs_nobody_else() {
    let sessions = [session(&[&["a"], &["b"]]), session(&[&["a"]])];
    let orders = all_orders(&sessions, 1, each_two, FailureScope::Shared);
    assert!(all_keep(orders) > 200);
}

#[test]
fn random_orders_of_three_sessions_keep_the_promise() {
    assert!(all_keep(random_orders(FailureScope::Shared)) > 50);
}

/// The second session gets a name while the first one's sync is under way, which fails. The second one's own sync, a
/// moment later, succeeds.
#[test]
fn a_failure_that_others_are_not_told_of_is_found() {
    let one = session(&[&["a"]]);
    let sessions = [one.clone(), one];
    let mut orders = all_orders(&sessions, 2, one_at_most, FailureScope::Own);
    assert!(orders.any(|run| run.is_err()));
    assert!(random_orders(FailureScope::Own).any(|run| run.is_err()));
}

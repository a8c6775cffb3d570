//! The queue: a message for a local mailbox and two recipients elsewhere, who are settled one after the other.

use std::sync::Arc;

use nix::errno::Errno;

use super::super::faults::{Scratch, target, trace};
use super::super::store::Store;
use super::super::syncs::Syncs;
use super::super::target::{Form, Group, Sync, Target};
use super::checker::check;
use super::disks;
use super::history::{Event, History};
use super::recorder::{Fails, Mutation, Recorder};
use super::scenario::END;
use super::turns::{self, switching};
use crate::queue::{Envelope, Queue, QueuedRecipient};

/// Changes that may be lost at a point where a start is tried over all disks.
const MOST: usize = 7;

/// The recipients elsewhere, in the order in which they are settled.
const ELSEWHERE: [&str; 2] = ["one@there.example", "two@there.example"];

fn path(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}

/// The promise for a queued message.
struct Queued {
    id: String,
    content: Vec<String>,
    envelope: Vec<String>,
}

fn envelope() -> Envelope {
    let recipient = |address: &&str| QueuedRecipient {
        address: (*address).to_owned(),
        ..QueuedRecipient::default()
    };
    Envelope {
        created: 7,
        recipients: ELSEWHERE.iter().map(recipient).collect(),
        ..Envelope::default()
    }
}

/// Takes a message for the queue, and for a mailbox where there is one, as a connection does.
fn receive(
    (local, bare): (Option<&Target>, bool),
    disk: &Recorder,
    store: &Store,
    queue: &Queue,
) -> Option<Queued> {
    let onward = Target {
        root: queue.dir().into(),
        maildir: queue.dir().to_owned(),
        may_create: false,
        folder: None,
        address: ELSEWHERE[0].to_owned(),
        original: None,
        quota: None,
        owner: None,
    };
    let group = |target: Target| Group::One(Arc::new(target));
    let groups = local.cloned().into_iter().chain([onward]);
    let groups: Vec<Group> = groups.map(group).collect();
    let mut spool = store.begin(&trace(), groups, Form::Text, None);
    if bare {
        // A line end that stood alone: the mailbox gets a copy of its own.
        spool.keep_line_ends();
    }
    spool.write(END.as_bytes());
    let id = spool.id().to_owned();
    let octets = spool.expect_envelope();
    let draft = queue.draft(&id, envelope(), octets.clone()).ok()?;
    let delivered = spool.commit().ok()?;
    let name = delivered.name();
    let stored = std::fs::read(queue.dir().join("new").join(name));
    assert_eq!(*octets.unwrap(), *stored.unwrap());
    let content = path(&["queue", "new", name]);
    let envelope = path(&["queue", "new", &id]);
    let mut promised = vec![(content.clone(), END)];
    if let Some(local) = local {
        // Its copy may have another size, and so another name.
        let names = std::fs::read_dir(local.maildir.join("new")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let own = names
            .into_iter()
            .find(|name| name.starts_with(&id))
            .unwrap();
        promised.push((path(&["example.org", "a", "new", &own]), END));
    }
    promised.extend(ELSEWHERE.map(|address| (envelope.clone(), address)));
    disk.promise(promised);
    draft.keep(name);
    Some(Queued {
        id,
        content,
        envelope,
    })
}

/// Settles one recipient after the other.
fn settle(disk: &Recorder, queue: &Queue, queued: &Queued) {
    for (index, address) in ELSEWHERE.iter().enumerate() {
        disk.release(queued.envelope.clone(), address);
        if index + 1 == ELSEWHERE.len() {
            disk.release(queued.content.clone(), END);
        }
        let _ = queue.change(&queued.id, &envelope(), &mut |envelope| {
            envelope.recipients.retain(|to| to.address != *address);
        });
    }
}

fn run(mutation: Mutation, fails: Fails) -> (History, usize) {
    run_as(false, mutation, fails)
}

fn run_as(bare: bool, mutation: Mutation, fails: Fails) -> (History, usize) {
    let scratch = Scratch::new();
    let disk = Recorder::new(&scratch.0, mutation, None, None);
    disk.start(fails);
    let store = Store::with_disk("mx", Sync::Full, 100, Box::new(disk.clone()));
    let dir = scratch.0.join("queue");
    if let Ok(queue) = Queue::with_disk(&dir, store.syncs(), Box::new(disk.clone()))
        && let Some(queued) = receive((Some(&target(&scratch, "a")), bare), &disk, &store, &queue)
    {
        settle(&disk, &queue, &queued);
    }
    (disk.history(), disk.counts().0)
}

#[test]
fn a_queued_message_survives_until_it_is_settled() {
    for bare in [false, true] {
        let (history, calls) = run_as(bare, Mutation::None, Fails::default());
        assert_eq!(history.promises(), 4);
        check(&history).unwrap();
        for call in 1..=calls {
            for calls in [vec![call], (call..calls + 100).collect()] {
                let fails = Fails {
                    calls,
                    ..Fails::default()
                };
                let (history, _) = run_as(bare, Mutation::None, fails.clone());
                let found = check(&history);
                assert!(found.is_ok(), "{fails:?}: {found:?}");
            }
        }
    }
}

/// A disk that is full when a recipient is settled: nobody is sent the message again while the process runs.
#[test]
fn settled_recipients_are_not_tried_again_after_a_failure() {
    let mut failed = 0;
    for call in 1.. {
        let scratch = Scratch::new();
        let disk = Recorder::new(&scratch.0, Mutation::None, None, None);
        let store = Store::with_disk("mx", Sync::Full, 100, Box::new(disk.clone()));
        let dir = scratch.0.join("queue");
        let queue = Queue::with_disk(&dir, store.syncs(), Box::new(disk.clone())).unwrap();
        let queued = receive((None, false), &disk, &store, &queue).unwrap();
        disk.start(Fails {
            calls: (call..call + 100).collect(),
            ..Fails::default()
        });
        for (index, address) in ELSEWHERE.iter().enumerate() {
            let changed = queue.change(&queued.id, &envelope(), &mut |envelope| {
                envelope.recipients.retain(|to| to.address != *address);
            });
            // Without its content an envelope is of no use.
            let sendable = queue.content(&queued.id);
            let left = sendable.and_then(|_| queue.read(&queued.id));
            let left = left.map_or(0, |envelope| envelope.recipients.len());
            assert_eq!(left, ELSEWHERE.len() - 1 - index, "{call}: {changed:?}");
            failed += usize::from(changed.is_err());
        }
        let calls = disk.counts().0;
        // Once the disk has room again the change is written.
        disk.start(Fails::default());
        let _ = queue.change(&queued.id, &envelope(), &mut |_| ());
        assert!(queue.content(&queued.id).is_err());
        if calls < call {
            break;
        }
    }
    assert!(failed > 4, "{failed} failures");
}

/// A file system without links: an envelope is replaced all the same, and those of an earlier version are moved.
#[test]
fn envelopes_where_files_have_one_name() {
    let errnos = [
        Errno::EPERM,
        Errno::EACCES,
        Errno::ENOSYS,
        Errno::EOPNOTSUPP,
        Errno::EMLINK,
        Errno::EIO,
    ];
    for errno in errnos {
        let scratch = Scratch::new();
        let dir = scratch.0.join("queue");
        std::fs::create_dir_all(dir.join("envelope")).unwrap();
        std::fs::create_dir(dir.join("new")).unwrap();
        std::fs::write(dir.join("envelope/7.M1P1Q1"), envelope().to_text()).unwrap();
        std::fs::write(dir.join("new/7.M1P1Q1.mx,S=1"), "x").unwrap();
        let disk = Recorder::new(&scratch.0, Mutation::None, Some(errno), None);
        let store = Store::with_disk("mx", Sync::Full, 100, Box::new(disk.clone()));
        let open = || Queue::with_disk(&dir, store.syncs(), Box::new(disk.clone())).unwrap();
        let queue = open();
        let queued = receive((None, false), &disk, &store, &queue).unwrap();
        let ids = [queued.id.as_str(), "7.M1P1Q1"];
        for id in ids {
            let changed = queue.change(id, &envelope(), &mut |envelope| {
                envelope.recipients.truncate(1)
            });
            assert!(changed.is_ok(), "{errno}: {changed:?}");
        }
        drop(queue);
        let queue = open();
        assert_eq!(queue.ids().unwrap(), ids);
        for id in ids {
            assert_eq!(queue.read(id).unwrap().recipients.len(), 1, "{errno}: {id}");
        }
        assert!(!dir.join("envelope").exists());
        assert_eq!(std::fs::read_dir(dir.join("new")).unwrap().count(), 4);
    }
}

/// A queue whose directories are new is written with all of its file system, once.
#[test]
fn a_new_queue_is_written_with_its_file_system() {
    let scratch = Scratch::new();
    let disk = Recorder::new(&scratch.0, Mutation::None, None, None);
    let dir = scratch.0.join("queue");
    let open = |wanted| {
        let syncs = Arc::new(Syncs::new(wanted));
        drop(Queue::with_disk(&dir, syncs, Box::new(disk.clone())).unwrap());
        disk.syncs_of_all()
    };
    assert_eq!((open(Sync::Full), open(Sync::Full)), (1, 1));
    std::fs::remove_dir(dir.join("cur")).unwrap();
    assert_eq!((open(Sync::Full), open(Sync::None)), (2, 2));
    std::fs::remove_dir(dir.join("cur")).unwrap();
    assert_eq!(open(Sync::None), 2);
}

/// The queue's directories, the envelopes, and the content.
#[test]
fn a_sync_of_the_queue_that_is_missing_late_or_retried_is_found() {
    let (history, _) = run(Mutation::None, Fails::default());
    let mut synced = history.synced();
    // The lock file has no mail. That it is synced is tested by `a_start_finds_what_is_owed_and_nothing_half_made`.
    let lock = history.events.iter().find_map(|event| match event {
        Event::Entry { name, node, .. } if name == "lock" => *node,
        _ => None,
    });
    synced.retain(|node| Some(*node) != lock);
    assert!(synced.len() >= 9, "{synced:?}");
    for node in synced {
        for mutation in [
            Mutation::Unsynced(node),
            Mutation::Late(node),
            Mutation::Retried(node),
        ] {
            let (mutated, _) = run(mutation, Fails::default());
            assert!(check(&mutated).is_err(), "{mutation:?}");
        }
    }
}

/// Two sessions whose envelopes share a sync, which fails.
#[test]
fn a_failed_sync_of_the_envelopes_fails_all() {
    let run = |at: usize, sync: usize| {
        let scratch = Scratch::new();
        let disk = Recorder::new(&scratch.0, Mutation::None, None, None);
        let dir = scratch.0.join("queue");
        let store = Store::with_disk("mx", Sync::Full, 100, Box::new(disk.clone()));
        let queue = Queue::with_disk(&dir, store.syncs(), Box::new(disk.clone())).unwrap();
        receive((None, false), &disk, &store, &queue);
        disk.start(Fails {
            syncs: vec![sync],
            ..Fails::default()
        });
        let job = || drop(receive((None, false), &disk, &store, &queue));
        let steps = turns::run(switching(vec![at]), vec![Box::new(job), Box::new(job)]);
        (disk.history(), steps, disk.counts().1)
    };
    let (_, steps, syncs) = run(0, 0);
    for at in 1..=steps {
        for sync in 0..=syncs {
            let found = check(&run(at, sync).0);
            assert!(found.is_ok(), "switch {at}, sync {sync} fails: {found:?}");
        }
    }
}

/// A start over every disk that a crash may leave: what is owed is found, and what is half-made is gone.
#[test]
fn a_start_finds_what_is_owed_and_nothing_half_made() {
    let (history, _) = run(Mutation::None, Fails::default());
    let durable_at = history.durable_at();
    let mut started = 0;
    for cut in 0..=history.events.len() {
        let owed = history.owed(cut);
        disks::each(&history, &durable_at, cut, MOST, &mut |disk| {
            let scratch = Scratch::new();
            disk.write(&history, &scratch.0);
            let syncs = Arc::new(Syncs::new(Sync::None));
            let queue = Queue::open(&scratch.0.join("queue"), syncs).unwrap();
            let ids = queue.ids().unwrap();
            for id in &ids {
                assert!(queue.content(id).is_ok(), "{id} has content");
                assert!(queue.read(id).is_ok(), "{id} has a whole envelope");
            }
            let files = std::fs::read_dir(queue.dir().join("new")).unwrap();
            assert_eq!(files.count(), 2 * ids.len());
            for (path, holds) in &owed {
                let [first, dir, name] = path else { continue };
                if (first.as_str(), dir.as_str()) == ("queue", "new") && *holds != END {
                    let envelope = queue.read(name).unwrap();
                    assert!(envelope.recipients.iter().any(|to| to.address == *holds));
                }
            }
            started += 1;
        });
    }
    assert!(started > 800, "{started} starts");
}

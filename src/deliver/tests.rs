//! Tests of whole deliveries on a real file system.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod mailboxes;
mod owners;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;

use super::commit::Delivered;
use super::disk::{Disk, Real};
use super::faults::{Scratch, Script, each_alone, files, target, trace};
use super::refusal::{queue_refusal, refusal};
use super::spool::Spool;
use super::store::{SWEEP_EVERY, Store};
use super::target::{Form, Quota, Sync, Target};
use crate::smtp::reply::{self, Reply};

/// As many descriptors as the directories of these tests need.
const OPEN: usize = 1_000;

fn store() -> Store {
    Store::new("mx:1", Sync::Full, OPEN)
}

/// A spool of the usual message at a store.
fn begin(store: &Store, targets: &[Target]) -> Box<Spool> {
    let targets: Vec<_> = targets.iter().cloned().map(Arc::new).collect();
    store.begin(&trace(), each_alone(&targets), Form::Text, None)
}

fn send(targets: &[Target], text: &str) -> Result<Delivered, Reply> {
    let mut spool = begin(&store(), targets);
    spool.write(text.as_bytes());
    spool.commit()
}

fn code(outcome: Result<Delivered, Reply>) -> (u16, Option<(u16, u16, u16)>) {
    let reply = outcome.map_or_else(|refusal| refusal, |delivered| delivered.reply());
    (reply.code(), reply.enhanced())
}

/// R215, R217
#[test]
fn one_message() {
    let scratch = Scratch::new();
    let target = target(&scratch, "a");
    let delivered = send(
        std::slice::from_ref(&target),
        "A: b\nReturn-Path: <x>\n\nbody\n",
    )
    .unwrap();
    let file = files(&target.maildir, "new").pop().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.starts_with(
            "Return-Path: <from@example.com>\nDelivered-To: a@example.org\nReceived: "
        ),
        "{text}"
    );
    assert!(text.ends_with("\nA: b\n\nbody\n"), "{text}");
    let name = file.file_name().unwrap().to_str().unwrap();
    assert_eq!(
        name,
        format!("{}.mx\\0721,S={}", delivered.id(), text.len())
    );
    assert!(delivered.reply().text().ends_with(delivered.id()));
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    for part in ["cur", "new", "tmp", "."] {
        assert_eq!(
            fs::metadata(target.maildir.join(part))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o700
        );
    }
}

#[test]
fn several_recipients_share_one_file() {
    let scratch = Scratch::new();
    let mut targets: Vec<Target> = (0..20)
        .map(|n| target(&scratch, &format!("u{n}")))
        .collect();
    targets.push(targets[3].clone());
    send(&targets, "x").unwrap();
    for target in &targets {
        let new = files(&target.maildir, "new");
        assert_eq!(new.len(), 1);
        assert_eq!(fs::metadata(&new[0]).unwrap().nlink(), 20);
        assert!(
            !fs::read_to_string(&new[0])
                .unwrap()
                .contains("Delivered-To")
        );
        assert!(files(&target.maildir, "tmp").is_empty());
    }
}

/// F26: several file systems (where the machine has two), by a copy in the other's `tmp/`.
#[test]
fn across_file_systems() {
    let (one, other) = (Scratch::new(), Scratch::within(std::env::temp_dir()));
    let targets = [target(&one, "a"), target(&other, "b")];
    send(&targets, "x").unwrap();
    let outcomes = begin(&store(), &targets).commit_each();
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    for target in &targets {
        assert_eq!(files(&target.maildir, "new").len(), 2);
        assert!(files(&target.maildir, "tmp").is_empty());
    }
}

/// F31, F54, F55
#[test]
fn dropped_and_odd_messages() {
    let scratch = Scratch::new();
    let target = target(&scratch, "a");
    let mut spool = begin(&store(), std::slice::from_ref(&target));
    spool.write(&vec![b'x'; 200_000]);
    drop(spool);
    assert!(files(&target.maildir, "new").is_empty() && files(&target.maildir, "tmp").is_empty());
    send(std::slice::from_ref(&target), "").unwrap();
    let big = format!("\n{}", "line\n".repeat(100_000));
    let mut spool = begin(&store(), std::slice::from_ref(&target));
    for piece in big.as_bytes().chunks(7919) {
        spool.write(piece);
    }
    spool.commit().unwrap();
    // Trace headers differ in length with the digits of the time.
    let contents: Vec<Vec<u8>> = files(&target.maildir, "new")
        .iter()
        .map(|file| fs::read(file).unwrap())
        .collect();
    let whole = |octets: &&Vec<u8>| octets.ends_with(big.as_bytes());
    assert_eq!(
        (contents.len(), contents.iter().filter(whole).count()),
        (2, 1)
    );
}

/// R069, F52
#[test]
fn loops_are_refused() {
    let scratch = Scratch::new();
    let target = target(&scratch, "a");
    let hops = |n: usize| format!("{}\nReceived: body\n", "Received: x\n".repeat(n));
    assert_eq!(code(send(std::slice::from_ref(&target), &hops(100))).0, 250);
    assert_eq!(code(send(&[target], &hops(101))), (554, Some((5, 4, 6))));
}

/// F24, F23, F26
#[test]
fn missing_and_unfit_mailboxes() {
    let scratch = Scratch::new();
    let gone = Target {
        root: Arc::from(scratch.0.join("gone")),
        maildir: scratch.0.join("gone/a"),
        ..target(&scratch, "a")
    };
    assert_eq!(code(send(&[gone], "x")), (451, Some((4, 2, 1))));
    let closed = Target {
        may_create: false,
        ..target(&scratch, "b")
    };
    assert_eq!(code(send(&[closed], "x")), (451, Some((4, 2, 1))));
    assert!(
        fs::read_dir(&scratch.0).unwrap().next().is_none(),
        "no shadow tree"
    );

    let good = target(&scratch, "good");
    send(std::slice::from_ref(&good), "x").unwrap();
    let linked = target(&scratch, "linked");
    symlink(&good.maildir, &linked.maildir).unwrap();
    assert_eq!(
        code(send(std::slice::from_ref(&linked), "x")),
        (451, Some((4, 2, 0)))
    );
    let inner = target(&scratch, "inner");
    fs::create_dir(&inner.maildir).unwrap();
    symlink(good.maildir.join("new"), inner.maildir.join("new")).unwrap();
    assert_eq!(
        code(send(std::slice::from_ref(&inner), "x")),
        (451, Some((4, 2, 0)))
    );
    let file = target(&scratch, "file");
    fs::write(&file.maildir, "").unwrap();
    assert_eq!(code(send(&[file], "x")), (451, Some((4, 2, 0))));
    // All or nothing, and each by itself.
    assert_eq!(code(send(&[good.clone(), linked.clone()], "x")).0, 451);
    assert_eq!(files(&good.maildir, "new").len(), 1);
    let spool = begin(&store(), &[linked, good.clone(), inner, good.clone()]);
    let codes: Vec<u16> = spool
        .commit_each()
        .into_iter()
        .map(|outcome| code(outcome).0)
        .collect();
    assert_eq!(codes, [451, 250, 451, 250]);
    assert_eq!(files(&good.maildir, "new").len(), 2, "one copy");
}

/// R220
#[test]
fn folders_where_they_exist() {
    let scratch = Scratch::new();
    let target = Target {
        folder: Some(".list".into()),
        ..target(&scratch, "a")
    };
    send(std::slice::from_ref(&target), "x").unwrap();
    fs::create_dir(target.maildir.join(".list")).unwrap();
    send(std::slice::from_ref(&target), "x").unwrap();
    assert_eq!(files(&target.maildir, "new").len(), 1);
    assert_eq!(files(&target.maildir, ".list/new").len(), 1);
}

/// R212, F27: a name that is taken is never replaced.
#[test]
fn taken_names() {
    let scratch = Scratch::new();
    for (users, script) in [
        (vec!["a"], Script::default()),
        (vec!["b", "c"], Script::default()),
        (
            vec!["d"],
            Script {
                no_links: Some(Errno::EXDEV),
                ..Script::default()
            },
        ),
    ] {
        let targets: Vec<Target> = users.iter().map(|user| target(&scratch, user)).collect();
        let store = Store::with_disk("mx", Sync::None, OPEN, Box::new(script));
        let spool = begin(&store, &targets);
        let taken: Vec<PathBuf> = targets
            .iter()
            .map(|target| {
                target
                    .maildir
                    .join("new")
                    .join(store.context.name(spool.id(), spool.size))
            })
            .collect();
        for (target, taken) in targets.iter().zip(&taken) {
            fs::create_dir_all(target.maildir.join("new")).unwrap();
            fs::write(taken, "mine").unwrap();
        }
        spool.commit().unwrap();
        for (target, taken) in targets.iter().zip(&taken) {
            assert_eq!(fs::read_to_string(taken).unwrap(), "mine");
            assert_eq!(files(&target.maildir, "new").len(), 2);
        }
    }
}

/// R084, R223, F22
#[test]
fn full_mailboxes() {
    let scratch = Scratch::new();
    let small = Quota {
        bytes: Some(400),
        messages: Some(1),
    };
    let full = Target {
        quota: Some(small),
        ..target(&scratch, "full")
    };
    let free = target(&scratch, "free");
    assert!(store().quota_check(&full, 0).is_ok());
    assert!(store().quota_check(&full, 401).is_err());
    send(std::slice::from_ref(&full), "x").unwrap();
    assert_eq!(
        store().quota_check(&full, 0).unwrap_err().enhanced(),
        Some((5, 2, 2))
    );
    assert_eq!(
        code(send(std::slice::from_ref(&full), "x")),
        (552, Some((5, 2, 2)))
    );
    assert_eq!(
        code(send(&[free.clone(), full.clone()], "x")),
        (452, Some((4, 2, 2)))
    );
    assert!(files(&free.maildir, "new").is_empty());
    let codes: Vec<u16> = begin(&store(), &[full.clone(), free])
        .commit_each()
        .into_iter()
        .map(|outcome| code(outcome).0)
        .collect();
    assert_eq!(codes, [552, 250]);
    let trash = Target {
        folder: Some(".Trash".into()),
        ..full
    };
    assert!(store().quota_check(&trash, 0).is_ok());
}

/// R043: for every error of the system, the reply is one that RFC 5321 §4.2.5 allows after the content.
#[test]
fn errors_become_replies() {
    let of = |errno: Errno| refusal(&errno.into());
    for number in 0..=200 {
        let code = of(Errno::from_raw(number)).code();
        assert!([451, 452, 552].contains(&code), "{number}: {code}");
    }
    assert_eq!(of(Errno::ENOSPC), reply::DISK_FULL);
    assert_eq!(of(Errno::EDQUOT), reply::MAILBOX_FULL);
    assert_eq!(of(Errno::EFBIG), reply::MAILBOX_FULL);
    assert_eq!(of(Errno::EACCES), reply::MAILBOX_UNUSABLE);
    assert_eq!(of(Errno::EROFS), reply::LOCAL_ERROR);
}

/// R219, F10
#[test]
fn room_and_sweep() {
    let scratch = Scratch::new();
    let target = target(&scratch, "a");
    assert!(store().room(&target.maildir, 1).is_ok());
    assert_eq!(
        store().room(&scratch.0, u64::MAX).unwrap_err(),
        reply::DISK_FULL
    );
    // Mail is taken although the system does not tell how much room there is.
    let round = scratch.0.join("round");
    std::os::unix::fs::symlink(&round, &round).unwrap();
    assert!(store().room(&round, u64::MAX).is_ok());
    send(std::slice::from_ref(&target), "x").unwrap();
    let tmp = target.maildir.join("tmp");
    let old = SystemTime::now() - Duration::from_secs(36 * 3600 + 60);
    fs::File::create(tmp.join("old"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    fs::write(tmp.join("fresh"), "").unwrap();
    let store = store();
    assert!(!store.sweep_due());
    begin(&store, std::slice::from_ref(&target))
        .commit()
        .unwrap();
    assert!(store.sweep_due());
    store.sweep();
    assert_eq!(files(&target.maildir, "tmp"), [tmp.join("fresh")]);
    fs::File::create(tmp.join("old"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    store
        .context
        .dirs
        .close_idle(Instant::now() + 2 * SWEEP_EVERY);
    begin(&store, std::slice::from_ref(&target))
        .commit()
        .unwrap();
    assert!(store.sweep_due());
    store.sweep();
    assert_eq!(files(&target.maildir, "tmp").len(), 2, "hourly");
    assert!(!store.sweep_due());
}

/// F65: cleaning `tmp/` too early may lose the message, but never after a 250.
#[test]
fn a_file_removed_from_tmp_is_not_accepted() {
    let scratch = Scratch::new();
    for users in [&["a"][..], &["a", "b"]] {
        let targets: Vec<Target> = users.iter().map(|user| target(&scratch, user)).collect();
        let spool = begin(&store(), &targets);
        fs::remove_file(files(&targets[0].maildir, "tmp").pop().unwrap()).unwrap();
        assert_eq!(code(spool.commit()).0, 451);
        for target in &targets {
            assert!(files(&target.maildir, "new").is_empty());
        }
    }
}

/// F63: a delivery makes as many calls beside ten thousand messages as beside none, and none of them reads the
/// directory.
#[test]
fn a_full_directory_costs_nothing() {
    let calls = |messages: usize| {
        let scratch = Scratch::new();
        let target = target(&scratch, "a");
        let new = target.maildir.join("new");
        fs::create_dir_all(&new).unwrap();
        (0..messages).for_each(|n| drop(fs::File::create(new.join(n.to_string())).unwrap()));
        let script = Script::default();
        let store = Store::with_disk("mx", Sync::Full, OPEN, Box::new(script.clone()));
        for _ in 0..2 {
            begin(&store, std::slice::from_ref(&target))
                .commit()
                .unwrap();
        }
        assert_eq!(script.lists.load(Ordering::Relaxed), 0);
        script.calls.load(Ordering::Relaxed)
    };
    assert_eq!(calls(10_000), calls(0));
}

/// A 552 would bounce the mail for next hops, although the queue may have room again at the client's next try.
#[test]
fn a_disk_quota_of_the_queue_is_a_full_disk() {
    let scratch = Scratch::new();
    let device = Disk::identity(&Real, &scratch.0).unwrap().device;
    let queue = Target {
        root: Arc::from(scratch.0.as_path()),
        maildir: scratch.0.clone(),
        may_create: false,
        ..target(&scratch, "x")
    };
    let full = || Script {
        bad_device: Some((device, "write", Errno::EDQUOT)),
        ..Script::default()
    };
    let targets = std::slice::from_ref(&queue);
    let store = || Store::with_disk("mx", Sync::Full, OPEN, Box::new(full()));
    let full = (452, Some((4, 3, 1)));
    assert_eq!(code(begin(&store(), targets).commit()), full);
    let each = begin(&store(), targets).commit_each().remove(0);
    assert_eq!(code(each), full);
    assert_eq!(code(Err(queue_refusal(&Errno::EDQUOT.into()))), full);
}

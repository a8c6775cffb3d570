//! Tests of whole deliveries on a real file system.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;

use super::commit::Delivered;
use super::disk;
use super::faults::{Scratch, Script, each_alone, files, target, trace};
use super::refusal::refusal;
use super::spool::Spool;
use super::store::{SWEEP_EVERY, Store};
use super::target::{Form, Group, Quota, Sync, Target};
use crate::smtp::reply::{self, Refusal};

fn store() -> Store {
    Store::new("mx:1", Sync::Full, OPEN)
}

/// As many descriptors as the dirs of these tests may take.
const OPEN: usize = 1_000;

/// A spool of the usual message at a store.
fn begin(store: &Store, targets: &[Target]) -> Spool {
    let targets: Vec<_> = targets.iter().cloned().map(Arc::new).collect();
    store.begin(&trace(), each_alone(&targets), Form::Text, None)
}

fn send(targets: &[Target], text: &str) -> Result<Delivered, Refusal> {
    let mut spool = begin(&store(), targets);
    spool.write(text.as_bytes());
    spool.commit()
}

fn code(outcome: Result<Delivered, Refusal>) -> (u16, Option<(u16, u16, u16)>) {
    let reply = outcome.map_or_else(|refusal| refusal.reply, |delivered| delivered.reply());
    (reply.code(), reply.enhanced())
}

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

/// F52
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

/// F27: a name that is taken is never replaced.
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

/// F22
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
        store().quota_check(&full, 0).unwrap_err().reply.enhanced(),
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

#[test]
fn errors_become_replies() {
    let of = |errno: Errno| refusal(&errno.into()).reply;
    assert_eq!(of(Errno::ENOSPC), reply::DISK_FULL);
    assert_eq!(of(Errno::EDQUOT), reply::MAILBOX_FULL);
    assert_eq!(of(Errno::EFBIG), reply::MAILBOX_FULL);
    assert_eq!(of(Errno::EACCES), reply::MAILBOX_UNUSABLE);
    assert_eq!(of(Errno::EROFS), reply::LOCAL_ERROR);
}

#[test]
fn room_and_sweep() {
    let scratch = Scratch::new();
    let target = target(&scratch, "a");
    assert!(store().room(&target.maildir, 1).is_ok());
    assert_eq!(
        store().room(&scratch.0, u64::MAX).unwrap_err().reply,
        reply::DISK_FULL
    );
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

/// A Maildir whose directories are kept open takes no mail once its path leads elsewhere.
#[test]
fn kept_directories_are_where_their_paths_lead() {
    let scratch = Scratch::new();
    let target = target(&scratch, "a");
    let store = store();
    let send = || {
        let mut spool = begin(&store, std::slice::from_ref(&target));
        spool.write(b"x");
        code(spool.commit()).0
    };
    let (old, new) = (
        target.maildir.with_extension("old"),
        target.maildir.join("new"),
    );
    assert_eq!((send(), send()), (250, 250));
    assert_eq!(files(&target.maildir, "new").len(), 2);
    // Moved away: made anew.
    fs::rename(&target.maildir, &old).unwrap();
    assert_eq!(send(), 250);
    assert_eq!(files(&target.maildir, "new").len(), 1);
    assert_eq!(files(&old, "new").len(), 2);
    // Its new/ alone replaced, and then by what no delivery may follow.
    fs::rename(&new, target.maildir.join("gone")).unwrap();
    fs::create_dir(&new).unwrap();
    assert_eq!(send(), 250);
    assert_eq!(files(&target.maildir, "new").len(), 1);
    fs::remove_dir_all(&new).unwrap();
    symlink(old.join("new"), &new).unwrap();
    assert_eq!(send(), 451);
    assert_eq!(files(&old, "new").len(), 2);
}

/// Directories are closed when nobody wants them, and in favour of others.
#[test]
fn kept_directories_are_few() {
    let scratch = Scratch::new();
    // Two a part.
    let store = Store::new("mx", Sync::Full, 64);
    for number in 0..100 {
        let target = target(&scratch, &format!("u{number}"));
        begin(&store, &[target]).commit().unwrap();
    }
    let open = fs::read_dir("/proc/self/fd").map(|dir| {
        let links = dir.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links.filter(|path| path.starts_with(&scratch.0)).count()
    });
    assert!(open.is_err() || matches!(open, Ok(2..=64)), "{open:?}");
    assert!(store.close_idle(), "lately used");
    let later = Instant::now() + Duration::from_secs(11);
    assert!(!store.context.dirs.close_idle(later));
}

/// While it comes in a message has a name, in the first mailbox's `tmp/` alone.
#[test]
fn a_message_on_its_way_in_is_a_named_file() {
    let scratch = Scratch::new();
    let targets = [target(&scratch, "a"), target(&scratch, "b")];
    let spool = begin(&store(), &targets);
    assert_eq!(files(&targets[0].maildir, "tmp").len(), 1);
    assert!(files(&targets[1].maildir, "tmp").is_empty());
    spool.commit().unwrap();
    assert!(files(&targets[0].maildir, "tmp").is_empty());
}

/// What was moved or replaced while the message came in takes it no more, and what is gone is not made again.
#[test]
fn a_maildir_replaced_meanwhile_is_noticed() {
    let scratch = Scratch::new();
    let users = ["a", "b"];
    let targets = users.map(|user| Target {
        may_create: false,
        ..target(&scratch, user)
    });
    for part in ["cur", "new", "tmp"] {
        for target in &targets {
            fs::create_dir_all(target.maildir.join(part)).unwrap();
        }
    }
    let store = store();
    for which in [0, 1] {
        for (again, each) in [(false, false), (true, false), (true, true)] {
            let mut spool = begin(&store, &targets);
            spool.write(b"x");
            let maildir = &targets[which].maildir;
            let moved = maildir.with_extension("moved");
            if which == 1 {
                // Known from an earlier message.
                store.context.dirs(&targets[1]).unwrap();
            }
            fs::rename(maildir, &moved).unwrap();
            if again && which == 0 {
                fs::create_dir_all(maildir.join("new")).unwrap();
            }
            let outcome = match each {
                true => spool.commit_each().remove(which),
                false => spool.commit(),
            };
            assert_eq!(code(outcome), (451, Some((4, 2, 1))));
            assert!(again && which == 0 || !maildir.exists());
            assert!(files(&moved, "new").is_empty() && files(&moved, "tmp").is_empty());
            let _ = fs::remove_dir_all(maildir);
            fs::rename(&moved, maildir).unwrap();
            for file in files(&targets[1 - which].maildir, "new") {
                fs::remove_file(file).unwrap();
            }
        }
    }
}

/// Beyond the mailboxes that hold their directories, too.
#[test]
fn the_65th_mailbox_must_be_the_same_at_the_end() {
    let scratch = Scratch::new();
    let users = (0..70).map(|n| target(&scratch, &format!("u{n}")));
    let targets: Vec<Target> = users.collect();
    let store = Store::new("mx", Sync::Full, 0);
    let mut spool = begin(&store, &targets);
    spool.write(b"x");
    let last = &targets[69].maildir;
    spool.dirs(69).unwrap();
    fs::rename(last, last.with_extension("moved")).unwrap();
    assert_eq!(code(spool.commit()), (451, Some((4, 2, 1))));
    assert!(
        targets
            .iter()
            .all(|target| files(&target.maildir, "new").is_empty())
    );
}

/// A `tmp/` that was removed under a directory that is kept open is made again.
#[test]
fn a_missing_tmp_is_made_again() {
    let scratch = Scratch::new();
    let target = target(&scratch, "a");
    let store = store();
    for _ in 0..2 {
        begin(&store, std::slice::from_ref(&target))
            .commit()
            .unwrap();
        fs::remove_dir(target.maildir.join("tmp")).unwrap();
    }
}

/// A list is all or nothing, and a mailbox that another recipient has keeps its copy.
#[test]
fn groups_are_all_or_nothing() {
    let scratch = Scratch::new();
    let [a, b] = ["a", "b"].map(|user| Arc::new(target(&scratch, user)));
    let bad = target(&scratch, "bad");
    fs::create_dir_all(bad.maildir.parent().unwrap()).unwrap();
    fs::write(&bad.maildir, "").unwrap();
    let bad = Arc::new(bad);
    let list = Group::from([Arc::clone(&a), Arc::clone(&b), Arc::clone(&bad)]);
    let groups = vec![
        Arc::clone(&list),
        Group::from([Arc::clone(&b)]),
        list,
        Group::from([bad]),
    ];
    let outcomes = store()
        .begin(&trace(), groups, Form::Text, None)
        .commit_each();
    let codes: Vec<u16> = outcomes.into_iter().map(|o| code(o).0).collect();
    assert_eq!(codes, [451, 250, 451, 451]);
    assert!(files(&a.maildir, "new").is_empty());
    assert_eq!(files(&b.maildir, "new").len(), 1);
}

/// A thousand recipients that are the same list cost one delivery to each of its members.
#[test]
fn a_list_named_often_is_cheap() {
    let scratch = Scratch::new();
    let member = |n: usize| Arc::new(target(&scratch, &format!("u{n}")));
    let list: Group = (0..200).map(member).collect();
    let script = Script::default();
    let store = Store::with_disk("mx", Sync::None, OPEN, Box::new(script.clone()));
    let groups = vec![list; 1_000];
    let outcomes = store
        .begin(&trace(), groups, Form::Text, None)
        .commit_each();
    assert!(outcomes.len() == 1_000 && outcomes.iter().all(Result::is_ok));
    let calls = script.calls.load(std::sync::atomic::Ordering::Relaxed);
    assert!(calls < 200 * 40, "{calls} calls");
}

/// The disk of one recipient is full when the message is begun, in its middle, or when it is synced: the others, who are
/// elsewhere, hear nothing of that on LMTP, and 452 on SMTP.
#[test]
fn one_bad_disk_decides_for_nobody_else() {
    let (one, other) = (Scratch::new(), Scratch::within(std::env::temp_dir()));
    let targets = [target(&one, "a"), target(&other, "b")];
    for target in &targets {
        fs::create_dir_all(target.maildir.join("new")).unwrap();
    }
    let identity = |path: &PathBuf| disk::Disk::identity(&disk::Real, path).unwrap();
    if identity(&one.0).device == identity(&other.0).device {
        return;
    }
    for bad in [0, 1] {
        for (errno, reply) in [
            (Errno::ENOSPC, 452),
            (Errno::EDQUOT, 552),
            (Errno::EIO, 451),
        ] {
            for call in ["create", "write", "sync"] {
                let bad_disk = Script {
                    bad_device: Some((identity(&targets[bad].maildir).device, call, errno)),
                    ..Script::default()
                };
                let send = || {
                    let store =
                        Store::with_disk("mx", Sync::Full, OPEN, Box::new(bad_disk.clone()));
                    let mut spool = begin(&store, &targets);
                    spool.write(&[b'x'; 100_000]);
                    spool.write(&[b'x'; 100_000]);
                    spool
                };
                let codes: Vec<u16> = send()
                    .commit_each()
                    .into_iter()
                    .map(|o| code(o).0)
                    .collect();
                let context = format!("{call} {errno} {bad}");
                assert_eq!((codes[bad], codes[1 - bad]), (reply, 250), "{context}");
                let new = files(&targets[1 - bad].maildir, "new").pop().unwrap();
                assert!(fs::metadata(&new).unwrap().len() > 200_000);
                fs::remove_file(new).unwrap();
                let all = code(send().commit()).0;
                assert_eq!(
                    all,
                    if errno == Errno::EIO { 451 } else { 452 },
                    "{context}"
                );
                for part in ["new", "tmp"] {
                    let left = targets.iter().flat_map(|t| files(&t.maildir, part)).count();
                    assert_eq!(left, 0, "{context}");
                }
            }
        }
    }
}

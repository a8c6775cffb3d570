//! Tests of mailboxes that are moved, removed or filled up while messages arrive, and of lists of mailboxes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::{OPEN, begin, code, store};
use crate::deliver::disk;
use crate::deliver::faults::{Scratch, Script, files, target, trace};
use crate::deliver::junk::JunkField;
use crate::deliver::spool::Spool;
use crate::deliver::store::Store;
use crate::deliver::target::{Form, Group, Quota, Sync, Target};

/// A Maildir whose directories are kept open gets no mail once its path leads elsewhere.
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

/// RCPT must look closely again, or the mailbox would be accepted, and fail the message for others, again and again.
#[test]
fn directories_of_a_message_that_failed_are_not_kept() {
    let scratch = Scratch::new();
    let target = target(&scratch, "a");
    let store = store();
    begin(&store, std::slice::from_ref(&target))
        .commit()
        .unwrap();
    assert!(store.is_open(&target));
    fs::remove_dir_all(target.maildir.join("tmp")).unwrap();
    fs::write(target.maildir.join("tmp"), "").unwrap();
    assert!(
        begin(&store, std::slice::from_ref(&target))
            .commit()
            .is_err()
    );
    assert!(!store.is_open(&target));
    fs::remove_file(target.maildir.join("tmp")).unwrap();
    begin(&store, std::slice::from_ref(&target))
        .commit()
        .unwrap();
    let spool = begin(&store, std::slice::from_ref(&target));
    fs::rename(target.maildir.join("tmp"), target.maildir.join("old")).unwrap();
    drop(spool);
    assert!(!store.is_open(&target));
}

/// Unused directories are closed, and evicted by others.
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

/// While it arrives a message only has a name in the first mailbox's `tmp/`.
#[test]
fn an_arriving_message_is_a_named_file() {
    let scratch = Scratch::new();
    let targets = [target(&scratch, "a"), target(&scratch, "b")];
    let spool = begin(&store(), &targets);
    assert_eq!(files(&targets[0].maildir, "tmp").len(), 1);
    assert!(files(&targets[1].maildir, "tmp").is_empty());
    spool.commit().unwrap();
    assert!(files(&targets[0].maildir, "tmp").is_empty());
}

/// A Maildir that was moved or replaced while the message came in gets no mail, and one that is gone is not created.
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
    for spare in [0, 64] {
        let scratch = Scratch::new();
        let users = (0..70).map(|n| target(&scratch, &format!("u{n}")));
        let targets: Vec<Target> = users.collect();
        let store = Store::new("mx", Sync::Full, 0).with_held(spare);
        let mut spool = begin(&store, &targets);
        spool.write(b"x");
        let last = &targets[69].maildir;
        spool.dirs(69).unwrap();
        fs::rename(last, last.with_extension("moved")).unwrap();
        assert_eq!(code(spool.commit()), (451, Some((4, 2, 1))));
        let mut maildirs = targets.iter().map(|target| &target.maildir);
        assert!(maildirs.all(|maildir| files(maildir, "new").is_empty()));
    }
}

/// However many messages there are, they hold no more Maildirs open than there are descriptors for, and each has its
/// own.
#[test]
fn what_is_held_open_is_shared_and_given_back() {
    let scratch = Scratch::new();
    let users = (0..5).map(|n| target(&scratch, &format!("u{n}")));
    let targets: Vec<Target> = users.collect();
    let store = Store::new("mx", Sync::Full, 0).with_held(6);
    let spare = || store.context.spare.load(Ordering::Relaxed);
    for _ in 0..3 {
        let mut spools: Vec<_> = (0..3).map(|_| begin(&store, &targets)).collect();
        for spool in &mut spools {
            (0..5).for_each(|index| drop(spool.dirs(index).unwrap()));
        }
        let open = |spool: &Spool| spool.deliveries.iter().filter(|d| d.dirs.is_some()).count();
        let held: Vec<usize> = spools.iter().map(|spool| open(spool)).collect();
        assert_eq!((held, spare()), (vec![5, 3, 1], 0));
        assert!(spools.remove(1).commit().is_ok());
        drop(spools);
        assert_eq!(spare(), 6);
    }
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
    let list: Group = [&a, &b, &bad].into_iter().cloned().collect();
    let groups = vec![
        list.clone(),
        Group::One(Arc::clone(&b)),
        list,
        Group::One(bad),
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

/// The disk of one recipient is full when the message is begun, in its middle, or when it is synced: the others, who
/// are elsewhere, hear nothing of that on LMTP, and 452 on SMTP.
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

/// The file of a message is in the first recipient's mailbox. If that is over a quota of the file system, which may be
/// its own, a 552 to the others would bounce their mail (LMTP).
#[test]
fn a_disk_quota_decides_for_nobody_else() {
    let scratch = Scratch::new();
    let device = disk::Disk::identity(&disk::Real, &scratch.0)
        .unwrap()
        .device;
    let targets = [target(&scratch, "a"), target(&scratch, "b")];
    let full = Script {
        bad_device: Some((device, "write", Errno::EDQUOT)),
        ..Script::default()
    };
    let store = Store::with_disk("mx", Sync::Full, OPEN, Box::new(full));
    let outcomes = begin(&store, &targets).commit_each();
    let codes: Vec<u16> = outcomes.into_iter().map(|o| code(o).0).collect();
    assert_eq!(codes, [552, 452]);
}

/// The file of a message is in the first recipient's mailbox. If that is removed, only he does not get it (LMTP).
#[test]
fn a_removed_mailbox_takes_no_mail_of_others_with_it() {
    let scratch = Scratch::new();
    let targets = ["a", "b", "c"].map(|user| Target {
        may_create: false,
        ..target(&scratch, user)
    });
    let tree = |user: &Target| fs::create_dir_all(user.maildir.join("new")).unwrap();
    for gone in ["", "tmp"] {
        targets.iter().for_each(tree);
        let send = || {
            let mut spool = begin(&store(), &targets);
            spool.write(&[b'x'; 100_000]);
            fs::remove_dir_all(targets[0].maildir.join(gone)).unwrap();
            spool.write(b"end");
            spool
        };
        let outcomes = send().commit_each().into_iter().map(|o| code(o).0);
        assert_eq!(outcomes.collect::<Vec<_>>(), [451, 250, 250], "{gone:?}");
        for user in &targets[1..] {
            let new = files(&user.maildir, "new").pop().unwrap();
            assert!(fs::read(&new).unwrap().ends_with(b"xend"));
            fs::remove_file(new).unwrap();
            assert!(files(&user.maildir, "tmp").is_empty());
        }
        tree(&targets[0]);
        assert_eq!(code(send().commit()).0, 451, "{gone:?}");
        assert!(
            targets
                .iter()
                .all(|user| files(&user.maildir, "new").is_empty())
        );
    }
}

/// A mailbox is open from its first message until its path leads elsewhere.
#[test]
fn open_mailboxes_are_known() {
    let scratch = Scratch::new();
    let (store, target) = (store(), target(&scratch, "alice"));
    assert!(!store.is_open(&target));
    assert_eq!(
        code(begin(&store, std::slice::from_ref(&target)).commit()).0,
        250
    );
    assert!(store.is_open(&target));
    // The look is good for the message that follows, up to the one before its name is made.
    let mut spool = begin(&store, std::slice::from_ref(&target));
    fs::rename(target.maildir.join("new"), target.maildir.join("old")).unwrap();
    spool.write(b"x");
    assert_eq!(code(spool.commit()).0, 451);
    assert!(files(&target.maildir, "old").len() == 1);
    symlink("old", target.maildir.join("new")).unwrap();
    assert!(!store.is_open(&target));
}

/// Mail that `--junk` matches goes to the folder of each mailbox that has one, and counts in its quota.
#[test]
fn spam_goes_to_its_folder() {
    let scratch = Scratch::new();
    let quota = Some(Quota {
        bytes: Some(100_000),
        messages: None,
    });
    let has = Target {
        quota,
        ..target(&scratch, "has")
    };
    let named = Target {
        folder: Some(".other".to_owned()),
        ..target(&scratch, "named")
    };
    let lacks = target(&scratch, "lacks");
    for folder in ["has/.Junk", "named/.Junk", "named/.other"] {
        fs::create_dir_all(scratch.0.join("example.org").join(folder)).unwrap();
    }
    let field = JunkField::parse("X-Spam-Flag: YES");
    let store = store().with_junk(field.into_iter().collect());
    let targets = [has.clone(), lacks.clone(), named.clone()];
    for (each, value) in [(false, "YES"), (true, "YES"), (false, "NO")] {
        let mut spool = begin(&store, &targets);
        spool.write(format!("X-Spam-Flag: {value}\n\nx\n").as_bytes());
        if each {
            assert!(spool.commit_each().iter().all(Result::is_ok));
        } else {
            spool.commit().unwrap();
        }
    }
    let count = |target: &Target, folder: &str| files(&target.maildir.join(folder), "new").len();
    assert_eq!((count(&has, ".Junk"), count(&has, "")), (2, 1));
    assert_eq!((count(&lacks, ".Junk"), count(&lacks, "")), (0, 3));
    assert_eq!(
        (
            count(&named, ".Junk"),
            count(&named, ".other"),
            count(&named, "")
        ),
        (0, 3, 0)
    );
    let left = [&has, &lacks, &named].map(|target| count_tmp(&target.maildir));
    assert_eq!(left, [0; 3]);
    // Each of the three is counted, in the inbox's maildirsize.
    let lines = fs::read_to_string(has.maildir.join("maildirsize")).unwrap();
    let counts = lines
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(1));
    let sum: i64 = counts.map(|count| count.parse::<i64>().unwrap()).sum();
    assert_eq!(sum, 3, "{lines}");
    let mut alone = begin(&store, std::slice::from_ref(&has));
    alone.write(b"X-Spam-Flag: YES\n\nx\n");
    alone.commit().unwrap();
    assert_eq!((count(&has, ".Junk"), count_tmp(&has.maildir)), (3, 0));
}

fn count_tmp(maildir: &std::path::Path) -> usize {
    let folders = ["", ".Junk", ".other"].map(|folder| files(&maildir.join(folder), "tmp").len());
    folders.iter().sum()
}

/// As with any other message, 451 4.2.1.
#[test]
fn a_maildir_replaced_while_spam_comes_in_is_noticed() {
    let scratch = Scratch::new();
    let target = target(&scratch, "a");
    let field = JunkField::parse("X-Spam-Flag: YES");
    let store = store().with_junk(field.into_iter().collect());
    fs::create_dir_all(target.maildir.join(".Junk")).unwrap();
    let mut spool = begin(&store, std::slice::from_ref(&target));
    fs::rename(&target.maildir, scratch.0.join("old")).unwrap();
    fs::create_dir_all(target.maildir.join(".Junk")).unwrap();
    spool.write(b"X-Spam-Flag: YES\n\nx\n");
    assert_eq!(code(spool.commit()), (451, Some((4, 2, 1))));
    assert!(files(&target.maildir.join(".Junk"), "new").is_empty());
    assert!(files(&scratch.0.join("old"), "tmp").is_empty());
}

/// The Maildir of an account may be its home (`--maildir %h`), which is the root of its path, as the queue is its own.
#[test]
fn spam_for_a_maildir_that_is_a_home() {
    let scratch = Scratch::new();
    let target = Target {
        root: Arc::from(scratch.0.as_path()),
        maildir: scratch.0.clone(),
        ..target(&scratch, "a")
    };
    let field = JunkField::parse("X-Spam-Flag: YES");
    let store = store().with_junk(field.into_iter().collect());
    fs::create_dir(scratch.0.join(".Junk")).unwrap();
    let mut spool = begin(&store, std::slice::from_ref(&target));
    spool.write(b"X-Spam-Flag: YES\n\nx\n");
    spool.commit().unwrap();
    assert_eq!(files(&scratch.0.join(".Junk"), "new").len(), 1);
}

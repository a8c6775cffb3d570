//! Tests of `maildirsize`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::super::disk::Real;
use super::super::faults::{Scratch, Script, each_alone, target, trace};
use super::super::maildir;
use super::super::store::Store;
use super::super::syncs::Syncs;
use super::super::target::{Form, Sync};
use super::*;

const LIMIT: Quota = Quota {
    bytes: Some(1000),
    messages: Some(3),
};

fn mailbox(scratch: &Scratch) -> (OpenMaildir, PathBuf) {
    let target = target(scratch, "q");
    let dirs = maildir::open(&Real, &Syncs::new(Sync::None), &target).unwrap();
    (dirs, target.maildir.join(NAME))
}

fn limited(dirs: &OpenMaildir, quota: &Quota) -> Target {
    let scratch = dirs.path.ancestors().nth(3).unwrap();
    Target {
        root: Arc::from(scratch),
        maildir: dirs.path.parent().unwrap().to_owned(),
        may_create: true,
        folder: None,
        address: String::new(),
        original: None,
        quota: Some(quota.clone()),
        owner: None,
    }
}

fn fits(dirs: &OpenMaildir, quota: &Quota, octets: u64) -> bool {
    Ledger::default().fits(&Real, dirs, &limited(dirs, quota), octets)
}

/// R222
#[test]
fn file_is_made_by_counting_without_trash() {
    let scratch = Scratch::new();
    let (dirs, file) = mailbox(&scratch);
    let maildir = file.parent().unwrap();
    for folder in [".Trash/cur", ".Sent/cur"] {
        fs::create_dir_all(maildir.join(folder)).unwrap();
    }
    fs::write(maildir.join("cur/1.h,S=100:2,S"), "x").unwrap();
    fs::write(maildir.join("new/2.h"), "0123456789").unwrap();
    fs::write(maildir.join(".Sent/cur/3.h,S=5,W=6:2,"), "x").unwrap();
    fs::write(maildir.join(".Trash/cur/4.h,S=900"), "x").unwrap();
    assert!(!fits(&dirs, &LIMIT, 10), "three messages are there already");
    assert_eq!(fs::read_to_string(&file).unwrap(), "1000S,3C\n115 3\n");
    // Another quota: counted anew.
    let wider = Quota {
        bytes: Some(1000),
        messages: None,
    };
    let (ledger, target) = (Ledger::default(), limited(&dirs, &wider));
    assert_eq!(
        ledger.reserve(&Real, &dirs, &target, 885),
        Reservation::Made
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "1000S\n115 3\n885 1\n");
    ledger.release(&Real, &dirs, &target, 885, true, || true);
    assert!(
        fs::read_to_string(&file)
            .unwrap()
            .ends_with("885 1\n-885 -1\n")
    );
}

/// R221
#[test]
fn full_is_doubted_by_the_rules() {
    let scratch = Scratch::new();
    let (dirs, file) = mailbox(&scratch);
    fs::write(&file, "1000S,3C\n1000 1\n").unwrap();
    assert!(!fits(&dirs, &LIMIT, 1), "one line, fresh: believed");
    let old = SystemTime::now() - Duration::from_secs(901);
    fs::File::options()
        .append(true)
        .open(&file)
        .unwrap()
        .set_modified(old)
        .unwrap();
    assert!(fits(&dirs, &LIMIT, 1), "15 minutes old: counted");
    fs::write(&file, "1000S,3C\n900 1\n100 1\n").unwrap();
    assert!(fits(&dirs, &LIMIT, 1), "two lines: counted");
    fs::write(&file, format!("1000S,3C\n{}", "1 0\n".repeat(1300))).unwrap();
    assert!(fits(&dirs, &LIMIT, 1), "too long: counted");
    fs::write(&file, "1000S,3C\nnonsense\n").unwrap();
    assert!(fits(&dirs, &LIMIT, 1), "nonsense: counted");
    assert_eq!(fs::read_to_string(&file).unwrap(), "1000S,3C\n0 0\n");
}

/// F22
#[test]
fn racing_messages_never_exceed() {
    let scratch = Scratch::new();
    let (dirs, file) = mailbox(&scratch);
    let (ledger, target) = (Ledger::default(), limited(&dirs, &LIMIT));
    // Every other message is put into new/, the others are given up; both while others count anew.
    let send = |number: usize| {
        if ledger.reserve(&Real, &dirs, &target, 300) != Reservation::Made {
            return;
        }
        let name = format!("{number}.h,S=300");
        if number.is_multiple_of(2) {
            let make = || fs::write(target.maildir.join("new").join(&name), "");
            ledger.publish(&target.maildir, 300, make).unwrap();
        } else {
            ledger.release(&Real, &dirs, &target, 300, true, || true);
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let send = &send;
            let file = &file;
            scope.spawn(move || {
                for number in 0..25 {
                    if number % 7 == 0 {
                        // Another program breaks the file: it's counted anew.
                        let _ = fs::remove_file(file);
                    }
                    send(thread * 100 + number);
                }
            });
        }
    });
    let there = fs::read_dir(target.maildir.join("new")).unwrap().count();
    assert!(there <= 3, "{there}");
    if let Ok(text) = fs::read_to_string(&file) {
        let used = parse(&text, Duration::ZERO).unwrap().used;
        let bytes = 300 * i64::try_from(there).unwrap();
        assert_eq!(used.bytes, bytes, "{text}");
    }
}

/// A mailbox whose file cannot be written is counted once a minute, however many recipients ask.
#[test]
fn counts_that_cannot_be_kept_are_few() {
    let scratch = Scratch::new();
    let (dirs, file) = mailbox(&scratch);
    let target = limited(&dirs, &LIMIT);
    let disk = Script {
        bad_device: Some((dirs.identity.device, "create", Errno::EACCES)),
        ..Script::default()
    };
    let ledger = Ledger::default();
    let lists = || disk.lists.load(Ordering::Relaxed);
    assert!(ledger.fits(&disk, &dirs, &target, 1));
    let once = lists();
    for _ in 0..100 {
        assert!(ledger.fits(&disk, &dirs, &target, 1));
        let taken = ledger.reserve(&disk, &dirs, &target, 1);
        assert_eq!(taken, Reservation::Unrecorded);
    }
    assert!(once > 0 && lists() == once, "{once} and {}", lists());
    // A file that is there again is used at once.
    fs::write(&file, "1000S,3C\n10 1\n").unwrap();
    let taken = ledger.reserve(&disk, &dirs, &target, 1);
    assert_eq!(taken, Reservation::Made);
}

#[test]
fn unreadable_files_are_recalculated() {
    let scratch = Scratch::new();
    for text in [
        "1000S,3C\n10 1",
        "1000S,3C\n10 1\n-20 0\n",
        "1000S,3C\n10 1\n0 -2\n",
        "1000S,3C\n10 1 7\n",
        "1000S,3C\n10\n",
        "1000S,3C\n\n",
        "1000S,3C",
        "",
    ] {
        let (dirs, file) = mailbox(&scratch);
        fs::write(&file, text).unwrap();
        let target = limited(&dirs, &LIMIT);
        let taken = Ledger::default().reserve(&Real, &dirs, &target, 7);
        assert_eq!(taken, Reservation::Made, "{text:?}");
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text, "1000S,3C\n0 0\n7 1\n");
    }
}

/// A mailbox that is gone at the end holds no room in the one that takes its place.
#[test]
fn a_removed_mailbox_has_nothing_reserved() {
    let scratch = Scratch::new();
    let [a, b, c] = ["a", "b", "c"].map(|user| Target {
        quota: Some(LIMIT),
        may_create: user == "c",
        ..target(&scratch, user)
    });
    for target in [&a, &b] {
        fs::create_dir_all(&target.maildir).unwrap();
    }
    let gone = b.maildir.clone();
    let disk = Script {
        meanwhile: Some(Arc::new(move |name| {
            if name == "c" {
                fs::remove_dir_all(&gone).unwrap();
            }
        })),
        ..Script::default()
    };
    let store = Store::with_disk("mx", Sync::None, 0, Box::new(disk)).with_held(0);
    let targets = [a, b.clone(), c].map(Arc::new);
    let spool = store.begin(&trace(), each_alone(&targets), Form::Text, None);
    assert!(spool.commit().is_err());
    let kept = store.context.ledger.mailbox(&b.maildir);
    assert_eq!(lock(&kept).pending, Used::default());
}

//! Tests of mail that belongs to the users of mailboxes, and of users who try to lead the server elsewhere. Only root
//! can give files away; for others these tests report that they were skipped.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{begin, code, send, store};
use crate::deliver::faults::{Scratch, Script, each_alone, files, target, trace};
use crate::deliver::store::Store;
use crate::deliver::target::{Form, Owner, Quota, Sync, Target};

const ALICE: Owner = Owner {
    uid: 12_345,
    gid: 12_355,
};
const BOB: Owner = Owner {
    uid: 12_346,
    gid: 12_356,
};

/// A directory in which only root can create links, if this process is root.
fn scratch() -> Option<Scratch> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can give files away");
        return None;
    }
    let scratch = Scratch::within(PathBuf::from("/run"));
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o755)).unwrap();
    Some(scratch)
}

fn owned(scratch: &Scratch, user: &str, owner: Owner) -> Target {
    Target {
        owner: Some(owner),
        ..target(scratch, user)
    }
}

/// A directory with an owner.
fn dir(path: PathBuf, owner: Option<Owner>, mode: u32) -> PathBuf {
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    chown(&path, owner.map(|o| o.uid), owner.map(|o| o.gid)).unwrap();
    path
}

fn owner_of(path: &Path) -> (Owner, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    let (uid, gid) = (found.uid(), found.gid());
    (Owner { uid, gid }, found.mode() & 0o777)
}

#[test]
fn mail_belongs_to_the_users_of_mailboxes() {
    let Some(scratch) = scratch() else { return };
    let quota = Quota {
        bytes: Some(100_000),
        messages: None,
    };
    let with_quota = |target: Target| Target {
        quota: Some(quota.clone()),
        ..target
    };
    let targets = [
        with_quota(owned(&scratch, "a", ALICE)),
        owned(&scratch, "also-a", ALICE),
        with_quota(owned(&scratch, "b", BOB)),
        target(&scratch, "root"),
    ];
    send(&targets, "x").unwrap();
    let root = Owner { uid: 0, gid: 0 };
    for (target, names) in targets.iter().zip([2, 2, 1, 1]) {
        let owner = target.owner.unwrap_or(root);
        let new = files(&target.maildir, "new");
        let found = fs::metadata(&new[0]).unwrap();
        // Links for one owner, copies for others.
        assert_eq!((new.len(), found.nlink()), (1, names));
        assert_eq!(owner_of(&new[0]), (owner, 0o600));
        for part in ["", "tmp", "new", "cur"] {
            let path = target.maildir.join(part);
            assert_eq!(owner_of(&path), (owner, 0o700), "{path:?}");
        }
        if target.quota.is_some() {
            let path = target.maildir.join("maildirsize");
            assert_eq!(owner_of(&path), (owner, 0o600));
        }
    }
    // The way there is root's, and open to those who must pass.
    let parent = owner_of(&scratch.0.join("example.org"));
    assert_eq!(parent, (root, 0o711));
}

/// A link of the owner's is followed only where the owner could go.
#[test]
fn links_lead_nowhere_that_their_maker_could_not_go() {
    let Some(scratch) = scratch() else { return };
    let home = dir(scratch.0.join("home"), Some(BOB), 0o755);
    let secret = dir(scratch.0.join("secret"), None, 0o700);
    let alices = dir(scratch.0.join("alices"), Some(ALICE), 0o700);
    let own = dir(home.join("own"), Some(BOB), 0o700);
    let through = |link: &str, to: &Path, root: &Path| {
        symlink(to, home.join(link)).unwrap();
        let target = Target {
            root: Arc::from(root),
            maildir: home.join(link).join("Maildir"),
            ..owned(&scratch, "b", BOB)
        };
        code(send(&[target], "x")).0
    };
    assert_eq!(through("a", &secret, &home), 451);
    assert_eq!(through("b", &alices, &home), 451);
    assert_eq!(through("c", &own, &home), 250);
    assert_eq!(files(&own.join("Maildir"), "new").len(), 1);
    // The home itself, in a directory of the user's.
    assert_eq!(through("d", &secret, &home.join("d")), 451);
    assert_eq!(through("e", &alices, &home.join("e")), 451);
    for dir in [&secret, &alices] {
        assert!(fs::read_dir(dir).unwrap().next().is_none());
    }
    // The operator's links are followed as ever.
    symlink(&home, scratch.0.join("link")).unwrap();
    let target = Target {
        maildir: scratch.0.join("link/Maildir"),
        ..owned(&scratch, "b", BOB)
    };
    assert_eq!(code(send(&[target], "x")).0, 250);
    assert_eq!(owner_of(&home.join("Maildir")).0, BOB);
}

/// A user who is quick puts another directory in the place of one that was made just now: it stays its owner's.
#[test]
fn only_what_was_made_is_given_away() {
    let Some(scratch) = scratch() else { return };
    let shared = dir(scratch.0.join("shared"), None, 0o777);
    for (number, part) in ["tmp", "new", "cur"].into_iter().enumerate() {
        let bob = owned(&scratch, &format!("b{number}"), BOB);
        fs::create_dir_all(&bob.maildir).unwrap();
        chown(&bob.maildir, Some(BOB.uid), Some(BOB.gid)).unwrap();
        let alices = dir(shared.join(part), Some(ALICE), 0o777);
        let place = bob.maildir.join(part);
        let (other, to) = (alices.clone(), place.clone());
        let script = Script {
            meanwhile: Some(Arc::new(move |name| {
                if name == part {
                    fs::remove_dir(&to).unwrap();
                    fs::rename(&other, &to).unwrap();
                }
            })),
            ..Script::default()
        };
        let store = Store::with_disk("mx", Sync::Full, 100, Box::new(script));
        let groups = each_alone(&[Arc::new(bob)]);
        let _ = store.begin(&trace(), groups, Form::Text, None).commit();
        assert!(!alices.exists(), "{part}");
        assert_eq!(owner_of(&place), (ALICE, 0o777), "{part}");
    }
}

/// A user's changes to the own Maildir can only harm that user.
#[test]
fn a_hostile_user_hurts_nobody_else() {
    let Some(scratch) = scratch() else { return };
    let secret = dir(scratch.0.join("secret"), None, 0o755);
    let file = secret.join("file");
    fs::write(&file, "root's").unwrap();
    type Trap<'a> = (&'a str, &'a dyn Fn(&Path));
    let fifo = |path: &Path| {
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    };
    let traps: [Trap<'_>; 6] = [
        ("new", &|path| symlink(&secret, path).unwrap()),
        ("tmp", &|path| symlink(&secret, path).unwrap()),
        ("tmp", &|path| fs::write(path, "").unwrap()),
        ("maildirsize", &|path| symlink(&file, path).unwrap()),
        ("maildirsize", &|path| fs::hard_link(&file, path).unwrap()),
        ("maildirsize", &fifo),
    ];
    for (number, (name, trap)) in traps.iter().enumerate() {
        let alice = owned(&scratch, &format!("a{number}"), ALICE);
        let bob = Target {
            quota: Some(Quota {
                bytes: Some(100_000),
                messages: None,
            }),
            ..owned(&scratch, &format!("b{number}"), BOB)
        };
        fs::create_dir_all(&bob.maildir).unwrap();
        chown(&bob.maildir, Some(BOB.uid), Some(BOB.gid)).unwrap();
        trap(&bob.maildir.join(name));
        let targets = [Arc::new(bob), Arc::new(alice)];
        let mut spool = store().begin(&trace(), each_alone(&targets), Form::Text, None);
        spool.write(b"x");
        let outcomes: Vec<u16> = spool.commit_each().into_iter().map(|o| code(o).0).collect();
        // Trouble with the quota's file never costs a message.
        let bobs = if *name == "maildirsize" { 250 } else { 451 };
        assert_eq!(outcomes, [bobs, 250], "{name}");
        assert_eq!(files(&targets[1].maildir, "new").len(), 1);
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "root's");
    assert_eq!(owner_of(&file).0, Owner { uid: 0, gid: 0 });
    assert_eq!(fs::read_dir(&secret).unwrap().count(), 1);
}

/// The rights that were taken for the way are given back, on every end of it.
#[test]
fn the_thread_is_root_again_afterwards() {
    let Some(scratch) = scratch() else { return };
    let home = dir(scratch.0.join("home"), Some(BOB), 0o755);
    let secret = dir(scratch.0.join("secret"), None, 0o700);
    symlink(&secret, home.join("link")).unwrap();
    for (part, reply) in [("link/Maildir", 451), ("Maildir", 250)] {
        let target = Target {
            maildir: home.join(part),
            ..owned(&scratch, "b", BOB)
        };
        assert_eq!(code(send(&[target], "x")).0, reply);
        assert!(fs::write(secret.join(part.replace('/', "-")), "").is_ok());
    }
}

/// Old files in the `tmp/` of the inbox and of folders are removed; young ones, and those that a link leads to, stay.
#[test]
fn folders_are_swept_and_links_are_not_followed() {
    let scratch = Scratch::new();
    let target = target(&scratch, "a");
    let elsewhere = scratch.0.join("elsewhere");
    let tmps = [".list/tmp", ".list.sub/tmp", "tmp"].map(|tmp| target.maildir.join(tmp));
    for tmp in tmps.iter().chain([&elsewhere.join("tmp")]) {
        fs::create_dir_all(tmp).unwrap();
        for (name, hours) in [("old", 40), ("young", 35)] {
            let left = fs::File::create(tmp.join(name)).unwrap();
            let written = SystemTime::now() - Duration::from_secs(hours * 3600);
            left.set_modified(written).unwrap();
        }
    }
    symlink(&elsewhere, target.maildir.join(".link")).unwrap();
    fs::create_dir(target.maildir.join(".linked")).unwrap();
    symlink(elsewhere.join("tmp"), target.maildir.join(".linked/tmp")).unwrap();
    let store = store();
    let mut spool = begin(&store, &[target]);
    spool.write(b"x");
    spool.commit().unwrap();
    store.sweep();
    for tmp in &tmps {
        assert!(
            !tmp.join("old").exists() && tmp.join("young").exists(),
            "{tmp:?}"
        );
    }
    assert!(elsewhere.join("tmp/old").exists());
}

/// After a reload the users file may name another owner, although the mailbox is still open.
#[test]
fn a_changed_owner_counts_for_the_next_message() {
    let Some(scratch) = scratch() else { return };
    let store = store();
    for owner in [Some(ALICE), Some(BOB), None] {
        let target = Target {
            owner,
            ..target(&scratch, "a")
        };
        assert!(!store.is_open(&target));
        begin(&store, std::slice::from_ref(&target))
            .commit()
            .unwrap();
        assert!(store.is_open(&target));
        let root = Owner { uid: 0, gid: 0 };
        let new = files(&target.maildir, "new");
        let found = new
            .iter()
            .filter(|file| owner_of(file).0 == owner.unwrap_or(root));
        assert_eq!(found.count(), 1);
        // As the operator does before a change.
        if let Some(Owner { uid, gid }) = owner.map(|_| BOB) {
            for part in ["", "tmp", "new", "cur"] {
                chown(target.maildir.join(part), Some(uid), Some(gid)).unwrap();
            }
        }
    }
}

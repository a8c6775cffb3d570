//! Deliveries into temporary Maildirs, whole and with every call made to fail.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use std::sync::atomic::AtomicUsize;

struct Temp(PathBuf);

impl Temp {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mailslot-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn targets(&self, count: usize) -> Vec<Target> {
        (0..count)
            .map(|n| Target {
                root: self.0.clone(),
                maildir: self.0.join("d").join(format!("u{n}")),
                address: format!("u{n}@d"),
            })
            .collect()
    }

    fn files(&self, user: usize, dir: &str) -> Vec<PathBuf> {
        std::fs::read_dir(self.0.join(format!("d/u{user}/{dir}")))
            .map(|all| all.map(|e| e.unwrap().path()).collect())
            .unwrap_or_default()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn trace() -> Trace {
    Trace {
        reverse_path: "a@b".into(),
        helo: "h".into(),
        peer: "[127.0.0.1]".into(),
        hostname: "host".into(),
        protocol: "ESMTP",
        recipient: None,
    }
}

/// R212, R214: one file, one inode, nothing left in tmp.
#[test]
fn several_mailboxes_share_one_inode() {
    use std::os::unix::fs::MetadataExt as _;
    let temp = Temp::new();
    let store = Store::new("ho/st:x", Sync::Full);
    let mut spool = store.begin(&trace(), temp.targets(3));
    spool.write(b"Subject: s\n\n");
    spool.write(&vec![b'x'; 200_000]);
    let delivered = spool.commit().unwrap();
    assert_eq!(delivered.reply().code(), 250);
    let mut inodes = Vec::new();
    for user in 0..3 {
        let files = temp.files(user, "new");
        assert_eq!((files.len(), temp.files(user, "tmp").len()), (1, 0));
        let name = files.concat_name();
        let meta = std::fs::metadata(files.first().unwrap()).unwrap();
        assert!(
            name.starts_with(delivered.id()) && name.contains("ho\\057st\\072x"),
            "{name}"
        );
        assert!(name.ends_with(&format!(",S={}", meta.len())), "{name}");
        assert_eq!(meta.mode() & 0o777, 0o600);
        inodes.push(meta.ino());
    }
    inodes.dedup();
    assert_eq!(inodes.len(), 1);
}

trait Names {
    fn concat_name(&self) -> String;
}

impl Names for Vec<PathBuf> {
    fn concat_name(&self) -> String {
        self.iter()
            .map(|p| p.file_name().unwrap().to_string_lossy())
            .collect()
    }
}

/// R012, F31: a transaction that is given up leaves nothing.
#[test]
fn a_dropped_spool_leaves_nothing() {
    let temp = Temp::new();
    let store = Store::new("h", Sync::None);
    let mut spool = store.begin(&trace(), temp.targets(1));
    spool.write(b"half");
    assert_eq!(temp.files(0, "tmp").len(), 1);
    drop(spool);
    assert!(temp.files(0, "tmp").is_empty() && temp.files(0, "new").is_empty());
}

/// F24, F26: no shadow tree, and no link inside a Maildir is followed.
#[test]
fn a_missing_root_and_a_linked_directory_are_temporary() {
    let temp = Temp::new();
    let store = Store::new("h", Sync::None);
    let mut away = temp.targets(1);
    away.iter_mut().for_each(|t| t.root = temp.0.join("away"));
    assert_eq!(
        store.begin(&trace(), away).commit().unwrap_err().reply,
        reply::MAILBOX_AWAY
    );
    std::fs::create_dir_all(temp.0.join("d/u0")).unwrap();
    std::os::unix::fs::symlink("/", temp.0.join("d/u0/new")).unwrap();
    let refused = store.begin(&trace(), temp.targets(1)).commit().unwrap_err();
    assert_eq!(refused.reply, reply::MAILBOX_UNUSABLE);
}

/// F01, F02, F03, F04, F07, F08, F09, F12, F21: the n-th call fails, for every n.
#[test]
fn every_fault_is_all_or_nothing() {
    use nix::errno::Errno;
    for errno in [
        Errno::EIO,
        Errno::ENOSPC,
        Errno::EDQUOT,
        Errno::EMFILE,
        Errno::EROFS,
    ] {
        for users in [1, 3] {
            let mut failing = 0;
            loop {
                let temp = Temp::new();
                let mut store = Store::new("h", Sync::Full);
                let calls = AtomicUsize::new(0);
                store.gate = Some(Box::new(move |_| {
                    let now = calls.fetch_add(1, Ordering::Relaxed);
                    if now == failing {
                        Err(io::Error::from_raw_os_error(errno as i32))
                    } else {
                        Ok(())
                    }
                }));
                let mut spool = store.begin(&trace(), temp.targets(users));
                spool.write(&vec![b'x'; 150_000]);
                let outcome = spool.commit();
                let expected = usize::from(outcome.is_ok());
                for user in 0..users {
                    assert_eq!(
                        temp.files(user, "new").len(),
                        expected,
                        "{errno} at {failing}"
                    );
                    assert_eq!(temp.files(user, "tmp").len(), 0, "{errno} at {failing}");
                }
                match outcome {
                    Ok(_) => break,
                    Err(refused) => {
                        let code = match errno {
                            Errno::ENOSPC => reply::DISK_FULL,
                            Errno::EDQUOT => reply::MAILBOX_FULL,
                            _ => reply::LOCAL_ERROR,
                        };
                        assert_eq!(refused.reply, code);
                    }
                }
                failing += 1;
            }
            assert!(failing >= 5, "the calls of a delivery were counted");
        }
    }
}

/// R069: more than a hundred Received fields are a loop.
#[test]
fn a_loop_is_refused() {
    let temp = Temp::new();
    let store = Store::new("h", Sync::None);
    for (count, good) in [(100, true), (101, false)] {
        let mut spool = store.begin(&trace(), temp.targets(1));
        spool.write("Received: x\n".repeat(count).as_bytes());
        assert_eq!(spool.commit().is_ok(), good);
    }
}

/// R219: files of dead deliveries go after 36 hours, younger ones stay.
#[test]
fn old_tmp_files_are_swept() {
    let temp = Temp::new();
    let tmp = temp.0.join("d/u0/tmp");
    std::fs::create_dir_all(&tmp).unwrap();
    for (name, hours) in [("old", 37), ("young", 35)] {
        let file = File::create(tmp.join(name)).unwrap();
        let age = std::time::Duration::from_secs(hours * 3_600);
        file.set_modified(SystemTime::now() - age).unwrap();
    }
    let store = Store::new("h", Sync::None);
    store.begin(&trace(), temp.targets(1)).commit().unwrap();
    assert_eq!(temp.files(0, "tmp"), [tmp.join("young")]);
}

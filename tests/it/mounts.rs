//! Mailboxes of which a part is another file system or another mount, or becomes full or read-only. Needs root;
//! otherwise these tests are skipped with a message.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::relay::{self, front};
use crate::room::Mounted;
use crate::scripted::Hop;
use crate::server::{Server, Setup};

fn serve(args: &[&str]) -> Server {
    let common = ["-d", "x.test"];
    let args = common.iter().chain(args).map(|arg| (*arg).to_owned());
    let dirs = ["bob/cur", "alice/tmp", "alice/new", "alice/cur"];
    let setup = Setup {
        args: args.collect(),
        dirs: dirs.map(|dir| format!("mail/x.test/{dir}")).into(),
        ..Setup::default()
    };
    Server::launch(&setup).unwrap()
}

fn alice(server: &Server) -> PathBuf {
    server.dir.join("mail/x.test/alice")
}

/// The codes of the replies to the recipients and to the message, which is marked as junk.
fn send(server: &Server, to: &[&str]) -> Vec<String> {
    let mut client = server.client();
    client.send(b"EHLO c\r\nMAIL FROM:<>\r\n");
    (0..3).for_each(|_| assert!(client.reply().starts_with('2')));
    let mut codes = Vec::new();
    for to in to {
        client.send(format!("RCPT TO:<{to}@x.test>\r\n").as_bytes());
        codes.push(client.reply());
    }
    client.send(b"DATA\r\n");
    if client.reply().starts_with("354") {
        client.send(b"X-Spam: Yes\r\n\r\nx\r\n.\r\n");
        codes.push(client.reply());
    }
    codes.iter().map(|reply| reply[..9].to_owned()).collect()
}

const TAKEN: &str = "250 2.1.5";
const DELIVERED: &str = "250 2.0.0";
const UNUSABLE: &str = "451 4.2.0";

/// Nothing can be moved from tmp/ to new/ then. Told at the end, it would fail everybody's message.
#[test]
fn parts_that_are_mounts_are_told_at_rcpt() {
    for part in ["tmp", "new"] {
        for bind in [false, true] {
            let server = serve(&[]);
            let dir = alice(&server).join(part);
            let mounted = match bind {
                true => Mounted::bind(&dir),
                false => Mounted::new("tmpfs", &dir, "size=1m"),
            };
            if mounted.is_none() {
                return;
            }
            let codes = send(&server, &["alice", "bob"]);
            assert_eq!(codes, [UNUSABLE, TAKEN, DELIVERED], "{part} {bind}");
            server.logged("call=\"rename\"");
        }
    }
    // Mail never goes to cur/.
    let server = serve(&[]);
    fs::remove_dir(alice(&server).join("tmp")).unwrap();
    if let Some(_mounted) = Mounted::bind(&alice(&server).join("cur")) {
        assert_eq!(send(&server, &["alice"]), [TAKEN, DELIVERED]);
    }
}

/// A folder may be a mount: junk for it is copied from the tmp/ of the inbox, and maildirsize is not made there.
#[test]
fn folders_that_are_mounts() {
    for (to, bind) in [("alice", false), ("alice", true), ("alice+Junk", true)] {
        let server = serve(&["--junk", "X-Spam:Yes", "--quota", "1M"]);
        let dir = alice(&server).join(".Junk");
        fs::create_dir(&dir).unwrap();
        let mounted = match bind {
            true => Mounted::bind(&dir),
            false => Mounted::new("tmpfs", &dir, "size=1m"),
        };
        if mounted.is_none() {
            return;
        }
        assert_eq!(send(&server, &[to]), [TAKEN, DELIVERED], "{to} {bind}");
        assert_eq!(server.messages("x.test/alice/.Junk").len(), 1);
        let sizes = fs::read_to_string(alice(&server).join("maildirsize")).unwrap();
        assert!(sizes.starts_with("1048576S\n"), "{sizes}");
    }
}

/// Junk goes to the inbox then, and others get theirs.
#[test]
fn a_junk_folder_that_takes_nothing() {
    for full in [false, true] {
        let server = serve(&["--junk", "X-Spam:Yes"]);
        let dir = alice(&server).join(".Junk");
        fs::create_dir_all(dir.join("new")).unwrap();
        let mounted = match full {
            true => Mounted::new("tmpfs", &dir, "size=8k"),
            false => Mounted::bind(&dir),
        };
        if mounted.is_none() {
            return;
        }
        match full {
            true => drop(fs::write(dir.join("filler"), [0; 10_000])),
            false => remount_read_only(&dir, "remount,bind,ro"),
        }
        let codes = send(&server, &["alice", "bob"]);
        assert_eq!(codes, [TAKEN, TAKEN, DELIVERED], "full: {full}");
        assert_eq!(server.messages("x.test/alice").len(), 1);
        assert!(server.messages("x.test/alice/.Junk").is_empty());
    }
}

fn remount_read_only(dir: &Path, options: &str) {
    let mut remount = Command::new("mount");
    remount.args(["-o", options]).arg(dir);
    assert!(remount.status().unwrap().success());
}

/// A read-only root that is full, as squashfs always is, says nothing about the mailboxes mounted on it.
#[test]
fn a_read_only_root_with_mailboxes_on_it() {
    let server = serve(&[]);
    let root = server.dir.join("mail");
    let Some(_root) = Mounted::new("tmpfs", &root, "size=16k") else {
        return;
    };
    let dir = alice(&server);
    fs::create_dir_all(&dir).unwrap();
    let _mailbox = Mounted::new("tmpfs", &dir, "size=1m").unwrap();
    let _ = fs::write(root.join("filler"), [0; 100_000]);
    remount_read_only(&root, "remount,ro");
    assert_eq!(send(&server, &["alice"]), [TAKEN, DELIVERED]);
}

/// What an unmounted volume leaves is not the mail root: mail there would be hidden when it is mounted again.
#[test]
fn a_mail_root_that_is_unmounted() {
    for create in [false, true] {
        let server = serve(if create { &["--create"] } else { &[] });
        let root = server.dir.join("mail");
        let Some(mounted) = Mounted::new("tmpfs", &root, "size=1m") else {
            return;
        };
        fs::create_dir_all(root.join("x.test/carol/cur")).unwrap();
        assert_eq!(send(&server, &["carol"]), [TAKEN, DELIVERED]);
        drop(mounted);
        server.signal(nix::sys::signal::Signal::SIGHUP);
        server.reloaded();
        for to in ["carol", "alice", "nobody", "postmaster"] {
            assert_eq!(send(&server, &[to]), ["451 4.2.1"], "{to} {create}");
        }
        assert!(!root.join("x.test/carol").exists());
        let Some(_mounted) = Mounted::new("tmpfs", &root, "size=1m") else {
            return;
        };
        fs::create_dir_all(root.join("x.test/carol/cur")).unwrap();
        assert_eq!(send(&server, &["carol"]), [TAKEN, DELIVERED]);
    }
}

/// After the first message that fails, RCPT tells, and others get theirs.
#[test]
fn a_mailbox_that_becomes_read_only_or_full() {
    for full in [false, true] {
        let server = serve(&[]);
        let dir = alice(&server);
        let Some(_mounted) = Mounted::new("tmpfs", &dir, "size=64k") else {
            return;
        };
        assert_eq!(send(&server, &["alice", "bob"]).len(), 3);
        let (told, failed) = match full {
            true => {
                let _ = fs::write(dir.join("filler"), [0; 100_000]);
                ("452 4.3.1", "452 4.3.1")
            }
            false => {
                remount_read_only(&dir, "remount,ro");
                (UNUSABLE, "451 4.3.0")
            }
        };
        // Its directories are open.
        assert_eq!(send(&server, &["alice", "bob"]), [TAKEN, TAKEN, failed]);
        let codes = send(&server, &["alice", "bob"]);
        assert_eq!(codes, [told, TAKEN, DELIVERED], "full: {full}");
    }
}

/// The same for the directory that holds the Maildir of an account, such as a home.
#[test]
fn a_home_that_is_unmounted() {
    for (pattern, extra) in [("%h/Maildir", ""), ("mail/%u", "userdb_mail=maildir:~/box")] {
        let home = std::env::temp_dir().join(format!("mailslot-home-{}", std::process::id()));
        let users = format!("alice:x::::{}::{extra}\n", home.display());
        let setup = Setup {
            args: ["-d", "x.test", "--users", "users", "--maildir", pattern]
                .map(str::to_owned)
                .into(),
            dirs: vec!["mail".into()],
            files: vec![("users".into(), users)],
            ..Setup::default()
        };
        fs::create_dir(&home).unwrap();
        let server = Server::launch(&setup).unwrap();
        let mounted = Mounted::new("tmpfs", &home, "size=1m");
        let sent = mounted.map(|mounted| {
            let before = send(&server, &["alice"]);
            drop(mounted);
            (before, send(&server, &["alice"]))
        });
        let left = fs::read_dir(&home).unwrap().count();
        fs::remove_dir_all(&home).unwrap();
        let Some((before, after)) = sent else { return };
        assert_eq!(before, [TAKEN, DELIVERED], "{pattern}");
        assert_eq!((after, left), (vec![UNUSABLE.to_owned()], 0), "{pattern}");
    }
}

/// A report for a sender here waits for the volume, too: it would be hidden under the mount.
#[test]
fn a_report_waits_for_an_unmounted_mail_root() {
    let refuse = |line: &str| line.starts_with("RCPT").then_some("550 5.1.1 no\r\n");
    let hop = Hop::answering(&[], refuse);
    let server = front(&[&hop.url], &[]);
    let root = server.dir.join("mail");
    let Some(mounted) = Mounted::new("tmpfs", &root, "size=1m") else {
        return;
    };
    relay::send(&server, "", &["carol@a.test"], "x");
    drop(mounted);
    relay::send(&server, "alice@a.test", &["bob@b.test"], "x");
    server.logged("outcome=failed");
    server.logged("Mailbox not available now");
    assert!(!root.join("a.test").exists());
    let _mounted = Mounted::new("tmpfs", &root, "size=1m");
    relay::wait_for(&server, "a.test/alice", 1);
}

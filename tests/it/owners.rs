//! Mail for a host's own users, delivered by root: it belongs to them, and a hostile user cannot hurt others. Needs
//! root; otherwise it is skipped with a message.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::server::{Client, Server, Setup};

const ALICE: u32 = 3_999_990;
const BOB: u32 = 3_999_991;

/// A server by root whose accounts have homes, and two users with one each.
fn serve(users: &str) -> Option<Server> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: not root");
        return None;
    }
    let args = ["--users", "users", "--maildir", "%h/Maildir"];
    let setup = Setup {
        listen: vec!["lmtp://127.0.0.1:0".into()],
        args: args.map(str::to_owned).into(),
        files: vec![(
            "users".into(),
            "nobody:x:65534:65534::/nonexistent\n".into(),
        )],
        ..Setup::default()
    };
    let server = Server::launch(&setup).unwrap();
    let home = |name: &str| server.dir.join(name).display().to_string();
    let users = users
        .replace("ALICE", &home("alice"))
        .replace("BOB", &home("bob"));
    std::fs::write(server.dir.join("users"), users).unwrap();
    for (name, uid) in [("alice", ALICE), ("bob", BOB)] {
        let home = server.dir.join(name);
        std::fs::create_dir(&home).unwrap();
        chown(&home, Some(uid), Some(uid)).unwrap();
    }
    server.signal(nix::sys::signal::Signal::SIGHUP);
    server.reloaded();
    Some(server)
}

/// The replies of a new connection to the recipients, then to the message for those accepted.
fn send(client: &mut Client, to: &[&str]) -> Vec<String> {
    client.send(b"LHLO c\r\nMAIL FROM:<>\r\n");
    (0..3).for_each(|_| assert!(client.reply().starts_with('2')));
    let mut replies = Vec::new();
    for to in to {
        client.send(format!("RCPT TO:<{to}@localhost>\r\n").as_bytes());
        replies.push(client.reply());
    }
    let accepted = replies.iter().filter(|reply| reply.starts_with("250"));
    let accepted = accepted.count();
    client.send(b"DATA\r\n");
    assert!(client.reply().starts_with("354"));
    client.send(b"Subject: x\r\n\r\n.\r\n");
    replies.extend((0..accepted).map(|_| client.reply()));
    replies
}

fn new(home: &Path) -> Vec<PathBuf> {
    let dir = std::fs::read_dir(home.join("Maildir/new"));
    let entries = dir.into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

const USERS: &str = "alice:x:3999990:3999990::ALICE\nbob:x:3999991:3999991::BOB\ngone:x:3999991:3999991::BOB/gone\n";

/// Mail for a user who removed their own rights on the Maildir is deferred at RCPT; nobody else's message fails.
#[test]
fn a_directory_closed_by_its_owner_is_refused_at_rcpt() {
    for (part, mode, to_alice) in [
        ("Maildir/new", 0o300, "451 4.2.0"),
        ("Maildir/cur", 0o200, "451 4.2.0"),
        ("Maildir", 0o600, "451 4.2.0"),
        ("Maildir/cur", 0o500, "250 2.1.5"),
    ] {
        let Some(server) = serve(USERS) else { return };
        let home = server.dir.join("alice");
        for name in ["Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"] {
            std::fs::create_dir(home.join(name)).unwrap();
            chown(home.join(name), Some(ALICE), Some(ALICE)).unwrap();
        }
        std::fs::set_permissions(home.join(part), Permissions::from_mode(mode)).unwrap();
        let replies = send(&mut server.client(), &["alice", "bob"]);
        assert!(replies[0].starts_with(to_alice), "{part} {mode:o}");
        let rest = replies.iter().skip(1);
        assert!(
            rest.clone().all(|reply| reply.starts_with("250")),
            "{replies:?}"
        );
        assert_eq!(new(&server.dir.join("bob")).len(), 1);
    }
}

/// As root leaves a Maildir that it made for a user: delivery enters it with the user's rights.
#[test]
fn a_maildir_that_its_owner_cannot_enter_is_refused_at_rcpt() {
    for (part, mode, to_alice) in [
        ("Maildir", 0o700, "451 4.2.0"),
        ("Maildir/new", 0o700, "451 4.2.0"),
        ("Maildir/cur", 0o700, "451 4.2.0"),
        ("Maildir", 0o755, "250 2.1.5"),
    ] {
        let Some(server) = serve(USERS) else { return };
        let home = server.dir.join("alice");
        for name in ["Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"] {
            std::fs::create_dir(home.join(name)).unwrap();
            chown(home.join(name), Some(ALICE), Some(ALICE)).unwrap();
        }
        chown(home.join(part), Some(0), Some(0)).unwrap();
        std::fs::set_permissions(home.join(part), Permissions::from_mode(mode)).unwrap();
        let replies = send(&mut server.client(), &["alice", "bob"]);
        assert!(replies[0].starts_with(to_alice), "{part} {replies:?}");
        let mut rest = replies.iter().skip(1);
        assert!(rest.all(|reply| reply.starts_with("250")), "{replies:?}");
    }
}

#[test]
fn mail_belongs_to_the_hosts_own_users() {
    let Some(server) = serve(USERS) else { return };
    let mut client = server.client();
    let replies = send(&mut client, &["alice", "bob", "gone"]);
    let codes: Vec<&str> = replies.iter().map(|reply| &reply[..9]).collect();
    let (taken, delivered) = ("250 2.1.5", "250 2.0.0");
    assert_eq!(codes, [taken, taken, "451 4.2.0", delivered, delivered]);
    for (name, uid) in [("alice", ALICE), ("bob", BOB)] {
        let home = server.dir.join(name);
        let new = new(&home);
        for path in [&new[0], &home.join("Maildir"), &home.join("Maildir/tmp")] {
            let found = std::fs::metadata(path).unwrap();
            assert_eq!((found.uid(), found.gid()), (uid, uid), "{path:?}");
        }
    }
}

/// A stalled file system, mounted by a user over a directory.
struct Fuse {
    dir: PathBuf,
    holder: Child,
}

impl Fuse {
    fn mount(dir: &Path, uid: u32) -> Option<Self> {
        let options = format!("fd=3,rootmode=40000,user_id={uid},group_id={uid}");
        let script = "exec 3<>/dev/fuse && mount -i -t fuse -o \"$1\" silent \"$2\" && echo mounted && exec cat";
        let mut holder = Command::new("sh")
            .args(["-c", script, "sh", &options])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut said = [0; 7];
        let out = holder.stdout.as_mut()?;
        let mounted = std::io::Read::read_exact(out, &mut said).is_ok();
        let dir = dir.to_owned();
        let fuse = Self { dir, holder };
        mounted.then_some(fuse)
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
    }
}

/// A Maildir on a file system that its user serves and lets stall: only that user may enter it, so it is refused at
/// once.
#[test]
fn a_maildir_on_a_users_own_file_system_holds_up_nobody() {
    let Some(server) = serve(USERS) else { return };
    let maildir = server.dir.join("bob/Maildir");
    std::fs::create_dir(&maildir).unwrap();
    chown(&maildir, Some(BOB), Some(BOB)).unwrap();
    let Some(_mounted) = Fuse::mount(&maildir, BOB) else {
        eprintln!("skipped: no file system of FUSE can be mounted");
        return;
    };
    let replies = send(&mut server.client(), &["bob", "alice"]);
    assert!(replies[0].starts_with("451"), "{replies:?}");
    assert!(replies[2].starts_with("250 2.0.0"), "{replies:?}");
    assert_eq!(new(&server.dir.join("alice")).len(), 1);
}

/// A warning at the start: mail would belong to root, but the mailbox's directories belong to a user.
#[test]
fn root_beside_a_users_maildir_says_so() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: not root");
    }
    let server = Server::start(&["--create"]);
    // It has looked at the owners once it serves.
    assert!(server.client().reply().starts_with("220"));
    let maildir = server.dir.join("mail/localhost/alice");
    std::fs::create_dir_all(&maildir).unwrap();
    chown(&maildir, Some(ALICE), Some(ALICE)).unwrap();
    let again = Command::new(env!("CARGO_BIN_EXE_mailslot"))
        .args(["--listen", "smtp://127.0.0.1:0", "--create"])
        .current_dir(&server.dir)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let again = Server::attach(again, server.dir.join("none"), 1).unwrap();
    again
        .logged("mail/localhost/alice belongs to user 3999990, but mail there will belong to root");
    assert!(!server.log().contains("belongs to user"));
}

/// Older versions left directories of Maildirs to root: mail for them is refused, with a warning at the start.
#[test]
fn a_part_that_belongs_to_root_is_named() {
    let Some(server) = serve(USERS) else { return };
    let alice = server.dir.join("alice/Maildir");
    for part in ["cur", "new", "tmp"] {
        std::fs::create_dir_all(alice.join(part)).unwrap();
        chown(alice.join(part), Some(ALICE), Some(ALICE)).unwrap();
    }
    chown(&alice, Some(ALICE), Some(ALICE)).unwrap();
    let new_dir = alice.join("new");
    chown(&new_dir, Some(0), Some(0)).unwrap();
    std::fs::set_permissions(&new_dir, PermissionsExt::from_mode(0o700)).unwrap();
    let replies = send(&mut server.client(), &["alice", "bob"]);
    let last = replies.last().unwrap();
    assert!(last.starts_with("250 2.0.0"), "bob has his: {replies:?}");
    assert_eq!(
        replies
            .iter()
            .filter(|r| r.starts_with("451 4.2.0"))
            .count(),
        1
    );
    let start = || {
        let args = ["--users", "users", "--maildir", "%h/Maildir"];
        let child = Command::new(env!("CARGO_BIN_EXE_mailslot"))
            .args(["--listen", "lmtp://127.0.0.1:0"])
            .args(args)
            .current_dir(&server.dir)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Server::attach(child, server.dir.join("none"), 1).unwrap()
    };
    start().logged("user 3999990 may not write in ");
    let check = || {
        let output = Command::new(env!("CARGO_BIN_EXE_mailslot"))
            .args(["--check", "--users", "users", "--maildir", "%h/Maildir"])
            .current_dir(&server.dir)
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(check().contains("user 3999990 may not write in "));
    chown(&new_dir, Some(ALICE), Some(ALICE)).unwrap();
    let mended = start();
    let replies = send(&mut mended.client(), &["alice"]);
    assert!(replies[1].starts_with("250 2.0.0"), "{replies:?}");
    assert!(!mended.log().contains("may not write"));
    assert!(!check().contains("may not write"));
}

//! The rights that remain after a start as root, and a server alone in a minimal root directory: pid 1, with an unknown
//! uid. Needs root; otherwise it is skipped with a message.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::relay;
use crate::scripted::Hop;
use crate::server::{Server, Setup};

const UID: u32 = 3_999_998;
const GID: u32 = 3_999_999;

fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: not root");
    }
    root
}

fn send(server: &Server, to: &str) -> String {
    let mut client = server.client();
    client.send(format!("EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<{to}@localhost>\r\n").as_bytes());
    (0..3).for_each(|_| assert!(client.reply().starts_with('2')));
    let reply = client.reply();
    if !reply.starts_with('2') {
        return reply;
    }
    client.send(b"DATA\r\n");
    assert!(client.reply().starts_with("354"));
    client.send(b"Subject: x\r\n\r\n.\r\n");
    client.reply()
}

/// The words of a line of /proc/PID/status.
fn status(pid: u32, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn privileges_are_gone_and_reloads_read_inside() {
    if !root() {
        return;
    }
    let run_as = format!("{UID}:{GID}");
    let args = [
        "--users",
        "users",
        "--maildir",
        "mail/%u",
        "--chroot",
        ".",
        "--run-as",
        &run_as,
    ];
    let setup = Setup {
        args: args.map(str::to_owned).into(),
        dirs: vec!["mail".into()],
        files: vec![("users".into(), "alice:{PLAIN}x\n".into())],
        ..Setup::default()
    };
    let server = Server::launch(&setup).unwrap();
    server.logged("mail for");
    chown(server.dir.join("mail"), Some(UID), Some(GID)).unwrap();
    assert!(send(&server, "alice").starts_with("250"));
    assert!(send(&server, "bob").starts_with("550"));
    std::fs::write(server.dir.join("users"), "bob:{PLAIN}x\n").unwrap();
    server.signal(Signal::SIGHUP);
    server.reloaded();
    assert!(send(&server, "bob").starts_with("250"));
    let pid = server.pid();
    assert_eq!(status(pid, "Uid:"), vec![UID.to_string(); 4]);
    assert_eq!(status(pid, "Gid:"), vec![GID.to_string(); 4]);
    assert!(status(pid, "Groups:").is_empty());
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(status(pid, set), ["0000000000000000"], "{set}");
    }
    assert_eq!(status(pid, "NoNewPrivs:"), ["1"]);
    assert_eq!(
        std::fs::read_link(format!("/proc/{pid}/root")).unwrap(),
        server.dir
    );
}

/// A directory that is a mount outside, as /proc is everywhere, need not be one inside.
#[test]
fn the_mail_root_is_that_inside() {
    if !root() {
        return;
    }
    let args = ["--maildir", "/proc/%u", "--chroot", "."];
    let setup = Setup {
        args: args.map(str::to_owned).into(),
        dirs: vec!["proc/alice".into()],
        ..Setup::default()
    };
    let server = Server::launch(&setup).unwrap();
    let reply = send(&server, "alice");
    assert!(reply.starts_with("250"), "{reply}");
}

/// A reload may name owners: no thread that assumes a user's rights may have groups of root's.
#[test]
fn no_groups_where_there_are_users() {
    if !root() {
        return;
    }
    for (args, groups) in [
        (&["--create"][..], vec!["3999996"]),
        (&["--users", "users"], vec![]),
    ] {
        let name = format!("mailslot-groups-{}-{}", std::process::id(), args.len());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("users"), "alice:{PLAIN}x\n").unwrap();
        let child = Command::new("setpriv")
            .args(["--groups", "3999996", env!("CARGO_BIN_EXE_mailslot")])
            .args(["--listen", "smtp://127.0.0.1:0"])
            .args(args)
            .current_dir(&dir)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let server = Server::attach(child, dir, 1).unwrap();
        // Once it answers, everything of the start is done.
        let mut client = server.client();
        client.reply();
        assert_eq!(status(server.pid(), "Groups:"), groups, "{args:?}");
    }
}

/// Next hops are found with the files for name resolution of the system, which a chroot has not.
#[test]
fn names_are_known_after_a_chroot() {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let mut names = hosts.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        words.next().filter(|address| *address == "127.0.0.1")?;
        words.find(|name| !name.eq_ignore_ascii_case("localhost"))
    });
    let Some(name) = names.next().filter(|_| root()) else {
        return eprintln!("skipped: not root, or the host has no name");
    };
    let hop = Hop::start(&[]);
    let url = hop.url.replace("127.0.0.1", name);
    let args = [
        "--create",
        "--chroot",
        ".",
        "--relay",
        &url,
        "--relay-from",
        "127.0.0.0/8",
    ];
    let setup = Setup {
        args: args.map(str::to_owned).into(),
        ..Setup::default()
    };
    let server = Server::launch(&setup).unwrap();
    relay::send(&server, "a@a.test", &["x@far.test"], "x");
    hop.heard("RCPT TO:<x@far.test>");
}

/// A server that cannot change its user does not start.
#[test]
fn an_unusable_user_is_71() {
    if !root() {
        return;
    }
    let binary = env!("CARGO_BIN_EXE_mailslot");
    let mut server = Command::new("setpriv");
    server.args([
        "--reuid",
        "3999997",
        "--regid",
        "3999997",
        "--clear-groups",
        binary,
    ]);
    server.args(["--listen", "smtp://127.0.0.1:0", "--run-as", "3999998"]);
    let output = server.current_dir("/").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(71), "{said}");
    assert!(said.contains("mailslot: --run-as: "), "{said}");
}

/// F67, F58: a container with only the binary, read-only, without an environment or files for name resolution, as pid
/// 1 of its own namespace.
#[test]
fn alone_as_pid_1() {
    if !root() {
        return;
    }
    let name = format!("mailslot-alone-{}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(dir.join("mail")).unwrap();
    chown(dir.join("mail"), Some(UID), Some(GID)).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_mailslot"), dir.join("mailslot")).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o555)).unwrap();
    let said = in_container(&dir, "--version");
    if said.is_some_and(|said| said.starts_with("mailslot ")) {
        serve_alone(&dir);
    } else {
        eprintln!("skipped: no new namespace of process ids here, or not a static binary");
    }
    // A server that was started has removed it.
    let _ = std::fs::remove_dir_all(&dir);
}

fn container(dir: &Path) -> Command {
    let mut command = Command::new("unshare");
    let user = format!("--userspec={UID}:{GID}");
    command.args(["--pid", "--fork", "--kill-child", "chroot", &user]);
    command.arg(dir).arg("/mailslot").env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

fn in_container(dir: &Path, arg: &str) -> Option<String> {
    let output = container(dir).arg(arg).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn serve_alone(dir: &Path) {
    let mut command = container(dir);
    command.args(["--listen", "smtp://127.0.0.1:0", "--hostname", "mx.test"]);
    command.args(["--create", "--maildir", "/mail/%d/%u"]);
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut server = Server::attach(child, dir.to_owned(), 1).unwrap();
    let reply = send(&server, "alice");
    assert!(reply.starts_with("250"), "{reply}");
    // `unshare` is the parent, and pid 1 inside is its only child.
    let children = format!("/proc/{0}/task/{0}/children", server.pid());
    let inner = std::fs::read_to_string(children).unwrap();
    let inner = inner.trim().parse().unwrap();
    assert_eq!(status(inner, "NSpid:").last().unwrap(), "1");
    let url = server.urls[0].clone();
    let checked = container(dir)
        .arg(format!("--healthcheck={url}"))
        .status()
        .unwrap();
    assert!(checked.success());
    // As pid 1 it has no default action for signals: SIGTERM must be asked for.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(inner as i32), Signal::SIGTERM).unwrap();
    assert_eq!(server.ended(), Some(0));
}

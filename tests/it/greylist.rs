//! `--greylist`: who is deferred and who is not, and the file that survives a restart.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::server::{Client, Server, Setup};
use crate::throttle::{ask, from, login};

fn launch(scheme: &str, args: &str) -> Server {
    let more = "--users users --insecure-auth --max-errors 1000000";
    let args = format!("--trust 127.0.0.1 -d a.test {more} {args}");
    Server::launch(&Setup {
        listen: vec![format!("{scheme}://127.0.0.1:0?proxy")],
        args: args.split_whitespace().map(str::to_owned).collect(),
        dirs: vec!["mail".into()],
        files: vec![(
            "users".into(),
            "alice:{PLAIN}right\nbob:{PLAIN}right\n".into(),
        )],
        ..Setup::default()
    })
    .unwrap()
}

/// Recipients per connection, because commands without mail are limited.
const COMMANDS: usize = 90;

/// The answer to a recipient.
fn rcpt(client: &mut Client, sender: &str, recipient: &str) -> String {
    assert_eq!(ask(client, "RSET"), "250 2.0.0");
    let sender = ask(client, &format!("MAIL FROM:<{sender}>"));
    assert_eq!(sender, "250 2.1.0");
    ask(client, &format!("RCPT TO:<{recipient}>"))
}

/// Tries as a server with a queue does, until it is accepted.
fn retry(server: &Server, address: &str) -> Duration {
    let begun = Instant::now();
    let mut client = from(server, address);
    for number in 1.. {
        match rcpt(&mut client, "s@b.test", "bob@a.test").as_str() {
            "451 4.7.1" => assert!(begun.elapsed() < Duration::from_secs(20)),
            reply => {
                assert_eq!(reply, "250 2.1.5");
                break;
            }
        }
        if number % COMMANDS == 0 {
            client = from(server, address);
        }
    }
    begun.elapsed()
}

/// A server that retries passes after the delay, and from then on its network does at once.
#[test]
fn a_sender_that_retries_passes() {
    let server = launch("smtp", "--greylist 2s");
    let mut client = from(&server, "192.0.2.1");
    // Only acceptable recipients are deferred; others get their real refusal.
    assert_eq!(rcpt(&mut client, "s@b.test", "no@a.test"), "550 5.1.1");
    assert_eq!(rcpt(&mut client, "s@b.test", "bob@b.test"), "550 5.7.1");
    assert_eq!(rcpt(&mut client, "", "bob@a.test"), "451 4.7.1");
    server.logged("verb=RCPT address=\"bob@a.test\" reply=\"451 4.7.1");
    // Time is told in whole seconds.
    assert!(retry(&server, "192.0.2.1") >= Duration::from_secs(1));
    let mut neighbour = from(&server, "192.0.2.254");
    assert_eq!(rcpt(&mut neighbour, "", "alice@a.test"), "250 2.1.5");
    let mut stranger = from(&server, "192.0.3.1");
    assert_eq!(rcpt(&mut stranger, "s@b.test", "bob@a.test"), "451 4.7.1");
}

/// A spammer uses a new reverse-path each time and never retries, so nothing passes.
#[test]
fn a_spam_pattern_does_not_pass() {
    let server = launch("smtp", "--greylist 1s");
    let mut client = from(&server, "2001:db8::1");
    let begun = Instant::now();
    let mut number = 0;
    while begun.elapsed() < Duration::from_millis(1_500) {
        let sender = format!("{number}@spam.test");
        assert_eq!(rcpt(&mut client, &sender, "bob@a.test"), "451 4.7.1");
        number += 1;
        if number % COMMANDS == 0 {
            client = from(&server, "2001:db8::2");
        }
    }
    assert!(number > 1);
}

/// Users, trusted and relaying clients, submission and LMTP are not delayed.
#[test]
fn clients_that_are_not_deferred() {
    let server = launch("smtp", "--greylist 1h");
    let mut user = from(&server, "192.0.2.1");
    assert_eq!(login(&mut user, "alice", "right"), "235 2.7.0");
    assert_eq!(rcpt(&mut user, "s@b.test", "bob@a.test"), "250 2.1.5");
    // The proxy's own connection.
    let mut proxy = server.client();
    proxy.send(b"PROXY UNKNOWN\r\nEHLO c\r\n");
    assert!(proxy.reply().starts_with("220") && proxy.reply().starts_with("250"));
    assert_eq!(rcpt(&mut proxy, "s@b.test", "bob@a.test"), "250 2.1.5");
    assert_eq!(ask(&mut proxy, "RSET"), "250 2.0.0");
    assert!(ask(&mut proxy, "XCLIENT ADDR=192.0.2.1").starts_with("220"));
    assert!(ask(&mut proxy, "EHLO c").starts_with("250"));
    assert_eq!(rcpt(&mut proxy, "s@b.test", "bob@a.test"), "451 4.7.1");

    let relay = "--greylist 1h --relay smtp://127.0.0.1:9 --relay-from 192.0.2.0/24";
    let server = launch("smtp", relay);
    let mut exempt = from(&server, "192.0.2.1");
    assert_eq!(rcpt(&mut exempt, "s@b.test", "bob@a.test"), "250 2.1.5");
    let mut other = from(&server, "192.0.3.1");
    assert_eq!(rcpt(&mut other, "s@b.test", "bob@a.test"), "451 4.7.1");

    let server = launch("lmtp", "--greylist 1h");
    let mut client = server.client();
    client.send(b"PROXY TCP4 192.0.2.1 192.0.2.9 4711 24\r\nLHLO c\r\n");
    assert!(client.reply().starts_with("220") && client.reply().starts_with("250"));
    assert_eq!(rcpt(&mut client, "s@b.test", "bob@a.test"), "250 2.1.5");
}

/// The file is written at the end and read at the start.
#[test]
fn the_list_survives_a_restart() {
    let mut first = launch("smtp", "--greylist 1s,grey");
    retry(&first, "192.0.2.1");
    assert_eq!(first.stop(), Some(0));
    let file = first.dir.join("grey");
    let args = format!("--greylist 1h,{}", file.display());
    let second = launch("smtp", &args);
    let mut client = from(&second, "192.0.2.1");
    assert_eq!(rcpt(&mut client, "", "alice@a.test"), "250 2.1.5");
    drop(second);
    std::fs::write(&file, b"no greylist").unwrap();
    let third = launch("smtp", &args);
    third.logged("damaged, the greylist begins empty");
    let mut client = from(&third, "192.0.2.1");
    assert_eq!(rcpt(&mut client, "", "alice@a.test"), "451 4.7.1");
}

/// The number of system calls with a path that the server makes while a client names a recipient so many times.
fn path_calls(args: &str, recipient: &str, reply: &str, times: usize) -> Option<usize> {
    let dir = std::env::temp_dir().join(format!(
        "mailslot-looks-{}-{}-{times}",
        std::process::id(),
        recipient
    ));
    let dir = Jail(dir);
    std::fs::create_dir_all(dir.0.join("mail/a.test/bob")).unwrap();
    std::fs::write(dir.0.join("users"), "bob:x\n").unwrap();
    // The tracer is nobody's parent and ends with the server.
    let tracer = [
        "-D",
        "-f",
        "-o",
        "calls",
        "-e",
        "trace=%file",
        env!("CARGO_BIN_EXE_mailslot"),
    ];
    let options = "--hostname mx.test -d a.test --max-errors 1000 --trust 127.0.0.1";
    let child = Command::new("strace")
        .args(tracer)
        .args(["--listen", "smtp://127.0.0.1:0?proxy"])
        .args(options.split(' ').chain(args.split_whitespace()))
        .current_dir(&dir.0)
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    // Where tracing is not allowed strace ends at once.
    let mut server = Server::attach(child, dir.0.clone(), 1).ok()?;
    let mut client = from(&server, "192.0.2.1");
    for number in 0..times {
        let sender = format!("{number}@spam.test");
        assert_eq!(rcpt(&mut client, &sender, recipient), reply);
    }
    assert_eq!(server.stop(), Some(0));
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let calls = std::fs::read_to_string(dir.0.join("calls")).unwrap();
        if calls.trim_end().ends_with("+++ exited with 0 +++") {
            return Some(calls.lines().count());
        }
        assert!(Instant::now() < end, "{calls}");
        std::thread::yield_now();
    }
}

/// A flood of new triples makes no more calls than one of refused recipients, with and without a users file.
#[test]
fn a_flood_looks_at_the_disk_no_more_than_refusals_do() {
    for users in ["", "--users users"] {
        let greylist = format!("--greylist 1h {users}");
        let count = |recipient, reply| path_calls(&greylist, recipient, reply, COMMANDS);
        let Some(refused) = count("no@a.test", "550 5.1.1") else {
            eprintln!("skipped: strace does not run here");
            return;
        };
        let put_off = count("bob@a.test", "451 4.7.1").unwrap();
        // A look takes seven calls and is good for a second; the flood lasts a few.
        assert!(
            put_off <= refused + COMMANDS / 2,
            "{put_off} {refused} {users}"
        );
    }
}

/// A directory that goes with the test.
struct Jail(PathBuf);

impl Drop for Jail {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The file belongs to the user that the server runs as, inside its root; if it cannot be written, the start fails.
#[test]
fn the_file_follows_run_as_and_chroot() {
    let mut failed = launch("smtp", "--greylist 1s,missing/grey");
    failed.logged("missing/grey: --greylist: cannot write missing/grey.half");
    assert_eq!(failed.ended(), Some(78));
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: changing users and roots needs root");
        return;
    }
    let name = format!("mailslot-jail-{}", std::process::id());
    let jail = Jail(std::env::temp_dir().join(name));
    for name in ["state", "mail"] {
        std::fs::create_dir_all(jail.0.join(name)).unwrap();
        let id = Some(3_999_998);
        std::os::unix::fs::chown(jail.0.join(name), id, id).unwrap();
    }
    let run = |file: &str| {
        let jail = jail.0.display();
        let args =
            format!("--create --chroot {jail} --run-as 3999998:3999998 --greylist 1s,{file}");
        Server::launch(&Setup {
            args: args.split_whitespace().map(str::to_owned).collect(),
            ..Setup::default()
        })
        .unwrap()
    };
    let mut failed = run("/grey");
    failed.logged("/grey: --greylist: cannot write /grey.half: Permission denied");
    assert_eq!(failed.ended(), Some(78));
    let mut server = run("/state/grey");
    let mut client = server.client();
    client.send(b"EHLO c\r\n");
    assert!(client.reply().starts_with("220") && client.reply().starts_with("250"));
    let put_off = rcpt(&mut client, "s@b.test", "bob@mx.test");
    assert_eq!(put_off, "451 4.7.1");
    assert_eq!(server.stop(), Some(0));
    let kept = jail.0.join("state/grey").metadata().unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&kept), 3_999_998);
}

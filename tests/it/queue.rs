//! The queue at a start: envelopes written by hand, and damaged ones.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::relay::{queued, send, wait_for};
use crate::scripted::Hop;
use crate::server::{Server, Setup};

fn id(number: usize) -> String {
    format!("1700000000.M{number:06}P1Q1")
}

/// A server with these files in its queue.
fn start(hop: &str, files: Vec<(String, String)>) -> Server {
    let args = [
        "-d",
        "a.test",
        "--create",
        "--relay",
        hop,
        "--relay-from",
        "127.0.0.0/8",
    ];
    Server::launch(&Setup {
        args: args.map(str::to_owned).to_vec(),
        dirs: ["mail", "queue/new/1600000000.M1P1Q0", "queue/tmp"]
            .map(str::to_owned)
            .to_vec(),
        files,
        ..Setup::default()
    })
    .unwrap()
}

fn message(number: usize, envelope: String) -> [(String, String); 2] {
    let id = id(number);
    [
        (
            format!("queue/new/{id}.host,S=1"),
            format!("Subject: {number}\n\nx\n"),
        ),
        (format!("queue/new/{id}"), envelope),
    ]
}

fn empty(server: &Server, left: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while queued(server) > left {
        assert!(Instant::now() < deadline, "{} are left", queued(server));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Recipients that are due at different times are still sent as one message, not as several at once.
#[test]
fn a_message_is_sent_once_after_a_start_whenever_its_recipients_are_due() {
    let hop = Hop::start(&["PIPELINING"]);
    let envelope = |number: usize| {
        let to = (1..=9).map(|n| format!("to {} 1 m{number}r{n}@b.test\n", 1_700_000_000 + n));
        format!(
            "mailslot-envelope 1\nfrom \ncreated 1700000000\ncontent lines\n{}",
            to.collect::<String>()
        )
    };
    let files = (0..20).flat_map(|number| message(number, envelope(number)));
    let mut server = start(&hop.url, files.collect());
    empty(&server, 1);
    assert_eq!(server.stop(), Some(0));
    let heard = hop.heard("m19r9");
    for number in 0..20 {
        for n in 1..=9 {
            let rcpt = format!("RCPT TO:<m{number}r{n}@b.test>");
            assert_eq!(heard.matches(&rcpt).count(), 1, "{rcpt}");
        }
    }
}

/// An unreadable envelope is kept and logged, and blocks neither the start, nor new mail, nor the list.
#[test]
fn damaged_envelopes_hold_up_nothing() {
    let hop = Hop::start(&[]);
    let good = "mailslot-envelope 1\nfrom a@a.test\ncreated 1700000000\ncontent lines\nto 1700000000 0 good@b.test\n";
    let damaged = [
        String::new(),
        "\0".repeat(5_000),
        good.replace("created 1700000000", "created 18446744073709551616"),
        good.replace("to 1700000000 0", "to -1 0"),
        good.replace(" 0 good@b.test", ""),
        good.trim_end().to_owned(),
        good.replace("envelope 1", "envelope 9"),
        "x".repeat(5_000_000),
    ];
    let count = damaged.len();
    let files = damaged
        .into_iter()
        .enumerate()
        .flat_map(|(number, text)| message(number, text));
    let files = files.chain(message(99, good.to_owned()));
    let server = start(&hop.url, files.collect());
    hop.heard("RCPT TO:<good@b.test>");
    send(&server, "a@a.test", &["new@b.test", "here@a.test"], "x");
    hop.heard("RCPT TO:<new@b.test>");
    wait_for(&server, "a.test/here", 1);
    // The directory with the name of an envelope is one more.
    empty(&server, count + 1);
    let mut list = Command::new(env!("CARGO_BIN_EXE_mailslot"));
    let list = list
        .arg("--queue-list")
        .current_dir(&server.dir)
        .output()
        .unwrap();
    let said = String::from_utf8([list.stdout, list.stderr].concat()).unwrap();
    for number in 0..count {
        assert!(said.contains(&id(number)), "{said}");
        assert!(server.log().contains(&id(number)));
        assert!(
            server
                .dir
                .join("queue/new")
                .join(id(number) + ".host,S=1")
                .exists()
        );
    }
}

/// A server that has delivered a message and refused a remote one, so that everything created at first use exists.
#[cfg(target_os = "linux")]
fn used(relay: &[&str]) -> Server {
    let args = [&["-d", "a.test", "--create"], relay].concat();
    let server = Server::launch(&Setup {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        dirs: vec!["mail".to_owned()],
        ..Setup::default()
    })
    .unwrap();
    send(&server, "x@c.test", &["here@a.test", "there@b.test"], "x");
    wait_for(&server, "a.test/here", 1);
    server
}

/// Threads, sockets and other open files.
#[cfg(target_os = "linux")]
fn footprint(server: &Server) -> [usize; 3] {
    let list = |path: &str| std::fs::read_dir(format!("/proc/{}/{path}", server.pid())).unwrap();
    let links = list("fd").filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    let is_socket = |link: &std::path::PathBuf| link.to_string_lossy().starts_with("socket:");
    let (sockets, others): (Vec<_>, Vec<_>) = links.partition(is_socket);
    [list("task").count(), sockets.len(), others.len()]
}

/// Without a next hop there are no threads, sockets, open files or names on the disk for relaying.
#[cfg(target_os = "linux")]
#[test]
fn without_a_next_hop_nothing_of_it_is_there() {
    let (without, with) = (used(&[]), used(&["--relay", "smtp://127.0.0.1:9"]));
    assert!(!without.dir.join("queue").exists() && with.dir.join("queue").exists());
    // The thread that watches the queue and the one that `--queue-run` asks, with its socket; two folders and the lock.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (less, more) = (footprint(&without), footprint(&with));
        let relay: Vec<usize> = less
            .iter()
            .zip(more)
            .map(|(less, more)| more.abs_diff(*less))
            .collect();
        if relay.starts_with(&[2, 1]) && more[2] > less[2] {
            return;
        }
        assert!(Instant::now() < deadline, "{less:?} {more:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Mail for a domain that no URL takes any more waits for one, and comes back in the end.
#[test]
fn mail_without_a_next_hop_comes_back() {
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let envelope = |made: u64| {
        format!(
            "mailslot-envelope 1\nfrom me@a.test\ncreated {made}\ncontent lines\nto 1 1 x@gone.test\n"
        )
    };
    let files = [
        message(1, envelope(now)),
        message(2, envelope(1_700_000_000)),
    ];
    let mut server = start(
        "smtp://127.0.0.1:1?for=b.test",
        files.into_iter().flatten().collect(),
    );
    empty(&server, 2);
    let report = wait_for(&server, "a.test/me", 1).concat();
    for words in ["Status: 5.4.7", "No next hop takes mail for this domain"] {
        assert!(report.contains(words), "{report}");
    }
    server.logged("to=\"x@gone.test\" host=\"\" outcome=later status=4.4.4");
    assert_eq!(server.stop(), Some(0));
}

/// The path of the socket in it would be too long for a Unix socket.
#[cfg(target_os = "linux")]
#[test]
fn a_queue_may_be_far_down() {
    let dir = format!("{}/queue", "d".repeat(120));
    let args = ["--create", "--relay", "smtp://127.0.0.1:1", "--queue", &dir];
    let server = Server::start(&args);
    server.client().reply();
    let run = Command::new(env!("CARGO_BIN_EXE_mailslot"))
        .args(["--queue-run", "--queue", &dir])
        .current_dir(&server.dir)
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
}

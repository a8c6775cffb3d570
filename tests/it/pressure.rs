//! Overload: slow clients take all connections, in each phase, and a new client must be served once the shorter
//! timeouts have passed. Also a process with few descriptors or little memory.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::server::{Client, Server, Setup};
use crate::tls;

const SLOTS: usize = 5;
const MAIL: &[u8] = b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<n@localhost>\r\n";

/// A way to be slow.
struct Slow {
    name: &'static str,
    url: &'static str,
    /// The first input, in one piece.
    start: Vec<u8>,
    /// What follows now and then.
    each: &'static [u8],
}

fn slow(name: &'static str, start: &[&[u8]], each: &'static [u8]) -> Slow {
    Slow {
        name,
        url: "smtp://127.0.0.1:0",
        start: start.concat(),
        each,
    }
}

fn ways_to_be_slow() -> Vec<Slow> {
    let at = |url, slow| Slow { url, ..slow };
    let (tls, proxy) = ("submissions://127.0.0.1:0", "smtp://127.0.0.1:0?proxy");
    vec![
        slow("silent", &[], b""),
        slow("command", &[b"EH"], b"L"),
        slow("too long a line", &[&[b'x'; 5000]], b"x"),
        slow("AUTH", &[b"EHLO c\r\nAUTH LOGIN\r\n"], b"x"),
        slow("STARTTLS", &[b"EHLO c\r\nSTARTTLS\r\n"], b"\x16"),
        at(tls, slow("TLS", &[], b"\x16")),
        at(proxy, slow("PROXY", &[b"PROXY "], b"x")),
        slow("legal commands", &[MAIL], b"RCPT TO:<n@localhost>\r\n"),
        slow("DATA, silent", &[MAIL, b"DATA\r\n"], b""),
        slow("DATA", &[MAIL, b"DATA\r\n"], b"x"),
        slow("DATA, lines", &[MAIL, b"DATA\r\nA: b\r\n\r\n"], b"\r\n"),
        slow("DATA, too large", &[MAIL, b"DATA\r\n", &[b'x'; 200]], b"x"),
        slow(
            "DATA, nobody",
            &[b"EHLO c\r\nMAIL FROM:<>\r\nDATA\r\n"],
            b"x",
        ),
        slow("BDAT", &[MAIL, b"BDAT 99 LAST\r\n"], b"x"),
        slow("BDAT, chunks", &[MAIL], b"BDAT 1\r\nx"),
        slow("BDAT, refused", &[b"EHLO c\r\nBDAT 99 LAST\r\n"], b"x"),
        slow("between chunks", &[MAIL, b"BDAT 1\r\nx"], b"B"),
    ]
}

fn launch(url: &str, args: &[&str]) -> Server {
    let slots = SLOTS.to_string();
    let common = [
        "--create",
        "--insecure-auth",
        "--timeout",
        "10s",
        "--trust",
        "127.0.0.1",
        "--max-connections",
        &slots,
        "--max-size",
        "1K",
    ];
    tls::server(url, "n:{PLAIN}x\n", &[&common[..], args].concat())
}

/// How long a new client, which tries again and again, takes to be served.
fn newcomer(server: &Server) -> Duration {
    let begun = Instant::now();
    loop {
        let mut client = server.client();
        let proxy = server.urls[0].contains("?proxy");
        let _ = client
            .socket
            .write_all(if proxy { b"PROXY UNKNOWN\r\n" } else { b"" });
        if server.urls[0].starts_with("submissions") {
            if crate::tls::connect(client.socket.try_clone().unwrap(), &[]).is_ok() {
                return begun.elapsed();
            }
        } else if client.reply().starts_with("220") {
            return begun.elapsed();
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{}",
            server.log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn newcomer_with(way: &Slow) -> Duration {
    let server = launch(way.url, &[]);
    let connect = |_| {
        let mut socket = TcpStream::connect(server.address()).unwrap();
        socket.write_all(&way.start).unwrap();
        socket
    };
    let mut sockets: Vec<_> = (0..SLOTS).map(connect).collect();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let pause = Duration::from_millis(100);
            while stopped.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                for socket in &mut sockets {
                    let _ = socket.write_all(way.each);
                }
            }
        });
        let took = newcomer(&server);
        drop(stop);
        took
    })
}

/// Replies to pipelined commands are sent before they fill the memory, though a batch should leave in one write.
#[test]
fn long_replies_do_not_pile_up() {
    let members: Vec<String> = (0..9_000).map(|n| format!("user{n:05}@far.test")).collect();
    let setup = Setup {
        args: ["--expn", "--aliases", "aliases"].map(String::from).into(),
        files: vec![("aliases".into(), format!("all: {}\n", members.join(", ")))],
        ..Setup::default()
    };
    let server = Server::launch(&setup).unwrap();
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.unwrap().parse::<u64>().unwrap()
    };
    let mut client = server.client();
    client.send(b"NOOP\r\n");
    assert!(client.reply().starts_with("220") && client.reply().starts_with("250"));
    let before = peak();
    client.send(&b"EXPN all\r\n".repeat(99));
    for _ in 0..99 {
        assert_eq!(client.reply().lines().count(), members.len());
    }
    let grown = peak() - before;
    assert!(grown < 20_000, "{grown} KiB for replies of 250 each");
}

/// F48, A10: a wait is a second here, and no slow client keeps its slot for the minute that content has otherwise.
#[test]
fn newcomers_beside_slow_clients() {
    let ways = ways_to_be_slow();
    std::thread::scope(|scope| {
        let each = ways
            .iter()
            .map(|way| (way.name, scope.spawn(|| newcomer_with(way))));
        for (name, took) in each.collect::<Vec<_>>() {
            let took = took
                .join()
                .unwrap_or_else(|_| panic!("nobody has a place: {name}"));
            assert!(took < Duration::from_secs(20), "{name}: {took:?}");
        }
    });
}

/// F36: the same with clients that do not read replies, after commands and after the 354 of a message.
#[test]
fn newcomers_beside_clients_that_never_read() {
    let server = launch("smtp://127.0.0.1:0", &["--max-errors", "1000000"]);
    let deaf: Vec<_> = (0..SLOTS)
        .map(|_| {
            let mut socket = TcpStream::connect(server.address()).unwrap();
            socket
                .set_write_timeout(Some(Duration::from_millis(100)))
                .unwrap();
            while socket.write_all(&b"XXXX\r\n".repeat(1000)).is_ok() {}
            socket
        })
        .collect();
    assert!(newcomer(&server) < Duration::from_secs(20));
    drop(deaf);
}

/// Meanwhile a message that arrives fast enough is accepted.
#[test]
fn a_quick_message_under_stress() {
    let server = launch("smtp://127.0.0.1:0", &[]);
    let _others: Vec<Client> = (1..SLOTS).map(|_| server.client()).collect();
    let mut client = server.client();
    client.send(&[MAIL, b"DATA\r\n"].concat());
    for code in ["220", "250", "250", "250", "354"] {
        assert!(client.reply().starts_with(code));
    }
    client.send(b"Subject: x\r\n\r\nx\r\n.\r\n");
    assert!(client.reply().starts_with("250"));
}

/// A client whose wait began under stress has the whole timeout once that is over.
#[test]
fn stress_that_is_over_ends_no_wait() {
    let slots = SLOTS.to_string();
    // Under stress the last client would have six seconds; the first one is gone by then on a slow machine, too.
    let server = Server::start(&["--create", "--timeout", "60s", "--max-connections", &slots]);
    let mut clients: Vec<Client> = (0..SLOTS).map(|_| server.client()).collect();
    for client in &mut clients {
        assert!(client.reply().starts_with("220"));
    }
    let mut last = clients.remove(SLOTS - 1);
    clients[0].send(b"QUIT\r\n");
    assert!(clients[0].reply().starts_with("221"));
    let (longer, whole) = (Duration::from_secs(8), Duration::from_secs(20));
    last.socket.set_read_timeout(Some(longer)).unwrap();
    let early = last.socket.peek(&mut [0]);
    assert!(early.is_err(), "{}", last.reply());
    last.socket.set_read_timeout(Some(whole)).unwrap();
    last.send(b"NOOP\r\n");
    assert!(last.reply().starts_with("250"));
}

/// The only place is free for the next client as soon as a connection has ended.
#[test]
fn one_client_after_the_other() {
    let server = Server::start(&["--create", "--max-connections", "1"]);
    for number in 0..1_000 {
        let mut client = server.client();
        client.send(b"QUIT\r\n");
        for code in ["220", "221", ""] {
            let reply = client.reply();
            assert!(reply.starts_with(code), "{number}: {reply}");
        }
    }
}

/// A server under a limit of the shell's `ulimit`.
fn limited(limit: &str, args: &[&str]) -> Server {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("mailslot-limited-{}-{count}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let command = format!("ulimit {limit}; exec \"$0\" \"$@\"");
    let child = std::process::Command::new("sh")
        .args(["-c", &command, env!("CARGO_BIN_EXE_mailslot"), "--create"])
        .args(["--listen", "smtp://127.0.0.1:0", "--hostname", "mx.test"])
        .args(args)
        .current_dir(&dir)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    Server::attach(child, dir, 1).unwrap()
}

/// Sends octets on all connections, and then expects good replies on each.
fn all_say(clients: &mut [Client], octets: impl Fn(usize) -> String, replies: usize) {
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(octets(number).as_bytes());
    }
    for client in clients {
        for _ in 0..replies {
            let reply = client.reply();
            assert!(reply.starts_with(['2', '3']), "{reply}");
        }
    }
}

/// Opens sessions that are all in the middle of a message to several new mailboxes at the same time. Those that are
/// admitted are served, the others get 421; returns how many were admitted.
fn served_under(server: &Server, sessions: usize, recipients: usize) -> usize {
    let mut clients: Vec<Client> = (0..sessions).map(|_| server.client()).collect();
    clients.retain_mut(|client| {
        let greeting = client.reply();
        assert!(
            greeting.starts_with("220") || greeting.starts_with("421 4.3.2"),
            "{greeting}"
        );
        greeting.starts_with("220")
    });
    all_say(&mut clients, |_| "EHLO c\r\nMAIL FROM:<>\r\n".to_owned(), 2);
    for to in 0..recipients {
        let rcpt = |number| format!("RCPT TO:<u{number}x{to}@mx.test>\r\n");
        all_say(&mut clients, rcpt, 1);
    }
    all_say(&mut clients, |_| "DATA\r\n".to_owned(), 1);
    let line = "x".repeat(70) + "\r\n";
    all_say(
        &mut clients,
        |_| format!("S: x\r\n\r\n{}.\r\n", line.repeat(2000)),
        1,
    );
    clients.len()
}

/// F11: with few descriptors fewer clients are admitted, but those can send a message to many mailboxes.
#[test]
fn as_many_as_there_are_descriptors_for() {
    for (files, least) in [("32", 1), ("64", 3), ("128", 6), ("256", 13)] {
        let server = limited(
            &format!("-n {files}"),
            &["--domain", "mx.test", "--sync", "none"],
        );
        let served = served_under(&server, 40, 20);
        assert!((least..40).contains(&served), "{files}: {served}");
        assert_eq!(server.stored().len(), served * 20, "{files}");
        // All slots are free again.
        assert!(newcomer(&server) < Duration::from_secs(20));
    }
}

/// F12: the same with little address space, where a failed allocation would end the process.
#[test]
fn as_many_as_there_is_address_space_for() {
    for (kind, mib) in [("-v", 32_usize), ("-v", 40), ("-d", 40)] {
        let limit = format!("{kind} {}", mib * 1024);
        let server = limited(&limit, &["--domain", "mx.test", "--sync", "none"]);
        let served = served_under(&server, 60, 1);
        assert!((1..60).contains(&served), "{mib}: {served}");
        assert_eq!(server.stored().len(), served);
    }
    // The allocator takes as much of these as it can get.
    for mib in [80_usize, 100, 150] {
        let limit = format!("-v {}", mib * 1024);
        let server = limited(&limit, &["--domain", "mx.test", "--sync", "none"]);
        assert_eq!(served_under(&server, 60, 1), 60, "{mib}");
    }
}

/// F12: all connections together may have as many recipients as there is memory for, and each may have a few.
#[test]
fn as_many_recipients_as_there_is_address_space_for() {
    let limit = format!("-v {}", 48 * 1024);
    let server = limited(&limit, &["--domain", "mx.test", "--sync", "none"]);
    let long = "x".repeat(200);
    let to = |n| format!("RCPT TO:<u+{long}{n}@mx.test>\r\n");
    let all: String = (0..400).map(to).collect();
    let mut clients: Vec<Client> = (0..8).map(|_| server.client()).collect();
    let mut accepted = Vec::new();
    for client in &mut clients {
        client.send(format!("EHLO c\r\nMAIL FROM:<>\r\n{all}").as_bytes());
        let mut replies: Vec<String> = (0..403).map(|_| client.reply()).collect();
        let (after, before) = (replies.split_off(3), replies);
        assert!(before.iter().all(|reply| reply.starts_with('2')));
        assert!(before[1].contains("LIMITS RCPTMAX=153\r\n"), "{before:?}");
        accepted.push(after.iter().filter(|r| r.starts_with("250")).count());
        assert!(!after.iter().any(|r| r.starts_with('5')), "{after:?}");
    }
    assert!((100..400).contains(&accepted[0]), "{accepted:?}");
    assert!(accepted.iter().all(|&count| count >= 4), "{accepted:?}");
    drop(clients);
    assert!(newcomer(&server) < Duration::from_secs(20));
}

/// F11: connections to silent next hops leave enough descriptors for mail that is delivered here.
#[test]
fn next_hops_leave_descriptors_for_local_mail() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let hop = |n| format!("smtp://{address}?for=d{n}.test");
    let hops: Vec<String> = (0..100).map(hop).collect();
    let mut args = vec![
        "--domain",
        "mx.test",
        "--sync",
        "none",
        "--relay-from",
        "127.0.0.0/8",
    ];
    args.extend(hops.iter().flat_map(|hop| ["--relay", hop]));
    let server = limited("-n 128", &args);
    let mut client = server.client();
    client.send(b"EHLO c\r\n");
    assert!(client.reply().starts_with("220") && client.reply().starts_with("250"));
    for n in 0..hops.len() {
        let mail = format!("MAIL FROM:<>\r\nRCPT TO:<x@d{n}.test>\r\nBDAT 3 LAST\r\nx\r\n");
        client.send(mail.as_bytes());
        (0..3).for_each(|_| assert!(client.reply().starts_with("25")));
    }
    drop(client);
    let served = served_under(&server, 20, 1);
    assert!((1..20).contains(&served), "{served}");
    assert_eq!(server.stored().len(), served);
}

/// F13: where no thread can be started for more, idle clients make room as where all connections are in use, and those
/// that are served can still use TLS. Root's threads are not limited.
#[test]
fn without_threads_idle_clients_make_room() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: not root");
    }
    // The limit is one of the user, whose processes elsewhere count, too.
    let user = (3_000_000 + std::process::id()).to_string();
    let user = ["--run-as", &format!("{user}:{user}"), "--maildir", "/%d/%u"];
    let tls = ["--tls-cert", tls::CERT, "--tls-key", tls::KEY];
    // Shells disagree about the letter.
    let processes = "-u 12 2>/dev/null || ulimit -p 12";
    let server = limited(
        processes,
        &[&user[..], &tls, &["--timeout", "40s"]].concat(),
    );
    let mut clients = Vec::new();
    loop {
        let mut client = server.client();
        match client.reply() {
            greeting if greeting.starts_with("220") => clients.push(client),
            refused => break assert!(refused.starts_with("421 4.3.2"), "{refused}"),
        }
    }
    assert!((1..12).contains(&clients.len()), "{}", clients.len());
    let mut first = clients.remove(0);
    first.send(b"EHLO c\r\nSTARTTLS\r\n");
    assert!(first.reply().starts_with("250") && first.reply().starts_with("220"));
    let tls = tls::connect(first.socket, &[]);
    assert!(tls.is_ok(), "{tls:?}: {}", server.log());
    assert!(newcomer(&server) < Duration::from_secs(20));
}

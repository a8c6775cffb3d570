//! Ends of connections, messages and the process: clients that have disconnected, half closed, or never read; kills,
//! and signals in every phase of a message.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::server::{Client, Server, Setup};

const MESSAGE: &[u8] = b"S: s\r\n\r\nx\r\n.\r\n";
const ENVELOPE: &[u8] = b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@localhost>\r\n";

/// A client whose replies so far were good.
fn after(server: &Server, octets: &[u8]) -> Client {
    let mut client = server.client();
    client.send(octets);
    let commands = octets.iter().filter(|&&octet| octet == b'\n').count();
    for _ in 0..=commands {
        let reply = client.reply();
        assert!(reply.starts_with(['2', '3']), "{reply}");
    }
    client
}

fn in_data(server: &Server) -> Client {
    after(server, &[ENVELOPE, b"DATA\r\n"].concat())
}

/// Everything a server sends until the end of the connection.
fn rest(client: &mut Client) -> String {
    let mut text = String::new();
    loop {
        let reply = client.reply();
        if reply.is_empty() {
            return text;
        }
        text.push_str(&reply);
    }
}

/// F32: input that ends right after the dot, or after `CRLF . CR`, is not a message.
#[test]
fn ended_after_the_dot() {
    let mut server = Server::start(&["--create"]);
    for end in [&b"x\r\n."[..], b"x\r\n.\r", b"x\r\n", b"."] {
        let mut client = in_data(&server);
        client.send(end);
        client.socket.shutdown(Shutdown::Write).unwrap();
        assert!(!rest(&mut client).contains("250"), "{end:?}");
    }
    assert_eq!(server.stop(), Some(0));
    assert_eq!(server.stored(), [""; 0]);
}

/// F34: a client that only closes its sending side gets its 250.
#[test]
fn half_closed_after_the_dot() {
    let server = Server::start(&["--create"]);
    let mut client = in_data(&server);
    client.send(MESSAGE);
    client.socket.shutdown(Shutdown::Write).unwrap();
    assert!(rest(&mut client).starts_with("250 2.0.0"));
    assert_eq!(server.messages("localhost/a"), ["S: s\n\nx\n"]);
}

/// F35, F45: a client that is gone before its 250 has its message delivered once, and ends nothing else.
#[test]
fn gone_before_the_reply() {
    let mut server = Server::start(&["--create"]);
    let mut other = after(&server, b"EHLO c\r\n");
    for _ in 0..5 {
        let mut client = in_data(&server);
        client.send(MESSAGE);
        drop(client);
    }
    other.send(b"NOOP\r\n");
    assert!(other.reply().starts_with("250"));
    assert_eq!(server.stop(), Some(0));
    let stored = server.stored();
    assert!(stored.len() <= 5, "{stored:?}");
    assert!(stored.iter().all(|message| message.ends_with("\n\nx\n")));
}

/// F70: the same message twice is two messages.
#[test]
fn the_same_message_twice() {
    let server = Server::start(&["--create"]);
    for _ in 0..2 {
        let mut client = in_data(&server);
        client.send(b"Message-ID: <1@c>\r\n\r\nx\r\n.\r\n");
        assert!(client.reply().starts_with("250"));
    }
    assert_eq!(server.messages("localhost/a").len(), 2);
}

/// F51, F53: a line of 8 MiB and a header that never ends are kept as they are.
#[test]
fn lines_and_headers_without_end() {
    let server = Server::start(&["--create"]);
    let long = "y".repeat(8 << 20);
    let header = "X: y\r\n".repeat(100_000);
    for content in [long, header] {
        let mut client = in_data(&server);
        client.send(format!("X-First: x\r\n{content}\r\n.\r\n").as_bytes());
        assert!(client.reply().starts_with("250"));
        let wanted = format!("X-First: x\n{}\n", content.replace("\r\n", "\n"));
        assert!(server.messages("localhost/a").contains(&wanted));
    }
}

/// F56: BDAT keeps a bare CR or LF, also across two chunks.
#[test]
fn line_ends_of_chunks() {
    let server = Server::start(&["--create"]);
    let mut client = after(&server, ENVELOPE);
    for (chunk, last) in [
        ("A: b\r", ""),
        ("\n\r\none\ntwo\rthree\r", ""),
        ("\r\nfour", " LAST"),
    ] {
        client.send(format!("BDAT {}{last}\r\n{chunk}", chunk.len()).as_bytes());
        assert!(client.reply().starts_with("250"));
    }
    let wanted = "A: b\n\none\ntwo\rthree\r\nfour";
    assert_eq!(server.messages("localhost/a"), [wanted]);
}

/// F49: past the limit of recipients each costs an error, and the connection ends.
#[test]
fn recipients_without_end() {
    let server = Server::start(&["--create", "--max-recipients", "10"]);
    let mut client = after(&server, b"EHLO c\r\nMAIL FROM:<>\r\n");
    let mut socket = client.socket.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for number in 0..100_000 {
            let line = format!("RCPT TO:<u{number}@localhost>\r\n");
            if socket.write_all(line.as_bytes()).is_err() {
                return;
            }
        }
    });
    let replies = rest(&mut client);
    sender.join().unwrap();
    let count = |start: &str| {
        replies
            .lines()
            .filter(|line| line.starts_with(start))
            .count()
    };
    assert_eq!((count("250"), count("452 4.5.3")), (10, 20));
    assert!(replies.ends_with("\r\n") && count("421 4.7.0") == 1);
}

/// F36: a client that never reads is let go once its wait is over, and others are served meanwhile.
#[test]
fn never_read() {
    let server = Server::start(&["--create", "--timeout", "1s", "--max-errors", "1000000"]);
    let mut deaf = std::net::TcpStream::connect(server.address()).unwrap();
    deaf.set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    while deaf.write_all(&b"XXXX\r\n".repeat(1000)).is_ok() {}
    let mut other = in_data(&server);
    other.send(MESSAGE);
    assert!(other.reply().starts_with("250"));
    server.logged("client=");
    let deadline = Instant::now() + Duration::from_secs(20);
    deaf.set_write_timeout(None).unwrap();
    let mut buffer = vec![0; 1 << 20];
    // Its end is an end of the stream or a reset.
    while deaf.read(&mut buffer).is_ok_and(|octets| octets > 0) {
        assert!(Instant::now() < deadline);
    }
}

/// F25: a mailbox that the server may not write to defers, and names the path in the log.
#[test]
fn not_writable() {
    if nix::unistd::geteuid().is_root() {
        eprintln!("skipped: root may write anywhere");
        return;
    }
    let setup = Setup {
        dirs: vec!["mail/localhost/a/new".into()],
        ..Setup::default()
    };
    let server = Server::launch(&setup).unwrap();
    let mailbox = server.dir.join("mail/localhost/a");
    std::fs::set_permissions(&mailbox, PermissionsExt::from_mode(0o500)).unwrap();
    let mut client = after(&server, b"EHLO c\r\nMAIL FROM:<>\r\n");
    client.send(b"RCPT TO:<a@localhost>\r\n");
    assert!(client.reply().starts_with("451 4.2.0"));
    std::fs::set_permissions(&mailbox, PermissionsExt::from_mode(0o700)).unwrap();
}

/// F66: a reader that moves each message away at once disturbs nothing.
#[test]
fn quick_reader() {
    let server = Server::start(&["--create"]);
    let new = server.dir.join("mail/localhost/a/new");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            loop {
                let last = stop.load(std::sync::atomic::Ordering::Relaxed);
                seen += take_away(&new);
                if last {
                    return seen;
                }
            }
        });
        for _ in 0..30 {
            let mut client = in_data(&server);
            client.send(MESSAGE);
            assert!(client.reply().starts_with("250"));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(reader.join().unwrap(), 30);
    });
}

/// Reads and removes whatever lies in a directory; how many there were.
fn take_away(new: &Path) -> usize {
    let files = std::fs::read_dir(new).into_iter().flatten();
    files
        .map(|entry| {
            let path = entry.unwrap().path();
            assert!(std::fs::read_to_string(&path).unwrap().ends_with("\n\nx\n"));
            std::fs::remove_file(&path).unwrap();
        })
        .count()
}

/// F15–F18: killed at any moment of a message, what had its 250 is there and nothing is there in half.
#[test]
fn killed_at_any_moment() {
    for moment in 0..8 {
        let mut server = Server::start(&["--create"]);
        let address = server.address().to_owned();
        let sender = std::thread::spawn(move || send_until_dead(&address));
        std::thread::sleep(Duration::from_millis(20 + 7 * moment));
        server.kill();
        let acknowledged = sender.join().unwrap();
        let stored = server.stored();
        let whole = format!("\n\n{}", "0123456789abcdef\n".repeat(500));
        assert!(stored.iter().all(|message| message.ends_with(&whole)));
        for subject in acknowledged {
            let there = stored
                .iter()
                .filter(|message| message.contains(&subject))
                .count();
            assert_eq!(there, 1, "{subject}");
        }
    }
}

/// The subjects that had a 250 when the connection ended.
fn send_until_dead(address: &str) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let Ok(socket) = std::net::TcpStream::connect(address) else {
        return acknowledged;
    };
    let mut client = Client::new(socket);
    let _ = client.reply();
    for number in 0.. {
        let subject = format!("Subject: number {number}.");
        let body = "0123456789abcdef\r\n".repeat(500);
        let octets = format!(
            "MAIL FROM:<>\r\nRCPT TO:<a@localhost>\r\nDATA\r\n{subject}\r\n\r\n{body}.\r\n"
        );
        if number == 0 && client.socket.write_all(b"HELO c\r\n").is_ok() {
            let _ = client.reply();
        }
        if client.socket.write_all(octets.as_bytes()).is_err() {
            break;
        }
        let replies: Vec<String> = (0..4).map(|_| client.reply()).collect();
        if !replies[3].starts_with("250 2.0.0") {
            break;
        }
        acknowledged.push(subject);
    }
    acknowledged
}

/// F43: a second SIGTERM ends at once, and leaves no half message in `new/`.
#[test]
fn terminated_twice() {
    let mut server = Server::start(&["--create"]);
    let mut client = in_data(&server);
    client.send(b"Subject: x\r\n");
    server.signal(Signal::SIGTERM);
    // Once newcomers are refused, the first one has been seen.
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(server.address()).is_ok() {
        assert!(Instant::now() < deadline);
    }
    let start = Instant::now();
    server.signal(Signal::SIGTERM);
    server.ended();
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(server.stored(), [""; 0]);
}

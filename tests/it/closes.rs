//! When replies are sent: those that may not wait for further ones, and the last one of a connection, before which the
//! server reads and drops input for a moment, so that a reset cannot destroy it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::server::Server;
use crate::tls;

const ENVELOPE: &str = "EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@localhost>\r\n";

/// Sends octets and then junk that the server will not read; returns everything that came back, to an orderly end. The
/// server reads on for a second, so an attempt in which this host needed longer to send is repeated.
fn replies_to(address: &str, octets: &[u8], junk: &[u8]) -> String {
    for _ in 0..20 {
        let (replies, sending) = exchange(address, octets, junk);
        if replies.is_ok() || sending < Duration::from_millis(900) {
            return replies.unwrap();
        }
    }
    panic!(
        "this host cannot send {} octets within a second",
        junk.len()
    );
}

/// Returns what came back, and how long sending took.
fn exchange(address: &str, octets: &[u8], junk: &[u8]) -> (Result<String, String>, Duration) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut sender = socket.try_clone().unwrap();
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || {
            let begun = Instant::now();
            let _ = sender.write_all(octets);
            // In pieces: some of it comes after the close has begun.
            for piece in junk.chunks(10_000) {
                let _ = sender.write_all(piece);
            }
            begun.elapsed()
        });
        let mut text = Vec::new();
        let read = socket.read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        let replies = match read {
            Ok(_) => Ok(text),
            Err(error) => Err(format!("{error} after {text:?}")),
        };
        (replies, sending.join().unwrap())
    })
}

fn server(url: &str, args: &[&str]) -> Server {
    let common = ["--create", "--insecure-auth", "--max-size", "1K"];
    tls::server(url, "a:{PLAIN}x\n", &[&common[..], args].concat())
}

/// Each way to close: what leads to it, and the last reply.
fn ways_to_close() -> Vec<(String, &'static str)> {
    let wrong = "AUTH PLAIN AGEAYg==\r\n";
    vec![
        ("QUIT\r\n".to_owned(), "221 2.0.0"),
        (format!("{ENVELOPE}QUIT\r\n"), "221 2.0.0"),
        ("EHLO c\r\nSTARTTLS\r\nNOOP\r\n".to_owned(), "554 5.7.0"),
        ("GET / HTTP/1.1\r\n".to_owned(), "421 4.7.0"),
        ("\x16\x03\x01\x02".to_owned(), "421 4.7.0"),
        ("XXXX\r\n".repeat(21), "421 4.7.0"),
        ("NOOP\r\n".repeat(101), "421 4.7.0"),
        (format!("EHLO c\r\n{}", wrong.repeat(3)), "421 4.7.0"),
        (
            format!("{ENVELOPE}DATA\r\n{}", "x".repeat(2100)),
            "421 4.7.0",
        ),
        (
            format!("{ENVELOPE}BDAT 2100\r\n{}", "x".repeat(2100)),
            "421 4.7.0",
        ),
        (format!("{ENVELOPE}BDAT x\r\n"), "501 5.5.4"),
        ("x".repeat(1_100_000), "421 4.7.0"),
    ]
}

/// Whatever the client still sends, it gets every reply, and an end without a reset.
#[test]
fn no_reply_is_lost_to_a_client_that_still_sends() {
    let server = server("smtp://127.0.0.1:0", &[]);
    for junk in ["", "x", &"y".repeat(300_000), &"NOOP\r\n".repeat(50_000)] {
        std::thread::scope(|scope| {
            for (octets, last) in ways_to_close() {
                let address = server.address();
                scope.spawn(move || {
                    let text = replies_to(address, octets.as_bytes(), junk.as_bytes());
                    let line = text.lines().next_back().unwrap_or_default();
                    assert!(
                        line.starts_with(last),
                        "{line:?} for {last} after {octets:.60}"
                    );
                });
            }
        });
    }
}

/// The same if the server is full or the client has too many connections, also with a PROXY header.
#[test]
fn no_reply_is_lost_to_a_client_that_is_turned_away() {
    let junk = "EHLO c\r\n".repeat(10_000);
    let full = server("smtp://127.0.0.1:0", &["--max-connections", "1"]);
    let mut first = full.client();
    assert!(first.reply().starts_with("220"));
    let many = server("smtp://127.0.0.1:0", &["--max-per-client", "1"]);
    let mut other = many.client();
    assert!(other.reply().starts_with("220"));
    for (server, last) in [(&full, "421 4.3.2"), (&many, "421 4.7.0")] {
        for _ in 0..5 {
            let text = replies_to(server.address(), junk.as_bytes(), junk.as_bytes());
            assert!(text.starts_with(last), "{text}");
        }
    }
    let proxied = server_behind_a_proxy();
    let header = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
    let mut one = proxied.client();
    one.send(header.as_bytes());
    assert!(one.reply().starts_with("220"));
    let text = replies_to(proxied.address(), header.as_bytes(), junk.as_bytes());
    assert!(text.starts_with("421 4.7.0"), "{text}");
}

fn server_behind_a_proxy() -> Server {
    let args = ["--trust", "127.0.0.1", "--max-per-client", "1"];
    server("smtp://127.0.0.1:0?proxy", &args)
}

#[test]
fn no_reply_is_lost_at_a_timeout_or_a_shutdown() {
    let slow = server("smtp://127.0.0.1:0", &["--timeout", "1s"]);
    let text = replies_to(slow.address(), b"EHLO c\r\nNOO", b"");
    assert!(
        text.lines()
            .next_back()
            .is_some_and(|line| line.starts_with("421 4.4.2")),
        "{text}"
    );
    let mut ending = server("smtp://127.0.0.1:0", &[]);
    let mut client = ending.client();
    client.send(b"EHLO c\r\nNOO");
    (0..2).for_each(|_| assert!(client.reply().starts_with('2')));
    std::thread::scope(|scope| {
        let stopped = scope.spawn(|| ending.stop());
        assert!(client.reply().starts_with("421 4.3.2"));
        // The client still sends, and gets no reset.
        let _ = client.socket.write_all(&b"NOOP\r\n".repeat(10_000));
        assert_eq!(client.socket.read(&mut [0; 64]).ok(), Some(0));
        assert_eq!(stopped.join().unwrap(), Some(0));
    });
}

/// In TLS the end is a close_notify, also for a client that still sends.
#[test]
fn tls_ends_with_close_notify() {
    let server = server("submissions://127.0.0.1:0", &[]);
    for last in ["QUIT\r\n".to_owned(), "XXXX\r\n".repeat(21)] {
        let socket = TcpStream::connect(server.address()).unwrap();
        let mut tls = crate::tls::connect(socket, &[]).unwrap();
        tls.write_all(last.as_bytes()).unwrap();
        let _ = tls.write_all(&b"NOOP\r\n".repeat(10_000));
        let mut text = String::new();
        // rustls reports an end without close_notify as an error.
        tls.read_to_string(&mut text).unwrap();
        let line = text.lines().next_back().unwrap_or_default();
        assert!(
            line.starts_with("221 2.0.0") || line.starts_with("421 4.7.0"),
            "{text}"
        );
    }
}

/// R112, R114: only replies to MAIL, RCPT, RSET and BDAT wait for those to further commands; a failed login delays the
/// last one.
#[test]
fn few_replies_wait_for_others() {
    let setup = crate::server::Setup {
        args: ["--users", "users", "--insecure-auth", "--create"]
            .map(str::to_owned)
            .to_vec(),
        files: vec![("users".into(), "alice:{PLAIN}x\n".into())],
        ..Default::default()
    };
    let server = Server::launch(&setup).unwrap();
    for (command, waits) in [
        ("EHLO c\r\n", false),
        ("NOOP\r\n", false),
        ("WHAT\r\n", false),
        ("VRFY a\r\n", false),
        ("EXPN a\r\n", false),
        ("HELP\r\n", false),
        ("DATA\r\n", false),
        ("RSET\r\n", true),
        ("RCPT TO:<a@localhost>\r\n", true),
        ("BDAT 1 LAST\r\nx", true),
    ] {
        let mut client = server.client();
        client.send(b"EHLO c\r\n");
        (0..2).for_each(|_| assert!(client.reply().starts_with('2')));
        client.send(format!("{command}AUTH PLAIN AGEAYg==\r\n").as_bytes());
        let mut first = [0; 4_096];
        let read = client.socket.read(&mut first).unwrap();
        let first = String::from_utf8_lossy(&first[..read]);
        assert_eq!(first.contains("\n535 5.7.8"), waits, "{command}: {first}");
        assert!(first.ends_with("\r\n"));
    }
}

/// F35: scripts send everything at once and go; what they sent counts.
#[test]
fn clients_that_do_not_wait_for_replies() {
    let server = Server::start(&["--create", "--sync", "none", "--max-connections", "20"]);
    for number in 0..20 {
        let mut client = server.client();
        if number % 2 == 1 {
            client.reply();
        }
        let all = format!("{ENVELOPE}DATA\r\nSubject: {number}\r\n\r\nx\r\n.\r\nQUIT\r\n");
        client.send(all.replacen("EHLO", "NOOP\r\nEHLO", 1).as_bytes());
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.stored().len() < 20 {
        assert!(Instant::now() < deadline, "{}", server.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

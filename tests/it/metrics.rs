//! The metrics listener: what is counted, and who gets which response, until the shutdown.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use mailslot::cmd::healthcheck::check;
use nix::sys::signal::Signal;

use crate::server::{Server, Setup};
use crate::tls::{self, CERT, KEY};

fn launch(args: &[&str], files: &[(&str, &str)]) -> Server {
    let own = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    let listen = [
        "smtp://127.0.0.1:0",
        "lmtp://127.0.0.1:0",
        "metrics://127.0.0.1:0",
    ];
    Server::launch(&Setup {
        listen: listen.map(str::to_owned).to_vec(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        files: files.iter().map(own).collect(),
        dirs: vec!["mail".into()],
        ..Setup::default()
    })
    .unwrap()
}

fn place(server: &Server, listener: usize) -> &str {
    server.urls[listener].split_once("://").unwrap().1
}

fn connect(server: &Server) -> TcpStream {
    let socket = TcpStream::connect(place(server, 2)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    socket
}

/// The whole response to these octets, until the server closes.
fn ask(server: &Server, request: &[u8]) -> String {
    let mut socket = connect(server);
    socket.write_all(request).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

fn get(server: &Server, path: &str) -> String {
    ask(
        server,
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(),
    )
}

/// The samples of a page, by name and labels. Its form is checked.
fn samples(server: &Server) -> BTreeMap<String, f64> {
    let answer = get(server, "/metrics");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let kind = "\r\nContent-Type: application/openmetrics-text; version=1.0.0\r\n";
    let length = format!("\r\nContent-Length: {}\r\n", body.len());
    assert!(head.contains(kind) && head.contains(&length), "{head}");
    let lines = body.strip_suffix("# EOF\n").unwrap();
    let mut found = BTreeMap::new();
    for line in lines.lines().filter(|line| !line.starts_with("# ")) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let before = found.insert(name.to_owned(), value.parse().unwrap());
        assert!(before.is_none() && name.starts_with("mailslot_"), "{line}");
    }
    found
}

/// Waits until something holds.
fn until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it never came");
        std::thread::yield_now();
    }
}

fn dialogue(mut socket: impl std::io::Read + std::io::Write, text: &str) -> String {
    socket.write_all(text.as_bytes()).unwrap();
    let mut said = String::new();
    socket.read_to_string(&mut said).unwrap();
    said
}

#[test]
fn what_happens_is_counted() {
    let args = [
        "--users",
        "users",
        "--tls-cert",
        CERT,
        "--tls-key",
        KEY,
        "-d",
        "a.test",
    ];
    let server = launch(&args, &[("users", "alice:{PLAIN}x\nbob:{PLAIN}y\n")]);
    let before = samples(&server);
    assert_eq!(before["mailslot_connections_total"], 0.0);
    let smtp = "EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<alice@a.test>\r\nRCPT TO:<nobody@a.test>\r\n\
                RCPT TO:<bob@a.test>\r\nDATA\r\nx: y\r\n\r\n.\r\nNONSENSE\r\nQUIT\r\n";
    let said = dialogue(TcpStream::connect(place(&server, 0)).unwrap(), smtp);
    assert!(said.contains("accepted for delivery"), "{said}");
    let lmtp = "LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<alice@a.test>\r\nRCPT TO:<bob@a.test>\r\n\
                DATA\r\nx: y\r\n.\r\nQUIT\r\n";
    dialogue(TcpStream::connect(place(&server, 1)).unwrap(), lmtp);
    let mut clear = server.client();
    clear.send(b"EHLO c\r\nSTARTTLS\r\n");
    (0..3).for_each(|_| assert!(clear.reply().starts_with('2')));
    let secured = tls::connect(clear.socket.try_clone().unwrap(), &[]).unwrap();
    let wrong = "EHLO c\r\nAUTH PLAIN AGFsaWNlAHo=\r\nAUTH PLAIN AGFsaWNlAHg=\r\nQUIT\r\n";
    assert!(dialogue(secured, wrong).contains("235 2.7.0"));
    let mut failing = server.client();
    failing.send(b"EHLO c\r\nSTARTTLS\r\n");
    (0..3).for_each(|_| assert!(failing.reply().starts_with('2')));
    failing.send(b"NOT TLS AT ALL\r\n");
    failing.socket.shutdown(Shutdown::Write).unwrap();
    server.logged("TLS handshake");
    let found = samples(&server);
    for (name, value) in [
        ("mailslot_connections_total", 4.0),
        ("mailslot_messages_total{service=\"smtp\"}", 1.0),
        ("mailslot_messages_total{service=\"lmtp\"}", 1.0),
        ("mailslot_recipients_total", 4.0),
        ("mailslot_received_bytes_total", 14.0),
        ("mailslot_replies_total{code=\"550\"}", 1.0),
        ("mailslot_replies_total{code=\"500\"}", 1.0),
        ("mailslot_replies_total{code=\"535\"}", 1.0),
        (
            "mailslot_logins_total{mechanism=\"PLAIN\",result=\"failure\"}",
            1.0,
        ),
        (
            "mailslot_logins_total{mechanism=\"PLAIN\",result=\"success\"}",
            1.0,
        ),
        (
            "mailslot_tls_handshakes_total{version=\"1.3\",result=\"success\"}",
            1.0,
        ),
        (
            "mailslot_tls_handshakes_total{version=\"unknown\",result=\"failure\"}",
            1.0,
        ),
        ("mailslot_commit_seconds_count", 2.0),
        ("mailslot_commit_seconds_bucket{le=\"+Inf\"}", 2.0),
        ("mailslot_log_lines_dropped_total", 0.0),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name}: {found:#?}");
    }
    assert!(found["mailslot_start_time_seconds"] > 1_700_000_000.0);
    let open = server.client();
    // A connection that was closed may be counted for a moment.
    until(|| samples(&server)["mailslot_connections"] == 1.0);
    drop(open);
    assert!(!found.keys().any(|name| name.contains("queue")));
}

/// Waiting mail is counted by next hop, also for a hop without any.
#[test]
fn the_queue_is_counted_by_hop() {
    let args = [
        "--relay",
        "smtp://127.0.0.1:1?for=b.test",
        "--relay",
        "smtp://127.0.0.1:2",
        "--relay-from",
        "127.0.0.1",
    ];
    let server = launch(&args, &[]);
    let send = "EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<u@b.test>\r\nDATA\r\nx: y\r\n\r\n.\r\nQUIT\r\n";
    for _ in 0..3 {
        dialogue(TcpStream::connect(place(&server, 0)).unwrap(), send);
    }
    server.logged("relay hop=\"smtp://127.0.0.1:1?for=b.test\"");
    let messages = |hop: &str| format!("mailslot_queue_messages{{hop=\"{hop}\"}}");
    // The first one is with the connection that has just failed.
    until(|| samples(&server)[&messages("smtp://127.0.0.1:1?for=b.test")] == 3.0);
    let found = samples(&server);
    assert_eq!(found[&messages("smtp://127.0.0.1:2")], 0.0);
    let oldest = |hop: &str| found[&format!("mailslot_queue_oldest_seconds{{hop=\"{hop}\"}}")];
    assert!(oldest("smtp://127.0.0.1:1?for=b.test") < 60.0);
    assert_eq!(oldest("smtp://127.0.0.1:2"), 0.0);
}

#[test]
fn nothing_else_is_served() {
    let server = launch(&["--create"], &[]);
    for request in [
        "GET / HTTP/1.1",
        "GET /metrics?x HTTP/1.1",
        "GET /metrics/ HTTP/1.1",
        "POST /metrics HTTP/1.1",
        "HEAD /metrics HTTP/1.1",
        "get /metrics HTTP/1.1",
        "GET http://x/metrics HTTP/1.1",
        "GET /healthz? HTTP/1.1",
        "GET /metrics",
        "GET  /metrics HTTP/1.1",
        "EHLO x",
        "",
        "\u{fc}",
    ] {
        let answer = ask(&server, format!("{request}\r\nx: y\r\n\r\n").as_bytes());
        assert!(
            answer.starts_with("HTTP/1.1 404 Not Found\r\n"),
            "{request}: {answer}"
        );
        assert!(answer.ends_with("\r\n\r\nnot found\n"), "{answer}");
    }
    // An incomplete request must not delay the next one.
    let endless = vec![b'x'; 64 * 1024];
    let mut flood = connect(&server);
    let _ = flood.write_all(&endless);
    let mut said = Vec::new();
    let _ = flood.read_to_end(&mut said);
    assert_eq!(said, b"");
    let silent = connect(&server);
    let mut trickle = connect(&server);
    trickle.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    assert!(get(&server, "/healthz").contains("200 OK"));
    drop((silent, trickle));
}

/// Clients that send no whole request, or do not read the response, do not delay the next one.
#[test]
fn slow_scrapers_hold_up_nobody() {
    let server = launch(&["--create"], &[]);
    let begun = Instant::now();
    let slow: Vec<TcpStream> = (0..100)
        .map(|number| {
            let mut socket = connect(&server);
            let request: &[u8] = match number % 2 {
                0 => b"GET /me",
                _ => b"GET /metrics HTTP/1.1\r\n\r\n",
            };
            socket.write_all(request).unwrap();
            socket
        })
        .collect();
    assert!(get(&server, "/healthz").contains("200 OK"));
    // One after the other they would take two seconds each.
    assert!(begun.elapsed() < Duration::from_secs(20));
    let mut answered = 0;
    for mut socket in slow {
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        answered += usize::from(answer.ends_with(b"# EOF\n"));
    }
    assert!(answered > 0);
}

#[test]
fn health_is_reported() {
    let mut server = launch(&["--create"], &[]);
    let url = server.urls[2].parse().unwrap();
    assert!(get(&server, "/healthz").ends_with("\r\n\r\nok\n"));
    assert_eq!(check(&url), Ok(()));
    std::fs::rename(server.dir.join("mail"), server.dir.join("gone")).unwrap();
    let answer = get(&server, "/healthz");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        check(&url)
            .unwrap_err()
            .ends_with(": mail is missing or not mounted")
    );
    std::fs::rename(server.dir.join("gone"), server.dir.join("mail")).unwrap();
    assert!(get(&server, "/healthz").contains("200 OK"));
    // Until the last connection has ended it is answered, and says so.
    let mut last = server.client();
    last.send(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@localhost>\r\nDATA\r\n");
    (0..5).for_each(|_| assert!(last.reply().starts_with(['2', '3'])));
    server.signal(Signal::SIGTERM);
    until(|| get(&server, "/healthz").ends_with("\r\n\r\nstopping\n"));
    assert_eq!(samples(&server)["mailslot_connections"], 1.0);
    last.send(b"x: y\r\n\r\n.\r\n");
    assert!(last.reply().starts_with("250"));
    assert_eq!(server.ended(), Some(0));
}

/// Without a host it listens on loopback; without a port it is an error.
#[test]
fn counters_are_for_this_host() {
    let server = Server::launch(&Setup {
        listen: vec!["smtp://127.0.0.1:0".into(), "metrics://:0".into()],
        args: vec!["--create".into()],
        ..Setup::default()
    })
    .unwrap();
    let url = &server.urls[1];
    assert!(url.starts_with("metrics://127.0.0.1:"), "{url}");
    assert_eq!(check(&url.parse().unwrap()), Ok(()));
}

/// A directory of mailboxes that none is in may be missing.
#[test]
fn accounts_with_maildirs_of_their_own_need_no_mail_root() {
    let server = launch(
        &["--users", "users", "--maildir", "missing/%u"],
        &[("users", "alice:x::::::userdb_mail=maildir:/run/alice\n")],
    );
    assert!(get(&server, "/healthz").contains("200 OK"));
    assert!(!server.log().contains("mail gets 451"));
}

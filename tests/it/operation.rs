//! Operation of the server: reloads, Unix sockets, failed handshakes.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::server::{Server, Setup, first_address};
use crate::wire;

fn rcpt(server: &Server, name: &str) -> String {
    let mut client = server.client();
    client.send(format!("EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<{name}@localhost>\r\n").as_bytes());
    (0..3).for_each(|_| assert!(client.reply().starts_with('2')));
    client.reply().chars().take(3).collect()
}

/// F44, F46: new files are used, broken ones change nothing, and a transaction ends with the files it began with.
#[test]
fn files_are_read_again() {
    let setup = Setup {
        args: ["--users", "users", "--aliases", "aliases"]
            .map(str::to_owned)
            .to_vec(),
        files: vec![
            ("users".into(), "alice\n".into()),
            ("aliases".into(), "list: alice\n".into()),
        ],
        dirs: vec!["mail".into()],
        ..Setup::default()
    };
    let server = Server::launch(&setup).unwrap();
    assert_eq!(
        (rcpt(&server, "alice"), rcpt(&server, "bob")),
        ("250".into(), "550".into())
    );
    let mut old = server.client();
    old.send(b"EHLO c\r\nMAIL FROM:<>\r\n");
    (0..3).for_each(|_| assert!(old.reply().starts_with('2')));
    std::fs::write(server.dir.join("users"), "bob\n").unwrap();
    std::fs::write(server.dir.join("aliases"), "list: bob\n").unwrap();
    // Of no meaning here, and no reason to end.
    server.signal(Signal::SIGUSR1);
    server.signal(Signal::SIGUSR2);
    server.signal(Signal::SIGHUP);
    server.logged("reloaded");
    assert_eq!(
        (rcpt(&server, "alice"), rcpt(&server, "bob")),
        ("550".into(), "250".into())
    );
    old.send(b"RCPT TO:<alice@localhost>\r\nRSET\r\nMAIL FROM:<>\r\nRCPT TO:<alice@localhost>\r\n");
    let replies: Vec<String> = (0..4).map(|_| old.reply()[..3].to_owned()).collect();
    assert_eq!(replies, ["250", "250", "250", "550"]);
    std::fs::write(server.dir.join("aliases"), "list: list2\nlist2: list\n").unwrap();
    std::fs::write(server.dir.join("users"), "carol\n").unwrap();
    server.signal(Signal::SIGHUP);
    server.logged("reload failed, keeping the previous files: aliases:");
    assert_eq!(
        (rcpt(&server, "carol"), rcpt(&server, "list")),
        ("550".into(), "250".into())
    );
}

fn socket_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("mailslot-{}-{name}", std::process::id()))
}

fn lmtp_at(path: &std::path::Path, query: &str) -> Result<Server, String> {
    Server::launch(&Setup {
        listen: vec![format!("lmtp:{}{query}", path.display())],
        args: vec!["--create".into()],
        ..Setup::default()
    })
}

/// A5: the mode of a socket; a live socket and other files are left alone, a dead socket is replaced.
#[test]
fn unix_sockets() {
    let path = socket_path("lmtp");
    let mut first = lmtp_at(&path, "?mode=0600").unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let socket = UnixStream::connect(&path).unwrap();
    let mut input = BufReader::new(socket.try_clone().unwrap());
    let mut line = String::new();
    input.read_line(&mut line).unwrap();
    assert_eq!(line, "220 mx.test LMTP mailslot\r\n");
    (&socket)
        .write_all(b"LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@localhost>\r\nDATA\r\n")
        .unwrap();
    while !line.starts_with("354") {
        line.clear();
        assert_ne!(input.read_line(&mut line).unwrap(), 0);
    }
    (&socket).write_all(b"x\r\n.\r\n").unwrap();
    line.clear();
    input.read_line(&mut line).unwrap();
    assert!(line.starts_with("250 2.0.0"), "{line}");
    first.logged("client=\"unix:pid=");
    let trace = first.stored().concat();
    assert!(
        trace.contains("Received: from c (unix)\n\tby mx.test (mailslot) with LMTP id"),
        "{trace}"
    );
    let live = lmtp_at(&path, "").err().unwrap();
    assert!(live.contains("another server listens there"), "{live}");
    first.kill();
    assert!(path.exists());
    let mut second = lmtp_at(&path, "").unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!((mode & 0o777, second.stop()), (0o660, Some(0)));
    assert!(!path.exists(), "taken away at the end");
    std::fs::write(&path, "precious").unwrap();
    let file = lmtp_at(&path, "").err().unwrap();
    assert!(file.contains("not a socket"), "{file}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
}

fn with_tls() -> Setup {
    let pem = |name: &str| format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let args = [
        "--create",
        "--tls-cert",
        &pem("cert.pem"),
        "--tls-key",
        &pem("key.pem"),
    ];
    Setup {
        args: args.map(str::to_owned).to_vec(),
        ..Setup::default()
    }
}

/// F37, F38: a failed handshake gets no reply; a message that ends without a close_notify is not delivered.
#[test]
fn tls_that_fails() {
    let server = Server::launch(&with_tls()).unwrap();
    let mut client = server.client();
    client.reply();
    client.send(b"EHLO c\r\n");
    client.reply();
    for _ in 0..12 {
        client.send(b"WHAT\r\n");
        client.reply();
    }
    client.send(b"STARTTLS\r\n");
    assert!(client.reply().starts_with("220 2.0.0"));
    client.send(b"NOOP\r\nNOOP\r\n");
    assert!(!client.reply().contains("250"));
    server.logged("refused_more=2 end=\"TLS handshake: ");
    let mut secure = wire::Wire::connect(server.address()).unwrap();
    secure.take();
    for line in ["EHLO c\r\n", "STARTTLS\r\n"] {
        secure.send(line.as_bytes());
        secure.take();
    }
    secure.start_tls().unwrap();
    secure.send(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@localhost>\r\nDATA\r\n");
    (0..4).for_each(|_| drop(secure.take()));
    secure.send(b"cut\r\n");
    secure.reset();
    drop(secure);
    server.logged("tls=TLSv1_3");
    assert!(server.stored().is_empty());
}

/// A16: a client that offers ALPN must offer one of our protocols.
#[test]
fn alpn() {
    let server = Server::launch(&with_tls()).unwrap();
    for (protocols, good) in [
        (&["smtp"][..], true),
        (&["lmtp", "h2"], true),
        (&["h2"], false),
        (&[], true),
    ] {
        let mut client = server.client();
        client.reply();
        client.send(b"EHLO c\r\nSTARTTLS\r\n");
        client.reply();
        assert!(client.reply().starts_with("220"));
        let tls = crate::tls::connect(client.socket.try_clone().unwrap(), protocols);
        assert_eq!(tls.is_ok(), good, "{protocols:?}");
    }
}

/// F11: out of descriptors, new clients get 421 and the listener survives.
#[test]
fn out_of_descriptors() {
    let dir = std::env::temp_dir().join(format!("mailslot-descriptors-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let command = "ulimit -n 24; exec \"$0\" --create --listen smtp://127.0.0.1:0";
    let mut child = std::process::Command::new("sh")
        .args(["-c", command, env!("CARGO_BIN_EXE_mailslot")])
        .current_dir(&dir)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let address = first_address(&mut log);
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    let greeting = |socket: &std::net::TcpStream| {
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).unwrap();
        line.chars().take(3).collect::<String>()
    };
    let open: Vec<_> = (0..40)
        .map(|_| std::net::TcpStream::connect(&address).unwrap())
        .collect();
    let codes: Vec<String> = open.iter().map(greeting).collect();
    assert!(
        codes.contains(&"220".to_owned()) && codes.contains(&"421".to_owned()),
        "{codes:?}"
    );
    assert!(
        codes.iter().all(|code| code == "220" || code == "421"),
        "{codes:?}"
    );
    drop(open);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while greeting(&std::net::TcpStream::connect(&address).unwrap()) != "220" {
        assert!(std::time::Instant::now() < deadline);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
}

/// A10: while more than four fifths of the connections are in use, a wait is a tenth as long, even if it had begun.
#[test]
fn pressed_for_room() {
    let server = Server::start(&["--max-connections", "5", "--timeout", "30s"]);
    let mut others: Vec<_> = (0..4).map(|_| server.client()).collect();
    others
        .iter_mut()
        .for_each(|other| assert!(other.reply().starts_with("220")));
    let mut last = server.client();
    assert!(last.reply().starts_with("220"));
    // The client itself gives up after 20 seconds.
    for client in others.iter_mut().chain([&mut last]) {
        assert!(client.reply().starts_with("421 4.4.2"));
        assert_eq!(client.reply(), "");
    }
}

fn start_message(client: &mut crate::server::Client) {
    client.send(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@localhost>\r\n");
    (0..4).for_each(|_| drop(client.reply()));
}

/// F41, F42: at a shutdown idle clients get 421, and a message may finish from its 354 or its first chunk on.
#[test]
fn a_message_that_has_begun_may_finish() {
    let mut server = Server::start(&["--create"]);
    let (mut idle, mut data, mut chunks, mut between) = (
        server.client(),
        server.client(),
        server.client(),
        server.client(),
    );
    for client in [&mut data, &mut chunks, &mut between] {
        start_message(client);
    }
    start_message(&mut idle);
    data.send(b"DATA\r\n");
    assert!(data.reply().starts_with("354"));
    chunks.send(b"BDAT 2\r\nabBDAT 2\r\n");
    assert!(chunks.reply().starts_with("250"));
    between.send(b"BDAT 2\r\nab");
    assert!(between.reply().starts_with("250"));
    let status = std::thread::scope(|scope| {
        let stopped = scope.spawn(|| server.stop());
        assert!(idle.reply().starts_with("421 4.3.2"), "idle");
        data.send(b"x\r\n.\r\n");
        chunks.send(b"abBDAT 0 LAST\r\n");
        assert!(chunks.reply().starts_with("250"));
        between.send(b"BDAT 1 LAST\r\nc");
        for client in [&mut data, &mut chunks, &mut between] {
            assert!(client.reply().starts_with("250 2.0.0 Message accepted"));
            assert!(client.reply().starts_with("421 4.3.2"));
        }
        stopped.join().unwrap()
    });
    assert_eq!((status, server.stored().len()), (Some(0), 3));
}

/// Local time in Received: the zone is found by the system's zone files, without the C library.
#[test]
fn received_is_in_local_time() {
    if !std::path::Path::new("/usr/share/zoneinfo/Asia/Kolkata").exists() {
        eprintln!("skipped: no zone files on this machine");
        return;
    }
    let setup = Setup {
        args: vec!["--create".into()],
        env: vec![("TZ".into(), "Asia/Kolkata".into())],
        ..Setup::default()
    };
    let server = Server::launch(&setup).unwrap();
    let mut client = server.client();
    client.send(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@localhost>\r\nDATA\r\n");
    for code in ["220", "250", "250", "250", "354"] {
        assert!(client.reply().starts_with(code));
    }
    client.send(b"Subject: x\r\n\r\n.\r\n");
    assert!(client.reply().starts_with("250"));
    let stored = server.stored();
    assert!(stored[0].contains(" +0530\n"), "{stored:?}");
}

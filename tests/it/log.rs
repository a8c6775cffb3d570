//! The log: refusals, ends of connections, the dialogue, and a reader that stalls.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::server::{Server, Setup, first_address};
use crate::tls;

/// One line a refusal with the whole reply, the eleventh and later counted, and the reason of the end.
#[test]
fn refusals_and_ends() {
    let server = Server::start(&["--create", "--max-errors", "12"]);
    let mut client = server.client();
    client.reply();
    client.send(b"EHLO c\r\nc2VjcmV0\r\nMAIL FROM:<a@x>\r\nRCPT TO:<eve@elsewhere.example>\r\n");
    (0..5).for_each(|_| drop(client.reply()));
    server.logged(r#"verb=? reply="500 5.5.1 "#);
    server.logged(r#"helo="c" verb=RCPT address="eve@elsewhere.example" reply="550 5.7.1 "#);
    for _ in 0..11 {
        client.send(b"RCPT TO:<eve@elsewhere.example>\r\n");
        client.reply();
    }
    server.logged(r#"messages=0 refused_more=3 end="421 4.7.0 "#);
    let mut client = server.client();
    client.reply();
    client.send(b"GET / HTTP/1.1\r\n\r\n");
    assert!(client.reply().starts_with("421 4.7.0"));
    server.logged(r#"verb=HTTP reply="421 4.7.0 "#);
    let mut client = server.client();
    client.send(
        b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@localhost>\r\nDATA\r\nbare\n\r\n.\r\nQUIT\r\n",
    );
    while !client.reply().is_empty() {}
    server.logged(r#"to="a@localhost" status=550 reply="550 5.6.0 "#);
    server.logged(r#"end="221 2.0.0 Bye""#);
}

/// Many clients of TLS just close: the reason is a sentence for the operator, not the library's.
#[test]
fn a_client_that_closes_tls() {
    let setup = crate::server::Setup {
        listen: vec!["submissions://127.0.0.1:0".into()],
        args: [
            "--users",
            "users",
            "--tls-cert",
            tls::CERT,
            "--tls-key",
            tls::KEY,
        ]
        .map(str::to_owned)
        .to_vec(),
        files: vec![("users".into(), "bob:{PLAIN}x\n".into())],
        ..Default::default()
    };
    let server = Server::launch(&setup).unwrap();
    let mut client = tls::connect(server.client().socket, &[]).unwrap();
    let mut greeting = [0; 4];
    client.read_exact(&mut greeting).unwrap();
    drop(client);
    server.logged(r#"end="client closed the connection without close_notify" "#);
}

/// Trouble with `maildirsize`, which refuses no mail, is logged with the call and the path.
#[test]
fn trouble_with_a_quota() {
    let setup = crate::server::Setup {
        args: ["--quota", "1M"].map(str::to_owned).to_vec(),
        dirs: vec![
            "mail/localhost/q/maildirsize".into(),
            "mail/localhost/q/new".into(),
        ],
        ..Default::default()
    };
    let server = Server::launch(&setup).unwrap();
    let mut client = server.client();
    client.send(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<q@localhost>\r\nBDAT 3 LAST\r\na\r\n");
    let last = (0..5).map(|_| client.reply()).last().unwrap();
    assert!(last.starts_with("250 2.0.0 Message accepted"), "{last}");
    for done in ["checked", "kept"] {
        server.logged(&format!(
            "quota not {done} call=\"open\" path=\"mail/localhost/q/maildirsize\" error="
        ));
    }
}

/// `-v` shows the dialogue, and neither content nor what may be a password.
#[test]
fn the_dialogue() {
    let users = ("users".to_owned(), "bob:{PLAIN}secret\n".to_owned());
    let setup = crate::server::Setup {
        args: ["-v", "--users", "users", "--insecure-auth"]
            .map(str::to_owned)
            .to_vec(),
        files: vec![users],
        ..Default::default()
    };
    let server = Server::launch(&setup).unwrap();
    let mut client = server.client();
    client.reply();
    for line in [
        "EHLO c\r\n",
        "AUTH PLAIN AGJvYgBzZWNyZXQ=\r\n",
        "MAIL FROM:<>\r\n",
        "RCPT TO:<bob@localhost>\r\n",
        "DATA\r\n",
        "unseen\r\n.\r\n",
        "AGJvYgBzZWNyZXQ=\r\n",
        "QUIT\r\n",
    ] {
        client.send(line.as_bytes());
        client.reply();
    }
    server.logged(r#"S: "221 2.0.0 Bye""#);
    for words in [
        r#"C: "AUTH <22 octets>""#,
        r#"C: "<16 octets>""#,
        r#"C: "DATA""#,
        r#"S: "235 2.7.0"#,
    ] {
        server.logged(words);
    }
    assert!(!server.log().contains("unseen") && !server.log().contains("AGJv"));
}

/// F59: a stalled reader of the log delays neither mail nor the shutdown.
#[test]
fn a_log_that_nobody_reads() {
    let dir = std::env::temp_dir().join(format!("mailslot-unread-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_mailslot"))
        .args([
            "--create",
            "--listen",
            "smtp://127.0.0.1:0",
            "--domain",
            "localhost",
        ])
        .args(["--sync", "none", "--max-errors", "1000000"])
        .current_dir(&dir)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let socket = TcpStream::connect(first_address(&mut log)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut input = BufReader::new(&socket);
    let mut reply = |start: &str| {
        let mut line = String::new();
        while !line.starts_with(start) {
            line.clear();
            assert_ne!(input.read_line(&mut line).unwrap(), 0);
        }
    };
    (&socket).write_all(b"HELO c\r\n").unwrap();
    reply("250 ");
    // More than the pipe and the queue hold.
    let mail = format!(
        "MAIL FROM:<{}@x>\r\nRCPT TO:<a@localhost>\r\nDATA\r\n",
        "f".repeat(60)
    );
    for _ in 0..1_500 {
        (&socket).write_all(mail.as_bytes()).unwrap();
        reply("354");
        (&socket).write_all(b"x\r\n.\r\n").unwrap();
        reply("250 2.0.0");
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let reading = std::thread::spawn(move || {
        let mut rest = String::new();
        log.read_to_string(&mut rest).unwrap();
        rest
    });
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(reading.join().unwrap().contains(" log lines were dropped"));
    std::fs::remove_dir_all(&dir).unwrap();
}

/// However long the addresses are, each recipient is in the log.
#[test]
fn a_message_to_many_long_addresses() {
    let server = Server::start(&["--create", "--sync", "none"]);
    let mut client = server.client();
    client.reply();
    let long = "\u{e9}".repeat(100);
    let to = |n| format!("RCPT TO:<bob+{n}{long}@localhost>\r\n");
    let all: String = (0..1_000).map(to).collect();
    client.send(format!("EHLO c\r\nMAIL FROM:<> SMTPUTF8\r\n{all}DATA\r\n").as_bytes());
    (0..1_003).for_each(|_| assert!(client.reply().starts_with(['2', '3'])));
    client.send(b".\r\nQUIT\r\n");
    assert!(client.reply().starts_with("250"));
    server.logged("221 2.0.0 Bye");
    let log = server.log();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("message id="))
        .collect();
    let named = |line: &&str| line.matches(" to=\"bob+").count();
    assert_eq!(lines.iter().map(named).sum::<usize>(), 1_000);
    assert!(lines.len() > 1 && lines.iter().all(|line| named(line) > 0));
    assert!(!log.contains("dropped"), "{log}");
}

/// A stranger's recipients cannot fill the log with what is wrong with aliases and mailboxes.
#[test]
fn trouble_with_recipients_is_told_once() {
    let setup = crate::server::Setup {
        args: "--aliases aliases --max-errors 200 --quota 1M"
            .split(' ')
            .map(str::to_owned)
            .collect(),
        dirs: ["alice", "bob", "carol/maildirsize"]
            .map(|dir| format!("mail/localhost/{dir}"))
            .to_vec(),
        files: vec![
            ("aliases".into(), "team: alice, gone\n".into()),
            ("mail/localhost/bob/new".into(), String::new()),
        ],
        ..Default::default()
    };
    let server = crate::server::Server::launch(&setup).unwrap();
    let mut client = server.client();
    client.reply();
    client.send(b"EHLO c\r\nMAIL FROM:<>\r\n");
    for n in 0..50 {
        let names = [&format!("team+{n}"), "bob", "carol"];
        let names = names.map(|name| format!("RCPT TO:<{name}@localhost>\r\n"));
        client.send(names.concat().as_bytes());
        client.send(b"RSET\r\nMAIL FROM:<>\r\n");
    }
    client.send(b"QUIT\r\n");
    while !client.reply().is_empty() {}
    server.logged("221 2.0.0 Bye");
    let log = server.log();
    for words in [
        "alias target missing name=\"gone\"",
        "mailbox cannot be used call=\"open\"",
        "quota not checked call=\"open\"",
    ] {
        assert_eq!(log.matches(words).count(), 1, "{words}: {log}");
    }
}

/// The keys of a line.
fn keys(line: &str) -> BTreeSet<&str> {
    let mut quoted = false;
    let words = line.split(|c| {
        quoted ^= c == '"';
        c == ' ' && !quoted
    });
    words
        .filter_map(|word| word.split_once('='))
        .map(|(key, _)| key)
        .collect()
}

/// The table of the README: each line, and what has backticks beside it.
fn documented() -> Vec<(&'static str, BTreeSet<&'static str>)> {
    let readme = include_str!("../../README.md");
    let (_, table) = readme.split_once("| line | fields |\n|---|---|\n").unwrap();
    let rows = table.lines().take_while(|row| row.starts_with('|'));
    rows.map(|row| {
        let mut parts = row.split('`').skip(1).step_by(2);
        let name = parts.next().unwrap();
        (name, parts.chain(keys(name)).collect())
    })
    .collect()
}

#[test]
fn the_readme_names_the_fields() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let hop = format!("smtp://{}", gone.local_addr().unwrap());
    drop(gone);
    let args = [
        "--users",
        "users",
        "--insecure-auth",
        "--relay-from",
        "127.0.0.0/8",
        "--relay",
        &hop,
    ];
    let setup = Setup {
        args: args.map(str::to_owned).into(),
        files: vec![("users".into(), "alice:{PLAIN}secret\n".into())],
        ..Setup::default()
    };
    let server = Server::launch(&setup).unwrap();
    let mut client = server.client();
    client.send(b"EHLO c\r\nAUTH PLAIN AGFsaWNlAHdyb25n\r\nMAIL FROM:<me@a.test>\r\n");
    client.send(b"RCPT TO:<nobody@localhost>\r\nRCPT TO:<alice@localhost>\r\n");
    client.send(b"RCPT TO:<u@far.test>\r\nBDAT 3 LAST\r\nx\r\nQUIT\r\n");
    while !client.reply().is_empty() {}
    let rows = documented();
    rows.iter().for_each(|(name, _)| server.logged(name));
    let log = server.log();
    // With TLS, a login, and many or no accepted recipients.
    let others = ["auth", "refused_more", "reply", "tls"];
    for (name, fields) in rows {
        let start = format!("] {name}");
        let lines = log
            .lines()
            .filter_map(|line| line.find(&start).map(|at| &line[at + 2..]));
        let seen: BTreeSet<&str> = lines.flat_map(keys).collect();
        let missing: Vec<_> = fields
            .difference(&seen)
            .filter(|key| !others.contains(key))
            .collect();
        assert!(
            seen.is_subset(&fields) && missing.is_empty(),
            "{name}: {seen:?} {fields:?}"
        );
    }
}

//! Relaying over real sockets, with this server or a scripted one as the next hop.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::server::{Server, Setup};
use crate::tls::{CERT, KEY};

/// A folder of the test's own.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mailslot-relay-{}-{count}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn secret(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn launch(args: &[&str], files: &[(&str, &str)]) -> Server {
    let own = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    Server::launch(&Setup {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        dirs: vec!["mail".into()],
        files: files.iter().map(own).collect(),
        ..Setup::default()
    })
    .unwrap()
}

/// The final server.
pub fn end(args: &[&str]) -> Server {
    launch(&[&["-d", "b.test", "--create"], args].concat(), &[])
}

pub fn front(relay: &[&str], args: &[&str]) -> Server {
    let mut all = vec!["-d", "a.test", "--create", "--aliases", "aliases"];
    all.extend(["--relay-from", "127.0.0.0/8"]);
    if !args.contains(&"--retry") {
        all.extend(["--retry", "1s"]);
    }
    all.extend(relay.iter().flat_map(|url| ["--relay", url]));
    all.extend(args);
    let aliases = "away: bob@b.test\nboth: alice, bob@b.test\n";
    launch(&all, &[("aliases", aliases)])
}

pub fn send(server: &Server, from: &str, to: &[&str], content: &str) -> Vec<String> {
    let mut client = server.client();
    client.reply();
    let mut replies = Vec::new();
    let rcpt = to.iter().map(|to| format!("RCPT TO:<{to}>\r\n"));
    let commands = ["EHLO me\r\n".to_owned(), format!("MAIL FROM:<{from}>\r\n")];
    for command in commands
        .into_iter()
        .chain(rcpt)
        .chain(["DATA\r\n".to_owned()])
    {
        client.send(command.as_bytes());
        replies.push(client.reply());
    }
    if replies.last().unwrap().starts_with("354") {
        client.send(format!("{content}\r\n.\r\nQUIT\r\n").as_bytes());
        replies.push(client.reply());
    }
    replies.split_off(2)
}

/// Waits for a number of messages in a mailbox, and returns them.
pub fn wait_for(server: &Server, mailbox: &str, count: usize) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = server.messages(mailbox);
        if found.len() >= count {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "{mailbox} has {} of {count}",
            found.len()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The envelope files: their names are ids, and have one dot.
pub fn envelopes(server: &Server) -> Vec<PathBuf> {
    let Ok(files) = std::fs::read_dir(server.dir.join("queue/new")) else {
        return Vec::new();
    };
    let files = files.map(|file| file.unwrap());
    let files = files.filter(|file| file.file_name().to_str().unwrap().matches('.').count() == 1);
    files.map(|file| file.path()).collect()
}

pub fn queued(server: &Server) -> usize {
    envelopes(server).len()
}

/// Waits until the queue is empty. A report is queued before its message leaves the queue.
pub fn wait_for_empty(server: &Server) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while queued(server) > 0 {
        assert!(Instant::now() < deadline, "the queue is not empty");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn mail_for_elsewhere_goes_to_the_next_hop() {
    let b = end(&[]);
    let a = front(&[&b.urls[0]], &[]);
    let text = "Subject: x\r\n\r\n..dot\r\n\u{e9}";
    let replies = send(
        &a,
        "me@a.test",
        &["bob@b.test", "alice@a.test", "bob@b.test"],
        text,
    );
    assert!(
        replies
            .iter()
            .all(|reply| reply.starts_with("25") || reply.starts_with("354")),
        "{replies:?}"
    );
    let found = wait_for(&b, "b.test/bob", 1).remove(0);
    assert!(found.ends_with("Subject: x\n\n.dot\n\u{e9}\n"), "{found}");
    // The delivery headers of the host in front stay there; its Received goes on.
    let whole = b.stored().remove(0);
    assert_eq!(whole.matches("Return-Path:").count(), 1, "{whole}");
    assert_eq!(whole.matches("Received:").count(), 2, "{whole}");
    assert_eq!(wait_for(&a, "a.test/alice", 1).len(), 1);
    a.logged("outcome=sent");
    for name in ["away", "both"] {
        let replies = send(
            &a,
            "me@a.test",
            &[&format!("{name}@a.test")],
            "A: b\r\n\r\nx",
        );
        assert!(
            replies.last().unwrap().starts_with("250 2.0.0"),
            "{replies:?}"
        );
    }
    wait_for(&b, "b.test/bob", 3);
    wait_for(&a, "a.test/alice", 2);
    wait_for_empty(&a);
    assert_eq!(
        std::fs::read_dir(a.dir.join("queue/new")).unwrap().count(),
        0
    );
}

/// It is not an open relay: not for other clients, nor for domains without a hop, nor by address tricks.
#[test]
fn other_clients_get_the_usual_refusals() {
    let b = end(&[]);
    let forms = [
        "bob@b.test",
        "bob%b.test@a.test",
        "b.test!bob",
        "b.test!bob@a.test",
        "@a.test:bob@b.test",
        "\"bob@b.test\"@a.test",
        "bob@[127.0.0.1]",
        "bob@b.test@a.test",
    ];
    let args = [
        "-d",
        "a.test",
        "--create",
        "--relay",
        &b.urls[0],
        "--relay-from",
        "192.0.2.0/24",
    ];
    let a = launch(&args, &[]);
    for form in forms {
        let replies = send(&a, "me@a.test", &[form], "x");
        // A local part of its own is a mailbox here, and nothing else.
        let local = !form.contains('@') || form.ends_with("@a.test") && !form.starts_with('@');
        assert!(replies[0].starts_with('5') || local, "{form}: {replies:?}");
    }
    assert!(b.stored().is_empty() && queued(&a) == 0);
    let only = format!("{}?for=b.test", b.urls[0]);
    let a = front(&[&only], &[]);
    let replies = send(&a, "me@a.test", &["x@c.test"], "x");
    assert!(replies[0].starts_with("550 5.7.1"), "{replies:?}");
    assert!(b.stored().is_empty());
}

#[test]
fn the_sender_gets_the_reason() {
    let b = launch(&["-d", "b.test", "--users", "users"], &[("users", "bob\n")]);
    let a = front(&[&b.urls[0]], &[]);
    let to = ["nobody@b.test", "bob@b.test"];
    assert!(send(&a, "alice@a.test", &to, "Subject: hello\r\n\r\nbody")[3].starts_with("250"));
    wait_for(&b, "b.test/bob", 1);
    let report = wait_for(&a, "a.test/alice", 1).remove(0);
    for part in [
        "From: Mail Delivery System <MAILER-DAEMON@mx.test>\nTo: <alice@a.test>\n",
        "multipart/report; report-type=delivery-status",
        "Final-Recipient: rfc822; nobody@b.test\nAction: failed\nStatus: 5.1.1\n",
        "Diagnostic-Code: smtp; 550 5.1.1",
        "\nSubject: hello\n",
    ] {
        assert!(report.contains(part), "{part} in {report}");
    }
    assert!(
        !report.contains("body\n") && !report.contains("bob@b.test"),
        "{report}"
    );
    // There is no report about a report; a remote sender gets it through the queue.
    send(&a, "", &["nobody@b.test"], "x");
    a.logged("from=\"\" to=\"nobody@b.test\"");
    send(&a, "bob@b.test", &["nobody@b.test"], "x");
    let report = wait_for(&b, "b.test/bob", 2);
    assert!(
        report.iter().any(|text| text.contains("Action: failed")),
        "{report:?}"
    );
    assert_eq!(a.messages("a.test/alice").len(), 1);
}

/// A hop that is down: mail waits, survives kill -9, and goes when the hop is back.
#[test]
fn mail_waits_for_a_hop_and_survives() {
    let dir = Dir::new();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("smtp://{}", gone.local_addr().unwrap());
    drop(gone);
    let queue = dir.path("queue");
    let mut a = front(&[&url], &["--queue", &queue]);
    for number in 0..5 {
        let text = format!("Subject: {number}\r\n\r\nx");
        assert!(send(&a, "alice@a.test", &["bob@b.test"], &text)[2].starts_with("250"));
    }
    a.logged("refused");
    a.kill();
    drop(a);
    let b = Server::launch(&Setup {
        listen: vec![url.clone()],
        args: ["-d", "b.test", "--create"].map(str::to_owned).to_vec(),
        ..Setup::default()
    })
    .unwrap();
    let second = front(&[&url], &["--queue", &queue]);
    let found = wait_for(&b, "b.test/bob", 5);
    for number in 0..5 {
        let subject = format!("Subject: {number}\n");
        assert_eq!(
            found.iter().filter(|text| text.contains(&subject)).count(),
            1
        );
    }
    // One process a queue.
    let args = [
        "-d", "c.test", "--create", "--relay", &url, "--queue", &queue,
    ];
    let third = Server::launch(&Setup {
        args: args.map(str::to_owned).to_vec(),
        ..Setup::default()
    });
    let log = third.err();
    assert!(log.is_none() || log.unwrap().contains("another process uses this queue"));
    drop(second);
}

#[test]
fn mail_that_waited_too_long_is_returned() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("smtp://{}", gone.local_addr().unwrap());
    drop(gone);
    let a = front(&[&url], &["--retry-for", "3s"]);
    for _ in 0..3 {
        send(&a, "alice@a.test", &["bob@b.test"], "Subject: old\r\n\r\nx");
    }
    let found = wait_for(&a, "a.test/alice", 4);
    let failed = |text: &&String| text.contains("Action: failed\nStatus: 5.4.7");
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut all = found;
    while all.iter().filter(failed).count() < 3 {
        assert!(Instant::now() < deadline, "{all:?}");
        std::thread::sleep(Duration::from_millis(50));
        all = a.messages("a.test/alice");
    }
    assert!(
        all.iter().any(|text| text.contains("Action: delayed")),
        "{all:?}"
    );
    wait_for_empty(&a);
}

#[test]
fn a_smarthost_that_wants_tls_and_a_login() {
    let dir = Dir::new();
    let b = Server::launch(&Setup {
        listen: ["submission", "submissions"]
            .map(|s| format!("{s}://127.0.0.1:0"))
            .to_vec(),
        args: [
            "-d",
            "b.test",
            "--create",
            "--users",
            "users",
            "--tls-cert",
            CERT,
            "--tls-key",
            KEY,
        ]
        .map(str::to_owned)
        .to_vec(),
        files: vec![("users".into(), "me@b.test:{PLAIN}secret\n".into())],
        ..Setup::default()
    })
    .unwrap();
    let logins = dir.secret(
        "logins",
        "127.0.0.1 me@b.test secret\nlocalhost me@b.test wrong\n",
    );
    let args = ["--relay-auth", &logins, "--tls-ca", CERT];
    for (count, url) in b.urls.iter().enumerate() {
        let a = front(&[url], &args);
        send(&a, "alice@a.test", &["bob@b.test"], "x");
        wait_for(&b, "b.test/bob", count + 1);
    }
    // A wrong password, and a certificate that is another's: nothing is sent.
    let wrong = b.urls[0].replace("127.0.0.1", "localhost");
    let a = front(&[&wrong], &args);
    send(&a, "alice@a.test", &["bob@b.test"], "x");
    a.logged("AUTH: 535 5.7.8");
    let own = dir.path("own.pem");
    std::fs::copy("/etc/ssl/certs/ca-certificates.crt", &own)
        .unwrap_or_else(|_| std::fs::copy(CERT, &own).unwrap());
    if std::fs::read(&own).unwrap() != std::fs::read(CERT).unwrap() {
        let a = front(&[&b.urls[0]], &["--relay-auth", &logins, "--tls-ca", &own]);
        send(&a, "alice@a.test", &["bob@b.test"], "x");
        a.logged("TLS: ");
    }
    assert_eq!(b.messages("b.test/bob").len(), 2);
    assert_eq!(queued(&a), 1);
}

#[test]
fn the_queue_is_listed_and_run() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("smtp://{}", gone.local_addr().unwrap());
    drop(gone);
    let mut a = front(&[&url], &["--retry", "1h"]);
    // Clients are greeted once the queue is open.
    a.client().reply();
    let queue = a.dir.join("queue").display().to_string();
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mailslot"));
        let output = command
            .args(args)
            .env("MAILSLOT_QUEUE", &queue)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    // The queue is opened after the listeners.
    let deadline = Instant::now() + Duration::from_secs(20);
    while run(&["--queue-list"]) != (Some(0), "the queue is empty\n".into()) {
        assert!(Instant::now() < deadline, "{}", a.log());
    }
    let reply = send(&a, "alice@a.test", &["bob@b.test", "c@d.test"], "x")[3].clone();
    let id = reply.trim_end().rsplit(' ').next().unwrap().to_owned();
    let deadline = Instant::now() + Duration::from_secs(20);
    let page = loop {
        let (code, page) = run(&["--queue-list"]);
        assert_eq!(code, Some(0));
        if !page.contains("not tried yet") {
            break page;
        }
        assert!(Instant::now() < deadline, "{page}");
    };
    for part in [
        &id,
        "<alice@a.test>",
        "<bob@b.test> next try in ",
        "m: 4.4.1 connect to ",
        "1 in the queue",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert_eq!(run(&["--sendmail", "-bp"]).1, page);
    let b = Server::launch(&Setup {
        listen: vec![url],
        args: ["-d", "b.test", "-d", "d.test", "--create"]
            .map(str::to_owned)
            .to_vec(),
        ..Setup::default()
    })
    .unwrap();
    assert_eq!(
        run(&["--queue-run", "other.test"]),
        (Some(0), "no mail is waiting\n".into())
    );
    assert_eq!(
        run(&[&format!("--queue-run={id}")]),
        (Some(0), "retrying 1 message\n".into())
    );
    wait_for(&b, "b.test/bob", 1);
    wait_for(&b, "d.test/c", 1);
    a.kill();
    let (code, said) = run(&["--queue-run"]);
    assert_eq!(
        (code, said.contains("no server")),
        (Some(75), true),
        "{said}"
    );
}

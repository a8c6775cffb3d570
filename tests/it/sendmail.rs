//! `sendmail`, as programs call it, with a server and without one.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::server::{Server, Setup};

fn server(args: &[&str]) -> Server {
    let common = ["-d", "x.test", "--create", "--max-errors", "100"];
    let args = common.iter().chain(args).map(|arg| (*arg).to_owned());
    let setup = Setup {
        args: args.collect(),
        ..Setup::default()
    };
    Server::launch(&setup).unwrap()
}

fn run(program: &str, args: &[impl AsRef<OsStr>], input: &[u8], to: &str) -> Output {
    let mut child = Command::new(program)
        .args(args)
        .env("MAILSLOT_SENDMAIL_TO", to)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A usage error ends the program before it reads.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn sendmail(args: &[&str], input: &[u8], to: &str) -> (i32, String) {
    let args = [&["--sendmail"], args].concat();
    let output = run(env!("CARGO_BIN_EXE_mailslot"), &args, input, to);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), said)
}

/// A link to the binary by another name.
fn by_name(name: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("mailslot-name-{}-{count}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let link = dir.join(name);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_mailslot"), &link).unwrap();
    link
}

#[test]
fn as_programs_call_it() {
    let server = server(&[]);
    let url = &server.urls[0];
    let plain = b"From: a@b\nTo: bob@x.test\nSubject: s\n\nbody\n.\nrest\n";
    for (args, expected) in [
        // Debian's cron, mailutils, s-nail, git send-email.
        (
            &["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "bob@x.test"][..],
            "rest",
        ),
        (&["-oi", "-f", "root@host.test", "--", "bob@x.test"], "rest"),
        (&["-i", "-r", "me@host.test", "--", "bob@x.test"], "rest"),
        (
            &["-i", "-f", "Me <me@host.test>", "Bob <bob@x.test>"],
            "rest",
        ),
        // PHP's mail(), mdadm and logwatch.
        (&["-t", "-i"], "rest"),
        (&["-t"], "body"),
        (
            &["-oi", "-t", "-fwww@host.test", "-odb", "-O", "ErrorMode=m"],
            "rest",
        ),
    ] {
        assert_eq!(sendmail(args, plain, url), (0, String::new()), "{args:?}");
        let stored = server.messages("x.test/bob");
        let last = stored
            .iter()
            .filter(|m| m.ends_with(&format!("{expected}\n")))
            .count();
        assert!(last >= 1, "{args:?}: {stored:?}");
    }
    assert_eq!(server.messages("x.test/bob").len(), 7);
    server.logged("from=\"www@host.test\"");
    server.logged("from=\"me@host.test\"");
}

#[test]
fn missing_fields_are_added_and_bcc_is_removed() {
    let server = server(&[]);
    let url = &server.urls[0];
    let text = "To: a@x.test, \"B, C\" <b@x.test>\r\nBcc: c@x.test\r\nSubject: s\r\n\r\n\u{e9}\r\n";
    assert_eq!(
        sendmail(&["-ti", "-F", "Tester"], text.as_bytes(), url).0,
        0
    );
    for mailbox in ["x.test/a", "x.test/b", "x.test/c"] {
        let stored = server.messages(mailbox).remove(0);
        assert!(!stored.contains("Bcc"), "{stored}");
        for field in ["\nFrom: Tester <", "\nDate: ", "\nMessage-ID: <"] {
            assert_eq!(stored.matches(field).count(), 1, "{field} in {stored}");
        }
        assert!(
            stored.ends_with("\n\n\u{e9}\n") && !stored.contains('\r'),
            "{stored}"
        );
    }
    // Recipients named by the caller, as mutt does; a folded Bcc.
    let text = b"To: a@x.test\nBcc: c@x.test,\n\td@x.test\nSubject: s\n\nx\n";
    assert_eq!(sendmail(&["-oem", "-oi", "--", "g@x.test"], text, url).0, 0);
    let stored = server.messages("x.test/g").remove(0);
    assert!(
        !stored.contains("cc:") && !stored.contains("d@x.test"),
        "{stored}"
    );
    // No header at all, as scripts send it; an mbox line; a message of nothing.
    assert_eq!(sendmail(&["d@x.test"], b"hello\nthere: x\n", url).0, 0);
    let stored = server.messages("x.test/d").remove(0);
    assert!(
        stored.starts_with("From: ") && stored.ends_with("\n\nhello\nthere: x\n"),
        "{stored}"
    );
    assert_eq!(sendmail(&["e@x.test"], b"From me now\nA: b\n\nx", url).0, 0);
    assert!(server.messages("x.test/e").remove(0).starts_with("A: b\n"));
    assert_eq!(sendmail(&["f@x.test", "f@x.test"], b"", url).0, 0);
    assert_eq!(server.messages("x.test/f").len(), 1);
}

/// The From that is added names the sender. A name in another encoding than UTF-8 is left out, and the mail is sent.
#[test]
fn senders_and_names_of_callers() {
    let server = server(&[]);
    let url = &server.urls[0];
    for (mailbox, args, from) in [
        ("a", &[&b"-fwww@x.test"[..]][..], "From: www@x.test\n"),
        (
            "b",
            &[b"-f", b"W <w@x.test>", b"-FWeb"],
            "From: Web <w@x.test>\n",
        ),
        (
            "c",
            &[b"-f", b"w@x.test", b"-F", b"J\xf6rg"],
            "From: w@x.test\n",
        ),
    ] {
        let to = format!("{mailbox}@x.test");
        let mut all = vec![OsStr::new("--sendmail")];
        all.extend(args.iter().map(|arg| OsStr::from_bytes(arg)));
        all.push(OsStr::new(&to));
        let ended = run(env!("CARGO_BIN_EXE_mailslot"), &all, b"A: b\n\nx\n", url);
        assert!(ended.status.success(), "{ended:?}");
        let stored = server.messages(&format!("x.test/{mailbox}")).remove(0);
        assert!(stored.contains(from), "{stored}");
    }
    // A missing comma makes no other address, and a folded one is one.
    let text = b"To: d@x.test e@x.test, \"g\n h\"@x.test\n\nx\n";
    assert_eq!(sendmail(&["-t"], text, url).0, 69);
    assert_eq!(server.messages("x.test/g h").len(), 1);
}

/// More recipients than the server takes at once are several transactions.
#[test]
fn more_recipients_than_a_transaction_has() {
    let server = server(&["--max-recipients", "2"]);
    let text = b"To: a@x.test, b@x.test, c@y.test, d@x.test, e@x.test\n\nx\n";
    let (status, said) = sendmail(&["-t"], text, &server.urls[0]);
    assert_eq!(status, 69, "{said}");
    assert!(said.starts_with("sendmail: c@y.test: 550 5.7.1") && said.lines().count() == 1);
    for mailbox in ["a", "b", "d", "e"] {
        assert_eq!(server.messages(&format!("x.test/{mailbox}")).len(), 1);
    }
}

#[test]
fn exit_statuses() {
    let dir = std::env::temp_dir().join(format!("mailslot-statuses-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let server = server(&["--max-size", "1000"]);
    let url = &server.urls[0];
    let text = b"Subject: s\n\nx\n";
    for (args, status, words) in [
        (&["a@x.test"][..], 0, ""),
        (&["a@x.test", "nobody@elsewhere.test"], 69, "550 5.7.1"),
        (&["x/y@x.test"], 67, "550 5.1.1"),
        // A line for each of them.
        (
            &["nobody@elsewhere.test", "x/y@x.test"],
            69,
            "Relay access denied\nsendmail: x/y@x.test: 550 5.1.1 ",
        ),
        (&["a@@x.test"], 69, "501 5.1.3"),
        (&["-f", "a@@x.test", "a@x.test"], 69, "501 5.1.7"),
        (&[], 64, "no recipient"),
        (&["-t"], 64, "no recipient"),
        (&["-Z", "a@x.test"], 64, "unknown option -Z"),
        (&["-f"], 64, "-f needs a value"),
        (&["-bd"], 64, "-bd"),
        (&["-bi"], 0, ""),
    ] {
        let (code, said) = sendmail(args, text, url);
        assert_eq!(code, status, "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
    let (code, said) = sendmail(&["a@x.test"], &[b'x'; 2_000], url);
    assert_eq!((code, said.contains("5.3.4")), (69, true), "{said}");
    let busy = self::server(&["--max-rate", "1/1h"]);
    assert_eq!(sendmail(&["a@x.test"], text, &busy.urls[0]).0, 0);
    let (code, said) = sendmail(&["a@x.test"], text, &busy.urls[0]);
    assert_eq!((code, said.contains("450 4.7.1")), (75, true), "{said}");
    // The server is away: nothing is promised, and nothing kept.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("smtp://{}", listener.local_addr().unwrap());
    drop(listener);
    for away in [
        gone.as_str(),
        "smtp:/nonexistent/smtp",
        "smtp://none.invalid.:25",
    ] {
        let (code, said) = sendmail(&["a@x.test"], text, away);
        assert_eq!(code, 75, "{away}: {said}");
    }
    assert_eq!(sendmail(&["a@x.test"], text, "nonsense").0, 64);
    assert_eq!(server.messages("x.test/a").len(), 2);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn smtp_on_standard_input() {
    let server = server(&[]);
    let dialogue = b"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<g@x.test>\r\nDATA\r\nA: b\r\n\r\nx\r\n.\r\nQUIT\r\n";
    let args = ["--sendmail", "-bs"];
    let output = run(
        env!("CARGO_BIN_EXE_mailslot"),
        &args,
        dialogue,
        &server.urls[0],
    );
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.starts_with("220 ") && said.ends_with("221 2.0.0 Bye\r\n"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(server.messages("x.test/g"), ["A: b\n\nx\n"]);
}

#[test]
fn verbose_shows_the_dialogue() {
    let server = server(&[]);
    let (code, said) = sendmail(&["-v", "h@x.test"], b"A: secret\n\nx\n", &server.urls[0]);
    assert_eq!(code, 0);
    assert!(
        said.contains("C: RCPT TO:<h@x.test>") && said.contains("S: 250 2.1.5"),
        "{said}"
    );
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn by_other_names() {
    let server = server(&[]);
    for (name, args, status, words) in [
        ("sendmail", &["i@x.test"][..], 0, ""),
        ("newaliases", &[], 0, ""),
        ("sendmail", &["-Z"], 64, "sendmail: unknown option -Z"),
    ] {
        let link = by_name(name);
        let output = run(
            link.to_str().unwrap(),
            args,
            b"A: b\n\nx\n",
            &server.urls[0],
        );
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{name}: {said}");
        assert!(said.contains(words), "{name}: {said}");
        std::fs::remove_dir_all(link.parent().unwrap()).unwrap();
    }
    assert_eq!(server.messages("x.test/i").len(), 1);
    // A file where the queue should be shows that the option is read.
    let link = by_name("mailq");
    let file = link.display();
    for args in [
        vec!["--queue".to_owned(), file.to_string()],
        vec![format!("--queue={file}")],
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = run(link.to_str().unwrap(), &args, b"", &server.urls[0]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            (output.status.code(), said.contains("Not a directory")),
            (Some(69), true),
            "{said}"
        );
    }
    std::fs::remove_dir_all(link.parent().unwrap()).unwrap();
}

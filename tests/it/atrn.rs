//! ATRN (RFC 2645): who may fetch mail, and that the roles are reversed on the same connection.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::time::{Duration, Instant};

use crate::relay::{launch, queued, send};
use crate::scripted::Hop;
use crate::server::{Client, Server};
use crate::tls::{self, CERT, KEY};

const USERS: &str = "odd:{PLAIN}secret\neven:{PLAIN}secret\nother:{PLAIN}secret\n";

/// A server that keeps mail for two users.
fn keeper(args: &[&str]) -> Server {
    let all = [
        "-d",
        "a.test",
        "--users",
        "users",
        "--relay-from",
        "127.0.0.0/8",
        "--retry",
        "1h",
        "--relay",
        "atrn:odd?for=one.test&for=three.test",
        "--relay",
        "atrn:even?for=two.test",
    ];
    launch(&[&all, args].concat(), &[("users", USERS)])
}

fn login(user: &str) -> String {
    let plain = format!("\0{user}\0secret");
    format!(
        "AUTH PLAIN {}",
        mailslot::encoding::base64_encode(plain.as_bytes())
    )
}

fn ask(client: &mut Client, command: &str) -> String {
    client.send(format!("{command}\r\n").as_bytes());
    client.reply()
}

fn logged_in(server: &Server, user: &str) -> Client {
    let mut client = server.client();
    client.reply();
    ask(&mut client, "EHLO c");
    assert!(ask(&mut client, &login(user)).starts_with("235"));
    client
}

/// Waits until the mail is queued for its user.
fn noted(server: &Server, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let files = super::relay::envelopes(server).into_iter();
        let texts = files.map(std::fs::read_to_string);
        let noted =
            texts.filter(|text| text.as_ref().is_ok_and(|text| text.contains("fetches it")));
        if noted.count() >= count {
            return;
        }
        assert!(Instant::now() < deadline, "nothing is noted");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn users_fetch_only_their_own_mail() {
    let a = keeper(&["--insecure-auth"]);
    let mut client = a.client();
    client.reply();
    assert!(ask(&mut client, "EHLO c").contains("ATRN"));
    assert!(ask(&mut client, "ATRN").starts_with("530 5.7.0"));
    let mut client = logged_in(&a, "other");
    assert!(ask(&mut client, "ATRN").starts_with("450 4.7.0"));
    let mut client = logged_in(&a, "odd");
    assert!(ask(&mut client, "ATRN").starts_with("453 4.0.0"));
    send(&a, "me@a.test", &["x@two.test"], "A: b\r\n\r\nx");
    for (command, code) in [
        ("ATRN", "453"),
        ("ATRN three.test", "453"),
        ("ATRN two.test", "450"),
        ("ATRN one.test,two.test", "450"),
        ("ATRN nowhere.test", "450"),
        ("ATRN one.test,", "501"),
        ("ATRN <x>", "501"),
    ] {
        assert!(ask(&mut client, command).starts_with(code), "{command}");
    }
    assert!(ask(&mut client, "MAIL FROM:<odd@a.test>").starts_with("250"));
    assert!(ask(&mut client, "ATRN").starts_with("503 5.5.1"));
    assert_eq!(queued(&a), 1);
    // It is not offered without accounts.
    let a = keeper(&[]);
    let mut client = a.client();
    client.reply();
    assert!(!ask(&mut client, "EHLO c").contains("ATRN"));
}

/// A hop may have any name by which its user logs in, and no other account is meant.
#[test]
fn users_have_several_names() {
    let users = "odd:{PLAIN}secret\nodd@b.test:{PLAIN}secret\n";
    let a = launch(
        &[
            "-d",
            "a.test",
            "-d",
            "b.test",
            "--users",
            "users",
            "--insecure-auth",
            "--relay",
            "atrn:Odd@a.test?for=one.test",
            "--relay",
            "atrn:ODD@b.test?for=two.test",
        ],
        &[("users", users)],
    );
    for (user, own, other) in [
        ("odd", "one.test", "two.test"),
        ("odd@a.test", "one.test", "two.test"),
        ("odd@b.test", "two.test", "one.test"),
    ] {
        let mut client = logged_in(&a, user);
        assert!(ask(&mut client, &format!("ATRN {own}")).starts_with("453"));
        assert!(ask(&mut client, &format!("ATRN {other}")).starts_with("450"));
    }
}

/// Only the requested mail goes out, and at once, although it would wait for an hour.
#[test]
fn the_roles_are_reversed() {
    let a = keeper(&["--insecure-auth"]);
    let to = ["x@one.test", "y@three.test"];
    send(&a, "me@a.test", &to, "Subject: both\r\n\r\nx");
    send(&a, "me@a.test", &["z@three.test"], "Subject: late\r\n\r\nx");
    send(&a, "me@a.test", &["u@two.test"], "Subject: other\r\n\r\nx");
    noted(&a, 2);
    let (first, second) = (Hop::default(), Hop::default());
    let mut client = logged_in(&a, "odd");
    (0..13).for_each(|_| assert!(ask(&mut client, "WHAT").starts_with("500")));
    assert!(ask(&mut client, "ATRN three.test").starts_with("250 2.0.0"));
    // The roles have turned and nothing was greeted yet: the mail is claimed.
    let mut rival = logged_in(&a, "odd");
    assert!(ask(&mut rival, "ATRN").starts_with("450 4.7.0"));
    first.serve(&client.socket, &["PIPELINING"]);
    let heard = first.heard("QUIT");
    assert!(heard.starts_with("EHLO mx.test\r\n"), "{heard}");
    for part in [
        "RCPT TO:<y@three.test>\r\n",
        "Subject: both",
        "RCPT TO:<z@three.test>\r\n",
    ] {
        assert!(heard.contains(part), "{part} in {heard}");
    }
    assert!(
        !heard.contains("x@one.test") && !heard.contains("two.test"),
        "{heard}"
    );
    a.logged("refused_more=3 end=\"turned\"");
    assert!(ask(&mut rival, "ATRN").starts_with("250"));
    second.serve(&rival.socket, &[]);
    let heard = second.heard("QUIT");
    assert!(
        heard.contains("RCPT TO:<x@one.test>\r\n") && !heard.contains("three.test"),
        "{heard}"
    );
    assert_eq!(queued(&a), 1);
}

/// A connection that ends in the middle loses nothing, and the next one has all of it.
#[test]
fn a_turned_connection_that_breaks() {
    let a = keeper(&["--insecure-auth"]);
    for number in 0..3 {
        let text = format!("Subject: n{number}\r\n\r\nx");
        send(&a, "me@a.test", &["x@one.test"], &text);
    }
    noted(&a, 1);
    let mut client = logged_in(&a, "odd");
    assert!(ask(&mut client, "ATRN").starts_with("250"));
    client.send(b"220 hop\r\n");
    assert_eq!(client.reply(), "EHLO mx.test\r\n");
    drop(client);
    a.logged("turned");
    assert_eq!(queued(&a), 3);
    let hop = Hop::default();
    let mut client = logged_in(&a, "odd");
    assert!(ask(&mut client, "ATRN").starts_with("250"));
    hop.serve(&client.socket, &[]);
    let heard = hop.heard("QUIT");
    for number in 0..3 {
        assert_eq!(
            heard.matches(&format!("Subject: n{number}")).count(),
            1,
            "{heard}"
        );
    }
    assert_eq!(queued(&a), 0);
}

/// At a shutdown the reply to a message that was sent completely is awaited here, too, and no other message begins.
#[test]
fn a_turned_connection_at_a_shutdown() {
    let mut a = keeper(&["--insecure-auth"]);
    for _ in 0..2 {
        send(&a, "me@a.test", &["x@one.test"], "Subject: x\r\n\r\nx");
    }
    noted(&a, 1);
    let (mut idle, mut client) = (a.client(), logged_in(&a, "odd"));
    idle.reply();
    assert!(ask(&mut client, "ATRN").starts_with("250"));
    for (line, answer) in [
        ("220 hop", "EHLO"),
        ("250 hop", "MAIL"),
        ("250 ok", "RCPT"),
        ("250 ok", "DATA"),
        ("354 go", ".\r\n"),
    ] {
        client.send(format!("{line}\r\n").as_bytes());
        let mut said = client.reply();
        while !said.starts_with(answer) {
            assert!(!said.is_empty(), "no answer to {line}");
            said = client.reply();
        }
    }
    a.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(idle.reply().starts_with("421 4.3.2"));
    // It may be closed without QUIT.
    let last = ask(&mut client, "250 ok");
    assert!(["", "QUIT\r\n"].contains(&last.as_str()), "{last}");
    assert_eq!((a.ended(), queued(&a)), (Some(0), 1));
}

/// One whose client does not even greet ends at once.
#[test]
fn a_silent_turned_connection_at_a_shutdown() {
    let mut a = keeper(&["--insecure-auth"]);
    send(&a, "me@a.test", &["x@one.test"], "Subject: x\r\n\r\nx");
    noted(&a, 1);
    let mut client = logged_in(&a, "odd");
    assert!(ask(&mut client, "ATRN").starts_with("250"));
    let begun = Instant::now();
    assert_eq!(a.stop(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

/// RFC 9422 §4.1: what is over its limit of messages waits for the next turn.
#[test]
fn a_limit_of_messages_is_kept() {
    let a = keeper(&["--insecure-auth"]);
    for number in 0..3 {
        let text = format!("Subject: n{number}\r\n\r\nx");
        send(&a, "me@a.test", &["x@one.test"], &text);
    }
    for (most, left) in [("LIMITS MAILMAX=2", 1), ("LIMITS MAILMAX=9", 0)] {
        noted(&a, 1);
        let hop = Hop::default();
        let mut client = logged_in(&a, "odd");
        let reply = ask(&mut client, "ATRN");
        assert!(reply.starts_with("250"), "{reply} {most}");
        hop.serve(&client.socket, &[most]);
        hop.heard("QUIT");
        // Only then may the next one have the mail.
        a.logged("turned");
        assert_eq!(queued(&a), left);
        // The next turn may begin.
        a.logged("turned");
    }
}

/// Inside TLS the client's greeting and replies are encrypted, too.
#[test]
fn turned_inside_tls() {
    let a = keeper(&["--tls-cert", CERT, "--tls-key", KEY]);
    send(&a, "me@a.test", &["x@one.test"], "Subject: sealed\r\n\r\nx");
    noted(&a, 1);
    let mut client = a.client();
    client.reply();
    assert!(!ask(&mut client, "EHLO c").contains("ATRN"));
    assert!(ask(&mut client, "STARTTLS").starts_with("220"));
    let tls = tls::connect(client.socket.try_clone().unwrap(), &[]).unwrap();
    let mut tls = BufReader::new(tls);
    let mut said = String::new();
    for (line, answer) in [
        ("EHLO c", "250 "),
        (&login("odd"), "235"),
        ("ATRN", "250 2.0.0"),
        ("220 hop", "EHLO"),
        ("250 hop", "MAIL"),
        ("250 ok", "RCPT TO:<x@one.test>"),
        ("250 ok", "DATA"),
        ("354 go", ".\r\n"),
        ("250 ok", "QUIT"),
    ] {
        tls.get_mut()
            .write_all(format!("{line}\r\n").as_bytes())
            .unwrap();
        said.clear();
        while !said.starts_with(answer) {
            said.clear();
            assert!(tls.read_line(&mut said).unwrap() > 0, "no answer to {line}");
        }
    }
    tls.get_mut().write_all(b"221 bye\r\n").unwrap();
    assert_eq!(tls.read_to_string(&mut said).unwrap_or(0), 0);
    assert_eq!(queued(&a), 0);
}

/// Mail that is never fetched is bounced.
#[test]
fn mail_that_is_never_fetched_comes_back() {
    let a = launch(
        &[
            "-d",
            "a.test",
            "--create",
            "--relay-from",
            "127.0.0.0/8",
            "--retry",
            "1s",
            "--retry-for",
            "2s",
            "--relay",
            "atrn:odd",
        ],
        &[],
    );
    send(&a, "alice@a.test", &["x@one.test"], "Subject: old\r\n\r\nx");
    send(&a, "alice@a.test", &["y@one.test"], "Subject: old\r\n\r\nx");
    let failed = |words: &str| {
        let deadline = Instant::now() + Duration::from_secs(30);
        let of =
            |text: &String| text.contains(words) && text.contains("Action: failed\nStatus: 5.4.7");
        while !a.messages("a.test/alice").iter().any(of) {
            assert!(
                Instant::now() < deadline,
                "{words}: {:?}",
                a.messages("a.test/alice")
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    failed("rfc822; x@one.test");
    failed("rfc822; y@one.test");
}

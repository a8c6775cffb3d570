//! Next hops that misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::relay::{end, front, queued, send, wait_for, wait_for_empty};
use crate::scripted::Hop;

/// Serves connections as an unruly hop until it has three recipients, which it returns.
fn serve_unruly(listener: &TcpListener) -> Vec<String> {
    let mut taken: Vec<String> = Vec::new();
    let mut later = 0;
    // The first connection ends before the reply to the dot: nothing counts as sent.
    for (number, socket) in listener.incoming().enumerate() {
        let mut socket = socket.unwrap();
        let mut input = BufReader::new(socket.try_clone().unwrap());
        socket.write_all(b"220 hop\r\n").unwrap();
        let mut rcpt = Vec::new();
        let mut line = String::new();
        let mut data = false;
        while input.read_line(&mut line).unwrap_or(0) > 0 {
            let reply = match line.split([' ', '\r']).next().unwrap() {
                "." if data && number == 0 => break,
                "." if data => {
                    data = false;
                    taken.append(&mut rcpt);
                    "250 2.0.0 ok"
                }
                _ if data => "",
                "RCPT" if !rcpt.is_empty() => "452 4.5.3 one at a time",
                "RCPT" if line.contains("later") && later < 2 => {
                    later += 1;
                    "450 4.2.1 later"
                }
                "RCPT" => {
                    rcpt.push(line.trim().to_owned());
                    "250 ok"
                }
                "DATA" if rcpt.is_empty() => "554 nobody",
                "DATA" => {
                    data = true;
                    "354 go"
                }
                "MAIL" | "RSET" => {
                    rcpt.clear();
                    "250 ok"
                }
                "QUIT" => break,
                _ => "250 hop",
            };
            if !reply.is_empty() {
                socket.write_all(format!("{reply}\r\n").as_bytes()).unwrap();
            }
            line.clear();
        }
        if taken.len() >= 3 {
            return taken;
        }
    }
    taken
}

/// A hop that accepts one recipient per transaction, defers one, and closes in the middle.
#[test]
fn an_unruly_hop() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || serve_unruly(&listener));
    let a = front(&[&url], &[]);
    let to = ["one@b.test", "two@b.test", "later@b.test"];
    send(&a, "alice@a.test", &to, "x");
    let mut taken = served.join().unwrap();
    taken.sort();
    assert_eq!(
        taken,
        [
            "RCPT TO:<later@b.test>",
            "RCPT TO:<one@b.test>",
            "RCPT TO:<two@b.test>"
        ]
    );
}

/// SIGTERM ends the server at once although a hop is silent, and the mail is still queued.
#[test]
fn a_silent_hop_holds_up_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("smtp://{}", silent.local_addr().unwrap());
    let b = end(&[]);
    let slow = format!("{url}?for=slow.test");
    let mut a = front(&[&slow, &b.urls[0]], &[]);
    send(&a, "alice@a.test", &["x@slow.test"], "x");
    let (_held, _) = silent.accept().unwrap();
    send(&a, "alice@a.test", &["bob@b.test", "alice@a.test"], "x");
    wait_for(&b, "b.test/bob", 1);
    wait_for(&a, "a.test/alice", 1);
    let begun = Instant::now();
    assert_eq!(a.stop(), Some(0));
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(queued(&a), 1);
}

/// A connection that carried a hundred messages ends with QUIT (RFC 5321 §4.1.1.10), and the rest goes over another
/// one.
#[test]
fn a_connection_takes_a_hundred_messages() {
    let hop = Hop::start(&[]);
    let a = front(&[&format!("{}?connections=1", hop.url)], &[]);
    let mut client = a.client();
    client.reply();
    client.send(b"EHLO c\r\n");
    client.reply();
    for number in 0..103 {
        client.send(b"MAIL FROM:<a@a.test>\r\n");
        client.reply();
        client.send(format!("RCPT TO:<m{number}@b.test>\r\n").as_bytes());
        client.reply();
        client.send(b"DATA\r\n");
        client.reply();
        client.send(b"x\r\n.\r\n");
        assert!(client.reply().starts_with("250"));
    }
    wait_for_empty(&a);
    let heard = hop.heard("QUIT");
    let (first, rest) = heard.split_once("QUIT\r\n").unwrap();
    assert_eq!(first.matches("MAIL FROM").count(), 100);
    assert!(rest.starts_with("EHLO"), "{rest}");
    assert_eq!(rest.matches("MAIL FROM").count(), 3, "{rest}");
}

/// After a transaction that was not completed: the message is not to blame, and goes over a new connection.
#[test]
fn a_hop_that_refuses_rset() {
    let answers: [fn(&str) -> Option<&'static str>; 3] = [
        |line| refuses(line, "451 4.0.0 no\r\n"),
        |line| refuses(line, "554 5.0.0 no\r\n"),
        |line| refuses(line, "421 4.3.2 no\r\n"),
    ];
    for answer in answers {
        let hop = Hop::answering(&[], answer);
        let a = front(&[&format!("{}?connections=1", hop.url)], &[]);
        send(&a, "alice@a.test", &["wrong@b.test"], "x");
        wait_for(&a, "a.test/alice", 1);
        send(&a, "alice@a.test", &["right@b.test"], "x");
        let heard = hop.heard("\n.\r\n");
        let order = ["RCPT TO:<wrong@", "RSET", "EHLO", "RCPT TO:<right@"];
        let places = order.map(|words| heard.rfind(words).unwrap());
        assert!(places.is_sorted(), "{heard}");
        assert_eq!(heard.matches("RSET").count(), 1, "{heard}");
        assert_eq!(a.messages("a.test/alice").len(), 1, "no other report");
    }
}

fn refuses(line: &str, reset: &'static str) -> Option<&'static str> {
    match line.split([' ', '\r']).next() {
        Some("RSET") => Some(reset),
        Some("RCPT") if line.contains("wrong") => Some("550 5.1.1 no\r\n"),
        _ => None,
    }
}

/// Meaningless parameters are ignored.
#[test]
fn a_hop_that_offers_junk() {
    let offers = [
        "SIZE -1",
        "SIZE 99999999999999999999999999",
        "SIZE=what",
        "SIZE",
        "LIMITS RCPTMAX=0 RCPTMAX=what RCPTMAX RCPTMAX=99999999999999999999999999",
        "AUTH",
        "AUTH=\u{1b} PLAIN\tX",
        "",
    ];
    let hop = Hop::start(&offers);
    let a = front(&[&hop.url], &[]);
    send(&a, "alice@a.test", &["x@b.test", "y@b.test"], "x");
    let heard = hop.heard("\n.\r\n");
    assert_eq!(heard.matches("MAIL FROM").count(), 1, "{heard}");
    assert_eq!(heard.matches("RCPT TO").count(), 2, "{heard}");
}

/// A reply that comes before its command is not a reply to it, and nothing counts as sent.
#[test]
fn a_hop_that_answers_before_it_is_asked() {
    let answers: [fn(&str) -> Option<&'static str>; 3] = [
        |line| {
            let ahead = "250 hop\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n";
            line.starts_with("EHLO").then_some(ahead)
        },
        |line| line.starts_with("MAIL").then_some("250 ok\r\n250 ok\r\n"),
        |line| {
            line.starts_with("DATA")
                .then_some("354 go\r\n250 taken\r\n")
        },
    ];
    for answer in answers {
        let hop = Hop::answering(&[], answer);
        let a = front(&[&hop.url], &["--retry", "1h"]);
        send(&a, "alice@a.test", &["x@b.test"], "x");
        hop.heard("EHLO");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !a.log().contains("outcome=later status=4.5.0") {
            assert!(Instant::now() < deadline, "{}", a.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(queued(&a), 1);
    }
}

/// An LMTP hop that answers its first message in the middle of the content, on a socket whose buffers do not hold all
/// of it. Counts the messages of which it has seen the end.
fn serve_early(hop: UnixStream, early: &str, chunking: bool, whole: &AtomicUsize) {
    let mut input = BufReader::new(hop.try_clone().unwrap());
    let say = |text: &str| (&hop).write_all(text.as_bytes());
    say("220 hop\r\n").unwrap();
    let mut line = String::new();
    let mut in_content = false;
    while input.read_line(&mut line).unwrap_or(0) > 0 {
        let mut words = line.split_whitespace();
        let reply = match words.next().unwrap_or_default() {
            "." if in_content => {
                in_content = false;
                whole.fetch_add(1, Ordering::SeqCst);
                "250 2.0.0 ok\r\n"
            }
            _ if in_content => "",
            "LHLO" if chunking => "250-hop\r\n250 CHUNKING\r\n",
            "DATA" => {
                in_content = true;
                say("354 go\r\n").unwrap();
                input.read_line(&mut String::new()).unwrap();
                early
            }
            "BDAT" => {
                let size: u64 = words.next().unwrap().parse().unwrap();
                let first = input.read_line(&mut String::new()).unwrap() as u64;
                let _ = say(early);
                let mut rest = input.by_ref().take(size - first);
                if std::io::copy(&mut rest, &mut std::io::sink()).ok() != Some(size - first) {
                    return;
                }
                whole.fetch_add(1, Ordering::SeqCst);
                "250 2.0.0 ok\r\n"
            }
            _ => "250 2.1.0 ok\r\n",
        };
        if say(reply).is_err() {
            return;
        }
        line.clear();
    }
}

/// A reply that came before the end of the content was sent is no promise (RFC 5321 §4.1.1.4): nothing is lost by it,
/// and the hop gets no end that it might take the message by. A refusal counts.
#[test]
fn a_hop_that_answers_in_the_middle_of_the_content() {
    let cases = [
        ("250 2.0.0 taken\r\n", "later status=4.5.0", 1),
        ("250 2.0.0 taken chunk\r\n", "later status=4.5.0", 1),
        ("250-2.0.0 half of it\r\n", "later status=4.5.0", 1),
        ("354 go on\r\n", "later status=4.5.0", 1),
        ("450 4.2.0 later\r\n", "later status=4.2.0", 1),
        ("421 4.3.2 bye chunk\r\n", "later status=4.3.2", 1),
        ("550 5.7.1 no\r\n", "failed status=5.7.1", 0),
        ("550 5.7.1 no chunk\r\n", "failed status=5.7.1", 0),
    ];
    let content = format!("Subject: x\r\n\r\n{}", "0123456789abcd\r\n".repeat(65_536));
    for (number, (early, outcome, taken)) in cases.into_iter().enumerate() {
        let name = format!("mailslot-early-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let whole = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&whole);
        std::thread::spawn(move || {
            for (number, hop) in listener.incoming().enumerate() {
                let now = if number == 0 { early } else { "" };
                serve_early(hop.unwrap(), now, early.contains("chunk"), &counted);
            }
        });
        let a = front(&[&format!("lmtp:{}", path.display())], &[]);
        send(&a, "alice@a.test", &["x@b.test"], content.trim_end());
        a.logged(&format!("outcome={outcome}"));
        match taken {
            0 => drop(wait_for(&a, "a.test/alice", 1)),
            _ => a.logged("outcome=sent"),
        }
        wait_for_empty(&a);
        assert_eq!(whole.load(Ordering::SeqCst), taken, "{early}");
        assert_eq!(a.log().matches("outcome=sent").count(), taken, "{early}");
        std::fs::remove_file(path).unwrap();
    }
}

/// The 250 has arrived, whatever happens to the connection then: nothing is sent twice.
#[test]
fn a_hop_that_resets_after_its_250() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("smtp://{}?connections=1", listener.local_addr().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for hop in listener.incoming() {
            let mut hop = hop.unwrap();
            let mut input = BufReader::new(hop.try_clone().unwrap());
            hop.write_all(b"220 hop\r\n").unwrap();
            let mut line = String::new();
            let mut in_content = false;
            while input.read_line(&mut line).unwrap_or(0) > 0 {
                let reply = match line.trim_end() {
                    "." => "250 2.0.0 taken\r\n",
                    "DATA" => "354 go\r\n",
                    _ if in_content => "",
                    _ => "250 ok\r\n",
                };
                in_content |= reply.starts_with("354");
                if line.starts_with("RCPT") {
                    tell.send(line.trim_end().to_owned()).unwrap();
                }
                hop.write_all(reply.as_bytes()).unwrap();
                if line == ".\r\n" {
                    break;
                }
                line.clear();
            }
            let linger = nix::libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            nix::sys::socket::setsockopt(&hop, nix::sys::socket::sockopt::Linger, &linger).unwrap();
        }
    });
    let a = front(&[&url], &[]);
    for number in 0..20 {
        send(&a, "alice@a.test", &[&format!("x{number}@b.test")], "x");
    }
    wait_for_empty(&a);
    a.logged("to=\"x19@b.test\" host=\"127.0.0.1\" outcome=sent");
    let log = a.log();
    assert_eq!(log.matches("outcome=sent").count(), 20, "{log}");
    assert_eq!(log.matches("outcome=").count(), 20, "{log}");
    let mut sent: Vec<String> = told.try_iter().collect();
    sent.sort();
    sent.dedup();
    assert_eq!(sent.len(), 20, "{sent:?}");
}

/// A message with a bare CR or LF is relayed unchanged by BDAT, or bounces, even with a local copy.
#[test]
fn bare_newlines_go_as_they_came() {
    let (chunks, plain) = (Hop::start(&["CHUNKING"]), Hop::start(&["DSN"]));
    let routes = [format!("{}?for=b.test", chunks.url), plain.url.clone()];
    let a = front(&[&routes[0], &routes[1]], &[]);
    for content in [
        "A: b\r\n\r\none\r\ntwo\nthree\rfour\r\n",
        "A: b\nB: c\r\n\r\nlast\r",
    ] {
        let mut client = a.client();
        client.reply();
        let (head, tail) = content.split_at(content.len() / 2);
        for command in [
            "EHLO c\r\n",
            "MAIL FROM:<alice@a.test>\r\n",
            "RCPT TO:<x@b.test>\r\n",
            "RCPT TO:<y@c.test>\r\n",
            "RCPT TO:<local@a.test>\r\n",
            &format!("BDAT {}\r\n{head}", head.len()),
            &format!("BDAT {} LAST\r\n{tail}", tail.len()),
        ] {
            client.send(command.as_bytes());
            let reply = client.reply();
            assert!(reply.starts_with("25"), "{command}: {reply}");
        }
        chunks.heard(content);
    }
    let report = wait_for(&a, "a.test/alice", 2).remove(0);
    assert!(
        report.contains("Final-Recipient: rfc822; y@c.test\nAction: failed\nStatus: 5.6.3\n"),
        "{report}"
    );
    assert!(!plain.heard("EHLO").contains("MAIL"));
    // Stored as mail that stays here: lines end in LF, and a bare CR or LF is kept.
    let local = a.messages("a.test/local");
    let stored = ["A: b\n\none\ntwo\nthree\rfour\n", "A: b\nB: c\n\nlast\r"];
    for text in local {
        assert!(
            stored.iter().any(|content| text.ends_with(content)),
            "{text:?}"
        );
        assert!(!text.contains("\r\n"), "{text:?}");
    }
    let names = std::fs::read_dir(a.dir.join("mail/a.test/local/new")).unwrap();
    let names: Vec<_> = names.map(Result::unwrap).collect();
    assert_eq!(names.len(), 2);
    for entry in names {
        let size = format!(",S={}", entry.metadata().unwrap().len());
        let name = entry.file_name().into_string().unwrap();
        assert!(name.ends_with(&size), "{name} {size}");
    }
}

/// One message on each connection and one domain in each transaction (RFC 9422).
#[test]
fn limits_of_a_hop_are_kept() {
    let hop = Hop::start(&["LIMITS MAILMAX=1 RCPTDOMAINMAX=1"]);
    let a = front(&[&hop.url], &[]);
    let to = ["u@b.test", "v@c.test", "w@B.test"];
    assert!(send(&a, "me@a.test", &to, "x")[4].starts_with("250"));
    wait_for_empty(&a);
    let heard = hop.heard("v@c.test");
    let transactions: Vec<&str> = heard.split("EHLO").skip(1).collect();
    assert_eq!(transactions.len(), 2, "{heard}");
    for transaction in transactions {
        assert_eq!(transaction.matches("MAIL FROM").count(), 1, "{heard}");
        let here = transaction.contains("u@b.test");
        assert_eq!(transaction.contains("w@B.test"), here, "{heard}");
        assert_eq!(transaction.contains("v@c.test"), !here, "{heard}");
    }
}

/// A report that is refused for good is dropped, and one that is refused for now is tried again, but not for ever.
#[test]
fn reports_that_cannot_be_delivered() {
    let hop = Hop::answering(&[], |line| {
        line.starts_with("RCPT").then_some("550 5.1.1 nobody\r\n")
    });
    let a = front(&[&hop.url], &["--quota", "1K"]);
    send(&a, "me@a.test", &["u@b.test"], "x");
    wait_for_empty(&a);
    a.logged("report dropped to=\"me@a.test\": Mailbox full");
    let a = front(&[&hop.url], &["--retry-for", "2s"]);
    let mailbox = a.dir.join("mail/a.test/me");
    std::fs::create_dir_all(&mailbox).unwrap();
    std::fs::write(mailbox.join("new"), "").unwrap();
    send(&a, "me@a.test", &["u@b.test"], "x");
    a.logged("Mailbox not usable now");
    assert_eq!(queued(&a), 1);
    wait_for_empty(&a);
    assert!(hop.heard("u@b.test").matches("RCPT").count() > 2);
}

/// A hop that allows one connection gets everything over that one, at once.
#[test]
fn a_hop_that_allows_one_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let a = front(&[&url], &["--retry", "1h"]);
    for _ in 0..4 {
        send(&a, "me@a.test", &["x@far.test"], "x");
    }
    let (mut hop, _) = listener.accept().unwrap();
    hop.write_all(b"220 hop\r\n").unwrap();
    let mut input = BufReader::new(hop.try_clone().unwrap());
    let (mut line, mut content, mut sent) = (String::new(), false, 0);
    while sent < 4 && input.read_line(&mut line).unwrap() > 0 {
        if line.starts_with("MAIL") && sent == 0 {
            let (mut other, _) = listener.accept().unwrap();
            other.write_all(b"421 4.7.0 one only\r\n").unwrap();
            a.logged("open=1");
        }
        sent += usize::from(line == ".\r\n");
        let reply = match (line.as_str(), content) {
            (".\r\n", _) => &b"250 ok\r\n"[..],
            (_, true) => b"",
            ("DATA\r\n", _) => b"354 go\r\n",
            _ => b"250 ok\r\n",
        };
        content = reply.is_empty() || reply.starts_with(b"354");
        hop.write_all(reply).unwrap();
        line.clear();
    }
    wait_for_empty(&a);
}

//! Rules of relaying that need a whole server and a next hop: TLS if it is offered, connections and transactions,
//! replies to RCPT, and handling the queue's files by hand.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::relay::{end, front, launch, queued, send, wait_for, wait_for_empty};
use crate::room::Mounted;
use crate::scripted::Hop;
use crate::server::{Server, Setup};
use crate::tls::{CERT, KEY};

/// An address without a listener.
fn nobody() -> String {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("smtp://{}", gone.local_addr().unwrap())
}

fn at(url: &str) -> Server {
    Server::launch(&Setup {
        listen: vec![url.to_owned()],
        args: ["-d", "b.test", "--create"].map(str::to_owned).to_vec(),
        ..Setup::default()
    })
    .unwrap()
}

/// `smtp://` uses STARTTLS if it is offered, and checks certificates only if `?tls=require` is given.
#[test]
fn starttls_where_it_is_offered() {
    let b = end(&["--tls-cert", CERT, "--tls-key", KEY]);
    for (number, (query, protocol)) in [
        ("", "with ESMTPS id"),
        ("?tls=require", "with ESMTPS id"),
        ("?tls=none", "with ESMTP id"),
    ]
    .into_iter()
    .enumerate()
    {
        let ca: &[&str] = if query == "?tls=require" {
            &["--tls-ca", CERT]
        } else {
            &[]
        };
        let a = front(&[&format!("{}{query}", b.urls[0])], ca);
        let to = format!("u{number}@b.test");
        send(&a, "alice@a.test", &[&to], "x");
        wait_for(&b, &format!("b.test/u{number}"), 1);
        let all = b.stored();
        let own = all.iter().find(|text| text.contains(&to)).unwrap();
        assert!(own.contains(protocol), "{query}: {own}");
    }
    let plain = Hop::start(&[]);
    let a = front(
        &[&format!("{}?tls=require", plain.url)],
        &["--tls-ca", CERT],
    );
    send(&a, "alice@a.test", &["x@b.test"], "x");
    a.logged("outcome=later status=4.7.5");
    assert!(!plain.heard("EHLO").contains("MAIL"));
    assert_eq!(queued(&a), 1);
}

/// A hop that offers STARTTLS, gives this answer to it, and does not do the handshake; without an answer it closes.
fn without_tls(answer: &'static [u8]) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    let serve = move |hop: TcpStream| {
        let mut input = BufReader::new(hop.try_clone().unwrap());
        let mut line = String::new();
        (&hop).write_all(b"220 hop\r\n").unwrap();
        while input.read_line(&mut line).unwrap_or(0) > 0 {
            let reply: &[u8] = match line.get(..4) {
                Some("EHLO") => b"250-hop\r\n250 STARTTLS\r\n",
                Some("STAR") if answer.is_empty() => return,
                Some("STAR") => answer,
                Some("DATA") => b"354 go\r\n",
                Some("MAIL" | "RCPT" | "QUIT" | ".\r\n") => b"250 ok\r\n",
                _ => b"",
            };
            let _ = (&hop).write_all(reply);
            let _ = tell.send(std::mem::take(&mut line));
            if reply.starts_with(b"220") {
                let hello = input.read_exact(&mut [0; 5]);
                let _ = hello.and_then(|()| (&hop).write_all(b"500 what?\r\n"));
                return;
            }
        }
    };
    std::thread::spawn(move || listener.incoming().for_each(|hop| serve(hop.unwrap())));
    (url, told)
}

/// If TLS was only offered, the attempt after a 454 or a failed start of TLS is in the clear; never if it is required.
#[test]
fn a_hop_whose_tls_fails_is_tried_in_the_clear() {
    for (answer, status) in [
        (&b"454 4.7.0 not now\r\n"[..], "4.7.5"),
        (b"220 go\r\n", "4.7.5"),
        (b"220 go\r\n250 more\r\n", "4.5.0"),
        (b"", "4.4.2"),
    ] {
        let (url, told) = without_tls(answer);
        let a = front(&[&url], &[]);
        send(&a, "alice@a.test", &["x@b.test"], "x");
        let mut heard = String::new();
        while !heard.contains("\n.\r\n") {
            heard += &told.recv_timeout(Duration::from_secs(20)).unwrap();
        }
        let count = |word| heard.matches(word).count();
        assert_eq!((count("EHLO"), count("MAIL")), (2, 1), "{heard}");
        a.logged(&format!("outcome=later status={status}"));
        let (url, told) = without_tls(answer);
        let url = format!("{url}?tls=require");
        let a = front(&[&url], &["--tls-ca", CERT]);
        send(&a, "alice@a.test", &["x@b.test"], "x");
        let mut heard = String::new();
        while heard.matches("EHLO").count() < 3 {
            heard += &told.recv_timeout(Duration::from_secs(20)).unwrap();
        }
        assert!(!heard.contains("MAIL"), "{heard}");
    }
}

/// RFC 3207 §4: a hop whose TLS failed once may take no mail without it. That is no reason to return the mail.
#[test]
fn a_hop_that_takes_nothing_in_the_clear() {
    let strict = |line: &str| match line.get(..4) {
        Some("STAR") => Some("454 4.7.0 not now\r\n"),
        Some("MAIL") => Some("530 5.7.0 Must issue a STARTTLS command first\r\n"),
        _ => None,
    };
    let hop = Hop::answering(&["STARTTLS"], strict);
    let a = front(&[&hop.url], &[]);
    send(&a, "alice@a.test", &["x@b.test"], "x");
    // The next try is with TLS again.
    hop.heard("MAIL FROM:<alice@a.test>\r\nQUIT\r\nEHLO mx.test\r\nSTARTTLS\r\n");
    assert_eq!(queued(&a), 1);
    // Nor is what it offers in TLS only.
    let shy = |line: &str| line.starts_with("STAR").then_some("454 4.7.0 not now\r\n");
    let hop = Hop::answering(&["STARTTLS"], shy);
    let b = front(&[&hop.url], &[]);
    send(&b, "alice@a.test", &["x@b.test"], "\u{e9}");
    hop.heard("EHLO mx.test\r\nQUIT\r\nEHLO mx.test\r\nSTARTTLS\r\n");
    assert_eq!(queued(&b), 1);
    for server in [a, b] {
        assert!(server.messages("a.test/alice").is_empty());
    }
}

/// A hop that counts its connections and waits a little before each 250.
fn counting(counts: Arc<[AtomicUsize; 3]>, ended: mpsc::Sender<Instant>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let serve = move |hop: TcpStream, counts: &[AtomicUsize; 3]| {
        let [all, now, most] = counts;
        all.fetch_add(1, Ordering::SeqCst);
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let mut line = String::new();
        let mut input = BufReader::new(hop.try_clone().unwrap());
        (&hop).write_all(b"220 hop\r\n").unwrap();
        let mut content = false;
        while !line.starts_with("QUIT") && {
            line.clear();
            input.read_line(&mut line).unwrap_or(0) > 0
        } {
            if line == ".\r\n" {
                std::thread::sleep(Duration::from_millis(30));
            } else if content {
                continue;
            }
            content = line.starts_with("DATA");
            let reply: &[u8] = if content {
                b"354 go\r\n"
            } else {
                b"250 ok\r\n"
            };
            (&hop).write_all(reply).unwrap();
        }
        now.fetch_sub(1, Ordering::SeqCst);
    };
    std::thread::spawn(move || {
        for hop in listener.incoming() {
            let (counts, ended) = (Arc::clone(&counts), ended.clone());
            std::thread::spawn(move || {
                serve(hop.unwrap(), &counts);
                let _ = ended.send(Instant::now());
            });
        }
    });
    url
}

/// At most two connections to a hop unless its URL says otherwise; each is kept for five seconds after its last
/// message.
#[test]
fn two_connections_at_most_each_kept_for_five_seconds() {
    let counts: Arc<[AtomicUsize; 3]> = Arc::default();
    let (tell, ended) = mpsc::channel();
    let url = counting(Arc::clone(&counts), tell);
    let a = front(&[&url], &[]);
    for number in 0..12 {
        send(&a, "alice@a.test", &[&format!("x{number}@b.test")], "x");
    }
    wait_for_empty(&a);
    let idle = Instant::now();
    send(&a, "alice@a.test", &["late@b.test"], "x");
    wait_for_empty(&a);
    let used = Instant::now();
    let count = |place: usize| counts[place].load(Ordering::SeqCst);
    // A host that stood still for seconds says nothing about the connection.
    if used - idle < Duration::from_secs(3) {
        assert_eq!(count(0), 2, "the last message goes over one of them");
    }
    assert_eq!(count(2), 2);
    let wait = || ended.recv_timeout(Duration::from_secs(20)).unwrap();
    let last = wait().max(wait());
    assert!(last - idle >= Duration::from_secs(5), "{:?}", last - idle);
}

/// A transaction has at most a hundred recipients, or as many as the hop announces (RFC 9422).
#[test]
fn recipients_are_split_into_transactions() {
    for (offer, recipients, split) in [
        ("LIMITS RCPTMAX=2", 5, &[2, 2, 1][..]),
        ("HELP", 101, &[100, 1]),
    ] {
        let hop = Hop::start(&[offer, "PIPELINING"]);
        let a = front(&[&hop.url], &[]);
        let to: Vec<String> = (0..recipients).map(|n| format!("x{n}@b.test")).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        send(&a, "alice@a.test", &to, "x");
        wait_for_empty(&a);
        let heard = hop.heard("QUIT");
        let transactions = heard.split("MAIL FROM").skip(1);
        let sizes: Vec<usize> = transactions
            .map(|one| one.matches("RCPT TO").count())
            .collect();
        assert_eq!(sizes, split, "{offer}");
        assert_eq!(heard.matches("\n.\r\n").count(), split.len(), "{offer}");
    }
}

/// RCPT gets 251 if all targets of the recipient are remote, and 250 if one is local.
#[test]
fn the_reply_to_rcpt_says_where_mail_goes() {
    let a = front(&[&nobody()], &["--retry", "1h"]);
    let to = ["x@b.test", "away@a.test", "both@a.test", "alice@a.test"];
    let replies = send(&a, "me@a.test", &to, "x");
    let codes: Vec<&str> = replies.iter().map(|reply| &reply[..9]).collect();
    assert_eq!(
        codes[..4],
        ["251 2.1.5", "251 2.1.5", "250 2.1.5", "250 2.1.5"]
    );
    assert!(codes[5].starts_with("250 2.0.0"), "{codes:?}");
}

/// A message in the queue is two files that `cat` shows, named by the id of its 250; `rm` of both removes it.
#[test]
fn a_queued_message_is_two_files_to_read_and_to_remove() {
    let url = nobody();
    let a = front(&[&url], &["--retry", "1h"]);
    let text = "Subject: x\r\n\r\n..dot\r\n\u{e9}";
    let reply = send(&a, "alice@a.test", &["gone@b.test"], text)[2].clone();
    let id = reply.trim_end().rsplit(' ').next().unwrap();
    let folder = a.dir.join("queue/new");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !std::fs::read_to_string(folder.join(id)).is_ok_and(|text| text.contains("\nlast ")) {
        assert!(Instant::now() < deadline, "{}", a.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    let names = std::fs::read_dir(&folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let content = names.filter(|name| name.contains(",S=")).last().unwrap();
    assert!(content.starts_with(&format!("{id}.")), "{content}");
    let stored = std::fs::read_to_string(folder.join(&content)).unwrap();
    assert!(content.ends_with(&format!(",S={}", stored.len())));
    assert!(
        stored.contains("Received: from me ") && !stored.contains('\r'),
        "{stored}"
    );
    assert!(
        stored.ends_with("\nSubject: x\n\n.dot\n\u{e9}\n"),
        "{stored}"
    );
    let envelope = std::fs::read_to_string(folder.join(id)).unwrap();
    assert!(envelope.contains("\nfrom alice@a.test\n") && envelope.contains(" gone@b.test\n"));
    for name in [id, &content] {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    let b = at(&url);
    send(&a, "alice@a.test", &["bob@b.test"], "x");
    let mut client = a.client();
    for command in [
        "",
        "EHLO c\r\n",
        &format!("ETRN #{id}\r\n"),
        "ETRN b.test\r\n",
    ] {
        client.send(command.as_bytes());
        assert!(client.reply().starts_with('2'), "{command}");
    }
    wait_for(&b, "b.test/bob", 1);
    wait_for_empty(&a);
    assert_eq!(b.stored().len(), 1, "{:?}", b.stored());
}

/// 458 if the queue cannot be read.
#[test]
fn etrn_is_refused_while_it_cannot_be_served() {
    let a = front(&[&nobody()], &["--retry", "1h"]);
    send(&a, "alice@a.test", &["x@b.test"], "x");
    // Nothing of the message is going on any more.
    a.logged("messages=1 end=");
    a.logged("outcome=later");
    std::fs::rename(a.dir.join("queue/new"), a.dir.join("queue/away")).unwrap();
    let mut client = a.client();
    for (command, code) in [
        ("", "220"),
        ("EHLO c\r\n", "250"),
        ("ETRN b.test\r\n", "458 4.3.0"),
    ] {
        client.send(command.as_bytes());
        let reply = client.reply();
        assert!(reply.starts_with(code), "{command}: {reply}");
    }
}

/// The size that MAIL declares is compared with the room of the queue's file system, too.
#[test]
fn a_full_queue_takes_no_size() {
    let dir = std::env::temp_dir().join(format!("mailslot-queue-room-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let mounted = Mounted::new("tmpfs", &dir, "size=1m");
    if mounted.is_some() {
        let a = front(&[&nobody()], &["--queue", dir.to_str().unwrap()]);
        let mut client = a.client();
        for (command, code) in [
            ("", "220"),
            ("EHLO c\r\n", "250"),
            ("MAIL FROM:<a@a.test> SIZE=2000000\r\n", "452 4.3.1"),
            ("MAIL FROM:<a@a.test> SIZE=1000\r\n", "250"),
        ] {
            client.send(command.as_bytes());
            let reply = client.reply();
            assert!(reply.starts_with(code), "{command}: {reply}");
        }
    }
    drop(mounted);
    std::fs::remove_dir(&dir).unwrap();
}

/// At a shutdown, the reply to a message that was sent completely is awaited, so that it is not sent again. Idle clients
/// do not wait for that.
#[test]
fn a_message_that_was_sent_is_settled_at_a_shutdown() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    let (go, going) = mpsc::channel();
    let served = std::thread::spawn(move || {
        let (mut hop, _) = listener.accept().unwrap();
        let mut input = BufReader::new(hop.try_clone().unwrap());
        let mut line = String::new();
        hop.write_all(b"220 hop\r\n").unwrap();
        while line != ".\r\n" {
            line.clear();
            input.read_line(&mut line).unwrap();
            let reply: &[u8] = match line.get(..4) {
                Some("EHLO" | "MAIL" | "RCPT") => b"250 ok\r\n",
                Some("DATA") => b"354 go\r\n",
                _ => b"",
            };
            hop.write_all(reply).unwrap();
        }
        tell.send(()).unwrap();
        going.recv().unwrap();
        hop.write_all(b"250 2.0.0 taken\r\n").unwrap();
    });
    let mut a = front(&[&url], &[]);
    send(&a, "alice@a.test", &["bob@b.test"], "Subject: x\r\n\r\nx");
    told.recv().unwrap();
    let mut idle = a.client();
    assert!(idle.reply().starts_with("220"));
    a.signal(Signal::SIGTERM);
    let last = idle.reply();
    assert!(last.starts_with("421 4.3.2"), "{last}");
    // Once no newcomer is let in, it is stopping.
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(a.address()).is_ok() {
        assert!(Instant::now() < deadline, "it does not stop");
        std::thread::sleep(Duration::from_millis(5));
    }
    go.send(()).unwrap();
    assert_eq!(a.ended(), Some(0));
    served.join().unwrap();
    assert_eq!(queued(&a), 0);
}

/// A list of mailboxes elsewhere that is named again adds nobody.
#[test]
fn a_list_of_others_named_often() {
    const MANY: usize = 600;
    let members: Vec<String> = (0..MANY).map(|n| format!("user{n:05}@far.test")).collect();
    let aliases = format!("all: {}\n", members.join(", "));
    let args = ["-d", "a.test", "--aliases", "aliases", "--relay", "atrn:x"];
    let a = launch(&args, &[("aliases", &aliases)]);
    let replies = send(&a, "me@b.test", &["all@a.test"; MANY], "x");
    assert!(replies.iter().all(|reply| reply.starts_with(['2', '3'])));
    let text = std::fs::read_to_string(&super::relay::envelopes(&a)[0]).unwrap();
    assert_eq!(text.matches("\nto ").count(), MANY);
}

/// One report about all recipients that fail in one try.
#[test]
fn recipients_that_fail_together_share_a_report() {
    let b = launch(&["-d", "b.test", "--users", "users"], &[("users", "bob\n")]);
    let a = front(&[&b.urls[0]], &[]);
    send(
        &a,
        "alice@a.test",
        &["no@b.test", "bob@b.test", "none@b.test"],
        "x",
    );
    wait_for_empty(&a);
    let reports = wait_for(&a, "a.test/alice", 1);
    assert_eq!(reports.len(), 1, "{reports:?}");
    for address in ["no@b.test", "none@b.test"] {
        let group = format!("Final-Recipient: rfc822; {address}\nAction: failed\nStatus: 5.1.1\n");
        assert!(reports[0].contains(&group), "{address}: {reports:?}");
    }
    assert!(!reports[0].contains("bob@"));
}

/// The report about a recipient that is given up has the hop's last reply.
#[test]
fn giving_up_names_the_last_reply() {
    let later = |line: &str| {
        line.starts_with("RCPT")
            .then_some("450 4.2.1 try again\r\n")
    };
    let hop = Hop::answering(&[], later);
    let a = front(&[&hop.url], &["--retry-for", "2s"]);
    send(&a, "alice@a.test", &["bob@b.test"], "x");
    wait_for_empty(&a);
    let reports = a.messages("a.test/alice");
    let failed = reports.iter().find(|text| text.contains("Action: failed"));
    let failed = failed.unwrap();
    for part in [
        "<bob@b.test>\n    Given up after too many tries: ",
        "\nStatus: 5.4.7\n",
        "\nDiagnostic-Code: smtp; 450 4.2.1 try again\n",
    ] {
        assert!(failed.contains(part), "{part} in {failed}");
    }
}

//! Delivery status notifications (RFC 3461): reports to the sender about delivered mail, and what is passed on to a
//! next hop.

use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::relay::{front, launch, wait_for};
use crate::scripted::Hop;
use crate::server::{Client, Server, Setup};

const ALIASES: (&str, &str) = ("aliases", "team: bob, carol\nrobert: bob\n");

fn server(args: &[&str]) -> Server {
    let all = ["-d", "a.test", "--create", "--aliases", "aliases"];
    launch(&[&all, args].concat(), &[ALIASES])
}

/// Sends each line and reads its reply, then sends a message.
fn say(client: &mut Client, commands: &[&str]) -> Vec<String> {
    client.reply();
    let reply = |command: &&str| {
        client.send(format!("{command}\r\n").as_bytes());
        client.reply()
    };
    commands.iter().map(reply).collect()
}

fn send(server: &Server, commands: &[&str]) {
    let content = ["DATA", "Subject: secret\r\n\r\nbody\r\n."];
    let all = [&["EHLO c"], commands, &content].concat();
    let replies = say(&mut server.client(), &all);
    assert!(
        replies.iter().all(|reply| reply.starts_with(['2', '3'])),
        "{replies:?}"
    );
}

/// R156 R158 A17
#[test]
fn delivered_and_expanded() {
    let a = server(&[]);
    send(
        &a,
        &[
            "MAIL FROM:<alice@a.test> RET=FULL ENVID=QQ+2B1",
            "RCPT TO:<robert@a.test> NOTIFY=SUCCESS ORCPT=rfc822;Rob+2Bx@z.test",
            "RCPT TO:<dave> NOTIFY=SUCCESS,FAILURE",
            "RCPT TO:<team@a.test> NOTIFY=SUCCESS",
            "RCPT TO:<erin@a.test> NOTIFY=NEVER",
            "RCPT TO:<frank@a.test>",
        ],
    );
    let reports = wait_for(&a, "a.test/alice", 2);
    let find = |words: &str| reports.iter().find(|text| text.contains(words)).unwrap();
    let delivered = find("Action: delivered");
    for part in [
        "To: <alice@a.test>\n",
        "Original-Envelope-Id: QQ+1\n",
        "Original-Recipient: rfc822; Rob+x@z.test\nFinal-Recipient: rfc822; robert@a.test\n\
         Action: delivered\nStatus: 2.0.0\n",
        "Final-Recipient: rfc822; dave@a.test\nAction: delivered\n",
        "Content-Type: text/rfc822-headers\n\nSubject: secret\n\n--",
    ] {
        assert!(delivered.contains(part), "{part} in {delivered}");
    }
    // Only failures return the whole message, and the members of an alias stay private.
    for part in ["body", "erin", "frank", "bob", "team"] {
        assert!(!delivered.contains(part), "{part} in {delivered}");
    }
    let expanded = find("Action: expanded");
    assert!(
        expanded.contains("Final-Recipient: rfc822; team@a.test\n"),
        "{expanded}"
    );
    assert!(
        !expanded.contains("carol") && !expanded.contains("Original-Recipient"),
        "{expanded}"
    );
    let whole = a.stored();
    let report = whole
        .iter()
        .find(|text| text.contains("Action: expanded"))
        .unwrap();
    assert!(report.starts_with("Return-Path: <>\n"), "{report}");
}

/// An address to which two recipients lead has what both ask for: NEVER for an alias is not for the address.
#[test]
fn two_wishes_for_one_address() {
    let hop = Hop::start(&["DSN"]);
    let a = front(&[&hop.url], &[]);
    for (alias, itself, both) in [
        (" NOTIFY=NEVER", " NOTIFY=FAILURE", " NOTIFY=FAILURE"),
        (" NOTIFY=NEVER", "", " NOTIFY=FAILURE,DELAY"),
        (" NOTIFY=SUCCESS", " NOTIFY=NEVER", " NOTIFY=SUCCESS"),
        ("", " NOTIFY=SUCCESS", " NOTIFY=SUCCESS,FAILURE,DELAY"),
        ("", "", ""),
    ] {
        let alias = format!("RCPT TO:<away@a.test>{alias}");
        let itself = format!("RCPT TO:<bob@B.test>{itself}");
        send(&a, &["MAIL FROM:<alice@a.test>", &alias, &itself]);
        hop.heard(&format!("RCPT TO:<bob@b.test>{both}\r\n"));
    }
}

/// R157 R159 The connection goes on after a message whose report cannot be delivered.
#[test]
fn reports_that_go_nowhere() {
    let a = server(&["--quota", "5000,1"]);
    for (from, why) in [
        ("x@elsewhere.test", "Relaying is not permitted"),
        ("full@a.test", "Mailbox full"),
    ] {
        if why == "Mailbox full" {
            send(&a, &["MAIL FROM:<>", "RCPT TO:<full@a.test>"]);
        }
        let mail = format!("MAIL FROM:<{from}>");
        send(&a, &[&mail, "RCPT TO:<bob@a.test> NOTIFY=SUCCESS"]);
        a.logged(&format!("to=\"{from}\""));
        std::fs::remove_dir_all(a.dir.join("mail/a.test/bob")).unwrap();
    }
    assert!(a.log().contains("report dropped"), "{}", a.log());
    // There is no report for the null reverse-path.
    send(&a, &["MAIL FROM:<>", "RCPT TO:<bob@a.test> NOTIFY=SUCCESS"]);
    send(
        &a,
        &[
            "MAIL FROM:<alice@a.test>",
            "RCPT TO:<carol@a.test> NOTIFY=SUCCESS",
        ],
    );
    wait_for(&a, "a.test/alice", 1);
    assert_eq!(a.stored().len(), 4, "{:?}", a.stored());
}

#[test]
fn lmtp_reports_on_each_accepted_recipient() {
    let a = Server::launch(&Setup {
        listen: vec!["lmtp://127.0.0.1:0".into()],
        args: ["-d", "a.test", "--create", "--quota", "5000"]
            .map(str::to_owned)
            .into(),
        ..Setup::default()
    })
    .unwrap();
    let mut client = Client::new(TcpStream::connect(a.address()).unwrap());
    let big = "xyz\r\n".repeat(600);
    let content = format!("Subject: x\r\n\r\n{big}\r\n.");
    let first = [
        "LHLO c",
        "MAIL FROM:<>",
        "RCPT TO:<full@a.test>",
        "DATA",
        &content,
    ];
    let hello = say(&mut client, &first);
    // The MTA in front reports what LMTP's replies say, unless DSN is offered to it.
    assert!(!hello[0].contains("DSN"), "{hello:?}");
    for command in [
        "MAIL FROM:<alice@a.test>",
        "RCPT TO:<full@a.test> NOTIFY=SUCCESS",
        "RCPT TO:<bob@a.test> NOTIFY=SUCCESS",
        "DATA",
    ] {
        client.send(format!("{command}\r\n").as_bytes());
        assert!(client.reply().starts_with(['2', '3']), "{command}");
    }
    client.send(format!("{content}\r\n").as_bytes());
    let replies = [client.reply(), client.reply()];
    assert!(
        replies[0].starts_with("552") && replies[1].starts_with("250"),
        "{replies:?}"
    );
    let report = wait_for(&a, "a.test/alice", 1).remove(0);
    assert!(
        report.contains("rfc822; bob@a.test\nAction: delivered\n"),
        "{report}"
    );
    assert!(!report.contains("full@"), "{report}");
}

/// A recipient that is refused after the content goes to none of its addresses: the client sends it again.
#[test]
fn lmtp_relays_for_accepted_recipients_only() {
    let hop = Hop::start(&[]);
    let aliases = "team: full, bob@b.test, dora@b.test\nother: carol@b.test, dora@b.test\n";
    let args = [
        "-d",
        "a.test",
        "--create",
        "--quota",
        "5000",
        "--aliases",
        "aliases",
        "--relay",
        &hop.url,
    ];
    let a = Server::launch(&Setup {
        listen: vec!["lmtp://127.0.0.1:0".into()],
        args: args.map(str::to_owned).into(),
        files: vec![("aliases".into(), aliases.into())],
        ..Setup::default()
    })
    .unwrap();
    let mut client = Client::new(TcpStream::connect(a.address()).unwrap());
    let content = format!("Subject: x\r\n\r\n{}\r\n.", "xyz\r\n".repeat(1_300));
    let commands = [
        "LHLO c",
        "MAIL FROM:<me@c.test>",
        "RCPT TO:<team@a.test>",
        "RCPT TO:<other@a.test>",
        "DATA",
        &content,
    ];
    let replies = say(&mut client, &commands);
    let last = [replies[5].clone(), client.reply()];
    assert!(
        last[0].starts_with("452") && last[1].starts_with("250"),
        "{last:?}"
    );
    let heard = hop.heard("\r\n.\r\n");
    assert!(!heard.contains("bob@b.test"), "{heard}");
    assert!(
        heard.contains("RCPT TO:<carol@b.test>\r\nRCPT TO:<dora@b.test>\r\nDATA"),
        "{heard}"
    );
}

/// A queue that takes nothing refuses nobody here.
#[test]
fn lmtp_delivers_here_without_the_queue() {
    let args = [
        "-d",
        "a.test",
        "--create",
        "--aliases",
        "aliases",
        "--relay",
    ];
    let mut args = args.map(str::to_owned).to_vec();
    args.push("atrn:x".into());
    let a = Server::launch(&Setup {
        listen: vec!["lmtp://127.0.0.1:0".into()],
        args,
        files: vec![("aliases".into(), "away: bob@b.test\n".into())],
        ..Setup::default()
    })
    .unwrap();
    // Clients are greeted once the queue is open.
    let mut client = Client::new(TcpStream::connect(a.address()).unwrap());
    assert!(client.socket.peek(&mut [0]).unwrap() > 0);
    let queue = a.dir.join("queue/new");
    std::fs::rename(&queue, a.dir.join("queue/elsewhere")).unwrap();
    std::fs::create_dir(&queue).unwrap();
    let commands = [
        "LHLO c",
        "MAIL FROM:<me@c.test>",
        "RCPT TO:<away@a.test>",
        "RCPT TO:<carol@a.test>",
        "DATA",
        "Subject: x\r\n\r\nx\r\n.",
    ];
    let replies = say(&mut client, &commands);
    let last = [replies[5].clone(), client.reply()];
    assert!(
        last[0].starts_with("451") && last[1].starts_with("250"),
        "{last:?}"
    );
    assert_eq!(a.stored().len(), 1);
    assert_eq!(std::fs::read_dir(&queue).unwrap().count(), 0);
}

#[test]
fn offered_where_it_is_honoured() {
    let hello = |server: &Server, word: &str| {
        let socket = TcpStream::connect(server.address()).unwrap();
        say(&mut Client::new(socket), &[word]).remove(0)
    };
    assert!(hello(&server(&[]), "EHLO c").contains("250-DSN\r\n"));
    let lmtp = Server::launch(&Setup {
        listen: vec!["lmtp://127.0.0.1:0".into()],
        args: ["--create", "--relay", "smtp://127.0.0.1:9"]
            .map(str::to_owned)
            .into(),
        ..Setup::default()
    });
    assert!(hello(&lmtp.unwrap(), "LHLO c").contains("250-DSN\r\n"));
}

/// A hop with DSN gets all parameters; for one without, the sender gets a `relayed` report.
#[test]
fn next_hops() {
    let (knows, plain) = (Hop::start(&["DSN"]), Hop::start(&["8BITMIME"]));
    let routes = [format!("{}?for=b.test", knows.url), plain.url.clone()];
    let a = front(&[&routes[0], &routes[1]], &[]);
    let mail = "MAIL FROM:<alice@a.test> RET=HDRS ENVID=e1";
    let utf8 = format!("{mail} SMTPUTF8");
    send(
        &a,
        &[
            &utf8,
            "RCPT TO:<x@b.test> NOTIFY=SUCCESS,DELAY ORCPT=utf-8;j\u{e9}@z.test",
            "RCPT TO:<away@a.test> NOTIFY=SUCCESS ORCPT=rfc822;away@a.test",
        ],
    );
    let heard = knows.heard("\r\n.\r\n");
    for part in [
        "MAIL FROM:<alice@a.test> RET=HDRS ENVID=e1\r\n",
        "RCPT TO:<x@b.test> NOTIFY=SUCCESS,DELAY ORCPT=utf-8;j\\x{E9}@z.test\r\n",
        "RCPT TO:<bob@b.test> NOTIFY=SUCCESS ORCPT=rfc822;away@a.test\r\n",
    ] {
        assert!(heard.contains(part), "{part} in {heard}");
    }
    send(
        &a,
        &[
            mail,
            "RCPT TO:<both@a.test> NOTIFY=SUCCESS,FAILURE",
            "RCPT TO:<y@c.test> NOTIFY=SUCCESS",
        ],
    );
    knows.heard("RCPT TO:<bob@b.test> NOTIFY=FAILURE\r\n");
    let heard = plain.heard("\r\n.\r\n");
    assert!(
        heard.contains("MAIL FROM:<alice@a.test>\r\nRCPT TO:<y@c.test>\r\n"),
        "{heard}"
    );
    let reports = wait_for(&a, "a.test/alice", 3);
    let count = |words: &str| reports.iter().filter(|text| text.contains(words)).count();
    assert_eq!(
        count("Final-Recipient: rfc822; both@a.test\nAction: expanded"),
        1
    );
    assert_eq!(
        count("Final-Recipient: rfc822; y@c.test\nAction: relayed\nStatus: 2."),
        1
    );
    assert_eq!(count("Subject: secret"), 3, "one is the message itself");
    // A sender elsewhere has the report by the queue.
    send(
        &a,
        &[
            "MAIL FROM:<far@c.test>",
            "RCPT TO:<carol@a.test> NOTIFY=SUCCESS",
        ],
    );
    let heard = plain.heard("Action: delivered");
    assert!(
        heard.contains("MAIL FROM:<>\r\nRCPT TO:<far@c.test>\r\n"),
        "{heard}"
    );
}

/// A report in 8-bit text is encoded for a hop that takes only ASCII.
#[test]
fn a_hop_without_8bitmime_gets_reports_in_ascii() {
    let refuses = Hop::answering(&["8BITMIME"], |line| {
        let rcpt = line.starts_with("RCPT");
        rcpt.then_some("550 5.1.1 Unbekannt: M\u{fc}ller\r\n")
    });
    let plain = Hop::start(&[]);
    let routes = [format!("{}?for=eight.test", refuses.url), plain.url.clone()];
    let a = front(&[&routes[0], &routes[1]], &[]);
    let content = "DATA\r\nSubject: J\u{fc}rgen\r\n\r\nGr\u{fc}\u{df}e\r\n.";
    let commands = [
        "EHLO c",
        "MAIL FROM:<me@seven.test> RET=FULL",
        "RCPT TO:<x@eight.test>",
        content,
    ];
    say(&mut a.client(), &commands);
    let heard = plain.heard("\r\n.\r\n");
    assert!(heard.is_ascii(), "{heard}");
    for part in [
        "MAIL FROM:<>\r\nRCPT TO:<me@seven.test>\r\n",
        "550 5.1.1 Unbekannt: M=C3=BCller",
        "Diagnostic-Code: smtp; 550 5.1.1 Unbekannt: M?ller\r\n",
        "Subject: J=C3=BCrgen\r\n",
    ] {
        assert!(heard.contains(part), "{part} in {heard}");
    }
}

/// RFC 8689 §5: the report about a message with REQUIRETLS has that, too, and only the header.
#[test]
fn reports_about_mail_with_requiretls() {
    let later = Hop::answering(&[], |line| {
        let rcpt = line.starts_with("RCPT");
        rcpt.then_some("450 4.2.0 later\r\n")
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = now.as_secs();
    let envelope = format!(
        "mailslot-envelope 1\nfrom me@seven.test\ncreated {now}\ncontent lines\nrequiretls yes\n\
         ret FULL\nto 0 0 x@eight.test\n"
    );
    let id = format!("{now}.M1P1Q1");
    let content = format!("{id}.h,S=21");
    let a = Server::launch(&Setup {
        args: vec!["--relay".into(), later.url.clone()],
        files: vec![
            (format!("queue/new/{id}"), envelope),
            (
                format!("queue/new/{content}"),
                "Subject: x\n\nsecret\n".into(),
            ),
        ],
        dirs: ["queue/new", "mail"].map(str::to_owned).into(),
        ..Setup::default()
    })
    .unwrap();
    later.heard("MAIL FROM:<>\r\nRCPT TO:<me@seven.test>\r\n");
    let queue = a.dir.join("queue/new");
    let deadline = Instant::now() + Duration::from_secs(20);
    while queue.join(&content).exists() {
        assert!(Instant::now() < deadline, "{}", a.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    let files = std::fs::read_dir(queue).unwrap();
    let texts = files.filter_map(|file| std::fs::read_to_string(file.unwrap().path()).ok());
    let all = texts.collect::<String>();
    for part in [
        "requiretls yes\nreport yes\n",
        "Status: 5.7.30\n",
        "\n\nSubject: x\n\n--",
    ] {
        assert!(all.contains(part), "{part} in {all}");
    }
    assert!(!all.contains("secret"), "{all}");
}

/// RFC 5321 §2.3.5: a next hop hears complete addresses only.
#[test]
fn a_sender_without_a_domain_is_completed() {
    let refuses = Hop::answering(&[], |line| {
        let rcpt = line.starts_with("RCPT");
        rcpt.then_some("550 5.1.1 no\r\n")
    });
    let a = front(&[&refuses.url], &[]);
    send(&a, &["MAIL FROM:<root>", "RCPT TO:<x@far.test>"]);
    refuses.heard("MAIL FROM:<root@a.test>\r\n");
    let report = wait_for(&a, "a.test/root", 1).remove(0);
    assert!(report.contains("To: <root@a.test>\n"), "{report}");
}

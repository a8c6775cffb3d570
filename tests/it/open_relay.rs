//! With `--relay` no unauthorised client can relay, however it addresses mail. Clients of `--relay-from` need no login,
//! and users may only send as themselves with `--auth-sender`.

use std::net::TcpStream;

use crate::relay::{launch, queued};
use crate::scripted::Hop;
use crate::server::{Client, Server, Setup};

/// The forms of nmap's smtp-open-relay and older lists; here.test is delivered here.
const FORMS: &[&str] = &[
    "<relaytest@scanme.test>",
    "<relaytest%scanme.test@[127.0.0.1]>",
    "<relaytest%scanme.test@here.test>",
    "<relaytest%scanme.test@mx.test>",
    "<relaytest%scanme.test>",
    "<\"relaytest@scanme.test\">",
    "<\"relaytest%scanme.test\">",
    "<\"relaytest%scanme.test\"@here.test>",
    "<relaytest@scanme.test@[127.0.0.1]>",
    "<\"relaytest@scanme.test\"@[127.0.0.1]>",
    "<\"relaytest@scanme.test\"@here.test>",
    "<relaytest@scanme.test@here.test>",
    "<@[127.0.0.1]:relaytest@scanme.test>",
    "<@here.test:relaytest@scanme.test>",
    "<@here.test,@scanme.test:relaytest@scanme.test>",
    "<scanme.test!relaytest>",
    "<scanme.test!relaytest@[127.0.0.1]>",
    "<scanme.test!relaytest@here.test>",
    "<scanme.test!relaytest%other.test@here.test>",
    "<relaytest@[127.0.0.1]>",
    "<relaytest@[IPv6:::1]>",
    "<relaytest@127.0.0.1>",
    "<relaytest@scanme.test.>",
    "<relaytest@here.test.scanme.test>",
    "<relaytest+scanme.test@scanme.test>",
    "<postmaster@scanme.test>",
    "<here.test:relaytest@scanme.test>",
];
const SENDERS: &[&str] = &[
    "",
    "antispam@scanme.test",
    "antispam@here.test",
    "antispam@[127.0.0.1]",
    "antispam",
    "antispam@mx.test",
];

fn server(scheme: &str, hop: &Hop, args: &[&str]) -> Server {
    let all = [
        "-d",
        "here.test",
        "--create",
        "--users",
        "users",
        "--insecure-auth",
        "--relay",
        &hop.url,
    ];
    Server::launch(&Setup {
        listen: vec![format!("{scheme}://127.0.0.1:0")],
        args: [&all, args]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        files: vec![(
            "users".into(),
            "alice:{PLAIN}secret\nbob:{PLAIN}secret\n".into(),
        )],
        ..Setup::default()
    })
    .unwrap()
}

fn client(server: &Server) -> Client {
    let mut client = Client::new(TcpStream::connect(server.address()).unwrap());
    client.reply();
    client
}

fn ask(client: &mut Client, command: &str) -> String {
    client.send(format!("{command}\r\n").as_bytes());
    client.reply()
}

/// A14
#[test]
fn no_form_of_address_is_relayed() {
    let hop = Hop::start(&[]);
    for scheme in ["smtp", "lmtp", "submission"] {
        let from = [
            "--relay-from",
            "192.0.2.0/24",
            "--relay-from",
            "unix",
            "--max-errors",
            "1000000",
        ];
        let a = server(scheme, &hop, &from);
        let hello = if scheme == "lmtp" { "LHLO c" } else { "EHLO c" };
        for sender in SENDERS {
            let mut client = client(&a);
            ask(&mut client, hello);
            for form in FORMS {
                let mail = ask(&mut client, &format!("MAIL FROM:<{sender}>"));
                if scheme == "submission" {
                    assert!(mail.starts_with("530 5.7.0"), "{sender}: {mail}");
                    continue;
                }
                assert!(mail.starts_with("250"), "{sender}: {mail}");
                let rcpt = ask(&mut client, &format!("RCPT TO:{form}"));
                assert!(rcpt.starts_with('5'), "{scheme} {sender} {form}: {rcpt}");
                ask(&mut client, "RSET");
            }
        }
        assert_eq!(queued(&a), 0, "{scheme}");
        assert!(a.stored().is_empty(), "{scheme}");
    }
}

/// Those of `--relay-from` need no login, also where submission asks everybody else for one.
#[test]
fn networks_that_may() {
    let hop = Hop::start(&[]);
    for scheme in ["smtp", "submission", "lmtp"] {
        let a = server(scheme, &hop, &["--relay-from", "127.0.0.1"]);
        let mut client = client(&a);
        ask(
            &mut client,
            if scheme == "lmtp" { "LHLO c" } else { "EHLO c" },
        );
        let subject = format!("Subject: by {scheme}\r\n\r\nx\r\n.");
        for (command, code) in [
            ("MAIL FROM:<printer@here.test>", "250"),
            ("RCPT TO:<far@away.test>", "251 2.1.5"),
            ("DATA", "354"),
            (&subject, "250 2.0.0"),
        ] {
            let reply = ask(&mut client, command);
            assert!(reply.starts_with(code), "{scheme} {command}: {reply}");
        }
        let heard = hop.heard(&format!("Subject: by {scheme}"));
        assert!(heard.contains("RCPT TO:<far@away.test>"), "{heard}");
    }
}

/// A user may relay after a login, and under `--auth-sender` only from an own address.
#[test]
fn users_send_as_themselves() {
    let hop = Hop::start(&[]);
    let a = server("submission", &hop, &["--auth-sender"]);
    let mut client = client(&a);
    ask(&mut client, "EHLO c");
    let plain = mailslot::encoding::base64_encode(b"\0alice\0secret");
    for (command, code) in [
        ("MAIL FROM:<alice@here.test>", "530 5.7.0"),
        (&format!("AUTH PLAIN {plain}"), "235"),
        ("MAIL FROM:<bob@here.test>", "5"),
        ("MAIL FROM:<alice@away.test>", "5"),
        ("MAIL FROM:<alice@here.test>", "250"),
        ("RCPT TO:<far@away.test>", "251"),
        ("DATA", "354"),
        ("Subject: mine\r\n\r\nx\r\n.", "250"),
    ] {
        let reply = ask(&mut client, command);
        assert!(reply.starts_with(code), "{command}: {reply}");
    }
    let heard = hop.heard("Subject: mine");
    assert!(
        !heard.contains("bob@") && heard.contains("MAIL FROM:<alice@here.test>"),
        "{heard}"
    );
    let a = launch(&["-d", "here.test", "--create", "--relay", &hop.url], &[]);
    let mut client = self::client(&a);
    ask(&mut client, "EHLO c");
    ask(&mut client, "MAIL FROM:<alice@here.test>");
    assert!(ask(&mut client, "RCPT TO:<far@away.test>").starts_with("550 5.7.1"));
}

//! What must be accepted at least, what EHLO states, and what arrives unchanged.

use std::io::{Read as _, Write as _};

use crate::server::{Client, Server, Setup};
use crate::tls;

fn greeted(server: &Server) -> Client {
    let mut client = server.client();
    client.reply();
    assert!(ask(&mut client, "EHLO client.test").starts_with("250-"));
    client
}

fn ask(client: &mut Client, command: &str) -> String {
    client.send(format!("{command}\r\n").as_bytes());
    client.reply()
}

fn accepted(client: &mut Client, command: &str) {
    let reply = ask(client, command);
    assert!(reply.starts_with("250 "), "{command:.40}: {reply}");
}

/// A name of that many octets, in labels of 63.
fn domain(octets: usize) -> String {
    let label = format!("{}.", "d".repeat(63));
    label.repeat(octets / 64 + 1)[..octets].to_owned()
}

/// R022, R080, R102, R190: a keyword a line, and the numbers are those of the options.
#[test]
fn ehlo_states_what_holds() {
    let server = Server::start(&["--create", "--max-size", "4321", "--max-recipients", "7"]);
    let mut client = server.client();
    client.reply();
    let reply = ask(&mut client, "EHLO client.test");
    let lines: Vec<&str> = reply.lines().collect();
    let (last, others) = lines.split_last().unwrap();
    assert!(last.starts_with("250 ") && others.iter().all(|line| line.starts_with("250-")));
    let keywords: Vec<&str> = lines.iter().skip(1).map(|line| &line[4..]).collect();
    for keyword in ["SIZE 4321", "LIMITS RCPTMAX=7", "ENHANCEDSTATUSCODES"] {
        assert!(keywords.contains(&keyword), "{keyword}: {reply}");
    }
    accepted(&mut client, "MAIL FROM:<> SIZE=4321");
    for number in 1..=7 {
        accepted(&mut client, &format!("RCPT TO:<{number}@localhost>"));
    }
    assert!(ask(&mut client, "RCPT TO:<8@localhost>").starts_with("452 4.5.3"));
}

/// R055 to R058.
#[test]
fn the_longest_names_and_lines() {
    let server = Server::start(&["--create", "--domain", &domain(250)]);
    let mut client = greeted(&server);
    let local = "l".repeat(64);
    for path in [
        format!("{local}@x"),
        format!("a@{}", domain(255)),
        format!("{local}@{}", domain(189)),
    ] {
        accepted(&mut client, &format!("MAIL FROM:<{path}>"));
        assert_eq!(ask(&mut client, "RSET"), "250 2.0.0 OK\r\n");
    }
    // 512 octets, and what each parameter adds (RFC 1870, RFC 3461, RFC 6152, RFC 6531).
    let envid = "e".repeat(100);
    let mail = format!(
        "MAIL FROM:<{local}@{}> BODY=8BITMIME SIZE=12345678901234567890",
        domain(189)
    );
    assert!(ask(&mut client, &format!("{mail} RET=FULL ENVID={envid}")).starts_with("552 5.3.4"));
    let spaces = " ".repeat(512);
    accepted(
        &mut client,
        &format!("MAIL FROM:<>{spaces}SMTPUTF8 ENVID={envid}"),
    );
    let orcpt = format!("rfc822;{}", "o".repeat(493));
    let rcpt = format!("RCPT TO:<a@{}>{spaces}", domain(250));
    accepted(
        &mut client,
        &format!("{rcpt}NOTIFY=SUCCESS,FAILURE,DELAY ORCPT={orcpt}"),
    );
}

/// R061, R062.
#[test]
fn a_hundred_recipients_and_64_kib() {
    let server = Server::start(&["--create"]);
    let mut client = greeted(&server);
    accepted(&mut client, "MAIL FROM:<>");
    for number in 0..100 {
        accepted(&mut client, &format!("RCPT TO:<u{number}@localhost>"));
    }
    assert!(ask(&mut client, "DATA").starts_with("354"));
    let text = format!("Subject: x\r\n\r\n{}", "sixteen octets.\r\n".repeat(4_096));
    client.send(text.as_bytes());
    accepted(&mut client, ".");
    let expected = text.replace("\r\n", "\n");
    for number in 0..100 {
        let messages = server.messages(&format!("localhost/u{number}"));
        assert_eq!(messages, [expected.as_str()], "u{number}");
    }
}

/// R054, R181: every octet but CR and LF, without BODY=8BITMIME.
#[test]
fn every_octet_is_kept() {
    let server = Server::start(&["--create"]);
    let mut client = greeted(&server);
    accepted(&mut client, "MAIL FROM:<>");
    accepted(&mut client, "RCPT TO:<a@localhost>");
    assert!(ask(&mut client, "DATA").starts_with("354"));
    let octets: Vec<u8> = (0..=u8::MAX).filter(|o| !b"\r\n".contains(o)).collect();
    client.send(&[b"Subject: x\r\n\r\n", octets.as_slice(), b"\r\n"].concat());
    accepted(&mut client, ".");
    let stored = crate::server::stored(&server.dir).remove(0);
    assert!(stored.ends_with(&[b"\n\n", octets.as_slice(), b"\n"].concat()));
}

/// R083, R085: CRLF counts as two, a stuffed dot does not count, and SIZE may have been too small.
#[test]
fn exactly_as_large_as_allowed() {
    let server = Server::start(&["--create", "--max-size", "100"]);
    let mut client = greeted(&server);
    for (octets, expected) in [(100, "250 2.0.0"), (101, "552 5.3.4")] {
        // The dot is sent twice and counts once.
        let content = format!(".{}\r\n", "x".repeat(octets - 3));
        for chunked in [false, true] {
            accepted(&mut client, "MAIL FROM:<> SIZE=5");
            accepted(&mut client, "RCPT TO:<a@localhost>");
            if chunked {
                client.send(format!("BDAT {octets} LAST\r\n{content}").as_bytes());
            } else {
                assert!(ask(&mut client, "DATA").starts_with("354"));
                client.send(format!(".{content}.\r\n").as_bytes());
            }
            let reply = client.reply();
            assert!(reply.starts_with(expected), "{octets} {chunked}: {reply}");
        }
    }
}

/// R185, R186: addresses are valid UTF-8, and Received names the protocol.
#[test]
fn smtputf8_addresses() {
    let server = Server::start(&["--create"]);
    let mut client = greeted(&server);
    client.send(b"MAIL FROM:<m\xfcller@x> SMTPUTF8\r\n");
    assert!(client.reply().starts_with("501 5.1.7"));
    accepted(&mut client, "MAIL FROM:<müller@x> SMTPUTF8");
    client.send(b"RCPT TO:<\xc3@localhost>\r\n");
    assert!(client.reply().starts_with("501 5.1.3"));
    accepted(&mut client, "RCPT TO:<jürgen@localhost>");
    assert!(ask(&mut client, "DATA").starts_with("354"));
    accepted(&mut client, "Subject: x\r\n\r\n.");
    let stored = server.stored().remove(0);
    assert!(stored.contains("Return-Path: <müller@x>\n"), "{stored}");
    assert!(stored.contains(" with UTF8SMTP id "), "{stored}");
}

/// R116, R136, R138: TLS is offered and not required; `submissions://` needs no STARTTLS and has none; a batch in TLS
/// is answered as one in the clear.
#[test]
fn tls_is_offered_and_not_required() {
    let users = "alice:{PLAIN}secret\n";
    let server = tls::server("smtp://127.0.0.1:0", users, &["--create"]);
    let mut client = greeted(&server);
    assert!(ask(&mut client, "EHLO client.test").contains("STARTTLS"));
    accepted(&mut client, "MAIL FROM:<>");

    let server = tls::server("submissions://127.0.0.1:0", users, &[]);
    let socket = std::net::TcpStream::connect(server.address()).unwrap();
    let mut tls = tls::connect(socket, &[]).unwrap();
    tls.write_all(b"EHLO c\r\nNOOP\r\nSTARTTLS\r\nMAIL FROM:<>\r\nQUIT\r\n")
        .unwrap();
    let mut text = String::new();
    tls.read_to_string(&mut text).unwrap();
    assert!(!text.contains("250-STARTTLS"), "{text}");
    let last: Vec<&str> = text.lines().rev().take(4).collect();
    for (line, code) in last
        .iter()
        .zip(["221 ", "530 5.7.0", "503 5.5.1", "250 2.0.0"])
    {
        assert!(line.starts_with(code), "{text}");
    }
}

/// A ClientHello of TLS 1.1 or 1.2, with what a server needs to choose from.
fn client_hello(minor_version: u8) -> Vec<u8> {
    let mut hello = vec![3, minor_version];
    hello.extend([7; 32]);
    // No session; two suites of ECDHE; no compression.
    hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    // Groups: x25519. Signatures: ECDSA and RSA-PSS with SHA-256.
    let extensions = [0, 10, 0, 4, 0, 2, 0, 29, 0, 13, 0, 6, 0, 4, 4, 3, 8, 4];
    hello.extend([0, 18]);
    hello.extend(extensions);
    let length = u8::try_from(hello.len()).unwrap();
    [
        &[22, 3, 1, 0, length + 4, 1, 0, 0, length],
        hello.as_slice(),
    ]
    .concat()
}

/// R139 (RFC 8996): a hello of TLS 1.1 gets the alert protocol_version, the same of TLS 1.2 a hello.
#[test]
fn old_versions_of_tls_are_refused() {
    let server = tls::server("submissions://127.0.0.1:0", "alice:{PLAIN}secret\n", &[]);
    let answer = |minor_version| {
        let mut socket = std::net::TcpStream::connect(server.address()).unwrap();
        socket.write_all(&client_hello(minor_version)).unwrap();
        let mut answer = [0; 7];
        socket.read_exact(&mut answer).unwrap();
        answer
    };
    assert_eq!(answer(2), [21, 3, 3, 0, 2, 2, 70]);
    assert_eq!(answer(3).first(), Some(&22));
}

/// R202: the protocol in Received, with and without greeting by EHLO, and on LMTP.
#[test]
fn received_names_the_protocol() {
    for (url, hello, with) in [
        ("smtp://127.0.0.1:0", "HELO c", "SMTP"),
        ("smtp://127.0.0.1:0", "EHLO c", "ESMTP"),
        ("lmtp://127.0.0.1:0", "LHLO c", "LMTP"),
    ] {
        let setup = Setup {
            listen: vec![url.to_owned()],
            args: vec!["--create".to_owned()],
            ..Setup::default()
        };
        let server = Server::launch(&setup).unwrap();
        let mut client = server.client();
        client.reply();
        ask(&mut client, hello);
        accepted(&mut client, "MAIL FROM:<>");
        accepted(&mut client, "RCPT TO:<a@localhost>");
        assert!(ask(&mut client, "DATA").starts_with("354"));
        accepted(&mut client, "Subject: x\r\n\r\n.");
        let stored = server.stored().remove(0);
        assert!(stored.contains(&format!(" with {with} id ")), "{stored}");
    }
}

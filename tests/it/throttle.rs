//! Limits on a client over all its connections: failed logins, and messages for `--max-rate`.

use mailslot::encoding::base64_encode;

use crate::server::{Client, Server, Setup};

fn launch(args: &str) -> Server {
    let mut setup = Setup {
        listen: vec!["smtp://127.0.0.1:0?proxy".into()],
        files: vec![(
            "users".into(),
            "alice:{PLAIN}right\nbob:{PLAIN}right\n".into(),
        )],
        dirs: vec!["mail".into()],
        ..Setup::default()
    };
    let args = format!("--trust 127.0.0.1 -d a.test --users users --insecure-auth {args}");
    setup.args = args.split_whitespace().map(str::to_owned).collect();
    Server::launch(&setup).unwrap()
}

/// A connection from an address, greeted.
pub fn from(server: &Server, address: &str) -> Client {
    let family = if address.contains(':') {
        "TCP6"
    } else {
        "TCP4"
    };
    let own = if address.contains(':') {
        "::1"
    } else {
        "192.0.2.9"
    };
    let mut client = server.client();
    client.send(format!("PROXY {family} {address} {own} 4711 25\r\nEHLO c\r\n").as_bytes());
    assert!(client.reply().starts_with("220") && client.reply().starts_with("250"));
    client
}

pub fn ask(client: &mut Client, line: &str) -> String {
    client.send(format!("{line}\r\n").as_bytes());
    client.reply().chars().take(9).collect()
}

pub fn login(client: &mut Client, user: &str, password: &str) -> String {
    let response = base64_encode(format!("\0{user}\0{password}").as_bytes());
    ask(client, &format!("AUTH PLAIN {response}"))
}

/// Ten wrong logins, those that end a connection included.
fn guess(server: &Server, addresses: &[&str]) {
    for number in 0..10 {
        let mut client = from(server, addresses[number % addresses.len()]);
        match number {
            0 => {
                for code in ["535 5.7.8", "535 5.7.8", "421 4.7.0"] {
                    assert_eq!(login(&mut client, "alice", "wrong"), code);
                }
            }
            1 | 2 => {}
            // Nothing but a wrong password or token counts.
            3 => {
                assert_eq!(ask(&mut client, "AUTH PLAIN *"), "501 5.5.2");
                assert_eq!(ask(&mut client, "AUTH GSSAPI"), "504 5.5.4");
                assert_eq!(login(&mut client, "bob", "wrong"), "535 5.7.8");
            }
            4 => {
                assert!(ask(&mut client, "AUTH LOGIN").starts_with("334"));
                assert!(ask(&mut client, "bm9ib2R5").starts_with("334"));
                assert_eq!(ask(&mut client, "d3Jvbmc="), "535 5.7.8");
            }
            _ => assert_eq!(login(&mut client, "nobody", "wrong"), "535 5.7.8"),
        }
    }
}

/// A good login is refused like a wrong one, in whatever mechanism, also one that had begun before.
#[test]
fn guessing_is_stopped_over_connections() {
    let server = launch("");
    let mut begun = from(&server, "192.0.2.1");
    assert!(ask(&mut begun, "AUTH PLAIN").starts_with("334"));
    guess(&server, &["192.0.2.1"]);
    let right = base64_encode(b"\0alice\0right");
    assert_eq!(ask(&mut begun, &right), "454 4.7.0");
    let mut client = from(&server, "192.0.2.1");
    for password in ["right", "wrong", "right"] {
        assert_eq!(login(&mut client, "alice", password), "454 4.7.0");
    }
    for mechanism in ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"] {
        let reply = ask(&mut client, &format!("AUTH {mechanism}"));
        assert_eq!(reply, "454 4.7.0", "{mechanism}");
    }
    // It is about logins only, and about that client only.
    assert_eq!(ask(&mut client, "MAIL FROM:<>"), "250 2.1.0");
    let mut other = from(&server, "192.0.2.2");
    assert_eq!(login(&mut other, "alice", "right"), "235 2.7.0");
    for account in ["alice", "bob", "nobody"] {
        let line = format!("login failed client=\"[192.0.2.1]\" account=\"{account}\"");
        server.logged(&line);
    }
}

/// These refusals count as errors like all others.
#[test]
fn a_blocked_client_has_its_errors_counted() {
    let server = launch("--max-errors 3");
    guess(&server, &["2001:db8::1", "2001:db8::2"]);
    let mut client = from(&server, "2001:db8::ffff:3");
    for code in ["454 4.7.0", "454 4.7.0", "454 4.7.0", "421 4.7.0"] {
        assert_eq!(login(&mut client, "alice", "right"), code);
    }
    assert_eq!(client.reply(), "");
    let mut other = from(&server, "2001:db8:0:1::1");
    assert_eq!(login(&mut other, "alice", "right"), "235 2.7.0");
}

/// Loopback is not exempt, and the log has the account's name.
#[test]
fn guessing_from_the_host_itself() {
    let server = Server::launch(&Setup {
        files: vec![("users".into(), "alice:{PLAIN}right\n".into())],
        args: ["--users", "users", "--insecure-auth"]
            .map(str::to_owned)
            .into(),
        ..Setup::default()
    })
    .unwrap();
    let greeted = || {
        let mut client = server.client();
        client.send(b"EHLO c\r\n");
        assert!(client.reply().starts_with("220") && client.reply().starts_with("250"));
        client
    };
    let forged = "x\" client=\"[192.0.2.1]\"\r\nlogin failed client=\"[192.0.2.1]\"";
    for _ in 0..10 {
        let reply = login(&mut greeted(), forged, "wrong");
        assert_eq!(reply, "535 5.7.8");
    }
    assert_eq!(login(&mut greeted(), "alice", "right"), "454 4.7.0");
    let shown = r#"account="x\" client=\"[192.0.2.1]\"\r\nlogin failed client=\"[192.0.2.1]\"""#;
    server.logged(&format!("login failed client=\"[127.0.0.1]\" {shown}"));
    assert!(!server.log().contains("client=\"[192.0.2.1]\""));
}

fn send(client: &mut Client) -> String {
    match ask(client, "MAIL FROM:<s@b.test>").as_str() {
        "250 2.1.0" => {}
        refused => return refused.to_owned(),
    }
    assert_eq!(ask(client, "RCPT TO:<bob@a.test>"), "250 2.1.5");
    assert!(ask(client, "DATA").starts_with("354"));
    ask(client, "x: y\r\n\r\n.")
}

/// Accepted messages count, over all connections; aborted or refused ones do not.
#[test]
fn a_client_sends_so_many_messages() {
    let server = launch("--max-rate 2/1h --max-size 1K");
    let mut client = from(&server, "192.0.2.1");
    for _ in 0..3 {
        assert_eq!(ask(&mut client, "MAIL FROM:<>"), "250 2.1.0");
        assert_eq!(ask(&mut client, "RCPT TO:<nobody@a.test>"), "550 5.1.1");
        assert_eq!(ask(&mut client, "RSET"), "250 2.0.0");
    }
    assert_eq!(ask(&mut client, "MAIL FROM:<>"), "250 2.1.0");
    assert_eq!(ask(&mut client, "RCPT TO:<bob@a.test>"), "250 2.1.5");
    assert!(ask(&mut client, "DATA").starts_with("354"));
    let large = "x".repeat(1_500);
    assert_eq!(ask(&mut client, &format!("{large}\r\n.")), "552 5.3.4");
    assert_eq!(send(&mut client), "250 2.0.0");
    assert_eq!(send(&mut from(&server, "192.0.2.1")), "250 2.0.0");
    assert_eq!(send(&mut client), "450 4.7.1");
    assert_eq!(send(&mut from(&server, "192.0.2.1")), "450 4.7.1");
    assert_eq!(send(&mut from(&server, "192.0.2.2")), "250 2.0.0");
    // A refused sender gets the real reason.
    assert_eq!(ask(&mut client, "MAIL FROM:<s> SIZE=9999"), "552 5.3.4");
}

/// After a login only the user counts, whatever the client; the client's own messages are counted separately.
#[test]
fn a_user_sends_so_many_messages() {
    let server = launch("--max-rate 2/1h");
    for address in ["192.0.2.1", "192.0.2.2"] {
        let mut client = from(&server, address);
        assert_eq!(login(&mut client, "alice@a.test", "right"), "235 2.7.0");
        assert_eq!(send(&mut client), "250 2.0.0");
    }
    let mut client = from(&server, "192.0.2.3");
    assert_eq!(send(&mut client), "250 2.0.0");
    assert_eq!(login(&mut client, "ALICE", "right"), "235 2.7.0");
    assert_eq!(send(&mut client), "450 4.7.1");
    // It is the same user where a trusted proxy has checked the login.
    let mut proxy = from(&server, "127.0.0.1");
    for spelled in ["Alice", "ALICE+40A.test"] {
        let xclient = ask(
            &mut proxy,
            &format!("XCLIENT ADDR=127.0.0.1 LOGIN={spelled}"),
        );
        assert_eq!(xclient, "220 mx.te");
        assert!(ask(&mut proxy, "EHLO c").starts_with("250"));
        assert_eq!(send(&mut proxy), "450 4.7.1");
    }
    let mut client = from(&server, "192.0.2.1");
    assert_eq!(login(&mut client, "bob", "right"), "235 2.7.0");
    assert_eq!(send(&mut client), "250 2.0.0");
    assert_eq!(send(&mut from(&server, "192.0.2.1")), "250 2.0.0");
}

/// Transactions that began before the limit was reached do not exceed it, and a refused message does not count.
#[test]
fn transactions_at_the_same_time_share_the_rate() {
    let server = launch("--create --max-rate 3/1h --max-size 100");
    let mut clients: Vec<Client> = (0..6).map(|_| from(&server, "192.0.2.1")).collect();
    for client in &mut clients {
        assert_eq!(ask(client, "MAIL FROM:<>"), "250 2.1.0");
        assert_eq!(ask(client, "RCPT TO:<alice@a.test>"), "250 2.1.5");
        assert!(ask(client, "DATA").starts_with("354"));
    }
    let large = "x".repeat(150);
    let contents = [large.as_str(), "a", "b", "c", "d", large.as_str()];
    let expected = [
        "552 5.3.4",
        "250 2.0.0",
        "250 2.0.0",
        "250 2.0.0",
        "450 4.7.1",
        "552 5.3.4",
    ];
    for (client, (content, expected)) in clients.iter_mut().zip(contents.into_iter().zip(expected))
    {
        assert_eq!(ask(client, &format!("{content}\r\n.")), expected);
    }
    assert_eq!(server.stored().len(), 3);
}

//! The client's side over real sockets: against this server, and against scripted servers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mailslot::auth::Mechanism;
use mailslot::client::{Connection, Destination};
use mailslot::net::client_tls::{ClientTls, Roots};
use mailslot::net::dial::Address;
use mailslot::smtp::client::{
    ClientConfig, ClientEnvelope, ConnectionError, Credentials, Rcpt, Scan, Stage, TlsUse, Verdict,
};

use crate::server::{Server, Setup};
use crate::tls::{self, CERT, KEY};

const USERS: &str = "user@x.test:{PLAIN}pencil\n";

fn settings(tls: TlsUse) -> ClientConfig {
    ClientConfig {
        lmtp: false,
        hostname: "me.test".into(),
        tls,
        login: None,
        nonce: mailslot::client::nonce().unwrap(),
    }
}

fn with_login(password: &str) -> ClientConfig {
    let login = Some(Credentials {
        user: "user@x.test".into(),
        password: password.to_owned().into(),
    });
    ClientConfig {
        login,
        ..settings(TlsUse::Required)
    }
}

fn trusting() -> ClientTls {
    ClientTls::new(Some(Roots::load(Path::new(CERT)).unwrap())).unwrap()
}

fn destination(address: &str, host: &str) -> Destination {
    Destination {
        addresses: vec![Address::Tcp(address.parse().unwrap())],
        host: host.into(),
        implicit_tls: false,
        verify: true,
        unsigned: false,
        proxy: false,
    }
}

fn envelope(recipients: &[&str], content: &str) -> ClientEnvelope {
    let mut scan = Scan::new(None);
    scan.feed(content.as_bytes());
    let rcpt = |path: &&str| Rcpt {
        path: (*path).to_owned(),
        ..Rcpt::default()
    };
    ClientEnvelope {
        reverse_path: "me@me.test".into(),
        recipients: recipients.iter().map(rcpt).collect(),
        content: scan.finish(),
        ..ClientEnvelope::default()
    }
}

fn send(connection: &mut Connection, recipients: &[&str], content: &str) -> Vec<Verdict> {
    let sent = connection.deliver(envelope(recipients, content), &mut content.as_bytes());
    sent.outcomes
        .iter()
        .map(|outcome| outcome.verdict)
        .collect()
}

fn launch(listen: &[&str], args: &[&str]) -> Server {
    let common = [
        "--tls-cert",
        CERT,
        "--tls-key",
        KEY,
        "-d",
        "x.test",
        "--create",
    ];
    let setup = Setup {
        listen: listen.iter().map(|url| (*url).to_owned()).collect(),
        args: common
            .iter()
            .chain(args)
            .map(|arg| (*arg).to_owned())
            .collect(),
        files: vec![("users".into(), USERS.into())],
        ..Setup::default()
    };
    Server::launch(&setup).unwrap()
}

#[test]
fn messages_in_the_clear_and_in_tls() {
    let server = launch(&["smtp://127.0.0.1:0"], &[]);
    for tls in [TlsUse::Never, TlsUse::Offered, TlsUse::Required] {
        let destination = destination(server.address(), "localhost");
        let mut connection =
            Connection::open(&destination, settings(tls), &trusting(), None).unwrap();
        assert_eq!(connection.extensions().starttls, tls == TlsUse::Never);
        let content = "Subject: x\n\n.dot\n\n..\nlast";
        let all = ["a@x.test", "b@elsewhere.test", "c@x.test"];
        let verdicts = send(&mut connection, &all, content);
        assert_eq!(
            verdicts,
            [Verdict::Accepted, Verdict::Failed, Verdict::Accepted]
        );
        assert!(connection.is_open());
        let long = format!("Subject: y\n\n{}", "0123456789\n".repeat(50_000));
        assert_eq!(
            send(&mut connection, &["d@x.test"], &long),
            [Verdict::Accepted]
        );
        connection.quit();
    }
    assert_eq!(
        server.messages("x.test/a"),
        ["Subject: x\n\n.dot\n\n..\nlast"; 3]
    );
    assert_eq!(server.messages("x.test/d").len(), 3);
    assert!(
        server
            .messages("x.test/d")
            .iter()
            .all(|m| m.len() == 550_012)
    );
}

#[test]
fn a_certificate_must_be_for_the_host() {
    let server = launch(
        &["smtp://127.0.0.1:0", "submissions://127.0.0.1:0"],
        &["--users", "users"],
    );
    let implicit = server.urls[1].split_once("://").unwrap().1;
    let open = |address: &str, host: &str, implicit_tls, verify, tls: &ClientTls| {
        let destination = Destination {
            implicit_tls,
            verify,
            ..destination(address, host)
        };
        Connection::open(&destination, settings(TlsUse::Required), tls, None)
    };
    for (address, implicit) in [(server.address(), false), (implicit, true)] {
        for good in ["mx.test", "127.0.0.1", "localhost"] {
            let opened = open(address, good, implicit, true, &trusting());
            assert!(opened.is_ok(), "{good}: {:?}", opened.err());
        }
        for wrong in ["other.test", "127.0.0.2", "x y"] {
            let failure = open(address, wrong, implicit, true, &trusting())
                .err()
                .unwrap();
            assert!(matches!(failure, ConnectionError::Tls(_)), "{failure}");
            assert_eq!(failure.status().to_string(), "4.7.5");
        }
        let nobody = ClientTls::new(None).unwrap();
        assert!(open(address, "mx.test", implicit, true, &nobody).is_err());
        assert!(open(address, "other.test", implicit, false, &nobody).is_ok());
    }
}

/// RFC 8689 §4.2.1: a certificate proves nothing for a name that an MX record without a signature has.
#[test]
fn requiretls_does_not_trust_the_dns() {
    let server = launch(&["smtp://127.0.0.1:0"], &["--create"]);
    for (unsigned, verdict, status) in [
        (false, Verdict::Accepted, "2.0.0"),
        (true, Verdict::Failed, "5.7.30"),
    ] {
        let destination = Destination {
            unsigned,
            ..destination(server.address(), "mx.test")
        };
        let settings = settings(TlsUse::Required);
        let mut connection = Connection::open(&destination, settings, &trusting(), None).unwrap();
        let envelope = ClientEnvelope {
            requiretls: true,
            ..envelope(&["a@x.test"], "hi\n")
        };
        let sent = connection.deliver(envelope, &mut &b"hi\n"[..]);
        let outcome = sent.outcomes.first().unwrap();
        assert_eq!(
            (outcome.verdict, outcome.status.to_string().as_str()),
            (verdict, status)
        );
        connection.quit();
    }
}

#[test]
fn logins_with_channel_binding() {
    let server = launch(&["submission://127.0.0.1:0"], &["--users", "users"]);
    let destination = destination(server.address(), "mx.test");
    let mut connection =
        Connection::open(&destination, with_login("pencil"), &trusting(), None).unwrap();
    let offered = &connection.extensions().auth;
    assert!(offered.contains(&Mechanism::ScramSha256Plus), "{offered:?}");
    assert_eq!(
        send(&mut connection, &["user@x.test"], "hi\n"),
        [Verdict::Accepted]
    );
    connection.quit();
    let failure = Connection::open(&destination, with_login("wrong"), &trusting(), None)
        .err()
        .unwrap();
    assert!(matches!(failure, ConnectionError::Auth(_)), "{failure}");
    server.logged("login failed");
}

#[test]
fn lmtp_by_a_unix_socket() {
    let path = std::env::temp_dir().join(format!("mailslot-client-{}", std::process::id()));
    let server = launch(&[&format!("lmtp:{}", path.display())], &[]);
    let destination = Destination {
        addresses: vec![
            Address::Unix("/nonexistent/lmtp".into()),
            Address::Unix(path),
        ],
        ..destination("127.0.0.1:1", "localhost")
    };
    let settings = ClientConfig {
        lmtp: true,
        ..settings(TlsUse::Never)
    };
    let mut connection = Connection::open(&destination, settings, &trusting(), None).unwrap();
    let verdicts = send(&mut connection, &["a@x.test", "@x", "b@x.test"], "hi\n");
    assert_eq!(
        verdicts,
        [Verdict::Accepted, Verdict::Failed, Verdict::Accepted]
    );
    connection.quit();
    assert_eq!(server.messages("x.test/b"), ["\nhi\n"]);
}

/// A server that sends its next reply after each line of the client, the first one at once.
fn scripted(words: &'static [&'static str], pause: Duration) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut input = BufReader::new(socket.try_clone().unwrap());
        for (place, word) in words.iter().enumerate() {
            if place > 0 && input.read_line(&mut String::new()).unwrap_or(0) == 0 {
                return;
            }
            if trickle(&socket, word, pause).is_err() {
                return;
            }
        }
    });
    (address, served)
}

fn trickle(mut socket: &TcpStream, word: &str, pause: Duration) -> std::io::Result<()> {
    if pause.is_zero() {
        return socket.write_all(word.as_bytes());
    }
    word.bytes().try_for_each(|octet| {
        std::thread::sleep(pause);
        socket.write_all(&[octet])
    })
}

/// However a server stalls, the end holds: it says nothing, or an octet now and then.
#[test]
fn a_stalled_server_is_given_up() {
    let endless: &str =
        "220-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    for word in ["", endless] {
        let words: &'static [&'static str] = Box::leak(Box::new([word, ""]));
        let (address, served) = scripted(words, Duration::from_millis(40));
        let begun = Instant::now();
        let end = Some(begun + Duration::from_millis(300));
        let destination = destination(&address.to_string(), "localhost");
        let failure = Connection::open(&destination, settings(TlsUse::Never), &trusting(), end);
        let failure = failure.err().unwrap();
        assert!(
            matches!(failure, ConnectionError::Lost(Stage::Greeting, _)),
            "{failure}"
        );
        assert!(begun.elapsed() < Duration::from_secs(5));
        served.join().unwrap();
    }
}

#[test]
fn a_close_in_the_middle_of_the_content_fails_the_message() {
    let words = &[
        "220 h\r\n",
        "250 h\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "354 go\r\n",
        "552 5.3.4 big\r\n",
    ];
    let (address, served) = scripted(words, Duration::ZERO);
    let destination = destination(&address.to_string(), "localhost");
    let mut connection =
        Connection::open(&destination, settings(TlsUse::Never), &trusting(), None).unwrap();
    let content = "0123456789\n".repeat(2_000_000);
    let sent = connection.deliver(envelope(&["a@x.test"], &content), &mut content.as_bytes());
    let outcome = &sent.outcomes[0];
    // The close may arrive before the reply; either way nothing was sent.
    assert!(
        matches!(outcome.verdict, Verdict::Failed | Verdict::Later),
        "{outcome:?}"
    );
    assert!(sent.failure.is_some());
    served.join().unwrap();
}

/// Sends `early` in the middle of the content. Returns true if the end of the content came all the same.
fn answer_early(socket: impl Read + Write, early: &str) -> bool {
    let mut peer = BufReader::new(socket);
    peer.get_mut().write_all(b"220 hop\r\n").unwrap();
    let mut line = String::new();
    let mut in_content = false;
    while peer.read_line(&mut line).unwrap_or(0) > 0 {
        let reply = match line.trim_end() {
            "." => return true,
            "DATA" => "354 go\r\n",
            "Subject: x" => early,
            _ if in_content => "",
            _ => "250 ok\r\n",
        };
        in_content |= line.starts_with("DATA");
        if peer.get_mut().write_all(reply.as_bytes()).is_err() {
            return false;
        }
        line.clear();
    }
    false
}

/// A reply in the middle of the content does not count in TLS either, and the server does not get the end of the
/// content. A refusal counts. The socket does not hold the whole content, so that the reply is there before its end.
#[test]
fn a_reply_in_the_middle_of_the_content_in_tls() {
    let content = format!("Subject: x\n\n{}", "0123456789abcd\n".repeat(65_536));
    for (early, verdict, status) in [
        ("250 2.0.0 taken\r\n", Verdict::Later, "4.5.0"),
        ("250-2.0.0 half of it\r\n", Verdict::Later, "4.5.0"),
        ("450 4.2.0 later\r\n", Verdict::Later, "4.2.0"),
        ("550 5.7.1 no\r\n", Verdict::Failed, "5.7.1"),
    ] {
        let name = format!("mailslot-early-tls-{}-{status}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let served = std::thread::spawn(move || {
            answer_early(tls::accept(listener.accept().unwrap().0), early)
        });
        let destination = Destination {
            addresses: vec![Address::Unix(path.clone())],
            implicit_tls: true,
            ..destination("127.0.0.1:0", "localhost")
        };
        let settings = settings(TlsUse::Required);
        let connection = Connection::open(&destination, settings, &trusting(), None);
        std::fs::remove_file(path).unwrap();
        let mut connection = connection.unwrap();
        let sent = connection.deliver(envelope(&["a@x.test"], &content), &mut content.as_bytes());
        drop(connection);
        let outcome = &sent.outcomes[0];
        let told = (outcome.verdict, outcome.status.to_string());
        assert_eq!(told, (verdict, status.to_owned()), "{early}");
        assert!(sent.failure.is_some(), "{early}");
        assert!(!served.join().unwrap(), "{early}: it got an end");
    }
}

#[test]
fn a_connection_that_was_cut_is_not_open() {
    let server = launch(&["smtp://127.0.0.1:0"], &[]);
    let destination = destination(server.address(), "localhost");
    let mut connection =
        Connection::open(&destination, settings(TlsUse::Never), &trusting(), None).unwrap();
    let handle = connection.handle();
    assert!(connection.is_open() && !handle.is_sending());
    handle.cut();
    assert!(!connection.is_open());
    let sent = connection.deliver(envelope(&["a@x.test"], "hi\n"), &mut &b"hi\n"[..]);
    assert_eq!(sent.outcomes[0].verdict, Verdict::Later);
    assert!(sent.failure.is_some());
}

#[test]
fn an_address_without_a_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let failure = Connection::open(
        &destination(&address, "localhost"),
        settings(TlsUse::Never),
        &trusting(),
        None,
    );
    let failure = failure.err().unwrap();
    assert!(failure.to_string().contains("refused"), "{failure}");
    assert_eq!(failure.status().to_string(), "4.4.1");
}

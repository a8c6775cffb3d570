//! Clients behind a trusted proxy: PROXY headers on a `?proxy` listener, and XCLIENT.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mailslot::cmd::healthcheck::check;

use crate::server::{Client, Server, Setup};
use crate::tls::{self, CERT, KEY};

/// Headers, and the client that each names, if it is not the proxy itself.
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n";
const V1_IPV6: &[u8] = b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 25\r\n";
const V1_UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\xc0\0\x02\x08\xc6\x33\x64\x01\x12\x67\0\x19\x04\0\x04abcd";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn launch(listen: &[&str], args: &str) -> Server {
    Server::launch(&Setup {
        listen: listen.iter().map(|url| (*url).to_owned()).collect(),
        args: args.split(' ').map(str::to_owned).collect(),
        ..Setup::default()
    })
    .unwrap()
}

fn proxied(args: &str) -> Server {
    let args = format!("--create -d a.test {args}");
    launch(&["smtp://127.0.0.1:0?proxy"], &args)
}

fn after(server: &Server, header: &[u8]) -> Client {
    let mut client = server.client();
    client.send(header);
    client
}

/// Everything up to the end of the connection, which may be a reset.
fn rest(mut socket: &TcpStream) -> String {
    let mut octets = Vec::new();
    let _ = socket.read_to_end(&mut octets);
    String::from_utf8(octets).unwrap()
}

fn codes(client: &mut Client, count: usize) -> Vec<String> {
    let code = |reply: String| reply.chars().take(3).collect();
    (0..count).map(|_| code(client.reply())).collect()
}

/// Log, Received and the limit of connections use the client that the header names.
#[test]
fn the_real_client_counts() {
    let server = proxied("--trust 127.0.0.1 --max-per-client 1");
    let mut open = Vec::new();
    for (header, client) in [
        (V1, "[192.0.2.7]"),
        (V1_IPV6, "[IPv6:2001:db8::7]"),
        (V2, "[192.0.2.8]"),
        (V2_LOCAL, "[127.0.0.1]"),
    ] {
        let mut first = after(&server, header);
        first.send(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<u@a.test>\r\nDATA\r\n");
        assert_eq!(codes(&mut first, 5), ["220", "250", "250", "250", "354"]);
        first.send(b"x: y\r\n\r\n.\r\n");
        assert_eq!(codes(&mut first, 1), ["250"]);
        server.logged(&format!(" client=\"{client}\" helo=\"x\" from=\"\""));
        let trace = format!("Received: from x ({client})");
        assert!(server.stored().concat().contains(&trace), "{trace}");
        // One more of that client is one too many, and of no other.
        let second = after(&server, header);
        let said = rest(&second.socket);
        assert!(said.starts_with("421 4.7.0"), "{client}: {said}");
        server.logged(&format!("client=\"{client}\" messages=0 end=\"421 4.7.0"));
        open.push(first);
    }
    // UNKNOWN is the proxy, which has a connection already.
    let unknown = after(&server, V1_UNKNOWN);
    assert!(rest(&unknown.socket).starts_with("421 4.7.0"));
    // Closed connections are not counted.
    let last = open.pop().unwrap();
    drop(last);
    server.logged("client=\"[127.0.0.1]\" helo=\"x\" messages=1");
    assert_eq!(codes(&mut after(&server, V1_UNKNOWN), 1), ["220"]);
}

/// A header may arrive in pieces, and with commands after it.
#[test]
fn headers_in_pieces() {
    let server = proxied("--trust 127.0.0.0/8");
    for header in [V1, V2] {
        let mut client = server.client();
        for octet in header {
            client.send(&[*octet]);
        }
        assert_eq!(codes(&mut client, 1), ["220"]);
        let mut client = after(&server, &[header, b"EHLO x\r\nNOOP\r\n"].concat());
        assert_eq!(codes(&mut client, 3), ["220", "250", "250"]);
    }
}

/// A client without a header, or without trust, gets no reply.
#[test]
fn closed_without_a_reply() {
    let server = proxied("--trust 127.0.0.1");
    let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 4096]].concat();
    for garbage in [
        b"EHLO x\r\n".as_slice(),
        b"PROXY TCP4  192.0.2.7 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\x16\x03\x01\0\0",
        &endless,
    ] {
        assert_eq!(rest(&after(&server, garbage).socket), "");
    }
    server.logged("client=\"[127.0.0.1]\" messages=0 end=\"not a PROXY header\"");
    let half = after(&server, b"PROXY TCP4 192.0.2.7 ");
    half.socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(rest(&half.socket), "");
    server.logged("end=\"no PROXY header\"");
    let server = proxied("--trust 192.0.2.0/24");
    for header in [V1, V2_LOCAL, b"EHLO x\r\n".as_slice()] {
        assert_eq!(rest(&after(&server, header).socket), "");
    }
    server.logged("client=\"[127.0.0.1]\" messages=0 end=\"not among --trust\"");
}

/// The timeout is for the whole header, not for each octet, and frees the thread.
#[test]
fn a_header_has_its_time() {
    let server = proxied("--trust 127.0.0.1 --timeout 1s --max-connections 2");
    let silent = server.client();
    let trickle = server.client();
    let mut writer = trickle.socket.try_clone().unwrap();
    let begun = Instant::now();
    let trickling = std::thread::spawn(move || {
        let part = b"PROXY UNKNOWN ".iter().chain(std::iter::repeat(&b'x'));
        for octet in part {
            if writer.write_all(&[*octet]).is_err() || begun.elapsed().as_secs() > 20 {
                return;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    assert_eq!(
        (rest(&silent.socket), rest(&trickle.socket)),
        <_>::default()
    );
    assert!(begun.elapsed() < Duration::from_secs(15), "{begun:?}");
    trickling.join().unwrap();
    server.logged("end=\"timed out before the PROXY header\"");
    let log = server.log();
    assert!(!log.contains("header\" seconds=0."), "{log}");
    assert_eq!(codes(&mut after(&server, V1), 1), ["220"]);
}

/// The header is in the clear even if TLS begins with the first octet, and TLS may come in the same packet.
#[test]
fn before_tls() {
    let args = format!("--users users --trust 127.0.0.1 --tls-cert {CERT} --tls-key {KEY}");
    let server = Server::launch(&Setup {
        listen: vec!["submissions://127.0.0.1:0?proxy".into()],
        args: args.split(' ').map(str::to_owned).collect(),
        files: vec![("users".into(), "alice:{PLAIN}x\n".into())],
        ..Setup::default()
    })
    .unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let socket = server.client().socket;
        let mut tls = tls::connect_after(V2, socket, &[], &[version]).unwrap();
        tls.write_all(b"QUIT\r\n").unwrap();
        let mut said = String::new();
        tls.read_to_string(&mut said).unwrap();
        assert!(
            said.starts_with("220 mx.test") && said.contains("221"),
            "{said}"
        );
    }
    server.logged("connection client=\"[192.0.2.8]\" tls=TLSv1_3");
    assert_eq!(check(&server.urls[0].parse().unwrap()), Ok(()));
}

#[test]
fn a_health_check_speaks_for_itself() {
    let socket = std::env::temp_dir().join(format!("mailslot-proxy-{}", std::process::id()));
    let unix = format!("lmtp:{}?proxy", socket.display());
    let listen = [
        "smtp://127.0.0.1:0?proxy",
        "lmtp://127.0.0.1:0?proxy",
        &unix,
    ];
    let server = launch(&listen, "--create --trust 127.0.0.1 --trust unix");
    for url in &server.urls {
        assert_eq!(check(&url.parse().unwrap()), Ok(()), "{url}");
    }
    // A proxy on a Unix socket names clients, too.
    let mut proxy = UnixStream::connect(&socket).unwrap();
    proxy
        .write_all(&[V1, b"LHLO x\r\nQUIT\r\n"].concat())
        .unwrap();
    let mut said = String::new();
    proxy.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("220") && said.contains("221"), "{said}");
    server.logged("connection client=\"[192.0.2.7]\" helo=\"x\"");
}

/// `--relay-from` applies to the real client, `--trust` to the peer of the connection.
#[test]
fn rights_are_those_of_the_real_client() {
    let server = proxied(
        "--trust 127.0.0.1 --relay smtp://127.0.0.1:1 --relay-from 127.0.0.1 --relay-from 192.0.2.7",
    );
    let elsewhere = b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<u@b.test>\r\nRSET\r\nXCLIENT NAME=x\r\n";
    for (header, rcpt, xclient) in [
        (V1, "251", "550"),
        (V1_IPV6, "550", "550"),
        (V1_UNKNOWN, "251", "220"),
    ] {
        let mut client = after(&server, &[header, elsewhere].concat());
        let said = codes(&mut client, 6);
        assert_eq!(said, ["220", "250", "250", rcpt, "250", xclient]);
    }
}

/// XCLIENT: log, Received, login, the limit of connections and `--relay-from` are the named client's from then on.
#[test]
fn xclient_hands_over() {
    let args = "--create -d a.test --trust 127.0.0.1 --max-per-client 2 --relay smtp://127.0.0.1:1 \
                --relay-from 127.0.0.1 --auth-header";
    let server = launch(&["smtp://127.0.0.1:0"], args);
    let message = b"EHLO y\r\nMAIL FROM:<s@c.test>\r\nRCPT TO:<u@a.test>\r\nDATA\r\n";
    let mut client = server.client();
    client.send(b"EHLO x\r\nXCLIENT NAME=mx.c.test ADDR=IPV6:2001:db8::7 LOGIN=bob+40c.test\r\n");
    let greetings = (client.reply(), client.reply(), client.reply());
    assert!(
        greetings
            .1
            .contains("XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT")
    );
    assert!(
        greetings.2.starts_with("220 mx.test ESMTP"),
        "{greetings:?}"
    );
    client.send(message);
    assert_eq!(codes(&mut client, 4), ["250", "250", "250", "354"]);
    client.send(b"x: y\r\n\r\n.\r\n");
    assert_eq!(codes(&mut client, 1), ["250"]);
    server.logged("client=\"[IPv6:2001:db8::7]\" helo=\"y\" auth=\"bob@c.test\" from=\"s@c.test\"");
    let trace = "Received: from y (mx.c.test [IPv6:2001:db8::7])\n\t(authenticated as bob@c.test)";
    assert!(
        server.stored().concat().contains(trace),
        "{:?}",
        server.stored()
    );
    // The proxy has its two connections for others: the one above counts for its client.
    let mut others = [server.client(), server.client()];
    for other in &mut others {
        other.send(b"XCLIENT ADDR=IPV6:2001:db8::8 HELO=z PROTO=SMTP\r\n");
    }
    let said: Vec<_> = others.iter_mut().map(|other| codes(other, 2)).collect();
    assert!(said.contains(&vec!["220".into(), "220".into()]));
    assert!(
        said.contains(&vec!["220".into(), "421".into()]),
        "a third of that /64: {said:?}"
    );
    server.logged("client=\"[IPv6:2001:db8::8]\" messages=0 end=\"421 4.7.0");
    // Somebody whom the proxy does not know has no rights by an address.
    let mut unknown = server.client();
    unknown.send(
        b"XCLIENT ADDR=[UNAVAILABLE] HELO=z PROTO=SMTP\r\nMAIL FROM:<>\r\nRCPT TO:<u@b.test>\r\n",
    );
    assert_eq!(codes(&mut unknown, 4), ["220", "220", "250", "550"]);
    server.logged("refused client=\"unknown\" helo=\"z\" verb=RCPT");
}

/// A proxy passes on what its client sends: that must not become a third one, or the proxy itself.
#[test]
fn a_client_cannot_hand_itself_over() {
    let server = launch(&["smtp://127.0.0.1:0"], "--create --trust 127.0.0.1");
    for (first, second) in [
        ("ADDR=192.0.2.7", "550"),
        ("ADDR=[UNAVAILABLE]", "550"),
        ("ADDR=127.0.0.1", "220"),
        ("NAME=x.test", "220"),
    ] {
        let mut client = server.client();
        client.send(format!("XCLIENT {first}\r\nXCLIENT ADDR=127.0.0.1 LOGIN=a\r\n").as_bytes());
        assert_eq!(codes(&mut client, 3), ["220", "220", second], "{first}");
        client.send(b"EHLO x\r\n");
        assert_eq!(
            client.reply().contains("XCLIENT"),
            second == "220",
            "{first}"
        );
    }
}

#[test]
fn xclient_is_for_trusted_clients() {
    let server = launch(
        &["smtp://127.0.0.1:0"],
        "--create --trust 192.0.2.0/24 --trust unix",
    );
    let mut client = server.client();
    client.send(b"EHLO x\r\nXCLIENT ADDR=192.0.2.7\r\n");
    let said = (client.reply(), client.reply(), client.reply());
    assert!(!said.1.contains("XCLIENT"), "{said:?}");
    assert_eq!(said.2, "550 5.7.0 XCLIENT not permitted\r\n");
}

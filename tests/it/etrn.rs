//! ETRN (RFC 1985): who may use it, and its effect.

use std::net::TcpListener;

use crate::relay::{front, launch, send, wait_for};
use crate::server::{Server, Setup};

fn ask(server: &Server, commands: &[&str]) -> Vec<String> {
    let mut client = server.client();
    client.reply();
    let reply = |command: &&str| {
        client.send(format!("{command}\r\n").as_bytes());
        client.reply()
    };
    commands.iter().map(reply).collect()
}

/// Mail that would wait an hour goes out once a client asks for its domain.
#[test]
fn waiting_mail_is_tried_at_once() {
    // A port without a listener, until the hop starts there.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let url = format!("smtp://{address}");
    let a = front(&[&url], &["--retry", "1h"]);
    send(&a, "alice@a.test", &["bob@b.test"], "x");
    // The first try has failed once the log of the envelope says so.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !envelopes(&a).contains("\nlast ") {
        assert!(std::time::Instant::now() < deadline, "{}", envelopes(&a));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let b = Server::launch(&Setup {
        listen: vec![url],
        args: ["-d", "b.test", "--create"].map(str::to_owned).into(),
        dirs: vec!["mail".into()],
        ..Setup::default()
    })
    .unwrap();
    let replies = ask(
        &a,
        &[
            "EHLO me",
            "ETRN c.test",
            "ETRN est",
            "ETRN @xb.test",
            "ETRN #none",
            "ETRN",
            "ETRN @",
            "ETRN @test",
        ],
    );
    assert!(replies[0].contains("ETRN"), "{replies:?}");
    let codes: Vec<&str> = replies[1..].iter().map(|reply| &reply[..3]).collect();
    let expected = ["251", "251", "251", "251", "501", "501", "250"];
    assert_eq!(codes, expected, "{replies:?}");
    wait_for(&b, "b.test/bob", 1);
}

/// A message that is being sent is not `nothing waiting`.
#[test]
fn mail_on_its_way_is_told() {
    // It never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = front(&[&format!("smtp://{}", silent.local_addr().unwrap())], &[]);
    send(&a, "alice@a.test", &["bob@b.test"], "x");
    let _taken = silent.accept().unwrap();
    let name = super::relay::envelopes(&a).remove(0);
    let id = format!("ETRN #{}", name.file_name().unwrap().display());
    let replies = ask(
        &a,
        &["EHLO me", "ETRN b.test", &id, "ETRN @test", "ETRN c.test"],
    );
    let codes: Vec<&str> = replies[1..].iter().map(|reply| &reply[..3]).collect();
    assert_eq!(codes, ["250", "250", "250", "251"], "{replies:?}");
}

/// Reading a long queue takes a while: ETRN without end is noise.
#[test]
fn etrn_counts_as_noise() {
    let a = front(&["smtp://127.0.0.1:9"], &[]);
    let commands = [&["EHLO me"][..], &["ETRN c.test"; 100]].concat();
    let replies = ask(&a, &commands);
    let codes = |code: &str| replies.iter().filter(|r| r.starts_with(code)).count();
    assert_eq!((codes("250"), codes("251"), codes("421")), (1, 99, 1));
}

fn envelopes(server: &Server) -> String {
    // A file may be removed between the listing and the reading.
    let texts = super::relay::envelopes(server).into_iter();
    let texts = texts.map(std::fs::read_to_string);
    texts.map(Result::unwrap_or_default).collect()
}

/// Neither offered to strangers nor for them, and not there at all without a relay.
#[test]
fn strangers_may_not_use_etrn() {
    let relay = ["--relay", "smtp://127.0.0.1:9", "-d", "a.test"];
    let a = launch(&relay, &[]);
    let replies = ask(&a, &["EHLO me", "ETRN b.test"]);
    assert!(!replies[0].contains("ETRN"), "{replies:?}");
    assert!(replies[1].starts_with("459 4.7.0 "), "{replies:?}");
    let b = launch(&["-d", "a.test"], &[]);
    let replies = ask(&b, &["EHLO me", "ETRN b.test"]);
    assert!(!replies[0].contains("ETRN"), "{replies:?}");
    assert!(replies[1].starts_with("502 5.5.1 "), "{replies:?}");
}

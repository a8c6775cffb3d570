//! Greeting, EHLO, STARTTLS, AUTH, and servers that do not keep to the protocol.

use zeroize::Zeroizing;

use super::*;

#[test]
fn helo_where_ehlo_is_not_known() {
    for code in ["500", "502"] {
        let mut client = clear(settings());
        let said = talk(
            &mut client,
            &["220 h\r\n", &format!("{code} what\r\n"), "250 h\r\n"],
        );
        assert_eq!(said, "EHLO me\r\nHELO me\r\n");
        assert_eq!(
            (client.want(), client.extensions()),
            (Want::Ready, &Extensions::NONE)
        );
    }
    for (server, stage) in [
        (&["554 no\r\n"][..], Stage::Greeting),
        (&["250 odd\r\n"], Stage::Greeting),
        (&["220 h\r\n", "550 no\r\n"], Stage::Hello),
        (&["220 h\r\n", "500 no\r\n", "500 no\r\n"], Stage::Hello),
        (&["421 4.3.2 busy\r\n"], Stage::Greeting),
    ] {
        let mut client = clear(settings());
        talk(&mut client, server);
        assert_eq!(client.want(), Want::Closed);
        let failure = client.failure().unwrap();
        assert!(
            matches!(failure, ConnectionError::Refused(at, _) if *at == stage),
            "{failure}"
        );
    }
}

#[test]
fn starttls_and_input_injected_after_it() {
    let offer = "250-h\r\n250-STARTTLS\r\n250-DSN\r\n250 SIZE 7\r\n";
    let mut client = clear(settings());
    let said = talk(&mut client, &["220 h\r\n", offer, "220 go\r\n"]);
    assert_eq!(
        (said.as_str(), client.want()),
        ("EHLO me\r\nSTARTTLS\r\n", Want::StartTls)
    );
    client.tls_started(None, true);
    assert_eq!(client.extensions(), &Extensions::NONE);
    assert_eq!(
        talk(&mut client, &["250-h\r\n250 STARTTLS\r\n"]),
        "EHLO me\r\n"
    );
    assert_eq!(
        (client.want(), client.extensions().dsn),
        (Want::Ready, false)
    );
    for injected in ["220 go\r\n250 evil\r\n", "220 go\r\n2", "220 go\r\n\0"] {
        let mut client = clear(settings());
        talk(&mut client, &["220 h\r\n", offer, injected]);
        assert!(matches!(
            client.failure(),
            Some(ConnectionError::Protocol(Stage::StartTls, _))
        ));
    }
    let mut client = clear(settings());
    talk(&mut client, &["220 h\r\n", offer, "220 go\r\n", "250"]);
    assert_eq!(client.want(), Want::Closed);
}

/// With TLS 1.3 a server refuses a handshake, as without a client's certificate, when the client has finished it.
#[test]
fn a_connection_that_ends_right_after_the_handshake() {
    let mut client = clear(settings());
    let server = ["220 h\r\n", "250-h\r\n250 STARTTLS\r\n", "220 go\r\n"];
    talk(&mut client, &server);
    client.tls_started(None, false);
    let Want::Reply(stage) = client.want() else {
        panic!("{:?}", client.want());
    };
    client.lost(ConnectionError::Lost(stage, "fatal alert".to_owned()));
    assert!(client.failure().unwrap().is_of_tls());
    // From the first octet it is no question of STARTTLS.
    let never = ClientConfig {
        tls: TlsUse::Never,
        ..settings()
    };
    let mut client = ClientSession::new(never, tls());
    talk(&mut client, &["220 h\r\n"]);
    assert_eq!(client.want(), Want::Reply(Stage::Hello));
}

#[test]
fn required_tls_is_required() {
    let required = || ClientConfig {
        tls: TlsUse::Required,
        ..settings()
    };
    for server in [
        &["220 h\r\n", "250 h\r\n"][..],
        &["220 h\r\n", "500 what\r\n", "250 h\r\n"],
        &[
            "220 h\r\n",
            "250-h\r\n250 STARTTLS\r\n",
            "454 4.7.0 not now\r\n",
        ],
    ] {
        let mut client = clear(required());
        let said = talk(&mut client, server);
        assert!(said.ends_with("QUIT\r\n"), "{said}");
        let failure = client.failure().unwrap();
        assert_eq!(failure.status().to_string(), "4.7.5", "{failure}");
        client.begin(envelope(&["x@y"], "hi\n"));
        assert_eq!(verdicts(&mut client), ["Later 4.7.5"]);
        assert_eq!(talk(&mut client, &[]), "");
    }
}

fn tls() -> Channel {
    Channel::Tls {
        exporter: None,
        verified: true,
    }
}

/// Logs in to a server that offers these keywords and then sends these replies; returns what the client sent.
fn login(channel: Channel, offer: &str, server: &[&str]) -> (String, ClientSession) {
    let settings = ClientConfig {
        tls: TlsUse::Never,
        login: Some(Credentials {
            user: "user".into(),
            password: Zeroizing::new("pencil".to_owned()),
        }),
        ..settings()
    };
    let mut client = ClientSession::new(settings, channel);
    talk(&mut client, &["220 h\r\n"]);
    let offer = format!("250-h\r\n250 {offer}\r\n");
    let sent = talk(&mut client, &[&[offer.as_str()], server].concat());
    (sent, client)
}

#[test]
fn logins_use_the_strongest_mechanism() {
    let (said, client) = login(tls(), "AUTH LOGIN PLAIN", &["235 ok\r\n"]);
    assert_eq!(
        (said.as_str(), client.want()),
        ("AUTH PLAIN AHVzZXIAcGVuY2ls\r\n", Want::Ready)
    );
    let (said, client) = login(
        tls(),
        "AUTH=LOGIN",
        &["334 VXNlcg==\r\n", "334 \r\n", "235 ok\r\n"],
    );
    assert_eq!(
        (said.as_str(), client.want()),
        ("AUTH LOGIN\r\ndXNlcg==\r\ncGVuY2ls\r\n", Want::Ready)
    );
}

/// The example of RFC 7677 §3.
#[test]
fn the_server_must_prove_that_it_knows_the_password() {
    let first = "334 cj1yT3ByTkdmd0ViZVJXZ2JORWtxTyVodllEcFdVYTJSYVRDQWZ1eEZJbGopaE5sRiRrMCxzPVcyMlphSjBTTlk3c29Fc1VFamI2Z1E9PSxpPTQwOTY=\r\n";
    let proof = "334 dj02cnJpVFJCaTIzV3BSUi93dHVwK21NaFVaVW4vZEI1bkxUSlJzamw5NUc0PQ==\r\n";
    let (said, client) = login(
        Channel::Clear,
        "AUTH PLAIN SCRAM-SHA-256 CRAM-MD5",
        &[first, proof, "235 ok\r\n"],
    );
    assert_eq!(client.want(), Want::Ready, "{said}");
    for unproven in [
        &[first, "235 ok\r\n"][..],
        &["235 ok\r\n"],
        &[first, "334 dj1BQUFB\r\n"],
    ] {
        let (said, client) = login(Channel::Clear, "AUTH SCRAM-SHA-256", unproven);
        assert!(
            matches!(client.failure(), Some(ConnectionError::Auth(_))),
            "{said}"
        );
        assert!(said.ends_with("QUIT\r\n"));
    }
}

#[test]
fn a_failed_login_ends_the_connection() {
    for (channel, offer, server) in [
        (Channel::Clear, "AUTH PLAIN LOGIN", &[][..]),
        (tls(), "SIZE", &[]),
        (tls(), "AUTH PLAIN", &["535 5.7.8 wrong\r\n"]),
        (tls(), "AUTH PLAIN", &["334 \r\n"]),
        (tls(), "AUTH LOGIN", &["334 !\r\n"]),
        (tls(), "AUTH LOGIN", &["235 early\r\n"]),
        (tls(), "AUTH SCRAM-SHA-256-PLUS", &[]),
    ] {
        let (said, client) = login(channel, offer, server);
        let failure = client.failure().unwrap();
        assert!(
            matches!(failure, ConnectionError::Auth(_)),
            "{offer}: {failure}"
        );
        assert!(
            said.ends_with("QUIT\r\n") && !said.contains("MAIL"),
            "{said}"
        );
    }
}

#[test]
fn garbage_and_floods_end_the_connection() {
    let many = "220-x\r\n".repeat(40_000);
    let wide = format!("220-{}\r\n", "x".repeat(2_000)).repeat(200);
    let endless = "x".repeat(1 << 20);
    let long = format!("220 {endless}");
    for garbage in [
        "hello\r\n",
        "22\r\n",
        "99x\r\n",
        "199 no\r\n",
        "600 no\r\n",
        "290 no\r\n",
        "220x\r\n",
        "220-a\r\n221 b\r\n",
        "\r\n",
        "\n",
        "-220 x\r\n",
        "\u{e9}\r\n",
        "SSH-2.0-x\r\n",
        &endless,
        &long,
        &many,
        &wide,
        "220 h\r\n250 ok\r\n250 unasked\r\n",
        "220 h\r\n354 x\r\n",
        "220 h\r\n334 x\r\n",
    ] {
        let mut client = clear(settings());
        for piece in garbage.as_bytes().chunks(1_000) {
            client.input(piece);
        }
        assert_eq!(
            client.want(),
            Want::Closed,
            "{}",
            garbage.escape_debug().take(40).collect::<String>()
        );
    }
    for reply in ["334 x\r\n", "354 go\r\n"] {
        let mut client = ready(ALL);
        client.begin(envelope(&["x@y"], "hi\n"));
        talk(&mut client, &[reply]);
        assert_eq!(
            (client.want(), verdicts(&mut client)),
            (Want::Closed, vec!["Later 4.5.0".to_owned()])
        );
    }
    let mut client = ready(ALL);
    client.begin(envelope(&["x@y"], "hi\n"));
    talk(&mut client, &["250 ok\r\n250 ok\r\n250 not a 354\r\n"]);
    assert_eq!(verdicts(&mut client), ["Later 4.5.0"]);
}

/// A reply split anywhere is the same reply, and an end without CR is one.
#[test]
fn replies_come_in_pieces() {
    let text = b"250-a\r\n250-b\n250 c\r\n";
    for at in 0..text.len() {
        let mut replies = Replies::new();
        let (head, tail) = text.split_at(at);
        let (mut head, mut tail) = (head, tail);
        assert_eq!(replies.take(&mut head), Ok(None));
        let reply = replies.take(&mut tail).unwrap().unwrap();
        assert_eq!(
            (reply.code(), reply.lines().join("|")),
            (250, "a|b|c".to_owned())
        );
        assert!(replies.is_empty() && tail.is_empty());
    }
    let mut replies = Replies::new();
    let reply = replies
        .take(&mut &b"550 5.1.1 \x1b[31m\xff\r\n"[..])
        .unwrap()
        .unwrap();
    assert_eq!(reply.text(), "550 5.1.1 ?[31m\u{fffd}");
    assert_eq!(reply.status().to_string(), "5.1.1");
    // Each recipient's outcome has its text: a thousand of 16 KiB would be too much.
    let line = format!("550-{}\r\n", "\u{e9}".repeat(900));
    let long = [&*line, &line, "550 end\r\n"].concat();
    let reply = replies.take(&mut long.as_bytes()).unwrap().unwrap();
    assert_eq!(reply.text().chars().count(), 1_000);
    let reply = replies
        .take(&mut &b"550 4.1.1 no\r\n"[..])
        .unwrap()
        .unwrap();
    assert_eq!(
        reply.status().to_string(),
        "5.0.0",
        "a class that is not the code's"
    );
}

/// A refusal in too many words is a refusal, not trouble to be tried again for days.
#[test]
fn long_replies_are_cut() {
    let word = "x".repeat(9_000);
    let lines = "550-5.1.1 x\r\n".repeat(500);
    let wide = format!("550-5.1.1 {}\r\n", "x".repeat(2_000)).repeat(50);
    for reply in [
        format!("550 5.1.1 {word}\r\n"),
        format!("{lines}550 5.1.1 {word}\r\n"),
        format!("{wide}550 x\r\n"),
    ] {
        let mut replies = Replies::new();
        for _ in 0..9 {
            let (mut rest, mut found) = (reply.as_bytes(), None);
            while let Some((mut piece, after)) = rest.split_at_checked(rest.len().min(700))
                && !piece.is_empty()
            {
                found = replies.take(&mut piece).unwrap();
                rest = after;
            }
            let found = found.unwrap();
            assert_eq!((found.code(), found.status()), (550, Status::new(5, 1, 1)));
            let kept: usize = found.lines().iter().map(String::len).sum();
            assert!(found.lines().len() <= 128 && kept <= 20_000 && replies.is_empty());
        }
    }
}

/// 421, and the end of the connection, at every point of a whole dialogue.
#[test]
fn a_421_or_the_end_anywhere() {
    let server = [
        "220 h\r\n",
        "250 h\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "354 go\r\n",
        "",
    ];
    for cut in 0..=server.len() {
        for gone in [true, false] {
            let mut client = clear(settings());
            for words in server.iter().take(cut) {
                talk(&mut client, &[words]);
                match client.want() {
                    Want::Ready => client.begin(envelope(&["x@y"], "hi\n")),
                    Want::Content if words.is_empty() => {
                        client.content(b"hi\n");
                        client.content_end();
                    }
                    _ => {}
                }
            }
            if gone {
                client.lost(ConnectionError::Lost(client.stage(), "closed".into()));
            } else {
                client.input(b"421 4.3.2 bye\r\n");
            }
            assert_eq!(client.want(), Want::Closed, "{cut}");
            assert!(client.failure().is_some());
            if cut >= 2 {
                let expected = if gone { "Later 4.4.2" } else { "Later 4.3.2" };
                assert_eq!(verdicts(&mut client), [expected], "{cut}");
            }
        }
    }
    let mut client = ready("");
    client.quit();
    assert_eq!(talk(&mut client, &[]), "QUIT\r\n");
    client.lost(ConnectionError::Lost(Stage::Quit, "closed".into()));
    assert_eq!((client.want(), client.failure()), (Want::Closed, None));
}

/// RFC 5321 §4.5.3.2: no step has less time than these minutes.
#[test]
fn each_step_has_its_time() {
    for (stage, minutes) in [
        (Stage::Greeting, 5),
        (Stage::Mail, 5),
        (Stage::Rcpt, 5),
        (Stage::Data, 2),
        (Stage::Content, 3),
        (Stage::End, 10),
    ] {
        assert_eq!(stage.limit().as_secs(), minutes * 60, "{stage}");
    }
}

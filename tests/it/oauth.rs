//! Logging in by a token: XOAUTH2 and OAUTHBEARER against `--oauth`. Tokens are signed here with a key of the test.

use std::time::{SystemTime, UNIX_EPOCH};

use mailslot::encoding::{base64_encode, base64url_encode};
use nix::sys::signal::Signal;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use crate::server::{Client, Server, Setup};
use crate::throttle::ask;

const USERS: &str = "alice:{PLAIN}right\nbob\ncarol@b.test:x\n";
/// In base64: {"status":"invalid_token","schemes":"bearer"}
const WRONG: &str = "334 eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIiwic2NoZW1lcyI6ImJlYXJlciJ9";

fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn key_set(seed: u8) -> String {
    let x = base64url_encode(key(seed).public_key().as_ref());
    format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k{seed}","x":"{x}"}}]}}"#)
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// A token with these claims and a good expiry, for the right issuer and audience.
fn token(seed: u8, claims: &str) -> String {
    let header = format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"k{seed}"}}"#);
    let exp = now() + 600;
    let claims = format!(r#"{{"iss":"https://id.test","aud":"mail","exp":{exp},{claims}}}"#);
    let body = [header, claims].map(|part| base64url_encode(part.as_bytes()));
    let body = body.join(".");
    let signature = base64url_encode(key(seed).sign(body.as_bytes()).as_ref());
    format!("{body}.{signature}")
}

fn email(address: &str) -> String {
    format!(r#""email":"{address}""#)
}

fn launch(args: &str) -> Server {
    let oauth = "--oauth keys.json?issuer=https://id.test&audience=mail&claim=email";
    let args = format!("-d a.test -d b.test --users users --insecure-auth {oauth} {args}");
    Server::launch(&Setup {
        listen: vec!["submission://127.0.0.1:0".into()],
        args: args.split_whitespace().map(str::to_owned).collect(),
        dirs: vec!["mail".into()],
        files: vec![
            ("users".into(), USERS.into()),
            ("keys.json".into(), key_set(1)),
        ],
        ..Setup::default()
    })
    .unwrap()
}

fn greeted(server: &Server) -> Client {
    let mut client = server.client();
    client.send(b"EHLO c\r\n");
    assert!(client.reply().starts_with("220") && client.reply().starts_with("250"));
    client
}

/// The reply to a token, and to the answer to a challenge where there was one.
fn bearer(client: &mut Client, user: &str, token: &str) -> String {
    let identity = if user.is_empty() {
        String::new()
    } else {
        format!("a={user}")
    };
    let response = format!("n,{identity},\u{1}host=mx.test\u{1}auth=Bearer {token}\u{1}\u{1}");
    let line = format!(
        "AUTH OAUTHBEARER {}\r\n",
        base64_encode(response.as_bytes())
    );
    finish(client, &line)
}

fn xoauth2(client: &mut Client, user: &str, token: &str) -> String {
    let response = format!("user={user}\u{1}auth=Bearer {token}\u{1}\u{1}");
    let line = format!("AUTH XOAUTH2 {}\r\n", base64_encode(response.as_bytes()));
    finish(client, &line)
}

fn finish(client: &mut Client, line: &str) -> String {
    client.send(line.as_bytes());
    let reply = client.reply();
    if reply.starts_with("334") {
        assert_eq!(reply.trim_end(), WRONG);
        return ask(client, "AQ==");
    }
    reply.chars().take(9).collect()
}

/// The token decides the account, with or without a password.
#[test]
fn good_tokens() {
    let server = launch("");
    let mut client = server.client();
    client.send(b"EHLO c\r\n");
    assert!(client.reply().starts_with("220"));
    assert!(
        client
            .reply()
            .contains("AUTH SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN OAUTHBEARER XOAUTH2\r\n")
    );
    for (named, claimed, account) in [
        ("", "alice@a.test", "alice"),
        ("alice", "alice@a.test", "alice"),
        ("Alice@B.test", "ALICE@a.test", "alice"),
        ("", "bob", "bob"),
        ("bob@a.test", "bob@a.test", "bob"),
        ("carol@b.test", "carol@b.test", "carol@b.test"),
    ] {
        let token = token(1, &email(claimed));
        for tried in [bearer, xoauth2] {
            let mut client = greeted(&server);
            assert_eq!(
                tried(&mut client, named, &token),
                "235 2.7.0",
                "{named} {claimed}"
            );
            assert_eq!(ask(&mut client, "MAIL FROM:<>"), "250 2.1.0");
            client.send(b"QUIT\r\n");
            server.logged(&format!("auth=\"{account}\" messages=0"));
        }
    }
}

/// Each wrong token has the same answer, and the log says what is wrong.
#[test]
fn wrong_tokens() {
    let server = launch("");
    for (named, claimed, why) in [
        ("bob", email("alice@a.test"), ""),
        ("nobody", email("alice@a.test"), ""),
        ("alice@c.test", email("alice@a.test"), ""),
        ("", email("nobody@a.test"), "it names no account"),
        ("", email("carol@a.test"), "it names no account"),
        ("", email("alice@elsewhere.test"), "it names no account"),
        ("", r#""sub":"alice""#.to_owned(), "no account claim"),
        (
            "",
            r#""email":"alice","email":"bob""#.to_owned(),
            "a member named twice",
        ),
        (
            "",
            r#""email":"alice","nbf":99999999999"#.to_owned(),
            "not valid yet",
        ),
    ] {
        let server = launch("");
        let reply = bearer(&mut greeted(&server), named, &token(1, &claimed));
        assert_eq!(reply, "535 5.7.8", "{named} {claimed}");
        server.logged(&format!("token refused: {why}").repeat(usize::from(!why.is_empty())));
        server.logged(&format!(
            "login failed client=\"[127.0.0.1]\" account=\"{named}\""
        ));
    }
    let foreign = token(2, &email("alice@a.test"));
    let good = token(1, &email("alice@a.test"));
    let cut = good.get(..good.len() - 4).unwrap();
    let none = format!(
        "{}.{}.",
        base64url_encode(br#"{"alg":"none"}"#),
        good.split('.').nth(1).unwrap()
    );
    for wrong in [
        foreign.as_str(),
        cut,
        &none,
        "x",
        "",
        "..",
        &"a.".repeat(2_000),
    ] {
        let server = launch("");
        let mut client = greeted(&server);
        assert_eq!(xoauth2(&mut client, "alice", wrong), "535 5.7.8");
        // The next login is not affected.
        assert_eq!(xoauth2(&mut client, "alice", &good), "235 2.7.0");
    }
    let mut client = greeted(&server);
    let response = base64_encode(b"n,,\x01auth=Bearer x\x01");
    assert_eq!(
        ask(&mut client, &format!("AUTH OAUTHBEARER {response}")),
        "501 5.5.2"
    );
}

/// Wrong tokens are guesses, also where the client cancels or leaves before it has its answer.
#[test]
fn wrong_tokens_count_as_guesses() {
    let server = launch("");
    let response = base64_encode(b"n,,\x01auth=Bearer guessed\x01\x01");
    let line = format!("AUTH OAUTHBEARER {response}");
    let mut client = greeted(&server);
    for answer in ["*", "!", "AQ=="] {
        assert!(ask(&mut client, &line).starts_with("334"));
        let expected = if answer == "AQ==" {
            "421 4.7.0"
        } else {
            "535 5.7.8"
        };
        assert_eq!(ask(&mut client, answer), expected);
    }
    for _ in 0..7 {
        assert!(ask(&mut greeted(&server), &line).starts_with("334"));
    }
    let good = token(1, &email("alice@a.test"));
    assert_eq!(bearer(&mut greeted(&server), "", &good), "454 4.7.0");
}

/// SIGHUP brings new keys; a broken file keeps the old ones.
#[test]
fn keys_are_read_again() {
    let server = launch("");
    let (old, new) = (token(1, &email("bob")), token(2, &email("bob")));
    let file = server.dir.join("keys.json");
    assert_eq!(bearer(&mut greeted(&server), "", &new), "535 5.7.8");
    std::fs::write(&file, "{}").unwrap();
    server.signal(Signal::SIGHUP);
    server.logged(
        "reload failed, keeping the previous files: keys.json: not a JWK set: no array \"keys\"",
    );
    assert_eq!(bearer(&mut greeted(&server), "", &old), "235 2.7.0");
    std::fs::write(&file, key_set(2)).unwrap();
    server.signal(Signal::SIGHUP);
    server.reloaded();
    assert_eq!(bearer(&mut greeted(&server), "", &new), "235 2.7.0");
    assert_eq!(bearer(&mut greeted(&server), "", &old), "535 5.7.8");
}

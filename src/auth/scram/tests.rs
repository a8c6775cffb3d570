//! SCRAM: the RFC's own exchange, and broken ones.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
use super::super::exchange::Exchange;
use super::super::mechanism::Mechanism;
use super::super::testing::*;
use super::*;

const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
/// RFC 7677 §3, the stored form of its user `user` with the password `pencil`.
const STORED: &str = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

fn book() -> Book {
    Book::of(&[
        ("user", STORED),
        ("a,=b", STORED),
        (
            "md5",
            "{SSHA256}Tt8H7clbL9y8ryN4/RLYrCEsKqbjJsWcPmKb4wOdZDJzYWx0",
        ),
    ])
}

fn scram() -> Exchange {
    Exchange::start(Mechanism::ScramSha256, &context(SERVER_NONCE))
}

fn text(progress: Progress) -> String {
    match progress {
        Progress::Challenge(text) => String::from_utf8(text).unwrap(),
        other => panic!("no challenge but {other:?}"),
    }
}

/// A client: client-final for what it said and heard, by the keys of `password`.
fn client_final(
    header: &str,
    binding: &[u8],
    bare: &str,
    server_first: &str,
    password: &str,
) -> String {
    let channel = base64_encode(&[header.as_bytes(), binding].concat());
    let nonce = server_first.split(',').next().unwrap();
    signed(
        &format!("c={channel},{nonce}"),
        bare,
        server_first,
        password,
    )
}

/// Any client-final with the proof that belongs to it.
fn signed(without_proof: &str, bare: &str, server_first: &str, password: &str) -> String {
    use ring::pbkdf2;
    let mut parts = server_first.split(',').skip(1);
    let salt = base64_decode(parts.next().unwrap().strip_prefix("s=").unwrap().as_bytes()).unwrap();
    let rounds = parts
        .next()
        .unwrap()
        .strip_prefix("i=")
        .unwrap()
        .parse()
        .unwrap();
    let mut salted = [0; KEY];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        rounds,
        &salt,
        password.as_bytes(),
        &mut salted,
    );
    let key = hmac_sha256(&salted, b"Client Key");
    let signature = hmac_sha256(
        &sha256(&key),
        format!("{bare},{server_first},{without_proof}").as_bytes(),
    );
    let proof: Vec<u8> = key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
    format!("{without_proof},p={}", base64_encode(&proof))
}

/// A whole exchange, to its outcome.
fn run(
    mut exchange: Exchange,
    header: &str,
    binding: &[u8],
    bare: &str,
    book: &mut Book,
) -> Progress {
    let server_first = match exchange.step(Some(format!("{header}{bare}").as_bytes()), book) {
        Progress::Challenge(text) => String::from_utf8(text).unwrap(),
        other => return other,
    };
    let last = client_final(header, binding, bare, &server_first, "pencil");
    match exchange.step(Some(last.as_bytes()), book) {
        Progress::Challenge(_) => exchange.step(Some(b""), book),
        other => other,
    }
}

/// R176: RFC 7677 §3, octet for octet.
#[test]
fn rfc_7677_example() {
    let (mut exchange, mut book) = (scram(), book());
    assert_eq!(exchange.step(None, &mut book), challenge(""));
    let first = format!("n,,n=user,r={CLIENT_NONCE}");
    let server_first = format!("r={CLIENT_NONCE}{SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
    assert_eq!(
        exchange.step(Some(first.as_bytes()), &mut book),
        challenge(&server_first)
    );
    let last = format!(
        "c=biws,r={CLIENT_NONCE}{SERVER_NONCE},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    );
    let want = challenge("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    assert_eq!(exchange.step(Some(last.as_bytes()), &mut book), want);
    assert_eq!(exchange.step(Some(b""), &mut book), done("user"));
}

/// R175: nonce, binding and proof, each slightly wrong; and a response to server-final.
#[test]
fn client_final_is_checked_exactly() {
    let nonce = format!("{CLIENT_NONCE}{SERVER_NONCE}");
    let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    for (last, want) in [
        (format!("c=biws,r={nonce}x,p={proof}"), Progress::Failed),
        (
            format!("c=biws,r={CLIENT_NONCE},p={proof}"),
            Progress::Failed,
        ),
        (format!("c=eSws,r={nonce},p={proof}"), Progress::Failed),
        (format!("c=biws,r={nonce},x=y,p={proof}"), Progress::Failed),
        (
            format!("c=biws,r={nonce},p=e{}", &proof[1..]),
            Progress::Failed,
        ),
        (format!("c=biws,r={nonce},p=biws"), Progress::Malformed),
        (format!("c=biws,r={nonce}"), Progress::Malformed),
        (format!("r={nonce},c=biws,p={proof}"), Progress::Malformed),
        (String::new(), Progress::Malformed),
    ] {
        let (mut exchange, mut book) = (scram(), book());
        let first = format!("n,,n=user,r={CLIENT_NONCE}");
        text(exchange.step(Some(first.as_bytes()), &mut book));
        assert_eq!(
            exchange.step(Some(last.as_bytes()), &mut book),
            want,
            "{last}"
        );
        assert_eq!(
            exchange.step(Some(b""), &mut book),
            Progress::Failed,
            "{last}"
        );
    }
}

/// The proof covers what the client sends, so it alone does not show that the nonce is the server's (RFC 5802 §5.1).
#[test]
fn a_right_proof_over_another_nonce_is_wrong() {
    let bare = format!("n=user,r={CLIENT_NONCE}");
    for (nonce, right) in [
        (format!("{CLIENT_NONCE}{SERVER_NONCE}"), true),
        (format!("{CLIENT_NONCE}another"), false),
        (CLIENT_NONCE.to_owned(), false),
    ] {
        let (mut exchange, mut book) = (scram(), book());
        let server_first = exchange.step(Some(format!("n,,{bare}").as_bytes()), &mut book);
        let without_proof = format!("c=biws,r={nonce}");
        let last = signed(&without_proof, &bare, &text(server_first), "pencil");
        let outcome = exchange.step(Some(last.as_bytes()), &mut book);
        assert_eq!(outcome != Progress::Failed, right, "{nonce}");
    }
}

#[test]
fn client_first_is_checked() {
    for (first, want) in [
        ("n,,m=x,n=user,r=abc", Progress::Failed),
        ("n,a=other,n=user,r=abc", Progress::Failed),
        ("p=tls-exporter,,n=user,r=abc", Progress::Failed),
        ("n,,n=us\u{1}er,r=abc", Progress::Failed),
        ("n,,n=us=er,r=abc", Progress::Malformed),
        ("n,,n=us=2cer,r=abc", Progress::Malformed),
        ("n,,n=,r=abc", Progress::Malformed),
        ("n,,n=user,r=", Progress::Malformed),
        ("n,,n=user,r=a c", Progress::Malformed),
        ("n,,n=user", Progress::Malformed),
        ("n,,r=abc,n=user", Progress::Malformed),
        ("n,n=user,r=abc", Progress::Malformed),
        ("p=,,n=user,r=abc", Progress::Malformed),
        ("x,,n=user,r=abc", Progress::Malformed),
        ("n,,n=user,r=abc,", Progress::Malformed),
        ("", Progress::Malformed),
    ] {
        assert_eq!(
            scram().step(Some(first.as_bytes()), &mut book()),
            want,
            "{first}"
        );
    }
}

#[test]
fn names_extensions_and_the_same_authzid() {
    for (header, bare, user) in [
        ("n,,", "n=user,r=abc,x=ignored", "user"),
        ("y,,", "n=user,r=abc", "user"),
        ("n,a=user,", "n=user,r=abc", "user"),
        ("n,a=a=2C=3Db,", "n=a=2C=3Db,r=abc", "a,=b"),
    ] {
        assert_eq!(
            run(scram(), header, b"", bare, &mut book()),
            done(user),
            "{header}{bare}"
        );
    }
    assert_eq!(
        run(scram(), "n,,", b"", "n=user,r=abc", &mut Book::new()),
        done("user")
    );
}

/// R177: unknown users, and accounts without SCRAM keys, see a stable salt and fail at the same step.
#[test]
fn unknown_users_look_like_known_ones() {
    for name in ["nobody", "md5"] {
        let first = format!("n,,n={name},r=abc");
        let one = text(scram().step(Some(first.as_bytes()), &mut book()));
        let two = text(scram().step(Some(first.as_bytes()), &mut book()));
        assert_eq!(one, two);
        assert!(
            one.ends_with(",i=4096")
                && one.len()
                    == format!("r=abc{SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096").len()
        );
        assert_eq!(
            run(scram(), "n,,", b"", &format!("n={name},r=abc"), &mut book()),
            Progress::Failed
        );
    }
}

/// R174 and RFC 5802 §6: the flag must match the mechanism and the offer, the binding the connection.
#[test]
fn channel_binding() {
    fn bound(mechanism: Mechanism, exporter: Option<&[u8]>) -> Exchange {
        let mut context = context(SERVER_NONCE);
        (context.exporter, context.plus_offered) = (exporter, true);
        Exchange::start(mechanism, &context)
    }
    let outcome = |mechanism, exporter: Option<&[u8]>, header: &str, binding: &[u8]| {
        run(
            bound(mechanism, exporter),
            header,
            binding,
            "n=user,r=abc",
            &mut book(),
        )
    };
    let (plus, bare) = (Mechanism::ScramSha256Plus, Mechanism::ScramSha256);
    let here = Some(&b"this connection"[..]);
    assert_eq!(
        outcome(plus, here, "p=tls-exporter,,", b"this connection"),
        done("user")
    );
    assert_eq!(
        outcome(plus, here, "p=tls-exporter,,", b"another"),
        Progress::Failed
    );
    assert_eq!(
        outcome(plus, here, "p=tls-exporter,,", b""),
        Progress::Failed
    );
    assert_eq!(
        outcome(plus, here, "p=tls-unique,,", b"this connection"),
        Progress::Failed
    );
    assert_eq!(
        outcome(plus, None, "p=tls-exporter,,", b""),
        Progress::Failed
    );
    assert_eq!(outcome(plus, here, "n,,", b""), Progress::Failed);
    assert_eq!(outcome(plus, here, "y,,", b""), Progress::Failed);
    assert_eq!(outcome(bare, here, "y,,", b""), Progress::Failed);
    assert_eq!(outcome(bare, here, "n,,", b""), done("user"));
    assert_eq!(
        outcome(bare, here, "p=tls-exporter,,", b"this connection"),
        Progress::Failed
    );
}

#[test]
fn server_final_is_answered_with_nothing() {
    let (mut exchange, mut book) = (scram(), book());
    let server_first = text(exchange.step(Some(b"n,,n=user,r=abc"), &mut book));
    let last = client_final("n,,", b"", "n=user,r=abc", &server_first, "pencil");
    text(exchange.step(Some(last.as_bytes()), &mut book));
    assert_eq!(exchange.step(Some(b"x"), &mut book), Progress::Malformed);
}

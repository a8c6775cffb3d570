//! Dialogues with the session in memory.

use std::sync::Arc;

use crate::auth::{Account, Accounts, Stored};
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::body::BareNewline;
use crate::smtp::line::Line;
use crate::smtp::policy::{Policy, Service};
use crate::smtp::reply::{self, Refusal};

use super::backend::Backend;
use super::state::{Channel, MAX_AUTH_LINE, Session};
use super::step::Next;

struct TestBackend;

impl Accounts for TestBackend {
    fn account(&mut self, login: &str) -> Account {
        match (login, Stored::parse("{PLAIN}pencil")) {
            ("user", Ok(stored)) => Account::Known {
                user: "user@h".into(),
                stored: Arc::new(stored),
            },
            _ => Account::Unknown,
        }
    }
}

impl Backend for TestBackend {
    type Recipient = String;
    fn recipient(&mut self, to: &ForwardPath, _: Option<u64>) -> Result<String, Refusal> {
        let text = to.to_string();
        if text.starts_with("no") {
            Err(Refusal::client(reply::NO_SUCH_USER))
        } else {
            Ok(text)
        }
    }
    fn room(&mut self, octets: u64) -> Result<(), Refusal> {
        if octets == 77 {
            Err(Refusal::local(reply::DISK_FULL))
        } else {
            Ok(())
        }
    }
    fn vrfy(&mut self, name: &str) -> Result<Vec<String>, Refusal> {
        match name {
            "jo" => Err(Refusal::client(reply::AMBIGUOUS)),
            "no" => Err(Refusal::client(reply::NO_SUCH_USER)),
            "j\u{e9}" => Ok(vec!["J\u{e9} <j\u{e9}@h>".into()]),
            name => Ok(vec![format!("Full Name <{name}@h>")]),
        }
    }
    fn expn(&mut self, _: &str) -> Result<Vec<String>, Refusal> {
        Ok(vec!["<a@h>".into(), "B <b@h>".into()])
    }
    fn may_send_as(&mut self, user: &str, from: &ReversePath) -> bool {
        from.to_string() == user
    }
    fn nonce(&mut self) -> String {
        "3rfcNHYJY1ZVvWVs7j".into()
    }
}

fn policy() -> Policy {
    Policy {
        hostname: "h".into(),
        service: Service::Smtp,
        starttls: false,
        mechanisms: Vec::new(),
        require_tls: false,
        insecure_auth: false,
        auth_sender: false,
        vrfy: false,
        expn: false,
        max_size: 1_000,
        max_recipients: 2,
        max_errors: 20,
        bare_newline: BareNewline::Reject,
        bare_address: false,
        dsn: false,
        etrn: false,
        atrn: false,
    }
}

fn session() -> Session<String> {
    Session::new(Arc::new(policy()), Channel::Clear)
}

fn code(session: &mut Session<String>, line: &str) -> u16 {
    let step = session.line(Line::Ok(line.as_bytes()), false, &mut TestBackend);
    match (step.reply, step.next) {
        (Some(reply), _) | (None, Next::Skip { reply, .. }) => reply.code(),
        (None, _) => 0,
    }
}

fn check(dialogue: &[(&str, u16)]) {
    run(&mut session(), dialogue);
}

fn run(session: &mut Session<String>, dialogue: &[(&str, u16)]) {
    for (line, expected) in dialogue {
        assert_eq!(code(session, line), *expected, "{line} of {dialogue:?}");
    }
}

/// R007, R008, R010, R019, R020, R023, R024, R026, R027, R028, R031, R032, R034.
#[test]
fn order_of_commands() {
    check(&[
        ("NOOP x", 250),
        ("MAIL FROM:<>", 503),
        ("RCPT TO:<a@b>", 503),
        ("DATA", 503),
        ("EHLO", 501),
        ("EHLO c", 250),
        ("RCPT TO:<a@b>", 503),
        ("DATA", 503),
        ("MAIL FROM:<a>", 250),
        ("MAIL FROM:<b@c>", 503),
        ("DATA", 503),
        ("RCPT TO:<no@b>", 550),
        ("DATA", 554),
        ("RCPT TO:<a@b>", 250),
        ("DATA x", 501),
        ("EHLO", 501),
        ("DATA", 354),
    ]);
    check(&[
        ("HELO c", 250),
        ("MAIL FROM:<>", 250),
        ("RCPT TO:<a@b>", 250),
        ("RSET", 250),
        ("DATA", 503),
        ("RSET x", 501),
    ]);
    check(&[
        ("EHLO c", 250),
        ("MAIL FROM:<>", 250),
        ("EHLO c", 250),
        ("RCPT TO:<a@b>", 503),
        ("QUIT", 221),
    ]);
}

/// R033, R035, R036, R063, R064, R081, R184, R200.
#[test]
fn arguments_and_limits() {
    check(&[
        ("EHLO c", 250),
        ("MAIL FROM: <a@b> SIZE=1001", 552),
        ("MAIL FROM:<a@b> SIZE=77", 452),
        ("MAIL FROM:<a@b> X=1", 555),
        ("MAIL FROM:a@b", 501),
        ("MAIL", 501),
        ("MAIL FROM:<\u{e9}@b>", 553),
        ("MAIL FROM:<\u{e9}@b> SMTPUTF8", 250),
        ("RCPT TO:a@b", 501),
        ("RCPT TO:<a@b>", 250),
        ("RCPT TO:<b@b>", 250),
        ("RCPT TO:<c@b>", 452),
        ("VRFY", 501),
        ("VRFY a", 252),
        ("EXPN a", 502),
        ("ETRN x", 502),
        ("LHLO x", 500),
        ("HELP", 214),
        ("HELP mail", 214),
        ("HELP x", 504),
        ("WHAT", 500),
    ]);
}

/// R120 to R126, R129, A6, A7.
#[test]
fn chunks() {
    let start = [
        ("EHLO c", 250),
        ("MAIL FROM:<> BODY=BINARYMIME", 250),
        ("RCPT TO:<a@b>", 250),
    ];
    let with = |rest: &[(&'static str, u16)]| check(&[&start, rest].concat());
    check(&[("BDAT 3", 503), ("EHLO c", 250), ("BDAT 3 LAST", 503)]);
    with(&[
        ("DATA", 503),
        ("BDAT 10", 0),
        ("DATA", 503),
        ("RCPT TO:<b@b>", 503),
        ("MAIL FROM:<>", 503),
        ("BDAT 0 LAST", 0),
    ]);
    with(&[
        ("BDAT 600", 0),
        ("BDAT 600", 552),
        ("BDAT 1", 552),
        ("BDAT 1 LAST", 552),
        ("MAIL FROM:<>", 250),
    ]);
    with(&[("BDAT 10", 0), ("RSET", 250), ("BDAT 1 LAST", 503)]);
    for bad in [
        "BDAT",
        "BDAT -1",
        "BDAT +5",
        "BDAT 0x10",
        "BDAT 1e3",
        "BDAT 5 FIRST",
        "BDAT 4 LAST x",
        "BDAT 99999999999999999999",
    ] {
        let mut session = session();
        let step = session.line(Line::Ok(bad.as_bytes()), false, &mut TestBackend);
        assert_eq!(
            (step.reply.map(|r| r.code()), step.next),
            (Some(501), Next::Close),
            "{bad}"
        );
    }
    with(&[("BDAT 18446744073709551615 LAST", 421)]);
}

/// The error over the limit, and the hundred and first noise command, are 421.
#[test]
fn patience_ends() {
    let mut errors = session();
    let codes: Vec<u16> = (0..21).map(|_| code(&mut errors, "WHAT")).collect();
    assert_eq!(
        (codes.iter().filter(|&&c| c == 500).count(), codes.last()),
        (20, Some(&421))
    );
    let mut noise = session();
    let codes: Vec<u16> = (0..101).map(|_| code(&mut noise, "NOOP")).collect();
    assert_eq!(
        (codes.iter().filter(|&&c| c == 250).count(), codes.last()),
        (100, Some(&421))
    );
}

/// A8: random verbs against the obvious automaton; no transaction outlives its end.
#[test]
fn random_sequences_agree_with_the_automaton() {
    let verbs = [
        "EHLO c",
        "MAIL FROM:<>",
        "RCPT TO:<a@b>",
        "RCPT TO:<no@b>",
        "DATA",
        "RSET",
        "NOOP",
        "finish",
    ];
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..2_000 {
        let mut session = session();
        let (mut greeted, mut mail, mut tried, mut accepted, mut data) =
            (false, false, false, 0, false);
        for _ in 0..15 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let verb = verbs.get((random % 8) as usize).copied().unwrap_or("NOOP");
            if data || verb == "finish" {
                if data {
                    let _ = session.finish(vec![reply::LOCAL_ERROR]);
                    (mail, tried, accepted, data) = (false, false, 0, false);
                    assert!(session.transaction().is_none());
                }
                continue;
            }
            let expected = match verb {
                "EHLO c" => {
                    (greeted, mail, tried, accepted) = (true, false, false, 0);
                    250
                }
                "RSET" => {
                    (mail, tried, accepted) = (false, false, 0);
                    250
                }
                "MAIL FROM:<>" if greeted && !mail => {
                    mail = true;
                    250
                }
                "RCPT TO:<no@b>" if mail => {
                    tried = true;
                    if accepted == 2 { 452 } else { 550 }
                }
                "RCPT TO:<a@b>" if mail => {
                    tried = true;
                    if accepted == 2 {
                        452
                    } else {
                        accepted += 1;
                        250
                    }
                }
                "DATA" if mail && accepted > 0 => {
                    data = true;
                    354
                }
                "DATA" if mail && tried => 554,
                "NOOP" => 250,
                _ => 503,
            };
            assert_eq!(code(&mut session, verb), expected, "{verb}");
        }
    }
}

const PENCIL: &str = "AUTH PLAIN AHVzZXIAcGVuY2ls";

fn with_tls() -> Policy {
    Policy {
        starttls: true,
        mechanisms: crate::auth::MECHANISMS.to_vec(),
        ..policy()
    }
}

fn ehlo(session: &mut Session<String>) -> String {
    let step = session.line(Line::Ok(b"EHLO c"), false, &mut TestBackend);
    step.reply.map(|r| r.text().to_owned()).unwrap_or_default()
}

/// R004, R130, R132, R133, R134, R137, A2: what is offered when, and that TLS forgets.
#[test]
fn starttls() {
    let mut session = Session::new(Arc::new(with_tls()), Channel::Clear);
    run(&mut session, &[("STARTTLS", 503)]);
    let before = ehlo(&mut session);
    assert!(before.contains("STARTTLS") && !before.contains("AUTH"));
    assert!(!before.contains("REQUIRETLS"));
    run(
        &mut session,
        &[
            (PENCIL, 538),
            ("STARTTLS x", 501),
            ("MAIL FROM:<a@b> REQUIRETLS", 555),
            ("MAIL FROM:<a@b>", 250),
            ("STARTTLS", 503),
            ("RSET", 250),
        ],
    );
    let behind = session.line(Line::Ok(b"STARTTLS"), true, &mut TestBackend);
    assert_eq!(
        (behind.reply.map(|r| r.code()), behind.next),
        (Some(554), Next::Close)
    );
    let step = session.line(Line::Ok(b"STARTTLS"), false, &mut TestBackend);
    assert_eq!(step.next, Next::StartTls);
    session.tls_started(Some(vec![1]));
    assert_eq!(session.helo(), None);
    run(&mut session, &[("MAIL FROM:<>", 503), ("STARTTLS", 503)]);
    let after = ehlo(&mut session);
    assert!(!after.contains("STARTTLS") && after.contains("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256"));
    run(
        &mut session,
        &[("STARTTLS", 503), ("MAIL FROM:<a@b> REQUIRETLS", 250)],
    );
    assert_eq!(session.protocol(), "ESMTPS");
}

/// R135: what is answered in the clear where TLS is required; BDAT's octets come all the same.
#[test]
fn require_tls() {
    let strict = Policy {
        require_tls: true,
        ..with_tls()
    };
    let mut session = Session::new(Arc::new(strict), Channel::Clear);
    run(
        &mut session,
        &[
            ("EHLO c", 250),
            ("MAIL FROM:<>", 530),
            ("VRFY x", 530),
            (PENCIL, 530),
            ("NOOP", 250),
            ("RSET", 250),
            ("HELP", 214),
        ],
    );
    let step = session.line(Line::Ok(b"BDAT 5"), false, &mut TestBackend);
    assert!(matches!(step.next, Next::Skip { size: 5, .. }));
    run(&mut session, &[("STARTTLS", 220)]);
}

/// R160 to R169, R171, A9.
#[test]
fn auth() {
    let open = Policy {
        insecure_auth: true,
        ..with_tls()
    };
    let fresh = || Session::new(Arc::new(open.clone()), Channel::Clear);
    let mut session = fresh();
    run(&mut session, &[(PENCIL, 503)]);
    assert!(ehlo(&mut session).contains("AUTH SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN"));
    let long = session.line(Line::TooLong(MAX_AUTH_LINE), false, &mut TestBackend);
    assert_eq!(long.reply.map(|r| r.code()), Some(500));
    run(
        &mut session,
        &[
            ("AUTH", 501),
            ("AUTH FOO", 504),
            ("AUTH SCRAM-SHA-256-PLUS", 504),
            ("AUTH PLAIN %%%", 501),
            ("AUTH CRAM-MD5 AAAA", 501),
            ("AUTH PLAIN", 334),
            ("*", 501),
            ("AUTH PLAIN", 334),
            ("no base64", 501),
            ("AUTH PLAIN", 334),
            ("AHVzZXIAd3Jvbmc=", 535),
            ("MAIL FROM:<>", 250),
            (PENCIL, 503),
            ("RSET", 250),
            (PENCIL, 235),
            (PENCIL, 503),
            ("RSET", 250),
        ],
    );
    assert_eq!(
        (session.user(), session.protocol()),
        (Some("user@h"), "ESMTPA")
    );
    assert!(!ehlo(&mut session).contains("AUTH"));
    let wrong = ("AUTH PLAIN AHVzZXIAd3Jvbmc=", 535);
    run(
        &mut fresh(),
        &[("EHLO c", 250), wrong, wrong, (wrong.0, 421)],
    );
    check(&[("EHLO c", 250), (PENCIL, 502)]);
}

/// RFC 6409 §4.3, §6.1: a login before MAIL, and only the user's own address.
#[test]
fn submission() {
    let submission = Policy {
        service: Service::Submission,
        auth_sender: true,
        vrfy: true,
        ..with_tls()
    };
    let tls = Channel::Tls { exporter: None };
    let mut session = Session::new(Arc::new(submission), tls);
    run(
        &mut session,
        &[
            ("EHLO c", 250),
            ("MAIL FROM:<user@h>", 530),
            ("VRFY a", 530),
            ("EXPN a", 530),
            (PENCIL, 235),
            ("VRFY a", 250),
            ("MAIL FROM:<other@h>", 550),
            ("MAIL FROM:<user@h>", 250),
        ],
    );
    assert_eq!(session.protocol(), "ESMTPSA");
}

/// R033, R187: VRFY and EXPN that tell.
#[test]
fn names_are_told_where_that_is_wanted() {
    let telling = Policy {
        vrfy: true,
        expn: true,
        ..policy()
    };
    let mut session = Session::new(Arc::new(telling), Channel::Clear);
    run(
        &mut session,
        &[
            ("VRFY", 501),
            ("VRFY alice", 250),
            ("VRFY no", 550),
            ("VRFY jo", 553),
            ("VRFY j\u{e9}", 553),
            ("VRFY j\u{e9} smtputf8", 250),
            ("EXPN list", 250),
        ],
    );
}

/// R090, R091, R092, R096, RFC 2033.
#[test]
fn lmtp() {
    let lmtp = Policy {
        service: Service::Lmtp,
        max_errors: 3,
        ..policy()
    };
    let mut session = Session::new(Arc::new(lmtp), Channel::Clear);
    assert_eq!(session.greeting().text(), "h LMTP mailslot");
    run(
        &mut session,
        &[
            ("HELO c", 500),
            ("EHLO c", 500),
            ("LHLO c", 250),
            ("MAIL FROM:<>", 250),
            ("RCPT TO:<no@b>", 550),
            ("RCPT TO:<no@b>", 550),
            ("RCPT TO:<no@b>", 550),
            ("DATA", 503),
            ("RCPT TO:<a@b>", 250),
            ("RCPT TO:<b@b>", 250),
            ("DATA", 354),
        ],
    );
    assert_eq!(session.protocol(), "LMTP");
    let (replies, next) = session.finish(vec![reply::MAILBOX_FULL, reply::OK]);
    assert_eq!((replies.len(), next), (2, Next::Command));
    run(&mut session, &[("WHAT", 421)]);
}

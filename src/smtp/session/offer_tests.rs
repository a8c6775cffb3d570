//! Dialogues about what is offered to whom: TLS, logins, XCLIENT, ETRN and ATRN.

#![allow(clippy::panic, reason = "a test may panic")]

use std::sync::Arc;

use super::state::{Channel, MAX_AUTH_LINE, Session};
use super::step::Next;
use super::tests::{TestBackend, check, code, policy, run, session};
use crate::smtp::line::Line;
use crate::smtp::policy::{Policy, Service};

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

/// A login in the clear is worth nothing once TLS has begun (RFC 3207 §4.2).
#[test]
fn a_login_does_not_survive_starttls() {
    let open = Policy {
        insecure_auth: true,
        ..with_tls()
    };
    let mut session = Session::new(Arc::new(open), Channel::Clear);
    let begin = [("EHLO c", 250), (PENCIL, 235), ("STARTTLS", 220)];
    run(&mut session, &begin);
    assert!(session.user().is_some());
    session.tls_started(None);
    assert_eq!(session.user(), None);
    run(&mut session, &[("EHLO c", 250), (PENCIL, 235)]);
}

/// RFC 9422 §4.2
#[test]
fn a_limit_of_recipients_has_six_digits() {
    for (max_recipients, stated) in [(1, 1), (999_999, 999_999), (usize::MAX, 999_999)] {
        let policy = Policy {
            max_recipients,
            ..policy()
        };
        let answer = ehlo(&mut Session::new(Arc::new(policy), Channel::Clear));
        let keyword = format!("\nLIMITS RCPTMAX={stated}\n");
        assert!(answer.contains(&keyword), "{answer}");
    }
}

/// R135: what is answered in the clear where TLS is required; BDAT's octets come all the same.
#[test]
fn require_tls() {
    let strict = Policy {
        require_tls: true,
        insecure_auth: true,
        expn: true,
        etrn: true,
        atrn: true,
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
    session.trust(true, false);
    let only_in_tls = ["XCLIENT", "AUTH", "EXPN", "ETRN", "ATRN"];
    let clear = ehlo(&mut session);
    assert!(
        !only_in_tls.iter().any(|word| clear.contains(word)),
        "{clear}"
    );
    run(&mut session, &[("XCLIENT NAME=x", 530), ("STARTTLS", 220)]);
    session.tls_started(None);
    let tls = ehlo(&mut session);
    assert!(only_in_tls.iter().all(|word| tls.contains(word)), "{tls}");
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

/// XCLIENT: for trusted clients, outside of transactions, and everything said before is forgotten.
#[test]
fn xclient() {
    check(&[
        ("EHLO c", 250),
        ("XCLIENT NAME=x", 550),
        ("HELP XCLIENT", 504),
    ]);
    let mut session = session();
    session.trust(true, false);
    assert!(ehlo(&mut session).contains("XCLIENT NAME ADDR PORT PROTO HELO LOGIN"));
    run(
        &mut session,
        &[
            ("XCLIENT", 501),
            ("XCLIENT FOO=x", 501),
            ("MAIL FROM:<>", 250),
            ("XCLIENT NAME=x", 503),
            ("RSET", 250),
        ],
    );
    let step = session.line(
        Line::Ok(b"xclient HELO=a+20b LOGIN=bob"),
        false,
        &mut TestBackend,
    );
    let Next::Xclient(attributes) = step.next else {
        panic!("{step:?}");
    };
    assert_eq!(session.xclient_done(&attributes).text(), "h ESMTP mailslot");
    assert_eq!((session.helo(), session.user()), (Some("a b"), Some("bob")));
    run(&mut session, &[("XCLIENT NAME=[UNAVAILABLE]", 0)]);
    let _ = session.xclient_done(&crate::smtp::xclient::Attributes::default());
    assert_eq!((session.helo(), session.user()), (None, None));
    run(&mut session, &[("MAIL FROM:<>", 503)]);
}

/// R200, R201, RFC 1985, RFC 2645.
#[test]
fn etrn_and_atrn() {
    check(&[
        ("EHLO c", 250),
        ("ETRN h", 502),
        ("ATRN", 502),
        ("HELP ETRN", 504),
    ]);
    let fetching = Policy {
        etrn: true,
        atrn: true,
        insecure_auth: true,
        ..with_tls()
    };
    let sealed = Policy {
        insecure_auth: false,
        ..fetching.clone()
    };
    // A stranger who cannot log in may use neither; a client by its address only ETRN.
    let mut session = Session::new(Arc::new(sealed), Channel::Clear);
    let offered = ehlo(&mut session);
    assert!(!offered.contains("TRN"), "{offered}");
    run(&mut session, &[("ETRN #id", 459), ("HELP ETRN", 214)]);
    session.trust(false, true);
    let offered = ehlo(&mut session);
    assert!(offered.contains("\nETRN") && !offered.contains("\nATRN"));
    let mut session = Session::new(Arc::new(fetching), Channel::Clear);
    run(&mut session, &[("ETRN h", 503), ("ATRN", 503)]);
    // Clients look for it before they authenticate.
    let offered = ehlo(&mut session);
    assert!(offered.contains("\nETRN") && offered.contains("\nATRN"));
    run(
        &mut session,
        &[
            ("ETRN", 501),
            ("ETRN #", 501),
            ("ETRN a b", 501),
            ("ETRN h", 250),
            ("ETRN @h.", 251),
            ("ETRN #id", 459),
            ("ATRN h", 530),
            (PENCIL, 235),
            ("ATRN h,,x", 501),
            ("ATRN x", 450),
            ("MAIL FROM:<>", 250),
            ("ATRN h", 503),
            ("ETRN h", 503),
            ("RSET", 250),
        ],
    );
    assert!(ehlo(&mut session).contains("\nATRN"));
    let step = session.line(Line::Ok(b"ATRN h"), false, &mut TestBackend);
    assert_eq!(step.next, Next::Turn(vec!["h".into()]));
}

/// `BDAT 0` without LAST moves no mail, and the account of a wrong login is known to the log.
#[test]
fn empty_chunks_are_noise_and_logins_are_noted() {
    let mut session = session();
    run(
        &mut session,
        &[
            ("EHLO c", 250),
            ("MAIL FROM:<>", 250),
            ("RCPT TO:<a@b>", 250),
        ],
    );
    for _ in 0..99 {
        assert_eq!(code(&mut session, "BDAT 0"), 0);
    }
    assert_eq!(code(&mut session, "BDAT 0"), 421);
    let open = Policy {
        insecure_auth: true,
        ..with_tls()
    };
    let mut session = Session::new(Arc::new(open), Channel::Clear);
    run(
        &mut session,
        &[("EHLO c", 250), ("AUTH PLAIN AGpvAHdyb25n", 535)],
    );
    assert_eq!(session.tried_account(), Some("jo"));
}

/// RFC 5321 §3.5.2: EXPN is listed where it is answered.
#[test]
fn expn_is_listed() {
    for expn in [false, true] {
        let policy = Policy { expn, ..policy() };
        let answer = ehlo(&mut Session::new(Arc::new(policy), Channel::Clear));
        assert_eq!(answer.lines().any(|line| line == "EXPN"), expn, "{answer}");
    }
}

/// RFC 4954 §4: a challenge that repeats a nonce and would be longer than a client must accept ends the exchange.
#[test]
fn a_challenge_is_not_too_long() {
    let open = Policy {
        insecure_auth: true,
        ..with_tls()
    };
    let mut session = Session::new(Arc::new(open), Channel::Clear);
    let first = |length| {
        let message = format!("n,,n=user,r={}", "x".repeat(length));
        let coded = crate::encoding::base64_encode(message.as_bytes());
        format!("AUTH SCRAM-SHA-256 {coded}")
    };
    let start = [("EHLO c", 250), (&first(9_000), 334), ("*", 501)];
    run(&mut session, &start);
    let long = first(9_180);
    assert!(long.len() + 2 <= MAX_AUTH_LINE);
    run(&mut session, &[(&long, 500), ("NOOP", 250)]);
}

//! Dialogues with the session in memory.

use std::sync::Arc;

use super::backend::Backend;
use super::queue_node::QueueNode;
use super::state::{Channel, Session};
use super::step::Next;
use super::transaction::Mailboxes;
use crate::auth::{Account, Accounts, Stored};
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::body::BareNewline;
use crate::smtp::line::Line;
use crate::smtp::policy::{Policy, Service};
use crate::smtp::reply::{self, Reply};

pub(super) struct TestBackend;

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
    fn recipient(
        &mut self,
        _: &ReversePath,
        to: &ForwardPath,
        _: Option<u64>,
        _: &mut Mailboxes,
    ) -> Result<String, Reply> {
        let text = to.to_string();
        if text.starts_with("no") {
            Err(reply::NO_SUCH_USER)
        } else {
            Ok(text)
        }
    }
    fn room(&mut self, octets: u64) -> Result<(), Reply> {
        if octets == 77 {
            Err(reply::DISK_FULL)
        } else {
            Ok(())
        }
    }
    fn vrfy(&mut self, name: &str) -> Result<Vec<String>, Reply> {
        match name {
            "jo" => Err(reply::AMBIGUOUS),
            "no" => Err(reply::NO_SUCH_USER),
            "j\u{e9}" => Ok(vec!["J\u{e9} <j\u{e9}@h>".into()]),
            name => Ok(vec![format!("Full Name <{name}@h>")]),
        }
    }
    fn expn(&mut self, _: &str) -> Result<Vec<String>, Reply> {
        Ok(vec!["<a@h>".into(), "B <b@h>".into()])
    }
    fn may_send_as(&mut self, user: &str, from: &ReversePath) -> bool {
        from.to_string() == user
    }
    fn etrn(&mut self, node: QueueNode<'_>, _: Option<&str>) -> Reply {
        match node {
            QueueNode::Domain("h") => reply::QUEUE_STARTED,
            QueueNode::Subdomains("h") => reply::NOTHING_QUEUED,
            _ => reply::ETRN_REFUSED,
        }
    }
    fn atrn(&mut self, user: &str, domains: &[&str]) -> Result<(), Reply> {
        if user == "user@h" && domains == ["h"] {
            Ok(())
        } else {
            Err(reply::ATRN_REFUSED)
        }
    }
    fn nonce(&mut self) -> String {
        "3rfcNHYJY1ZVvWVs7j".into()
    }
}

pub(super) fn policy() -> Policy {
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

pub(super) fn session() -> Session<String> {
    Session::new(Arc::new(policy()), Channel::Clear)
}

pub(super) fn code(session: &mut Session<String>, line: &str) -> u16 {
    let step = session.line(Line::Ok(line.as_bytes()), false, &mut TestBackend);
    match (step.reply, step.next) {
        (Some(reply), _) | (None, Next::Skip { reply, .. }) => reply.code(),
        (None, _) => 0,
    }
}

pub(super) fn check(dialogue: &[(&str, u16)]) {
    run(&mut session(), dialogue);
}

pub(super) fn run(session: &mut Session<String>, dialogue: &[(&str, u16)]) {
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

/// R073: the error over the limit, and the hundred and first noise command, are 421.
#[test]
fn too_many_errors_close() {
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

/// R033, R187: VRFY and EXPN that tell.
#[test]
fn names_are_shown_if_enabled() {
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

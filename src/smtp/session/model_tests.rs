//! Random commands against a small independent automaton: what is answered, and that no
//! transaction outlives its end (A8).

use std::sync::Arc;

use super::state::{Channel, Session};
use super::tests::{code, policy};
use crate::smtp::policy::Policy;
use crate::smtp::reply;

const VERBS: [&str; 16] = [
    "EHLO c",
    "EHLO",
    "MAIL FROM:<>",
    "MAIL FROM:<a@b> SIZE=1001",
    "RCPT TO:<a@b>",
    "RCPT TO:<no@b>",
    "RCPT TO:<a@b> NOTIFY=x",
    "DATA",
    "BDAT 10",
    "BDAT 10 LAST",
    "RSET",
    "NOOP",
    "ETRN h",
    "XCLIENT HELO=x",
    "XCLIENT FOO=x",
    "VRFY a",
];

/// The state of the automaton.
#[derive(Clone, Copy, Default)]
struct Model {
    greeted: bool,
    mail: bool,
    tried: bool,
    accepted: usize,
    chunks: bool,
}

/// The code expected, and the state after it.
fn expected(now: Model, verb: &str) -> (u16, Model) {
    let idle = Model {
        greeted: now.greeted,
        ..Model::default()
    };
    let tried = Model { tried: true, ..now };
    let ready = match (now.mail, now.accepted, now.tried) {
        (false, ..) | (true, 0, false) => 503,
        (true, 0, true) => 554,
        _ => 0,
    };
    match verb {
        "EHLO c" => (
            250,
            Model {
                greeted: true,
                ..idle
            },
        ),
        "EHLO" | "XCLIENT FOO=x" if verb == "EHLO" || !now.mail => (501, now),
        "RSET" => (250, idle),
        "NOOP" => (250, now),
        "VRFY a" => (252, now),
        "ETRN h" if now.greeted && !now.mail => (250, now),
        "XCLIENT HELO=x" if !now.mail => (
            0,
            Model {
                greeted: true,
                ..idle
            },
        ),
        "MAIL FROM:<>" if now.greeted && !now.mail => (250, Model { mail: true, ..now }),
        "MAIL FROM:<a@b> SIZE=1001" if now.greeted && !now.mail => (552, now),
        "RCPT TO:<a@b> NOTIFY=x" if now.mail && !now.chunks => (501, tried),
        "RCPT TO:<a@b>" | "RCPT TO:<no@b>" if now.mail && !now.chunks => match verb {
            _ if now.accepted == 2 => (452, tried),
            "RCPT TO:<no@b>" => (550, tried),
            _ => (
                250,
                Model {
                    accepted: now.accepted + 1,
                    ..tried
                },
            ),
        },
        "DATA" if !now.chunks => match ready {
            0 => (354, now),
            refused => (refused, now),
        },
        "BDAT 10" | "BDAT 10 LAST" => match ready {
            0 => (
                0,
                Model {
                    chunks: true,
                    ..now
                },
            ),
            refused => (refused, now),
        },
        _ => (503, now),
    }
}

#[test]
fn random_commands_agree_with_the_automaton() {
    let rules = Policy {
        etrn: true,
        max_errors: 1_000,
        ..policy()
    };
    let rules = Arc::new(rules);
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..4_000 {
        let mut session = Session::new(Arc::clone(&rules), Channel::Clear);
        session.trust(true, false);
        let mut model = Model::default();
        for _ in 0..20 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let place = (random % VERBS.len() as u64) as usize;
            let verb = VERBS.get(place).copied().unwrap_or("NOOP");
            let (answer, next) = expected(model, verb);
            assert_eq!(code(&mut session, verb), answer, "{verb}");
            model = next;
            model = follow(&mut session, model, verb, answer);
            assert_eq!(session.transaction().is_some(), model.mail, "{verb}");
            assert_eq!(session.helo().is_some(), model.greeted, "{verb}");
        }
    }
}

/// The driver's part after a command that wants content or a change of protocol.
fn follow(session: &mut Session<String>, model: Model, verb: &str, answer: u16) -> Model {
    let over = match (verb, answer) {
        ("DATA", 354) | ("BDAT 10 LAST", 0) => {
            let _ = session.finish(vec![reply::LOCAL_ERROR]);
            true
        }
        ("BDAT 10", 0) => {
            let _ = session.chunk_received();
            false
        }
        ("XCLIENT HELO=x", 0) => {
            let attributes = crate::smtp::xclient::Attributes::parse("HELO=x");
            let done = attributes.map(|attributes| session.xclient_done(&attributes));
            assert_eq!(done.map(|reply| reply.code()), Some(220));
            false
        }
        _ => false,
    };
    if over {
        return Model {
            greeted: true,
            ..Model::default()
        };
    }
    model
}

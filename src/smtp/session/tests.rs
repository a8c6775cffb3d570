//! Dialogues with the session in memory.

use super::*;

struct World;

impl Host for World {
    type Recipient = String;
    fn recipient(&mut self, to: &ForwardPath) -> Result<String, Refusal> {
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
}

fn session() -> Session<String> {
    Session::new(Arc::new(Policy {
        hostname: "h".into(),
        max_size: 1_000,
        max_recipients: 2,
        max_errors: 20,
        bare_newline: BareNewline::Reject,
    }))
}

fn code(session: &mut Session<String>, line: &str) -> u16 {
    let step = session.line(Line::Ok(line.as_bytes()), &mut World);
    match (step.reply, step.next) {
        (Some(reply), _) | (None, Next::Skip { reply, .. }) => reply.code(),
        (None, _) => 0,
    }
}

fn check(dialogue: &[(&str, u16)]) {
    let mut session = session();
    for (line, expected) in dialogue {
        assert_eq!(
            code(&mut session, line),
            *expected,
            "{line} of {dialogue:?}"
        );
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
        ("GET / HTTP/1.0", 421),
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
        let step = session.line(Line::Ok(bad.as_bytes()), &mut World);
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
                    let _ = session.finish(reply::LOCAL_ERROR);
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

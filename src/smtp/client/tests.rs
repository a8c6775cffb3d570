//! The client against scripted servers, many of them hostile.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
use super::encode::Encoder;
use super::*;
use crate::smtp::body::{Chunks, LineEnds};

mod connection;
mod extensions;
mod random;

const ALL: &str = "250-PIPELINING\r\n250-SIZE 1000\r\n250-8bitmime\r\n250-DSN\r\n\
    250-SMTPUTF8\r\n250-LIMITS RCPTMAX=3\r\n";

fn settings() -> ClientConfig {
    ClientConfig {
        lmtp: false,
        hostname: "me".into(),
        tls: TlsUse::Offered,
        login: None,
        nonce: "rOprNGfwEbeRWgbNEkqO".into(),
    }
}

fn clear(settings: ClientConfig) -> ClientSession {
    ClientSession::new(settings, Channel::Clear)
}

/// Feeds replies of the server one by one; returns the client's output.
fn talk(client: &mut ClientSession, server: &[&str]) -> String {
    let mut said = std::mem::take(client.output());
    for words in server {
        client.input(words.as_bytes());
        said.append(client.output());
    }
    String::from_utf8(said).unwrap()
}

fn ready(keywords: &str) -> ClientSession {
    let mut client = clear(settings());
    let hello = format!("250-h\r\n{keywords}250 HELP\r\n");
    let said = talk(&mut client, &["220 h\r\n", &hello]);
    assert_eq!((said.as_str(), client.want()), ("EHLO me\r\n", Want::Ready));
    client
}

fn scanned(content: &str, exact: bool) -> Content {
    let mut scan = Scan::new(exact.then_some(0));
    scan.feed(content.as_bytes());
    scan.finish()
}

fn envelope(recipients: &[&str], content: &str) -> ClientEnvelope {
    let rcpt = |path: &&str| Rcpt {
        path: (*path).to_owned(),
        ..Rcpt::default()
    };
    ClientEnvelope {
        reverse_path: "a@b".into(),
        recipients: recipients.iter().map(rcpt).collect(),
        content: scanned(content, false),
        ..ClientEnvelope::default()
    }
}

fn finish(client: &mut ClientSession, content: &str, reply: &str) -> String {
    assert_eq!(client.want(), Want::Content);
    for piece in content.as_bytes().chunks(2) {
        client.content(piece);
    }
    client.content_end();
    talk(client, &[reply])
}

fn verdicts(client: &mut ClientSession) -> Vec<String> {
    let outcomes = client.take_outcomes().unwrap();
    let spelled = |o: &Outcome| format!("{:?} {}", o.verdict, o.status);
    outcomes.iter().map(spelled).collect()
}

#[test]
fn one_command_at_a_time_without_pipelining() {
    let mut client = ready("");
    client.begin(envelope(&["x@y", "no@y"], ".hi\n"));
    let replies = ["250 ok\r\n", "250 ok\r\n", "550 5.1.1 no\r\n", "354 go\r\n"];
    let commands = "MAIL FROM:<a@b>\r\nRCPT TO:<x@y>\r\nRCPT TO:<no@y>\r\nDATA\r\n";
    assert_eq!(talk(&mut client, &replies), commands);
    let sent = finish(&mut client, ".hi\n", "250 2.6.0 taken\r\n");
    assert_eq!(sent, "..hi\r\n.\r\n");
    assert_eq!(client.want(), Want::Ready);
    assert_eq!(verdicts(&mut client), ["Accepted 2.6.0", "Failed 5.1.1"]);
    client.begin(envelope(&["x@y"], "\n"));
    assert!(talk(&mut client, &[]).starts_with("MAIL"), "no RSET is due");
}

#[test]
fn a_batch_and_its_replies_in_order() {
    let mut client = ready(ALL);
    client.begin(envelope(&["x@y", "no@y", "later@y", "over@y"], "hi"));
    let replies = "250 ok\r\n250-a\r\n250 b\r\n550 no\r\n450 4.2.0 later\r\n354 go\r\n";
    let commands = "MAIL FROM:<a@b> SIZE=2\r\nRCPT TO:<x@y>\r\nRCPT TO:<no@y>\r\n\
        RCPT TO:<later@y>\r\nDATA\r\n";
    assert_eq!(talk(&mut client, &[replies]), commands);
    let sent = finish(&mut client, "hi", "250 ok\r\n");
    assert_eq!(sent, "hi\r\n.\r\n");
    let expected = [
        "Accepted 2.0.0",
        "Failed 5.0.0",
        "Later 4.2.0",
        "NextTransaction 4.5.3",
    ];
    assert_eq!(verdicts(&mut client), expected);
}

#[test]
fn bdat_takes_content_as_it_is() {
    let chunking = "250-CHUNKING\r\n250-BINARYMIME\r\n250-PIPELINING\r\n";
    let content = ".a\r\nb\rc\n";
    let mut message = envelope(&["x@y"], content);
    message.content = scanned(content, true);
    let mut client = ready(chunking);
    client.begin(message);
    let said = talk(&mut client, &["250 ok\r\n", "250 ok\r\n"]);
    let commands = "MAIL FROM:<a@b> BODY=BINARYMIME\r\nRCPT TO:<x@y>\r\nBDAT 8 LAST\r\n";
    assert_eq!(said, commands);
    assert_eq!(finish(&mut client, content, "250 ok\r\n"), content);
    assert_eq!(verdicts(&mut client), ["Accepted 2.0.0"]);
    client.begin(envelope(&["x@y"], ".a\nb"));
    let said = talk(&mut client, &["250 ok\r\n", "250 ok\r\n"]);
    assert!(said.ends_with("BDAT 5 LAST\r\n"), "{said}");
    assert_eq!(finish(&mut client, ".a\nb", "552 5.3.4 no\r\n"), ".a\r\nb");
    assert_eq!(verdicts(&mut client), ["Failed 5.3.4"]);
}

#[test]
fn content_of_another_length_is_never_completed() {
    for keywords in ["", "250-CHUNKING\r\n"] {
        for content in ["four", "sixsix"] {
            let mut client = ready(keywords);
            client.begin(envelope(&["x@y"], "five5"));
            talk(&mut client, &["250 ok\r\n", "250 ok\r\n"]);
            if keywords.is_empty() {
                talk(&mut client, &["354 go\r\n"]);
            }
            let sent = finish(&mut client, content, "");
            assert_eq!(sent, content);
            assert_eq!(client.want(), Want::Closed);
            assert_eq!(verdicts(&mut client), ["Later 4.4.2"]);
        }
    }
}

#[test]
fn transactions_without_an_accepted_recipient() {
    // MAIL refused: what RCPT says does not count, and an unwanted 354 gets an empty message, unless there is a
    // recipient.
    let mut client = ready(ALL);
    client.begin(envelope(&["x@y", "z@y"], "hi\n"));
    talk(
        &mut client,
        &["452 4.3.1 full\r\n250 ok\r\n503 no\r\n354 go\r\n"],
    );
    assert_eq!(client.want(), Want::Closed);
    assert_eq!(verdicts(&mut client), ["Later 4.3.1", "Later 4.3.1"]);
    let mut client = ready(ALL);
    client.begin(envelope(&["x@y", "z@y"], "hi\n"));
    let replies = "452 4.3.1 full\r\n503 no\r\n550 no\r\n354 go\r\n";
    let said = talk(&mut client, &[replies]);
    assert!(said.ends_with("DATA\r\n.\r\n"), "{said}");
    talk(&mut client, &["554 nobody\r\n"]);
    assert_eq!(client.want(), Want::Ready);
    assert_eq!(verdicts(&mut client), ["Later 4.3.1", "Later 4.3.1"]);
    // DATA refused as well: RSET goes before the next MAIL, and has to succeed.
    for (reset, want) in [
        ("250 ok\r\n", Want::Reply(Stage::Mail)),
        ("500 what\r\n", Want::Closed),
    ] {
        let mut client = ready(ALL);
        client.begin(envelope(&["x@y"], "hi\n"));
        talk(&mut client, &["250 ok\r\n550 5.7.1 no\r\n503 nobody\r\n"]);
        assert_eq!(verdicts(&mut client), ["Failed 5.7.1"]);
        client.begin(envelope(&["x@y"], "hi\n"));
        let said = talk(&mut client, &[reset]);
        assert!(said.starts_with("RSET\r\nMAIL"), "{said}");
        assert_eq!(client.want(), want);
    }
    // Without pipelining DATA is not even said.
    let mut client = ready("");
    client.begin(envelope(&["x@y"], "hi\n"));
    let said = talk(&mut client, &["250 ok\r\n", "550 no\r\n"]);
    assert!(said.ends_with("RCPT TO:<x@y>\r\n"), "{said}");
    assert_eq!(client.want(), Want::Ready);
}

#[test]
fn replies_that_mean_too_many_recipients() {
    for reply in ["452 4.5.3 many", "452 many", "552 many", "550 5.5.3 many"] {
        let mut client = ready("250-PIPELINING\r\n");
        client.begin(envelope(&["x@y", "z@y"], "hi\n"));
        talk(
            &mut client,
            &[&format!("250 ok\r\n250 ok\r\n{reply}\r\n354 go\r\n")],
        );
        finish(&mut client, "hi\n", "250 ok\r\n");
        let found = verdicts(&mut client);
        assert!(
            found.iter().any(|v| v.starts_with("NextTransaction")),
            "{reply}: {found:?}"
        );
        // If the first transaction got this reply, another one would get it again. A delay has no permanent status.
        client.begin(envelope(&["x@y"], "hi\n"));
        talk(&mut client, &[&format!("250 ok\r\n{reply}\r\n503 no\r\n")]);
        let found = verdicts(&mut client);
        assert!(
            found.iter().all(|v| v.starts_with("Later 4.")),
            "{reply}: {found:?}"
        );
    }
    let mut client = ready("250-PIPELINING\r\n");
    client.begin(envelope(&["x@y", "z@y"], "hi\n"));
    talk(
        &mut client,
        &["250 ok\r\n250 ok\r\n452 4.2.2 full\r\n354 go\r\n"],
    );
    finish(&mut client, "hi\n", "250 ok\r\n");
    assert_eq!(verdicts(&mut client), ["Accepted 2.0.0", "Later 4.2.2"]);
}

#[test]
fn lmtp_has_a_reply_for_each_recipient() {
    let settings = ClientConfig {
        lmtp: true,
        ..settings()
    };
    let mut client = clear(settings);
    let said = talk(&mut client, &["220 h\r\n", "250-h\r\n250 PIPELINING\r\n"]);
    assert_eq!(said, "LHLO me\r\n");
    client.begin(envelope(&["a@y", "b@y", "c@y", "d@y"], "hi\n"));
    talk(
        &mut client,
        &["250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n250 ok\r\n354 go\r\n"],
    );
    finish(&mut client, "hi\n", "250 2.1.5 a\r\n452 4.2.2 c\r\n");
    assert_eq!(client.want(), Want::Reply(Stage::End));
    talk(&mut client, &["421 4.3.0 bye\r\n"]);
    let expected = [
        "Accepted 2.1.5",
        "Failed 5.0.0",
        "Later 4.2.2",
        "Later 4.3.0",
    ];
    assert_eq!(verdicts(&mut client), expected);
    assert_eq!(client.want(), Want::Closed);
}

/// A server may refuse the content before all of it has come.
#[test]
fn a_refusal_in_the_middle_of_the_content() {
    for (reply, verdict) in [
        ("552 5.3.4 big\r\n", "Failed 5.3.4"),
        ("451 4.3.0 x\r\n", "Later 4.3.0"),
    ] {
        let mut client = ready(ALL);
        client.begin(envelope(&["x@y"], "hi\n"));
        talk(&mut client, &["250 ok\r\n250 ok\r\n354 go\r\n"]);
        client.content(b"h");
        client.input(reply.as_bytes());
        assert_eq!(client.want(), Want::Closed);
        assert_eq!(verdicts(&mut client), [verdict]);
        assert_eq!(talk(&mut client, &[]), "h", "the message is never ended");
    }
}

/// Part of a reply has come before the end of the content was sent.
#[test]
fn a_reply_that_began_too_early_does_not_count() {
    let mut client = ready(ALL);
    client.begin(envelope(&["x@y"], "hi\n"));
    talk(&mut client, &["250 ok\r\n250 ok\r\n354 go\r\n"]);
    client.content(b"hi\n");
    client.input(b"25");
    client.content_end();
    assert_eq!(verdicts(&mut client), ["Later 4.5.0"]);
    assert_eq!(talk(&mut client, &["0 ok\r\n"]), "", "no end");
}

/// Every short text over `. CR LF x`, sent and read back by the server's decoder, split anywhere.
#[test]
fn dots_agree_with_the_server() {
    use crate::smtp::body::{BareNewline, Dots};
    for length in 0..=6_u32 {
        for number in 0..3_usize.pow(length) {
            let text: String = (0..length)
                .map(|place| {
                    [".", "\n", "x"]
                        .get(number / 3_usize.pow(place) % 3)
                        .copied()
                        .unwrap()
                })
                .collect();
            let mut client = ready("");
            client.begin(envelope(&["x@y"], &text));
            talk(&mut client, &["250 ok\r\n", "250 ok\r\n", "354 go\r\n"]);
            let wire = finish(&mut client, &text, "");
            let (mut dots, mut read) = (Dots::new(BareNewline::Reject), Vec::new());
            dots.feed(wire.as_bytes(), &mut read);
            assert!(!dots.bare_newline());
            let whole = text.is_empty() || text.ends_with('\n');
            let expected = if whole { text } else { text + "\n" };
            assert_eq!(String::from_utf8(read).unwrap(), expected);
        }
    }
}

#[test]
fn scanning_content() {
    let found = |text: &str, exact| {
        let content = scanned(text, exact);
        (content.wire, content.bare)
    };
    assert_eq!(found("a\nb\n", false), (6, false));
    assert_eq!(found("a\r\nb\r\n", true), (6, false));
    for (text, exact) in [
        ("a\r\n", false),
        ("a\rb\n", false),
        ("a\r", false),
        ("a\n", true),
        ("\r\r\n", true),
        ("\n", true),
    ] {
        assert!(found(text, exact).1, "{text:?}");
    }
    let mut mixed = Scan::new(Some(2));
    mixed.feed(b"a\nb\r\n");
    let mixed = mixed.finish();
    assert_eq!((mixed.wire, mixed.bare), (6, false));
    let content = scanned("A: b\n\n\u{e9}\n", false);
    assert!(content.eight_bit && !content.utf8_header);
    assert!(scanned("A: \u{e9}\n\nb\n", false).utf8_header);
}

/// BDAT content is relayed by BDAT octet for octet, despite the form in which it is stored.
#[test]
fn content_survives_storage() {
    let mut seed = 7_u32;
    let mut chance = |most: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % most
    };
    let (mut plain, mut bare) = (0, 0);
    for _ in 0..5_000 {
        let length = chance(12);
        let octets = (0..length).flat_map(|_| match chance(5) {
            0 => b"\r".to_vec(),
            1 => b"\n".to_vec(),
            2 => b".".to_vec(),
            3 => b"ab".to_vec(),
            _ => b"\r\n".to_vec(),
        });
        let octets: Vec<u8> = octets.collect();
        let (stored, exact_from) = stored(&octets, chance(13) as usize);
        let mut scan = Scan::new(exact_from);
        scan.feed(&stored);
        let content = scan.finish();
        assert_eq!(content.wire, octets.len() as u64, "{octets:?}");
        let (mut encoder, mut out) = (Encoder::new(false, exact_from), Vec::new());
        let (head, tail) = stored.split_at((chance(13) as usize).min(stored.len()));
        encoder.feed(head, &mut out);
        encoder.feed(tail, &mut out);
        assert_eq!((out, encoder.sent()), (octets, content.wire));
        let mut pieces = Scan::new(exact_from);
        pieces.feed(head);
        pieces.feed(tail);
        assert_eq!(pieces.finish(), content);
        *(if content.bare { &mut bare } else { &mut plain }) += 1;
    }
    assert!(plain > 500 && bare > 500, "{plain} and {bare}");
}

/// Content as it is stored for a next hop, after it arrived in two pieces.
fn stored(octets: &[u8], cut: usize) -> (Vec<u8>, Option<u64>) {
    let (head, tail) = octets.split_at(cut.min(octets.len()));
    let (mut chunks, mut out) = (Chunks::new(LineEnds::LfUntilBare), Vec::new());
    let mut exact_from = None;
    for piece in [head, tail] {
        let used = chunks.feed(piece, &mut out);
        if used < piece.len() {
            exact_from = Some(out.len() as u64);
            chunks.keep(&mut out);
            chunks.feed(&piece[used..], &mut out);
        }
    }
    chunks.finish(&mut out);
    (out, exact_from)
}

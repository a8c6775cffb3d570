//! Reports as their readers see them: parts, fields and bounds.

use super::*;

fn recipient(address: &str) -> ReportRecipient {
    ReportRecipient {
        address: address.to_owned(),
        orcpt: Some("rfc822;Al+2B@x.org".to_owned()),
        status: Status::new(5, 1, 1),
        text: "550 5.1.1 No such user".to_owned(),
        remote: Some("mx.example".to_owned()),
        is_reply: true,
    }
}

fn example(recipients: &[ReportRecipient]) -> Report<'_> {
    Report {
        action: Action::Failed,
        hostname: "h.test",
        to: "me@h.test",
        id: "7.M1",
        date: "Thu, 01 Jan 1970 00:00:00 +0000",
        arrived: "Wed, 31 Dec 1969 23:00:00 +0000",
        until: None,
        envid: Some("x+2By"),
        message: "6.M1",
        recipients,
        start: b"Subject: x\n\nbody\n",
        full: false,
    }
}

fn report(action: Action, recipients: &[ReportRecipient]) -> String {
    let report = Report {
        action,
        ..example(recipients)
    };
    String::from_utf8_lossy(&report.content()).into_owned()
}

#[test]
fn a_failure_says_what_and_why() {
    let text = report(Action::Failed, &[recipient("al@x.org")]);
    for part in [
        "To: <me@h.test>\n",
        "Auto-Submitted: auto-replied\n",
        "multipart/report; report-type=delivery-status;\n\tboundary=\"report-7.M1\"\n",
        "<al@x.org>\n    mx.example said: 550 5.1.1 No such user\n",
        "Reporting-MTA: dns; h.test\nOriginal-Envelope-Id: x+y\n\
         Arrival-Date: Wed, 31 Dec 1969 23:00:00 +0000\n\nOriginal-Recipient: rfc822; Al+@x.org\n\
         Final-Recipient: rfc822; al@x.org\nAction: failed\nStatus: 5.1.1\nRemote-MTA: dns; mx.example\n\
         Diagnostic-Code: smtp; 550 5.1.1 No such user\n",
        "Content-Type: text/rfc822-headers\n\nSubject: x\n\n--report-7.M1--\n",
    ] {
        assert!(text.contains(part), "{part}\nin\n{text}");
    }
    assert!(text.is_ascii());
}

#[test]
fn other_kinds_of_report() {
    let text = report(
        Action::Delayed,
        &[recipient("al@x.org"), recipient("j\u{e9}@x.org")],
    );
    assert!(text.contains("Action: delayed") && text.contains("need not send it again"));
    assert!(text.contains("message/global-delivery-status"));
    assert!(text.contains("Final-Recipient: utf-8; j\u{e9}@x.org"));
    assert!(report(Action::Relayed, &[recipient("x@y")]).contains("do not report"));
    assert!(report(Action::Delivered, &[recipient("x@y")]).contains("Action: delivered\n"));
    assert!(report(Action::Expanded, &[recipient("x@y")]).contains("Action: expanded\n"));
    let recipients = [recipient("x@y")];
    let waits = Report {
        until: Some("Fri, 02 Jan 1970 00:00:00 +0000"),
        ..example(&recipients)
    };
    let text = String::from_utf8_lossy(&waits.content()).into_owned();
    assert!(
        text.contains("Will-Retry-Until: Fri, 02 Jan 1970"),
        "{text}"
    );
}

/// RFC 3461 §6.3: `dns` is for complete names only.
#[test]
fn hosts_without_a_domain() {
    let all = [recipient("x@y")];
    for (hostname, field) in [
        ("h.test", "\nReporting-MTA: dns; h.test\n"),
        ("box", "\nReporting-MTA: x-local-hostname; box\n"),
    ] {
        let text = Report {
            hostname,
            ..example(&all)
        };
        let text = String::from_utf8_lossy(&text.content()).into_owned();
        assert!(text.contains(field), "{text}");
    }
}

/// RFC 3464 §2.1.2: the name of a server is a domain, or an address in brackets.
#[test]
fn servers_without_a_name() {
    for (host, field) in [
        ("192.0.2.1", "\nRemote-MTA: dns; [192.0.2.1]\nDiagnostic"),
        ("2001:db8::1", "\nRemote-MTA: dns; [IPv6:2001:db8::1]\n"),
        ("[192.0.2.1]", "\nRemote-MTA: dns; [192.0.2.1]\n"),
    ] {
        let mut one = recipient("x@y");
        one.remote = Some(host.to_owned());
        let text = report(Action::Failed, &[one]);
        assert!(text.contains(field), "{field} in {text}");
    }
}

#[test]
fn a_servers_words_are_folded() {
    let mut long = recipient("al@x.org");
    long.text = format!("550 {} {}", "word ".repeat(100), "x".repeat(5_000));
    let text = report(Action::Failed, &[long]);
    assert!(text.lines().all(|line| line.len() <= 500), "{text}");
    assert!(text.contains("Diagnostic-Code: smtp; 550 word word"));
    // RFC 5322 §2.1.1 counts octets.
    let mut wide = recipient("al@x.org");
    wide.text = "\u{1f600}".repeat(5_000);
    let text = report(Action::Failed, &[wide]);
    assert!(text.lines().all(|line| line.len() <= MAX_LINE), "{text}");
}

/// The returned part of a message, and its type.
fn returned(start: &[u8], full: bool) -> (&'static str, String) {
    let report = Report {
        start,
        full,
        ..example(&[])
    };
    let (kind, octets) = report.returned();
    let kind = kind.split(['\n', ';']).next().unwrap_or_default();
    (kind, String::from_utf8_lossy(&octets).into_owned())
}

#[test]
fn headers() {
    for (start, header) in [
        ("A: b\n\nC: d\n\nx", "A: b\n"),
        ("A: b\r\n c\r\n\r\nbody", "A: b\n c\n"),
        ("A: b", "A: b\n"),
        ("hello\nB: c\n\nbody", ""),
        (" A: b\n\nbody", ""),
        ("A: b\nno field\nB: c\n", "A: b\n"),
        ("A: b\rc\0d\n\n", "A: b?c?d\n"),
    ] {
        let found = returned(start.as_bytes(), false);
        assert_eq!(found, ("text/rfc822-headers", header.to_owned()), "{start}");
    }
    let long = format!("A: {}", "x".repeat(2_000));
    assert_eq!(returned(long.as_bytes(), false).1.len(), MAX_LINE + 1);
    let many = "A: b\n".repeat(100_000);
    assert!(returned(many.as_bytes(), false).1.len() <= MAX_RETURNED + 1);
    assert_eq!(
        returned("A: \u{e9}\n".as_bytes(), false).0,
        "message/global-headers"
    );
    assert_eq!(returned(b"A: \xe9\n", false).0, "text/rfc822-headers");
}

#[test]
fn all_of_a_message_where_it_is_short_and_text() {
    for (start, kind) in [
        ("A: b\r\n\r\nbody", "message/rfc822"),
        ("A: b\n\n\u{e9}", "message/rfc822"),
        ("A: \u{e9}\n\nx", "message/global"),
    ] {
        let whole = format!("{}\n", start.replace('\r', ""));
        assert_eq!(returned(start.as_bytes(), true), (kind, whole), "{start}");
    }
    for body in [
        "a\rb".to_owned(),
        "a\0".to_owned(),
        "x".repeat(999),
        "x\n".repeat(40_000),
    ] {
        let header = ("text/rfc822-headers", "A: b\n".to_owned());
        assert_eq!(returned(format!("A: b\n\n{body}").as_bytes(), true), header);
    }
}

/// A message cannot end the report that it is part of.
#[test]
fn the_boundary_is_nowhere_in_the_message() {
    let content = Report {
        start: b"A: b\n\n--report-7.M1--\n",
        full: true,
        ..example(&[])
    }
    .content();
    let text = String::from_utf8_lossy(&content).into_owned();
    assert!(text.contains("boundary=\"report-7.M1x\"\n"), "{text}");
    assert_eq!(text.matches("\n--report-7.M1x").count(), 4, "{text}");
}

/// RFC 6533 §3: the type of the address decides how it is decoded.
#[test]
fn original_recipients() {
    for (orcpt, address, field, global) in [
        ("rfc822;a+2Bb@x", "y@x", "rfc822; a+b@x", false),
        ("utf-8;j\\x{E9}@x", "y@x", "utf-8; j\u{e9}@x", true),
        ("utf-8;j\u{e9}@x", "j\u{e9}@x", "utf-8; j\u{e9}@x", true),
        ("x400;/a+3Db/", "y@x", "x400; /a=b/", false),
    ] {
        let one = ReportRecipient {
            orcpt: Some(orcpt.to_owned()),
            text: "550 5.1.1 Benutzer unbekannt: \u{fc}".to_owned(),
            ..recipient(address)
        };
        let text = report(Action::Failed, &[one]);
        let (_, status) = text.split_once("delivery-status\n").unwrap_or_default();
        assert!(
            status.contains(&format!("Original-Recipient: {field}\n")),
            "{text}"
        );
        assert_eq!(
            text.contains("message/global-delivery-status"),
            global,
            "{text}"
        );
        assert_eq!(status.is_ascii(), !global, "{text}");
    }
}

/// Quoted-printable has no other forms here: a soft line break, and three characters for one octet.
fn decoded(text: &str) -> Vec<u8> {
    let text = text.replace("=\n", "");
    let mut pieces = text.split('=');
    let mut octets = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at(2);
        octets.extend(u8::from_str_radix(digits, 16));
        octets.extend(rest.as_bytes());
    }
    octets
}

/// RFC 6152 §3: a server without 8BITMIME gets ASCII, with the same text.
#[test]
fn reports_in_ascii() {
    let ascii = |address: &str, text: &str, start: &[u8], full: bool| {
        let mut one = recipient(address);
        one.text = text.to_owned();
        let recipients = [one];
        let report = Report {
            start,
            full,
            ..example(&recipients)
        };
        let plain = report.content();
        (
            String::from_utf8(in_ascii(&plain)).unwrap_or_default(),
            plain,
        )
    };
    let (text, plain) = ascii("al@x.org", "550 no", b"A: b = c \n\nbody\n", true);
    assert_eq!(text.as_bytes(), plain, "ASCII is left as it is");
    let long = "\u{fc}= ".repeat(40);
    for (address, start, full, part) in [
        (
            "al@x.org",
            &b"A: b\n\nb\xf6dy\n"[..],
            true,
            "text/rfc822-headers",
        ),
        (
            "al@x.org",
            b"A: \xf6\n\nbody\n",
            false,
            "text/rfc822-headers",
        ),
        (
            "al@x.org",
            b"A: \xf6\n\nb\xf6dy\n",
            true,
            "text/rfc822-headers",
        ),
        (
            "j\u{e9}@x.org",
            "A: \u{fc}\n\nb\n".as_bytes(),
            false,
            "message/global-headers",
        ),
        (
            "j\u{e9}@x.org",
            "A: \u{fc}\n\nb\n".as_bytes(),
            true,
            "message/global",
        ),
    ] {
        let (text, plain) = ascii(address, &format!("550 {long}"), start, full);
        assert!(text.is_ascii() && !text.contains(": 8bit"), "{text}");
        let coded = text.lines().filter(|line| line.contains("=C3=BC"));
        assert!(coded.map(str::len).all(|length| length <= 76), "{text}");
        assert!(text.contains(&format!("\nContent-Type: {part}")), "{text}");
        assert_eq!(text.matches("\n--report-7.M1").count(), 4, "{text}");
        // Each part says what it said before; only a returned message has lost its body.
        let plain = String::from_utf8_lossy(&plain).into_owned();
        for (coded, part) in text.split("\n\n").zip(plain.split("\n\n")) {
            if part.is_ascii() || part.contains("Content-") || part.starts_with('b') {
                continue;
            }
            let was = String::from_utf8_lossy(&decoded(coded)).into_owned();
            assert_eq!(was, part);
        }
        assert!(!text.contains("b=F6dy"), "{text}");
    }
}

//! What is sent depends on what the server offers.

use super::*;

#[test]
fn parameters_go_where_they_are_offered() {
    let mut message = envelope(&["j\u{e9}@y"], "\u{e9}\n");
    message.ret = Some("HDRS".into());
    message.envid = Some("id+2Dx".into());
    message.recipients.first_mut().unwrap().notify = Some("NEVER".into());
    message.recipients.first_mut().unwrap().orcpt = Some("rfc822;x@y".into());
    let mut client = ready(ALL);
    client.begin(message.clone());
    let commands = "MAIL FROM:<a@b> SIZE=4 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=id+2Dx\r\n\
        RCPT TO:<j\u{e9}@y> NOTIFY=NEVER ORCPT=rfc822;x@y\r\nDATA\r\n";
    assert_eq!(talk(&mut client, &[]), commands);
    let mut client = ready("250-SMTPUTF8\r\n250-8BITMIME\r\n");
    client.begin(message);
    let said = talk(&mut client, &["250 ok\r\n"]);
    assert_eq!(
        said,
        "MAIL FROM:<a@b> BODY=8BITMIME SMTPUTF8\r\nRCPT TO:<j\u{e9}@y>\r\n"
    );
}

/// RFC 6531 §3.2: the message itself may go to the others.
#[test]
fn an_internationalized_recipient_fails_alone() {
    let mut client = ready("");
    client.begin(envelope(&["j\u{e9}@y", "x@y"], "hi\n"));
    let commands = "MAIL FROM:<a@b>\r\nRCPT TO:<x@y>\r\nDATA\r\n";
    let replies = ["250 ok\r\n", "250 ok\r\n", "354 go\r\n"];
    assert_eq!(talk(&mut client, &replies), commands);
    finish(&mut client, "hi\n", "250 ok\r\n");
    assert_eq!(verdicts(&mut client), ["Failed 5.6.7", "Accepted 2.0.0"]);
}

/// RFC 6533 §3: servers refuse an ORCPT in UTF-8 in a transaction without SMTPUTF8.
#[test]
fn an_internationalized_original_recipient() {
    for (path, spelled, smtputf8) in [
        ("x@y", "j\\x{E9}@z", ""),
        ("j\u{e9}@y", "j\u{e9}@z", " SMTPUTF8"),
    ] {
        let mut message = envelope(&[path], "hi\n");
        message.recipients.first_mut().unwrap().orcpt = Some("utf-8;j\u{e9}@z".into());
        let mut client = ready(ALL);
        client.begin(message);
        let commands = format!(
            "MAIL FROM:<a@b> SIZE=4{smtputf8}\r\nRCPT TO:<{path}> ORCPT=utf-8;{spelled}\r\nDATA\r\n"
        );
        assert_eq!(talk(&mut client, &[]), commands);
    }
}

#[test]
fn what_a_server_cannot_take_is_never_sent() {
    let unsent = |keywords: &str, message: ClientEnvelope| {
        let mut client = ready(keywords);
        client.begin(message);
        assert_eq!(
            (client.want(), talk(&mut client, &[])),
            (Want::Ready, String::new())
        );
        verdicts(&mut client).remove(0)
    };
    let plain = || envelope(&["x@y"], "hi\n");
    assert_eq!(unsent("", envelope(&["x@y"], "\u{e9}\n")), "Failed 5.6.3");
    assert_eq!(unsent(ALL, envelope(&["x@y"], "a\rb\n")), "Failed 5.6.3");
    assert_eq!(unsent("", envelope(&["j\u{e9}@y"], "hi\n")), "Failed 5.6.7");
    let long = "x".repeat(1_001);
    assert_eq!(unsent(ALL, envelope(&["x@y"], &long)), "Failed 5.3.4");
    for bad in ["", "x@y>\r\nDATA", "x@y> A=B", "x y@z", "x\u{7f}@y"] {
        assert_eq!(
            unsent(ALL, envelope(&[bad], "hi\n")),
            "Failed 5.1.3",
            "{bad}"
        );
    }
    let mut message = plain();
    message.reverse_path = "a\n@b".into();
    assert_eq!(unsent(ALL, message), "Failed 5.1.7");
    let mut message = plain();
    message.envid = Some("x RET=FULL".into());
    assert_eq!(unsent(ALL, message), "Failed 5.1.7");
    let mut message = plain();
    message.requiretls = true;
    assert_eq!(unsent("250-REQUIRETLS\r\n", message), "Failed 5.7.30");
}

#[test]
fn requiretls_wants_verified_tls() {
    for (verified, from, expected) in [
        (true, "a@b", "MAIL FROM:<a@b> REQUIRETLS\r\n"),
        (false, "a@b", ""),
        // RFC 8689 §5: a report is sent all the same.
        (true, "", "MAIL FROM:<> REQUIRETLS\r\n"),
        (false, "", "MAIL FROM:<> REQUIRETLS\r\n"),
    ] {
        let exporter = None;
        let mut client = ClientSession::new(settings(), Channel::Tls { exporter, verified });
        talk(
            &mut client,
            &["220 h\r\n", "250-h\r\n250-REQUIRETLS\r\n250 STARTTLS\r\n"],
        );
        let mut message = envelope(&["x@y"], "hi\n");
        message.requiretls = true;
        from.clone_into(&mut message.reverse_path);
        client.begin(message);
        assert_eq!(talk(&mut client, &[]), expected);
    }
}

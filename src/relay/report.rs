//! Delivery status notifications (RFC 3464, RFC 6522, RFC 6533): what the sender reads when mail could not go on, is
//! late, or went where nobody reports. Text for people first, then the same for programs, then the message's header.

use std::fmt::Write as _;

use crate::encoding::xtext_decode;
use crate::smtp::client::Status;

/// Octets of the message, or of its header, that go back with a report.
pub(super) const MAX_RETURNED: usize = 64 * 1024;

/// What happened (RFC 3464 §2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It will not arrive.
    Failed,
    /// It is still tried.
    Delayed,
    /// It went to a server that does not report.
    Relayed,
    /// It is in the recipient's mailbox: LMTP's 250 says that.
    Delivered,
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Relayed => "relayed",
            Self::Delivered => "delivered",
        }
    }

    const fn subject(self) -> &'static str {
        match self {
            Self::Failed => "Undelivered mail returned to sender",
            Self::Delayed => "Mail is delayed, still trying",
            Self::Relayed => "Mail was passed on",
            Self::Delivered => "Mail was delivered",
        }
    }

    const fn intro(self) -> &'static str {
        match self {
            Self::Failed => "Your message could not be delivered to the following recipients.",
            Self::Delayed => {
                "Your message could not be delivered yet to the following recipients. It will be\n\
                 tried again; you need not send it again."
            }
            Self::Delivered => "Your message was delivered to the following recipients.",
            Self::Relayed => {
                "Your message was passed on to the mail servers of the following recipients, which\n\
                 do not report whether it arrives."
            }
        }
    }
}

/// One recipient of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The address.
    pub address: String,
    /// ORCPT.
    pub orcpt: Option<String>,
    /// Why, as a code.
    pub status: Status,
    /// Why, in words.
    pub text: String,
    /// The host that said so, where one did.
    pub remote: Option<String>,
}

/// All that a report says.
#[derive(Debug)]
pub struct Report<'a> {
    /// What happened.
    pub action: Action,
    /// The host that reports.
    pub hostname: &'a str,
    /// The reverse-path of the message, which the report goes to.
    pub to: &'a str,
    /// The report's own id, unique.
    pub id: &'a str,
    /// Now, as in a header.
    pub date: &'a str,
    /// ENVID, xtext.
    pub envid: Option<&'a str>,
    /// The id of the message in the log.
    pub message: &'a str,
    /// The recipients.
    pub recipients: &'a [Told],
    /// The message, or its header, as it is stored; cut to `MAX_RETURNED`.
    pub returned: &'a [u8],
    /// Whether that is all of the message.
    pub whole: bool,
}

impl Report<'_> {
    /// The report as a message with LF line ends.
    pub fn content(&self) -> Vec<u8> {
        let global = !self.recipients.iter().all(|told| told.address.is_ascii());
        let boundary = format!("report-{}", self.id);
        let mut text = self.header(&boundary);
        let _ = write!(text, "--{boundary}\n{TEXT_PART}{}\n", self.words());
        let kind = if global {
            "message/global-delivery-status"
        } else {
            "message/delivery-status"
        };
        let coding = if global {
            "Content-Transfer-Encoding: 8bit\n"
        } else {
            ""
        };
        let _ = write!(
            text,
            "--{boundary}\nContent-Type: {kind}\n{coding}\n{}\n",
            self.status()
        );
        let kind = match (self.whole, self.returned.is_ascii()) {
            (true, true) => "message/rfc822\n",
            (true, false) => "message/rfc822\nContent-Transfer-Encoding: 8bit\n",
            (false, true) => "text/rfc822-headers\n",
            (false, false) => {
                "text/rfc822-headers; charset=utf-8\nContent-Transfer-Encoding: 8bit\n"
            }
        };
        let _ = write!(text, "--{boundary}\nContent-Type: {kind}\n");
        let mut content = text.into_bytes();
        content.extend_from_slice(self.returned);
        content.extend_from_slice(format!("\n--{boundary}--\n").as_bytes());
        content
    }

    fn header(&self, boundary: &str) -> String {
        let (host, to, date, id) = (self.hostname, self.to, self.date, self.id);
        let subject = self.action.subject();
        format!(
            "From: Mail Delivery System <MAILER-DAEMON@{host}>\nTo: <{to}>\nDate: {date}\n\
             Message-ID: <{id}@{host}>\nSubject: {subject}\nAuto-Submitted: auto-replied\n\
             MIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status;\n\
             \tboundary=\"{boundary}\"\n\nThis is a report in MIME format.\n\n"
        )
    }

    /// For people.
    fn words(&self) -> String {
        let mut text = format!(
            "This is the mail system at {}.\n\n{}\n",
            self.hostname,
            self.action.intro()
        );
        for told in self.recipients {
            let said = match &told.remote {
                Some(host) => format!("{host} said: {}", told.text),
                None => told.text.clone(),
            };
            let _ = write!(text, "\n<{}>\n{}", told.address, folded(&said));
        }
        let _ = write!(
            text,
            "\nThe message has the id {} in the log of {}.\n",
            self.message, self.hostname
        );
        text
    }

    /// For programs (RFC 3464 §2.2, §2.3).
    fn status(&self) -> String {
        let mut text = format!("Reporting-MTA: dns; {}\n", self.hostname);
        if let Some(envid) = self.envid.and_then(xtext_decode) {
            let _ = writeln!(text, "Original-Envelope-Id: {envid}");
        }
        for told in self.recipients {
            text.push('\n');
            if let Some((kind, address)) = told
                .orcpt
                .as_deref()
                .and_then(|orcpt| orcpt.split_once(';'))
            {
                let address = xtext_decode(address).unwrap_or_else(|| address.to_owned());
                let _ = writeln!(text, "Original-Recipient: {kind}; {address}");
            }
            let kind = if told.address.is_ascii() {
                "rfc822"
            } else {
                "utf-8"
            };
            let _ = writeln!(text, "Final-Recipient: {kind}; {}", told.address);
            let _ = writeln!(
                text,
                "Action: {}\nStatus: {}",
                self.action.name(),
                told.status
            );
            if let Some(host) = &told.remote {
                let _ = writeln!(text, "Remote-MTA: dns; {host}");
                let words = folded(&told.text);
                let words = words.trim_start().replace("\n    ", "\n\t");
                let _ = write!(text, "Diagnostic-Code: smtp; {words}");
            }
        }
        text
    }
}

const TEXT_PART: &str =
    "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n";

/// Words in lines of at most 72 characters where they allow it, each behind four blanks.
fn folded(text: &str) -> String {
    let mut lines = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        // No line is longer than a message may have, whatever a server says.
        let word: String = word.chars().take(400).collect();
        let count = word.chars().count();
        if length > 0 && length + 1 + count > 72 {
            lines.push('\n');
            length = 0;
        }
        lines.push_str(if length == 0 { "    " } else { " " });
        lines.push_str(&word);
        length += count + 1;
    }
    lines.push('\n');
    lines
}

/// The header section of a message, to its empty line, cut to `MAX_RETURNED`.
pub(super) fn header_of(content: &[u8]) -> &[u8] {
    let end = content
        .windows(2)
        .position(|pair| pair == b"\n\n")
        .map(|at| at + 1);
    let crlf = content
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 2);
    let end = end
        .unwrap_or(content.len())
        .min(crlf.unwrap_or(content.len()));
    content.get(..end.min(MAX_RETURNED)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(address: &str) -> Told {
        Told {
            address: address.to_owned(),
            orcpt: Some("rfc822;Al+2B@x.org".to_owned()),
            status: Status::new(5, 1, 1),
            text: "550 5.1.1 No such user".to_owned(),
            remote: Some("mx.example".to_owned()),
        }
    }

    fn report(action: Action, recipients: &[Told]) -> String {
        let report = Report {
            action,
            hostname: "h.test",
            to: "me@h.test",
            id: "7.M1",
            date: "Thu, 01 Jan 1970 00:00:00 +0000",
            envid: Some("x+2By"),
            message: "6.M1",
            recipients,
            returned: b"Subject: x\n",
            whole: false,
        };
        String::from_utf8_lossy(&report.content()).into_owned()
    }

    #[test]
    fn a_failure_says_what_and_why() {
        let text = report(Action::Failed, &[told("al@x.org")]);
        for part in [
            "To: <me@h.test>\n",
            "Auto-Submitted: auto-replied\n",
            "multipart/report; report-type=delivery-status;\n\tboundary=\"report-7.M1\"\n",
            "<al@x.org>\n    mx.example said: 550 5.1.1 No such user\n",
            "Reporting-MTA: dns; h.test\nOriginal-Envelope-Id: x+y\n\nOriginal-Recipient: rfc822; Al+@x.org\n\
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
        let text = report(Action::Delayed, &[told("al@x.org"), told("j\u{e9}@x.org")]);
        assert!(text.contains("Action: delayed") && text.contains("need not send it again"));
        assert!(text.contains("message/global-delivery-status"));
        assert!(text.contains("Final-Recipient: utf-8; j\u{e9}@x.org"));
        assert!(report(Action::Relayed, &[told("x@y")]).contains("do not report"));
        assert!(report(Action::Delivered, &[told("x@y")]).contains("Action: delivered\n"));
    }

    #[test]
    fn a_servers_words_are_folded() {
        let mut long = told("al@x.org");
        long.text = format!("550 {} {}", "word ".repeat(100), "x".repeat(5_000));
        let text = report(Action::Failed, &[long]);
        assert!(text.lines().all(|line| line.len() <= 500), "{text}");
        assert!(text.contains("Diagnostic-Code: smtp; 550 word word"));
    }

    #[test]
    fn headers() {
        assert_eq!(header_of(b"A: b\n\nbody\n\nx"), b"A: b\n");
        assert_eq!(header_of(b"A: b\r\n\r\nbody"), b"A: b\r\n");
        assert_eq!(header_of(b"A: b"), b"A: b");
        assert_eq!(header_of(&[b'x'; 100_000]).len(), MAX_RETURNED);
    }
}

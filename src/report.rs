//! The text of delivery status notifications (RFC 3464, RFC 6522, RFC 6533): a part for people, one for programs, and
//! the message or its header. Callers decide when a report is due and deliver it.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::encoding::xtext_decode;
use crate::smtp::client::Status;
use crate::smtp::params::original_recipient;

/// Maximum octets of the message, or of its header, that a report returns.
pub const MAX_RETURNED: usize = 64 * 1024;
/// Maximum octets of a line without its end (RFC 5322 §2.1.1).
const MAX_LINE: usize = 998;
/// The delivery time has expired (RFC 3463 §3.5).
pub const EXPIRED: Status = Status::new(5, 4, 7);
const TEXT_PART: &str =
    "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n";

/// What happened (RFC 3464 §2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It failed.
    Failed,
    /// It is delayed.
    Delayed,
    /// It was relayed to a server that sends no reports.
    Relayed,
    /// It was delivered.
    Delivered,
    /// It was expanded to the members of a list.
    Expanded,
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Relayed => "relayed",
            Self::Delivered => "delivered",
            Self::Expanded => "expanded",
        }
    }

    const fn subject(self) -> &'static str {
        match self {
            Self::Failed => "Undelivered mail returned to sender",
            Self::Delayed => "Mail is delayed, still trying",
            Self::Relayed => "Mail was passed on",
            Self::Delivered => "Mail was delivered",
            Self::Expanded => "Mail was sent to the members of a list",
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
            Self::Expanded => {
                "Your message was sent to all members of the following addresses. There are no\n\
                 reports of its arrival at each of them."
            }
        }
    }
}

/// One recipient of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRecipient {
    /// The address.
    pub address: String,
    /// ORCPT, as received.
    pub orcpt: Option<String>,
    /// The reason, as an enhanced status code.
    pub status: Status,
    /// The reason, as text.
    pub text: String,
    /// The host that was asked, if any.
    pub remote: Option<String>,
    /// True if the text is a reply to this host.
    pub is_reply: bool,
}

impl ReportRecipient {
    /// The type and the address of ORCPT, if it is valid.
    fn original(&self) -> Option<(&str, String)> {
        let (kind, address) = original_recipient(self.orcpt.as_deref()?)?;
        let fits = address.is_ascii() || kind.eq_ignore_ascii_case("utf-8");
        fits.then_some((kind, address))
    }

    /// True if an address is not ASCII.
    fn is_global(&self) -> bool {
        let original = self.original();
        !self.address.is_ascii() || original.is_some_and(|(_, address)| !address.is_ascii())
    }
}

/// The contents of a report.
#[derive(Debug)]
pub struct Report<'a> {
    /// What happened.
    pub action: Action,
    /// The reporting host.
    pub hostname: &'a str,
    /// The reverse-path of the message, to which the report is sent.
    pub to: &'a str,
    /// The unique id of the report.
    pub id: &'a str,
    /// The current date, in the form of a header.
    pub date: &'a str,
    /// The date of acceptance, in the form of a header.
    pub arrived: &'a str,
    /// The date when it will be given up, if delayed, in the form of a header.
    pub until: Option<&'a str>,
    /// ENVID, xtext.
    pub envid: Option<&'a str>,
    /// The id of the message in the log.
    pub message: &'a str,
    /// The recipients.
    pub recipients: &'a [ReportRecipient],
    /// The first octets of the message, with LF or CRLF line ends: all, or more than `MAX_RETURNED`.
    pub start: &'a [u8],
    /// True if the whole message is wanted; otherwise its header is returned.
    pub full: bool,
}

impl Report<'_> {
    /// The report as a message with LF line ends.
    pub fn content(&self) -> Vec<u8> {
        let (kind, returned) = self.returned();
        let mut boundary = format!("report-{}", self.id);
        while find(&returned, boundary.as_bytes()).is_some() {
            boundary.push('x');
        }
        let mut text = self.header(&boundary);
        let _ = write!(text, "--{boundary}\n{TEXT_PART}{}\n", self.explanation());
        let (global, status) = self.status();
        let status_kind = match global {
            true => "message/global-delivery-status\nContent-Transfer-Encoding: 8bit",
            false => "message/delivery-status",
        };
        let _ = write!(
            text,
            "--{boundary}\nContent-Type: {status_kind}\n\n{status}\n--{boundary}\nContent-Type: {kind}\n\n"
        );
        let mut content = text.into_bytes();
        content.extend_from_slice(&returned);
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

    /// The part for people.
    fn explanation(&self) -> String {
        let mut text = format!(
            "This is the mail system at {}.\n\n{}\n",
            self.hostname,
            self.action.intro()
        );
        for recipient in self.recipients {
            let mut reason = match &recipient.remote {
                Some(host) if recipient.is_reply => format!("{host} said: {}", recipient.text),
                _ => recipient.text.clone(),
            };
            // The last reply alone would look like a reason to try again.
            if recipient.status == EXPIRED {
                reason.insert_str(0, "Given up after too many tries: ");
            }
            let _ = write!(text, "\n<{}>\n{}", recipient.address, folded(&reason));
        }
        let _ = write!(
            text,
            "\nThe message has the id {} in the log of {}.\n",
            self.message, self.hostname
        );
        text
    }

    /// The part for programs (RFC 3464 §2.2, §2.3), and true if it is not ASCII (RFC 6533 §4).
    fn status(&self) -> (bool, String) {
        let global = self.recipients.iter().any(ReportRecipient::is_global);
        // RFC 3461 §6.3: only a complete name is one of the DNS.
        let kind = match self.hostname.contains('.') {
            true => "dns",
            false => "x-local-hostname",
        };
        let mut text = format!("Reporting-MTA: {kind}; {}\n", self.hostname);
        if let Some(envid) = self.envid.and_then(xtext_decode) {
            let _ = writeln!(text, "Original-Envelope-Id: {envid}");
        }
        let _ = writeln!(text, "Arrival-Date: {}", self.arrived);
        for recipient in self.recipients {
            text.push('\n');
            self.recipient(&mut text, recipient);
        }
        if !global && !text.is_ascii() {
            text = text.replace(|c: char| !c.is_ascii(), "?");
        }
        (global, text)
    }

    /// The fields of one recipient (RFC 3464 §2.3).
    fn recipient(&self, text: &mut String, recipient: &ReportRecipient) {
        if let Some((kind, address)) = recipient.original() {
            let _ = writeln!(text, "Original-Recipient: {kind}; {address}");
        }
        let kind = if recipient.address.is_ascii() {
            "rfc822"
        } else {
            "utf-8"
        };
        let (action, status) = (self.action.name(), recipient.status);
        let _ = writeln!(
            text,
            "Final-Recipient: {kind}; {}\nAction: {action}\nStatus: {status}",
            recipient.address
        );
        if let Some(host) = &recipient.remote {
            // RFC 3464 §2.1.2: a domain, or an address in brackets.
            let (open, close) = match host.parse() {
                Ok(IpAddr::V4(_)) => ("[", "]"),
                Ok(IpAddr::V6(_)) => ("[IPv6:", "]"),
                Err(_) => ("", ""),
            };
            let _ = writeln!(text, "Remote-MTA: dns; {open}{host}{close}");
        }
        if recipient.is_reply {
            let words = folded(&recipient.text);
            let words = words.trim_start().replace("\n    ", "\n\t");
            let _ = write!(text, "Diagnostic-Code: smtp; {words}");
        }
        if let Some(until) = self.until {
            let _ = writeln!(text, "Will-Retry-Until: {until}");
        }
    }

    /// The message if it is wanted, short enough and text, else its header; and the type of that part.
    fn returned(&self) -> (&'static str, Vec<u8>) {
        let whole = self.full && self.start.len() <= MAX_RETURNED && is_text(self.start);
        let header = header_of(self.start);
        let utf8 = std::str::from_utf8(&header).is_ok();
        if !whole {
            let kind = match (header.is_ascii(), utf8) {
                (true, _) => "text/rfc822-headers",
                (_, true) => "message/global-headers\nContent-Transfer-Encoding: 8bit",
                (_, false) => {
                    "text/rfc822-headers; charset=unknown-8bit\nContent-Transfer-Encoding: 8bit"
                }
            };
            return (kind, header);
        }
        let content: Vec<u8> = lines(self.start).flat_map(with_lf).collect();
        let kind = match (content.is_ascii(), utf8 && !header.is_ascii()) {
            (true, _) => "message/rfc822",
            (_, true) => "message/global\nContent-Transfer-Encoding: 8bit",
            (_, false) => "message/rfc822\nContent-Transfer-Encoding: 8bit",
        };
        (kind, content)
    }
}

/// A report of [`Report::content`] in ASCII, for a server without 8BITMIME. Of a returned message in 8-bit text only the
/// header is left, because a message must not be encoded (RFC 2046 §5.2.1).
pub fn in_ascii(report: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(report);
    let boundary = text.split("boundary=\"").nth(1);
    let boundary = boundary.and_then(|rest| rest.split('"').next());
    let mark = format!("\n--{}", boundary.unwrap_or_default());
    let mut coded = Vec::with_capacity(report.len());
    let mut rest = report;
    while let Some(at) = find(rest, mark.as_bytes()) {
        let (part, after) = rest.split_at(at);
        let (mark, after) = after.split_at(mark.len());
        part_in_ascii(part, &mut coded);
        coded.extend_from_slice(mark);
        rest = after;
    }
    coded.extend_from_slice(rest);
    coded
}

/// Appends a part, from the end of its boundary to the next one.
fn part_in_ascii(part: &[u8], coded: &mut Vec<u8>) {
    let (fields, body) = match find(part, b"\n\n") {
        Some(at) if !part.is_ascii() => part.split_at(at + 2),
        _ => return coded.extend_from_slice(part),
    };
    let fields = String::from_utf8_lossy(fields);
    let header = fields.contains("message/rfc822").then(|| header_of(body));
    let fields = fields.replace("message/rfc822", "text/rfc822-headers");
    coded.extend_from_slice(fields.replace(": 8bit", ": quoted-printable").as_bytes());
    quoted_printable(header.as_deref().unwrap_or(body), coded);
}

/// Appends lines of at most 76 characters (RFC 2045 §6.7).
fn quoted_printable(text: &[u8], coded: &mut Vec<u8>) {
    let mut length = 0;
    for (at, &octet) in text.iter().enumerate() {
        let last = matches!(text.get(at + 1), None | Some(b'\n'));
        if octet == b'\n' {
            length = 0;
        } else if length > 72 {
            coded.extend_from_slice(b"=\n");
            length = 0;
        }
        match octet {
            b'\n' => coded.push(octet),
            b'!'..=b'<' | b'>'..=b'~' | b' ' if octet != b' ' || !last => {
                coded.push(octet);
                length += 1;
            }
            _ => {
                coded.extend_from_slice(format!("={octet:02X}").as_bytes());
                length += 3;
            }
        }
    }
}

/// Wraps text to 72 characters if possible, indented by four blanks.
fn folded(text: &str) -> String {
    let mut lines = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        // No line exceeds the limit of a message, whatever a server sent.
        let word = word.chars().take(200).filter(|c| !c.is_control());
        let word: String = word.collect();
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

/// The lines of a message without their ends, CRLF or LF.
fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content
        .split_inclusive(|&octet| octet == b'\n')
        .map(|line| {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            line.strip_suffix(b"\r").unwrap_or(line)
        })
}

fn with_lf(line: &[u8]) -> impl Iterator<Item = u8> {
    line.iter().copied().chain([b'\n'])
}

/// True if a message can be included as text; RFC 2045 §2.8 calls everything else binary.
fn is_text(content: &[u8]) -> bool {
    lines(content).all(|line| line.len() <= MAX_LINE && !line.iter().any(|o| b"\r\0".contains(o)))
}

/// The header section of a message, with lines fit for a report, up to `MAX_RETURNED`.
fn header_of(content: &[u8]) -> Vec<u8> {
    let content = content.get(..MAX_RETURNED).unwrap_or(content);
    let mut header = Vec::new();
    for line in lines(content) {
        let continued = line.starts_with(b" ") || line.starts_with(b"\t");
        if !(is_field(line) || continued && !header.is_empty()) {
            break;
        }
        let plain = |o: u8| if b"\r\0".contains(&o) { b'?' } else { o };
        header.extend(line.iter().take(MAX_LINE).map(|&o| plain(o)));
        header.push(b'\n');
    }
    header
}

/// A field's name and its colon (RFC 5322 §3.6.8).
fn is_field(line: &[u8]) -> bool {
    let name = line.split(|&octet| octet == b':').next();
    let name = name.filter(|name| name.len() < line.len());
    let name = name.map(<[u8]>::trim_ascii_end).unwrap_or_default();
    !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests;

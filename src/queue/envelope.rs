//! The envelope file: lines of a name and a value, so that `cat` shows sender, recipients and the last reply.
//!
//! ```text
//! mailslot-envelope 1
//! from alice@example.org
//! created 1795607380
//! content lines
//! to 1795607400 2 bob@example.net
//! last 451 4.3.0 try later
//! ```
//!
//! `content lines` means that the content file has LF line ends, `octets` that it is unchanged, and `octets from N`
//! that it is unchanged from octet N on, because it has a bare CR or LF. `to` has the time of the next try, the number
//! of tries, and the address; the lines after it belong to that recipient.

use std::fmt::Write as _;

const FIRST: &str = "mailslot-envelope 1";
/// Maximum characters kept of a last reply.
const MAX_LAST: usize = 1_000;

/// A recipient that is still waiting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuedRecipient {
    /// The address.
    pub address: String,
    /// The time of the next try, in seconds since 1970.
    pub next: u64,
    /// Tries so far.
    pub tries: u32,
    /// The value of NOTIFY (RFC 3461).
    pub notify: Option<String>,
    /// The value of ORCPT.
    pub orcpt: Option<String>,
    /// The last result: status and text.
    pub last: Option<String>,
    /// True once its delay notice was sent.
    pub delayed: bool,
}

/// A message's envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The reverse-path, empty for `<>`.
    pub from: String,
    /// When it was received, in seconds since 1970.
    pub created: u64,
    /// The octet from which the content is stored unchanged; before it lines end in LF.
    pub exact_from: Option<u64>,
    /// True if the client asked for SMTPUTF8.
    pub smtputf8: bool,
    /// True if it may only be sent over verified TLS (RFC 8689).
    pub requiretls: bool,
    /// The value of RET.
    pub ret: Option<String>,
    /// The value of ENVID.
    pub envid: Option<String>,
    /// True for a report of this host, which may be encoded for a hop without 8BITMIME.
    pub report: bool,
    /// The recipients that are still waiting.
    pub recipients: Vec<QueuedRecipient>,
}

impl Envelope {
    /// The text of the file.
    pub fn to_text(&self) -> String {
        let mut text = format!("{FIRST}\nfrom {}\ncreated {}\n", self.from, self.created);
        let _ = match self.exact_from {
            None => writeln!(text, "content lines"),
            Some(0) => writeln!(text, "content octets"),
            Some(from) => writeln!(text, "content octets from {from}"),
        };
        for (name, set) in self.flags() {
            if set {
                let _ = writeln!(text, "{name} yes");
            }
        }
        value(&mut text, "ret", self.ret.as_deref());
        value(&mut text, "envid", self.envid.as_deref());
        for to in &self.recipients {
            let _ = writeln!(text, "to {} {} {}", to.next, to.tries, to.address);
            value(&mut text, "notify", to.notify.as_deref());
            value(&mut text, "orcpt", to.orcpt.as_deref());
            let last = to.last.as_deref().map(start);
            value(&mut text, "last", last.as_deref());
            value(&mut text, "delayed", to.delayed.then_some("yes"));
        }
        text
    }

    const fn flags(&self) -> [(&'static str, bool); 3] {
        [
            ("smtputf8", self.smtputf8),
            ("requiretls", self.requiretls),
            ("report", self.report),
        ]
    }

    /// Parses the text of the file.
    ///
    /// # Errors
    /// The line, counted from 1, that cannot be read.
    pub fn parse(text: &str) -> Result<Self, usize> {
        let mut envelope = Self::default();
        let mut lines = text.lines().enumerate();
        if lines.next().map(|(_, line)| line) != Some(FIRST) || !text.ends_with('\n') {
            return Err(1);
        }
        for (number, line) in lines {
            // They are never written, so a line with one is damage.
            let clean = Some(line).filter(|line| !line.contains(char::is_control));
            let (name, value) = clean
                .and_then(|line| line.split_once(' '))
                .ok_or(number + 1)?;
            envelope.line(name, value).ok_or(number + 1)?;
        }
        if envelope.created == 0 || envelope.recipients.is_empty() {
            return Err(text.lines().count());
        }
        Ok(envelope)
    }

    fn line(&mut self, name: &str, value: &str) -> Option<()> {
        let owned = || Some(value.to_owned());
        match (name, self.recipients.last_mut()) {
            ("from", _) => self.from = value.to_owned(),
            ("created", _) => self.created = value.parse().ok()?,
            ("content", _) => {
                self.exact_from = match value {
                    "octets" => Some(0),
                    "lines" => None,
                    _ => Some(value.strip_prefix("octets from ")?.parse().ok()?),
                }
            }
            ("smtputf8", _) => self.smtputf8 = value == "yes",
            ("requiretls", _) => self.requiretls = value == "yes",
            ("report", _) => self.report = value == "yes",
            ("ret", _) => self.ret = owned(),
            ("envid", _) => self.envid = owned(),
            ("to", _) => {
                let mut words = value.splitn(3, ' ');
                let (next, tries) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                let address = words
                    .next()
                    .filter(|address| !address.is_empty())?
                    .to_owned();
                self.recipients.push(QueuedRecipient {
                    address,
                    next,
                    tries,
                    ..QueuedRecipient::default()
                });
            }
            ("notify", Some(to)) => to.notify = owned(),
            ("orcpt", Some(to)) => to.orcpt = owned(),
            ("last", Some(to)) => to.last = Some(start(value)),
            ("delayed", Some(to)) => to.delayed = value == "yes",
            // An earlier version had it for all of them.
            ("delayed", None) => {}
            _ => return None,
        }
        Some(())
    }
}

/// A last reply, cut to [`MAX_LAST`].
fn start(last: &str) -> String {
    last.chars().take(MAX_LAST).collect()
}

/// Appends one line; control characters in the value become blanks.
fn value(text: &mut String, name: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    let shown = value.replace(char::is_control, " ");
    let _ = writeln!(text, "{name} {shown}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            from: "a@b".into(),
            created: 7,
            exact_from: Some(0),
            smtputf8: true,
            requiretls: true,
            ret: Some("HDRS".into()),
            envid: Some("x+2Dy".into()),
            report: true,
            recipients: vec![
                QueuedRecipient {
                    address: "\"a b\"@c".into(),
                    next: 9,
                    tries: 3,
                    notify: Some("NEVER".into()),
                    orcpt: Some("rfc822;x".into()),
                    last: Some("450 4.2.0 later".into()),
                    delayed: true,
                },
                QueuedRecipient {
                    address: "j\u{e9}@d".into(),
                    next: 8,
                    ..QueuedRecipient::default()
                },
            ],
        }
    }

    #[test]
    fn written_envelopes_are_read() {
        let full = envelope();
        assert_eq!(Envelope::parse(&full.to_text()).as_ref(), Ok(&full));
        let least = Envelope {
            created: 1,
            recipients: vec![QueuedRecipient {
                address: "x".into(),
                ..QueuedRecipient::default()
            }],
            ..Envelope::default()
        };
        assert_eq!(Envelope::parse(&least.to_text()), Ok(least));
        let mixed = Envelope {
            exact_from: Some(1_234),
            ..full.clone()
        };
        assert_eq!(Envelope::parse(&mixed.to_text()), Ok(mixed));
        // All other values are limited where they come from.
        let long = || Some("x".repeat(1_500));
        let mut wordy = full;
        wordy.envid = long();
        wordy
            .recipients
            .iter_mut()
            .for_each(|to| (to.orcpt, to.last) = (long(), long()));
        let read = Envelope::parse(&wordy.to_text());
        wordy
            .recipients
            .iter_mut()
            .for_each(|to| to.last = Some("x".repeat(MAX_LAST)));
        assert_eq!(read, Ok(wordy));
        // A reply is written as one line.
        let mut evil = envelope();
        if let Some(to) = evil.recipients.first_mut() {
            to.last = Some("450 x\nto 1 1 evil@x\r".into());
        }
        let read = Envelope::parse(&evil.to_text());
        assert_eq!(read.map(|read| read.recipients.len()), Ok(2));
    }

    #[test]
    fn damaged_files_are_refused() {
        let text = envelope().to_text();
        for cut in 0..text.len() {
            if let Some(head) = text.get(..cut) {
                // A file truncated after a recipient still parses; truncated elsewhere it does not.
                let whole = head.ends_with('\n') && head.contains("\nto ");
                assert_eq!(Envelope::parse(head).is_ok(), whole, "{head}");
            }
        }
        for (from, to) in [
            ("content octets", "content what"),
            ("to 9 3", "to x 3"),
            ("created 7", "created 0"),
            ("envelope 1", "envelope 2"),
            ("from", "what"),
            ("from ", "from \u{1}"),
        ] {
            assert!(
                Envelope::parse(&text.replacen(from, to, 1)).is_err(),
                "{to}"
            );
        }
    }
}

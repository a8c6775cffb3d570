//! The message on standard input: required header fields that are missing are added. The rest stays as it is.

use super::addresses::addresses;

/// A message with LF line ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InputMessage {
    /// Fields with their continuation lines and line ends.
    fields: Vec<Vec<u8>>,
    /// Everything after the empty line that ends the header.
    body: Vec<u8>,
}

impl InputMessage {
    /// Parses the input. A lone dot ends it, unless dots are ignored; lines may end in LF or CRLF; mbox lines before
    /// the header are dropped.
    pub(super) fn parse(input: &[u8], ignore_dots: bool) -> Self {
        let mut lines = input.split_inclusive(|&octet| octet == b'\n').map(unix);
        let mut lines = lines
            .by_ref()
            .take_while(|line| ignore_dots || line.strip_suffix(b"\n").unwrap_or(line) != b".")
            .peekable();
        while lines.next_if(|line| is_mbox(line)).is_some() {}
        let mut fields: Vec<Vec<u8>> = Vec::new();
        while let Some(line) = lines.next_if(|line| is_header(line, !fields.is_empty())) {
            match fields.last_mut() {
                Some(last) if line.starts_with(b" ") || line.starts_with(b"\t") => {
                    last.extend_from_slice(&line);
                }
                _ => fields.push(line),
            }
        }
        lines.next_if(|line| line == b"\n");
        if let Some(last) = fields.last_mut().filter(|last| !last.ends_with(b"\n")) {
            last.push(b'\n');
        }
        // They are not collected first, because each line is a vector.
        let mut body = Vec::new();
        lines.for_each(|line| body.extend_from_slice(&line));
        Self { fields, body }
    }

    /// True if there is a field of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter_map(move |field| {
            let (known, value) = split(field)?;
            known.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
        })
    }

    /// The addresses that `-t` sends to: of To, Cc and Bcc, or of their Resent- forms if there are any. Bcc is removed.
    pub(super) fn take_recipients(&mut self) -> Vec<String> {
        let resent = ["Resent-To", "Resent-Cc", "Resent-Bcc"];
        let names = if resent.iter().any(|name| self.has(name)) {
            resent
        } else {
            ["To", "Cc", "Bcc"]
        };
        let values = names.iter().flat_map(|name| self.values(name));
        // Unfolded (RFC 5322 §2.2.3): a quoted local part may be folded, too.
        let text = |value| String::from_utf8_lossy(value).replace('\n', "");
        let found = values.flat_map(|value| addresses(&text(value)));
        let found = found.collect();
        self.fields.retain(|field| {
            let name = split(field).map_or(&b""[..], |(name, _)| name);
            !name.eq_ignore_ascii_case(b"Bcc") && !name.eq_ignore_ascii_case(b"Resent-Bcc")
        });
        found
    }

    /// Adds a field, unless there is one of that name.
    pub(super) fn add_missing(&mut self, name: &str, value: &str) {
        if !self.has(name) {
            self.fields.push(format!("{name}: {value}\n").into_bytes());
        }
    }

    /// The whole message, with LF line ends.
    pub(super) fn content(&self) -> Vec<u8> {
        let mut content = self.fields.concat();
        content.push(b'\n');
        content.extend_from_slice(&self.body);
        content
    }
}

/// The `From ` line of an mbox file, quoted or not.
fn is_mbox(line: &[u8]) -> bool {
    let quotes = line.iter().take_while(|&&octet| octet == b'>').count();
    line.get(quotes..)
        .is_some_and(|rest| rest.starts_with(b"From "))
}

/// A line that ends in LF instead of CRLF.
fn unix(line: &[u8]) -> Vec<u8> {
    match line.strip_suffix(b"\r\n") {
        Some(text) => [text, b"\n"].concat(),
        None => line.to_vec(),
    }
}

/// A field's first line, or the continuation of the one before.
fn is_header(line: &[u8], after_field: bool) -> bool {
    let blank = line.starts_with(b" ") || line.starts_with(b"\t");
    if blank {
        return after_field;
    }
    split(line).is_some()
}

/// Name and value (RFC 5322 §2.2, and §4.5 for blanks before the colon).
fn split(field: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = field.iter().position(|&octet| octet == b':')?;
    let (name, value) = field.split_at_checked(colon)?;
    let name = name.trim_ascii_end();
    let good = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    good.then_some((name, value.strip_prefix(b":").unwrap_or(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> InputMessage {
        InputMessage::parse(text.as_bytes(), true)
    }

    fn content(message: &InputMessage) -> String {
        String::from_utf8_lossy(&message.content()).into_owned()
    }

    #[test]
    fn messages_pass_as_they_are() {
        for (text, expected) in [
            ("Subject: x\n\nbody\n", "Subject: x\n\nbody\n"),
            (
                "Subject: x\r\n y\r\n\r\nbody\r\n.\r\n",
                "Subject: x\n y\n\nbody\n.\n",
            ),
            (
                "From root Thu Jan  1\nSubject: x\n\nFrom y\n",
                "Subject: x\n\nFrom y\n",
            ),
            (
                "From a Thu\n>From b Thu\nSubject: x\n\n>From y\n",
                "Subject: x\n\n>From y\n",
            ),
            // Without a header everything is body, even if it begins like a continuation line.
            ("hello\n", "\nhello\n"),
            (" hello: x\n", "\n hello: x\n"),
            ("\nhello\n", "\nhello\n"),
            ("Subject: x\nhello\n", "Subject: x\n\nhello\n"),
            ("Subject: x", "Subject: x\n\n"),
            ("", "\n"),
            ("A: b\n\n\n\nc", "A: b\n\n\n\nc"),
        ] {
            assert_eq!(content(&parse(text)), expected, "{text:?}");
        }
    }

    #[test]
    fn a_lone_dot_ends_where_dots_count() {
        let text = b"A: b\n\none\n.\ntwo\n";
        let cut = InputMessage::parse(text, false);
        assert_eq!(content(&cut), "A: b\n\none\n");
        assert_eq!(
            content(&InputMessage::parse(text, true)),
            "A: b\n\none\n.\ntwo\n"
        );
        assert_eq!(
            content(&InputMessage::parse(b"A: b\r\n\r\n.\r\nx", false)),
            "A: b\n\n"
        );
    }

    #[test]
    fn recipients_of_the_header() {
        let text =
            "To: a@b,\n \"c\n d\"@d\nSubject: x\nbCC : e@f\nCc: G <g@h>\nTo: i\n\nBcc: no@x\n";
        let mut message = parse(text);
        assert_eq!(
            message.take_recipients(),
            ["a@b", "\"c d\"@d", "i", "g@h", "e@f"]
        );
        assert!(!message.has("Bcc") && message.has("cc"));
        assert!(content(&message).ends_with("\n\nBcc: no@x\n"));
        let mut message = parse("To: a@b\nResent-To: c@d\nResent-Bcc: e@f\n\n");
        assert_eq!(message.take_recipients(), ["c@d", "e@f"]);
        assert!(!message.has("Resent-Bcc"));
    }

    #[test]
    fn missing_fields_are_added_and_others_are_not() {
        let mut message = parse("date: then\n\nx");
        message.add_missing("Date", "now");
        message.add_missing("From", "a@b");
        assert_eq!(content(&message), "date: then\nFrom: a@b\n\nx");
    }
}

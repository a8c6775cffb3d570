//! Trace header fields: those written above a message (RFC 5321 §4.4), and the filter that
//! takes the client's own Return-Path away and counts Received.

use super::Target;
use std::fmt::Write as _;

/// What the Received field tells of the way a message came.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Between the brackets of Return-Path.
    pub reverse_path: String,
    /// What the client called itself.
    pub helo: String,
    /// Its address: `[192.0.2.1]` or `unix`.
    pub peer: String,
    /// This host.
    pub hostname: String,
    /// SMTP, ESMTP, UTF8SMTP (RFC 3848, RFC 6531 §4.3).
    pub protocol: &'static str,
    /// The forward-path where there is one only: several would show who was in Bcc (R047).
    pub recipient: Option<String>,
}

impl Trace {
    /// The fields, lines ending in LF.
    pub fn render(&self, id: &str, targets: &[Target]) -> String {
        let mut text = String::with_capacity(512);
        let _ = writeln!(text, "Return-Path: <{}>", self.reverse_path);
        if let [only] = targets {
            let _ = writeln!(text, "Delivered-To: {}", only.address);
        }
        let _ = writeln!(text, "Received: from {} ({})", self.helo, self.peer);
        let _ = write!(
            text,
            "\tby {} (mailslot) with {} id {id}",
            self.hostname, self.protocol
        );
        if let Some(recipient) = &self.recipient {
            let _ = write!(text, "\n\tfor <{recipient}>");
        }
        let date = jiff::Zoned::now().strftime("%a, %d %b %Y %H:%M:%S %z");
        let _ = writeln!(text, ";\n\t{date}");
        text
    }
}

/// Longest field name that matters here, its colon included.
const LONGEST: usize = "return-path:".len();

/// A streaming look at the header block; it keeps at most a field name.
#[derive(Debug, Default)]
pub struct HeaderFilter {
    place: Place,
    start: Vec<u8>,
    received: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// At the start of a header line, its name not known yet. `true`: the field above is
    /// being dropped, and a folded line goes with it.
    Name(bool),
    /// Within a line that is kept.
    Keep,
    /// Within a line that is dropped.
    Drop,
    /// Behind the header block.
    Body,
    #[default]
    Start,
}

impl HeaderFilter {
    /// Received fields seen.
    pub const fn received(&self) -> u32 {
        self.received
    }

    /// Takes content and appends what stays of it.
    pub fn feed(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        let mut rest = octets;
        while !rest.is_empty() {
            if self.place == Place::Body {
                out.extend_from_slice(rest);
                return;
            }
            rest = self.step(rest, out);
        }
    }

    /// The message ended: what was held back as a possible field name is content.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.start);
    }

    fn step<'a>(&mut self, rest: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        match self.place {
            Place::Start | Place::Name(_) => self.name(rest, out),
            Place::Keep | Place::Drop | Place::Body => {
                let end = rest
                    .iter()
                    .position(|&o| o == b'\n')
                    .map_or(rest.len(), |at| at + 1);
                let (line, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
                let dropped = self.place == Place::Drop;
                if !dropped {
                    out.extend_from_slice(line);
                }
                if line.ends_with(b"\n") {
                    self.place = Place::Name(dropped);
                }
                after
            }
        }
    }

    /// Takes one octet of a line's start.
    fn name<'a>(&mut self, rest: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let Some((&octet, after)) = rest.split_first() else {
            return rest;
        };
        let dropping = self.place == Place::Name(true);
        if self.start.is_empty() && matches!(octet, b' ' | b'\t') {
            self.place = if dropping { Place::Drop } else { Place::Keep };
            return rest;
        }
        self.start.push(octet);
        match octet {
            b'\n' => {
                // An empty line ends the header block; so does a line without a colon.
                out.append(&mut self.start);
                self.place = Place::Body;
            }
            b':' => {
                if self.start.eq_ignore_ascii_case(b"return-path:") {
                    self.start.clear();
                    self.place = Place::Drop;
                } else {
                    self.received += u32::from(self.start.eq_ignore_ascii_case(b"received:"));
                    out.append(&mut self.start);
                    self.place = Place::Keep;
                }
            }
            _ if self.start.len() >= LONGEST => {
                out.append(&mut self.start);
                self.place = Place::Keep;
            }
            _ => {}
        }
        after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(text: &str, step: usize) -> (String, u32) {
        let (mut filter, mut out) = (HeaderFilter::default(), Vec::new());
        for piece in text.as_bytes().chunks(step) {
            filter.feed(piece, &mut out);
        }
        filter.finish(&mut out);
        (
            String::from_utf8_lossy(&out).into_owned(),
            filter.received(),
        )
    }

    /// R048, R049: one Return-Path, folded lines and any case; Received stays and is counted.
    #[test]
    fn filters_the_header_block_only() {
        let text = "Received: a\nRETURN-path: <x>\n\tfolded\nSubject: s\n f\nreceived: b\n\nReturn-Path: body\nReceived: c\n";
        let kept = text.replacen("RETURN-path: <x>\n\tfolded\n", "", 1);
        for step in 1..text.len() {
            assert_eq!(filtered(text, step), (kept.clone(), 2), "{step}");
        }
        assert_eq!(filtered("", 1).0, "");
        assert_eq!(filtered("Retur", 1).0, "Retur");
    }
}

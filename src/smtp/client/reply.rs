//! Replies as a client reads them (RFC 5321 §4.2): lines become replies, within bounds that no server can exceed.

use super::status::Status;

/// Maximum octets of a reply.
const MAX_REPLY: usize = 256 * 1024;
/// Maximum octets kept of a reply line. RFC 5321 §4.5.3.1.5 allows 512; some servers send more.
const MAX_LINE: usize = 2_048;
/// Maximum lines kept of a reply; that of EHLO rarely has more than 20.
const MAX_LINES: usize = 128;
/// Octets of a reply's text after which no more of it is kept.
const MAX_TEXT: usize = 16 * 1024;
/// Maximum characters of a reply in the log and in reports, where each recipient may have its own.
const MAX_SHOWN: usize = 1_000;

/// A server's reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteReply {
    code: u16,
    lines: Vec<String>,
}

impl RemoteReply {
    /// The three digits, 200 to 559.
    pub const fn code(&self) -> u16 {
        self.code
    }

    /// The text of each line, without the code; control characters are replaced.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The enhanced status code (RFC 3463) at the start of the text, or `X.0.0` with the code's class.
    pub fn status(&self) -> Status {
        let class = self.code / 100;
        let word = self.lines.first().and_then(|line| line.split(' ').next());
        let parsed = word.and_then(|word| word.parse::<Status>().ok());
        parsed
            .filter(|status| status.class == class)
            .unwrap_or_else(|| Status::new(class, 0, 0))
    }

    /// True if the reply has an enhanced status code of its own.
    pub fn has_status(&self) -> bool {
        let word = self.lines.first().and_then(|line| line.split(' ').next());
        word.is_some_and(|word| word.parse::<Status>().is_ok())
    }

    /// Code and text in one line, cut where it is too long, for the log and for reports.
    pub fn text(&self) -> String {
        let text = format!("{} {}", self.code, self.lines.join(" "));
        text.trim_end().chars().take(MAX_SHOWN).collect()
    }
}

/// Why the input is not SMTP.
type Malformed = &'static str;

/// The splitter: octets in, complete replies out. Its memory is bounded by the limits above. A long reply is cut, so
/// that a refusal in many words is still one.
#[derive(Debug, Default)]
pub struct Replies {
    buffer: Vec<u8>,
    code: Option<u16>,
    lines: Vec<String>,
    kept: usize,
    /// Octets of the reply so far.
    length: usize,
}

impl Replies {
    /// No input yet.
    pub const fn new() -> Self {
        Self {
            buffer: Vec::new(),
            code: None,
            lines: Vec::new(),
            kept: 0,
            length: 0,
        }
    }

    /// True if part of a reply, or a reply that was not taken, is buffered.
    pub const fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.code.is_none()
    }

    /// Removes the octets of one reply from the front of `input`, and returns the reply once it is complete.
    ///
    /// # Errors
    /// A reply that does not end, or a line that is not of the form `nnn text` or `nnn-text`.
    pub fn take(&mut self, input: &mut &[u8]) -> Result<Option<RemoteReply>, Malformed> {
        while let Some(end) = input.iter().position(|&octet| octet == b'\n') {
            let (line, rest) = input.split_at_checked(end + 1).unwrap_or((input, &[]));
            self.push(line)?;
            *input = rest;
            let line = std::mem::take(&mut self.buffer);
            if let Some(reply) = self.line(&line)? {
                return Ok(Some(reply));
            }
        }
        self.push(input)?;
        *input = &[];
        Ok(None)
    }

    fn push(&mut self, octets: &[u8]) -> Result<(), Malformed> {
        self.length = self.length.saturating_add(octets.len());
        if self.length > MAX_REPLY {
            return Err("reply too long");
        }
        let room = MAX_LINE.saturating_sub(self.buffer.len());
        self.buffer
            .extend_from_slice(octets.get(..room).unwrap_or(octets));
        Ok(())
    }

    /// One line with its end; some servers end it in a bare LF.
    fn line(&mut self, line: &[u8]) -> Result<Option<RemoteReply>, Malformed> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (code, last, text) = split(line).ok_or("not an SMTP reply")?;
        if self.code.is_some_and(|known| known != code) {
            return Err("different codes in one reply");
        }
        if self.lines.len() < MAX_LINES && self.kept < MAX_TEXT {
            self.kept = self.kept.saturating_add(text.len());
            self.lines.push(printable(text));
        }
        self.code = Some(code);
        if !last {
            return Ok(None);
        }
        let lines = std::mem::take(&mut self.lines);
        (self.code, self.kept, self.length) = (None, 0, 0);
        Ok(Some(RemoteReply { code, lines }))
    }
}

/// Code, true if the reply ends here, and text: `Reply-code [ SP textstring ]` (RFC 5321 §4.2).
fn split(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    let [b'2'..=b'5', b'0'..=b'5', b'0'..=b'9'] = digits else {
        return None;
    };
    let code = digits
        .iter()
        .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match rest.split_first() {
        None => Some((code, true, rest)),
        Some((b' ', text)) => Some((code, true, text)),
        Some((b'-', text)) => Some((code, false, text)),
        Some(_) => None,
    }
}

/// Text that is safe in a log line or a report.
fn printable(text: &[u8]) -> String {
    let shown = |c: char| if c.is_control() { '?' } else { c };
    String::from_utf8_lossy(text).chars().map(shown).collect()
}

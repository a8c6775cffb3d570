//! Content on its way out: line ends become CRLF and dots at the start of a line are doubled for DATA (RFC 5321
//! §4.5.2); for BDAT only line ends are changed (RFC 3030 §2). The content is otherwise untouched.

/// The encoder of one message, fed in pieces of any size.
#[derive(Debug)]
pub(super) struct Encoder {
    /// True for DATA, where dots are doubled and a lone dot ends the content; false for BDAT.
    dots: bool,
    /// The octet from which line ends are stored unchanged; before it they are LF.
    exact_from: Option<u64>,
    /// Octets fed so far.
    at: u64,
    line_start: bool,
    after_cr: bool,
    /// Octets of content sent, doubled dots not counted.
    sent: u64,
}

impl Encoder {
    pub(super) const fn new(dots: bool, exact_from: Option<u64>) -> Self {
        Self {
            dots,
            exact_from,
            at: 0,
            line_start: true,
            after_cr: false,
            sent: 0,
        }
    }

    /// Appends the next piece to `out`.
    pub(super) fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let left = self.exact_from.map(|from| from.saturating_sub(self.at));
        let left = left.map_or(piece.len(), |left| {
            usize::try_from(left).unwrap_or(usize::MAX)
        });
        let (head, exact) = piece.split_at(left.min(piece.len()));
        self.at += piece.len() as u64;
        self.encode(head, true, out);
        self.encode(exact, false, out);
    }

    /// Appends octets whose line ends are stored as LF, or as they are.
    fn encode(&mut self, piece: &[u8], lf: bool, out: &mut Vec<u8>) {
        for line in piece.split_inclusive(|&octet| octet == b'\n') {
            if self.dots && self.line_start && line.first() == Some(&b'.') {
                out.push(b'.');
            }
            let text = line.strip_suffix(b"\n");
            out.extend_from_slice(text.unwrap_or(line));
            self.sent += text.unwrap_or(line).len() as u64;
            let ended_in_cr = match text {
                Some([]) => self.after_cr,
                Some(text) => text.ends_with(b"\r"),
                None => false,
            };
            self.after_cr = text.is_none() && line.ends_with(b"\r");
            if text.is_some() {
                let end: &[u8] = if lf { b"\r\n" } else { b"\n" };
                out.extend_from_slice(end);
                self.sent += end.len() as u64;
            }
            self.line_start = text.is_some() && (lf || ended_in_cr);
        }
    }

    /// Ends the content: with a lone dot for DATA, with nothing for BDAT.
    pub(super) fn finish(&self, out: &mut Vec<u8>) {
        if self.dots {
            let end: &[u8] = if self.line_start {
                b".\r\n"
            } else {
                b"\r\n.\r\n"
            };
            out.extend_from_slice(end);
        }
    }

    /// Octets of content sent, doubled dots not counted.
    pub(super) const fn sent(&self) -> u64 {
        self.sent
    }
}

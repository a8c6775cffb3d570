//! Decoders of a message: [`Dots`] after DATA, [`Chunks`] for BDAT.
//!
//! These are push decoders: the caller feeds them what it read, and they append the content, with lines ending in LF,
//! to a buffer. They only find the end of the data; limits, trace headers and files are handled elsewhere. The end is
//! `CRLF . CRLF`, or `. CRLF` directly after the 354, and no other sequence, for any client (RFC 5321 §2.3.8,
//! §4.1.1.4).

/// What to do with a CR or LF that is not part of a CRLF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareNewline {
    /// Read on to the real end, then refuse the message.
    Reject,
    /// Treat it as a line end of the content, never as the end of the message.
    Normalize,
}

/// The result of [`Dots::feed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// All input was consumed and the message continues.
    More,
    /// The message ended; `used` octets of the input belong to it.
    End {
        /// Octets consumed, the terminator included.
        used: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// After a CRLF, or at the very start: a dot here is dot-stuffing or the end.
    LineStart,
    /// After a dot at the start of a line.
    Dot,
    /// After a dot and a CR at the start of a line.
    DotCr,
    /// Within a line.
    Text,
    /// After a CR within a line.
    Cr,
}

/// The end-of-data and dot-stuffing decoder (RFC 5321 §4.5.2).
#[derive(Debug)]
pub struct Dots {
    state: State,
    policy: BareNewline,
    bare: bool,
    size: u64,
}

impl Dots {
    /// A decoder for one message. It starts as if after a CRLF, so a dot directly after the 354 needs no special case.
    pub const fn new(policy: BareNewline) -> Self {
        Self {
            state: State::LineStart,
            policy,
            bare: false,
            size: 0,
        }
    }

    /// Decodes `input` and appends the content to `out`.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Decoded {
        out.reserve(input.len());
        let mut rest = input;
        while let Some((&octet, tail)) = rest.split_first() {
            // The fast path for nearly every octet: a run up to the end of its line, and that line end.
            if self.state == State::Text || self.state == State::LineStart && octet != b'.' {
                let (text, after) = rest.split_at(plain_run(rest));
                out.extend_from_slice(text);
                self.size += text.len() as u64;
                if let Some(next) = after.strip_prefix(b"\r\n") {
                    out.push(b'\n');
                    self.size += 2;
                    self.state = State::LineStart;
                    rest = next;
                    continue;
                }
                if !text.is_empty() {
                    self.state = State::Text;
                    rest = after;
                    continue;
                }
            }
            rest = tail;
            if self.octet(octet, out) {
                return Decoded::End {
                    used: input.len() - rest.len(),
                };
            }
        }
        Decoded::More
    }

    /// True once a bare CR or LF was seen; [`BareNewline::Reject`] then refuses the message.
    pub const fn bare_newline(&self) -> bool {
        self.bare
    }

    /// Octets of content so far, stuffed dots not counted, CRLF counted as two (RFC 1870 §5).
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Handles an octet that may be special; true at the end of the message.
    fn octet(&mut self, octet: u8, out: &mut Vec<u8>) -> bool {
        self.state = match (self.state, octet) {
            (State::LineStart, b'.') => State::Dot,
            (State::Dot, b'\r') => State::DotCr,
            (State::DotCr, b'\n') => return true,
            (State::DotCr, _) => {
                // The dot was stuffed; the CR after it does not start a line end.
                self.bare(b'\r', out);
                self.text(octet, out)
            }
            (State::Cr, b'\n') => {
                out.push(b'\n');
                self.size += 2;
                State::LineStart
            }
            (State::Cr, _) => {
                self.bare(b'\r', out);
                self.text(octet, out)
            }
            (State::LineStart | State::Dot | State::Text, _) => self.text(octet, out),
        };
        false
    }

    /// Appends an octet of content and returns the state after it.
    fn text(&mut self, octet: u8, out: &mut Vec<u8>) -> State {
        match octet {
            b'\r' => return State::Cr,
            b'\n' => self.bare(b'\n', out),
            _ => {
                out.push(octet);
                self.size += 1;
            }
        }
        State::Text
    }

    /// Handles a bare CR or LF. It never leads to [`State::LineStart`], which is what prevents SMTP smuggling.
    fn bare(&mut self, octet: u8, out: &mut Vec<u8>) {
        self.bare = true;
        self.size += 1;
        out.push(match self.policy {
            BareNewline::Reject => octet,
            BareNewline::Normalize => b'\n',
        });
    }
}

/// How line ends are stored when a message arrives in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnds {
    /// CRLF becomes LF; a bare CR or LF stays.
    Lf,
    /// The same up to the first bare CR or LF, so that a relay can still tell them apart.
    LfUntilBare,
    /// Every octet is kept as it is.
    Kept,
}

/// The decoder of a message that arrives in chunks (RFC 3030 §2): the size frames it, so a CR or LF has no special
/// meaning. On disk CRLF becomes LF, unless the message is BINARYMIME.
#[derive(Debug)]
pub struct Chunks {
    ends: LineEnds,
    /// A CR was held back at the end of the input: it may be half of a CRLF.
    cr: bool,
    size: u64,
}

impl Chunks {
    /// A decoder for one message.
    pub const fn new(ends: LineEnds) -> Self {
        Self {
            ends,
            cr: false,
            size: 0,
        }
    }

    /// Decodes part of a chunk and appends the content to `out`. Returns how many octets were used: fewer than given if
    /// `LfUntilBare` met a bare CR or LF.
    pub fn feed(&mut self, octets: &[u8], out: &mut Vec<u8>) -> usize {
        let plain = match self.ends {
            LineEnds::LfUntilBare => self.before_bare(octets),
            LineEnds::Lf | LineEnds::Kept => octets.len(),
        };
        let octets = octets.get(..plain).unwrap_or(octets);
        self.size += octets.len() as u64;
        match self.ends {
            LineEnds::Kept => out.extend_from_slice(octets),
            LineEnds::Lf | LineEnds::LfUntilBare => self.decode(octets, out),
        }
        octets.len()
    }

    /// Keeps every octet from now on, starting with a CR that was held back.
    pub fn keep(&mut self, out: &mut Vec<u8>) {
        self.ends = LineEnds::Kept;
        self.finish(out);
    }

    /// Counts the octets before the first bare CR or LF. A CR at the very end is not known to be bare yet.
    fn before_bare(&self, octets: &[u8]) -> usize {
        let mut rest = match octets {
            [b'\n', rest @ ..] if self.cr => rest,
            [_, ..] if self.cr => return 0,
            _ => octets,
        };
        loop {
            let plain = plain_run(rest);
            match rest.split_at_checked(plain) {
                Some((_, [b'\r', b'\n', after @ ..])) => rest = after,
                Some((_, [b'\r'])) => return octets.len(),
                _ => return octets.len() - rest.len() + plain,
            }
        }
    }

    fn decode(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        out.reserve(octets.len());
        for line in octets.split_inclusive(|&o| o == b'\n') {
            if self.cr && line != b"\n" {
                out.push(b'\r');
            }
            let held = line.strip_suffix(b"\r");
            self.cr = held.is_some();
            match (held, line.strip_suffix(b"\r\n")) {
                (Some(text), _) => out.extend_from_slice(text),
                (None, Some(text)) => {
                    out.extend_from_slice(text);
                    out.push(b'\n');
                }
                (None, None) => out.extend_from_slice(line),
            }
        }
    }

    /// Ends the message: a CR that was held back is content.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.cr) {
            out.push(b'\r');
        }
    }

    /// Octets of content so far, CRLF counted as two (RFC 1870 §5).
    pub const fn size(&self) -> u64 {
        self.size
    }
}

/// Counts the octets before the first CR or LF. Blocks without any are skipped by a loop that compiles to vector
/// instructions; the position within a block is found in 64-bit words.
pub(super) fn plain_run(octets: &[u8]) -> usize {
    let newline = |found: u8, &o: &u8| found | u8::from(o == b'\r') | u8::from(o == b'\n');
    let mut rest = octets;
    while let Some((block, after)) = rest.split_first_chunk::<BLOCK>()
        && block.iter().fold(0, newline) == 0
    {
        rest = after;
    }
    let passed = octets.len() - rest.len();
    let (words, tail) = rest.as_chunks();
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found =
            zeros(word ^ (ONES * u64::from(b'\r'))) | zeros(word ^ (ONES * u64::from(b'\n')));
        if found != 0 {
            return passed + number * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let newline = tail.iter().position(|&o| o == b'\r' || o == b'\n');
    passed + words.len() * 8 + newline.unwrap_or(tail.len())
}

/// Octets examined together.
const BLOCK: usize = 32;

/// The top bit of each octet that is zero; octets above the lowest one may be marked as well.
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES * 0x80)
}

/// A one in each octet.
const ONES: u64 = 0x0101_0101_0101_0101;

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::panic,
        reason = "a test may panic"
    )]
    use super::*;

    /// The obvious model: prepend a CRLF, find the first CRLF.CRLF, unstuff line by line. Returns content (CRLF kept),
    /// octets used, and whether it has a bare CR or LF.
    fn model(input: &[u8]) -> Option<(Vec<u8>, usize, bool)> {
        let whole = [b"\r\n", input].concat();
        let end = whole.windows(5).position(|w| w == b"\r\n.\r\n")?;
        let mut lines = Vec::new();
        let mut line = Vec::new();
        let mut rest = &whole[..end + 2];
        while !rest.is_empty() {
            if rest.starts_with(b"\r\n") {
                lines.push(std::mem::take(&mut line));
                rest = &rest[2..];
            } else {
                line.push(rest[0]);
                rest = &rest[1..];
            }
        }
        let mut content = Vec::new();
        let mut bare = false;
        for line in &lines[1..] {
            let text = line.strip_prefix(b".").unwrap_or(line);
            bare |= text.contains(&b'\r') || text.contains(&b'\n');
            content.extend_from_slice(text);
            content.extend_from_slice(b"\r\n");
        }
        Some((content, end + 3, bare))
    }

    fn decode(pieces: &[&[u8]], policy: BareNewline) -> (Option<usize>, Vec<u8>, Dots) {
        let (mut dots, mut out, mut before) = (Dots::new(policy), Vec::new(), 0);
        for piece in pieces {
            match dots.feed(piece, &mut out) {
                Decoded::More => before += piece.len(),
                Decoded::End { used } => return (Some(before + used), out, dots),
            }
        }
        (None, out, dots)
    }

    /// R001, R053, A1: every string over `. CR LF x` up to seven octets, at every split.
    #[test]
    fn agrees_with_the_model_on_every_short_string() {
        for length in 1..=7_u32 {
            for number in 0..4_usize.pow(length) {
                let text: Vec<u8> = (0..length)
                    .map(|place| b".\r\nx"[number / 4_usize.pow(place) % 4])
                    .collect();
                for split in 0..text.len() {
                    let (head, tail) = text.split_at(split);
                    let (used, out, dots) = decode(&[head, tail], BareNewline::Reject);
                    let expected = model(&text);
                    assert_eq!(used, expected.as_ref().map(|e| e.1), "{text:?} at {split}");
                    if let Some((content, _, bare)) = expected {
                        assert_eq!(dots.bare_newline(), bare, "{text:?} at {split}");
                        assert_eq!(dots.size(), content.len() as u64, "{text:?} at {split}");
                        if !bare {
                            let unix = content.strip_suffix(b"\r\n").map_or(0, <[u8]>::len);
                            assert!(unix <= content.len());
                            let lf: Vec<u8> =
                                content.iter().copied().filter(|&o| o != b'\r').collect();
                            assert_eq!(out, lf, "{text:?} at {split}");
                        }
                    }
                }
            }
        }
    }

    /// The word-wise search agrees with an octet-wise one at every position.
    #[test]
    fn runs_end_at_the_first_newline() {
        for filler in [0, 0x0b, 0x0c, 0x0e, 0x8a, 0x8d, 0xff, b'a'] {
            for place in 0..100 {
                for newline in [b'\r', b'\n'] {
                    let mut text = vec![filler; 100];
                    text[place] = newline;
                    assert_eq!(plain_run(&text), place, "{filler} {newline}");
                    text[99] = b'\n';
                    assert_eq!(plain_run(&text), place, "{filler} {newline}");
                    assert_eq!(plain_run(&text[..place]), place, "{filler}");
                }
            }
        }
    }

    /// R060, R053: one leading dot is removed, and long runs pass unchanged.
    #[test]
    fn unstuffs_dots_and_keeps_long_lines() {
        let long = vec![b'a'; 100_000];
        let input = [b"..\r\n.a\r\n", &long[..], b"\r\n.\r\nRSET\r\n"].concat();
        let (used, out, dots) = decode(&[&input], BareNewline::Reject);
        assert_eq!(used, Some(input.len() - 6));
        assert_eq!(out, [b".\na\n", &long[..], b"\n"].concat());
        assert!(!dots.bare_newline());
    }

    /// RFC 3030 §2: at every split only CRLF is changed, and nothing in a binary message.
    #[test]
    fn chunks_change_only_line_ends() {
        let input = b"a\r\nb\rc\n\r\r\n.\r\n\r";
        for split in 0..=input.len() {
            for (ends, expected) in [
                (LineEnds::Kept, &input[..]),
                (LineEnds::Lf, b"a\nb\rc\n\r\n.\n\r"),
            ] {
                let (mut chunks, mut out) = (Chunks::new(ends), Vec::new());
                for part in [&input[..split], &input[split..]] {
                    chunks.feed(part, &mut out);
                }
                chunks.finish(&mut out);
                assert_eq!(out, expected, "{ends:?} at {split}");
                assert_eq!(chunks.size(), input.len() as u64);
            }
        }
    }

    /// From the first bare CR or LF on everything is kept, at every split.
    #[test]
    fn chunks_tell_bare_newlines_apart() {
        for (input, plain, kept) in [
            ("a\r\nb\nc\r\n", "a\nb", "\nc\r\n"),
            ("a\r\r\nb\r\n", "a", "\r\r\nb\r\n"),
            ("\nx\r\n", "", "\nx\r\n"),
            ("x\r\n\r", "x\n\r", ""),
            ("x\r\ny\r\n", "x\ny\n", ""),
            (
                "0123456789012345678901234567890123456789\rx\n",
                "0123456789012345678901234567890123456789",
                "\rx\n",
            ),
        ] {
            for split in 0..=input.len() {
                let (mut chunks, mut out) = (Chunks::new(LineEnds::LfUntilBare), Vec::new());
                let mut at = None;
                for part in [&input.as_bytes()[..split], &input.as_bytes()[split..]] {
                    let used = chunks.feed(part, &mut out);
                    if used < part.len() {
                        at = Some(out.len());
                        chunks.keep(&mut out);
                        assert_eq!(chunks.feed(&part[used..], &mut out), part.len() - used);
                    }
                }
                chunks.finish(&mut out);
                let at = at.unwrap_or(out.len());
                assert_eq!(
                    (&out[..at], &out[at..]),
                    (plain.as_bytes(), kept.as_bytes()),
                    "{input:?} at {split}"
                );
                assert_eq!(chunks.size(), input.len() as u64);
            }
        }
    }

    /// A1: a bare newline becomes a line end of the content, never the end of the message.
    #[test]
    fn normalizing_never_ends_the_message() {
        for bad in [
            "\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\n.\r", "\r\n.\r",
        ] {
            let input = format!("a{bad}MAIL FROM:<evil@x>\r\n.\r\n");
            let (used, _, dots) = decode(&[input.as_bytes()], BareNewline::Normalize);
            assert_eq!(used, Some(input.len()), "{bad:?}");
            assert!(dots.bare_newline(), "{bad:?}");
        }
        let (_, out, _) = decode(&[b"a\nb\rc\r\n.\r\n"], BareNewline::Normalize);
        assert_eq!(out, b"a\nb\nc\n");
    }
}

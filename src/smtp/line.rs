//! Splits octets into command lines. A line ends in CRLF and nothing else (RFC 5321 §2.3.8). The splitter never loses
//! its place: an overlong line is read to its end in constant memory and reported as a value, as is a line with a bare
//! CR, LF or NUL.

use super::body::plain_run;

/// Octets of one overlong line after which the connection is closed.
const FLOOD: usize = 1024 * 1024;

/// HTTP methods that arrive at mail ports: those of port scanners, and those by which a web page makes a browser send
/// SMTP commands in the body of a request.
const HTTP_METHODS: [&[u8]; 8] = [
    b"GET", b"POST", b"CONNECT", b"PUT", b"HEAD", b"PATCH", b"DELETE", b"OPTIONS",
];

/// Octets of the longest of these names.
const LONGEST_METHOD: usize = 7;

/// One line, as passed to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line without its CRLF.
    Ok(&'a [u8]),
    /// A line over its limit, which is given in octets.
    TooLong(usize),
    /// A line with a bare CR, a bare LF or a NUL.
    Malformed,
    /// The start of an HTTP request; the rest is not read.
    Http,
    /// The start of a TLS handshake.
    Tls,
}

/// The result of looking for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// A line was found.
    Line {
        /// The line.
        line: Line<'a>,
        /// Octets to consume, the CRLF included.
        used: usize,
    },
    /// No end of line yet; `used` octets of an overlong line can be dropped.
    More {
        /// Octets to consume.
        used: usize,
    },
    /// A line past all bounds: 421 and close.
    Flood,
}

/// The splitter. Its only state is how much of an overlong line has been dropped.
#[derive(Debug, Default)]
pub struct Lines {
    skipped: usize,
    limit: usize,
}

impl Lines {
    /// A splitter at the start of a line.
    pub const fn new() -> Self {
        Self {
            skipped: 0,
            limit: 0,
        }
    }

    /// Looks for one line in `buffer`; `limit` returns the maximum length of a line, CRLF included, from the octets
    /// that it begins with. A shorter buffer without a CRLF needs more input and must not be consumed.
    pub fn take<'a>(&mut self, buffer: &'a [u8], limit: impl Fn(&[u8]) -> usize) -> Split<'a> {
        if self.skipped == 0 {
            // Recognised by its first octets: such a client may never end a line.
            if let Some(line) = wrong_protocol(buffer) {
                let used = buffer.len();
                return Split::Line { line, used };
            }
            self.limit = limit(buffer);
        }
        let limit = self.limit;
        match up_to_crlf(buffer) {
            Some((text, _)) if self.skipped + text.len() > FLOOD => Split::Flood,
            Some((text, bare)) => {
                let used = text.len() + 2;
                let skipped = std::mem::take(&mut self.skipped);
                let line = match skipped + used <= limit {
                    true if bare || text.contains(&0) => Line::Malformed,
                    true => Line::Ok(text),
                    false => Line::TooLong(limit),
                };
                Split::Line { line, used }
            }
            None if self.skipped + buffer.len() < limit => Split::More { used: 0 },
            None => {
                // A final CR may be half of a CRLF, so it stays.
                let used = buffer.len() - usize::from(buffer.ends_with(b"\r"));
                self.skipped += used;
                if self.skipped > FLOOD {
                    return Split::Flood;
                }
                Split::More { used }
            }
        }
    }
}

/// The beginning of a line that is not SMTP: an HTTP method and a space or the end of the line, a record of a TLS
/// handshake (RFC 8446 §5.1), or the hello of SSLv2 that offers TLS (RFC 5246 §E.2).
fn wrong_protocol(start: &[u8]) -> Option<Line<'static>> {
    let mut word = start.iter().take(LONGEST_METHOD + 1);
    let end = word.position(|o| matches!(o, b' ' | b'\t' | b'\r'));
    let http = end.and_then(|end| start.get(..end)).is_some_and(|word| {
        let mut methods = HTTP_METHODS.iter();
        methods.any(|method| word.eq_ignore_ascii_case(method))
    });
    match start {
        [0x16, 0x03, ..] | [0x80..=0xff, _, 0x01, 0x03, ..] => Some(Line::Tls),
        _ if http => Some(Line::Http),
        _ => None,
    }
}

/// The octets before the first CRLF, if there is one, and true if a bare CR or LF is among them.
fn up_to_crlf(buffer: &[u8]) -> Option<(&[u8], bool)> {
    let (mut rest, mut bare) = (buffer, false);
    loop {
        rest = rest.get(plain_run(rest)..)?;
        if rest.starts_with(b"\r\n") {
            return Some((buffer.get(..buffer.len() - rest.len())?, bare));
        }
        (rest, bare) = (rest.get(1..)?, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R001: a bare CR or LF never makes two commands of one line.
    #[test]
    fn only_crlf_ends_a_line() {
        let mut lines = Lines::new();
        let all = b"NOOP\nMAIL FROM:<a@b>\r\nQUIT\r\n";
        assert_eq!(
            lines.take(all, |_| 512),
            Split::Line {
                line: Line::Malformed,
                used: 22
            }
        );
        assert_eq!(
            lines.take(b"QUIT\r\nx", |_| 512),
            Split::Line {
                line: Line::Ok(b"QUIT"),
                used: 6
            }
        );
        assert_eq!(lines.take(b"QUIT\r", |_| 512), Split::More { used: 0 });
    }

    /// R063: a long line is skipped to its end, and the next line is read normally.
    #[test]
    fn a_long_line_is_one_line() {
        let mut lines = Lines::new();
        assert_eq!(lines.take(&[b'x'; 600], |_| 512), Split::More { used: 600 });
        assert_eq!(lines.take(b"xx\r", |_| 512), Split::More { used: 2 });
        assert_eq!(
            lines.take(b"\r\nNOOP\r\n", |_| 512),
            Split::Line {
                line: Line::TooLong(512),
                used: 2
            }
        );
        assert_eq!(
            lines.take(b"NOOP\r\n", |_| 512),
            Split::Line {
                line: Line::Ok(b"NOOP"),
                used: 6
            }
        );
    }

    /// Other protocols are recognised before their line ends, and only at the start of a line.
    #[test]
    fn other_protocols_are_known_by_their_first_octets() {
        for (start, line) in [
            (&b"\x16\x03\x01\x02\x00\x01"[..], Some(Line::Tls)),
            (b"\x16\x03", Some(Line::Tls)),
            (b"\x80\x2e\x01\x03\x01", Some(Line::Tls)),
            (b"GET /", Some(Line::Http)),
            (b"connect a:25 HTTP/1.1\r\n", Some(Line::Http)),
            (b"POST\r\n", Some(Line::Http)),
            (b"PUT /x HTTP/1.1\r\n", Some(Line::Http)),
            (b"HEAD /", Some(Line::Http)),
            (b"patch /", Some(Line::Http)),
            (b"DELETE /", Some(Line::Http)),
            (b"OPTIONS * HTTP/1.1", Some(Line::Http)),
            (b"HELO x", None),
            (b"DATA\r", None),
            (b"\x16", None),
            (b"GET", None),
            (b"GETTING", None),
            (b"\xc3\x9c\x01\x04", None),
        ] {
            let split = Lines::new().take(start, |_| 512);
            let used = start.len();
            let expected = line.map(|line| Split::Line { line, used });
            assert_eq!(
                expected.unwrap_or(Split::More { used: 0 }),
                split,
                "{start:?}"
            );
        }
        let mut lines = Lines::new();
        assert_eq!(lines.take(&[b'x'; 600], |_| 512), Split::More { used: 600 });
        let rest = lines.take(b"GET /\r\n", |_| 512);
        assert!(matches!(
            rest,
            Split::Line {
                line: Line::TooLong(512),
                ..
            }
        ));
    }

    #[test]
    fn an_endless_line_is_a_flood() {
        let mut lines = Lines::new();
        let outcome = (0..2_000)
            .map(|_| lines.take(&[b'x'; 1_024], |_| 512))
            .last();
        assert_eq!(outcome, Some(Split::Flood));
        // Also where its end comes with the octets that are too many.
        for (end, flood) in [(&b"\r\n"[..], false), (b"x\r\n", true)] {
            let mut lines = Lines::new();
            let _ = lines.take(&vec![b'x'; FLOOD], |_| 512);
            assert_eq!(lines.take(end, |_| 512) == Split::Flood, flood);
        }
    }
}

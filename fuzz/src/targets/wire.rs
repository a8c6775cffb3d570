//! Input from the wire: lines, commands, addresses, content, and encodings.

use mailslot::encoding;
use mailslot::net::proxy::{Header, MAX_HEADER};
use mailslot::smtp::address::{ForwardPath, ReversePath};
use mailslot::smtp::body::{BareNewline, Chunks, Decoded, Dots, LineEnds};
use mailslot::smtp::command::Command;
use mailslot::smtp::cursor::Cursor;
use mailslot::smtp::line::{Line, Lines, Split};
use mailslot::smtp::params::{MailParams, RcptParams};

use super::first;

/// A line as the splitter told it.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Line(String),
    Flood,
}

/// All lines of the input, which becomes visible `step` octets at a time.
fn lines(input: &[u8], step: usize) -> Vec<Told> {
    let mut lines = Lines::new();
    let mut told = Vec::new();
    let (mut start, mut end) = (0, 0);
    loop {
        match lines.take(&input[start..end], |_| 100) {
            Split::Flood => {
                told.push(Told::Flood);
                return told;
            }
            Split::Line { line, used } => {
                told.push(Told::Line(format!("{line:?}")));
                start += used;
                // The connection ends with that line.
                if matches!(line, Line::Tls | Line::Http) {
                    return told;
                }
            }
            Split::More { used } => {
                start += used;
                if end == input.len() {
                    return told;
                }
                end = input.len().min(end + step);
            }
        }
    }
}

/// Lines are the same however the octets arrive, and each is a command or a refusal.
pub fn commands(octets: &[u8]) {
    let (step, input) = first(octets);
    assert_eq!(lines(input, step + 1), lines(input, input.len().max(1)));
    for line in input.split(|&octet| octet == b'\n') {
        if let Ok(command) = Command::parse(line) {
            let text = command.text();
            let _ = MailParams::parse(&mut Cursor::new(&text));
            let _ = RcptParams::parse(&mut Cursor::new(&text));
        }
    }
}

/// A parsed address is written so that it parses to the same again.
pub fn addresses(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else {
        return;
    };
    if let Some(path) = ReversePath::parse(&mut Cursor::new(text)) {
        let spelled = format!("<{}>", path.as_str());
        assert_eq!(
            ReversePath::parse(&mut Cursor::new(&spelled)),
            Some(path),
            "{spelled}"
        );
        assert!(!spelled.contains(char::is_control), "{spelled:?}");
    }
    if let Some(path) = ForwardPath::parse(&mut Cursor::new(text)) {
        let spelled = format!("<{path}>");
        assert_eq!(
            ForwardPath::parse(&mut Cursor::new(&spelled)),
            Some(path),
            "{spelled}"
        );
        assert!(!spelled.contains(char::is_control), "{spelled:?}");
    }
}

/// Any name has a key.
pub fn domains(octets: &[u8]) {
    if let Ok(name) = std::str::from_utf8(octets) {
        let _ = mailslot::directory::domain_key(name);
    }
}

/// The obvious decoder of DATA: its end, true for a bare CR or LF, and the content.
fn model(input: &[u8]) -> Option<(usize, bool, Vec<u8>)> {
    let mut whole = b"\r\n".to_vec();
    whole.extend_from_slice(input);
    let end = whole.windows(5).position(|part| part == b"\r\n.\r\n")?;
    let content = &whole[2..(end + 2).max(2)];
    let text: Vec<u8> = content.to_vec();
    let mut bare = false;
    let mut out = Vec::new();
    let mut at = 0;
    let mut line_start = true;
    while at < text.len() {
        match text[at] {
            b'.' if line_start => line_start = false,
            b'\r' if text.get(at + 1) == Some(&b'\n') => {
                out.push(b'\n');
                at += 1;
                line_start = true;
            }
            octet => {
                bare |= octet == b'\r' || octet == b'\n';
                out.push(octet);
                line_start = false;
            }
        }
        at += 1;
    }
    Some((end + 3, bare, out))
}

/// The end, the verdict and the content of DATA are the model's, however the octets arrive.
pub fn dots(octets: &[u8]) {
    let (step, input) = first(octets);
    let mut decoder = Dots::new(BareNewline::Reject);
    let mut out = Vec::new();
    let mut consumed = 0;
    let mut end = None;
    for piece in input.chunks(step + 1) {
        if let Decoded::End { used } = decoder.feed(piece, &mut out) {
            end = Some(consumed + used);
            break;
        }
        consumed += piece.len();
    }
    let model = model(input);
    assert_eq!(end, model.as_ref().map(|(end, ..)| *end));
    if let Some((_, bare, content)) = model {
        assert_eq!(decoder.bare_newline(), bare);
        assert!(bare || out == content, "{out:?} {content:?}");
    }
}

/// The content of BDAT: CRLF becomes LF and nothing else changes; BINARYMIME changes nothing.
pub fn bdat(octets: &[u8]) {
    let (step, input) = first(octets);
    for (binary, ends) in [(false, LineEnds::Lf), (true, LineEnds::Kept)] {
        let mut decoder = Chunks::new(ends);
        let mut out = Vec::new();
        for piece in input.chunks(step + 1) {
            decoder.feed(piece, &mut out);
        }
        decoder.finish(&mut out);
        assert_eq!(decoder.size(), input.len() as u64);
        let mut wanted = Vec::new();
        for (at, &octet) in input.iter().enumerate() {
            if binary || octet != b'\r' || input.get(at + 1) != Some(&b'\n') {
                wanted.push(octet);
            }
        }
        assert_eq!(out, wanted);
    }
}

/// A PROXY header is one however much of what follows it is there already, and its beginnings are beginnings; garbage
/// stays garbage.
pub fn proxy(octets: &[u8]) {
    let verdicts: Vec<Header> = (0..=octets.len().min(MAX_HEADER + 1))
        .map(|length| Header::parse(&octets[..length]))
        .collect();
    let decided = verdicts.iter().position(|verdict| *verdict != Header::More);
    let Some(at) = decided else {
        assert!(octets.len() < MAX_HEADER, "{} octets", octets.len());
        return;
    };
    if let Header::Whole { used, .. } = verdicts[at] {
        assert_eq!(used, at);
    }
    let later = &verdicts[at..];
    assert!(later.iter().all(|verdict| *verdict == verdicts[at]));
    assert_eq!(Header::parse(octets), verdicts[at]);
}

/// Decoding and encoding are inverse.
pub fn encodings(octets: &[u8]) {
    let coded = encoding::base64_encode(octets);
    assert_eq!(
        encoding::base64_decode(coded.as_bytes()).as_deref(),
        Some(octets)
    );
    let coded = encoding::base64url_encode(octets);
    assert_eq!(encoding::base64url_decode(&coded).as_deref(), Some(octets));
    if let Some(decoded) = encoding::base64_decode(octets) {
        assert_eq!(encoding::base64_encode(&decoded).as_bytes(), octets);
    }
    let Ok(text) = std::str::from_utf8(octets) else {
        return;
    };
    if let Some(decoded) = encoding::xtext_decode(text) {
        let again = encoding::xtext_encode(&decoded);
        assert_eq!(
            encoding::xtext_decode(&again).as_deref(),
            Some(decoded.as_str())
        );
    }
    let _ = mailslot::net::dns::to_alabel(text);
}

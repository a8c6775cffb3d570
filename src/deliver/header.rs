//! One pass over the header block of a message while it arrives: it drops the client's Return-Path fields (RFC 5321
//! §4.4 allows only the server's), counts Received fields (§6.3), and on submission appends a missing Date and
//! Message-ID (RFC 6409 §8). It holds back one field name at most. An mbox `From ` line at the very beginning is
//! dropped too. If the first line that is left is not a field, an empty line is inserted, so that readers do not take
//! it for a continuation of the trace. The block ends at the first empty line, or at the first line that can't be a
//! field; the rest is not examined.

use super::junk::Watch;
use super::target::Form;

/// Maximum octets of a field name: no line is longer (RFC 5322 §2.1.1).
const NAME_MAX: usize = 998;

/// The header filter.
pub(super) struct Filter {
    form: Form,
    state: State,
    /// The start of a line whose field name isn't complete yet.
    held: Vec<u8>,
    /// True after a field, which a continuation line may continue.
    any: bool,
    /// True after a line that was kept.
    kept: bool,
    /// True if the next line is the first one of the message.
    first: bool,
    received: usize,
    /// On submission: the Date and Message-ID lines to add, and whether each was seen.
    wanted: Option<SubmissionFields>,
    /// Looks for the fields that mark junk.
    junk: Option<Watch>,
}

/// The fields of submission.
struct SubmissionFields {
    date: Option<String>,
    message_id: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the first octets of a line, collecting its name. True if the previous field was dropped.
    Name { dropped: bool },
    /// In the rest of a line that is kept or dropped.
    Rest { dropped: bool },
    /// After the header block.
    Body,
}

impl Filter {
    /// A filter for one message. `submission` holds the values for a missing Date and Message-ID.
    pub(super) fn new(
        form: Form,
        submission: Option<(String, String)>,
        junk: Option<Watch>,
    ) -> Self {
        let wanted = submission.map(|(date, message_id)| SubmissionFields {
            date: Some(date),
            message_id: Some(message_id),
        });
        let state = State::Name { dropped: false };
        Self {
            form,
            state,
            held: Vec::new(),
            any: false,
            kept: false,
            first: true,
            received: 0,
            wanted,
            junk,
        }
    }

    /// True if a field that marks junk was found.
    pub(super) fn is_junk(&self) -> bool {
        self.junk.as_ref().is_some_and(Watch::found)
    }

    /// Changes the form of line ends from now on.
    pub(super) const fn set_form(&mut self, form: Form) {
        self.form = form;
    }

    /// The number of Received fields so far.
    pub(super) fn received(&self) -> usize {
        self.received
    }

    /// True after the header block, when everything passes unchanged.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Body
    }

    /// Filters octets into `out`, and returns how many were used: fewer than given if the header block ends among them,
    /// and none after that.
    pub(super) fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let mut rest = input;
        while self.state != State::Body {
            let Some((&octet, after)) = rest.split_first() else {
                break;
            };
            match self.state {
                State::Name { dropped } => {
                    self.held.push(octet);
                    rest = after;
                    self.judge(octet, dropped, out);
                }
                State::Rest { dropped } => {
                    let end = rest.iter().position(|&o| o == b'\n');
                    let (run, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
                    if !dropped {
                        out.extend_from_slice(run);
                    }
                    if let Some(junk) = &mut self.junk {
                        junk.octets(run);
                    }
                    if end.is_some() {
                        self.state = State::Name { dropped };
                    }
                    rest = after;
                }
                State::Body => {}
            }
        }
        input.len() - rest.len()
    }

    /// Ends the message: appends what was held back, and missing fields if there was no body.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        match self.state {
            State::Body => return,
            State::Name { .. } => {}
            State::Rest { .. } if self.lacks() && out.last() != Some(&b'\n') => {
                out.extend_from_slice(self.form.eol().as_bytes());
            }
            State::Rest { .. } => {}
        }
        self.end(out);
    }

    /// Decides about the line whose first octets are held back, `octet` being the last, as soon as it can.
    fn judge(&mut self, octet: u8, dropped: bool, out: &mut Vec<u8>) {
        let first = self.held.len() == 1;
        match octet {
            b' ' if self.first && self.held == b"From " => self.pass(true, out),
            b' ' | b'\t' if first && self.any => {
                if let Some(junk) = &mut self.junk {
                    junk.octets(&self.held);
                }
                self.pass(dropped, out);
            }
            b' ' | b'\t' if first => self.end(out),
            // Blanks before the colon are obsolete syntax (RFC 5322 §4.5) that readers accept.
            b' ' | b'\t' => {}
            b':' if first => self.end(out),
            b':' => {
                let drop = self.name();
                self.pass(drop, out);
            }
            // A CRLF that ends the block; in text form a CR is content.
            b'\r' if first && self.form == Form::Binary => {}
            33..=126 if self.held.len() <= NAME_MAX && !self.after_blank() => {}
            _ => self.end(out),
        }
    }

    /// True if the octet before the last held one is a blank: then the name cannot continue.
    fn after_blank(&self) -> bool {
        matches!(self.held.iter().rev().nth(1), Some(b' ' | b'\t' | b'\r'))
    }

    /// Notes a complete field name; true if the field must be dropped.
    fn name(&mut self) -> bool {
        self.any = true;
        let name = self
            .held
            .trim_ascii_end()
            .strip_suffix(b":")
            .unwrap_or_default()
            .trim_ascii_end();
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("Received") {
            self.received += 1;
        }
        if let Some(junk) = &mut self.junk {
            junk.field(name);
        }
        if let Some(wanted) = &mut self.wanted {
            if is("Date") {
                wanted.date = None;
            }
            if is("Message-ID") {
                wanted.message_id = None;
            }
        }
        is("Return-Path")
    }

    /// Keeps or drops the held start of a line, and its rest.
    fn pass(&mut self, dropped: bool, out: &mut Vec<u8>) {
        if !dropped {
            out.append(&mut self.held);
            self.kept = true;
        }
        self.held.clear();
        self.first = false;
        self.state = State::Rest { dropped };
    }

    /// Ends the header block before the held octets.
    fn end(&mut self, out: &mut Vec<u8>) {
        let eol = self.form.eol();
        if let Some(wanted) = self.wanted.take() {
            if let Some(date) = wanted.date {
                out.extend_from_slice(format!("Date: {date}{eol}").as_bytes());
            }
            if let Some(id) = wanted.message_id {
                out.extend_from_slice(format!("Message-ID: {id}{eol}").as_bytes());
            }
        }
        if !self.kept && !self.held.is_empty() && self.held != eol.as_bytes() {
            out.extend_from_slice(eol.as_bytes());
        }
        out.append(&mut self.held);
        self.state = State::Body;
    }

    /// True if a field is still missing.
    fn lacks(&self) -> bool {
        self.wanted
            .as_ref()
            .is_some_and(|w| w.date.is_some() || w.message_id.is_some())
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test may panic"
    )]
    use super::*;

    fn run(input: &str, form: Form, submission: bool, step: usize) -> (String, usize) {
        let wanted = submission.then(|| ("D".to_owned(), "<I>".to_owned()));
        let mut filter = Filter::new(form, wanted, None);
        let mut out = Vec::new();
        for piece in input.as_bytes().chunks(step) {
            let used = filter.feed(piece, &mut out);
            out.extend_from_slice(&piece[used..]);
        }
        filter.finish(&mut out);
        (String::from_utf8(out).unwrap(), filter.received())
    }

    fn check(input: &str, expected: &str, received: usize, submission: bool) {
        for step in [1, 2, 3, 7, 10_000] {
            let (out, count) = run(input, Form::Text, submission, step);
            assert_eq!((out.as_str(), count), (expected, received), "step {step}");
            if !submission {
                let (out, _) = run(&input.replace('\n', "\r\n"), Form::Binary, submission, step);
                assert_eq!(out, expected.replace('\n', "\r\n"), "binary, step {step}");
            }
        }
    }

    /// R049
    #[test]
    fn return_path_is_removed_with_its_folded_lines() {
        check(
            "A: b\nRETURN-path : <x>\n\ty\n z\nB: c\n d\n\nReturn-Path: stays\n",
            "A: b\nB: c\n d\n\nReturn-Path: stays\n",
            0,
            false,
        );
        check("Return-Path: <x>\n\nbody", "\nbody", 0, false);
        check("Return-Path: <x>\nbody\n", "\nbody\n", 0, false);
        check("Return-Path: <x>\n y\n: z\n", "\n: z\n", 0, false);
        check("Return-Path: <x>", "", 0, false);
        check(
            "Return-Paths: <x>\nX-Return-Path: y\n",
            "Return-Paths: <x>\nX-Return-Path: y\n",
            0,
            false,
        );
    }

    /// R070
    #[test]
    fn text_without_a_header_is_not_changed() {
        for text in [
            "",
            "\n",
            "\nReturn-Path: y\n",
            "A: b\nnot a field\nReturn-Path: c\n",
        ] {
            check(text, text, 0, false);
        }
    }

    /// First lines that readers would take for part of the trace.
    #[test]
    fn a_first_line_that_is_not_a_field_gets_an_empty_line() {
        for text in [
            "x",
            "Subject",
            "hello\nReturn-Path: y\n",
            "  Temperature 30C\n",
            "\tlead\nReturn-Path: y\n",
            ":\nReturn-Path: y\n",
            "a b: c\nReturn-Path: d\n",
            ">From x\nA: b\n",
        ] {
            check(text, &format!("\n{text}"), 0, false);
        }
        check(" x\n", "Date: D\nMessage-ID: <I>\n\n x\n", 0, true);
    }

    #[test]
    fn an_mbox_line_is_removed() {
        let fields = "From x  Thu Jan  1 00:00:00 1970\nReturn-Path: <x>\nFrom: a\n\nFrom body\n";
        check(fields, "From: a\n\nFrom body\n", 0, false);
        check("From x\n\nb\n", "\nb\n", 0, false);
        check("From x\n b\n", "\n b\n", 0, false);
        check("From x\nFrom y\n", "\nFrom y\n", 0, false);
        check("From x", "", 0, false);
    }

    /// R048
    #[test]
    fn received_fields_count_in_the_header_only() {
        check(
            "received: a\nReceived: b\n\nReceived: c\n",
            "received: a\nReceived: b\n\nReceived: c\n",
            2,
            false,
        );
    }

    #[test]
    fn submission_gets_missing_fields() {
        check(
            "A: b\n\nDate: x\n",
            "A: b\nDate: D\nMessage-ID: <I>\n\nDate: x\n",
            0,
            true,
        );
        check("DATE: b\n\n", "DATE: b\nMessage-ID: <I>\n\n", 0, true);
        check(
            "Date: b\nmessage-id: c\n\n",
            "Date: b\nmessage-id: c\n\n",
            0,
            true,
        );
        check("A: b", "A: b\nDate: D\nMessage-ID: <I>\n", 0, true);
        check("", "Date: D\nMessage-ID: <I>\n", 0, true);
    }
}

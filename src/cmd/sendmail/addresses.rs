//! The addresses of a header field (RFC 5322 §3.4): comments, names, routes and groups are dropped.

/// The addresses in `text`, without angle brackets. A malformed list gives the addresses that can be found.
pub(super) fn addresses(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut parser = Parser::default();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '(' => skip_comment(&mut rest),
            '"' => parser.quoted(&mut rest),
            '<' => parser.angle = Some(until(&mut rest, '>')),
            '[' => parser
                .text
                .push_str(&format!("[{}]", until(&mut rest, ']'))),
            ',' | ';' => found.extend(parser.take()),
            // The name of a group.
            ':' => parser = Parser::default(),
            c => parser.text.push(c),
        }
    }
    found.extend(parser.take());
    found
}

#[derive(Default)]
struct Parser {
    /// The text outside of angle brackets.
    text: String,
    angle: Option<String>,
}

impl Parser {
    fn quoted(&mut self, rest: &mut std::str::Chars<'_>) {
        self.text.push('"');
        while let Some(c) = rest.next() {
            self.text.push(c);
            match c {
                '\\' => self.text.extend(rest.next()),
                '"' => return,
                _ => {}
            }
        }
    }

    /// Ends the current address.
    fn take(&mut self) -> Option<String> {
        let Self { text, angle } = std::mem::take(self);
        let address = angle.unwrap_or(text);
        let address = without_blanks(&address);
        // A source route (RFC 5322 §4.4).
        let address = match (address.starts_with('@'), address.split_once(':')) {
            (true, Some((_, mailbox))) => mailbox.to_owned(),
            _ => address,
        };
        (!address.is_empty()).then_some(address)
    }
}

/// Blanks at the ends and around dots and at signs are dropped (RFC 5322 §4.4), except in a quoted local part. Others
/// stay: without a comma two addresses must not become one that was not meant.
fn without_blanks(address: &str) -> String {
    let mut kept = String::with_capacity(address.len());
    let (mut quoted, mut escaped, mut blank) = (false, false, false);
    let joins = |c| matches!(c, '.' | '@' | ',' | ':');
    for c in address.trim().chars() {
        if !quoted && c.is_whitespace() {
            blank = true;
            continue;
        }
        if std::mem::take(&mut blank) && !joins(c) && !kept.ends_with(joins) {
            kept.push(' ');
        }
        kept.push(c);
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
    }
    kept
}

/// Skips a comment, which may contain others.
fn skip_comment(rest: &mut std::str::Chars<'_>) {
    let mut depth = 1_usize;
    while let Some(c) = rest.next() {
        match c {
            '\\' => drop(rest.next()),
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

/// The text up to `end`, which a quoted string or a backslash may contain.
fn until(rest: &mut std::str::Chars<'_>, end: char) -> String {
    let mut text = String::new();
    let mut quoted = false;
    while let Some(c) = rest.next() {
        match c {
            '\\' => {
                text.push(c);
                text.extend(rest.next());
                continue;
            }
            '"' => quoted = !quoted,
            c if c == end && !quoted => break,
            _ => {}
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_lists() {
        for (text, expected) in [
            ("root", &["root"][..]),
            ("a@b, c@d", &["a@b", "c@d"]),
            (
                " Al B. Ow <a@b>,\n\t\"X, Y\" <c@d> (work), ",
                &["a@b", "c@d"],
            ),
            ("a (one (two) \\) three) @ b", &["a@b"]),
            ("a . b @ c, <@x, @y : d@e>", &["a.b@c", "d@e"]),
            ("a@b c@d", &["a@b c@d"]),
            ("undisclosed-recipients:;", &[]),
            ("Team: a@b, B <c@d>; e@f", &["a@b", "c@d", "e@f"]),
            ("<@x,@y:a@b>", &["a@b"]),
            ("\"a b\"@c", &["\"a b\"@c"]),
            ("\"a\\\"@x b\"@c, d@e", &["\"a\\\"@x b\"@c", "d@e"]),
            (
                "a@[192.0.2.1], b@[IPv6:::1]",
                &["a@[192.0.2.1]", "b@[IPv6:::1]"],
            ),
            ("J\u{e9} <j\u{e9}@x>", &["j\u{e9}@x"]),
            ("<>", &[]),
            ("", &[]),
            ("<a@b", &["a@b"]),
            ("(unfinished", &[]),
        ] {
            assert_eq!(addresses(text), expected, "{text}");
        }
    }
}

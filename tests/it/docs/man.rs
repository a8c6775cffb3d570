//! mailslot(8): a template, with the options from their table.

use std::fmt::Write as _;

use mailslot::options::{DOCUMENTED, Opt, Takes};

const FRAME: &str = include_str!("mailslot.8.in");
const PLACE: &str = ".\\\" OPTIONS\n";

pub(super) fn page() -> String {
    let (head, tail) = FRAME.split_once(PLACE).unwrap();
    let options: String = DOCUMENTED.iter().map(item).collect();
    format!("{head}{options}{tail}")
}

fn item(opt: &Opt) -> String {
    let mut text = String::from(".It ");
    if !opt.letter.is_empty() {
        write!(text, "Fl {} , ", opt.letter).unwrap();
    }
    write!(text, "Fl \\-{}", opt.name.replace('-', "\\-")).unwrap();
    match opt.takes {
        Takes::Nothing => {}
        Takes::Maybe => write!(text, " Op = Ns Ar {}", opt.value).unwrap(),
        Takes::One | Takes::Many => write!(text, " Ar {}", argument(opt.value)).unwrap(),
    }
    text.push('\n');
    let paragraph = match opt.manual {
        "" => sentence(opt.help),
        manual => manual.to_owned(),
    };
    for line in sentences(&paragraph) {
        text.push_str(&wrap(&escape(line)));
    }
    if opt.takes == Takes::Many {
        text.push_str("May be given more than once.\n");
    }
    if !opt.default.is_empty() {
        writeln!(text, "The default is\n.Ql {} .", escape(opt.default)).unwrap();
    }
    text
}

fn argument(value: &str) -> String {
    value.replace('|', " Ns | Ns Ar ")
}

fn sentence(help: &str) -> String {
    let mut letters = help.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    format!("{}.", first.chain(letters).collect::<String>())
}

/// Lines of 78 octets at most, as mandoc(1) wants them.
fn wrap(text: &str) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split(' ') {
        if width > 0 && width + 1 + word.len() > 78 {
            lines.push('\n');
            width = 0;
        } else if width > 0 {
            lines.push(' ');
            width += 1;
        }
        lines.push_str(word);
        width += word.len();
    }
    lines + "\n"
}

/// mdoc(7) wants each on a line of its own.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(". ")
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
}

fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}

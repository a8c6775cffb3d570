//! The command line of sendmail(1) in its traditional form: letters whose value follows directly or is the next word.

use std::ffi::OsString;
use std::path::PathBuf;

/// The mode of operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// Send the message on standard input.
    #[default]
    Send,
    /// Speak SMTP on standard input and output.
    Smtp,
    /// List the queue.
    List,
    /// Rebuild the aliases.
    Aliases,
}

/// The parsed command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) mode: Mode,
    /// `-t`: recipients are in the header.
    pub(super) header_recipients: bool,
    /// `-i`: a line with a single dot does not end the message.
    pub(super) ignore_dots: bool,
    /// `-f`, `-r`.
    pub(super) sender: Option<String>,
    /// `-F`.
    pub(super) full_name: Option<String>,
    /// `-N`, as NOTIFY has it.
    pub(super) notify: Option<String>,
    /// `-R`, as RET has it.
    pub(super) ret: Option<String>,
    /// `-V`.
    pub(super) envid: Option<String>,
    pub(super) verbose: bool,
    /// `--queue`: the queue that `-bp` lists.
    pub(super) queue: Option<PathBuf>,
    pub(super) recipients: Vec<String>,
}

/// The form of a letter's value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operand {
    None,
    Needed,
    /// Attached, or missing.
    Attached,
}

type SetOption = fn(&mut Options, String) -> Result<(), String>;

fn ignore(_: &mut Options, _: String) -> Result<(), String> {
    Ok(())
}

/// The letters. Some that only other implementations need are accepted and ignored.
#[rustfmt::skip]
const LETTERS: &[(char, Operand, SetOption)] = &[
    ('A', Operand::Needed, ignore), // alias database, or -Ac and -Am
    ('B', Operand::Needed, ignore), // body type: the content decides
    ('C', Operand::Needed, ignore), // configuration file
    ('F', Operand::Needed, |all, value| { all.full_name = Some(value); Ok(()) }),
    ('G', Operand::None, ignore), // gateway submission
    ('I', Operand::None, |all, _| { all.mode = Mode::Aliases; Ok(()) }),
    ('L', Operand::Needed, ignore), // label for the log
    ('N', Operand::Needed, |all, value| { all.notify = Some(notify(&value)?); Ok(()) }),
    ('O', Operand::Needed, ignore),
    ('R', Operand::Needed, |all, value| { all.ret = Some(ret(&value)?); Ok(()) }),
    ('U', Operand::None, ignore), // user submission
    ('V', Operand::Needed, |all, value| { all.envid = Some(envid(value)?); Ok(()) }),
    ('X', Operand::Needed, ignore), // traffic log
    ('b', Operand::Needed, |all, value| { all.mode = mode(&value)?; Ok(()) }),
    ('e', Operand::Needed, ignore), // how errors are told: by exit status and on standard error
    ('f', Operand::Needed, |all, value| { all.sender = Some(value); Ok(()) }),
    ('h', Operand::Needed, ignore), // hop count
    ('i', Operand::None, |all, _| { all.ignore_dots = true; Ok(()) }),
    ('m', Operand::None, ignore), // me too
    ('n', Operand::None, ignore), // no aliases
    ('o', Operand::Needed, |all, value| { all.ignore_dots |= value == "i"; Ok(()) }),
    ('p', Operand::Needed, ignore), // protocol
    ('q', Operand::Attached, |_, _| Err("the server runs the queue; see mailslot --queue-run".to_owned())),
    ('r', Operand::Needed, |all, value| { all.sender = Some(value); Ok(()) }),
    ('t', Operand::None, |all, _| { all.header_recipients = true; Ok(()) }),
    ('v', Operand::None, |all, _| { all.verbose = true; Ok(()) }),
    ('x', Operand::None, ignore),
];

impl Options {
    /// Parses the arguments after the program's name.
    ///
    /// # Errors
    /// The reason, as text.
    pub(super) fn parse(args: &[OsString]) -> Result<Self, String> {
        let mut all = Self::default();
        let mut words = args.iter();
        while let Some(word) = words.next() {
            // A full name may be in another encoding.
            let word = word.to_string_lossy();
            match word.strip_prefix('-') {
                Some("-") => break,
                Some("-queue") => {
                    let dir = words.next().ok_or("--queue needs a value")?;
                    all.queue = Some(dir.into());
                }
                Some(long) if long.starts_with("-queue=") => {
                    all.queue = long.strip_prefix("-queue=").map(PathBuf::from);
                }
                None | Some("") => all.recipients.push(word.to_string()),
                Some(letters) => all.letters(letters, &mut words)?,
            }
        }
        let rest = words.map(|word| word.to_string_lossy().into_owned());
        all.recipients.extend(rest);
        Ok(all)
    }

    /// Parses one word of letters; the first one with a value takes the rest.
    fn letters<'a>(
        &mut self,
        letters: &str,
        words: &mut impl Iterator<Item = &'a OsString>,
    ) -> Result<(), String> {
        let mut rest = letters.chars();
        while let Some(letter) = rest.next() {
            let row = LETTERS.iter().find(|(known, ..)| *known == letter);
            let &(_, value, set) = row.ok_or_else(|| format!("unknown option -{letter}"))?;
            if value == Operand::None {
                set(self, String::new())?;
                continue;
            }
            let attached = rest.as_str().to_owned();
            if value == Operand::Attached || !attached.is_empty() {
                return set(self, attached);
            }
            let next = words.next().map(|word| word.to_string_lossy());
            let next = next.ok_or_else(|| format!("-{letter} needs a value"))?;
            return set(self, next.into_owned());
        }
        Ok(())
    }
}

fn mode(value: &str) -> Result<Mode, String> {
    match value {
        "m" => Ok(Mode::Send),
        "s" => Ok(Mode::Smtp),
        "p" => Ok(Mode::List),
        "i" => Ok(Mode::Aliases),
        _ => Err(format!(
            "-b{value} is not supported; -bm, -bs, -bp and -bi are"
        )),
    }
}

/// RFC 3461 §4.1.
fn notify(value: &str) -> Result<String, String> {
    let value = value.to_ascii_uppercase();
    let known = |word: &str| matches!(word, "SUCCESS" | "FAILURE" | "DELAY");
    if value == "NEVER" || value.split(',').all(known) {
        Ok(value)
    } else {
        Err("-N takes never, or success, failure and delay with commas between".to_owned())
    }
}

/// RFC 3461 §4.3.
fn ret(value: &str) -> Result<String, String> {
    match value.to_ascii_uppercase() {
        known if known == "FULL" || known == "HDRS" => Ok(known),
        _ => Err("-R takes full or hdrs".to_owned()),
    }
}

/// RFC 3461 §4.4.
fn envid(value: String) -> Result<String, String> {
    if (1..=100).contains(&value.len()) && value.bytes().all(|octet| octet.is_ascii_graphic()) {
        Ok(value)
    } else {
        Err("-V takes up to 100 printable characters".to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        let words: Vec<OsString> = text.split_whitespace().map(Into::into).collect();
        Options::parse(&words)
    }

    fn recipients(text: &str) -> Vec<String> {
        parse(text).unwrap().recipients
    }

    /// As cron, mdadm, logwatch, mailutils, s-nail, PHP and git send-email call it.
    #[test]
    fn as_programs_call_it() {
        let cron = parse("-FCronDaemon -i -B8BITMIME -oem root").unwrap();
        assert_eq!(cron.full_name.as_deref(), Some("CronDaemon"));
        assert!(cron.ignore_dots && !cron.header_recipients);
        assert_eq!(cron.recipients, ["root"]);
        assert!(parse("-t").unwrap().header_recipients);
        let mailutils = parse("-oi -f root@host -- bob carol").unwrap();
        assert_eq!(mailutils.sender.as_deref(), Some("root@host"));
        assert_eq!(mailutils.recipients, ["bob", "carol"]);
        let snail = parse("-i -r me@host -- -odd@host").unwrap();
        assert_eq!(
            (snail.sender.as_deref(), snail.ignore_dots),
            (Some("me@host"), true)
        );
        assert_eq!(snail.recipients, ["-odd@host"]);
        let php = parse("-t -i -fwww@host").unwrap();
        assert!(php.header_recipients && php.ignore_dots);
        assert_eq!(parse("-ti").unwrap(), parse("-t -i").unwrap());
        assert_eq!(recipients("-i a@b -f c@d e@f"), ["a@b", "e@f"]);
        let dsn = parse("-N success,delay -R hdrs -V id1 -bm x").unwrap();
        assert_eq!(dsn.notify.as_deref(), Some("SUCCESS,DELAY"));
        assert_eq!(
            (dsn.ret.as_deref(), dsn.envid.as_deref()),
            (Some("HDRS"), Some("id1"))
        );
        assert_eq!(parse("-bs").unwrap().mode, Mode::Smtp);
        for queue in ["--queue /q", "--queue=/q -v"] {
            assert_eq!(parse(queue).unwrap().queue, Some("/q".into()), "{queue}");
        }
        assert_eq!(
            parse("-O DeliveryMode=b -odi -o7 -bp").unwrap().mode,
            Mode::List
        );
    }

    #[test]
    fn unknown_and_incomplete_options() {
        for wrong in [
            "-Z", "-f", "-bd", "-bz", "-N maybe", "-R x", "-q", "-q15m", "--help", "--queue",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(Options::parse(&["-V".into(), "a b".into()]).is_err());
    }

    #[test]
    fn letters_are_unique() {
        for (place, (letter, ..)) in LETTERS.iter().enumerate() {
            let same = LETTERS.iter().position(|(other, ..)| other == letter);
            assert_eq!(same, Some(place), "{letter}");
        }
    }
}

//! The values given for options, as text, with their origin: command line over environment over config file over
//! default. `options` has the table, `config` interprets the values.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::failure::{Failure, FileError};
use crate::options::{Key, OPTIONS, Opt, Takes, row};

const YES: &str = "yes";
const NO: &str = "no";

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line, or the default.
    CommandLine,
    /// The environment.
    Environment,
    /// A file and a line, counted from 1.
    File(Arc<Path>, usize),
}

/// A value as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The option.
    pub key: Key,
    /// The text; `yes` or `no` for a flag.
    pub text: String,
    /// Its origin.
    pub origin: Origin,
}

impl Value {
    fn new(key: Key, text: &str, origin: &Origin) -> Self {
        Self {
            key,
            text: text.to_owned(),
            origin: origin.clone(),
        }
    }

    /// An error in this value, naming the option, and the variable or line of its origin.
    pub fn fault(&self, reason: impl fmt::Display) -> Failure {
        fault(row(self.key), &self.origin, reason)
    }

    /// The error for an invalid value; `expected` is the valid form.
    pub fn invalid(&self, expected: impl fmt::Display) -> Failure {
        let shown = printable(&self.text);
        self.fault(format_args!("invalid value '{shown}'; expected {expected}"))
    }
}

fn fault(opt: &Opt, origin: &Origin, reason: impl fmt::Display) -> Failure {
    let name = opt.name;
    match origin {
        Origin::CommandLine => Failure::Usage(format!("--{name}: {reason}")),
        Origin::Environment => Failure::Usage(format!("{}: {reason}", opt.variable())),
        Origin::File(path, line) => {
            FileError::new(path, Some(*line), format_args!("{name}: {reason}")).into()
        }
    }
}

/// The value on one line.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// All values, by option.
#[derive(Debug, Default)]
pub struct Settings {
    given: Vec<(Key, Vec<Value>)>,
}

impl Settings {
    /// Reads the command line, the environment and the config file.
    ///
    /// # Errors
    /// The error, with the option, variable or line.
    pub fn read(
        args: &[OsString],
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Failure> {
        let mut settings = Self::default();
        settings.command_line(args)?;
        for opt in OPTIONS {
            settings.environment(opt, env(&opt.variable()))?;
        }
        if let Some(config) = settings.one(Key::Config) {
            settings.file(Path::new(&config.text))?;
        }
        Ok(settings)
    }

    fn command_line(&mut self, args: &[OsString]) -> Result<(), Failure> {
        let args = args.iter().map(utf8).collect::<Result<Vec<&str>, _>>()?;
        let matches = parser().parse(args).map_err(|e| usage(&e))?;
        let mut words = matches.free.iter();
        for opt in OPTIONS.iter().filter(|opt| matches.opt_present(opt.name)) {
            let mut texts = match opt.takes {
                Takes::Nothing => vec![YES.to_owned()],
                _ => matches.opt_strs(opt.name),
            };
            if opt.takes == Takes::Maybe && texts.is_empty() {
                texts.push(words.next().cloned().unwrap_or_default());
            }
            self.add(
                opt,
                &mut texts.iter().map(String::as_str),
                &Origin::CommandLine,
            )?;
        }
        match words.next() {
            Some(word) => Err(Failure::Usage(format!(
                "unexpected argument '{}'; see --help",
                printable(word)
            ))),
            None => Ok(()),
        }
    }

    /// An empty variable counts as not set, because files for containers often leave them empty. Blanks around a value
    /// are not part of it, as in a file.
    fn environment(&mut self, opt: &'static Opt, text: Option<OsString>) -> Result<(), Failure> {
        let Some(text) = text.filter(|_| !self.is_given(opt.key)) else {
            return Ok(());
        };
        let origin = Origin::Environment;
        let text = text
            .to_str()
            .ok_or_else(|| fault(opt, &origin, "not UTF-8"))?
            .trim();
        if text.is_empty() && !opt.may_be_empty() {
            return Ok(());
        }
        match opt.takes {
            Takes::Many => self.add(opt, &mut text.split_whitespace(), &origin),
            _ => self.add(opt, &mut std::iter::once(text), &origin),
        }
    }

    fn file(&mut self, path: &Path) -> Result<(), Failure> {
        let text = FileError::read(path)?;
        let path: Arc<Path> = path.into();
        let mut read = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            // A comment only at the start of a line.
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.contains(|c: char| c.is_control() && c != '\t') {
                let reason = "a control character; lines end in LF or CRLF";
                return Err(FileError::new(&path, Some(number + 1), reason).into());
            }
            read.line(line, &Origin::File(Arc::clone(&path), number + 1))?;
        }
        read.given.retain(|(key, _)| !self.is_given(*key));
        self.given.append(&mut read.given);
        Ok(())
    }

    fn line(&mut self, line: &str, origin: &Origin) -> Result<(), Failure> {
        let (name, text) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let text = text.trim();
        let found = OPTIONS.iter().find(|opt| opt.name == name);
        let Some(opt) = found.filter(|opt| opt.key != Key::Config) else {
            let reason = format!("unknown option '{}'; see --help", printable(name));
            return Err(match origin {
                Origin::File(path, line) => FileError::new(path, Some(*line), reason).into(),
                _ => Failure::Usage(reason),
            });
        };
        if self.is_given(opt.key) && opt.takes != Takes::Many {
            return Err(fault(opt, origin, "given twice"));
        }
        match opt.takes {
            Takes::Nothing if text.is_empty() => self.add(opt, &mut std::iter::once(YES), origin),
            Takes::Many if !text.is_empty() && !opt.may_have_blanks() => {
                self.add(opt, &mut text.split_whitespace(), origin)
            }
            _ => self.add(opt, &mut std::iter::once(text), origin),
        }
    }

    fn add(
        &mut self,
        opt: &Opt,
        texts: &mut dyn Iterator<Item = &str>,
        origin: &Origin,
    ) -> Result<(), Failure> {
        let mut values = Vec::new();
        for text in texts {
            let value = Value::new(opt.key, text, origin);
            let value = match opt.takes {
                Takes::Nothing => yes_or_no(value)?,
                Takes::One | Takes::Many if text.is_empty() && !opt.may_be_empty() => {
                    return Err(value.fault(format_args!("needs a value: {}", opt.value)));
                }
                _ => value,
            };
            values.push(value);
        }
        match self.given.iter_mut().find(|(key, _)| *key == opt.key) {
            Some((_, known)) => known.append(&mut values),
            None => self.given.push((opt.key, values)),
        }
        Ok(())
    }

    fn all_given(&self, key: Key) -> Option<&Vec<Value>> {
        let found = self.given.iter().find(|(known, _)| *known == key);
        found.map(|(_, values)| values)
    }

    /// The value of a single option, or its default, if any.
    pub fn one(&self, key: Key) -> Option<Value> {
        self.all(key).pop()
    }

    /// All values of an option, or its default, if any.
    pub fn all(&self, key: Key) -> Vec<Value> {
        let default = row(key).default;
        match self.all_given(key) {
            Some(values) => values.clone(),
            None if default.is_empty() => Vec::new(),
            None => vec![Value::new(key, default, &Origin::CommandLine)],
        }
    }

    /// True if an option was given anywhere.
    pub fn is_given(&self, key: Key) -> bool {
        self.all_given(key).is_some()
    }

    /// True if a flag is set.
    pub fn flag(&self, key: Key) -> bool {
        let values = self.all_given(key);
        values.is_some_and(|values| values.iter().any(|value| value.text == YES))
    }

    /// An error in an option, at its origin or, without one, on the command line.
    pub fn fault(&self, key: Key, reason: impl fmt::Display) -> Failure {
        let value = self.one(key);
        value.map_or_else(
            || fault(row(key), &Origin::CommandLine, &reason),
            |value| value.fault(&reason),
        )
    }
}

fn parser() -> getopts::Options {
    let mut parser = getopts::Options::new();
    for opt in OPTIONS {
        match opt.takes {
            Takes::Nothing => parser.optflagmulti(opt.letter, opt.name, opt.help),
            Takes::One => parser.optopt(opt.letter, opt.name, opt.help, opt.value),
            Takes::Maybe => parser.optflagopt(opt.letter, opt.name, opt.help, opt.value),
            Takes::Many => parser.optmulti(opt.letter, opt.name, opt.help, opt.value),
        };
    }
    parser
}

/// The error of a command line as text, with the option as written.
fn usage(fail: &getopts::Fail) -> Failure {
    use getopts::Fail::{
        ArgumentMissing, OptionDuplicated, OptionMissing, UnexpectedArgument, UnrecognizedOption,
    };
    let (name, reason) = match fail {
        ArgumentMissing(name) => (name, needs_a_value(name)),
        UnrecognizedOption(name) => (name, "unknown option; see --help".to_owned()),
        OptionMissing(name) => (name, "missing".to_owned()),
        OptionDuplicated(name) => (name, "given twice".to_owned()),
        UnexpectedArgument(name) => (name, "takes no value".to_owned()),
    };
    let dashes = if name.chars().count() == 1 { "-" } else { "--" };
    Failure::Usage(format!("{dashes}{}: {reason}", printable(name)))
}

fn needs_a_value(name: &str) -> String {
    let known = |opt: &&Opt| opt.name == name || opt.letter == name;
    let value = OPTIONS.iter().find(known).map_or("", |opt| opt.value);
    format!("needs a value: {value}")
}

fn utf8(arg: &OsString) -> Result<&str, Failure> {
    arg.to_str().ok_or_else(|| {
        let shown = printable(&arg.to_string_lossy());
        Failure::Usage(format!("argument '{shown}' is not UTF-8"))
    })
}

fn yes_or_no(value: Value) -> Result<Value, Failure> {
    let text = match value.text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "1" | "on" => YES,
        "no" | "false" | "0" | "off" => NO,
        _ => return Err(value.invalid("yes or no")),
    };
    Ok(Value::new(value.key, text, &value.origin))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(args: &str, env: &[(&str, &str)]) -> Result<Settings, Failure> {
        let args: Vec<OsString> = args.split_whitespace().map(OsString::from).collect();
        let value = |name: &str| env.iter().find(|(known, _)| *known == name);
        Settings::read(&args, |name| value(name).map(|(_, text)| text.into()))
    }

    fn texts(settings: &Settings, key: Key) -> Vec<String> {
        settings
            .all(key)
            .into_iter()
            .map(|value| value.text)
            .collect()
    }

    #[test]
    fn the_nearer_source_wins() {
        let env = [("MAILSLOT_MAX_SIZE", "2M")];
        for (args, env, size) in [
            ("--max-size 1M", &env[..], "1M"),
            ("", &env[..], "2M"),
            ("", &[], "50M"),
        ] {
            assert_eq!(texts(&read(args, env).unwrap(), Key::MaxSize), [size]);
        }
        let twice = read("-d a -d b --create", &[]).unwrap();
        assert_eq!(texts(&twice, Key::Domain), ["a", "b"]);
        assert!(twice.flag(Key::Create));
    }

    #[test]
    fn the_environment_splits_at_white_space_and_its_faults_name_the_variable() {
        let env = [
            ("MAILSLOT_DOMAIN", "a \t b"),
            ("MAILSLOT_USERS", " "),
            ("MAILSLOT_TIMEOUT", " 5m\r"),
        ];
        let settings = read("", &env).unwrap();
        assert_eq!(texts(&settings, Key::Domain), ["a", "b"]);
        assert!(texts(&settings, Key::Users).is_empty());
        assert_eq!(texts(&settings, Key::Timeout), ["5m"]);
        let none = read("", &[("MAILSLOT_RECIPIENT_DELIMITER", "")]).unwrap();
        assert_eq!(texts(&none, Key::RecipientDelimiter), [""]);
        let wrong = read("", &[("MAILSLOT_CREATE", "maybe")]).unwrap_err();
        let said = "MAILSLOT_CREATE: invalid value 'maybe'; expected yes or no";
        assert_eq!(wrong, Failure::Usage(said.to_owned()));
    }

    #[test]
    fn a_wrong_command_line_is_named() {
        for (wrong, said) in [
            ("--nonsense", "--nonsense: unknown option; see --help"),
            ("word", "unexpected argument 'word'; see --help"),
            ("--max-size", "--max-size: needs a value: SIZE"),
            ("-d", "-d: needs a value: NAME"),
            ("--max-size 1 --max-size 2", "--max-size: given twice"),
            ("--create=yes", "--create: takes no value"),
            ("--domain=", "--domain: needs a value: NAME"),
        ] {
            let failure = read(wrong, &[]).unwrap_err();
            assert_eq!(failure, Failure::Usage(said.to_owned()), "{wrong}");
        }
    }

    #[test]
    fn faults_are_one_line() {
        let value = Value::new(Key::Domain, "a\nb\u{9b}", &Origin::CommandLine);
        let said = "--domain: invalid value 'a\\nb\\u{9b}'; expected a domain";
        assert_eq!(value.invalid("a domain"), Failure::Usage(said.to_owned()));
    }
}

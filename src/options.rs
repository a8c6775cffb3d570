//! The one table of options. getopts, `--help`, the config file's keys and the environment's
//! names are made from it. What was said is text here; what it means is decided in `config`.

use std::collections::HashMap;

/// An option.
#[derive(Debug)]
pub struct Opt {
    /// Long name; in a config file and, upper-cased with `_`, behind `MAILSLOT_` too.
    pub name: &'static str,
    /// Letter, or empty.
    pub letter: &'static str,
    /// Name of its value; empty for a flag.
    pub value: &'static str,
    /// Whether it may be given again.
    pub repeatable: bool,
    /// Where it is not given; repeatable ones split at white space.
    pub default: &'static str,
    /// One line.
    pub help: &'static str,
}

const fn opt(
    name: &'static str,
    letter: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Opt {
    Opt {
        name,
        letter,
        value,
        repeatable: false,
        default,
        help,
    }
}

/// A flag.
const fn flag(name: &'static str, letter: &'static str, help: &'static str) -> Opt {
    opt(name, letter, "", "", help)
}

impl Opt {
    const fn repeatable(self) -> Self {
        Self {
            repeatable: true,
            ..self
        }
    }
}

/// The table.
#[rustfmt::skip]
pub const OPTIONS: &[Opt] = &[
    opt("listen", "l", "URL", "smtp://127.0.0.1:2525", "smtp:// submission:// lmtp:/PATH ...").repeatable(),
    opt("hostname", "", "NAME", "", "own name (the system's)"),
    opt("domain", "d", "NAME", "", "a local domain (hostname, localhost)").repeatable(),
    opt("maildir", "m", "PATTERN", "mail/%d/%u", "%u local part, %d domain, %%"),
    flag("create", "", "all names are mailboxes, made on delivery"),
    opt("users", "u", "FILE", "", "accounts, a passwd-file as Dovecot reads it"),
    opt("aliases", "a", "FILE", "", "aliases(5): name: target, target"),
    opt("recipient-delimiter", "", "CHARS", "+", "between user and folder; '' for none"),
    opt("quota", "", "SIZE[,N]", "", "octets and messages of each mailbox"),
    opt("max-size", "", "SIZE", "50M", "octets of a message"),
    opt("max-recipients", "", "N", "1000", "recipients of a message"),
    opt("max-connections", "", "N", "512", "connections at once"),
    opt("max-per-client", "", "N", "64", "connections of one address at once"),
    opt("max-errors", "", "N", "20", "errors of a connection"),
    opt("timeout", "", "DURATION", "5m", "the wait for a client"),
    opt("tls-cert", "", "FILE", "", "PEM chain: offers STARTTLS"),
    opt("tls-key", "", "FILE", "", "PEM key of that certificate"),
    flag("require-tls", "", "no mail in the clear"),
    flag("insecure-auth", "", "AUTH also in the clear"),
    flag("auth-sender", "", "a user sends from his own addresses only"),
    flag("auth-header", "", "Received names the user"),
    flag("vrfy", "", "answer VRFY truthfully"),
    flag("expn", "", "answer EXPN truthfully"),
    opt("sync", "", "full|none", "full", "none: no fsync (tmpfs, test sinks)"),
    opt("bare-newline", "", "reject|normalize", "reject", "a bare CR or LF in a message"),
    opt("config", "", "FILE", "", "the same names, one `name value` a line"),
    flag("check", "", "load everything, say what would be served"),
    flag("hash-password", "", "make a users file's password from stdin"),
    flag("verbose", "v", "log more"),
    flag("quiet", "q", "log errors only"),
    flag("help", "", "this page"),
    flag("version", "", "the version"),
];

/// What went wrong, in one line, and the exit status of it (sysexits.h).
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// One line.
    pub text: String,
    /// 64 command line, 71 system, 78 file.
    pub status: u8,
}

impl Failure {
    /// An unusable command line or environment.
    pub fn usage(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            status: 64,
        }
    }
}

/// What was said, by name; command line over environment over file over default.
#[derive(Debug, Default)]
pub struct Settings {
    said: HashMap<&'static str, Vec<String>>,
}

impl Settings {
    /// Reads the command line, the environment and the config file.
    ///
    /// # Errors
    /// What is wrong, by option or by file and line.
    pub fn read(args: &[String], env: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let mut settings = Self::default();
        settings.command_line(args)?;
        for opt in OPTIONS {
            let name = format!("MAILSLOT_{}", opt.name.to_uppercase().replace('-', "_"));
            if let Some(value) = env(&name) {
                settings
                    .add_missing(opt, &value, &name)
                    .map_err(Failure::usage)?;
            }
        }
        if let Some(path) = settings
            .one("config")
            .map(str::to_owned)
            .filter(|p| !p.is_empty())
        {
            settings.file(&path)?;
        }
        Ok(settings)
    }

    fn command_line(&mut self, args: &[String]) -> Result<(), Failure> {
        let mut options = getopts::Options::new();
        for opt in OPTIONS {
            match (opt.value, opt.repeatable) {
                ("", _) => options.optflagmulti(opt.letter, opt.name, opt.help),
                (value, true) => options.optmulti(opt.letter, opt.name, opt.help, value),
                (value, false) => options.optopt(opt.letter, opt.name, opt.help, value),
            };
        }
        let matches = options
            .parse(args)
            .map_err(|e| Failure::usage(format!("{e}; try --help")))?;
        if let Some(word) = matches.free.first() {
            return Err(Failure::usage(format!(
                "unexpected argument '{word}'; try --help"
            )));
        }
        for opt in OPTIONS {
            let values = if opt.value.is_empty() {
                vec!["yes".to_owned(); usize::from(matches.opt_present(opt.name))]
            } else {
                matches.opt_strs(opt.name)
            };
            if !values.is_empty() {
                self.said.insert(opt.name, values);
            }
        }
        Ok(())
    }

    fn add_missing(&mut self, opt: &Opt, value: &str, place: &str) -> Result<(), String> {
        if self.said.contains_key(opt.name) {
            return Ok(());
        }
        self.said.insert(opt.name, values(opt, value, place)?);
        Ok(())
    }

    fn file(&mut self, path: &str) -> Result<(), Failure> {
        let broken = |text: String| Failure { text, status: 78 };
        let text = std::fs::read_to_string(path).map_err(|e| broken(format!("{path}: {e}")))?;
        let mut read: HashMap<&'static str, Vec<String>> = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line.split_once([' ', '\t']).unwrap_or((line, "yes"));
            let place = format!("{path}:{}", number + 1);
            let opt = OPTIONS.iter().find(|o| o.name == name && name != "config");
            let opt = opt.ok_or_else(|| broken(format!("{place}: unknown option '{name}'")))?;
            let more = values(opt, value.trim(), &place).map_err(broken)?;
            let known = read.entry(opt.name).or_default();
            if !known.is_empty() && !opt.repeatable {
                return Err(broken(format!("{place}: '{name}' is given twice")));
            }
            known.extend(more);
        }
        for (name, values) in read {
            self.said.entry(name).or_insert(values);
        }
        Ok(())
    }

    /// The value of an option that is given once, or its default.
    pub fn one(&self, name: &str) -> Option<&str> {
        let said = self.said.get(name).and_then(|values| values.last());
        said.map(String::as_str).or_else(|| default(name))
    }

    /// All values of a repeatable option, or its defaults.
    pub fn all(&self, name: &str) -> Vec<&str> {
        match self.said.get(name) {
            Some(values) => values.iter().map(String::as_str).collect(),
            None => default(name)
                .into_iter()
                .flat_map(str::split_whitespace)
                .collect(),
        }
    }

    /// Whether a flag was given.
    pub fn flag(&self, name: &str) -> bool {
        self.said
            .get(name)
            .is_some_and(|values| values.iter().any(|v| v == "yes"))
    }
}

fn default(name: &str) -> Option<&'static str> {
    OPTIONS.iter().find(|o| o.name == name).map(|o| o.default)
}

fn values(opt: &Opt, value: &str, place: &str) -> Result<Vec<String>, String> {
    match (opt.value, value.to_ascii_lowercase().as_str()) {
        ("", "yes" | "true" | "1" | "on") => Ok(vec!["yes".to_owned()]),
        ("", "no" | "false" | "0" | "off" | "") => Ok(vec!["no".to_owned()]),
        ("", _) => Err(format!(
            "{place}: '{}' takes yes or no, not '{value}'",
            opt.name
        )),
        _ if opt.repeatable => Ok(value.split_whitespace().map(str::to_owned).collect()),
        _ => Ok(vec![value.to_owned()]),
    }
}

/// The page of `--help`, 80 columns wide at the most.
pub fn help() -> String {
    let mut page =
        String::from("mailslot [OPTIONS]: receive mail by SMTP, deliver it into Maildirs\n\n");
    for opt in OPTIONS {
        let letter = if opt.letter.is_empty() {
            "   ".to_owned()
        } else {
            format!("-{},", opt.letter)
        };
        let name = format!("{letter} --{} {}", opt.name, opt.value);
        page.push_str(&format!("{name:<36}{}\n", opt.help));
    }
    page
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn args(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_nearer_source_wins() {
        let env = |name: &str| (name == "MAILSLOT_MAX_SIZE").then(|| "2M".to_owned());
        assert_eq!(
            Settings::read(&args("--max-size 1M"), env)
                .unwrap()
                .one("max-size"),
            Some("1M")
        );
        assert_eq!(
            Settings::read(&[], env).unwrap().one("max-size"),
            Some("2M")
        );
        assert_eq!(
            Settings::read(&[], |_| None).unwrap().one("max-size"),
            Some("50M")
        );
        let twice = Settings::read(&args("-d a -d b --create"), |_| None).unwrap();
        assert_eq!(
            (twice.all("domain"), twice.flag("create")),
            (vec!["a", "b"], true)
        );
    }

    #[test]
    fn a_wrong_command_line_is_named() {
        for wrong in [
            "--nonsense",
            "word",
            "--max-size",
            "--max-size 1 --max-size 2",
        ] {
            assert_eq!(
                Settings::read(&args(wrong), |_| None).unwrap_err().status,
                64,
                "{wrong}"
            );
        }
    }

    #[test]
    fn help_fits_a_screen() {
        assert!(help().lines().count() <= 40 && help().lines().all(|line| line.len() <= 80));
        for (line, opt) in help().lines().skip(2).zip(OPTIONS) {
            assert!(line.ends_with(&format!(" {}", opt.help)), "{line}");
        }
    }
}

//! The one table of options. getopts, `--help`, the keys of the config file, the names in the
//! environment, the man page and the README are made from it. What was given for an option is in
//! `settings`, what it means in `config`.

/// The name by which code asks for an option: a misspelt one does not compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is a row of the table")]
pub enum Key {
    Listen,
    Hostname,
    Domain,
    Maildir,
    Create,
    Users,
    Aliases,
    RecipientDelimiter,
    Quota,
    MaxSize,
    MaxRecipients,
    MaxConnections,
    MaxPerClient,
    MaxErrors,
    Timeout,
    TlsCert,
    TlsKey,
    RequireTls,
    InsecureAuth,
    AuthSender,
    AuthHeader,
    Vrfy,
    Expn,
    Sync,
    BareNewline,
    RunAs,
    Chroot,
    Config,
    Check,
    HashPassword,
    Healthcheck,
    Sendmail,
    Verbose,
    Quiet,
    Help,
    Version,
}

/// How often an option takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Never: it is given or not.
    Nothing,
    /// Once.
    One,
    /// Once, or is given without: `--name=VALUE`, or the only other word of the command line.
    Maybe,
    /// As often as it is given. In the environment and in a file several may share a line.
    Many,
}

/// An option.
#[derive(Debug)]
pub struct Opt {
    /// Its key.
    pub key: Key,
    /// Long name; in the config file too, and upper-cased with `_` after `MAILSLOT_`.
    pub name: &'static str,
    /// Letter, or empty.
    pub letter: &'static str,
    /// How often it takes a value.
    pub takes: Takes,
    /// Name of its value; empty for a flag.
    pub value: &'static str,
    /// The value where none is given.
    pub default: &'static str,
    /// One line.
    pub help: &'static str,
}

const fn opt(key: Key, name: &'static str, value: &'static str, help: &'static str) -> Opt {
    Opt {
        key,
        name,
        letter: "",
        takes: Takes::One,
        value,
        default: "",
        help,
    }
}

const fn flag(key: Key, name: &'static str, help: &'static str) -> Opt {
    opt(key, name, "", help).takes(Takes::Nothing)
}

impl Opt {
    const fn letter(self, letter: &'static str) -> Self {
        Self { letter, ..self }
    }

    const fn takes(self, takes: Takes) -> Self {
        Self { takes, ..self }
    }

    const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    /// Its name in the environment.
    pub fn variable(&self) -> String {
        format!("MAILSLOT_{}", self.name.to_uppercase().replace('-', "_"))
    }

    /// Whether the empty value means something: "none" where the default is something else.
    pub fn may_be_empty(&self) -> bool {
        self.key == Key::RecipientDelimiter
    }
}

/// The table, in the order of [`Key`].
#[rustfmt::skip]
pub const OPTIONS: &[Opt] = &[
    opt(Key::Listen, "listen", "URL", "smtp:// submission:// lmtp:/PATH ...").letter("l").takes(Takes::Many).default("smtp://127.0.0.1:2525"),
    opt(Key::Hostname, "hostname", "NAME", "own name (the system's)"),
    opt(Key::Domain, "domain", "NAME", "a local domain (hostname, localhost)").letter("d").takes(Takes::Many),
    opt(Key::Maildir, "maildir", "PATTERN", "%u local part, %d domain, %%").letter("m").default("mail/%d/%u"),
    flag(Key::Create, "create", "any name is a mailbox, made on delivery"),
    opt(Key::Users, "users", "FILE", "accounts, a passwd-file as for Dovecot").letter("u"),
    opt(Key::Aliases, "aliases", "FILE", "aliases(5): name: target, target").letter("a"),
    opt(Key::RecipientDelimiter, "recipient-delimiter", "CHARS", "between user and folder; '' for none").default("+"),
    opt(Key::Quota, "quota", "SIZE[,N]", "size and messages of each mailbox"),
    opt(Key::MaxSize, "max-size", "SIZE", "size of a message").default("50M"),
    opt(Key::MaxRecipients, "max-recipients", "N", "recipients of a message").default("1000"),
    opt(Key::MaxConnections, "max-connections", "N", "connections at once").default("512"),
    opt(Key::MaxPerClient, "max-per-client", "N", "connections of one client at once").default("64"),
    opt(Key::MaxErrors, "max-errors", "N", "errors in a connection").default("20"),
    opt(Key::Timeout, "timeout", "DURATION", "wait for a client's next octets").default("5m"),
    opt(Key::TlsCert, "tls-cert", "FILE", "PEM certificate chain: offers STARTTLS"),
    opt(Key::TlsKey, "tls-key", "FILE", "PEM key of that certificate"),
    flag(Key::RequireTls, "require-tls", "no mail without TLS"),
    flag(Key::InsecureAuth, "insecure-auth", "AUTH without TLS too"),
    flag(Key::AuthSender, "auth-sender", "users send from their own addresses only"),
    flag(Key::AuthHeader, "auth-header", "name the user in Received"),
    flag(Key::Vrfy, "vrfy", "answer VRFY truthfully"),
    flag(Key::Expn, "expn", "answer EXPN truthfully"),
    opt(Key::Sync, "sync", "full|none", "none: no fsync (tmpfs, test sinks)").default("full"),
    opt(Key::BareNewline, "bare-newline", "reject|normalize", "a bare CR or LF in a message").default("reject"),
    opt(Key::RunAs, "run-as", "USER[:GROUP]", "change to this user after the start"),
    opt(Key::Chroot, "chroot", "DIR", "change the root directory after the start"),
    opt(Key::Config, "config", "FILE", "the same names, one `name value` a line"),
    flag(Key::Check, "check", "load everything, say what would be served"),
    flag(Key::HashPassword, "hash-password", "hash a password from stdin for --users"),
    opt(Key::Healthcheck, "healthcheck", "URL", "greet a listener (the first); exit 0 or 1").takes(Takes::Maybe),
    flag(Key::Sendmail, "sendmail", "be sendmail(1); must come first"),
    flag(Key::Verbose, "verbose", "log more").letter("v"),
    flag(Key::Quiet, "quiet", "log errors only").letter("q"),
    flag(Key::Help, "help", "print this page"),
    flag(Key::Version, "version", "print the version"),
];

/// The compiler sees that each key has its row.
const _: () = {
    let mut place = 0;
    while place < OPTIONS.len() {
        #[expect(clippy::indexing_slicing, reason = "below the length")]
        let key = OPTIONS[place].key;
        assert!(key as usize == place, "OPTIONS and Key differ in order");
        place += 1;
    }
    assert!(place == Key::Version as usize + 1, "a key without a row");
};

/// The row of a key.
#[expect(clippy::indexing_slicing, reason = "checked above")]
pub const fn row(key: Key) -> &'static Opt {
    &OPTIONS[key as usize]
}

/// The page of `--help`: 80 columns at most.
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
    use super::*;

    #[test]
    fn names_are_unique_and_values_are_named() {
        for opt in OPTIONS {
            assert_eq!(
                opt.value.is_empty(),
                opt.takes == Takes::Nothing,
                "{}",
                opt.name
            );
            let same = |other: &&Opt| other.name == opt.name;
            assert_eq!(OPTIONS.iter().filter(same).count(), 1, "{}", opt.name);
        }
    }

    #[test]
    fn help_fits_a_screen() {
        assert!(help().lines().all(|line| line.len() <= 80));
        for (line, opt) in help().lines().skip(2).zip(OPTIONS) {
            assert!(line.ends_with(&format!(" {}", opt.help)), "{line}");
        }
    }
}

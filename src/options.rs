//! The table of options. getopts, `--help`, the keys of the config file, the environment variables, the man page and
//! the README are made from it. `settings` collects the values, `config` interprets them.

/// The name of an option in code, so that a misspelt one does not compile.
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
    MaxRate,
    Greylist,
    MaxErrors,
    Timeout,
    TlsCert,
    TlsKey,
    RequireTls,
    InsecureAuth,
    Oauth,
    AuthSender,
    AuthHeader,
    Vrfy,
    Expn,
    Sync,
    BareNewline,
    BareAddress,
    Junk,
    Trust,
    RunAs,
    Chroot,
    Config,
    Check,
    HashPassword,
    Healthcheck,
    Sendmail,
    Relay,
    RelayFrom,
    RelayAuth,
    TlsCa,
    Queue,
    Retry,
    RetryFor,
    QueueList,
    QueueRun,
    Verbose,
    Quiet,
    Help,
    Version,
}

/// How an option takes values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// No value: a flag.
    Nothing,
    /// Once.
    One,
    /// An optional value: `--name=VALUE`, or the only other word of the command line.
    Maybe,
    /// Repeatable. In the environment and in a file several values may share a line.
    Many,
}

/// An option.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// Its key.
    pub key: Key,
    /// Long name; in the config file too, and upper-cased with `_` after `MAILSLOT_`.
    pub name: &'static str,
    /// Letter, or empty.
    pub letter: &'static str,
    /// How it takes values.
    pub takes: Takes,
    /// Name of its value; empty for a flag.
    pub value: &'static str,
    /// The default.
    pub default: &'static str,
    /// The help text, one line.
    pub help: &'static str,
    /// Its paragraph in the man page; empty if `help` is enough, and in [`OPTIONS`].
    pub manual: &'static str,
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
        manual: "",
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

    const fn manual(self, manual: &'static str) -> Self {
        Self { manual, ..self }
    }

    const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    /// The name of its environment variable.
    pub fn variable(&self) -> String {
        format!("MAILSLOT_{}", self.name.to_uppercase().replace('-', "_"))
    }

    /// True if an empty value is meaningful: it turns a default off.
    pub fn may_be_empty(&self) -> bool {
        self.key == Key::RecipientDelimiter
    }

    /// True if a line of a file is one value, although the option is repeatable: a header field has blanks.
    pub fn may_have_blanks(&self) -> bool {
        self.key == Key::Junk
    }
}

/// The table, in the order of [`Key`], for the man page. The program itself uses [`OPTIONS`].
#[rustfmt::skip]
pub const DOCUMENTED: &[Opt] = &[
    opt(Key::Listen, "listen", "URL", "smtp:// submission:// lmtp:/PATH ...").letter("l").takes(Takes::Many).default("smtp://127.0.0.1:2525")
        .manual("smtp://HOST:PORT, submission://, submissions:// (smtps://), lmtp://, smtp:/PATH and lmtp:/PATH. The default ports are 25, 587, 465 and 24; without HOST it is all interfaces. Port 0 lets the system choose; the log says which. After the path of a Unix socket ?mode=0660, ?user= and ?group= may follow. With ?proxy a PROXY header must come before everything else, within 30 seconds, from a client of --trust; a connection without one is closed without a reply. metrics://HOST:PORT answers GET /metrics (OpenMetrics) and GET /healthz, on loopback unless HOST is given."),
    opt(Key::Hostname, "hostname", "NAME", "host name (default: the system's)")
        .manual("The name in the greeting, the reply to EHLO and Received fields. The default is the host name of the system."),
    opt(Key::Domain, "domain", "NAME", "a local domain (hostname, localhost)").letter("d").takes(Takes::Many)
        .manual("A domain whose mail is delivered here, compared without case, as A-label or U-label. The default is the host name and localhost."),
    opt(Key::Maildir, "maildir", "PATTERN", "%u local part, %d domain, %%").letter("m").default("mail/%d/%u")
        .manual("Where a mailbox is: %u is the local part in lower case, %d the domain, %% a percent sign. The part before the first % must exist; with --create it is created at the start, and never later."),
    flag(Key::Create, "create", "any name is a mailbox, created on delivery")
        .manual("Any well-formed local part at a delivered domain is a mailbox, and its Maildir is created on first delivery."),
    opt(Key::Users, "users", "FILE", "accounts, a passwd-file as for Dovecot").letter("u")
        .manual("The accounts, see mailslot-users(5). Their Maildirs are created on first delivery."),
    opt(Key::Aliases, "aliases", "FILE", "aliases(5): name: target, target").letter("a")
        .manual("A file as described in aliases(5). Commands, files and :include: are refused. Without --relay a remote target is answered with 551."),
    opt(Key::RecipientDelimiter, "recipient-delimiter", "CHARS", "between user and folder; '' for none").default("+")
        .manual("The characters between a user and a folder; an empty value turns folders off. Mail for user+folder goes to the Maildir++ folder .folder if it exists, else to the inbox."),
    opt(Key::Quota, "quota", "SIZE[,N]", "maximum size and messages of a mailbox")
        .manual("The default Maildir++ quota of mailboxes, kept in maildirsize."),
    opt(Key::MaxSize, "max-size", "SIZE", "maximum size of a message").default("50M")
        .manual("The maximum size of a message. A larger one is answered with 552."),
    opt(Key::MaxRecipients, "max-recipients", "N", "maximum recipients of a message").default("1000")
        .manual("The maximum number of recipients of a message, counting the mailboxes that aliases expand to. Further ones are answered with 452."),
    opt(Key::MaxConnections, "max-connections", "N", "maximum connections").default("512")
        .manual("The maximum number of connections. Further ones are answered with 421."),
    opt(Key::MaxPerClient, "max-per-client", "N", "maximum connections of one client").default("64")
        .manual("The maximum number of connections of one client. A client is an IPv4 address or an IPv6 /64."),
    opt(Key::MaxRate, "max-rate", "N/DURATION", "messages of a client or user, as 100/1h")
        .manual("The number of messages that a client, or after AUTH a user, may send in that time. Only accepted messages count; past the limit MAIL is answered with 450. A client is defined as for --max-per-client; Unix sockets are not limited."),
    opt(Key::Greylist, "greylist", "DELAY[,FILE]", "defer the first mail of unknown clients")
        .manual("On smtp:// listeners the first mail of a client, reverse-path and recipient is answered with 451 4.7.1 until DELAY has passed. A client that tries again within 4 hours is known for 36 days, with its network (/24, or /64 of IPv6). Users, --relay-from and --trust clients are not delayed. FILE keeps the list over a restart; it is written a minute after a change and at the end, as the user and in the root directory that the server runs with."),
    opt(Key::MaxErrors, "max-errors", "N", "maximum errors in a connection").default("20")
        .manual("The maximum number of 4xx and 5xx replies in a connection. The next one is 421, and the connection is closed."),
    opt(Key::Timeout, "timeout", "DURATION", "how long to wait for a client").default("5m")
        .manual("How long to wait for a client: for a whole command, not for each octet. It is a tenth of that while more than four fifths of the connections are in use; then a connection that has brought no message for this time is closed, too."),
    opt(Key::TlsCert, "tls-cert", "FILE", "PEM certificate chain: offers STARTTLS")
        .manual("The certificate chain in PEM. Without it there is no STARTTLS and no submissions://."),
    opt(Key::TlsKey, "tls-key", "FILE", "PEM key of that certificate")
        .manual("The key of the certificate in PEM, not encrypted."),
    flag(Key::RequireTls, "require-tls", "no mail without TLS")
        .manual("Without TLS only EHLO, HELO, LHLO, NOOP, RSET, HELP, STARTTLS and QUIT are served, on loopback and Unix sockets too."),
    flag(Key::InsecureAuth, "insecure-auth", "offer AUTH without TLS")
        .manual("Offers AUTH without TLS as well. Passwords are then sent in the clear."),
    opt(Key::Oauth, "oauth", "FILE[?issuer=..]", "keys of tokens for XOAUTH2, OAUTHBEARER")
        .manual("Users may log in with a token (JWT, RFC 7519) of their identity provider. FILE is the provider's JWK set (RFC 7517) with keys for RS256, PS256, ES256, ES384 or EdDSA. It may be followed by ?issuer=, &audience= and &claim=: the iss and aud that a token must have, and the claim that names the account (default email). Tokens without exp are refused, and so are tokens with an audience if none is configured. Nothing is fetched; SIGHUP reads the file again."),
    flag(Key::AuthSender, "auth-sender", "users send from their own addresses only")
        .manual("MAIL FROM must be an address of the user who logged in."),
    flag(Key::AuthHeader, "auth-header", "name the user in Received")
        .manual("Names the user in Received. Otherwise that field only says that the client was authenticated."),
    flag(Key::Vrfy, "vrfy", "answer VRFY truthfully")
        .manual("Answers VRFY truthfully. Otherwise every address is answered with 252."),
    flag(Key::Expn, "expn", "answer EXPN truthfully")
        .manual("Answers EXPN truthfully. Otherwise it is answered with 502."),
    opt(Key::Sync, "sync", "full|none", "none: no fsync (tmpfs, test sinks)").default("full")
        .manual("With full, files and directories are synced before the 250. With none, accepted mail may be lost in a power cut."),
    opt(Key::BareNewline, "bare-newline", "reject|normalize", "what to do with a bare CR or LF").default("reject")
        .manual("How to handle a bare CR or LF in a message: reject answers 550 5.6.0; normalize treats it as a line end of the content. It never ends a message."),
    flag(Key::BareAddress, "bare-address", "accept addresses without angle brackets")
        .manual("Accepts MAIL FROM:user@host and RCPT TO:user@host without angle brackets, as printers, cameras and old scripts send them."),
    opt(Key::Junk, "junk", "FIELD:VALUE", "mail with that field goes to .Junk").takes(Takes::Many)
        .manual("A message with this header field, as spam filters add it (X-Spam-Flag:YES), goes to the folder .Junk of each mailbox that has one. The name is compared without case, and the value must begin with VALUE. Mail for user+folder still goes to that folder. In the environment VALUE is one word."),
    opt(Key::Trust, "trust", "CIDR|unix", "proxies that may name the real client").takes(Takes::Many)
        .manual("Load balancers and mail proxies that are trusted to name the client they connect for: by XCLIENT, which is only offered to them, and by the PROXY header (version 1 or 2) on a listener with ?proxy, which only serves them. unix means Unix sockets. Limits, log and Received then use that client."),
    opt(Key::RunAs, "run-as", "USER[:GROUP]", "change to this user after the start")
        .manual("The user, and the group if it is not the user's own, by name or number. Once listeners are bound and files are read, the process changes to it and drops all groups and capabilities for good. Later reloads read the files as this user."),
    opt(Key::Chroot, "chroot", "DIR", "change the root directory after the start")
        .manual("The root directory, once listeners are bound and files are read. Paths of mailboxes and of files at a reload are inside it."),
    opt(Key::Config, "config", "FILE", "file of options, one `name value` a line")
        .manual("A file of further options: each line is an option's long name and its value. A # only begins a comment at the start of a line. A flag takes yes, no or nothing."),
    flag(Key::Check, "check", "check the configuration and describe it")
        .manual("Reads all files, describes what would be served, and exits with 0, or with 78 if a file is unusable."),
    flag(Key::HashPassword, "hash-password", "hash a password from stdin for --users")
        .manual("Reads a password from standard input, without echo on a terminal, and prints its hash. The output is the second field of a line in the users file."),
    opt(Key::Healthcheck, "healthcheck", "URL", "greet a listener (the first); exit 0 or 1").takes(Takes::Maybe)
        .manual("Waits for the greeting, sends EHLO or LHLO and QUIT, to URL or to the first listener. Exits with 0, or with 1 and the reason. The server logs these connections at level debug only. To a listener with ?proxy it sends a PROXY header without addresses; its own address must be in --trust."),
    flag(Key::Sendmail, "sendmail", "act as sendmail(1); must be first")
        .manual("Reads a message from standard input and sends it to the local server, as when it is called by the name sendmail."),
    opt(Key::Relay, "relay", "URL", "next hop for mail to other domains").takes(Takes::Many)
        .manual("The next hop for mail to other domains: smtp://HOST (STARTTLS if offered; ?tls=require or none), submission://[USER@]HOST, submissions://[USER@]HOST, lmtp://HOST, lmtp:/PATH, or mx: for each domain's own mail servers. ?for=DOMAIN restricts it to that domain, ?for=.DOMAIN to its subdomains; ?connections=N sets the maximum number of connections (default 2)."),
    opt(Key::RelayFrom, "relay-from", "CIDR|unix", "clients that may relay without a login").takes(Takes::Many),
    opt(Key::RelayAuth, "relay-auth", "FILE", "HOST[:PORT] USER PASSWORD a line"),
    opt(Key::TlsCa, "tls-ca", "FILE", "PEM roots for next hops (the system's)"),
    opt(Key::Queue, "queue", "DIR", "directory of the queue").default("queue"),
    opt(Key::Retry, "retry", "DURATION", "first retry interval; it doubles").default("5m"),
    opt(Key::RetryFor, "retry-for", "DURATION", "when to give up and return relayed mail").default("5d"),
    flag(Key::QueueList, "queue-list", "list the mail in the queue"),
    opt(Key::QueueRun, "queue-run", "ID|DOMAIN", "retry queued mail now (default: all)").takes(Takes::Maybe),
    flag(Key::Verbose, "verbose", "log more").letter("v")
        .manual("Writes the dialogue of each connection, without content and secrets."),
    flag(Key::Quiet, "quiet", "log errors only").letter("q")
        .manual("Logs errors only. The variable RUST_LOG sets other levels."),
    flag(Key::Help, "help", "print this page"),
    flag(Key::Version, "version", "print the version"),
];

/// The table without the paragraphs, so that the binary does not contain them.
pub const OPTIONS: &[Opt] = &BRIEF;

/// Made at compile time, which also checks that each key has its row.
static BRIEF: [Opt; DOCUMENTED.len()] = {
    let mut table = [flag(Key::Help, "", ""); DOCUMENTED.len()];
    let mut place = 0;
    while place < table.len() {
        #[expect(clippy::indexing_slicing, reason = "below the length")]
        let opt = DOCUMENTED[place];
        assert!(
            opt.key as usize == place,
            "the table and Key differ in order"
        );
        #[expect(clippy::indexing_slicing, reason = "below the length")]
        (table[place] = Opt { manual: "", ..opt });
        place += 1;
    }
    assert!(place == Key::Version as usize + 1, "a key without a row");
    table
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

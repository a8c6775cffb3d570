//! Turns settings, which are text, into typed configuration. Files are read in `state`, because they may change while
//! the server runs.

use std::path::PathBuf;
use std::time::Duration;

use crate::deliver::{JunkField, Quota, Sync};
use crate::directory::DirectoryConfig;
use crate::failure::Failure;
use crate::greylist::{self, RETRY_WITHIN};
use crate::net::url::{BindTo, ListenUrl, Scheme};
use crate::oauth;
use crate::options::Key;
use crate::relay;
use crate::settings::{Settings, Value};
use crate::smtp::body::BareNewline;
use crate::smtp::policy::{Policy, Service};
use crate::sys::ids;
use crate::sys::privileges::{Privileges, RunAs};
use crate::values::{self, Networks};

const NO_CERTIFICATE: &str = "no certificate; add --tls-cert and --tls-key";
const LMTP_ON_25: &str =
    "LMTP must not be on port 25 (RFC 2033 section 5); use lmtp://HOST:24, for example";

/// The configuration.
pub struct Config {
    /// The listeners.
    pub listen: Vec<ListenUrl>,
    /// The metrics listeners.
    pub metrics: Vec<ListenUrl>,
    /// The mailboxes and aliases of the domains delivered here.
    pub directory: DirectoryConfig,
    /// The rules that all listeners share.
    pub policy: Policy,
    /// Certificate chain and key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The header fields that mark junk.
    pub junk: Vec<JunkField>,
    /// How far mail is made durable before a 250.
    pub sync: Sync,
    /// The timeout of clients.
    pub timeout: Duration,
    /// True if Received names the user.
    pub auth_header: bool,
    /// Peers that are trusted with PROXY and XCLIENT.
    pub trust: Networks,
    /// The relay, if any.
    pub relay: Option<relay::RelayConfig>,
    /// Maximum connections.
    pub max_connections: usize,
    /// Maximum connections of one client.
    pub max_per_client: usize,
    /// Maximum messages of one sender, and in which time.
    pub max_rate: Option<(u32, Duration)>,
    /// The greylist, if any.
    pub greylist: Option<greylist::GreylistConfig>,
    /// The keys and claims of OAuth tokens, if any.
    pub oauth: Option<oauth::OauthConfig>,
    /// The privileges to give up once the listeners are bound.
    pub privileges: Privileges,
}

impl Config {
    /// Reads the values of all options. `names` are those of sockets that a service manager passed on: without a
    /// configured listener they are the only ones.
    ///
    /// # Errors
    /// The option, what is wrong with it and what would be right.
    pub fn new(settings: &Settings, names: &[String]) -> Result<Self, Failure> {
        let hostname = hostname(settings)?;
        let listen = listeners(settings, names)?;
        let mut config = Self {
            relay: relay::RelayConfig::new(settings, &listen, networks(settings, Key::RelayFrom)?)?,
            listen,
            metrics: Vec::new(),
            directory: DirectoryConfig {
                domains: domains(settings, &hostname)?,
                pattern: pattern(settings)?,
                create: settings.flag(Key::Create),
                delimiter: delimiter(settings)?,
                users: file(settings, Key::Users),
                aliases: file(settings, Key::Aliases),
                quota: quota(settings)?,
                max_recipients: count(settings, Key::MaxRecipients)?,
                logins: false,
            },
            tls: identity(settings)?,
            junk: junk(settings)?,
            sync: choice(
                settings,
                Key::Sync,
                &[("full", Sync::Full), ("none", Sync::None)],
            )?,
            timeout: duration(settings, Key::Timeout)?,
            auth_header: settings.flag(Key::AuthHeader),
            trust: networks(settings, Key::Trust)?,
            max_connections: count(settings, Key::MaxConnections)?,
            max_per_client: count(settings, Key::MaxPerClient)?,
            max_rate: optional(
                settings,
                Key::MaxRate,
                values::rate,
                "a number and a duration such as 100/1h",
            )?,
            greylist: greylist(settings)?,
            oauth: optional(
                settings,
                Key::Oauth,
                oauth::OauthConfig::parse,
                "FILE?issuer=URL&audience=NAME&claim=NAME, the last three optional",
            )?,
            privileges: privileges(settings)?,
            policy: policy(settings, hostname)?,
        };
        config.directory.logins = config.listen.iter().any(|url| config.may_offer_auth(url));
        config.check(settings)?;
        config.without_metrics(settings)
    }

    /// Moves metrics listeners out of those for mail.
    fn without_metrics(mut self, settings: &Settings) -> Result<Self, Failure> {
        let metrics = |url: &ListenUrl| url.scheme == Scheme::Metrics;
        (self.metrics, self.listen) = self.listen.into_iter().partition(metrics);
        if self.listen.is_empty() {
            let expected = "no listener for mail; add smtp://, for example";
            return Err(settings.fault(Key::Listen, expected));
        }
        Ok(self)
    }

    /// True if a login is ever possible at a listener (RFC 4954 §4).
    fn may_offer_auth(&self, url: &ListenUrl) -> bool {
        !matches!(url.scheme, Scheme::Lmtp | Scheme::Metrics)
            && (self.tls.is_some() || self.policy.insecure_auth)
    }

    /// Checks that options fit together.
    fn check(&self, settings: &Settings) -> Result<(), Failure> {
        if self.policy.require_tls && self.tls.is_none() {
            return Err(settings.fault(Key::RequireTls, NO_CERTIFICATE));
        }
        if self.oauth.is_some() && self.directory.users.is_none() {
            return Err(settings.fault(Key::Oauth, "tokens need accounts; add --users"));
        }
        let mut values = settings.all(Key::Listen).into_iter();
        for url in &self.listen {
            let Some(reason) = self.listener_fault(url) else {
                values.next();
                continue;
            };
            let reason = format!("'{url}': {reason}");
            return Err(match (&url.at, values.next()) {
                (BindTo::Inherited(_), _) | (_, None) => {
                    Failure::Usage(format!("LISTEN_FDNAMES: {reason}"))
                }
                (_, Some(value)) => value.fault(reason),
            });
        }
        Ok(())
    }

    /// The reason why a listener cannot be served, if any.
    fn listener_fault(&self, url: &ListenUrl) -> Option<String> {
        if let BindTo::Unix { user, group, .. } = &url.at {
            let user = user.as_deref().map(ids::user_id);
            let group = group.as_deref().map(ids::group_id);
            if let Some(Err(unknown)) = user.into_iter().chain(group).find(Result::is_err) {
                return Some(unknown);
            }
        }
        self.option_fault(url).map(str::to_owned)
    }

    fn option_fault(&self, url: &ListenUrl) -> Option<&'static str> {
        let submission = matches!(url.scheme, Scheme::Submission | Scheme::Submissions);
        if url.scheme == Scheme::Submissions && self.tls.is_none() {
            return Some(NO_CERTIFICATE);
        }
        if submission && self.directory.users.is_none() {
            return Some("nobody can log in; add --users");
        }
        let trusted = match &url.at {
            BindTo::Tcp { .. } => !self.trust.networks.is_empty(),
            BindTo::Unix { .. } => self.trust.unix,
            BindTo::Inherited(_) => self.trust != Networks::default(),
        };
        match (url.scheme, &url.at) {
            (Scheme::Lmtp, BindTo::Tcp { port: 25, .. }) => Some(LMTP_ON_25),
            (Scheme::Metrics, _) if url.proxy => Some("metrics listeners have no PROXY header"),
            (_, BindTo::Unix { .. }) if url.proxy && !trusted => {
                Some("no client is trusted there; add --trust unix")
            }
            _ if url.proxy && !trusted => Some("no client is trusted there; add --trust 192.0.2.1"),
            _ => None,
        }
    }
}

fn policy(settings: &Settings, hostname: String) -> Result<Policy, Failure> {
    let bare_newline = &[
        ("reject", BareNewline::Reject),
        ("normalize", BareNewline::Normalize),
    ];
    Ok(Policy {
        hostname,
        service: Service::Smtp,
        starttls: false,
        mechanisms: Vec::new(),
        require_tls: settings.flag(Key::RequireTls),
        insecure_auth: settings.flag(Key::InsecureAuth),
        auth_sender: settings.flag(Key::AuthSender),
        vrfy: settings.flag(Key::Vrfy),
        expn: settings.flag(Key::Expn),
        max_size: size(settings, Key::MaxSize)?,
        max_recipients: count(settings, Key::MaxRecipients)?,
        max_errors: u32::try_from(count(settings, Key::MaxErrors)?).unwrap_or(u32::MAX),
        bare_newline: choice(settings, Key::BareNewline, bare_newline)?,
        bare_address: settings.flag(Key::BareAddress),
        dsn: true,
        etrn: false,
        atrn: false,
    })
}

fn privileges(settings: &Settings) -> Result<Privileges, Failure> {
    let parse = |value: Value| RunAs::parse(&value.text).map_err(|reason| value.fault(reason));
    let dir = |value: Value| match PathBuf::from(&value.text) {
        dir if dir.is_dir() => Ok(dir),
        _ => Err(value.invalid("a directory that exists")),
    };
    Ok(Privileges {
        run_as: settings.one(Key::RunAs).map(parse).transpose()?,
        chroot: settings.one(Key::Chroot).map(dir).transpose()?,
    })
}

fn hostname(settings: &Settings) -> Result<String, Failure> {
    // A trailing dot is the DNS form of a complete name.
    let valid = |name: &str| {
        let name = name.strip_suffix('.').unwrap_or(name);
        values::is_hostname(name).then(|| name.to_owned())
    };
    if let Some(name) = settings.one(Key::Hostname) {
        return valid(&name.text).ok_or_else(|| name.invalid("a host name such as mx.example.org"));
    }
    let system = nix::unistd::gethostname().unwrap_or_default();
    Ok(valid(&system.to_string_lossy()).unwrap_or_else(|| {
        log::warn!("the system's host name {system:?} is not valid in mail; set --hostname");
        "localhost".to_owned()
    }))
}

fn domains(settings: &Settings, hostname: &str) -> Result<Vec<String>, Failure> {
    let domain = |value: Value| {
        // A trailing dot is the DNS form of a complete name.
        let name = value.text.strip_suffix('.').unwrap_or(&value.text);
        let valid = values::is_domain(name);
        valid
            .then(|| name.to_lowercase())
            .ok_or_else(|| value.invalid("a domain such as example.org"))
    };
    let given = settings.all(Key::Domain);
    if given.is_empty() {
        let mut names = vec![hostname.to_lowercase(), "localhost".to_owned()];
        names.dedup();
        return Ok(names);
    }
    given.into_iter().map(domain).collect()
}

fn pattern(settings: &Settings) -> Result<String, Failure> {
    let Some(value) = settings.one(Key::Maildir) else {
        return Ok(String::new());
    };
    let letters = value.text.replace("%%", "");
    if letters.contains("%h") && !settings.is_given(Key::Users) {
        return Err(value.fault("%h is the home of an account; add --users"));
    }
    if letters.starts_with(['~', '$', '"', '\'']) || letters.contains(char::is_control) {
        return Err(value.invalid("a path without quotes, ~ and variables, as in mail/%d/%u"));
    }
    if !letters.contains("%u") && !letters.contains("%h") {
        let reason = format!("'{}' has no %u; use mail/%d/%u, for example", value.text);
        return Err(value.fault(reason));
    }
    // Mail is only delivered below the home, or into it.
    let below_home = value.text.strip_prefix("%h").unwrap_or("%h");
    let is_path = below_home.is_empty() || below_home.starts_with('/');
    if letters.contains("%h") && (!is_path || below_home.replace("%%", "").contains("%h")) {
        return Err(value.invalid("%h at the beginning only, as in %h/Maildir"));
    }
    if ["%u", "%d", "%h"]
        .iter()
        .fold(letters, |rest, letter| rest.replace(letter, ""))
        .contains('%')
    {
        return Err(value.invalid("%u, %d, %h and %% only, as in mail/%d/%u"));
    }
    Ok(value.text)
}

/// Separators of subaddresses: not the characters of domains, paths and quoting.
fn delimiter(settings: &Settings) -> Result<String, Failure> {
    let Some(value) = settings.one(Key::RecipientDelimiter) else {
        return Ok(String::new());
    };
    let separates = |c: char| c.is_ascii_punctuation() && !"@/\"\\<>%!".contains(c);
    if value.text.chars().all(separates) {
        return Ok(value.text);
    }
    Err(value.invalid("punctuation such as + or +-"))
}

fn file(settings: &Settings, key: Key) -> Option<PathBuf> {
    settings.one(key).map(|value| PathBuf::from(value.text))
}

fn identity(settings: &Settings) -> Result<Option<(PathBuf, PathBuf)>, Failure> {
    match (file(settings, Key::TlsCert), file(settings, Key::TlsKey)) {
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(settings.fault(Key::TlsCert, "no key; add --tls-key")),
        (None, Some(_)) => Err(settings.fault(Key::TlsKey, "no certificate; add --tls-cert")),
    }
}

fn listeners(settings: &Settings, names: &[String]) -> Result<Vec<ListenUrl>, Failure> {
    let parse = |value: Value| {
        let url = value.text.parse();
        url.map_err(|expected: String| value.invalid(expected))
    };
    let given = match names {
        [_, ..] if !settings.is_given(Key::Listen) => Vec::new(),
        _ => settings.all(Key::Listen),
    };
    let inherited = names.iter().enumerate();
    let inherited = inherited.map(|(number, name)| Ok(ListenUrl::inherited(name, number)));
    given.into_iter().map(parse).chain(inherited).collect()
}

fn junk(settings: &Settings) -> Result<Vec<JunkField>, Failure> {
    let parse = |value: Value| {
        let field = JunkField::parse(&value.text);
        field.ok_or_else(|| value.invalid("FIELD:VALUE such as X-Spam-Flag:YES"))
    };
    settings.all(Key::Junk).into_iter().map(parse).collect()
}

fn networks(settings: &Settings, key: Key) -> Result<Networks, Failure> {
    let mut networks = Networks::default();
    for value in settings.all(key) {
        let added = networks.add(&value.text);
        added.ok_or_else(|| value.invalid("a network such as 192.0.2.0/24, or unix"))?;
    }
    Ok(networks)
}

fn choice<T: Copy>(settings: &Settings, key: Key, all: &[(&str, T)]) -> Result<T, Failure> {
    let words: Vec<&str> = all.iter().map(|(word, _)| *word).collect();
    let parse = |text: &str| {
        let found = all.iter().find(|(word, _)| *word == text);
        found.map(|(_, choice)| *choice)
    };
    required(settings, key, parse, &words.join(" or "))
}

fn count(settings: &Settings, key: Key) -> Result<usize, Failure> {
    required(settings, key, values::count, "a whole number above 0")
}

fn size(settings: &Settings, key: Key) -> Result<u64, Failure> {
    required(settings, key, values::size, "a size such as 50M")
}

fn duration(settings: &Settings, key: Key) -> Result<Duration, Failure> {
    let expected = "a duration such as 5m, up to 365d";
    required(settings, key, values::duration, expected)
}

/// The value of an option with a default.
fn required<T>(
    settings: &Settings,
    key: Key,
    parse: impl Fn(&str) -> Option<T>,
    expected: &str,
) -> Result<T, Failure> {
    let found = optional(settings, key, parse, expected)?;
    found.ok_or_else(|| settings.fault(key, format_args!("missing; expected {expected}")))
}

fn optional<T>(
    settings: &Settings,
    key: Key,
    parse: impl Fn(&str) -> Option<T>,
    expected: &str,
) -> Result<Option<T>, Failure> {
    let Some(value) = settings.one(key) else {
        return Ok(None);
    };
    let parsed = parse(&value.text);
    parsed.map(Some).ok_or_else(|| value.invalid(expected))
}

/// `FIRST[,SECOND]`.
fn first_and_second(text: &str) -> (&str, Option<&str>) {
    let both = text.split_once(',');
    both.map_or((text, None), |(first, second)| (first, Some(second)))
}

/// `DELAY[,FILE]`. The delay must be shorter than the time in which a second try counts.
fn greylist(settings: &Settings) -> Result<Option<greylist::GreylistConfig>, Failure> {
    let parse = |text: &str| {
        let (delay, file) = first_and_second(text);
        let delay = values::duration(delay)?;
        let usable = delay.as_secs() < u64::from(RETRY_WITHIN) && file != Some("");
        let file = file.map(PathBuf::from);
        usable.then_some(greylist::GreylistConfig { delay, file })
    };
    let expected = "a delay below 4h, optionally with a file, such as 5m or 5m,greylist";
    optional(settings, Key::Greylist, parse, expected)
}

/// `SIZE[,MESSAGES]`.
fn quota(settings: &Settings) -> Result<Option<Quota>, Failure> {
    let parse = |text: &str| {
        let (bytes, messages) = first_and_second(text);
        let messages = match messages {
            Some(messages) => Some(values::count(messages)?.try_into().ok()?),
            None => None,
        };
        let bytes = Some(values::size(bytes)?);
        Some(Quota { bytes, messages })
    };
    let expected = "a size, optionally with a number, such as 500M or 500M,10000";
    optional(settings, Key::Quota, parse, expected)
}

//! From what was said ([`Settings`], text) to what it means: numbers, durations, listeners. No
//! file is read here; what is in them may change while the server runs, and is `server`'s.

use crate::deliver::{Quota, Sync};
use crate::directory;
use crate::net::url::{BindTo, ListenUrl, Scheme};
use crate::options::{Failure, Settings};
use crate::smtp::body::BareNewline;
use crate::smtp::policy::{Policy, Service};
use std::path::PathBuf;
use std::time::Duration;

/// All that the command line, the environment and the config file decide.
pub struct Config {
    /// The listeners.
    pub listen: Vec<ListenUrl>,
    /// Who gets mail.
    pub directory: directory::Settings,
    /// The rules that all listeners share.
    pub policy: Policy,
    /// Certificate chain and key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whether fsync is called.
    pub sync: Sync,
    /// The wait for a client.
    pub timeout: Duration,
    /// Whether Received names the user.
    pub auth_header: bool,
    /// Connections at once.
    pub max_connections: usize,
    /// Connections of one address at once.
    pub max_per_client: usize,
}

impl Config {
    /// Makes sense of what was said.
    ///
    /// # Errors
    /// The option, what is wrong with it and what would be right.
    pub fn new(settings: &Settings) -> Result<Self, Failure> {
        let hostname = hostname(settings)?;
        let config = Self {
            listen: listeners(settings)?,
            directory: directory::Settings {
                domains: domains(settings, &hostname)?,
                pattern: pattern(settings)?,
                create: settings.flag("create"),
                delimiter: settings.one("recipient-delimiter").unwrap_or("").to_owned(),
                users: file(settings, "users"),
                aliases: file(settings, "aliases"),
                quota: quota(settings)?,
            },
            tls: identity(settings)?,
            sync: choice(
                settings,
                "sync",
                &[("full", Sync::Full), ("none", Sync::None)],
            )?,
            timeout: duration(settings)?,
            auth_header: settings.flag("auth-header"),
            max_connections: count(settings, "max-connections")?,
            max_per_client: count(settings, "max-per-client")?,
            policy: policy(settings, hostname)?,
        };
        config.consistent()?;
        Ok(config)
    }

    /// What one option asks of another.
    fn consistent(&self) -> Result<(), Failure> {
        if self.policy.require_tls && self.tls.is_none() {
            return Err(Failure::usage(
                "--require-tls: no certificate; say --tls-cert and --tls-key too",
            ));
        }
        for url in &self.listen {
            let submission = matches!(url.scheme, Scheme::Submission | Scheme::Submissions);
            let missing = if url.scheme == Scheme::Submissions && self.tls.is_none() {
                "no certificate; say --tls-cert and --tls-key too"
            } else if submission && self.directory.users.is_none() {
                "nobody can log in; say --users too"
            } else if matches!(
                (url.scheme, &url.at),
                (Scheme::Lmtp, BindTo::Tcp { port: 25, .. })
            ) {
                "LMTP must not be on port 25 (RFC 2033 section 5); say lmtp://HOST:24, for example"
            } else {
                continue;
            };
            return Err(Failure::usage(format!("--listen: '{url}': {missing}")));
        }
        Ok(())
    }
}

fn policy(settings: &Settings, hostname: String) -> Result<Policy, Failure> {
    Ok(Policy {
        hostname,
        service: Service::Smtp,
        starttls: false,
        mechanisms: Vec::new(),
        require_tls: settings.flag("require-tls"),
        insecure_auth: settings.flag("insecure-auth"),
        auth_sender: settings.flag("auth-sender"),
        vrfy: settings.flag("vrfy"),
        expn: settings.flag("expn"),
        max_size: size(settings, "max-size")?,
        max_recipients: count(settings, "max-recipients")?,
        max_errors: u32::try_from(count(settings, "max-errors")?).unwrap_or(u32::MAX),
        bare_newline: choice(
            settings,
            "bare-newline",
            &[
                ("reject", BareNewline::Reject),
                ("normalize", BareNewline::Normalize),
            ],
        )?,
    })
}

fn wrong(name: &str, value: Option<&str>, right: &str) -> Failure {
    let value = value.unwrap_or_default();
    Failure::usage(format!("--{name}: '{value}' is wrong; say {right}"))
}

/// A name as it stands in greeting, EHLO and Received: no blanks, nothing unprintable.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.contains(|c: char| c.is_control() || c == ' ')
}

fn hostname(settings: &Settings) -> Result<String, Failure> {
    match settings.one("hostname").filter(|name| !name.is_empty()) {
        Some(name) if is_name(name) && name.is_ascii() => Ok(name.to_owned()),
        Some(name) => Err(wrong(
            "hostname",
            Some(name),
            "a host name such as mx.example.org",
        )),
        None => {
            let system = nix::unistd::gethostname().ok();
            let name = system.and_then(|name| name.into_string().ok());
            let name = name.filter(|name| is_name(name) && name.is_ascii());
            Ok(name.unwrap_or_else(|| "localhost".to_owned()))
        }
    }
}

fn domains(settings: &Settings, hostname: &str) -> Result<Vec<String>, Failure> {
    let said = settings.all("domain");
    if let Some(bad) = said
        .iter()
        .find(|d| !is_name(d) || d.contains(['/', '@']) || d.starts_with('.'))
    {
        return Err(wrong("domain", Some(bad), "a domain such as example.org"));
    }
    if said.is_empty() {
        return Ok(vec![hostname.to_lowercase(), "localhost".to_owned()]);
    }
    Ok(said.iter().map(|domain| domain.to_lowercase()).collect())
}

fn pattern(settings: &Settings) -> Result<String, Failure> {
    let pattern = settings.one("maildir").unwrap_or_default();
    let mut known = pattern.replace("%%", "").replace("%d", "");
    if !known.contains("%u") {
        return Err(Failure::usage(format!(
            "--maildir: '{pattern}' has no %u; say mail/%d/%u, for example"
        )));
    }
    known = known.replace("%u", "");
    if known.contains('%') {
        let right = "%u, %d and %% only, as in mail/%d/%u";
        return Err(wrong("maildir", Some(pattern), right));
    }
    Ok(pattern.to_owned())
}

fn file(settings: &Settings, name: &str) -> Option<PathBuf> {
    let path = settings.one(name).filter(|path| !path.is_empty());
    path.map(PathBuf::from)
}

fn identity(settings: &Settings) -> Result<Option<(PathBuf, PathBuf)>, Failure> {
    match (file(settings, "tls-cert"), file(settings, "tls-key")) {
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Failure::usage("--tls-cert: no key; say --tls-key too")),
        (None, Some(_)) => Err(Failure::usage(
            "--tls-key: no certificate; say --tls-cert too",
        )),
    }
}

fn listeners(settings: &Settings) -> Result<Vec<ListenUrl>, Failure> {
    let parse = |url: &&str| {
        url.parse()
            .map_err(|right: String| wrong("listen", Some(url), &right))
    };
    settings.all("listen").iter().map(parse).collect()
}

fn choice<T: Copy>(settings: &Settings, name: &str, all: &[(&str, T)]) -> Result<T, Failure> {
    let value = settings.one(name);
    let found = all.iter().find(|(word, _)| Some(*word) == value);
    let right = || {
        all.iter()
            .map(|(word, _)| *word)
            .collect::<Vec<_>>()
            .join(" or ")
    };
    found
        .map(|(_, choice)| *choice)
        .ok_or_else(|| wrong(name, value, &right()))
}

fn count(settings: &Settings, name: &str) -> Result<usize, Failure> {
    let value = settings.one(name);
    let number = value.and_then(|text| text.parse().ok()).filter(|&n| n > 0);
    number.ok_or_else(|| wrong(name, value, "a whole number above 0"))
}

fn size(settings: &Settings, name: &str) -> Result<u64, Failure> {
    let value = settings.one(name);
    let octets = value.and_then(octets);
    octets.ok_or_else(|| wrong(name, value, "a size such as 50M"))
}

/// A number above 0 with K, M or G behind it, powers of 1024.
fn octets(text: &str) -> Option<u64> {
    let units = [('K', 1_u64 << 10), ('M', 1 << 20), ('G', 1 << 30)];
    let (digits, factor) = units
        .into_iter()
        .find_map(|(unit, factor)| {
            Some((
                text.strip_suffix([unit, unit.to_ascii_lowercase()])?,
                factor,
            ))
        })
        .unwrap_or((text, 1));
    let number = digits
        .parse::<u64>()
        .ok()
        .filter(|_| !digits.starts_with('+'))?;
    number.checked_mul(factor).filter(|&n| n > 0)
}

/// `SIZE[,MESSAGES]`.
fn quota(settings: &Settings) -> Result<Option<Quota>, Failure> {
    let Some(text) = settings.one("quota").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let right = || {
        wrong(
            "quota",
            Some(text),
            "a size and maybe a number, such as 500M or 500M,10000",
        )
    };
    let (bytes, messages) = match text.split_once(',') {
        Some((bytes, messages)) => {
            let messages = messages.parse().ok().filter(|&n| n > 0).ok_or_else(right)?;
            (bytes, Some(messages))
        }
        None => (text, None),
    };
    let bytes = Some(octets(bytes).ok_or_else(right)?);
    Ok(Some(Quota { bytes, messages }))
}

/// A number with s, m, h or d behind it, a year at the most.
fn duration(settings: &Settings) -> Result<Duration, Failure> {
    let value = settings.one("timeout").unwrap_or_default();
    let units = [("s", 1_u64), ("m", 60), ("h", 3_600), ("d", 86_400)];
    let seconds = units.into_iter().find_map(|(unit, factor)| {
        let number = value.strip_suffix(unit)?.parse::<u64>().ok()?;
        number.checked_mul(factor)
    });
    seconds
        .filter(|s| (1..=365 * 86_400).contains(s))
        .map(Duration::from_secs)
        .ok_or_else(|| wrong("timeout", Some(value), "a duration such as 5m"))
}

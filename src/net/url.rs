//! The URLs of listeners on the command line: `smtp://HOST:PORT`, `lmtp:/PATH?mode=0660`. `listen` binds them.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::encoding::number;

/// The default mode of a Unix socket, which admits its group.
const MODE: u32 = 0o660;

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// RFC 5321, port 25.
    Smtp,
    /// RFC 6409, port 587.
    Submission,
    /// RFC 8314 §3.3: the same in TLS from the first octet, port 465.
    Submissions,
    /// RFC 2033; port 24 (RFC 2033 §5 forbids 25).
    Lmtp,
    /// Metrics over HTTP.
    Metrics,
}

/// Names, default ports, and true if a Unix socket is possible.
const SCHEMES: &[(&str, Scheme, u16, bool)] = &[
    ("smtp", Scheme::Smtp, 25, true),
    ("submission", Scheme::Submission, 587, false),
    ("submissions", Scheme::Submissions, 465, false),
    ("smtps", Scheme::Submissions, 465, false),
    ("lmtp", Scheme::Lmtp, 24, true),
    ("metrics", Scheme::Metrics, NO_PORT, false),
];
/// No default port.
const NO_PORT: u16 = 0;

impl Scheme {
    /// The name in URLs.
    pub fn name(self) -> &'static str {
        let row = SCHEMES.iter().find(|(_, scheme, ..)| *scheme == self);
        row.map_or("", |(name, ..)| name)
    }
}

/// The address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindTo {
    /// A TCP port.
    Tcp {
        /// Name or address; `None` for all interfaces, both families.
        host: Option<String>,
        /// The port; 0 lets the system choose one.
        port: u16,
    },
    /// A Unix socket.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Its owner, by name or number.
        user: Option<String>,
        /// Its group, by name or number.
        group: Option<String>,
    },
    /// A socket from a service manager, by its number.
    Inherited(usize),
}

/// The URL of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenUrl {
    /// The protocol.
    pub scheme: Scheme,
    /// The address.
    pub at: BindTo,
    /// True if connections begin with a PROXY header.
    pub proxy: bool,
}

impl ListenUrl {
    /// The query, as written.
    pub const fn query(&self) -> &'static str {
        if self.proxy { "?proxy" } else { "" }
    }

    /// A socket from a service manager, by its name and number. The name is a scheme, possibly with its query; any
    /// other name is `smtp`. Mode and owner are the manager's.
    pub fn inherited(name: &str, number: usize) -> Self {
        let (scheme, query) = name.split_once('?').unwrap_or((name, ""));
        let (pairs, proxy) = take_proxy(query);
        let row = SCHEMES.iter().find(|(known, ..)| *known == scheme);
        let row = row.filter(|_| unix_socket("/", &pairs).is_ok());
        let found = row.map(|(_, scheme, ..)| (*scheme, proxy));
        let (scheme, proxy) = found.unwrap_or((Scheme::Smtp, false));
        Self {
            scheme,
            at: BindTo::Inherited(number),
            proxy,
        }
    }
}

impl FromStr for ListenUrl {
    type Err = String;

    /// `smtp://HOST:PORT`, `lmtp:/PATH?mode=0660` and the like; the error says what is expected.
    fn from_str(text: &str) -> Result<Self, String> {
        let right = "smtp://HOST:PORT, submission://, submissions://, lmtp://, smtp:/PATH, lmtp:/PATH or metrics://";
        let (name, rest) = text.split_once(':').ok_or(right)?;
        let row = SCHEMES.iter().find(|(known, ..)| *known == name);
        let &(_, scheme, port, unix) = row.ok_or(right)?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (pairs, proxy) = take_proxy(query);
        let at = match place.strip_prefix("//") {
            Some(_) if !pairs.is_empty() => return Err("?proxy after the port".to_owned()),
            Some(place) => tcp(place.trim_end_matches('/'), port)?,
            None if place.starts_with('/') && unix => unix_socket(place, &pairs)?,
            None => return Err(right.to_owned()),
        };
        Ok(Self { scheme, at, proxy })
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.name();
        match &self.at {
            BindTo::Tcp { host, port } => {
                let host = host.as_deref().unwrap_or("");
                match host.contains(':') {
                    true => write!(f, "{scheme}://[{host}]:{port}")?,
                    false => write!(f, "{scheme}://{host}:{port}")?,
                }
            }
            BindTo::Unix { path, .. } => write!(f, "{scheme}:{}", path.display())?,
            BindTo::Inherited(number) => write!(f, "{scheme}: inherited socket {number}")?,
        }
        f.write_str(self.query())
    }
}

/// Splits `HOST[:PORT]`, where an IPv6 address is in brackets. Neither part is checked otherwise.
pub fn host_and_port(text: &str) -> Option<(&str, Option<&str>)> {
    let Some(rest) = text.strip_prefix('[') else {
        let both = text.split_once(':');
        return Some(both.map_or((text, None), |(host, port)| (host, Some(port))));
    };
    let (address, rest) = rest.split_once(']')?;
    address.parse::<Ipv6Addr>().ok()?;
    let port = rest.strip_prefix(':');
    (rest.is_empty() || port.is_some()).then_some((address, port))
}

/// The address of a TCP listener: `HOST:PORT`, both optional.
fn tcp(place: &str, port: u16) -> Result<BindTo, String> {
    let right = "HOST:PORT, with an IPv6 address in brackets and a port up to 65535";
    let (host, port_text) = host_and_port(place).ok_or(right)?;
    if host.contains(['/', '@', ' ']) {
        return Err(right.to_owned());
    }
    let port = match port_text {
        Some(text) => number(text).ok_or(right)?,
        None if port == NO_PORT => return Err("a port, as in metrics://:9100".to_owned()),
        None => port,
    };
    let host = (!host.is_empty()).then(|| host.to_owned());
    Ok(BindTo::Tcp { host, port })
}

/// The parts of a query except `proxy`, and true if `proxy` is one of them.
fn take_proxy(query: &str) -> (Vec<&str>, bool) {
    let all = query.split('&').filter(|pair| !pair.is_empty());
    let (proxy, pairs): (Vec<_>, Vec<_>) = all.partition(|pair| *pair == "proxy");
    (pairs, !proxy.is_empty())
}

fn unix_socket(path: &str, pairs: &[&str]) -> Result<BindTo, String> {
    let (mut mode, mut user, mut group) = (MODE, None, None);
    let mut seen = Vec::new();
    for pair in pairs {
        let name = pair.split('=').next();
        if seen.contains(&name) {
            return Err("?mode=, ?user= and ?group= once each".to_owned());
        }
        seen.push(name);
        match pair.split_once('=') {
            Some(("mode", octal)) => {
                let digits = octal.bytes().all(|octet| octet.is_ascii_digit());
                let number = u32::from_str_radix(octal, 8).ok();
                let number = number.filter(|mode| digits && *mode <= 0o777);
                mode = number.ok_or("an octal mode such as ?mode=0660")?;
            }
            Some(("user", name)) if !name.is_empty() => user = Some(name.to_owned()),
            Some(("group", name)) if !name.is_empty() => group = Some(name.to_owned()),
            _ => return Err("?mode=, ?user=, ?group= or ?proxy after the path".to_owned()),
        }
    }
    Ok(BindTo::Unix {
        path: PathBuf::from(path),
        mode,
        user,
        group,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ListenUrl, String> {
        text.parse()
    }

    fn tcp_url(scheme: Scheme, host: Option<&str>, port: u16) -> Result<ListenUrl, String> {
        let host = host.map(str::to_owned);
        let at = BindTo::Tcp { host, port };
        let proxy = false;
        Ok(ListenUrl { scheme, at, proxy })
    }

    #[test]
    fn listeners_are_named_by_urls() {
        for (text, scheme, host, port) in [
            ("smtp://", Scheme::Smtp, None, 25),
            ("smtp://:2525", Scheme::Smtp, None, 2525),
            ("smtp://[::1]:0/", Scheme::Smtp, Some("::1"), 0),
            ("submission://mx", Scheme::Submission, Some("mx"), 587),
            ("smtps://[::]", Scheme::Submissions, Some("::"), 465),
            ("lmtp://127.0.0.1", Scheme::Lmtp, Some("127.0.0.1"), 24),
            ("metrics://:9100", Scheme::Metrics, None, 9100),
        ] {
            let parsed = parse(text);
            assert_eq!(parsed, tcp_url(scheme, host, port), "{text}");
            let shown = parsed.map(|url| url.to_string());
            let shown = shown.unwrap_or_default();
            assert_eq!(parse(&shown), tcp_url(scheme, host, port), "{shown}");
        }
        let at = BindTo::Unix {
            path: "/run/x".into(),
            mode: 0o600,
            user: Some("postfix".into()),
            group: None,
        };
        let scheme = Scheme::Lmtp;
        for (text, proxy) in [
            ("lmtp:/run/x?mode=0600&user=postfix", false),
            ("lmtp:/run/x?mode=0600&proxy&user=postfix", true),
        ] {
            let at = at.clone();
            assert_eq!(parse(text), Ok(ListenUrl { scheme, at, proxy }));
        }
        let given = ["smtp://:2525?proxy", "lmtp:/run/x?proxy"];
        let shown = given.map(|text| parse(text).map(|url| url.to_string()));
        assert_eq!(shown, given.map(|text| Ok(text.to_owned())));
        for wrong in [
            "",
            "smtp",
            "http://x",
            "smtp:x",
            "smtp://x:99999",
            "smtp://x:",
            "smtp://x:+25",
            "lmtp:/run/x?mode=+660",
            "smtp://::1:25",
            "smtp://[zz]:25",
            "smtp://[::1]25",
            "submission:/run/x",
            "lmtp:/run/x?mode=9",
            "lmtp:/run/x?what=1",
            "lmtp:/run/x?mode=0660&mode=0600",
            "lmtp:/run/x?user=a&group=b&user=a",
            "smtp://x?proxy=1",
            "smtp://x?mode=0600",
            "smtp://x?Proxy",
            "metrics://",
            "metrics:/run/x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn inherited_sockets_are_named_by_schemes() {
        for (name, scheme, proxy) in [
            ("lmtp", Scheme::Lmtp, false),
            ("lmtp?proxy", Scheme::Lmtp, true),
            ("submissions?proxy", Scheme::Submissions, true),
            ("lmtp?mode=0660", Scheme::Lmtp, false),
            ("lmtp?user=a&proxy", Scheme::Lmtp, true),
            ("", Scheme::Smtp, false),
            ("?proxy", Scheme::Smtp, false),
            ("lmtp?proxy=no", Scheme::Smtp, false),
            ("mailslot.socket", Scheme::Smtp, false),
        ] {
            let at = BindTo::Inherited(3);
            let expected = ListenUrl { scheme, at, proxy };
            assert_eq!(ListenUrl::inherited(name, 3), expected, "{name}");
        }
    }
}

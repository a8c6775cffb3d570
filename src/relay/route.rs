//! The next hops of `--relay`, and the choice of one for a domain. Nothing is resolved here.

use std::fmt;
use std::path::PathBuf;

use crate::encoding::number;
use crate::net::dns::to_alabel;
use crate::net::url;

/// Default number of connections to a hop.
const CONNECTIONS: usize = 2;
/// Maximum connections to a hop that a URL may ask for.
const MAX_CONNECTIONS: usize = 20;
const EXPECTED: &str = "smtp://HOST, submission://[USER@]HOST, submissions://[USER@]HOST, lmtp://HOST, lmtp:/PATH, mx: or \
     atrn:USER, with ?for=DOMAIN, ?tls=require|none, ?connections=N";

/// How TLS is used with a hop (RFC 3207, RFC 8314).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    None,
    /// If it is offered, with any certificate.
    Offered,
    /// STARTTLS and a valid certificate, or nothing.
    Required,
    /// From the first octet, with a valid certificate.
    Implicit,
}

/// The kind of a hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// A host and its port, by SMTP or LMTP.
    Host {
        /// LMTP.
        lmtp: bool,
        /// Name or address.
        host: String,
        /// The port.
        port: u16,
        /// The login name.
        user: Option<String>,
    },
    /// LMTP on a Unix socket.
    Socket(PathBuf),
    /// The exchangers of each domain.
    Mx,
    /// Kept until this user fetches it (RFC 2645).
    Atrn(String),
}

/// A next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The URL as given.
    pub url: String,
    /// Its kind.
    pub kind: RouteKind,
    /// TLS.
    pub tls: TlsMode,
    /// Connections at once.
    pub connections: usize,
    /// Its domains in ASCII lower case; a leading dot means subdomains. Empty means all others.
    pub domains: Vec<String>,
}

struct RelayScheme {
    name: &'static str,
    lmtp: bool,
    port: u16,
    tls: TlsMode,
    /// True if `?tls=` is allowed.
    tls_choice: bool,
}

const SCHEMES: &[RelayScheme] = &[
    RelayScheme {
        name: "smtp",
        lmtp: false,
        port: 25,
        tls: TlsMode::Offered,
        tls_choice: true,
    },
    RelayScheme {
        name: "submission",
        lmtp: false,
        port: 587,
        tls: TlsMode::Required,
        tls_choice: false,
    },
    RelayScheme {
        name: "submissions",
        lmtp: false,
        port: 465,
        tls: TlsMode::Implicit,
        tls_choice: false,
    },
    RelayScheme {
        name: "smtps",
        lmtp: false,
        port: 465,
        tls: TlsMode::Implicit,
        tls_choice: false,
    },
    RelayScheme {
        name: "lmtp",
        lmtp: true,
        port: 24,
        tls: TlsMode::None,
        tls_choice: false,
    },
];

impl std::str::FromStr for Route {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let (name, rest) = place.split_once(':').ok_or(EXPECTED)?;
        let (kind, tls, tls_choice) = kind(name, rest)?;
        let mut route = Self {
            url: text.to_owned(),
            kind,
            tls,
            connections: CONNECTIONS,
            domains: Vec::new(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            route.parameter(pair, tls_choice)?;
        }
        Ok(route)
    }
}

impl Route {
    fn parameter(&mut self, pair: &str, tls_choice: bool) -> Result<(), String> {
        match pair.split_once('=') {
            Some(("for", domain)) => self.domains.push(domain_of(domain)?),
            Some(("tls", "require")) if tls_choice => self.tls = TlsMode::Required,
            Some(("tls", "none")) if tls_choice => self.tls = TlsMode::None,
            Some(("connections", count)) => {
                let count = number(count);
                let count = count.filter(|n| (1..=MAX_CONNECTIONS).contains(n));
                self.connections = count.ok_or("?connections= from 1 to 20")?;
            }
            _ => return Err(EXPECTED.to_owned()),
        }
        Ok(())
    }

    /// How well the route matches a domain: the length of the longest matching name.
    fn fits(&self, domain: &str) -> Option<usize> {
        if self.domains.is_empty() {
            return Some(0);
        }
        let fit = |known: &&String| match known.starts_with('.') {
            true => domain.len() > known.len() && domain.ends_with(known.as_str()),
            false => domain == *known,
        };
        self.domains.iter().filter(fit).map(String::len).max()
    }

    /// True if the server's certificate must be verified.
    pub const fn verifies(&self) -> bool {
        matches!(self.tls, TlsMode::Required | TlsMode::Implicit)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// The kind and the default TLS mode of a URL, and true if the URL may choose another mode.
fn kind(name: &str, rest: &str) -> Result<(RouteKind, TlsMode, bool), String> {
    match (name, rest) {
        ("mx", "") => return Ok((RouteKind::Mx, TlsMode::Offered, true)),
        ("atrn", user) if !user.is_empty() && !user.contains(char::is_whitespace) => {
            return Ok((RouteKind::Atrn(user.to_owned()), TlsMode::None, false));
        }
        ("lmtp", path) if path.starts_with('/') && !path.starts_with("//") => {
            return Ok((RouteKind::Socket(PathBuf::from(path)), TlsMode::None, false));
        }
        _ => {}
    }
    let row = SCHEMES
        .iter()
        .find(|row| row.name == name)
        .ok_or(EXPECTED)?;
    let place = rest
        .strip_prefix("//")
        .ok_or(EXPECTED)?
        .trim_end_matches('/');
    let (user, place) = match place.rsplit_once('@') {
        Some((user, place)) if !row.lmtp && !user.is_empty() => (Some(user.to_owned()), place),
        Some(_) => return Err(EXPECTED.to_owned()),
        None => (None, place),
    };
    let (host, port) = destination(place, row.port)?;
    let kind = RouteKind::Host {
        lmtp: row.lmtp,
        host,
        port,
        user,
    };
    Ok((kind, row.tls, row.tls_choice))
}

/// The host in ASCII, and its port.
fn destination(place: &str, default: u16) -> Result<(String, u16), String> {
    let (host, port) = url::host_and_port(place).ok_or(EXPECTED)?;
    let port = match port {
        Some(text) => number(text).filter(|&port| port > 0).ok_or(EXPECTED)?,
        None => default,
    };
    let ascii = if host.contains(':') {
        Some(host.to_owned())
    } else {
        to_alabel(host.strip_suffix('.').unwrap_or(host))
    };
    let is_valid = |host: &String| {
        let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.:".contains(&octet);
        !host.is_empty() && host.bytes().all(plain)
    };
    Ok((ascii.filter(is_valid).ok_or(EXPECTED)?, port))
}

fn domain_of(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('.').unwrap_or(text);
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    let ascii = to_alabel(bare).filter(|name| {
        let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
        !name.is_empty()
            && name.split('.').all(|label| !label.is_empty())
            && name.bytes().all(plain)
    });
    let ascii = ascii.ok_or("a domain after ?for=, as in ?for=example.org or ?for=.example.org")?;
    Ok(if text.starts_with('.') {
        format!(".{ascii}")
    } else {
        ascii
    })
}

/// All next hops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(Vec<Route>);

impl Routes {
    /// Combines routes.
    ///
    /// # Errors
    /// Two routes for the same domain, or two for all others.
    pub fn new(routes: Vec<Route>) -> Result<Self, String> {
        let mut taken: Vec<&str> = Vec::new();
        for route in &routes {
            let all_others = route.domains.is_empty().then_some("");
            for domain in route.domains.iter().map(String::as_str).chain(all_others) {
                if taken.contains(&domain) {
                    return Err(match domain {
                        "" => format!(
                            "'{route}': two URLs without ?for= take all other domains; add ?for= to one"
                        ),
                        _ => format!("'{route}': {domain} has another URL already; name it once"),
                    });
                }
                taken.push(domain);
            }
        }
        Ok(Self(routes))
    }

    /// Gives the users who fetch mail the names of their accounts, which may have others to log in.
    pub fn name_users(&mut self, account: impl Fn(&str) -> Option<String>) {
        for route in &mut self.0 {
            if let RouteKind::Atrn(user) = &mut route.kind
                && let Some(account) = account(user)
            {
                *user = account;
            }
        }
    }

    /// All of them.
    pub fn all(&self) -> &[Route] {
        &self.0
    }

    /// The number of the route for a domain: the longest match wins. Address literals use the route of all other
    /// domains.
    pub fn find(&self, domain: &str) -> Option<usize> {
        let name = to_alabel(domain.strip_suffix('.').unwrap_or(domain));
        let name = name.unwrap_or_else(|| domain.to_lowercase());
        let fitting = self.0.iter().enumerate().filter_map(|(place, route)| {
            let length = route.fits(&name)?;
            Some((length, place))
        });
        fitting
            .max_by_key(|(length, _)| *length)
            .map(|(_, place)| place)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn parse(text: &str) -> Result<Route, String> {
        text.parse()
    }

    #[test]
    fn hops_are_named_by_urls() {
        for (text, host, port, user, tls) in [
            (
                "smtp://mx.example",
                "mx.example",
                25,
                None,
                TlsMode::Offered,
            ),
            ("smtp://[::1]:2525/", "::1", 2525, None, TlsMode::Offered),
            ("smtp://Mx.test.:26", "mx.test", 26, None, TlsMode::Offered),
            ("smtp://mx?tls=require", "mx", 25, None, TlsMode::Required),
            ("smtp://u@mx?tls=none", "mx", 25, Some("u"), TlsMode::None),
            (
                "submission://me@x.org@mx",
                "mx",
                587,
                Some("me@x.org"),
                TlsMode::Required,
            ),
            (
                "submissions://M\u{dc}.example:1",
                "xn--m-eha.example",
                1,
                None,
                TlsMode::Implicit,
            ),
            ("lmtp://127.0.0.1", "127.0.0.1", 24, None, TlsMode::None),
        ] {
            let route = parse(text).unwrap();
            let lmtp = text.starts_with("lmtp");
            let user = user.map(str::to_owned);
            let kind = RouteKind::Host {
                lmtp,
                host: host.into(),
                port,
                user,
            };
            assert_eq!((route.kind, route.tls), (kind, tls), "{text}");
        }
        assert_eq!(parse("mx:").unwrap().kind, RouteKind::Mx);
        assert_eq!(
            parse("atrn:joe?for=x.org").unwrap().kind,
            RouteKind::Atrn("joe".into())
        );
        assert_eq!(
            parse("lmtp:/run/l").unwrap().kind,
            RouteKind::Socket("/run/l".into())
        );
        let route = parse("mx:?for=.Example.org&for=b\u{fc}cher.example&connections=5").unwrap();
        assert_eq!(route.domains, [".example.org", "xn--bcher-kva.example"]);
        assert_eq!(route.connections, 5);
    }

    #[test]
    fn urls_that_are_not_hops() {
        for wrong in [
            "",
            "mx",
            "mx:x",
            "atrn:",
            "http://x",
            "smtp:x",
            "smtp://",
            "smtp:///",
            "smtp://x:0",
            "smtp://x:99999",
            "smtp://::1",
            "smtp://[zz]",
            "smtp://[::1]x",
            "smtp://a b",
            "lmtp:x",
            "lmtp://u@x",
            "smtp://@x",
            "smtp://x?for=",
            "smtp://x?for=a..b",
            "smtp://x?for=a@b",
            "smtp://x?tls=maybe",
            "submission://x?tls=none",
            "smtp://x?connections=0",
            "smtp://x?connections=99",
            "smtp://x?what",
            "smtp:/run/x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_longest_match_wins() {
        let all = [
            "mx:",
            "smtp://a?for=.example.org",
            "smtp://b?for=x.example.org&for=y.org",
        ];
        let routes = Routes::new(all.map(|url| parse(url).unwrap()).to_vec()).unwrap();
        for (domain, place) in [
            ("x.example.org", 2),
            ("Y.ORG.", 2),
            ("z.x.example.org", 1),
            ("example.org", 0),
            ("notexample.org", 0),
            ("[192.0.2.1]", 0),
            ("other", 0),
        ] {
            assert_eq!(routes.find(domain), Some(place), "{domain}");
        }
        let only = Routes::new(vec![parse("smtp://a?for=x.org").unwrap()]).unwrap();
        assert_eq!((only.find("x.org"), only.find("z.org")), (Some(0), None));
        for twice in [["mx:", "smtp://a"], ["mx:?for=a.b", "smtp://a?for=A.B."]] {
            assert!(Routes::new(twice.map(|url| parse(url).unwrap()).to_vec()).is_err());
        }
    }
}

//! The relay's options and their files.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::logins::Logins;
use super::route::{Route, RouteKind, Routes};
use super::schedule::RetryPolicy;
use super::sender::{MAX_THREADS, RelayRules};
use crate::failure::Failure;
use crate::net::client_tls::{ClientTls, Roots};
use crate::net::dial::is_own;
use crate::net::dns::{Resolver, to_alabel};
use crate::net::names;
use crate::net::url::{BindTo, ListenUrl, Scheme};
use crate::options::Key;
use crate::settings::Settings;
use crate::values::{self, Networks};

/// The options.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    routes: Routes,
    from: Networks,
    logins: Option<PathBuf>,
    tls_ca: Option<PathBuf>,
    /// The queue's folder.
    pub dir: PathBuf,
    retry_policy: RetryPolicy,
}

impl RelayConfig {
    /// Reads the options; `None` without `--relay`. Clients of `from` may relay without a login.
    ///
    /// # Errors
    /// The option and what is wrong with it.
    pub fn new(
        given: &Settings,
        listen: &[ListenUrl],
        from: Networks,
    ) -> Result<Option<Self>, Failure> {
        let mut routes = Vec::new();
        for value in given.all(Key::Relay) {
            let parsed = value.text.parse::<Route>();
            let route = parsed.map_err(|expected| value.invalid(expected))?;
            if listen.iter().any(|url| is_itself(&route, url)) {
                return Err(value.fault(own_listener(&route)));
            }
            routes.push(route);
        }
        let file = |key| given.one(key).map(|value| PathBuf::from(value.text));
        let duration = |key| {
            let value = given.one(key);
            let found = value
                .as_ref()
                .and_then(|value| values::duration(&value.text));
            found.ok_or_else(|| match value {
                Some(value) => value.invalid("a duration such as 5m"),
                None => given.fault(key, "needs a value"),
            })
        };
        // Parsed also without a relay, so that a wrong value is always reported.
        let retry_policy = RetryPolicy {
            retry: duration(Key::Retry)?,
            retry_for: duration(Key::RetryFor)?,
        };
        if routes.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            routes: Routes::new(routes).map_err(|why| given.fault(Key::Relay, why))?,
            from,
            logins: file(Key::RelayAuth),
            tls_ca: file(Key::TlsCa),
            dir: file(Key::Queue).unwrap_or_else(|| PathBuf::from("queue")),
            retry_policy,
        }))
    }

    /// Reads the files. Mail is not sent to this host itself, where it listens or has `inherited` a socket,
    /// whose place is written as in a URL.
    ///
    /// # Errors
    /// The file and what is wrong with it; no roots although a certificate has to be verified; a hop that is an
    /// inherited socket.
    pub fn load(
        &self,
        (hostname, domain, chroot): (&str, &str, bool),
        listen: &[ListenUrl],
        inherited: &[String],
    ) -> Result<RelayRules, Failure> {
        let sockets = inherited.iter().map(|at| format!("smtp:{at}").parse());
        let sockets: Vec<ListenUrl> = sockets.filter_map(Result::ok).collect();
        let mut addresses = Vec::new();
        for url in listen.iter().chain(&sockets) {
            addresses.append(&mut own(url));
        }
        let is_own = |route: &&Route| sockets.iter().any(|url| is_itself(route, url));
        if let Some(route) = self.routes.all().iter().find(is_own) {
            let why = own_listener(route);
            return Err(Failure::Usage(format!("--relay: {why}")));
        }
        let verifies = self.routes.all().iter().any(Route::verifies);
        let roots = match &self.tls_ca {
            Some(path) => Some(Roots::load(path)),
            None => verifies.then(Roots::system),
        };
        let roots = roots.transpose().map_err(Failure::File)?;
        let logins = match &self.logins {
            Some(path) => Logins::load(path)?,
            None => Logins::default(),
        };
        Ok(RelayRules {
            routes: self.routes.clone(),
            from: self.from.clone(),
            logins,
            retry_policy: self.retry_policy,
            hostname: hostname.to_owned(),
            domain: to_alabel(domain).unwrap_or_default(),
            threads: MAX_THREADS,
            tls: ClientTls::new(roots).map_err(Failure::System)?,
            resolver: Resolver::system(chroot),
            own: addresses,
        })
    }

    /// The next hops.
    pub(super) const fn routes(&self) -> &Routes {
        &self.routes
    }

    /// A description of the routes, one sentence a line.
    pub fn describe(&self) -> String {
        let line = |route: &Route| match route.domains.as_slice() {
            [] => format!("\nother mail goes to {route}"),
            domains => format!("\nmail for {} goes to {route}", domains.join(", ")),
        };
        self.routes.all().iter().map(line).collect()
    }
}

fn own_listener(route: &Route) -> String {
    format!("'{route}' is one of the own listeners; name another server")
}

/// Where this host listens for SMTP.
fn own(url: &ListenUrl) -> Vec<SocketAddr> {
    match &url.at {
        BindTo::Tcp { host, port } if url.scheme != Scheme::Lmtp => {
            let all = || vec![Ipv4Addr::UNSPECIFIED.into()];
            let own = host.as_deref().map_or_else(all, addresses).into_iter();
            own.map(|ip| SocketAddr::new(ip, *port)).collect()
        }
        _ => Vec::new(),
    }
}

/// True if a hop is a listener of this server. Names are only looked up in the hosts file.
fn is_itself(route: &Route, url: &ListenUrl) -> bool {
    match (&route.kind, &url.at) {
        (RouteKind::Socket(path), BindTo::Unix { path: own, .. }) => path == own,
        (
            RouteKind::Host { host, port, .. },
            BindTo::Tcp {
                host: own,
                port: at,
            },
        ) if port == at => {
            let own = own.as_deref().map(addresses);
            addresses(host).into_iter().any(|ip| match &own {
                Some(own) if !own.iter().any(IpAddr::is_unspecified) => own.contains(&ip),
                _ => is_own(ip),
            })
        }
        _ => false,
    }
}

fn addresses(host: &str) -> Vec<IpAddr> {
    let found = names::addresses(host).unwrap_or_default().into_iter();
    found.map(|ip| ip.to_canonical()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::time::Duration;

    use super::*;

    #[test]
    fn hops_that_are_own_listeners() {
        for (listen, hop, expected) in [
            ("smtp://127.0.0.1:26", "smtp://127.0.0.1:26", true),
            ("smtp://127.0.0.1:26", "smtp://localhost.:26", true),
            ("smtp://LocalHost:26", "smtp://127.0.0.1:26", true),
            (
                "smtp://127.0.0.1:26",
                "submission://[::ffff:127.0.0.1]:26",
                true,
            ),
            ("smtp://:26", "smtp://127.0.0.9:26", true),
            ("smtp://[::]:26", "smtp://0.0.0.0:26", true),
            ("lmtp:/run/l", "lmtp:/run/l", true),
            ("smtp://127.0.0.1:26", "smtp://127.0.0.1:27", false),
            ("smtp://127.0.0.1:26", "smtp://127.0.0.2:26", false),
            ("smtp://:26", "smtp://192.0.2.1:26", false),
            ("smtp://:26", "smtp://no.such.test:26", false),
            ("lmtp:/run/l", "lmtp:/run/m", false),
        ] {
            let found = is_itself(&hop.parse().unwrap(), &listen.parse().unwrap());
            assert_eq!(found, expected, "{hop} at {listen}");
        }
        let own = |url: &str| own(&url.parse().unwrap());
        assert_eq!(own("smtp://:26"), ["0.0.0.0:26".parse().unwrap()]);
        assert_eq!(own("smtp://[::1]:26"), ["[::1]:26".parse().unwrap()]);
        assert!(own("lmtp://:26").is_empty() && own("smtp:/run/s").is_empty());
    }

    #[test]
    fn hops_that_are_inherited_sockets() {
        let load = |hop: &str| {
            let config = RelayConfig {
                routes: Routes::new(vec![hop.parse().unwrap()]).unwrap(),
                from: Networks::default(),
                logins: None,
                tls_ca: None,
                dir: PathBuf::from("queue"),
                retry_policy: RetryPolicy {
                    retry: Duration::from_secs(300),
                    retry_for: Duration::from_secs(600),
                },
            };
            let sockets = ["//0.0.0.0:26", "//[::1]:27", "/run/own"].map(str::to_owned);
            config.load(("mx.test", "a.test", false), &[], &sockets)
        };
        for own in ["smtp://127.0.0.1:26", "smtp://[::1]:27", "lmtp:/run/own"] {
            let said = load(own).err().unwrap().to_string();
            assert!(said.contains("one of the own listeners"), "{said}");
        }
        for other in [
            "smtp://192.0.2.1:26",
            "smtp://127.0.0.1:27",
            "lmtp:/run/other",
            "mx:",
        ] {
            assert!(load(other).is_ok(), "{other}");
        }
    }
}
